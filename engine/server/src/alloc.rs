//! The allocator: jemalloc, its heap in transparent huge pages so that a fork copies few page tables.
#![allow(unsafe_code)]

use tikv_jemalloc_ctl::{epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// - `slab_sizes`: small sizes come in runs of eight pages. jemalloc keeps 128 bytes for each run, which for runs of one page
///   made 4 bytes for each key of a hundred bytes.
/// - `narenas_ratio`: one arena a core instead of four, as each begins with huge pages of its own.
/// - `background_thread` returns freed memory to the system, so no command does, and an idle server does too; whole pages
///   only, after some seconds, since that splits huge pages.
///
/// Read by jemalloc before main: the address of a text that ends in a zero byte.
// SAFETY: jemalloc declares this symbol as a weak `const char *`; a reference to a byte has that layout.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: &u8 = &b"thp:always,metadata_thp:auto,slab_sizes:1-4096:8,narenas_ratio:1,\
    background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0\0"[0];

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
    fn jemalloc_is_in_use_as_configured() {
        let block = std::hint::black_box(vec![1_u8; 1 << 20]);
        assert!(memory().allocated >= block.len() as u64);
        // SAFETY: each is a setting of that type, a text being a constant that jemalloc keeps for the life of the process.
        let (thp, background_thread, slab) = unsafe {
            (
                tikv_jemalloc_ctl::raw::read_str(b"opt.thp\0"),
                tikv_jemalloc_ctl::raw::read::<bool>(b"opt.background_thread\0"),
                tikv_jemalloc_ctl::raw::read::<usize>(b"arenas.bin.8.slab_size\0"),
            )
        };
        let thp = thp.ok().and_then(|text| std::str::from_utf8(text).ok());
        assert_eq!(thp.map(|text| text.trim_end_matches('\0')), Some("always"));
        assert_eq!((background_thread, slab), (Ok(true), Ok(8 * 4096)));
    }
}
