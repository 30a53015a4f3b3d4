//! The last error of each thread.

use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Write};

use crate::error::{Error, ErrorKind};

/// What an error is, for programs. It tells apart what shares an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum dmsnap_error_kind {
    /// No call has failed on this thread.
    None = 0,
    /// The operating system or a host callback reported an I/O error.
    Io = 1,
    /// No space left for a new chunk. Nothing is lost; it goes on after space was added.
    NoSpace = 2,
    /// The file is not in a format this library reads.
    InvalidFormat = 3,
    /// A version or a feature that this library does not know.
    Unsupported = 4,
    /// The file contradicts itself.
    Corrupt = 5,
    /// The snapshot was invalidated: its header says that its data is no longer good.
    SnapshotInvalid = 6,
    /// The snapshot overflowed in the kernel's PO mode; it can be read, not written, until it is
    /// reopened.
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

impl From<ErrorKind> for dmsnap_error_kind {
    fn from(kind: ErrorKind) -> dmsnap_error_kind {
        use dmsnap_error_kind as C;
        match kind {
            ErrorKind::Io => C::Io,
            ErrorKind::NoSpace => C::NoSpace,
            ErrorKind::InvalidFormat => C::InvalidFormat,
            ErrorKind::Unsupported => C::Unsupported,
            ErrorKind::Corrupt => C::Corrupt,
            ErrorKind::SnapshotInvalid => C::SnapshotInvalid,
            ErrorKind::Overflow => C::Overflow,
            ErrorKind::MergeFailed => C::MergeFailed,
            ErrorKind::OutOfBounds => C::OutOfBounds,
            ErrorKind::InvalidArgument => C::InvalidArgument,
            ErrorKind::ReadOnly => C::ReadOnly,
            ErrorKind::Busy => C::Busy,
            ErrorKind::PreviousIo => C::PreviousIo,
            ErrorKind::NotFound => C::NotFound,
            ErrorKind::Exists => C::Exists,
            ErrorKind::Permission => C::Permission,
            ErrorKind::OriginRefused => C::OriginRefused,
            ErrorKind::OriginMismatch => C::OriginMismatch,
            ErrorKind::ChainTooDeep => C::ChainTooDeep,
            ErrorKind::Deadlock => C::Deadlock,
            ErrorKind::Cancelled => C::Cancelled,
            ErrorKind::NoMemory => C::NoMemory,
            ErrorKind::Internal => C::Internal,
        }
    }
}

/// Bytes of the longest message, its NUL included. Two long paths fit.
const MESSAGE_SIZE: usize = 1024;

struct LastError {
    kind: dmsnap_error_kind,
    len: usize,
    /// Ends with a NUL at `len`.
    text: [u8; MESSAGE_SIZE],
}

impl Write for LastError {
    /// Cuts what is too long, between two characters.
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let mut room = piece.len().min(MESSAGE_SIZE - 1 - self.len);
        while !piece.is_char_boundary(room) {
            room -= 1;
        }
        // A NUL would end the message for C.
        let bytes = piece.as_bytes().iter().take(room);
        let places = self.text.iter_mut().skip(self.len);
        for (place, byte) in places.zip(bytes) {
            *place = if *byte == 0 { b'?' } else { *byte };
        }
        self.len += room;
        if room < piece.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

thread_local! {
    // Constant and without Drop: needs no set-up, and can still be used while a thread ends.
    static LAST: RefCell<LastError> = const {
        RefCell::new(LastError { kind: dmsnap_error_kind::None, len: 0, text: [0; MESSAGE_SIZE] })
    };
}

/// Makes `error` the thread's last one.
pub(super) fn set_last(error: &Error) {
    LAST.with_borrow_mut(|last| {
        last.kind = error.kind().into();
        last.len = 0;
        // An error here means that the message was cut.
        let _ = write!(last, "{error}");
        let end = last.len;
        if let Some(byte) = last.text.get_mut(end) {
            *byte = 0;
        }
    });
}

/// What the last call that failed on this thread said: one line with the file, the operation and
/// the offset where known, and what was found and expected. Empty if none has failed. Never NULL.
///
/// The memory belongs to the library. It holds until another call fails on this thread, and no
/// longer than the thread.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_last_error_message() -> *const c_char {
    super::guard::guard_or(c"".as_ptr(), || {
        LAST.with_borrow(|last| last.text.as_ptr().cast())
    })
}

/// The kind of the last error on this thread. Set by calls that fail; others leave it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn dmsnap_last_error_kind() -> dmsnap_error_kind {
    super::guard::guard_or(dmsnap_error_kind::Internal, || {
        LAST.with_borrow(|last| last.kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn message() -> String {
        // SAFETY: the pointer is to this thread's buffer, which ends with a NUL.
        let text = unsafe { CStr::from_ptr(dmsnap_last_error_message()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn test_kinds_have_the_numbers_of_the_rust_enum() {
        for number in 1..=23 {
            let kinds = [
                ErrorKind::Io,
                ErrorKind::NoSpace,
                ErrorKind::InvalidFormat,
                ErrorKind::Unsupported,
                ErrorKind::Corrupt,
                ErrorKind::SnapshotInvalid,
                ErrorKind::Overflow,
                ErrorKind::MergeFailed,
                ErrorKind::OutOfBounds,
                ErrorKind::InvalidArgument,
                ErrorKind::ReadOnly,
                ErrorKind::Busy,
                ErrorKind::PreviousIo,
                ErrorKind::NotFound,
                ErrorKind::Exists,
                ErrorKind::Permission,
                ErrorKind::OriginRefused,
                ErrorKind::OriginMismatch,
                ErrorKind::ChainTooDeep,
                ErrorKind::Deadlock,
                ErrorKind::Cancelled,
                ErrorKind::NoMemory,
                ErrorKind::Internal,
            ];
            let kind = kinds[number - 1];
            assert_eq!(kind as usize, number);
            assert_eq!(dmsnap_error_kind::from(kind) as usize, number);
        }
    }

    #[test]
    fn test_long_messages_are_cut_between_characters() {
        let text = "é".repeat(MESSAGE_SIZE);
        set_last(&Error::new(ErrorKind::Corrupt, text));
        let message = message();
        assert!(message.len() >= MESSAGE_SIZE - 2, "{}", message.len());
        assert!(message.starts_with("corrupt: éé"), "{message}");
        assert_eq!(dmsnap_last_error_kind(), dmsnap_error_kind::Corrupt);
    }

    #[test]
    fn test_a_shorter_message_replaces_a_longer_one_and_keeps_no_nul() {
        set_last(&Error::new(ErrorKind::Corrupt, "long".repeat(20)));
        set_last(&Error::new(ErrorKind::Busy, "a\0b"));
        assert_eq!(message(), "busy: a?b");
    }

    #[test]
    fn test_errors_belong_to_their_thread() {
        set_last(&Error::new(ErrorKind::Busy, "here"));
        let other = std::thread::spawn(|| (dmsnap_last_error_kind(), message())).join();
        assert_eq!(other.unwrap(), (dmsnap_error_kind::None, String::new()));
        assert_eq!(message(), "busy: here");
    }
}
