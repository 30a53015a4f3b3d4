//! Guards the architecture: which module may use which, where `unsafe` may stand, how exported functions are made.
//!
//! The layers are drawn in docs/design.md. The compiler cannot check them, since all of them are one crate. So this test reads the
//! source: it resolves every path that starts with `crate` or `super` to the top-level module it names and compares that with a
//! list. Comments and strings are removed first. Tests inside the source files obey the same rules.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Token, modules_named, tokens};

/// Top-level module, and those it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("error", &[]),
    ("units", &["error"]),
    ("format", &["units", "error"]),
    ("storage", &["units", "error", "sync"]),
    ("store", &["format", "units", "error", "sync"]),
    (
        "image",
        &["store", "storage", "format", "units", "error", "sync"],
    ),
    // What the tests of the table need; nothing may use it.
    ("testing", &["store", "units"]),
    (
        "ffi",
        &["image", "store", "storage", "format", "units", "error"],
    ),
];

/// Modules that promise the compiler to hold no unsafe code, with all below them.
const FORBID_UNSAFE: &[&str] = &[
    "format/mod.rs",
    "store/mod.rs",
    "image/mod.rs",
    "units.rs",
    "error.rs",
    "sync/mod.rs",
    "storage/testing.rs",
];

/// Modules of which some files hold unsafe code: each of the others promises it by itself.
const FORBID_UNSAFE_BESIDE: &[(&str, &[&str])] = &[("storage", &["file", "testing"])];

/// Where unsafe code may stand: system calls, and the C boundary.
const UNSAFE_HERE: &[&str] = &["storage/file", "ffi/"];

/// Words that would be a second name for a thing that has one.
const OTHER_NAMES: &[&str] = &["overlay", "delta"];

const MAX_LINES: usize = 600;

struct SourceFile {
    /// Relative to src/.
    path: String,
    text: String,
}

impl SourceFile {
    /// The module path, from the crate's root: `["store", "merge"]`.
    fn module(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        stem.split('/').map(str::to_owned).collect()
    }

    fn is_in(&self, top: &str) -> bool {
        self.module().first().is_some_and(|first| first == top)
    }
}

