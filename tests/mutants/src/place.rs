//! Where mutants stand in a file, and how each is put to sleep there.

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, BinOp, Block, Expr, ExprBinary, ExprUnary, ImplItemConst, ItemConst, ItemStatic,
    ReturnType, Signature, TraitItemConst, Type,
};

use crate::edits::Edits;
use crate::{Mutant, Position};

/// The changes that put these mutants into a file.
pub(crate) fn edits(source: &str, mutants: &[Mutant]) -> Edits {
    let file = syn::parse_file(source).expect("a file that compiles");
    let mut by_place: BTreeMap<(Position, &'static str), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        let genre = match mutant.genre.as_str() {
            "FnValue" => "function",
            "BinaryOperator" | "UnaryOperator" => "operator",
            "MatchArmGuard" => "guard",
            "MatchArm" => "arm",
            _ => continue,
        };
        by_place
            .entry((mutant.span.start, genre))
            .or_default()
            .push(mutant);
    }
    let mut placer = Placer {
        source,
        by_place,
        edits: Edits::default(),
    };
    placer.visit_file(&file);
    placer.edits
}

struct Placer<'a> {
    source: &'a str,
    by_place: BTreeMap<(Position, &'static str), Vec<&'a Mutant>>,
    edits: Edits,
}

fn is(id: u32) -> String {
    format!("crate::mutant::is({id})")
}

impl Placer<'_> {
    fn take(&mut self, span: Span, genre: &'static str) -> Vec<Mutant> {
        let LineColumn { line, column } = span.start();
        let place = Position {
            line,
            column: column + 1,
        };
        let found = self.by_place.remove(&(place, genre)).unwrap_or_default();
        found.into_iter().cloned().collect()
    }

    fn text(&self, range: Range<usize>) -> &str {
        &self.source[range]
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let (Some(first), false) = (block.stmts.first(), hides_its_type(&signature.output)) else {
            return;
        };
        let start = first.span().byte_range().start;
        for mutant in self.take(first.span(), "function") {
            let value = &mutant.replacement;
            let text = format!("if {} {{ return {value}; }} ", is(mutant.id));
            self.edits
                .around(vec![mutant.id], start..start, text, String::new(), None);
        }
    }

    /// Both sides are computed once, then what is made of them depends on who is awake.
    fn plain(&mut self, binary: &ExprBinary, mutants: &[Mutant], by_reference: bool) {
        let op = binary.op.span().byte_range();
        let operator = self.text(op.clone()).to_owned();
        let deref = if by_reference { "*" } else { "" };
        let (open, between, end) = if by_reference {
            ("(match (&(", "), &(", "))")
        } else {
            ("(match (", ", ", ")")
        };
        let choice = choice(mutants, &operator, |operator| {
            format!("{deref}l {operator} {deref}r")
        });
        let close = format!("{end} {{ (l, r) => {choice} }})");
        self.edits.around(
            ids(mutants),
            range(binary),
            open.to_owned(),
            close,
            Some((op, between.to_owned())),
        );
    }

    /// The right side is computed only if the left one asks for it, in the mutant too.
    fn lazy(&mut self, binary: &ExprBinary, mutant: &Mutant) {
        let op = binary.op.span().byte_range();
        let is = is(mutant.id);
        let (between, close) = match binary.op {
            BinOp::And(_) => (format!(") != {is} {{"), format!("}} else {{ {is} }})")),
            _ => (format!(") == {is} {{"), format!("}} else {{ !{is} }})")),
        };
        self.edits.around(
            vec![mutant.id],
            range(binary),
            "(if (".to_owned(),
            close,
            Some((op, between)),
        );
    }

    /// The place on the left is named again for each mutant, so that nothing inside of it can be one.
    fn assignment(&mut self, binary: &ExprBinary, mutants: &[Mutant]) {
        let (left, right) = (range(&*binary.left), range(&*binary.right));
        let (op, left_text) = (
            self.text(binary.op.span().byte_range()).to_owned(),
            self.text(left.clone()).to_owned(),
        );
        let choice = choice(mutants, &op, |operator| format!("{left_text} {operator} r"));
        let close = format!(") {{ r => {choice} }})");
        let gone = left.start..right.start;
        self.edits.around(
            ids(mutants),
            range(binary),
            String::new(),
            close,
            Some((gone, "(match (".to_owned())),
        );
    }
}

