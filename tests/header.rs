//! The C header is what the source says, and every exported function keeps the rules of the border.
//!
//! `DMSNAP_UPDATE_HEADER=1 cargo test --test header` writes the header.

#![cfg(feature = "capi")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

/// In the order in which their functions stand in the header.
const SOURCES: &[&str] = &[
    "version",
    "error",
    "values",
    "storage_ops",
    "storage",
    "options",
    "image",
    "io",
    "merge",
    "info",
    "amend",
    "check_image",
    "check",
    "recover",
    "descriptor",
    "plan",
    "load",
    "store",
    "map",
    "exception",
    "job",
];

/// Files without anything for C.
const PLUMBING: &[&str] = &["mod", "guard", "handle"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> PathBuf {
    root().join("src/ffi").join(name).with_extension("rs")
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = SOURCES
        .iter()
        .fold(builder, |builder, name| builder.with_src(source(name)));
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

fn committed() -> String {
    fs::read_to_string(root().join("include/dmsnap.h")).unwrap_or_default()
}

#[test]
fn test_header_is_what_the_source_says() {
    let generated = generated();
    if std::env::var_os("DMSNAP_UPDATE_HEADER").is_some() {
        fs::create_dir_all(root().join("include")).unwrap();
        fs::write(root().join("include/dmsnap.h"), &generated).unwrap();
    }
    let committed = committed();
    let pairs = committed.lines().zip(generated.lines()).enumerate();
    for (number, (there, wanted)) in pairs {
        let line = number + 1;
        assert_eq!(
            there, wanted,
            "include/dmsnap.h:{line} differs from what src/ffi says"
        );
    }
    assert!(
        committed == generated,
        "include/dmsnap.h is shorter or longer than src/ffi says"
    );
}

#[test]
fn test_every_source_file_goes_into_the_header() {
    let mut names: Vec<String> = fs::read_dir(root().join("src/ffi"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut listed: Vec<&str> = SOURCES.iter().chain(PLUMBING).copied().collect();
    names.sort();
    listed.sort_unstable();
    assert_eq!(names, listed);
}

/// Value of a macro, other macros filled in.
fn macro_value(header: &str, name: &str) -> String {
    let start = format!("#define {name} ");
    let line = header.lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {name}"))[start.len()..].to_owned()
}

#[test]
fn test_version_macros_are_the_packages_version() {
    let header = committed();
    let number = |part: &str| -> u32 {
        let value = macro_value(&header, &format!("DMSNAP_VERSION_{part}"));
        value.parse().unwrap()
    };
    let (major, minor, patch) = (number("MAJOR"), number("MINOR"), number("PATCH"));
    assert_eq!(
        format!("{major}.{minor}.{patch}"),
        env!("CARGO_PKG_VERSION")
    );
    // That the C compiler computes the same number from it is tested in ffi-tests.
    assert_eq!(
        macro_value(&header, "DMSNAP_VERSION_NUMBER"),
        "(((DMSNAP_VERSION_MAJOR << 16) | (DMSNAP_VERSION_MINOR << 8)) | DMSNAP_VERSION_PATCH)"
    );
}

#[test]
fn test_soname_has_the_major_version() {
    let build = fs::read_to_string(root().join("build.rs")).unwrap();
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    assert!(
        build.contains(&format!("-soname,libdmsnap.so.{major}\"")),
        "{build}"
    );
}

/// An exported function: its name, and its source from the attribute to the closing brace.
fn exported(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let pieces = text.split("#[unsafe(no_mangle)]\n").skip(1);
    let functions = pieces.map(|piece| {
        let end = piece.find("\n}\n").unwrap_or(piece.len());
        let name = piece
            .split("fn ")
            .nth(1)
            .unwrap()
            .split('(')
            .next()
            .unwrap();
        (name.to_owned(), piece[..end].to_owned())
    });
    functions.collect()
}

#[test]
fn test_every_exported_function_is_guarded() {
    let mut count = 0;
    for name in SOURCES {
        for (function, text) in exported(&source(name)) {
            let body = text.split_once(" {\n").unwrap().1.trim_start();
            let body = body.strip_prefix("super::guard::").unwrap_or(body);
            let guarded = body.starts_with("guard(|| ") || body.starts_with("guard_or(");
            assert!(
                guarded,
                "{function} in {name}.rs does not begin with the guard"
            );
            // One expression: the guard's parenthesis closes where the function ends.
            let depth_at = |at: usize| {
                let before = &body[..at];
                before.matches('(').count() as i64 - before.matches(')').count() as i64
            };
            let mut ends = body
                .match_indices(')')
                .filter(|(at, _)| depth_at(at + 1) == 0);
            let (end, _) = ends.next().unwrap();
            let rest = body[end + 1..].trim_matches([';', '\n', ' ']);
            assert!(
                rest.is_empty(),
                "{function} in {name}.rs does {rest:?} outside the guard"
            );
            count += 1;
        }
    }
    assert!(count > 100, "only {count} exported functions were found");
}

#[test]
fn test_every_exported_function_and_field_is_documented() {
    let header = committed();
    let lines: Vec<&str> = header.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let declares = line.contains("dmsnap_") && line.contains('(') && !line.starts_with(' ');
        if declares && !line.starts_with("#") && !line.starts_with("/*") {
            assert_eq!(lines[index - 1], " */", "no comment above {line}");
        }
    }
}