fn collect(dir: &Path, root: &Path, files: &mut Vec<SourceFile>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            files.push(SourceFile {
                path: relative,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

fn source_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(
        files.len() > 10,
        "the source was not found below {}",
        root.display()
    );
    files
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn test_modules_use_only_what_lies_below_them() {
    let mut violations = Vec::new();
    for file in source_files() {
        let module = file.module();
        let top = module[0].as_str();
        // lib.rs re-exports from all layers; the tool is another crate and sees only what is public.
        if top == "lib" || top == "bin" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == top) else {
            violations.push(format!(
                "src/{}: module {top} has no place among the layers",
                file.path
            ));
            continue;
        };
        for (line, used) in modules_named(&file.text, &module) {
            if used != top && !allowed.contains(&used.as_str()) {
                let path = &file.path;
                violations.push(format!("src/{path}:{line}: {top} must not use `{used}`"));
            }
        }
    }
    report(&violations);
}

#[test]
fn test_the_tool_has_no_way_round_the_public_api() {
    let mut violations = Vec::new();
    for file in source_files().iter().filter(|file| file.is_in("bin")) {
        for (line, token) in tokens(&file.text) {
            if token == Token::Word("include".to_owned()) {
                violations.push(format!("src/{}:{line}: source from elsewhere", file.path));
            }
        }
        if file.text.contains("#[path") {
            violations.push(format!("src/{}: source from elsewhere", file.path));
        }
    }
    report(&violations);
}

#[test]
fn test_unsafe_code_stands_only_at_the_borders() {
    let mut violations = Vec::new();
    for file in source_files() {
        if UNSAFE_HERE
            .iter()
            .any(|prefix| file.path.starts_with(prefix))
        {
            continue;
        }
        for (line, token) in tokens(&file.text) {
            if token == Token::Word("unsafe".to_owned()) {
                violations.push(format!("src/{}:{line}: unsafe code", file.path));
            }
        }
    }
    for file in source_files() {
        let module = file.module();
        let of_its_own = FORBID_UNSAFE_BESIDE
            .iter()
            .any(|(top, but)| match &module[..] {
                [first, second, ..] => first == top && !but.contains(&second.as_str()),
                _ => false,
            });
        let promises = of_its_own || FORBID_UNSAFE.contains(&file.path.as_str());
        if promises && !file.text.contains("#![forbid(unsafe_code)]") {
            let path = &file.path;
            violations.push(format!("src/{path}: lacks #![forbid(unsafe_code)]"));
        }
    }
    report(&violations);
}

/// Else the schedules of tests/interleavings would not see them.
#[test]
fn test_locks_and_atomics_come_from_one_place() {
    let mut violations = Vec::new();
    for file in source_files() {
        let top = &file.module()[0];
        if !["storage", "store", "image"].contains(&top.as_str()) || file.path.contains("testing") {
            continue;
        }
        // Tests may use what they like, and stand last.
        let code = file.text.split("\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            if line.contains("std::sync") {
                let path = &file.path;
                violations.push(format!(
                    "src/{path}:{}: std::sync, not crate::sync",
                    number + 1
                ));
            }
        }
    }
    report(&violations);
}

/// The exported functions of a file, with whether the body is one call of a guard and nothing else.
fn exported_functions(text: &str) -> Vec<(usize, String, bool)> {
    let word = |text: &str| Token::Word(text.to_owned());
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (index, window) in tokens.windows(3).enumerate() {
        let [(line, external), (_, function), (_, Token::Word(name))] = window else {
            continue;
        };
        let exported = *external == word("extern") && *function == word("fn");
        if !exported || !name.starts_with("dmsnap_") {
            continue;
        }
        let mut body = tokens[index..].iter().map(|(_, token)| token).peekable();
        body.find(|token| **token == Token::Symbol('{'));
        let mut first = body.next();
        while body.next_if_eq(&&Token::PathSeparator).is_some() {
            first = body.next();
        }
        let guarded = [word("guard"), word("guard_or")]
            .iter()
            .any(|guard| first == Some(guard));
        // The call's closing parenthesis must end the body.
        let mut depth = 0;
        let mut rest = body.skip_while(|token| {
            depth +=
                i32::from(**token == Token::Symbol('(')) - i32::from(**token == Token::Symbol(')'));
            depth > 0
        });
        rest.next();
        let alone = rest.find(|token| **token != Token::Symbol(';')) == Some(&Token::Symbol('}'));
        found.push((*line, name.clone(), guarded && alone));
    }
    found
}

#[test]
fn test_every_exported_function_is_one_call_of_the_guard() {
    let mut violations = Vec::new();
    let mut count = 0;
    for file in source_files().iter().filter(|file| file.is_in("ffi")) {
        let functions = exported_functions(&file.text);
        let marks = tokens(&file.text)
            .iter()
            .filter(|(_, token)| *token == Token::Word("no_mangle".to_owned()))
            .count();
        if marks != functions.len() {
            violations.push(format!(
                "src/{}: exports something that is no dmsnap_ function",
                file.path
            ));
        }
        count += functions.len();
        for (line, name, guarded) in functions {
            if !guarded {
                violations.push(format!("src/{}:{line}: {name}", file.path));
            }
        }
    }
    assert!(count > 50, "only {count} exported functions were found");
    report(&violations);
}

#[test]
fn test_files_are_of_a_size_one_can_read() {
    let mut violations = Vec::new();
    for file in source_files() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            violations.push(format!(
                "src/{}: {lines} lines, at most {MAX_LINES}",
                file.path
            ));
        }
    }
    report(&violations);
}

#[test]
fn test_one_thing_has_one_name() {
    let mut violations = Vec::new();
    for file in source_files().iter().filter(|file| !file.is_in("bin")) {
        for (line, token) in tokens(&file.text) {
            let Token::Word(word) = token else { continue };
            let lower = word.to_lowercase();
            if OTHER_NAMES.iter().any(|other| lower.contains(other)) {
                violations.push(format!("src/{}:{line}: `{word}`", file.path));
            }
        }
    }
    report(&violations);
}
