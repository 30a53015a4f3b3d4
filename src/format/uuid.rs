//! Identity of an image: 16 bytes, written the usual way.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Bytes in each group of the text form, which hyphens separate.
const GROUPS: [usize; 5] = [4, 2, 2, 2, 6];
const TEXT_LEN: usize = 36;

/// A UUID. All zero means unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The UUID that means "unknown".
    pub const NIL: Uuid = Uuid([0; 16]);

    /// A version 4 UUID from 16 random bytes.
    pub const fn from_random_bytes(mut random: [u8; 16]) -> Uuid {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        Uuid(random)
    }

    /// Whether this is [`Uuid::NIL`].
    pub fn is_nil(&self) -> bool {
        *self == Uuid::NIL
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter();
        for (index, len) in GROUPS.into_iter().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            for byte in rest.by_ref().take(len) {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = Error;

    /// Reads the form with hyphens, in upper or lower case.
    fn from_str(text: &str) -> Result<Uuid> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "\"{text}\" is not a UUID of the form 01234567-89ab-cdef-0123-456789abcdef"
                ),
            )
        })
    }
}

fn parse(text: &str) -> Option<Uuid> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut groups = text.split('-');
    let mut uuid = Uuid::NIL;
    let mut bytes = uuid.0.iter_mut();
    for len in GROUPS {
        let group = groups.next().filter(|group| group.len() == 2 * len)?;
        // Digits first: zip takes from its left side before it knows that the right one has ended.
        for (digits, byte) in group.as_bytes().chunks_exact(2).zip(bytes.by_ref()) {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            *byte = (high << 4 | low) as u8;
        }
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn test_uuid_text() {
        let uuid: Uuid = "01234567-89ab-CDEF-0123-456789abcdef".parse().unwrap();
        assert_eq!(uuid.0[..5], [0x01, 0x23, 0x45, 0x67, 0x89]);
        assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        for text in [
            "",
            "0123456789abcdef0123456789abcdef",
            "0123456-789ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdeg",
            "01234567-89ab-cdef-0123-456789abcdef0",
            "+1234567-89ab-cdef-0123-456789abcdef",
            "é1234567-89ab-cdef-0123-456789abcde",
        ] {
            assert_eq!(
                text.parse::<Uuid>().unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
        }
    }

    #[test]
    fn test_random_bytes_become_version_4() {
        let text = Uuid::from_random_bytes([0xff; 16]).to_string();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    proptest! {
        #[test]
        fn test_uuid_round_trip(bytes: [u8; 16]) {
            prop_assert_eq!(Uuid(bytes).to_string().parse::<Uuid>().unwrap(), Uuid(bytes));
        }

        #[test]
        fn test_any_text_parses_without_panic(text in ".{0,40}") {
            let _ = text.parse::<Uuid>();
        }
    }
}
