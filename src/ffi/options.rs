//! Options of the image half.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use super::guard::{guard, guard_or};
use super::handle::{need, path, text, uuid};
use super::image::dmsnap_image;
use super::storage::dmsnap_storage;
use super::values::{format, origin_choice, overflow_mode};
use crate::error::Result;
use crate::image::{CreateOptions, OpenOptions, OriginChoice};
use crate::units::ChunkSize;

/// How an image is opened. Copied by the calls that take it. For one thread at a time.
pub struct dmsnap_open_options {
    options: OpenOptions,
}

impl dmsnap_open_options {
    pub(super) fn or_default(options: Option<&dmsnap_open_options>) -> OpenOptions {
        options.map_or_else(OpenOptions::new, |options| options.options.clone())
    }

    fn change(
        options: Option<&mut dmsnap_open_options>,
        change: impl FnOnce(OpenOptions) -> Result<OpenOptions>,
    ) -> Result<()> {
        let options = need(options, "options")?;
        options.options = change(options.options.clone())?;
        Ok(())
    }
}

/// Options: read-only, through the page cache, locked, `DMSNAP_ORIGIN_CHOICE_REFUSE`. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_new() -> Option<Box<dmsnap_open_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_open_options {
            options: OpenOptions::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_free(options: Option<Box<dmsnap_open_options>>) {
    guard_or((), || drop(options));
}

/// Whether the image can be written. Its origins are only ever read, except by a merge.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_writable(
    options: Option<&mut dmsnap_open_options>,
    writable: bool,
) -> c_int {
    guard(|| dmsnap_open_options::change(options, |options| Ok(options.writable(writable))))
}

/// Whether files are opened with `O_DIRECT`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_direct(
    options: Option<&mut dmsnap_open_options>,
    direct: bool,
) -> c_int {
    guard(|| dmsnap_open_options::change(options, |options| Ok(options.direct(direct))))
}

/// Whether files are locked against other programs, the default. A writable image always is.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_lock(
    options: Option<&mut dmsnap_open_options>,
    lock: bool,
) -> c_int {
    guard(|| dmsnap_open_options::change(options, |options| Ok(options.lock(lock))))
}

/// What happens when a COW device of fixed size is full: a `dmsnap_overflow_mode`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_overflow_mode(
    options: Option<&mut dmsnap_open_options>,
    mode: u32,
) -> c_int {
    guard(|| {
        dmsnap_open_options::change(
            options,
            |options| Ok(options.overflow(overflow_mode(mode)?)),
        )
    })
}

/// Where the origin comes from, if no file is to be named: a `dmsnap_origin_choice`. This and the
/// next three replace each other.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_origin(
    options: Option<&mut dmsnap_open_options>,
    choice: u32,
) -> c_int {
    guard(|| {
        dmsnap_open_options::change(
            options,
            |options| Ok(options.origin(origin_choice(choice)?)),
        )
    })
}

/// The origin is the file at `path`, whatever the image says. `format` is a `dmsnap_format`;
/// `below`, a `dmsnap_origin_choice`, is for what lies below the origin if it is a layer itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_open_options_set_origin_path(
    options: Option<&mut dmsnap_open_options>,
    path: *const c_char,
    format: u32,
    below: u32,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?.to_owned();
        let format = self::format(format)?;
        let below = Box::new(origin_choice(below)?);
        let origin = OriginChoice::Path {
            path,
            format,
            below,
        };
        dmsnap_open_options::change(options, |options| Ok(options.origin(origin)))
    })
}

/// The origin is the raw bytes of `storage`. The options hold a reference of their own.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_origin_storage(
    options: Option<&mut dmsnap_open_options>,
    storage: Option<&dmsnap_storage>,
) -> c_int {
    guard(|| {
        let origin = OriginChoice::Storage(need(storage, "storage")?.share());
        dmsnap_open_options::change(options, |options| Ok(options.origin(origin)))
    })
}

/// The origin is an image that is open already. It can be read through its own handle from then on,
/// not written. The options, and the image that is opened with them, hold a reference of their own.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_origin_image(
    options: Option<&mut dmsnap_open_options>,
    image: Option<&dmsnap_image>,
) -> c_int {
    guard(|| {
        let origin = OriginChoice::Image(Arc::clone(need(image, "image")?.share()));
        dmsnap_open_options::change(options, |options| Ok(options.origin(origin)))
    })
}

/// Opens even if an origin's UUID is not the recorded one, and merges even into a raw origin whose
/// size is not. The content is then most likely wrong.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_ignore_origin_uuid(
    options: Option<&mut dmsnap_open_options>,
    ignore: bool,
) -> c_int {
    guard(|| dmsnap_open_options::change(options, |options| Ok(options.ignore_origin_uuid(ignore))))
}

