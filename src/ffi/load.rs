//! Loading a store, formatting one, and what the first bytes of a file say.

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, offset_of};

use super::descriptor::dmsnap_descriptor;
use super::guard::{guard, guard_or};
use super::handle::{Growing, Output, bytes, need};
use super::plan::{Owner, dmsnap_plan};
use super::store::dmsnap_store;
use super::values::overflow_mode;
use crate::error::{Error, ErrorKind};
use crate::format::{Header, HeaderState};
use crate::store::{FormatOptions, LoadOptions, Loader, format_plan, measure};
use crate::units::ChunkSize;

/// The kernel's header at the start of a COW file. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_header {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// 0 if the snapshot was invalidated.
    pub valid: u32,
    /// Version of the format.
    pub version: u32,
    /// Bytes in a chunk.
    pub chunk_size: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_header {
    const LEAST: usize = offset_of!(dmsnap_header, chunk_size) + size_of::<u64>();
}

/// Tells whether `data`, the first `len` bytes of a file (16 are enough), is a store; `out` may be
/// NULL. `-EINVAL` if it is something else or blank, `-EUCLEAN` for an illegal chunk size,
/// `-ENOTSUP` for another version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_header_probe(
    data: *const c_void,
    len: usize,
    out: *mut dmsnap_header,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let data = unsafe { bytes(data, len) }?;
        let out = match out.is_null() {
            true => None,
            // SAFETY: the contract with C.
            false => Some(unsafe { Output::new(out, "out") }?),
        };
        let header = match Header::decode(data)? {
            HeaderState::Store(header) => header,
            HeaderState::Blank => {
                let message = "the header is blank: there is no store here yet";
                return Err(Error::new(ErrorKind::InvalidFormat, message));
            }
        };
        if let Some(out) = out {
            out.write(dmsnap_header {
                struct_size: 0,
                valid: header.valid,
                version: header.version,
                chunk_size: header.chunk_size.bytes(),
            });
        }
        Ok(())
    })
}

/// Sizes of a COW file in bytes. Set `struct_size` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct dmsnap_measure {
    /// Size of this structure in bytes, set by the caller.
    pub struct_size: usize,
    /// For the chunks that are mapped.
    pub required: u64,
    /// For a disk of which every chunk is mapped.
    pub fully_allocated: u64,
}

// SAFETY: repr(C), begins with its size.
unsafe impl Growing for dmsnap_measure {
    const LEAST: usize = offset_of!(dmsnap_measure, fully_allocated) + size_of::<u64>();
}

/// How large a COW file gets with `mapped_chunks` exceptions, and at the most, for a disk of
/// `virtual_size` bytes in chunks of `chunk_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_store_measure(
    chunk_size: u64,
    virtual_size: u64,
    mapped_chunks: u64,
    out: *mut dmsnap_measure,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        let sizes = measure(
            ChunkSize::from_bytes(chunk_size)?,
            virtual_size,
            mapped_chunks,
        )?;
        out.write(dmsnap_measure {
            struct_size: 0,
            required: sizes.required,
            fully_allocated: sizes.fully_allocated,
        });
        Ok(())
    })
}

/// Gives the plan that makes a new store with chunks of `chunk_size` bytes: a power of two from 512
/// bytes to 1 GiB, from 4096 on if there is a `descriptor`. NULL makes it a bare store.
/// `fixed_size` is for a device: its size is not set, and it may hold anything.
///
/// The header's magic comes last: until then the file is no store. Run the plan, then free it.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_store_format(
    chunk_size: u64,
    descriptor: Option<&dmsnap_descriptor>,
    fixed_size: bool,
    plan: Option<&mut MaybeUninit<Box<dmsnap_plan>>>,
) -> c_int {
    guard(|| {
        let options = FormatOptions {
            chunk_size: ChunkSize::from_bytes(chunk_size)?,
            descriptor: descriptor.map(|descriptor| descriptor.get().clone()),
            fixed_size,
        };
        let made = format_plan(&options)?;
        need(plan, "plan")?.write(Owner::NOBODY.give(made));
        Ok(())
    })
}

/// How a store is loaded. For one thread at a time.
pub struct dmsnap_load_options {
    pub(super) options: LoadOptions,
}

