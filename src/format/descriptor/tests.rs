use super::*;
use proptest::prelude::*;

type Slot = [u8; DESCRIPTOR_SLOT_SIZE];

fn example(generation: u64) -> Descriptor {
    Descriptor {
        generation,
        incompatible: IncompatibleFeatures::empty(),
        compatible: 0x8000_0000_0000_0001,
        virtual_size: 1 << 30,
        uuid: Uuid([7; 16]),
        origin_uuid: Some(Uuid([9; 16])),
        origin_size: 12345,
        origin_name: Some("dir/base.raw".into()),
        origin_format: Some("raw".into()),
    }
}

fn slot(generation: u64) -> Slot {
    example(generation).encode().unwrap()
}

/// A slot with bytes changed behind the writer's back and the checksum made right again.
fn forged(offset: usize, bytes: &[u8]) -> Slot {
    let mut slot = slot(5);
    slot[offset..offset + bytes.len()].copy_from_slice(bytes);
    let length = u32::from_le_bytes(field(&slot, LENGTH_OFFSET).unwrap()) as usize;
    let crc = record_crc(&slot[..length]);
    slot[CRC_OFFSET..GENERATION_OFFSET].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn torn_reason(slot: &[u8]) -> String {
    match Descriptor::decode(slot) {
        SlotState::Torn(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn test_slots_fit_the_header_chunk() {
    let offsets = |bytes| Descriptor::slot_offsets(ChunkSize::from_bytes(bytes).unwrap());
    assert_eq!(offsets(512), None);
    assert_eq!(offsets(2048), None);
    assert_eq!(offsets(4096), Some([512, 2048]));
    assert_eq!(offsets(8192), Some([2048, 4096]));
    assert_eq!(offsets(16384), Some([4096, 8192]));
    assert_eq!(offsets(1 << 30), Some([1 << 28, 1 << 29]));
}

#[test]
fn test_encoded_fields_are_where_the_format_says() {
    let slot = slot(0x0102_0304_0506_0708);
    assert_eq!(slot[..8], *b"DMSNAPim");
    assert_eq!(slot[8..12], 111u32.to_le_bytes());
    // Computed by an independent CRC-32 (zlib) over the 111 bytes with this field zero.
    assert_eq!(slot[12..16], 0x7ae5_90deu32.to_le_bytes());
    assert_eq!(slot[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(slot[24..32], [0; 8]);
    assert_eq!(slot[32..40], [1, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(slot[40..48], (1u64 << 30).to_le_bytes());
    assert_eq!(slot[48..64], [7; 16]);
    assert_eq!(slot[64..80], [9; 16]);
    assert_eq!(slot[80..88], 12345u64.to_le_bytes());
    assert_eq!(slot[88..96], [12, 0, 3, 0, 0, 0, 0, 0]);
    assert_eq!(slot[96..111], *b"dir/base.rawraw");
    assert_eq!(slot[111..], [0; DESCRIPTOR_SLOT_SIZE - 111]);
}

#[test]
fn test_encode_refuses_what_no_descriptor_can_hold() {
    let valid = example(1);
    for (descriptor, word) in [
        (
            Descriptor {
                virtual_size: 513,
                ..valid.clone()
            },
            "multiple of 512",
        ),
        (
            Descriptor {
                virtual_size: 1 << 63,
                ..valid.clone()
            },
            "above",
        ),
        (
            Descriptor {
                origin_name: Some("n".repeat(1024)),
                ..valid.clone()
            },
            "at most 1023",
        ),
        (
            Descriptor {
                origin_name: Some("a\0b".into()),
                ..valid.clone()
            },
            "NUL",
        ),
        (
            Descriptor {
                origin_format: Some("\0".into()),
                ..valid.clone()
            },
            "NUL",
        ),
        (
            Descriptor {
                origin_format: Some("f".repeat(1430)),
                ..valid.clone()
            },
            "a slot has 1536",
        ),
    ] {
        let error = descriptor.encode().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(word), "{error}");
    }
    let longest = Descriptor {
        origin_name: Some("n".repeat(1023)),
        ..valid
    };
    assert_eq!(
        Descriptor::decode(&longest.encode().unwrap()),
        SlotState::Valid(longest)
    );
}

#[test]
fn test_decode_explains_what_is_wrong() {
    for (slot, word) in [
        (forged(VIRTUAL_SIZE_OFFSET, &[1]), "multiple of 512"),
        (
            forged(VIRTUAL_SIZE_OFFSET, &(1u64 << 63).to_le_bytes()),
            "above",
        ),
        (forged(NAME_LENGTH_OFFSET, &[13]), "13 and 3 bytes"),
        (
            forged(FORMAT_LENGTH_OFFSET, &[0xff, 0xff]),
            "12 and 65535 bytes",
        ),
        (forged(ZERO_OFFSET, &[1]), "reserved"),
        (forged(STRINGS_OFFSET, &[0xff]), "backing name is not UTF-8"),
        (forged(STRINGS_OFFSET, &[0]), "backing name contains a NUL"),
        (
            forged(STRINGS_OFFSET + 12, &[0]),
            "backing format contains a NUL",
        ),
        (
            forged(LENGTH_OFFSET, &112u32.to_le_bytes()),
            "record with 16",
        ),
    ] {
        let reason = torn_reason(&slot);
        assert!(reason.contains(word), "{reason}");
    }
    for (length, word) in [(0u32, "length 0"), (95, "length 95"), (1537, "length 1537")] {
        let mut slot = slot(5);
        slot[LENGTH_OFFSET..CRC_OFFSET].copy_from_slice(&length.to_le_bytes());
        let reason = torn_reason(&slot);
        assert!(reason.contains(word), "{reason}");
    }
    assert!(torn_reason(b"DMSNAPim").contains("cut off"));
    assert!(torn_reason(&slot(1)[..100]).contains("length 111"));
}

#[test]
fn test_every_changed_byte_of_the_record_is_noticed() {
    let good = slot(5);
    for position in 0..111 {
        let mut slot = good;
        slot[position] ^= 0x40;
        assert!(
            !matches!(Descriptor::decode(&slot), SlotState::Valid(_)),
            "{position}"
        );
    }
}

#[test]
fn test_choose_takes_the_higher_generation() {
    let empty = [0; DESCRIPTOR_SLOT_SIZE];
    let mut torn = slot(9);
    torn[100] ^= 1;
    for (slot1, slot2, wanted) in [
        (empty, empty, None),
        (slot(1), empty, Some((0, 1))),
        (empty, slot(1), Some((1, 1))),
        (slot(0), empty, Some((0, 0))),
        (slot(3), slot(4), Some((1, 4))),
        (slot(5), slot(4), Some((0, 5))),
        (slot(5), slot(5), Some((0, 5))),
        (torn, slot(4), Some((1, 4))),
        (slot(5), torn, Some((0, 5))),
    ] {
        let found = Descriptor::choose(&slot1, &slot2).unwrap();
        assert_eq!(found.map(|(slot, found)| (slot, found.generation)), wanted);
    }
}

#[test]
fn test_choose_refuses_torn_slots_without_a_good_one() {
    let empty = [0; DESCRIPTOR_SLOT_SIZE];
    let mut torn = slot(9);
    torn[CRC_OFFSET] ^= 1;
    for (slot1, slot2) in [(torn, empty), (empty, torn), (torn, torn)] {
        let error = Descriptor::choose(&slot1, &slot2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}

#[test]
fn test_choose_refuses_unknown_features_of_the_slot_that_counts() {
    let foreign = forged(INCOMPATIBLE_OFFSET, &[0b10, 0, 0, 0, 0, 0, 0, 0x80]);
    let error = Descriptor::choose(&slot(4), &foreign).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().ends_with("bits 1, 63"), "{error}");
    let newer = Descriptor::choose(&slot(6), &foreign).unwrap();
    assert_eq!(
        newer.map(|(slot, found)| (slot, found.generation)),
        Some((0, 6))
    );
}

fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    let name = || prop::option::of("[^\0]{1,200}");
    let uuid = any::<[u8; 16]>().prop_map(Uuid);
    let known = uuid
        .clone()
        .prop_filter("zero means unknown", |uuid| !uuid.is_nil());
    let numbers = (
        any::<u64>(),
        any::<u64>(),
        0..=MAX_FILE_SIZE / SECTOR_SIZE,
        any::<u64>(),
    );
    let format = prop::option::of("[a-z]{1,20}");
    (numbers, uuid, prop::option::of(known), name(), format).prop_map(
        |(numbers, uuid, origin_uuid, origin_name, origin_format)| Descriptor {
            generation: numbers.0,
            incompatible: IncompatibleFeatures::empty(),
            compatible: numbers.1,
            virtual_size: numbers.2 * SECTOR_SIZE,
            uuid,
            origin_uuid,
            origin_size: numbers.3,
            origin_name,
            origin_format,
        },
    )
}

proptest! {
    #[test]
    fn test_descriptor_round_trip(descriptor in any_descriptor()) {
        let slot = descriptor.encode().unwrap();
        prop_assert_eq!(Descriptor::decode(&slot), SlotState::Valid(descriptor));
    }

    #[test]
    fn test_any_bytes_decode_without_panic(
        magic in any::<bool>(),
        length in prop_oneof![0u32..200, any::<u32>()],
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = if magic { DESCRIPTOR_MAGIC.to_vec() } else { Vec::new() };
        bytes.extend(length.to_le_bytes());
        bytes.extend(rest);
        let valid = matches!(Descriptor::decode(&bytes), SlotState::Valid(_));
        prop_assert!(!valid);
    }

    /// Fields at random behind a right checksum: whatever is accepted keeps the rules.
    #[test]
    fn test_any_field_with_a_right_checksum(
        offset in GENERATION_OFFSET..STRINGS_OFFSET,
        bytes in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        if let SlotState::Valid(found) = Descriptor::decode(&forged(offset, &bytes)) {
            prop_assert!(found.encode().is_ok());
        }
    }
}

#[test]
fn test_names_may_be_as_long_as_the_slot_has_room() {
    let named = |name: usize, format: usize| Descriptor {
        origin_name: Some("n".repeat(name)),
        origin_format: Some("f".repeat(format)),
        ..example(1)
    };
    let room = DESCRIPTOR_SLOT_SIZE - STRINGS_OFFSET;
    let longest = named(MAX_ORIGIN_NAME, room - MAX_ORIGIN_NAME);
    assert_eq!(longest.encoded_len(), DESCRIPTOR_SLOT_SIZE);
    let slot = longest.encode().unwrap();
    assert_eq!(Descriptor::decode(&slot), SlotState::Valid(longest));
    let refused = |descriptor: Descriptor| descriptor.encode().unwrap_err().to_string();
    let error = refused(named(MAX_ORIGIN_NAME + 1, 3));
    assert!(
        error.contains(&format!("{} bytes", MAX_ORIGIN_NAME + 1)),
        "{error}"
    );
    let error = refused(named(MAX_ORIGIN_NAME, room - MAX_ORIGIN_NAME + 1));
    assert!(
        error.contains(&format!("{} bytes long", DESCRIPTOR_SLOT_SIZE + 1)),
        "{error}"
    );
    let nameless = Descriptor {
        origin_name: None,
        origin_format: None,
        ..example(1)
    };
    assert_eq!(nameless.encoded_len(), STRINGS_OFFSET);
    assert_eq!(
        example(1).encoded_len(),
        STRINGS_OFFSET + "dir/base.rawraw".len()
    );
}

#[test]
fn test_damage_is_told_with_its_place() {
    let damage = SlotDamage {
        slot: 2,
        offset: 8192,
        reason: "cut off after 20 bytes, wanted at least 32".to_owned(),
    };
    let text = "slot 2 of the image descriptor, at offset 8192, is damaged: cut off after 20 bytes, wanted at least 32";
    assert_eq!(damage.to_string(), text);
    let error = field::<8>(&[0; 20], 24).unwrap_err();
    assert_eq!(error, "cut off after 20 bytes, wanted at least 32");
}
