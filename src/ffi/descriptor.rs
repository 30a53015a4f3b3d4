//! The image descriptor.

use std::ffi::{CString, c_char, c_int};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::null;

use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need, text, to_c, uuid};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, IncompatibleFeatures, Uuid};

/// What an image knows about itself: size, identity, and the name of its origin. A bare store has
/// none.
///
/// For one thread at a time.
pub struct dmsnap_descriptor {
    descriptor: Descriptor,
    name: Option<CString>,
    format: Option<CString>,
}

impl dmsnap_descriptor {
    pub(super) fn give(descriptor: &Descriptor) -> Box<dmsnap_descriptor> {
        Box::new(dmsnap_descriptor {
            name: descriptor.origin_name.as_deref().map(to_c),
            format: descriptor.origin_format.as_deref().map(to_c),
            descriptor: descriptor.clone(),
        })
    }

    pub(super) fn get(&self) -> &Descriptor {
        &self.descriptor
    }
}

/// The numbers of a descriptor. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_descriptor_info {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Size of the image in bytes.
    pub virtual_size: u64,
    /// Counts up with each write of the descriptor.
    pub generation: u64,
    /// Features that a program may ignore.
    pub compatible_features: u64,
    /// Features that a program must know.
    pub incompatible_features: u64,
    /// Size of the origin in bytes when the layer was made; informative.
    pub origin_size: u64,
    /// Identity of the image.
    pub uuid: [u8; 16],
    /// Identity of the origin, zero where it has none or it is not known.
    pub origin_uuid: [u8; 16],
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_descriptor_info {
    const LEAST: usize = offset_of!(dmsnap_descriptor_info, origin_uuid) + size_of::<[u8; 16]>();
}

/// A descriptor for an image of `virtual_size` bytes, a multiple of 512, with this UUID of 16 bytes
/// that are not all zero. The store sets the generation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_descriptor_new(
    virtual_size: u64,
    uuid: *const u8,
    out: Option<&mut MaybeUninit<Box<dmsnap_descriptor>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let uuid = need(unsafe { self::uuid(uuid) }, "uuid")?;
        let descriptor = Descriptor {
            generation: 1,
            incompatible: IncompatibleFeatures::empty(),
            compatible: 0,
            virtual_size,
            uuid,
            origin_uuid: None,
            origin_size: 0,
            origin_name: None,
            origin_format: None,
        };
        descriptor.encode()?;
        need(out, "out")?.write(dmsnap_descriptor::give(&descriptor));
        Ok(())
    })
}

/// Frees a descriptor. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_descriptor_free(descriptor: Option<Box<dmsnap_descriptor>>) {
    guard_or((), || drop(descriptor));
}

/// Its numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_descriptor_read(
    descriptor: Option<&dmsnap_descriptor>,
    out: *mut dmsnap_descriptor_info,
) -> c_int {
    guard(|| {
        let descriptor = need(descriptor, "descriptor")?.get();
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_descriptor_info {
            struct_size: 0,
            virtual_size: descriptor.virtual_size,
            generation: descriptor.generation,
            compatible_features: descriptor.compatible,
            incompatible_features: descriptor.incompatible.bits(),
            origin_size: descriptor.origin_size,
            uuid: descriptor.uuid.0,
            origin_uuid: descriptor.origin_uuid.unwrap_or(Uuid::NIL).0,
        });
        Ok(())
    })
}

/// Name of the origin as stored; NULL if there is none. It belongs to the descriptor and holds
/// until that is changed or freed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_descriptor_origin_name(
    descriptor: Option<&dmsnap_descriptor>,
) -> *const c_char {
    guard_or(null(), || {
        pointer(descriptor.and_then(|descriptor| descriptor.name.as_ref()))
    })
}

/// Name of the origin's format, as `dmsnap_descriptor_origin_name`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_descriptor_origin_format(
    descriptor: Option<&dmsnap_descriptor>,
) -> *const c_char {
    guard_or(null(), || {
        pointer(descriptor.and_then(|descriptor| descriptor.format.as_ref()))
    })
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(null(), |text| text.as_ptr())
}

/// Sets name, format name, UUID and size in bytes of the origin. A NULL name stands for no origin,
/// a UUID that is NULL or zero for an unknown one. At most 1023 bytes of name, UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_descriptor_set_origin(
    descriptor: Option<&mut dmsnap_descriptor>,
    name: *const c_char,
    format: *const c_char,
    uuid: *const u8,
    size: u64,
) -> c_int {
    guard(|| {
        let descriptor = need(descriptor, "descriptor")?;
        // SAFETY: the contract with C.
        let (name, format) = unsafe { (optional(name, "name")?, optional(format, "format")?) };
        if name.is_none() && format.is_some() {
            let message = "a format is given, but no name of an origin";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let mut changed = descriptor.get().clone();
        changed.origin_name = name.map(str::to_owned);
        changed.origin_format = format.map(str::to_owned);
        // SAFETY: the contract with C.
        changed.origin_uuid = unsafe { self::uuid(uuid) };
        changed.origin_size = size;
        changed.encode()?;
        *descriptor = *dmsnap_descriptor::give(&changed);
        Ok(())
    })
}

/// An empty name is as good as none.
///
/// # Safety
/// `pointer` is NULL or a string that stays as it is for `'a`.
unsafe fn optional<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { text(pointer, what) }?;
    Ok((!text.is_empty()).then_some(text))
}

/// Changes the size of the image in bytes, for a descriptor that is to be stored by
/// `dmsnap_store_prepare_descriptor`. To change the size of a disk, use
/// `dmsnap_store_prepare_resize`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_descriptor_set_virtual_size(
    descriptor: Option<&mut dmsnap_descriptor>,
    virtual_size: u64,
) -> c_int {
    guard(|| {
        let descriptor = need(descriptor, "descriptor")?;
        let changed = Descriptor {
            virtual_size,
            ..descriptor.get().clone()
        };
        changed.encode()?;
        descriptor.descriptor = changed;
        Ok(())
    })
}