/// Options for a COW file of `cow_size` bytes: of fixed size, read-only,
/// `DMSNAP_OVERFLOW_MODE_NO_SPACE`. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_new(cow_size: u64) -> Option<Box<dmsnap_load_options>> {
    guard_or(None, || {
        let options = LoadOptions {
            cow_size,
            ..LoadOptions::default()
        };
        Some(Box::new(dmsnap_load_options { options }))
    })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_free(options: Option<Box<dmsnap_load_options>>) {
    guard_or((), || drop(options));
}

/// Whether the COW file can be made longer. By `DMSNAP_STEP_TYPE_SET_SIZE`, or by writing past its
/// end, as a file: in both cases bytes that were not written read as zeros. The store counts on
/// that and does not zero fresh chunks there.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_set_growable(
    options: Option<&mut dmsnap_load_options>,
    growable: bool,
) -> c_int {
    guard(|| {
        need(options, "options")?.options.growable = growable;
        Ok(())
    })
}

/// Whether the store will be written. `dmsnap_store_set_writable` changes that later.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_set_writable(
    options: Option<&mut dmsnap_load_options>,
    writable: bool,
) -> c_int {
    guard(|| {
        need(options, "options")?.options.writable = writable;
        Ok(())
    })
}

/// Size of the origin in bytes, from which a bare store takes its own. Then it has to be a multiple
/// of 512 (an odd end does not count, as on a loop device), or `dmsnap_loader_finish` says
/// `-EINVAL`. Without it a bare store ends with its last exception.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_set_origin_size(
    options: Option<&mut dmsnap_load_options>,
    size: u64,
) -> c_int {
    guard(|| {
        need(options, "options")?.options.origin_size = Some(size);
        Ok(())
    })
}

/// What a full device of fixed size means: a `dmsnap_overflow_mode`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_load_options_set_overflow_mode(
    options: Option<&mut dmsnap_load_options>,
    mode: u32,
) -> c_int {
    guard(|| {
        need(options, "options")?.options.overflow = overflow_mode(mode)?;
        Ok(())
    })
}

/// Turns the bytes of a COW file into a store (the kernel's `read_metadata`, which does the reading
/// itself). For one thread at a time.
pub struct dmsnap_loader {
    loader: Loader,
    owner: Owner,
}

/// Begins to load a store. Nothing is read yet.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_loader_new(
    options: Option<&dmsnap_load_options>,
    out: Option<&mut MaybeUninit<Box<dmsnap_loader>>>,
) -> c_int {
    guard(|| {
        let options = need(options, "options")?.options.clone();
        let out = need(out, "out")?;
        let loader = Loader::new(options)?;
        out.write(Box::new(dmsnap_loader {
            loader,
            owner: Owner::new(),
        }));
        Ok(())
    })
}

/// Frees a loader. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_loader_free(loader: Option<Box<dmsnap_loader>>) {
    guard_or((), || drop(loader));
}

/// The next reads, several at once and of bounded size, as a plan that belongs to the caller; NULL
/// when everything is known. The plan has reads of the COW file only. It takes the place of the one
/// before, if that did not come back: then it reads the same bytes, and the older one is refused.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_loader_next_plan(
    loader: Option<&mut dmsnap_loader>,
    plan: Option<&mut MaybeUninit<Option<Box<dmsnap_plan>>>>,
) -> c_int {
    guard(|| {
        let (loader, plan) = (need(loader, "loader")?, need(plan, "plan")?);
        let next = loader.loader.next_plan()?;
        plan.write(next.map(|next| loader.owner.give(next)));
        Ok(())
    })
}

/// Takes in what was read. Every step must have been supplied. The plan is gone after the call,
/// whatever it returns. `-EINVAL` if the file is no store, `-EUCLEAN` if it contradicts itself,
/// `-ENOTSUP` for a version or feature that is not known.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_loader_finish_plan(
    loader: Option<&mut dmsnap_loader>,
    plan: Option<Box<dmsnap_plan>>,
) -> c_int {
    guard(|| {
        let loader = need(loader, "loader")?;
        let plan = loader.owner.take(plan)?;
        loader.loader.finish_plan(plan)
    })
}

/// Gives the store, when `dmsnap_loader_next_plan` gave NULL. The loader is gone after the call,
/// whatever it returns. An invalidated store loads: its state is `DMSNAP_STATE_INVALID`.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_loader_finish(
    loader: Option<Box<dmsnap_loader>>,
    out: Option<&mut MaybeUninit<Box<dmsnap_store>>>,
) -> c_int {
    guard(|| {
        let loader = need(loader, "loader")?;
        let out = need(out, "out")?;
        out.write(dmsnap_store::give(loader.loader.finish()?));
        Ok(())
    })
}
