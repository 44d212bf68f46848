//! The allocator: jemalloc, its heap in transparent huge pages so that a fork copies few page tables.
//!
//! When parent or child writes to a huge page that they share, the system splits it into small ones, and it stays split.
//! [`HugePages`] puts such pages together again after the child has ended.
#![allow(unsafe_code)]

use crate::available;
use cairn_engine::Heap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};
use tikv_jemalloc_ctl::{epoch, raw, stats, stats_print};

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
    pub(crate) used: u64,
    /// The most that was ever found in use.
    pub(crate) peak: u64,
    /// As well, or kept ready for its threads.
    pub(crate) allocated: u64,
    /// In pages that hold something of it.
    pub(crate) active: u64,
    /// In physical memory.
    pub(crate) resident: u64,
}

/// The most that any look has found in use.
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Asks the allocator; zeros where it does not tell.
pub(crate) fn memory() -> Memory {
    // Figures are those of the last time the epoch was advanced.
    let _ = epoch::advance();
    let read = |value: tikv_jemalloc_ctl::Result<usize>| value.map_or(0, |bytes| bytes as u64);
    let allocated = read(stats::allocated::read());
    // SAFETY: both are sizes; 4096 stands for all arenas together.
    let kept = unsafe {
        read(raw::read(b"stats.arenas.4096.tcache_bytes\0"))
            + read(raw::read(b"stats.arenas.4096.tcache_stashed_bytes\0"))
    };
    let used = allocated.saturating_sub(kept);
    Memory {
        used,
        peak: PEAK.fetch_max(used, Relaxed).max(used),
        allocated,
        active: read(stats::active::read()),
        resident: read(stats::resident::read()),
    }
}

/// What jemalloc tells of itself, as it prints it.
pub(crate) fn report() -> String {
    let mut text = Vec::new();
    let printed = stats_print::stats_print(&mut text, stats_print::Options::default());
    // It is there for people, who can make something of a part.
    printed.map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&text).into_owned())
}

/// What jemalloc's names may be asked for by a person: numbers and texts are only read, since most of what can be set would
/// take the ground from under the heap.
const TEXTS: &[&[u8]] =
    &[b"version", b"config.malloc_conf", b"opt.dss", b"opt.metadata_thp", b"opt.percpu_arena", b"opt.thp"];
/// Actions that are harmless. 4096 stands for all arenas together.
const ACTIONS: &[&[u8]] = &[b"thread.tcache.flush", b"thread.idle", b"arena.4096.purge", b"arena.4096.decay"];

/// The number that jemalloc tells by this name.
pub(crate) fn number(name: &[u8]) -> Result<i64, String> {
    let name = terminated(name)?;
    // SAFETY: jemalloc refuses to give a value of another size, and any bits are a number.
    unsafe {
        let read = raw::read::<u64>(&name).map(|value| i64::try_from(value).unwrap_or(i64::MAX));
        read.or_else(|_| raw::read::<u32>(&name).map(i64::from))
            .or_else(|_| raw::read::<u8>(&name).map(i64::from))
            .map_err(refused)
    }
}

/// The text that jemalloc tells by this name.
pub(crate) fn text(name: &[u8]) -> Result<String, String> {
    if !TEXTS.contains(&name) {
        return Err("ERR Invalid argument".to_owned());
    }
    // SAFETY: all of these are texts that stay for as long as the process lives.
    let text = unsafe { raw::read_str(&terminated(name)?) }.map_err(refused)?;
    Ok(String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned())
}

/// Lets jemalloc do something.
pub(crate) fn act(name: &[u8]) -> Result<(), String> {
    let name = terminated(name)?;
    let nothing = std::ptr::null_mut();
    if !ACTIONS.contains(&&name[..name.len() - 1]) {
        return Err("ERR Invalid argument".to_owned());
    }
    // SAFETY: all of these are actions, which take no value and give none, and the name ends with a zero.
    let code =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr().cast(), nothing, nothing.cast(), nothing, 0) };
    if code == 0 { Ok(()) } else { Err(format!("ERR {}", io::Error::from_raw_os_error(code))) }
}

