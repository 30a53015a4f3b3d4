//! Merging an image into its origin.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use super::guard::{Entered, guard, guard_or};
use super::handle::{Output, need};
use super::image::dmsnap_image;
use super::job::dmsnap_progress;
use crate::error::Result;
use crate::image::{Merge, MergeProgress};

impl From<MergeProgress> for dmsnap_progress {
    fn from(progress: MergeProgress) -> dmsnap_progress {
        dmsnap_progress {
            struct_size: size_of::<dmsnap_progress>(),
            done: progress.done,
            total: progress.total,
            bytes_copied: progress.bytes_copied,
        }
    }
}

/// Merges the top layer into its origin. Reads and writes of other threads go on meanwhile.
///
/// `callback` is called between the batches, with `opaque` and how far the merge is; `false` from
/// it stops the merge with `-ECANCELED`, and what was merged stays merged. It runs on the calling
/// thread, must return, and must not use this image. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_image_merge(
    image: Option<&dmsnap_image>,
    callback: Option<
        unsafe extern "C" fn(opaque: *mut c_void, progress: *const dmsnap_progress) -> bool,
    >,
    opaque: *mut c_void,
) -> c_int {
    guard(|| {
        let mut report = |progress: MergeProgress| {
            let Some(callback) = callback else {
                return true;
            };
            let progress = dmsnap_progress::from(progress);
            // SAFETY: the contract of the callback.
            unsafe { callback(opaque, &raw const progress) }
        };
        dmsnap_image::call(image, |image| image.merge(&mut report))
    })
}

/// A merge in steps. Reads and writes of the image go on between and during the steps. For one
/// thread at a time.
pub struct dmsnap_merge {
    merge: Merge,
    /// Of the image, for noticing that a callback uses it.
    identity: usize,
}

impl dmsnap_merge {
    fn call<T>(
        merge: Option<&mut dmsnap_merge>,
        body: impl FnOnce(&mut Merge) -> Result<T>,
    ) -> Result<T> {
        let merge = need(merge, "merge")?;
        let _entered = Entered::enter(merge.identity)?;
        body(&mut merge.merge)
    }
}

/// Begins a merge that the caller drives in steps. The image must stay open as long as the merge.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_merge_open(
    image: Option<&dmsnap_image>,
    out: Option<&mut MaybeUninit<Box<dmsnap_merge>>>,
) -> c_int {
    guard(|| {
        let identity = dmsnap_image::identity(need(image, "image")?.share());
        let out = need(out, "out")?;
        let merge = dmsnap_image::call(image, |image| image.start_merge())?;
        out.write(Box::new(dmsnap_merge { merge, identity }));
        Ok(())
    })
}

/// Merges one bounded batch, and tells whether there is more to do.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_merge_step(
    merge: Option<&mut dmsnap_merge>,
    more: Option<&mut MaybeUninit<bool>>,
) -> c_int {
    guard(|| {
        let more = need(more, "more")?;
        more.write(dmsnap_merge::call(merge, Merge::step)?);
        Ok(())
    })
}

/// How far the merge is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmsnap_merge_progress(
    merge: Option<&dmsnap_merge>,
    out: *mut dmsnap_progress,
) -> c_int {
    guard(|| {
        // SAFETY: the contract with C.
        let out = unsafe { Output::new(out, "out") }?;
        out.write(need(merge, "merge")?.merge.progress().into());
        Ok(())
    })
}

/// Ends a merge. What is left is cancelled; a later merge takes up from there. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_merge_free(merge: Option<Box<dmsnap_merge>>) {
    guard_or((), || drop(merge));
}
