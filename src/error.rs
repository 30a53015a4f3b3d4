//! One error type: a stable kind, where it happened, what was expected, and the cause.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// Result of every fallible call of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in terms a caller can act on. Numbers are part of the C ABI and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// The operating system or a host callback reported an I/O error.
    Io = 1,
    /// No space left for a new chunk, on the host's file system or on a COW device of fixed size. Nothing is lost; goes on after space was added.
    NoSpace = 2,
    /// The file is not in a format this library reads.
    InvalidFormat = 3,
    /// The store's version, or an incompatible feature of its descriptor, is not known.
    Unsupported = 4,
    /// The file contradicts itself.
    Corrupt = 5,
    /// The snapshot was invalidated: its header says that its data is no longer good.
    SnapshotInvalid = 6,
    /// The snapshot overflowed in the kernel's PO mode; it can be read, not written, until it is reopened.
    Overflow = 7,
    /// A merge stopped on an error; the pair of origin and COW still holds all data.
    MergeFailed = 8,
    /// An offset or length is outside the image.
    OutOfBounds = 9,
    /// An argument is wrong in itself.
    InvalidArgument = 10,
    /// A write to something opened read-only.
    ReadOnly = 11,
    /// Somebody else holds the file, or an operation that excludes this one is under way.
    Busy = 12,
    /// An earlier failed flush or metadata write: the handle writes no more until reopened.
    PreviousIo = 13,
    /// A file does not exist.
    NotFound = 14,
    /// A file exists already.
    Exists = 15,
    /// The operating system denied access.
    Permission = 16,
    /// The image names a file that the caller did not allow to open.
    OriginRefused = 17,
    /// The origin is not the one the image was made over.
    OriginMismatch = 18,
    /// The chain of origins is too long or contains itself.
    ChainTooDeep = 19,
    /// A host callback called into the handle it was called from.
    Deadlock = 20,
    /// The caller cancelled the operation.
    Cancelled = 21,
    /// Memory for a size that a file or a caller asked for could not be had.
    NoMemory = 22,
    /// A defect in this library was caught at its border.
    Internal = 23,
}

