//! What a kernel demands of names and devices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::output;

/// The longest name that device-mapper takes, with room for [`BELOW`].
const MAX_NAME: usize = 127 - BELOW.len();

/// What the name of the device below a layer ends with.
pub(crate) const BELOW: &str = "-origin";

/// What dmsetup would refuse, or write in another way.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+:=@#".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
        return Err(Failure::new(format!(
            "--name '{name}': wanted 1 to {MAX_NAME} letters, digits and -_.+:=@#"
        )));
    }
    Ok(())
}

/// A name that device-mapper takes, from that of the layer.
pub(crate) fn derive_name(layer: &Path) -> Result<String> {
    let stem = layer.file_stem().unwrap_or_default().to_string_lossy();
    let taken = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let name: String = stem
        .chars()
        .map(|c| if taken(c) { c } else { '_' })
        .collect();
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Failure::at(
            layer,
            format!(
                "no name for a device follows from this, which is to have 1 to {MAX_NAME} letters: give one by --name"
            ),
        ));
    }
    Ok(name)
}

/// The smallest chunk that suits every device.
const ANY_BLOCK: u64 = 4096;

/// A kernel refuses chunks that are no multiple of the logical block of both devices. Those that exist already are asked.
pub(crate) fn check_blocks(layer: &Path, chunk: u64, devices: &[&str]) -> Result<()> {
    if chunk >= ANY_BLOCK {
        return Ok(());
    }
    let mut unknown = Vec::new();
    for &device in devices {
        match logical_block(Path::new(device)) {
            Some(block) if chunk < block => {
                return Err(Failure::at(
                    layer,
                    format!(
                        "its chunks of {chunk} bytes are smaller than the logical blocks of {device}, {block} bytes: no kernel takes that"
                    ),
                ));
            }
            Some(_) => {}
            None => unknown.push(device),
        }
    }
    if !unknown.is_empty() {
        output::warn(format_args!(
            "{}: chunks of {chunk} bytes; a kernel refuses them if the logical blocks of {} are larger",
            layer.display(),
            unknown.join(" or ")
        ));
    }
    Ok(())
}

/// The logical block size of a device, as sysfs has it; of a partition it is its disk's.
fn logical_block(device: &Path) -> Option<u64> {
    let metadata = fs::metadata(device).ok()?;
    if !metadata.file_type().is_block_device() {
        return None;
    }
    let number = metadata.rdev();
    // As glibc splits it.
    let major = (number >> 8 & 0xfff) | (number >> 32 & !0xfff);
    let minor = (number & 0xff) | (number >> 12 & !0xff);
    let directory = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let queues = [directory.join("queue"), directory.join("../queue")];
    let mut texts = queues
        .iter()
        .filter_map(|queue| fs::read_to_string(queue.join("logical_block_size")).ok());
    texts.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_names_that_follow_from_files() {
        assert_eq!(
            derive_name(Path::new("dir/my layer.dms")).unwrap(),
            "my_layer"
        );
        for long in ["x".repeat(MAX_NAME + 1), String::new()] {
            assert!(derive_name(Path::new(&long)).is_err(), "{long}");
        }
    }
}
