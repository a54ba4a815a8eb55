//! What the process keeps of memory that it has no use for, given back to the kernel.

use std::ffi::{c_int, c_void};

use libc::{Elf64_Phdr, PF_W, PT_LOAD, dl_iterate_phdr, dl_phdr_info, size_t};

/// Lets go of the pages of code and constants that are mapped: those that are used again are mapped again, from the page cache, at
/// their next use; those that only the start of a process needs are not.
pub fn release_code() {
    // SAFETY: `release_segments` is called by the loader with what it is declared to take, and keeps nothing of it.
    unsafe { dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// One loaded object's segments that nothing can have written to.
extern "C" fn release_segments(info: *mut dl_phdr_info, _: size_t, _: *mut c_void) -> c_int {
    // SAFETY: the loader hands in a valid object, whose program headers stay mapped while it is loaded.
    let (base, name, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, info.dlpi_name, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    // SAFETY: the name is null or terminated, and lives as long as the object.
    let is_the_kernel_s =
        !name.is_null() && unsafe { std::ffi::CStr::from_ptr(name) }.to_bytes().starts_with(b"linux-");
    if !is_the_kernel_s {
        headers
            .iter()
            .filter(|header| is_read_only(header))
            .for_each(|header| release(base + header.p_vaddr, header.p_memsz));
    }
    0
}

/// Relocated data lies in segments that are writable, even where it is protected afterwards.
fn is_read_only(header: &Elf64_Phdr) -> bool {
    header.p_type == PT_LOAD && header.p_flags & PF_W == 0
}

/// The whole pages in it.
fn release(start: u64, bytes: u64) {
    const PAGE: u64 = 4096;
    let (first, end) = (start.next_multiple_of(PAGE), (start + bytes) / PAGE * PAGE);
    if first < end {
        // SAFETY: a private mapping of a file that nobody wrote to (no segment of this kind has text relocations): what is
        // dropped comes back from the file as it was. A failure leaves the pages where they are.
        unsafe { libc::madvise(first as *mut c_void, (end - first) as usize, libc::MADV_DONTNEED) };
    }
}

/// Gives pages of the heap in which nothing lives back to the kernel: the allocator keeps them otherwise, as long as
/// anything that lives lies above.
pub fn release_heap() {
    // SAFETY: the allocator locks what it works on.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this process, in KiB, from `/proc/self/smaps_rollup`.
    fn resident(field: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn code_runs_on_after_its_pages_were_let_go() {
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let words = || (0..1000).map(|n| format!("{:x}", n * 7919)).collect::<Vec<_>>();
        let before = sorted(words());
        for _ in 0..3 {
            release_code();
            assert_eq!(sorted(words()), before);
        }
    }

    #[test]
    fn pages_below_what_still_lives_are_given_back() {
        // Small enough for the heap proper, and with one survivor above.
        let mut blocks: Vec<Vec<u8>> = (0..4096).map(|n| vec![n as u8 | 1; 16 << 10]).collect();
        let last = blocks.pop();
        let full = resident("Private_Dirty:");
        drop(blocks);
        release_heap();
        let left = resident("Private_Dirty:");
        assert!(left + (32 << 10) < full, "{full} KiB before, {left} after");
        assert_eq!(last.map(|block| block.len()), Some(16 << 10));
    }
}