/// A name as jemalloc reads it.
fn terminated(name: &[u8]) -> Result<Vec<u8>, String> {
    let name = std::ffi::CString::new(name).map_err(|_| "ERR Invalid argument".to_owned())?;
    Ok(name.into_bytes_with_nul())
}

fn refused(error: tikv_jemalloc_ctl::Error) -> String {
    format!("ERR {error}")
}

/// Gives free memory back to the system: that of this thread's cache, and whole pages of all arenas.
pub(crate) fn purge() -> Result<(), String> {
    let failed = |_| "ERR Error purging dirty pages".to_owned();
    act(b"thread.tcache.flush").and_then(|()| act(b"arena.4096.purge")).map_err(failed)
}

const SMALL: usize = 4096;
const HUGE: usize = 2 << 20;

/// A huge page's place is filled up only where so many of its small pages are in use, so that memory which the allocator
/// has given back stays given back.
const SMALL_PAGES_MIN: usize = HUGE / SMALL / 8 * 7;

/// The heap as the system sees it: memory that belongs to no file.
#[derive(Debug, Default)]
pub(crate) struct HugePages {
    /// The system cannot do it, or has been told not to; that was said once.
    unavailable: AtomicBool,
}

thread_local! {
    /// Where jemalloc counts what this thread has allocated and freed.
    static COUNTERS: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> =
        allocatedp::read().ok().zip(deallocatedp::read().ok());
}

impl Heap for HugePages {
    fn used_bytes(&self) -> u64 {
        memory().used
    }

    fn available_bytes(&self) -> Option<u64> {
        available::bytes(Path::new("/"))
    }

    fn thread_balance(&self) -> i64 {
        COUNTERS.with(|counters| match counters {
            Some((allocated, freed)) => allocated.get().wrapping_sub(freed.get()).cast_signed(),
            None => 0,
        })
    }

    fn mend(&self, go_on: &dyn Fn(Duration) -> bool) {
        if self.unavailable.load(Relaxed) {
            return;
        }
        if let Err(error) = mend_all(go_on) {
            self.unavailable.store(true, Relaxed);
            tracing::info!(
                %error,
                "the system does not put split huge pages together again: forks for snapshots will take longer"
            );
        }
    }
}

/// An error when the system knows no such thing.
fn mend_all(go_on: &dyn Fn(Duration) -> bool) -> io::Result<()> {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")?;
    if setting.contains("[never]") {
        return Err(io::Error::other("transparent huge pages are switched off"));
    }
    let pages = File::open("/proc/self/pagemap")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let (mut mended, mut refused) = (false, None);
    for at in maps.lines().filter_map(anonymous).flat_map(|region| region.step_by(HUGE)) {
        let begun = Instant::now();
        let worth_it = small_pages(&pages, at)? >= SMALL_PAGES_MIN;
        match if worth_it { collapse(at) } else { Ok(()) } {
            Ok(()) => mended |= worth_it,
            // Before Linux 6.1 or without huge pages everywhere, otherwise for memory that is not of that kind.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            // A page that is busy or gone meanwhile, or no huge page to be had now: the next mending may find one.
            Err(_) => {}
        }
        if !go_on(begun.elapsed()) {
            break;
        }
    }
    refused.filter(|_| !mended).map_or(Ok(()), Err)
}

/// The part of a region in whole huge pages, if it is writable and belongs to no file: a line of `/proc/self/maps`.
fn anonymous(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let [access, _offset, _device, inode] = [words.next()?, words.next()?, words.next()?, words.next()?];
    if access != "rw-p" || inode != "0" || words.next().is_some() {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(from)?.checked_next_multiple_of(HUGE)?..address(to)? / HUGE * HUGE)
}

/// How many small pages are in memory where a huge one would lie.
fn small_pages(pages: &File, at: usize) -> io::Result<usize> {
    const PRESENT: u64 = 1 << 63;
    let mut entries = [0; HUGE / SMALL * 8];
    pages.read_exact_at(&mut entries, (at / SMALL * 8) as u64)?;
    let (entries, _) = entries.as_chunks::<8>();
    Ok(entries.iter().filter(|entry| u64::from_ne_bytes(**entry) & PRESENT != 0).count())
}

