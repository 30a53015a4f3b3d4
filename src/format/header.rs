//! The header: the first 16 bytes of chunk 0, the only part of that chunk that the kernel reads.

use super::array_at;
use crate::error::{Error, ErrorKind, Result};
use crate::units::ChunkSize;

/// The first four bytes of every store, "SnAp".
pub const SNAP_MAGIC: [u8; 4] = *b"SnAp";

/// The only version of the format.
pub const DISK_VERSION: u32 = 1;

/// Bytes of the header that have a meaning.
pub const HEADER_SIZE: usize = 16;

const MAGIC_OFFSET: usize = 0;
const VALID_OFFSET: usize = 4;
const VERSION_OFFSET: usize = 8;
const CHUNK_SIZE_OFFSET: usize = 12;

/// First bytes of files that are mistaken for a store now and then, so that the error can name them.
const OTHER_FORMATS: [([u8; 4], &str); 5] = [
    (*b"QFI\xfb", "a qcow2 image"),
    (*b"QED\0", "a qed image"),
    (*b"KDMV", "a VMDK image"),
    (*b"vhdx", "a VHDX image"),
    (*b"LUKS", "a LUKS volume"),
];

/// The header of a store whose version and chunk size were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0 once the snapshot was invalidated, for ever; any other value means valid and is kept as found.
    pub valid: u32,
    /// Version of the format.
    pub version: u32,
    /// Size of a chunk. This value counts, whatever a device-mapper table says.
    pub chunk_size: ChunkSize,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderState {
    /// The magic is zero: the kernel would make a new store of it. The other fields have no meaning.
    Blank,
    /// A store, valid or invalidated.
    Store(Header),
}

impl Header {
    /// The header of a new store.
    pub const fn new(chunk_size: ChunkSize) -> Header {
        Header {
            valid: 1,
            version: DISK_VERSION,
            chunk_size,
        }
    }

    /// Whether the snapshot is good; see [`Header::valid`].
    pub const fn is_valid(&self) -> bool {
        self.valid != 0
    }

    /// Reads the header from the first bytes of a file; only [`HEADER_SIZE`] of them are looked at.
    ///
    /// The checks come in the kernel's order: magic, chunk size, version. An invalidated store is no error here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFormat`] if this is not a store, [`ErrorKind::Corrupt`] for a chunk size that is not legal,
    /// [`ErrorKind::Unsupported`] for another version.
    pub fn decode(bytes: &[u8]) -> Result<HeaderState> {
        let fields = Fields::read(bytes).ok_or_else(|| too_short(bytes.len()))?;
        if fields.magic == [0; 4] {
            return Ok(HeaderState::Blank);
        }
        if fields.magic != SNAP_MAGIC {
            return Err(wrong_magic(fields.magic));
        }
        let chunk_size = ChunkSize::from_sectors(fields.chunk_size)
            .map_err(|_| bad_chunk_size(fields.chunk_size))?;
        if fields.version != DISK_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "version {} in the header, this library knows {DISK_VERSION}",
                    fields.version
                ),
            )
            .with_offset(VERSION_OFFSET as u64));
        }
        let Fields { valid, version, .. } = fields;
        Ok(HeaderState::Store(Header {
            valid,
            version,
            chunk_size,
        }))
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        // At most 2^21 by construction of ChunkSize.
        let sectors = self.chunk_size.sectors() as u32;
        let mut bytes = [0; HEADER_SIZE];
        bytes[MAGIC_OFFSET..VALID_OFFSET].copy_from_slice(&SNAP_MAGIC);
        bytes[VALID_OFFSET..VERSION_OFFSET].copy_from_slice(&self.valid.to_le_bytes());
        bytes[VERSION_OFFSET..CHUNK_SIZE_OFFSET].copy_from_slice(&self.version.to_le_bytes());
        bytes[CHUNK_SIZE_OFFSET..].copy_from_slice(&sectors.to_le_bytes());
        bytes
    }
}

/// The header as found, before any check.
struct Fields {
    magic: [u8; 4],
    valid: u32,
    version: u32,
    chunk_size: u32,
}

impl Fields {
    fn read(bytes: &[u8]) -> Option<Fields> {
        let number = |offset| array_at(bytes, offset).map(u32::from_le_bytes);
        Some(Fields {
            magic: array_at(bytes, MAGIC_OFFSET)?,
            valid: number(VALID_OFFSET)?,
            version: number(VERSION_OFFSET)?,
            chunk_size: number(CHUNK_SIZE_OFFSET)?,
        })
    }
}

fn too_short(len: usize) -> Error {
    Error::new(
        ErrorKind::InvalidFormat,
        format!("only {len} bytes long, a header alone takes {HEADER_SIZE}"),
    )
}

