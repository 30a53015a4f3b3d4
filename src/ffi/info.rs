//! Facts about images.

use std::ffi::{CString, c_char, c_int};
use std::mem::{MaybeUninit, offset_of};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null;

use super::descriptor::dmsnap_descriptor;
use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, need, path, to_c};
use super::image::dmsnap_image;
use super::storage::dmsnap_storage;
use super::store::{dmsnap_status, dmsnap_usage};
use super::values::{dmsnap_format, dmsnap_state};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImageInfo, LayerInfo, inspect, inspect_storage};

/// Facts about an image, as they were when they were asked for. May be used by several threads at
/// once.
pub struct dmsnap_info {
    info: ImageInfo,
    warnings: Vec<CString>,
    layers: Vec<LayerText>,
}

struct LayerText {
    path: Option<CString>,
    name: CString,
    origin_name: Option<CString>,
}

impl LayerText {
    fn new(layer: &LayerInfo) -> LayerText {
        let path = layer
            .path
            .as_deref()
            .map(|path| path.as_os_str().as_bytes());
        LayerText {
            // A path cannot hold a NUL.
            path: path.map(|path| CString::new(path).unwrap_or_default()),
            name: to_c(&layer.name),
            origin_name: layer.origin_name.as_deref().map(to_c),
        }
    }
}

impl dmsnap_info {
    fn give(info: ImageInfo, warnings: &[String]) -> Box<dmsnap_info> {
        let warnings = warnings.iter().map(|text| to_c(text)).collect();
        let layers = info.chain.iter().map(LayerText::new).collect();
        Box::new(dmsnap_info {
            info,
            warnings,
            layers,
        })
    }
}

/// Facts about the image and its chain.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_image_info(
    image: Option<&dmsnap_image>,
    out: Option<&mut MaybeUninit<Box<dmsnap_info>>>,
) -> c_int {
    guard(|| {
        let out = need(out, "out")?;
        let (info, warnings) =
            dmsnap_image::call(image, |image| Ok((image.info()?, image.warnings())))?;
        out.write(dmsnap_info::give(info, &warnings));
        Ok(())
    })
}

/// Facts about the layer at `path`: takes no lock and opens no other file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_info_open(
    path: *const c_char,
    out: Option<&mut MaybeUninit<Box<dmsnap_info>>>,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let path = unsafe { self::path(path, "path") }?;
        let out = need(out, "out")?;
        out.write(dmsnap_info::give(inspect(path)?, &[]));
        Ok(())
    })
}

/// Facts about the layer in `storage`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_info_open_storage(
    storage: Option<&dmsnap_storage>,
    out: Option<&mut MaybeUninit<Box<dmsnap_info>>>,
) -> c_int {
    guard(|| {
        let storage = need(storage, "storage")?.share();
        let out = need(out, "out")?;
        out.write(dmsnap_info::give(inspect_storage(&storage)?, &[]));
        Ok(())
    })
}

/// Frees it with all strings that came from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_info_free(info: Option<Box<dmsnap_info>>) {
    guard_or((), || drop(info));
}

/// The numbers of an image. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_facts {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// Size of the disk in bytes. A bare store without a known origin: up to the end of its last
    /// exception.
    pub virtual_size: u64,
    /// Bytes in a chunk.
    pub chunk_size: u64,
    /// Number of exceptions.
    pub exceptions: u64,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// Bytes that the file occupies, `UINT64_MAX` where that is not known.
    pub allocated_bytes: u64,
    /// Layers that `dmsnap_info_layer` knows, the top included: as far as they are open.
    pub layers: u64,
    /// Warnings that `dmsnap_info_warning` knows.
    pub warnings: u64,
    /// State of the store.
    pub state: dmsnap_state,
    /// Whether it is a bare store, without an image descriptor.
    pub bare: bool,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_facts {
    const LEAST: usize = offset_of!(dmsnap_facts, bare) + size_of::<bool>();
}

