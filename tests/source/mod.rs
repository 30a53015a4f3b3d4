//! Just enough of Rust's grammar to find paths and words in source text.

use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, keyword or number.
    Word(String),
    /// `::`
    PathSeparator,
    /// Any other character that is not white space.
    Symbol(char),
}

/// The tokens of `text` with their line numbers; comments, strings and characters left out.
pub(crate) fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut index = 0;
    while index < chars.len() {
        let start = index;
        match at(index) {
            '/' if at(index + 1) == '/' => index = skip_line(&chars, index),
            '/' if at(index + 1) == '*' => index = skip_block_comment(&chars, index),
            '"' => index = skip_string(&chars, index),
            'r' | 'b' | 'c' if raw_string_hashes(&chars, index).is_some() => {
                index = skip_raw_string(&chars, index);
            }
            '\'' if is_char_literal(&chars, index) => index = skip_char(&chars, index),
            ':' if at(index + 1) == ':' => {
                tokens.push((line, Token::PathSeparator));
                index += 2;
            }
            c if is_word(c) => {
                while is_word(at(index)) {
                    index += 1;
                }
                tokens.push((line, Token::Word(chars[start..index].iter().collect())));
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push((line, Token::Symbol(c)));
                }
                index += 1;
            }
        }
        line += chars[start..index.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn skip_line(chars: &[char], from: usize) -> usize {
    chars[from..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(chars.len(), |len| from + len)
}

fn skip_block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut index = from;
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

/// From the opening quote to behind the closing one.
fn skip_string(chars: &[char], from: usize) -> usize {
    let mut index = from + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// How many `#` open a raw string here, if one starts here.
fn raw_string_hashes(chars: &[char], from: usize) -> Option<usize> {
    let prefix = chars[from..]
        .iter()
        .take_while(|c| matches!(c, 'r' | 'b' | 'c'))
        .count();
    if prefix > 2 || chars[from + prefix - 1] != 'r' {
        return None;
    }
    let hashes = chars[from + prefix..]
        .iter()
        .take_while(|c| **c == '#')
        .count();
    (chars.get(from + prefix + hashes) == Some(&'"')).then_some(hashes)
}

fn skip_raw_string(chars: &[char], from: usize) -> usize {
    let hashes = raw_string_hashes(chars, from).unwrap_or(0);
    let open = from + chars[from..].iter().position(|c| *c == '"').unwrap_or(0);
    let mut index = open + 1;
    while index < chars.len() {
        let closing = chars[index + 1..].iter().take_while(|c| **c == '#').count();
        if chars[index] == '"' && closing >= hashes {
            return index + 1 + hashes;
        }
        index += 1;
    }
    index
}

/// A quote opens a character unless it is a lifetime.
fn is_char_literal(chars: &[char], from: usize) -> bool {
    chars.get(from + 1) == Some(&'\\') || chars.get(from + 2) == Some(&'\'')
}

fn skip_char(chars: &[char], from: usize) -> usize {
    let first = from
        + if chars.get(from + 1) == Some(&'\\') {
            3
        } else {
            2
        };
    chars[first.min(chars.len())..]
        .iter()
        .position(|c| *c == '\'')
        .map_or(chars.len(), |len| first + len + 1)
}

/// The names directly below the crate's root that paths in `text` lead to, with their lines.
///
/// `module` is the file's own module path. Handles `crate::a::b`, `crate::{a, b::c}` and any number of `super::`, also inside
/// inline modules.
pub(crate) fn modules_named(text: &str, module: &[String]) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut inline_modules: Vec<usize> = Vec::new();
    let mut depth = 0;
    for (index, (_, token)) in tokens.iter().enumerate() {
        let word = |back: usize| index.checked_sub(back).map(|index| &tokens[index].1);
        match token {
            Token::Symbol('{') => {
                depth += 1;
                if word(2) == Some(&Token::Word("mod".to_owned())) {
                    inline_modules.push(depth);
                }
            }
            Token::Symbol('}') => {
                if inline_modules.last() == Some(&depth) {
                    inline_modules.pop();
                }
                depth -= 1;
            }
            Token::Word(word) if word == "crate" => {
                found.extend(path_heads(&tokens, index, module, 0));
            }
            Token::Word(first) if first == "super" && word(1) != Some(&Token::PathSeparator) => {
                let below = module.len() + inline_modules.len();
                found.extend(path_heads(&tokens, index, module, below));
            }
            _ => {}
        }
    }
    found
}

/// The top-level names that the path or use-tree at `index` (`crate` or `super`) leads to.
///
/// `below` is how many modules the path's starting point lies below the root, 0 for `crate`. A path that ends below the root
/// again names only the module it stays in, `module[0]`.
fn path_heads(
    tokens: &[(usize, Token)],
    index: usize,
    module: &[String],
    below: usize,
) -> Vec<(usize, String)> {
    let line = tokens[index].0;
    let mut rest: VecDeque<&Token> = tokens[index + 1..].iter().map(|(_, token)| token).collect();
    let mut level = below.saturating_sub(1);
    loop {
        if rest.front() != Some(&&Token::PathSeparator) {
            return Vec::new();
        }
        rest.pop_front();
        if rest.front() != Some(&&Token::Word("super".to_owned())) {
            break;
        }
        rest.pop_front();
        level = level.saturating_sub(1);
    }
    if level > 0 {
        return vec![(line, module[0].clone())];
    }
    match rest.pop_front() {
        Some(Token::Word(name)) => vec![(line, name.clone())],
        Some(Token::Symbol('{')) => group_heads(rest)
            .into_iter()
            .map(|name| (line, name))
            .collect(),
        _ => Vec::new(),
    }
}

/// First names of the members of a use group whose brace was just read.
fn group_heads(rest: VecDeque<&Token>) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 1;
    let mut expecting = true;
    for token in rest {
        match token {
            Token::Symbol('{') => depth += 1,
            Token::Symbol('}') => depth -= 1,
            Token::Symbol(',') if depth == 1 => expecting = true,
            Token::Word(name) if expecting => {
                heads.push(name.clone());
                expecting = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

#[test]
fn test_tokens_leave_out_comments_strings_and_characters() {
    let text =
        "a /* b /* c */ d */ // e\n\"f \\\" g\" r#\"h \" i\"# b\"j\" '\\'' 'k' 'l: 'static m::n";
    let words: Vec<String> = tokens(text)
        .into_iter()
        .filter_map(|(_, token)| match token {
            Token::Word(word) => Some(word),
            _ => None,
        })
        .collect();
    assert_eq!(words, ["a", "b", "l", "static", "m", "n"]);
    assert_eq!(tokens(text).last().map(|(line, _)| *line), Some(2));
}

#[test]
fn test_modules_named_resolves_crate_super_and_groups() {
    let module = ["store".to_owned(), "plan".to_owned()];
    let named = |text: &str| -> Vec<String> {
        modules_named(text, &module)
            .into_iter()
            .map(|(_, name)| name)
            .collect()
    };
    assert_eq!(named("use crate::units::ByteRange;"), ["units"]);
    assert_eq!(
        named("use crate::{error::{Error, Result}, image, units as u};"),
        ["error", "image", "units"]
    );
    assert_eq!(named("fn f() { crate::image::open(); }"), ["image"]);
    assert_eq!(named("use super::pins::Pins;"), ["store"]);
    assert_eq!(named("use super::super::image::Image;"), ["image"]);
    assert_eq!(
        named("use super::super::{image::Image, units};"),
        ["image", "units"]
    );
    assert_eq!(
        named("mod tests { use super::super::Store; } use super::super::image;"),
        ["store", "image"]
    );
    assert_eq!(
        named("pub(crate) fn f() {} pub(super) fn g() {}"),
        Vec::<String>::new()
    );
    assert_eq!(
        named("// crate::image\n\"crate::image\""),
        Vec::<String>::new()
    );
}