fn wrong_magic(found: [u8; 4]) -> Error {
    let mut swapped = SNAP_MAGIC;
    swapped.reverse();
    let other = OTHER_FORMATS.iter().find(|(magic, _)| *magic == found);
    let remark = match other {
        Some((_, name)) => format!(": this is {name}"),
        None if found == swapped => ": the magic is byte-swapped".to_string(),
        None => String::new(),
    };
    let [a, b, c, d] = found;
    Error::new(
        ErrorKind::InvalidFormat,
        format!(
            "starts with bytes {a:02x} {b:02x} {c:02x} {d:02x}, a store with 53 6e 41 70 (\"SnAp\"){remark}"
        ),
    )
    .with_offset(MAGIC_OFFSET as u64)
}

fn bad_chunk_size(sectors: u32) -> Error {
    let most = ChunkSize::MAX.sectors();
    let fault = match sectors {
        0 => "is zero",
        _ if !sectors.is_power_of_two() => "is not a power of two",
        _ => "is too large",
    };
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the header's chunk size of {sectors} sectors {fault}, wanted a power of two from 1 to {most}"
        ),
    )
    .with_offset(CHUNK_SIZE_OFFSET as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(magic: &[u8; 4], valid: u32, version: u32, sectors: u32) -> Vec<u8> {
        let numbers = [valid, version, sectors].map(u32::to_le_bytes).concat();
        [magic.as_slice(), &numbers].concat()
    }

    fn refusal(bytes: &[u8]) -> (ErrorKind, String) {
        let error = Header::decode(bytes).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn test_header_bytes_are_the_kernels() {
        // The header of a store that the kernel made with 8 sectors a chunk.
        let bytes = [0x53, 0x6e, 0x41, 0x70, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
        let header = Header::new(ChunkSize::from_sectors(8).unwrap());
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes).unwrap(), HeaderState::Store(header));
    }

    #[test]
    fn test_valid_is_kept_as_found() {
        for (valid, is_valid) in [(0, false), (1, true), (2, true), (u32::MAX, true)] {
            let bytes = raw(b"SnAp", valid, 1, 16);
            let HeaderState::Store(header) = Header::decode(&bytes).unwrap() else {
                panic!("a store expected");
            };
            assert_eq!((header.valid, header.is_valid()), (valid, is_valid));
            assert_eq!(header.encode().as_slice(), bytes);
        }
    }

    #[test]
    fn test_zero_magic_is_blank_whatever_follows() {
        assert_eq!(
            Header::decode(&raw(&[0; 4], 9, 9, 9)).unwrap(),
            HeaderState::Blank
        );
    }

    #[test]
    fn test_foreign_files_are_named() {
        for (magic, word) in [
            (*b"pAnS", "byte-swapped"),
            (*b"QFI\xfb", "qcow2"),
            (*b"KDMV", "VMDK"),
            (1u32.to_le_bytes(), "01 00 00 00"),
        ] {
            let (kind, text) = refusal(&raw(&magic, 1, 1, 8));
            assert_eq!(kind, ErrorKind::InvalidFormat);
            assert!(text.contains(word), "{text}");
            assert_eq!(text.contains("swapped"), magic == *b"pAnS", "{text}");
        }
        let (kind, text) = refusal(&raw(b"SnAp", 1, 1, 8)[..15]);
        assert_eq!(kind, ErrorKind::InvalidFormat);
        assert!(text.contains("15 bytes"), "{text}");
    }

    #[test]
    fn test_chunk_size_is_judged_before_version() {
        for (sectors, word) in [
            (0, "0 sectors is zero"),
            (3, "3 sectors is not a power of two"),
            (1 << 22, "4194304 sectors is too large"),
            (1 << 31, "2147483648 sectors is too large"),
        ] {
            let (kind, text) = refusal(&raw(b"SnAp", 1, 2, sectors));
            assert_eq!(kind, ErrorKind::Corrupt);
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn test_other_versions_are_refused_even_when_invalid() {
        for (valid, version) in [(1, 0), (1, 2), (0, 2)] {
            let (kind, text) = refusal(&raw(b"SnAp", valid, version, 8));
            assert_eq!(kind, ErrorKind::Unsupported);
            assert!(text.contains(&format!("version {version} ")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn test_any_bytes_decode_without_panic(
            magic in prop_oneof![Just(SNAP_MAGIC), any::<[u8; 4]>()],
            rest in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let bytes = [magic.as_slice(), &rest].concat();
            if let Ok(HeaderState::Store(header)) = Header::decode(&bytes) {
                prop_assert_eq!(&header.encode(), &bytes[..HEADER_SIZE]);
            }
        }

        #[test]
        fn test_header_round_trip(valid: u32, shift in 0u32..=21) {
            let chunk_size = ChunkSize::from_sectors(1 << shift).unwrap();
            let header = Header { valid, ..Header::new(chunk_size) };
            prop_assert_eq!(Header::decode(&header.encode()).unwrap(), HeaderState::Store(header));
        }
    }
}
