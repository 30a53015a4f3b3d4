//! Changing an image's descriptor.

use std::ffi::{c_char, c_int};

use super::guard::{guard, guard_or};
use super::handle::{need, text, uuid};
use super::image::dmsnap_image;
use super::values::format;
use crate::error::Result;
use crate::image::Amend;

/// What to change about an image's descriptor. What is not named stays. For one thread at a time.
pub struct dmsnap_amend_options {
    amend: Amend,
}

fn change(
    options: Option<&mut dmsnap_amend_options>,
    change: impl FnOnce(Amend) -> Result<Amend>,
) -> Result<()> {
    let options = need(options, "options")?;
    options.amend = change(options.amend.clone())?;
    Ok(())
}

/// Options that change nothing. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_amend_options_new() -> Option<Box<dmsnap_amend_options>> {
    guard_or(None, || {
        Some(Box::new(dmsnap_amend_options {
            amend: Amend::new(),
        }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_amend_options_free(options: Option<Box<dmsnap_amend_options>>) {
    guard_or((), || drop(options));
}

/// Records another origin, by a name (UTF-8) as in `dmsnap_create_options_set_origin`; NULL records
/// that there is none, and `format` does not count then. The content below is not looked at: it
/// must be the same, or the image changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_amend_options_set_origin(
    options: Option<&mut dmsnap_amend_options>,
    name: *const c_char,
    format: u32,
) -> c_int {
    guard(|| {
        if name.is_null() {
            return change(options, |amend| Ok(amend.no_origin()));
        }
        // SAFETY: the contract with C.
        let name = unsafe { text(name, "name") }?;
        let format = self::format(format)?;
        change(options, |amend| Ok(amend.origin(name, format)))
    })
}

/// Gives a bare store a descriptor, with this size of the disk in bytes. Needs chunks of at least
/// 4096 bytes. Where one of the two slots of a descriptor is damaged, it is written anew from the
/// other one, with this size: it may have said another.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_amend_options_add_descriptor(
    options: Option<&mut dmsnap_amend_options>,
    size: u64,
) -> c_int {
    guard(|| change(options, |amend| Ok(amend.add_descriptor(size))))
}

/// The UUID of a descriptor that is added, 16 bytes that are not all zero, instead of a random one.
/// Layers above this one open only if it is the one they know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_amend_options_set_uuid(
    options: Option<&mut dmsnap_amend_options>,
    uuid: *const u8,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let uuid = need(unsafe { self::uuid(uuid) }, "uuid")?;
        change(options, |amend| Ok(amend.uuid(uuid)))
    })
}

/// Makes it a bare store: size, origin and UUID are forgotten.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_amend_options_remove_descriptor(
    options: Option<&mut dmsnap_amend_options>,
) -> c_int {
    guard(|| change(options, |amend| Ok(amend.remove_descriptor())))
}

/// Changes the descriptor; durable when it returns. Names count at the next open: the open image
/// goes on with the origin that it has. A size counts at once: the image is as large as a descriptor
/// that is added says, or as its origin once there is none.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_amend(
    image: Option<&dmsnap_image>,
    options: Option<&dmsnap_amend_options>,
) -> c_int {
    guard(|| {
        let amend = &need(options, "options")?.amend;
        dmsnap_image::call(image, |image| image.amend(amend))
    })
}
