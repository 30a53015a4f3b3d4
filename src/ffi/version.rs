//! Versions of header and library.

use std::ffi::{CStr, c_char};

use super::guard::guard_or;

/// Major version of the header.
pub const DMSNAP_VERSION_MAJOR: u32 = 0;
/// Minor version of the header.
pub const DMSNAP_VERSION_MINOR: u32 = 1;
/// Patch level of the header.
pub const DMSNAP_VERSION_PATCH: u32 = 0;
/// The three in one number that can be compared.
pub const DMSNAP_VERSION_NUMBER: u32 =
    (DMSNAP_VERSION_MAJOR << 16) | (DMSNAP_VERSION_MINOR << 8) | DMSNAP_VERSION_PATCH;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// Version of the library as text, such as "0.1.0". Lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_version() -> *const c_char {
    guard_or(c"".as_ptr(), || VERSION.as_ptr())
}

/// Version of the library as a number, to be compared with `DMSNAP_VERSION_NUMBER`, which is the
/// header's.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_version_number() -> u32 {
    guard_or(0, || DMSNAP_VERSION_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_versions_are_the_packages() {
        let package = [
            env!("CARGO_PKG_VERSION_MAJOR"),
            env!("CARGO_PKG_VERSION_MINOR"),
            env!("CARGO_PKG_VERSION_PATCH"),
        ];
        let numbers = package.map(|part| part.parse::<u32>().unwrap());
        assert_eq!(
            numbers,
            [
                DMSNAP_VERSION_MAJOR,
                DMSNAP_VERSION_MINOR,
                DMSNAP_VERSION_PATCH
            ]
        );
        assert_eq!(
            dmsnap_version_number(),
            numbers[0] * 65536 + numbers[1] * 256 + numbers[2]
        );
        assert_eq!(VERSION.to_str().unwrap(), package.join("."));
    }
}
