//! Loop devices and file systems on them. Needs root: without it a test is skipped with a message, but fails where `CI` is `true`.
