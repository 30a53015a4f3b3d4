//! Sizes as people type and read them, in qemu-img's grammar.

use dmsnap::units::{MAX_FILE_SIZE, SECTOR_SIZE};

/// Most digits behind the point that are looked at: more cannot change a result that fits 64 bits.
const MAX_FRACTION: usize = 18;

/// Bytes from `4096`, `0x1000`, `4k`, `16K`, `1.5G`. Suffixes are b, k, M, G, T, P, E in either case and powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => parse_hexadecimal(digits),
        None => parse_decimal(text),
    }
    .ok_or_else(|| {
        format!(
            "'{text}' is not a size: wanted digits and at most one of the suffixes k, M, G, T, P, E"
        )
    })?;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes <= MAX_FILE_SIZE => Ok(bytes),
        _ => Err(format!(
            "'{text}' is larger than any file can be ({MAX_FILE_SIZE} bytes)"
        )),
    }
}

/// A size that a disk can have: a multiple of 512 bytes. qemu-img would round up; here a slip is told.
pub(crate) fn parse_disk_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if !size.is_multiple_of(SECTOR_SIZE) {
        let below = size - size % SECTOR_SIZE;
        let above = below + SECTOR_SIZE;
        return Err(format!(
            "{size} bytes is not a multiple of {SECTOR_SIZE}; nearest are {below} and {above}"
        ));
    }
    Ok(size)
}

/// No suffix here: b and e are digits.
fn parse_hexadecimal(digits: &str) -> Option<u128> {
    let legal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !legal {
        return None;
    }
    // What does not fit is no error of syntax.
    Some(u128::from_str_radix(digits, 16).unwrap_or(u128::MAX))
}

fn parse_decimal(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let shift = suffix_shift(suffix)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // Half a byte is nothing.
    if !digits(whole) || fraction.is_some_and(|part| !digits(part) || shift == 0) {
        return None;
    }
    let whole: u128 = whole.parse().unwrap_or(u128::MAX);
    let bytes = whole.saturating_mul(1 << shift);
    Some(bytes.saturating_add(fraction_of(fraction.unwrap_or("0"), shift)))
}

fn suffix_shift(suffix: &str) -> Option<u32> {
    let mut letters = suffix.chars();
    let shift = match letters.next().map(|letter| letter.to_ascii_lowercase()) {
        None | Some('b') => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some('p') => 50,
        Some('e') => 60,
        Some(_) => return None,
    };
    letters.next().is_none().then_some(shift)
}

/// `0.digits * 2^shift`, rounded to the nearest byte.
fn fraction_of(digits: &str, shift: u32) -> u128 {
    let digits = &digits[..digits.len().min(MAX_FRACTION)];
    let scale = 10u128.pow(digits.len() as u32);
    let value: u128 = digits.parse().unwrap_or(0);
    ((value << shift) + scale / 2) / scale
}

/// `1536` as `1.5 KiB`: three significant digits, as qemu-img prints sizes.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value >= 99.95 || unit == 0 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    let mut text = format!("{value:.decimals$}");
    if decimals > 0 {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_sizes_mean_what_they_mean_to_qemu_img() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("512b", 512),
            ("4k", 4096),
            ("16K", 16384),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("1.0000000000000000000000001k", 1024),
            ("0x1000", 4096),
            ("7E", 7 << 60),
            ("2t", 2 << 40),
            ("1P", 1 << 50),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn test_what_is_no_size_is_refused() {
        for text in [
            "", "k", "-1", "+1", "1.5", "1.5b", ".5k", "1.k", "1..5k", "1kB", "1KiB", "4 k", "1e3",
            "0x", "0xg", "0x1k", "ten", "1,5G", "٣",
        ] {
            let message = parse_size(text).unwrap_err();
            assert!(message.contains("is not a size"), "{text}: {message}");
        }
        for text in [
            "8E",
            "9223372036854775808",
            "99999999999999999999999999999999999999999E",
            "0xffffffffffffffffffffffffffffffffffff",
        ] {
            let message = parse_size(text).unwrap_err();
            assert!(
                message.contains("larger than any file"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn test_disk_sizes_are_whole_sectors() {
        assert_eq!(parse_disk_size("1M"), Ok(1 << 20));
        let message = parse_disk_size("1000").unwrap_err();
        assert!(message.contains("512 and 1024"), "{message}");
    }

    #[test]
    fn test_human_sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (200_704, "196 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1 MiB"),
            (10 << 30, "10 GiB"),
            (3 << 29, "1.5 GiB"),
            (i64::MAX as u64, "8 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