/// An expression with the operator of the mutant that is awake, or else the one that the source has.
fn choice(mutants: &[Mutant], operator: &str, with: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for mutant in mutants {
        text += &format!(
            "if {} {{ {} }} else ",
            is(mutant.id),
            with(&mutant.replacement)
        );
    }
    text + &format!("{{ {} }}", with(operator))
}

fn ids(mutants: &[Mutant]) -> Vec<u32> {
    mutants.iter().map(|mutant| mutant.id).collect()
}

fn range(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// Whether a function returns `impl Trait`, which stands for one type and not for that of another value too.
fn hides_its_type(output: &ReturnType) -> bool {
    matches!(output, ReturnType::Type(_, kind) if matches!(**kind, Type::ImplTrait(_)))
}

/// Whether a condition binds names, which no other form does.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => {
            binds(&binary.left) || binds(&binary.right)
        }
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Placer<'_> {
    // In a constant nobody can be asked which mutant is awake.
    fn visit_item_const(&mut self, _: &'ast ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast TraitItemConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.sig.constness.is_none() {
            self.function(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if item.sig.constness.is_none() {
            self.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        let mutants = self.take(binary.op.span(), "operator");
        let mut whole = true;
        if !mutants.is_empty() {
            match binary.op {
                BinOp::And(_) | BinOp::Or(_) => {
                    if let [mutant] = &mutants[..]
                        && !binds(&binary.left)
                        && !binds(&binary.right)
                    {
                        self.lazy(binary, mutant);
                    }
                }
                BinOp::Eq(_)
                | BinOp::Ne(_)
                | BinOp::Lt(_)
                | BinOp::Le(_)
                | BinOp::Gt(_)
                | BinOp::Ge(_) => {
                    self.plain(binary, &mutants, true);
                }
                BinOp::Add(_)
                | BinOp::Sub(_)
                | BinOp::Mul(_)
                | BinOp::Div(_)
                | BinOp::Rem(_)
                | BinOp::BitAnd(_)
                | BinOp::BitOr(_)
                | BinOp::BitXor(_)
                | BinOp::Shl(_)
                | BinOp::Shr(_) => self.plain(binary, &mutants, false),
                _ => {
                    self.assignment(binary, &mutants);
                    whole = false;
                }
            }
        }
        if whole {
            self.visit_expr(&binary.left);
        }
        self.visit_expr(&binary.right);
    }

    fn visit_expr_unary(&mut self, unary: &'ast ExprUnary) {
        let op = unary.op.span().byte_range();
        if let [mutant] = &self.take(unary.op.span(), "operator")[..] {
            let operator = self.text(op.clone()).to_owned();
            let close = format!(
                ") {{ v => if {} {{ v }} else {{ {operator}v }} }})",
                is(mutant.id)
            );
            self.edits.around(
                vec![mutant.id],
                range(unary),
                String::new(),
                close,
                Some((op, "(match (".to_owned())),
            );
        }
        self.visit_expr(&unary.expr);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        let deleted = self.take(arm.span(), "arm");
        if let Some((_, guard)) = &arm.guard {
            for mutant in self.take(guard.span(), "guard") {
                let open = match mutant.replacement.as_str() {
                    "true" => format!("{} || (", is(mutant.id)),
                    _ => format!("!{} && (", is(mutant.id)),
                };
                self.edits
                    .around(vec![mutant.id], range(&**guard), open, ")".to_owned(), None);
            }
            for mutant in deleted {
                let open = format!("!{} && (", is(mutant.id));
                self.edits
                    .around(vec![mutant.id], range(&**guard), open, ")".to_owned(), None);
            }
        } else {
            for mutant in deleted {
                let end = range(&arm.pat).end;
                self.edits.around(
                    vec![mutant.id],
                    end..end,
                    format!(" if !{}", is(mutant.id)),
                    String::new(),
                    None,
                );
            }
        }
        visit::visit_arm(self, arm);
    }
}
