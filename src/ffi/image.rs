//! The blocking image: create, open, close, and what changes it as a whole.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::guard::{Entered, guard};
use super::handle::{Output, need, path, take, text};
use super::options::{dmsnap_create_options, dmsnap_open_options};
use super::storage::dmsnap_storage;
use super::store::{dmsnap_run, dmsnap_status, dmsnap_usage};
use crate::error::Result;
use crate::image::Image;
use crate::units::{ChunkSize, OriginChunk};

/// An open image: a COW layer over its origins. All calls but `dmsnap_image_close` may be made from
/// any number of threads at once.
///
/// A write is visible when it returned, and durable when a flush that began later has returned.
pub struct dmsnap_image {
    image: Arc<Image>,
}

impl dmsnap_image {
    fn give(image: Image) -> Box<dmsnap_image> {
        Box::new(dmsnap_image {
            image: Arc::new(image),
        })
    }

    pub(super) fn share(&self) -> &Arc<Image> {
        &self.image
    }

    /// What tells one image from others, for noticing that a callback uses the one it works for.
    pub(super) fn identity(image: &Arc<Image>) -> usize {
        Arc::as_ptr(image).addr()
    }

    /// Makes a call on the image, unless this thread is inside one already.
    pub(super) fn call<T>(
        image: Option<&dmsnap_image>,
        body: impl FnOnce(&Image) -> Result<T>,
    ) -> Result<T> {
        let image = &need(image, "image")?.image;
        let _entered = Entered::enter(dmsnap_image::identity(image))?;
        body(image)
    }
}

/// Creates a layer at `path`, which must not exist unless the options allow it. Durable when it
/// returns; after a failure nothing is left at `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_create(
    path: *const c_char,
    options: Option<&dmsnap_create_options>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        Image::create(path, dmsnap_create_options::get(options)?)
    })
}

/// Creates a layer in `storage`, whose content is lost. Opens nothing else: what is to be known of
/// an origin comes from `dmsnap_create_options_set_origin_identity`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_create_on(
    storage: Option<&dmsnap_storage>,
    options: Option<&dmsnap_create_options>,
) -> c_int {
    guard(|| {
        let storage = need(storage, "storage")?.share();
        Image::create_on(&storage, dmsnap_create_options::get(options)?)
    })
}

/// Opens the layer at `path` and what lies below it. NULL options are the defaults. `-EACCES` if
/// the image names an origin and the options do not say where it comes from.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_open(
    path: *const c_char,
    options: Option<&dmsnap_open_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_image>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let out = need(out, "out")?;
        let image = Image::open(path, &dmsnap_open_options::or_default(options))?;
        out.write(dmsnap_image::give(image));
        Ok(())
    })
}

/// Opens the layer in `storage`, of which the image holds a reference of its own. A relative name
/// of an origin starts at the current directory.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_open_storage(
    storage: Option<&dmsnap_storage>,
    options: Option<&dmsnap_open_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_image>>>,
) -> c_int {
    guard(|| {
        let storage = need(storage, "storage")?.share();
        let out = need(out, "out")?;
        let image = Image::open_storage(storage, &dmsnap_open_options::or_default(options))?;
        out.write(dmsnap_image::give(image));
        Ok(())
    })
}

/// Flushes, gives back what space was reserved ahead, and closes. The handle is gone whatever it
/// returns, except for `-EDEADLK`, and for `-EINVAL` because of NULL. An image that others have as
/// their origin stays open below them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_close(image: *mut dmsnap_image) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let identity = unsafe { image.as_ref() }.map(|image| dmsnap_image::identity(&image.image));
        let _entered = Entered::enter(need(identity, "image")?)?;
        // SAFETY: not NULL; the contract with C is that this is the last call with this handle.
        let image = unsafe { take(image) };
        match Arc::try_unwrap(image.image) {
            Ok(image) => image.close(),
            Err(shared) if shared.is_writable() => shared.flush(),
            Err(_) => Ok(()),
        }
    })
}