/// Opens even if slots of the top layer's descriptor are damaged, for `dmsnap_image_amend` to add or
/// remove a descriptor. With no good slot the layer counts as a bare store. Where one is good and
/// there are exceptions past the end that it gives, those are kept; without this such a layer opens
/// read-only.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_ignore_descriptor_damage(
    options: Option<&mut dmsnap_open_options>,
    ignore: bool,
) -> c_int {
    guard(|| {
        dmsnap_open_options::change(options, |options| {
            Ok(options.ignore_descriptor_damage(ignore))
        })
    })
}

/// Size of the disk in bytes, a multiple of 512, if the image is a bare store. It does not record
/// one; without this it is as long as its origin, and without an origin as long as its last
/// exception says.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_open_options_set_bare_size(
    options: Option<&mut dmsnap_open_options>,
    size: u64,
) -> c_int {
    guard(|| dmsnap_open_options::change(options, |options| Ok(options.bare_size(size))))
}

/// What image is created. Copied by the calls that take it. For one thread at a time.
pub struct dmsnap_create_options {
    options: CreateOptions,
}

impl dmsnap_create_options {
    pub(super) fn get(options: Option<&dmsnap_create_options>) -> Result<&CreateOptions> {
        Ok(&need(options, "options")?.options)
    }

    fn change(
        options: Option<&mut dmsnap_create_options>,
        change: impl FnOnce(CreateOptions) -> Result<CreateOptions>,
    ) -> Result<()> {
        let options = need(options, "options")?;
        options.options = change(options.options.clone())?;
        Ok(())
    }
}

/// Options: chunks of 16 KiB, no origin, a random UUID. The size has to be set unless there is an
/// origin. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_new() -> Option<Box<dmsnap_create_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_create_options {
            options: CreateOptions::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_free(options: Option<Box<dmsnap_create_options>>) {
    guard_or((), || drop(options));
}

/// Bytes in a chunk: a power of two from 512 bytes to 1 GiB.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_set_chunk_size(
    options: Option<&mut dmsnap_create_options>,
    bytes: u64,
) -> c_int {
    guard(|| {
        dmsnap_create_options::change(options, |options| {
            Ok(options.chunk_size(ChunkSize::from_bytes(bytes)?))
        })
    })
}

/// Size of the disk in bytes, a multiple of 512. Defaults to the origin's, rounded up to that.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_set_size(
    options: Option<&mut dmsnap_create_options>,
    bytes: u64,
) -> c_int {
    guard(|| dmsnap_create_options::change(options, |options| Ok(options.size(bytes))))
}

/// The origin, by a name (UTF-8) that is stored as given; a relative one starts at the new file's
/// directory. `format` is a `dmsnap_format`. The origin must exist, unless
/// `dmsnap_create_options_set_origin_identity` says what there is to know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_create_options_set_origin(
    options: Option<&mut dmsnap_create_options>,
    name: *const c_char,
    format: u32,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let name = unsafe { text(name, "name") }?;
        let format = self::format(format)?;
        dmsnap_create_options::change(options, |options| Ok(options.origin(name, format)))
    })
}

/// What to record as the origin's UUID (16 bytes; NULL or zeros: unknown) and size in bytes,
/// instead of opening the origin to find out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_create_options_set_origin_identity(
    options: Option<&mut dmsnap_create_options>,
    uuid: *const u8,
    size: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let uuid = unsafe { self::uuid(uuid) };
        dmsnap_create_options::change(options, |options| Ok(options.origin_identity(uuid, size)))
    })
}

/// Whether to make a store without a descriptor, as the kernel makes it: it records neither size
/// nor origin, its user has to know them.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_set_bare(
    options: Option<&mut dmsnap_create_options>,
    bare: bool,
) -> c_int {
    guard(|| dmsnap_create_options::change(options, |options| Ok(options.bare(bare))))
}

/// Identity of the new image, 16 bytes that are not all zero, instead of a random one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_create_options_set_uuid(
    options: Option<&mut dmsnap_create_options>,
    uuid: *const u8,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let uuid = need(unsafe { self::uuid(uuid) }, "uuid")?;
        dmsnap_create_options::change(options, |options| Ok(options.uuid(uuid)))
    })
}

/// Whether a file or block device that exists may be used. Its content is lost.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_create_options_set_on_existing(
    options: Option<&mut dmsnap_create_options>,
    on_existing: bool,
) -> c_int {
    guard(|| {
        dmsnap_create_options::change(options, |options| {
            Ok(options.create_on_existing(on_existing))
        })
    })
}