/// The numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_info_facts(
    info: Option<&dmsnap_info>,
    out: *mut dmsnap_facts,
) -> c_int {
    guard(|| {
        let dmsnap_info { info, warnings, .. } = need(info, "info")?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(dmsnap_facts {
            struct_size: 0,
            virtual_size: info.virtual_size,
            chunk_size: info.chunk_size.bytes(),
            exceptions: info.exceptions,
            file_size: info.file_size,
            allocated_bytes: info.allocated_bytes.unwrap_or(u64::MAX),
            layers: info.chain.len() as u64,
            warnings: warnings.len() as u64,
            state: info.state.into(),
            bare: info.is_bare(),
        });
        Ok(())
    })
}

/// The kernel's status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_info_status(
    info: Option<&dmsnap_info>,
    out: *mut dmsnap_status,
) -> c_int {
    guard(|| {
        let info = need(info, "info")?;
        // SAFETY: the contract with C.
        unsafe { Output::new(out, "out") }?.write(info.info.status.into());
        Ok(())
    })
}

/// The kernel's figures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_info_usage(
    info: Option<&dmsnap_info>,
    out: *mut dmsnap_usage,
) -> c_int {
    guard(|| {
        let info = need(info, "info")?;
        // SAFETY: the contract with C.
        unsafe { Output::new(out, "out") }?.write(info.info.usage.into());
        Ok(())
    })
}

/// The image descriptor of the top layer, NULL for a bare store. It is a copy and belongs to the
/// caller.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_info_descriptor(
    info: Option<&dmsnap_info>,
    out: Option<&mut MaybeUninit<Option<Box<dmsnap_descriptor>>>>,
) -> c_int {
    guard(|| {
        let descriptor = need(info, "info")?.info.descriptor.as_ref();
        need(out, "out")?.write(descriptor.map(dmsnap_descriptor::give));
        Ok(())
    })
}

/// Warning `index`, counted from 0: what looked wrong while opening but did no harm. NULL behind
/// the last one. It belongs to the info.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_info_warning(info: Option<&dmsnap_info>, index: u64) -> *const c_char {
    guard_or(null(), || {
        let warnings = info.map_or(&[][..], |info| &info.warnings);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        warnings.get(index).map_or(null(), |text| text.as_ptr())
    })
}

/// One file of a chain. Set `struct_size` before the call. The strings belong to the info.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_layer {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// The file; NULL for a storage that the host supplied.
    pub path: *const c_char,
    /// What errors call it.
    pub name: *const c_char,
    /// Name of its origin as stored; NULL if there is none.
    pub origin_name: *const c_char,
    /// Size in bytes of the disk that it shows.
    pub virtual_size: u64,
    /// Its format.
    pub format: dmsnap_format,
    /// Its UUID, zero if it has none.
    pub uuid: [u8; 16],
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_layer {
    const LEAST: usize = offset_of!(dmsnap_layer, uuid) + size_of::<[u8; 16]>();
}

/// Layer `index`: 0 is the top, 1 its origin, and so on; `-EINVAL` behind the last one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_info_layer(
    info: Option<&dmsnap_info>,
    index: u64,
    out: *mut dmsnap_layer,
) -> c_int {
    guard(|| {
        let info = need(info, "info")?;
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(layer(info, index)?);
        Ok(())
    })
}

fn layer(info: &dmsnap_info, index: u64) -> Result<dmsnap_layer> {
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    let (layer, text) = info
        .info
        .chain
        .get(at)
        .zip(info.layers.get(at))
        .ok_or_else(|| {
            let message = format!(
                "there is no layer {index} in a chain of {}",
                info.layers.len()
            );
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
    Ok(dmsnap_layer {
        struct_size: 0,
        path: pointer(&text.path),
        name: text.name.as_ptr(),
        origin_name: pointer(&text.origin_name),
        virtual_size: layer.virtual_size,
        format: layer.format.into(),
        uuid: layer.uuid.map_or([0; 16], |uuid| uuid.0),
    })
}