/// Size of the disk in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_size(
    image: Option<&dmsnap_image>,
    out: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard(|| {
        let out = need(out, "out")?;
        out.write(dmsnap_image::call(image, |image| Ok(image.size()))?);
        Ok(())
    })
}

/// Bytes in a chunk of the top layer.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_chunk_size(
    image: Option<&dmsnap_image>,
    out: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    guard(|| {
        let out = need(out, "out")?;
        out.write(dmsnap_image::call(image, |image| {
            Ok(image.chunk_size().bytes())
        })?);
        Ok(())
    })
}

/// Makes the disk `size` bytes long, a multiple of 512. What is new reads as zeros. Shorter only if
/// `shrink` is set: what lay past the new end is lost. Durable when it returns. A bare store cannot
/// be resized.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_resize(
    image: Option<&dmsnap_image>,
    size: u64,
    shrink: bool,
) -> c_int {
    guard(|| dmsnap_image::call(image, |image| image.resize(size, shrink)))
}

/// Creates a layer at `path` with this image as its origin, and goes on in it: what is written from
/// now on goes there, and what was the top layer so far is frozen, flushed and locked as an origin.
/// `chunk_size` is in bytes, 0 stands for the present one. A failure leaves everything as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_snapshot(
    image: Option<&dmsnap_image>,
    path: *const c_char,
    chunk_size: u64,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let chunk_size = optional_chunk_size(chunk_size)?;
        dmsnap_image::call(image, |image| image.snapshot(path, chunk_size))
    })
}

/// The same in `storage`, whose content is lost. `origin_name` is what the new layer records as the
/// name of the present top layer; NULL records none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_snapshot_to(
    image: Option<&dmsnap_image>,
    storage: Option<&dmsnap_storage>,
    origin_name: *const c_char,
    chunk_size: u64,
) -> c_int {
    guard(|| {
        let storage = need(storage, "storage")?.share();
        let origin_name = match origin_name.is_null() {
            true => None,
            // SAFETY: the contract with C.
            false => Some(unsafe { text(origin_name, "origin_name") }?),
        };
        let chunk_size = optional_chunk_size(chunk_size)?;
        dmsnap_image::call(image, |image| {
            image.snapshot_to(storage, origin_name, chunk_size)
        })
    })
}

fn optional_chunk_size(bytes: u64) -> Result<Option<ChunkSize>> {
    match bytes {
        0 => Ok(None),
        _ => ChunkSize::from_bytes(bytes).map(Some),
    }
}

/// Forgets every exception: the image reads as its origin again. Durable when it returns.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_make_empty(image: Option<&dmsnap_image>) -> c_int {
    guard(|| dmsnap_image::call(image, Image::make_empty))
}

/// Invalidates the store for ever, as the kernel does on overflow. Durable when it returns.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_drop_snapshot(image: Option<&dmsnap_image>) -> c_int {
    guard(|| dmsnap_image::call(image, Image::drop_snapshot))
}

/// The kernel's status of the top layer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_status(
    image: Option<&dmsnap_image>,
    out: *mut dmsnap_status,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_image::call(image, |image| Ok(image.status()))?.into());
        Ok(())
    })
}

/// The kernel's figures of the top layer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_usage(
    image: Option<&dmsnap_image>,
    out: *mut dmsnap_usage,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_image::call(image, |image| Ok(image.usage()))?.into());
        Ok(())
    })
}

/// The first exceptions of the top layer at or behind chunk `old_chunk`. To see all, begin with 0
/// and go on at `old_chunk + count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_next_run(
    image: Option<&dmsnap_image>,
    old_chunk: u64,
    out: *mut dmsnap_run,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let first = OriginChunk(old_chunk);
        let run = dmsnap_image::call(image, |image| Ok(image.next_exceptions(first)))?;
        out.write(dmsnap_run::from_run(
            run.map(|(old, new, count)| (old.0, new.0, count)),
        ));
        Ok(())
    })
}
