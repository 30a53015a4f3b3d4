//! Here the library takes its locks and atomics from `shuttle`: see src/sync/mod.rs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=shuttle");
}