impl ErrorKind {
    /// The positive errno for this kind, as C callers and QEMU expect it.
    pub const fn errno(self) -> i32 {
        match self {
            ErrorKind::Io | ErrorKind::PreviousIo | ErrorKind::SnapshotInvalid => libc::EIO,
            ErrorKind::MergeFailed | ErrorKind::Internal => libc::EIO,
            ErrorKind::NoSpace | ErrorKind::Overflow => libc::ENOSPC,
            ErrorKind::InvalidFormat | ErrorKind::InvalidArgument => libc::EINVAL,
            ErrorKind::OutOfBounds => libc::EINVAL,
            ErrorKind::Unsupported => libc::ENOTSUP,
            ErrorKind::Corrupt => libc::EUCLEAN,
            ErrorKind::ReadOnly => libc::EROFS,
            ErrorKind::Busy => libc::EBUSY,
            ErrorKind::NotFound => libc::ENOENT,
            ErrorKind::Exists => libc::EEXIST,
            ErrorKind::Permission | ErrorKind::OriginRefused => libc::EACCES,
            ErrorKind::OriginMismatch => libc::ESTALE,
            ErrorKind::ChainTooDeep => libc::ELOOP,
            ErrorKind::Deadlock => libc::EDEADLK,
            ErrorKind::Cancelled => libc::ECANCELED,
            ErrorKind::NoMemory => libc::ENOMEM,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            ErrorKind::Io => "I/O error",
            ErrorKind::NoSpace => "no space left",
            ErrorKind::InvalidFormat => "not a snapshot store",
            ErrorKind::Unsupported => "not supported",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::SnapshotInvalid => "snapshot is invalid",
            ErrorKind::Overflow => "snapshot overflow",
            ErrorKind::MergeFailed => "merge failed",
            ErrorKind::OutOfBounds => "out of bounds",
            ErrorKind::InvalidArgument => "invalid argument",
            ErrorKind::ReadOnly => "read-only",
            ErrorKind::Busy => "busy",
            ErrorKind::PreviousIo => "stopped by an earlier I/O error",
            ErrorKind::NotFound => "not found",
            ErrorKind::Exists => "exists already",
            ErrorKind::Permission => "permission denied",
            ErrorKind::OriginRefused => "origin not allowed",
            ErrorKind::OriginMismatch => "origin does not match",
            ErrorKind::ChainTooDeep => "impossible chain of origins",
            ErrorKind::Deadlock => "would deadlock",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::NoMemory => "out of memory",
            ErrorKind::Internal => "internal error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

/// An error with its kind, its place and its cause.
///
/// `Display` gives one line: the file, the operation and the offset where known, and what was found and expected. The operating
/// system's own error, where there is one, is the [`source`](std::error::Error::source) and also ends that line.
///
/// The content sits behind one pointer, so a `Result` stays small on the paths that do not fail.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<String>,
    operation: Option<&'static str>,
    offset: Option<u64>,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind`; `message` says what was found and what was expected.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            operation: None,
            offset: None,
            source: None,
        }))
    }

    /// An error of the operating system met during `operation`; the kind follows from the errno.
    pub fn io(operation: &'static str, source: io::Error) -> Error {
        let mut error = Error::new(kind_of_errno(source.raw_os_error(), source.kind()), "");
        error.0.operation = Some(operation);
        error.0.source = Some(source);
        error
    }

    /// Names the file, unless an inner layer has done so.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Error {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// Names the byte offset in the file, unless an inner layer has done so.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Error {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Tells it as something that another file is about; the cause stays.
    pub(crate) fn seen_from(mut self, path: impl Into<String>, message: String) -> Error {
        self.0.path = Some(path.into());
        self.0.message = message;
        self.0.operation = None;
        self
    }

    /// Changes the kind and keeps place and cause, for callers who know better what a failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The positive errno: the operating system's own where it reported one of the same kind, else the kind's.
    pub fn errno(&self) -> i32 {
        let own = self.0.source.as_ref().and_then(io::Error::raw_os_error);
        match own {
            Some(code) if kind_of_errno(Some(code), io::ErrorKind::Other) == self.0.kind => code,
            _ => self.0.kind.errno(),
        }
    }

    /// What was found and what was expected, without kind and place; empty where the operating system said all there is to say.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file, where known.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// The byte offset in the file, where known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// A second error that says the same: for a failure that several waiting callers share.
    #[must_use]
    pub fn duplicate(&self) -> Error {
        let inner = &self.0;
        let source = inner
            .source
            .as_ref()
            .map(|cause| match cause.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(cause.kind(), cause.to_string()),
            });
        Error(Box::new(Inner {
            kind: inner.kind,
            message: inner.message.clone(),
            path: inner.path.clone(),
            operation: inner.operation,
            offset: inner.offset,
            source,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(path) = &inner.path {
            write!(f, "{path}: ")?;
        }
        match inner.operation {
            Some(operation) => write!(f, "cannot {operation}")?,
            None => write!(f, "{}", inner.kind)?,
        }
        if let Some(offset) = inner.offset {
            write!(f, " at offset {offset}")?;
        }
        if inner.operation.is_some() {
            write!(f, ": {}", inner.kind)?;
        }
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        match &inner.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

/// Only what a caller can act on gets a kind of its own; all other codes are I/O errors.
fn kind_of_errno(code: Option<i32>, kind: io::ErrorKind) -> ErrorKind {
    match code {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => ErrorKind::NoSpace,
        Some(libc::ENOENT) => ErrorKind::NotFound,
        Some(libc::EEXIST) => ErrorKind::Exists,
        Some(libc::EACCES | libc::EPERM) => ErrorKind::Permission,
        Some(libc::EROFS) => ErrorKind::ReadOnly,
        Some(libc::EBUSY | libc::EAGAIN | libc::ETXTBSY) => ErrorKind::Busy,
        Some(libc::ENOMEM) => ErrorKind::NoMemory,
        Some(libc::EOPNOTSUPP) => ErrorKind::Unsupported,
        Some(libc::EDEADLK) => ErrorKind::Deadlock,
        _ if kind == io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_display_names_file_operation_offset_and_cause() {
        let error = Error::io("write", io::Error::from_raw_os_error(libc::ENOSPC))
            .with_path("layer.cow")
            .with_path("outer")
            .with_offset(4096);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        let text = error.to_string();
        assert!(
            text.starts_with("layer.cow: cannot write at offset 4096: no space left: "),
            "{text}"
        );
        assert_eq!(error.duplicate().to_string(), text);
    }

    #[test]
    fn test_errno_keeps_the_systems_code_while_the_kind_agrees() {
        let quota = Error::io("write", io::Error::from_raw_os_error(libc::EDQUOT));
        assert_eq!(quota.errno(), libc::EDQUOT);
        assert_eq!(quota.with_kind(ErrorKind::PreviousIo).errno(), libc::EIO);
        assert_eq!(Error::new(ErrorKind::Corrupt, "x").errno(), libc::EUCLEAN);
    }
}
