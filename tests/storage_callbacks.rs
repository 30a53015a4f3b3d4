//! Hosts that answer nonsense, and hosts that call back into what they serve.

#![allow(clippy::unwrap_used, reason = "a failure is the test's result")]

mod storage_common;

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use dmsnap::error::ErrorKind;
use dmsnap::storage::{
    CallbackStorage, HostAlignment, HostCallbacks, MemoryStorage, Storage, StorageExtent,
};
use dmsnap::units::ByteRange;
use storage_common::host::Host;

type Answer = fn(usize) -> io::Result<usize>;

/// Answers each transfer with what `answer` makes of the number of bytes asked for.
struct Odd {
    answer: Answer,
    extent: StorageExtent,
}

impl HostCallbacks for Odd {
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], _offset: u64) -> io::Result<usize> {
        (self.answer)(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], _offset: u64) -> io::Result<usize> {
        (self.answer)(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn flush(&self) -> io::Result<()> {
        (self.answer)(0).map(drop)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }

    fn extent_at(&self, _offset: u64) -> Option<io::Result<StorageExtent>> {
        Some(Ok(self.extent))
    }
}

fn odd(answer: Answer) -> CallbackStorage {
    let extent = StorageExtent {
        len: 0,
        allocated: true,
    };
    CallbackStorage::new("odd host", Box::new(Odd { answer, extent })).unwrap()
}

#[test]
fn test_answers_that_cannot_be_are_errors() {
    let answers: [(&str, Answer); 2] = [
        ("nothing moved", |_| Ok(0)),
        ("too much", |len| Ok(len + 1)),
    ];
    for (what, answer) in answers {
        let storage = odd(answer);
        let read = storage.read_at(&mut [0; 10], 7).unwrap_err();
        let write = storage.write_at(&[0; 10], 7).unwrap_err();
        for error in [read, write] {
            assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
            assert_eq!(error.offset(), Some(7), "{what}: {error}");
            assert_eq!(error.path(), Some("odd host"), "{what}: {error}");
        }
    }
    let error = odd(Ok).extent_at(5).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Io, Some(5)));
    let endless = StorageExtent {
        len: u64::MAX,
        allocated: false,
    };
    let storage = CallbackStorage::new(
        "odd",
        Box::new(Odd {
            answer: Ok,
            extent: endless,
        }),
    )
    .unwrap();
    assert_eq!(storage.extent_at(5).unwrap().len, (1 << 20) - 5);
}

#[test]
fn test_errors_of_the_host_keep_their_errno() {
    for (errno, kind) in [
        (libc::EIO, ErrorKind::Io),
        (libc::EREMOTEIO, ErrorKind::Io),
        (libc::ENOSPC, ErrorKind::NoSpace),
        (libc::EDQUOT, ErrorKind::NoSpace),
        (libc::EROFS, ErrorKind::ReadOnly),
    ] {
        let host = Host {
            fails: Some(errno),
            ..Host::new(MemoryStorage::new())
        };
        let storage = CallbackStorage::new("host", Box::new(host)).unwrap();
        let results = [
            storage.write_at(&[1; 5], 0),
            storage.read_at(&mut [1; 5], 0),
            storage.flush(),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.errno()), (kind, errno), "{error}");
        }
    }
}

#[test]
fn test_alignment_has_to_be_possible() {
    for (request, memory) in [
        (0, 1),
        (3, 1),
        (512, 0),
        (512, 24),
        (2 << 20, 1),
        (1, 1 << 31),
    ] {
        let host = Host {
            alignment: HostAlignment { request, memory },
            ..Host::new(MemoryStorage::new())
        };
        let error = CallbackStorage::new("host", Box::new(host)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

/// Uses the storage that it serves from inside each callback.
struct Reentrant {
    bytes: MemoryStorage,
    served: Arc<OnceLock<Weak<CallbackStorage>>>,
    other: CallbackStorage,
    seen: Arc<Mutex<Vec<(&'static str, ErrorKind)>>>,
    alignment: HostAlignment,
}

impl Reentrant {
    fn call_back(&self) {
        let Some(served) = self.served.get().and_then(Weak::upgrade) else {
            return;
        };
        assert!(served.in_callback());
        // Another storage is free to be used.
        self.other.read_at(&mut [0; 1], 0).unwrap();
        assert!(!self.other.in_callback());
        let results = [
            ("read", served.read_at(&mut [0; 1], 0)),
            ("write", served.write_at(&[0; 1], 0)),
            ("zero", served.write_zeroes(ByteRange::new(0, 1), true)),
            ("discard", served.discard(ByteRange::new(0, 512))),
            ("flush", served.flush()),
            ("set size", served.set_size(5)),
            ("size", served.size().map(drop)),
            ("extent", served.extent_at(0).map(drop)),
        ];
        let seen = results.map(|(what, result)| (what, result.unwrap_err().kind()));
        self.seen.lock().unwrap().extend(seen);
    }
}

impl HostCallbacks for Reentrant {
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        self.call_back();
        self.bytes.read_vectored_at(bufs, offset).unwrap();
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.call_back();
        self.bytes.write_vectored_at(bufs, offset).unwrap();
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn flush(&self) -> io::Result<()> {
        self.call_back();
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }

    fn discard(&self, _range: ByteRange) -> Option<io::Result<()>> {
        self.call_back();
        None
    }

    fn alignment(&self) -> HostAlignment {
        self.alignment
    }
}

#[test]
fn test_using_a_storage_from_inside_its_callbacks_is_a_deadlock() {
    for request in [1, 512] {
        let (served, seen) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
        let other = Host::new(MemoryStorage::with_size(10));
        let host = Reentrant {
            bytes: MemoryStorage::fixed(1 << 20),
            served: Arc::clone(&served),
            other: CallbackStorage::new("other", Box::new(other)).unwrap(),
            seen: Arc::clone(&seen),
            alignment: HostAlignment { request, memory: 1 },
        };
        let storage = Arc::new(CallbackStorage::new("served", Box::new(host)).unwrap());
        served.set(Arc::downgrade(&storage)).unwrap();
        let calls: [&dyn Fn() -> dmsnap::error::Result<()>; 5] = [
            &|| storage.read_at(&mut [0; 100], 3),
            &|| storage.write_at(&[1; 100], 3),
            &|| storage.flush(),
            &|| storage.discard(ByteRange::new(0, 4096)),
            &|| storage.write_zeroes(ByteRange::new(0, 4096), false),
        ];
        for call in calls {
            call().unwrap();
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert!(seen.len() >= 8, "the host was asked");
            for (what, kind) in seen {
                assert_eq!(kind, ErrorKind::Deadlock, "{what}, requests of {request}");
            }
        }
        assert!(!storage.in_callback());
    }
}

/// What a host holds is freed once, when the storage goes.
#[test]
fn test_callbacks_are_dropped_once() {
    let host = Host::new(MemoryStorage::new());
    let bytes = Arc::clone(&host.bytes);
    let storage = CallbackStorage::new("host", Box::new(host)).unwrap();
    assert_eq!(Arc::strong_count(&bytes), 2);
    drop(storage);
    assert_eq!(Arc::strong_count(&bytes), 1);
}
