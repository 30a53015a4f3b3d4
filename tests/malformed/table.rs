//! The table: one row for each malformed field.

use dmsnap::format::Uuid;

use crate::stores::Ours;

pub(crate) const COLUMNS: [&str; 6] = ["open", "read", "write", "merge", "check", "repair"];

/// Where a row's store comes from.
#[derive(Clone, Copy)]
pub(crate) enum Made {
    /// The twin of the same name.
    Twin,
    /// A store of ours, damaged so.
    Ours(fn(&mut Ours)),
}

pub(crate) struct Row {
    /// A number that rows about one rule share, or a field of the descriptor.
    pub(crate) rule: &'static str,
    pub(crate) name: &'static str,
    pub(crate) made: Made,
    pub(crate) outcomes: [&'static str; 6],
}

const fn twin(rule: &'static str, name: &'static str, outcomes: [&'static str; 6]) -> Row {
    Row {
        rule,
        name,
        made: Made::Twin,
        outcomes,
    }
}

const fn ours(
    rule: &'static str,
    name: &'static str,
    damage: fn(&mut Ours),
    outcomes: [&'static str; 6],
) -> Row {
    Row {
        rule,
        name,
        made: Made::Ours(damage),
        outcomes,
    }
}

pub(crate) fn all() -> Vec<Row> {
    let mut rows = kernel_fields();
    rows.extend(descriptor_fields());
    rows
}

#[rustfmt::skip]
fn kernel_fields() -> Vec<Row> {
    vec![
        twin("1", "chunk-8, magic 0", ["InvalidFormat", "-", "InvalidFormat", "InvalidFormat", "InvalidFormat", "InvalidFormat, untouched"]),
        twin("2", "chunk-8, magic 1", ["InvalidFormat", "-", "InvalidFormat", "InvalidFormat", "InvalidFormat", "InvalidFormat, untouched"]),
        twin("2", "chunk-8, magic byte-swapped", ["InvalidFormat", "-", "InvalidFormat", "InvalidFormat", "InvalidFormat", "InvalidFormat, untouched"]),
        twin("3", "chunk-8, valid 2", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("3", "chunk-8, valid 0xffffffff", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("4", "chunk-8, valid 0", ["SnapshotInvalid", "-", "SnapshotInvalid", "SnapshotInvalid", "1 corrupt", "1 corrupt, untouched"]),
        twin("5", "chunk-8, version 0", ["Unsupported", "-", "Unsupported", "Unsupported", "Unsupported", "Unsupported, untouched"]),
        twin("5", "chunk-8, version 2", ["Unsupported", "-", "Unsupported", "Unsupported", "Unsupported", "Unsupported, untouched"]),
        twin("5", "chunk-8, version 2, valid 0", ["Unsupported", "-", "Unsupported", "Unsupported", "Unsupported", "Unsupported, untouched"]),
        twin("6", "chunk-8, chunk size 0", ["Corrupt", "-", "Corrupt", "Corrupt", "Corrupt", "Corrupt, untouched"]),
        twin("6", "chunk-8, chunk size 3", ["Corrupt", "-", "Corrupt", "Corrupt", "Corrupt", "Corrupt, untouched"]),
        twin("6", "chunk-8, chunk size 2^22", ["Corrupt", "-", "Corrupt", "Corrupt", "Corrupt", "Corrupt, untouched"]),
        twin("6", "chunk-8, chunk size 2^31", ["Corrupt", "-", "Corrupt", "Corrupt", "Corrupt", "Corrupt, untouched"]),
        twin("6", "chunk-8, chunk size 3, version 2", ["Corrupt", "-", "Corrupt", "Corrupt", "Corrupt", "Corrupt, untouched"]),
        twin("10", "chunk-8, foreign bytes in the header", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("11", "chunk-8, nothing but a header", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        twin("2", "chunk-8, shorter than a header", ["InvalidFormat", "-", "InvalidFormat", "InvalidFormat", "InvalidFormat", "InvalidFormat, untouched"]),
        twin("13", "full-area-at-end, cut behind a full area", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        twin("15", "chunk-8, some sectors more than whole chunks", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("16", "several-areas, garbage in unreached areas", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("17", "full-area, garbage in the area behind a full one", ["Corrupt", "-", "Corrupt", "Corrupt", "32 corrupt", "32 corrupt, untouched"]),
        twin("17", "full-area-at-end, garbage in the last area", ["Corrupt", "-", "Corrupt", "Corrupt", "33 corrupt", "33 corrupt, untouched"]),
        twin("18", "chunk-8, a stale slot", ["opens", "right", "ok", "ok", "1 repairable", "clean"]),
        twin("19", "chunk-8, a terminator with an old chunk", ["opens", "right", "ok", "ok", "1 repairable", "clean"]),
        twin("20", "chunk-8, an old chunk twice", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        twin("22", "chunk-8, an old chunk twice, next to each other", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        twin("7", "chunk-8, an exception dropped", ["opens", "right", "ok", "ok", "1 leaked", "clean"]),
        twin("7", "chunk-8, an exception half dropped", ["opens", "right", "ok", "ok", "1 repairable, 1 leaked", "clean"]),
        twin("23", "chunk-8, a new chunk twice", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("24", "chunk-8, new chunk is the first area", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("24", "chunk-8, new chunk is the second area", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("25", "chunk-8, new chunk behind the end", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("25", "chunk-8, new chunk far behind the end", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("26", "chunk-8, new chunk with a run length", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("27", "chunk-8, new chunk 2^64-1", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 leaked", "1 corrupt, 1 leaked, untouched"]),
        twin("28", "chunk-8, old chunk just behind the end", ["opens, warns", "right", "ok", "OriginMismatch", "clean", "clean, untouched"]),
        twin("28", "chunk-8, old chunk far behind the end", ["opens, warns", "right", "ok", "OriginMismatch", "clean", "clean, untouched"]),
        twin("28", "chunk-8, old chunk 2^64-1", ["opens, warns", "right", "ok", "OriginMismatch", "clean", "clean, untouched"]),
        twin("29", "chunk-1, old chunk just behind the end", ["opens, warns", "right", "ok", "OriginMismatch", "clean", "clean, untouched"]),
        twin("30", "chunk-8, records in another order", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        twin("39", "chunk-8, cut below next free", ["Corrupt", "-", "Corrupt", "Corrupt", "30 corrupt", "30 corrupt, untouched"]),
        twin("40", "chunk-8, cut inside the last data chunk", ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        twin("41", "chunk-8, cut behind the last data chunk", ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
    ]
}

#[rustfmt::skip]
fn descriptor_fields() -> Vec<Row> {
    vec![
        ours("56", "garbage in area 0", |s| s.area(&[0xd6; 4096]), ["Corrupt", "-", "Corrupt", "Corrupt", "257 corrupt", "257 corrupt, untouched"]),
        ours("17", "a full area, and the next one is no chunk of the file", |s| s.fill_area(), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt, 1 repairable", "1 corrupt, 1 repairable, untouched"]),
        ours("slots", "slot 1 torn, slot 2 blank", |s| s.tear(1, 40), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("slots", "garbage behind the record", |s| s.tear(1, 300), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("slots", "slot 1 torn in the record, slot 2 older", |s| { s.second(0); s.tear(1, 40); }, ["opens, warns", "right", "ok", "ok", "1 repairable", "clean"]),
        ours("slots", "slot 2 torn, slot 1 older", |s| { s.second(2); s.tear(2, 40); }, ["opens, warns", "right", "ok", "ok", "1 repairable", "clean"]),
        ours("slots", "both slots torn", |s| { s.second(2); s.tear(1, 40); s.tear(2, 40); }, ["Corrupt", "-", "Corrupt", "Corrupt", "2 corrupt", "2 corrupt, untouched"]),
        ours("slots", "both slots of one generation", |s| s.second(1), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("slots", "slot 2 newer and good", |s| s.second(2), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("slots", "generation 2^64-1", |s| s.forge(16, &[0xff; 8]), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("magic", "slot 1 without the magic, slot 2 blank", |s| s.put(0, b"XXXXXXXX"), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("magic", "slot 1 without the magic, slot 2 good", |s| { s.second(2); s.put(0, b"XXXXXXXX"); }, ["opens, warns", "right", "ok", "ok", "1 repairable", "clean"]),
        ours("length", "length 0", |s| s.put(8, &0_u32.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("length", "length 95", |s| s.put(8, &95_u32.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("length", "length 1537", |s| s.put(8, &1537_u32.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("length", "length 2^32-1", |s| s.put(8, &u32::MAX.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("length", "longer than its names, checksum right", |s| s.forge(8, &100_u32.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("CRC", "checksum wrong", |s| s.put(12, &[1, 2, 3, 4]), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("incompatible", "an unknown incompatible bit", |s| s.forge(24, &[0, 0, 0, 0, 0, 0, 0, 0x80]), ["Unsupported", "-", "Unsupported", "Unsupported", "Unsupported", "Unsupported, untouched"]),
        ours("incompatible", "an unknown incompatible bit in the older slot", |s| { s.second(2); s.forge(24, &[1]); }, ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("compatible", "all compatible bits", |s| s.forge(32, &[0xff; 8]), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("virtual size", "virtual size 0", |s| s.forge(40, &[0; 8]), ["opens", "right", "ok", "ok", "1 repairable", "clean"]),
        ours("virtual size", "virtual size 513", |s| s.forge(40, &513_u64.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("virtual size", "virtual size 2^64-512", |s| s.forge(40, &(u64::MAX - 511).to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("virtual size", "virtual size below a record", |s| s.describe(|d| d.virtual_size = 10 * 4096), ["opens", "right", "ok", "ok", "1 repairable", "clean"]),
        ours("virtual size", "virtual size above the origin", |s| s.describe(|d| d.virtual_size = 1 << 20), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("UUID", "UUID zero", |s| s.forge(48, &[0; 16]), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("backing UUID", "the UUID of another origin", |s| s.describe(|d| d.origin_uuid = Some(Uuid([9; 16]))), ["OriginMismatch", "-", "OriginMismatch", "OriginMismatch", "clean", "clean, untouched"]),
        ours("backing size", "the size of another origin", |s| s.describe(|d| d.origin_size = 12345), ["opens, warns", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("backing size", "backing size 2^64-1", |s| s.describe(|d| d.origin_size = u64::MAX), ["opens, warns", "right", "ok", "OriginMismatch", "clean", "clean, untouched"]),
        ours("name length", "longer than the record", |s| s.forge(88, &500_u16.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("name length", "a name of 1024 bytes", |s| s.strings(&[b'x'; 1024], b"raw"), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("name length", "a name of 1023 bytes", |s| s.strings(&[b'x'; 1023], b"raw"), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("format length", "names longer than a slot", |s| s.put(90, &2000_u16.to_le_bytes()), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("reserved", "not zero", |s| s.forge(92, &[1]), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("strings", "a name that is not UTF-8", |s| s.strings(b"\xff\xfe", b"raw"), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("strings", "a name with a NUL", |s| s.strings(b"a\0b", b"raw"), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("strings", "a format that is not UTF-8", |s| s.strings(b"a", b"\xff"), ["Corrupt", "-", "Corrupt", "Corrupt", "1 corrupt", "1 corrupt, untouched"]),
        ours("strings", "a name with ..", |s| s.strings(b"../../etc/passwd", b"raw"), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("strings", "a format that nobody knows", |s| s.strings(b"a", b"qcow9"), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("strings", "a name without a format", |s| s.strings(b"a", b""), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
        ours("strings", "a format without a name", |s| s.strings(b"", b"raw"), ["opens", "right", "ok", "ok", "clean", "clean, untouched"]),
    ]
}
