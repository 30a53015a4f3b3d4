//! The C interface. `include/dmsnap.h` is generated from here.
//!
//! Rules that every exported function keeps:
//!
//! - Its body is one call of the guard: no panic crosses the border, an error becomes a negative
//!   errno and the thread's last error.
//! - A pointer that may be NULL is an `Option` or is checked first; NULL is `-EINVAL`, except for
//!   `free`.
//! - What it gives out is written last, when nothing can fail any more.
//! - Ownership is in the signature: `Option<Box<T>>` takes a handle over, `Option<&T>` and
//!   `Option<&mut T>` borrow it, `Option<&mut MaybeUninit<_>>` is a place for output. What comes
//!   from C as `&T` may be used by several threads at once, and is `const` in the header.
//! - What C promises of pointers is the same everywhere, so it is said once, here and in the
//!   header: NULL, or valid for what the type says for the duration of the call; strings end with a
//!   NUL, buffers have the length that is passed along, structures the size they begin with;
//!   handles came from this library and were not ended. `SAFETY: the contract with C` means this.
//! - Enums come in as numbers, because C can pass any; they go out as enums.
#![allow(non_camel_case_types)]

mod amend;
mod check;
mod check_image;
mod descriptor;
mod error;
mod exception;
mod guard;
mod handle;
mod image;
mod info;
mod io;
mod job;
mod load;
mod map;
mod merge;
mod options;
mod plan;
mod recover;
mod storage;
mod storage_ops;
mod store;
mod values;
mod version;

pub use amend::*;
pub use check::*;
pub use check_image::*;
pub use descriptor::*;
pub use error::{dmsnap_error_kind, dmsnap_last_error_kind, dmsnap_last_error_message};
pub use exception::*;
pub use image::*;
pub use info::*;
pub use io::*;
pub use job::*;
pub use load::*;
pub use map::*;
pub use merge::*;
pub use options::*;
pub use plan::*;
pub use recover::*;
pub use storage::*;
pub use storage_ops::dmsnap_storage_ops;
pub use store::*;
pub use values::*;
pub use version::*;
