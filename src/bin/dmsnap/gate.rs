//! Files that images name: what may be opened because of that, and which they are.

use std::path::{Path, PathBuf};

use dmsnap::format::{Descriptor, Header, HeaderState};
use dmsnap::storage::{FileOptions, LockMode, Storage};
use dmsnap::{Error, ErrorKind, Format};

use crate::failure::{About, Failure, Result};

/// Layers that the library follows.
const MAX_DEPTH: usize = 64;

/// The failure of opening a layer whose format was guessed, by [`OriginChoice::FromImageInside`](dmsnap::OriginChoice::FromImageInside).
///
/// Whoever writes a raw disk, a guest above all, can write a layer's header and descriptor into it. Then a tool that guesses formats
/// and follows names would read any file for them. So after a guess only names inside the layer's own directory are followed, all
/// the way down.
pub(crate) fn after_guess(error: Error, path: &Path) -> Failure {
    if error.kind() != ErrorKind::OriginRefused || is_bare(path) {
        return error.with_path(path.display().to_string()).into();
    }
    Failure::at(
        path,
        format!("{error}; its format was guessed, and a guest can write such a name into a raw disk"),
    )
    .with_hint(
        "say -f dmsnap if this is a layer that you trust, -f raw if these are the bytes of a disk, or --origin PATH.",
    )
}

/// The file at `path` and those below it, as far as that can be found out: a new file must be none of them.
pub(crate) fn chain(path: &Path, format: Format) -> Vec<PathBuf> {
    let mut files = vec![path.to_path_buf()];
    let mut is_layer = format == Format::Dmsnap;
    while let Some(layer) = files
        .last()
        .filter(|_| is_layer && files.len() <= MAX_DEPTH)
    {
        let Ok(Some((name, format))) = stored_backing(layer) else {
            break;
        };
        is_layer = format.as_deref() == Some(Format::Dmsnap.name());
        files.push(layer.parent().unwrap_or(Path::new("")).join(name));
    }
    files
}

/// Name and format of the backing that a layer records. What cannot be read is left to the library, which tells it better.
fn stored_backing(path: &Path) -> Result<Option<(String, Option<String>)>> {
    let Records::Descriptor(descriptor) = records(path)? else {
        return Ok(None);
    };
    let descriptor = *descriptor;
    Ok(descriptor
        .origin_name
        .map(|name| (name, descriptor.origin_format)))
}

/// Whether the file is a store that does not record what it lies over. What cannot be read is left to whoever opens it.
pub(crate) fn is_bare(path: &Path) -> bool {
    matches!(records(path), Ok(Records::Nothing))
}

/// What a layer records about itself.
enum Records {
    Descriptor(Box<Descriptor>),
    Nothing,
    /// It is damaged, or no layer.
    Unknown,
}

fn records(path: &Path) -> Result<Records> {
    let file = FileOptions::new()
        .lock(LockMode::None)
        .open(path)
        .about(path)?;
    let slot = |offset: u64| -> dmsnap::Result<Vec<u8>> {
        let len = file.size()?.saturating_sub(offset).min(SLOT);
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, offset)?;
        Ok(bytes)
    };
    let Ok(HeaderState::Store(header)) = Header::decode(&slot(0).about(path)?) else {
        return Ok(Records::Unknown);
    };
    let Some([first, second]) = Descriptor::slot_offsets(header.chunk_size) else {
        return Ok(Records::Nothing);
    };
    let chosen = Descriptor::choose(&slot(first).about(path)?, &slot(second).about(path)?);
    Ok(match chosen {
        Ok(Some((_, descriptor))) => Records::Descriptor(Box::new(descriptor)),
        Ok(None) => Records::Nothing,
        Err(_) => Records::Unknown,
    })
}

const SLOT: u64 = dmsnap::format::DESCRIPTOR_SLOT_SIZE as u64;
