//! What no input may do: open a file that the target did not name, or take more memory than is stated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Runs one input. While it runs the heap may grow by `limit` bytes, and no file may be opened.
pub fn confined(limit: usize, run: impl FnOnce()) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    LIMIT.store(before.saturating_add(limit), Relaxed);
    CONFINED.store(true, Relaxed);
    run();
    CONFINED.store(false, Relaxed);
    LIMIT.store(usize::MAX, Relaxed);
    static TELL: OnceLock<bool> = OnceLock::new();
    if *TELL.get_or_init(|| std::env::var_os("DMSNAP_FUZZ_PEAK").is_some()) {
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        eprintln!("peak {peak} of {limit} bytes");
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grow(by: usize) {
    let live = LIVE.fetch_add(by, Relaxed).saturating_add(by);
    PEAK.fetch_max(live, Relaxed);
    if live > LIMIT.load(Relaxed) && !std::thread::panicking() {
        // Panics and messages need memory, and this must end without any. libFuzzer keeps the input.
        LIMIT.store(usize::MAX, Relaxed);
        let message = b"memory: more than the stated bound\n";
        // SAFETY: bytes and their number; abort takes nothing.
        unsafe {
            libc::write(2, message.as_ptr().cast(), message.len());
            libc::abort();
        }
    }
}

// SAFETY: all is done by the system's allocator; what is counted does not change it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The function by which Rust's library opens files, in front of the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(path) };
    // Where the UUIDs of new images come from; and a panic looks for its backtrace.
    let allowed = name == c"/dev/urandom" || std::thread::panicking();
    if !allowed && CONFINED.swap(false, Relaxed) {
        panic!("the file {name:?} was opened");
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}
