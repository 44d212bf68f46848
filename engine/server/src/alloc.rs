//! The allocator: jemalloc, its heap in transparent huge pages so that a fork copies few page tables.
#![allow(unsafe_code)]

use tikv_jemalloc_ctl::{epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before main: the address of a text that ends in a zero byte.
// SAFETY: jemalloc declares this symbol as a weak `const char *`; a reference to a byte has that layout.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: &u8 = &b"thp:always,metadata_thp:auto\0"[0];

/// What the allocator knows, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// In use by the program.
    pub(crate) allocated: u64,
    /// In pages that hold something of it.
    pub(crate) active: u64,
    /// In physical memory.
    pub(crate) resident: u64,
}

/// Asks the allocator; zeros where it does not tell.
pub(crate) fn memory() -> Memory {
    // Figures are those of the last time the epoch was advanced.
    let _ = epoch::advance();
    let read = |value: tikv_jemalloc_ctl::Result<usize>| value.map_or(0, |bytes| bytes as u64);
    Memory {
        allocated: read(stats::allocated::read()),
        active: read(stats::active::read()),
        resident: read(stats::resident::read()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jemalloc_is_in_use_with_huge_pages() {
        let block = std::hint::black_box(vec![1_u8; 1 << 20]);
        assert!(memory().allocated >= block.len() as u64);
        // SAFETY: `opt.thp` is a constant text that jemalloc keeps for the life of the process.
        let thp: Option<&str> = unsafe { tikv_jemalloc_ctl::raw::read_str(b"opt.thp\0") }
            .ok()
            .and_then(|s| std::str::from_utf8(s).ok());
        assert_eq!(thp.map(|t| t.trim_end_matches('\0')), Some("always"));
    }
}
