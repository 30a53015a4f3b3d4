//! Storage by callbacks: with short transfers, interruptions and errors, as the input says.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arbitrary::Arbitrary;
use dmsnap::ByteRange;
use dmsnap::ffi::{self, dmsnap_storage, dmsnap_storage_ops};
use dmsnap::storage::{MemoryStorage, Storage};

use super::made;

/// What is special about a host.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Manner {
    pub fixed: bool,
    alignment: u8,
    /// Transfers end after so many bytes, and some more so that it does not take for ever; if not at 0.
    short: u16,
    zeroes: bool,
    discards: bool,
    extents: bool,
}

impl Manner {
    /// A file that does as it is told.
    pub const PLAIN: Manner = Manner {
        fixed: false,
        alignment: 0,
        short: 0,
        zeroes: true,
        discards: true,
        extents: true,
    };
}

#[derive(Debug)]
pub struct Host {
    memory: MemoryStorage,
    manner: Manner,
    /// How many more calls work; then one fails with `errno`.
    pub until: AtomicU64,
    errno: AtomicU64,
    freed: AtomicBool,
    interrupted: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Host {
    pub fn new(size: u64, manner: Manner) -> Box<Host> {
        let align = Host::align(manner);
        let size = size.next_multiple_of(align);
        let memory = if manner.fixed {
            MemoryStorage::fixed(size)
        } else {
            MemoryStorage::with_size(size)
        };
        Box::new(Host {
            memory,
            manner,
            until: AtomicU64::new(NEVER),
            errno: AtomicU64::new(0),
            freed: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
        })
    }

    fn align(manner: Manner) -> u64 {
        if manner.alignment % 4 == 3 {
            512 << (manner.alignment / 4 % 4)
        } else {
            1
        }
    }

    pub fn fill(&self, bytes: &[u8]) {
        self.memory
            .write_at(bytes, 0)
            .expect("as large as it was made");
    }

    /// The storage as the library sees it. The host must outlive it.
    pub fn storage(&self) -> Box<dmsnap_storage> {
        let manner = self.manner;
        let align = Host::align(manner) as u32;
        let ops = dmsnap_storage_ops {
            struct_size: size_of::<dmsnap_storage_ops>(),
            opaque: std::ptr::from_ref(self).cast_mut().cast(),
            preadv: Some(preadv),
            pwritev: Some(pwritev),
            flush: Some(flush),
            size: Some(size),
            set_size: (!manner.fixed).then_some(set_size as _),
            write_zeroes: manner.zeroes.then_some(write_zeroes as _),
            discard: manner.discards.then_some(discard as _),
            extents: manner.extents.then_some(extents as _),
            free: Some(free),
            request_alignment: align,
            memory_alignment: align,
        };
        made(|out| {
            // SAFETY: the callbacks keep their contract, and the host lives on.
            unsafe { ffi::dmsnap_storage_open_ops(&raw const ops, c"host".as_ptr(), out) }
        })
        .expect("good callbacks")
    }

    pub fn is_freed(&self) -> bool {
        self.freed.load(Relaxed)
    }

    /// The call after so many others fails.
    pub fn fail_after(&self, calls: u64, errno: c_int) {
        self.errno.store(errno as u64, Relaxed);
        self.until.store(calls, Relaxed);
    }

    pub fn heal(&self) {
        self.until.store(NEVER, Relaxed);
    }

    /// Every call but `free` begins here.
    fn begin(&self, offset: u64, len: u64) -> Result<(), c_int> {
        assert!(!self.is_freed(), "a callback after free");
        let align = Host::align(self.manner);
        assert!(
            offset.is_multiple_of(align) && len.is_multiple_of(align),
            "{len} bytes at {offset}, not aligned"
        );
        if self.manner.short % 3 == 2 && !self.interrupted.swap(true, Relaxed) {
            return Err(-libc::EINTR);
        }
        self.interrupted.store(false, Relaxed);
        match self.until.load(Relaxed) {
            NEVER => Ok(()),
            0 => {
                self.until.store(NEVER, Relaxed);
                Err(-(self.errno.load(Relaxed) as c_int))
            }
            left => {
                self.until.store(left - 1, Relaxed);
                Ok(())
            }
        }
    }

    /// How many bytes of so many are transferred.
    fn some(&self, len: u64) -> u64 {
        let align = Host::align(self.manner);
        match u64::from(self.manner.short) {
            0 => len,
            short => len.min((short + 200).next_multiple_of(align)),
        }
    }

    fn bytes(&self) -> u64 {
        self.memory.size().expect("memory has a size")
    }
}

/// # Safety
/// `opaque` is a host that lives.
unsafe fn host<'a>(opaque: *mut c_void) -> &'a Host {
    // SAFETY: the caller's promise.
    unsafe { &*opaque.cast::<Host>() }
}

/// # Safety
/// As `preadv` promises.
unsafe fn buffers<'a>(iov: *const libc::iovec, count: c_int) -> Vec<&'a mut [u8]> {
    // SAFETY: the caller's promise.
    let iov = unsafe { std::slice::from_raw_parts(iov, count as usize) };
    iov.iter()
        .filter(|part| part.iov_len > 0)
        // SAFETY: the caller's promise.
        .map(|part| unsafe { std::slice::from_raw_parts_mut(part.iov_base.cast(), part.iov_len) })
        .collect()
}

unsafe extern "C" fn preadv(
    opaque: *mut c_void,
    iov: *const libc::iovec,
    count: c_int,
    offset: u64,
) -> i64 {
    // SAFETY: the library's promise.
    let (host, buffers) = unsafe { (host(opaque), buffers(iov, count)) };
    let len: u64 = buffers.iter().map(|part| part.len() as u64).sum();
    if let Err(errno) = host.begin(offset, len) {
        return errno.into();
    }
    assert!(offset + len <= host.bytes(), "a read past the end");
    let mut left = host.some(len);
    let mut at = offset;
    for part in buffers {
        let take = left.min(part.len() as u64) as usize;
        host.memory.read_at(&mut part[..take], at).expect("inside");
        (left, at) = (left - take as u64, at + take as u64);
    }
    (at - offset) as i64
}

unsafe extern "C" fn pwritev(
    opaque: *mut c_void,
    iov: *const libc::iovec,
    count: c_int,
    offset: u64,
) -> i64 {
    // SAFETY: the library's promise; the buffers are only read.
    let (host, buffers) = unsafe { (host(opaque), buffers(iov, count)) };
    let len: u64 = buffers.iter().map(|part| part.len() as u64).sum();
    if let Err(errno) = host.begin(offset, len) {
        return errno.into();
    }
    assert!(
        !host.manner.fixed || offset + len <= host.bytes(),
        "a write past the end"
    );
    let mut left = host.some(len);
    let mut at = offset;
    for part in buffers {
        let take = left.min(part.len() as u64) as usize;
        host.memory.write_at(&part[..take], at).expect("inside");
        (left, at) = (left - take as u64, at + take as u64);
    }
    (at - offset) as i64
}

unsafe extern "C" fn flush(opaque: *mut c_void) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    host.begin(0, 0).err().unwrap_or(0)
}

