//! Gives the shared library its SONAME, which rustc leaves out. Nothing else is done at build time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdmsnap.so.0");
    }
}