/// Puts the small pages at `at` into one huge one; nothing where they are one already.
fn collapse(at: usize) -> io::Result<()> {
    // SAFETY: the call changes where the bytes lie in physical memory and never what they are; addresses that are no
    // longer mapped are an error.
    let result = unsafe { libc::madvise(at as *mut libc::c_void, HUGE, libc::MADV_COLLAPSE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_without_a_file_count_in_whole_huge_pages() {
        let heap = "7f0000100000-7f0000a00000 rw-p 00000000 00:00 0 ";
        assert_eq!(anonymous(heap), Some(0x7f00_0020_0000..0x7f00_00a0_0000));
        let small = anonymous("7f0000100000-7f0000180000 rw-p 00000000 00:00 0").unwrap();
        assert_eq!(small.step_by(HUGE).count(), 0);
        for other in [
            "7ffd1c000000-7ffd1d000000 rw-p 00000000 00:00 0                          [stack]",
            "7f0000100000-7f0000a00000 r--p 00000000 00:00 0",
            "7f0000100000-7f0000a00000 rw-p 00000000 fe:00 12345                      /a/file",
            "",
        ] {
            assert_eq!(anonymous(other), None, "{other}");
        }
    }

    #[test]
    fn a_mending_changes_no_byte_and_ends_when_it_is_told() {
        let pattern = |index: usize| (index % 251) as u8;
        let block: Vec<u8> = (0..16 << 20).map(pattern).collect();
        let steps = std::cell::Cell::new(0);
        HugePages::default().mend(&|_| {
            steps.set(steps.get() + 1);
            true
        });
        assert!(block.iter().enumerate().all(|(index, byte)| *byte == pattern(index)));
        // Where the system has no huge pages there are no steps, and that is no failure.
        if steps.get() > 1 {
            let again = std::cell::Cell::new(0);
            HugePages::default().mend(&|_| {
                again.set(again.get() + 1);
                false
            });
            assert_eq!(again.get(), 1);
        }
    }

    #[test]
    fn what_a_thread_allocates_shows_in_its_balance_and_in_the_whole() {
        let heap = HugePages::default();
        let (before, used) = (heap.thread_balance(), heap.used_bytes());
        let blocks: Vec<Vec<u8>> = (0..10_000).map(|_| std::hint::black_box(vec![1; 1_000])).collect();
        assert!((10_000_000..12_000_000).contains(&(heap.thread_balance() - before)));
        assert!(heap.used_bytes() - used > 9_000_000);
        drop(blocks);
        assert!((heap.thread_balance() - before).abs() < 100_000);
    }

    #[test]
    fn what_is_asked_for_by_name_is_answered_and_nothing_can_be_broken_by_it() {
        assert_eq!(number(b"arenas.page"), Ok(4096));
        assert_eq!(number(b"opt.background_thread"), Ok(1));
        assert!(number(b"nope").is_err() && number(b"a\0b").is_err());
        assert!(text(b"version").is_ok_and(|text| text.starts_with("5.")));
        assert!(text(b"arenas.page").is_err(), "no text: the number would be taken for an address");
        assert_eq!(act(b"thread.tcache.flush"), Ok(()));
        assert!(act(b"arena.0.reset").is_err(), "it would free what is in use");
    }

    #[test]
    fn free_memory_goes_back_and_the_report_is_jemalloc_s() {
        assert_eq!(purge(), Ok(()));
        assert!(report().contains("jemalloc statistics"), "{}", report());
    }

    #[test]
    fn jemalloc_is_in_use_as_configured() {
        let block = std::hint::black_box(vec![1_u8; 1 << 20]);
        assert!(memory().allocated >= block.len() as u64);
        // SAFETY: each is a setting of that type, a text being a constant that jemalloc keeps for the life of the process.
        let (thp, background_thread, slab) = unsafe {
            (
                raw::read_str(b"opt.thp\0"),
                raw::read::<bool>(b"opt.background_thread\0"),
                raw::read::<usize>(b"arenas.bin.8.slab_size\0"),
            )
        };
        let thp = thp.ok().and_then(|text| std::str::from_utf8(text).ok());
        assert_eq!(thp.map(|text| text.trim_end_matches('\0')), Some("always"));
        assert_eq!((background_thread, slab), (Ok(true), Ok(8 * 4096)));
    }
}