unsafe extern "C" fn size(opaque: *mut c_void, out: *mut u64) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    assert!(!host.is_freed(), "a callback after free");
    // SAFETY: the library's promise.
    unsafe { out.write(host.bytes()) };
    0
}

/// The size stays a multiple of the alignment, as it has to be.
unsafe extern "C" fn set_size(opaque: *mut c_void, size: u64) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    let whole = size.next_multiple_of(Host::align(host.manner));
    host.begin(0, 0)
        .map(|()| host.memory.set_size(whole).expect("any size"))
        .err()
        .unwrap_or(0)
}

unsafe extern "C" fn write_zeroes(
    opaque: *mut c_void,
    offset: u64,
    len: u64,
    unmap: bool,
) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    host.begin(offset, len)
        .map(|()| {
            host.memory
                .write_zeroes(ByteRange::new(offset, len), unmap)
                .expect("any range")
        })
        .err()
        .unwrap_or(0)
}

unsafe extern "C" fn discard(opaque: *mut c_void, offset: u64, len: u64) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    host.begin(offset, len)
        .map(|()| {
            host.memory
                .discard(ByteRange::new(offset, len))
                .expect("any range")
        })
        .err()
        .unwrap_or(0)
}

unsafe extern "C" fn extents(
    opaque: *mut c_void,
    offset: u64,
    len: *mut u64,
    allocated: *mut bool,
) -> c_int {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    if let Err(errno) = host.begin(0, 0) {
        return errno;
    }
    assert!(offset < host.bytes(), "an extent past the end");
    let extent = host.memory.extent_at(offset).expect("inside");
    // SAFETY: the library's promise.
    unsafe {
        len.write(extent.len);
        allocated.write(extent.allocated);
    }
    0
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: the library's promise.
    let host = unsafe { host(opaque) };
    assert!(!host.freed.swap(true, Relaxed), "freed twice");
}
