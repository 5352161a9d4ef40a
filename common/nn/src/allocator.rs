//! The allocator's habits, for processes that train.

/// Keeps freed memory for the next allocation instead of giving it back to the operating system each time.
///
/// A training step frees and allocates tensors of megabytes. glibc gives each of those its own mapping, and the kernel
/// clears every page of it anew, which costs more than the arithmetic of a small step. Call it once, at the start of a
/// process; elsewhere than with glibc it does nothing. A process that never trains stays as small as before.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "mallopt is a C function; it takes two integers and touches only the allocator")]
    // SAFETY: mallopt may be called at any time; a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_KEPT);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Allocations up to here are kept: the most that glibc allows.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGEST_KEPT: libc::c_int = 32 << 20;

/// Free memory at the end of an arena above which it is given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MOST_KEPT: libc::c_int = 256 << 20;

/// Arenas: what one keeps, another cannot use, so many threads must not each have their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;
