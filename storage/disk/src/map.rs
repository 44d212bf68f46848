//! Read-only mappings whose faults are errors.
//!
//! When a mapped file is cut by somebody, or its disk cannot read a page, touching the page raises SIGBUS. The handler
//! here looks the address up among the mappings, puts a page of zeros in its place and notes the offset; the reader,
//! who checks what it read anyway, asks [`Mapping::check`] afterwards. A SIGBUS from elsewhere goes to the handler that
//! was there before.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use memmap2::Mmap;
use thiserror::Error;

/// A mapped page could not be read: the file was cut while it was mapped, or the disk failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: offset {offset}: the file was cut or became unreadable while it was being read", path.display())]
pub struct MapFault {
    /// The file.
    pub path: PathBuf,
    /// The lowest offset of a page that could not be read.
    pub offset: u64,
}

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Mapped { slot: &'static Slot, map: Mmap },
    Owned(Vec<u8>),
}

impl Mapping {
    /// Maps a file of the machine.
    pub(crate) fn of_file(path: &Path) -> io::Result<Mapping> {
        install_fault_handler()?;
        let file = File::open(path)?;
        let contents = if file.metadata()?.len() == 0 {
            Contents::Owned(Vec::new())
        } else {
            // SAFETY: the mapping is private to this process and read-only. Files of a data directory are never written
            // in place while mapped, but for key slots, and their readers copy bytes before they trust them; a file
            // that is cut raises SIGBUS, which the handler turns into zeros and a recorded fault.
            let map = unsafe { Mmap::map(&file)? };
            // Advice only: a kernel that refuses it reads the file all the same.
            let _ = map.advise(memmap2::Advice::WillNeed);
            Contents::Mapped { slot: Slot::register(map.as_ptr() as usize, map.len()), map }
        };
        Ok(Mapping { path: path.to_owned(), contents })
    }

    /// A mapping that is really a copy: what disks in memory give.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Mapping {
        Mapping { path: path.to_owned(), contents: Contents::Owned(bytes) }
    }

    /// Says that these bytes are not needed again soon, so that a long file read once does not fill the memory of the
    /// process. They can still be read: the system fetches them again.
    pub fn release(&self, range: std::ops::Range<usize>) {
        const PAGE: usize = 4096;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if let Contents::Mapped { map, .. } = &self.contents
            && start < end
            && end <= map.len()
        {
            // SAFETY: the mapping is of a file and shared, and never written through: what is dropped comes back from the
            // file, or as zeros where the fault handler had put zeros.
            let advised =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            // Advice only: a kernel that refuses it keeps the pages until it needs them.
            let _ = advised;
        }
    }

    /// The bytes of the file. Pages that cannot be read give zeros: call [`Mapping::check`] after using them.
    pub fn bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Mapped { map, .. } => map,
            Contents::Owned(bytes) => bytes,
        }
    }

    /// Whether all pages that were touched so far could be read.
    ///
    /// # Errors
    /// The fault with the lowest offset.
    pub fn check(&self) -> Result<(), MapFault> {
        match &self.contents {
            Contents::Mapped { slot, .. } => match slot.fault.load(Ordering::Acquire) {
                NO_FAULT => Ok(()),
                offset => Err(MapFault { path: self.path.clone(), offset }),
            },
            Contents::Owned(_) => Ok(()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the pages go: the handler must never put zeros into what is mapped there next.
        if let Contents::Mapped { slot, .. } = &self.contents {
            slot.start.store(0, Ordering::Release);
        }
    }
}

const NO_FAULT: u64 = u64::MAX;

/// One mapping as the signal handler sees it. Slots are linked into a list that only grows; free ones are used again.
#[derive(Debug)]
struct Slot {
    /// The first address; 0 for a free slot, 1 for one being filled.
    start: AtomicUsize,
    len: AtomicUsize,
    /// The lowest faulted offset.
    fault: AtomicU64,
    next: AtomicPtr<Slot>,
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

impl Slot {
    fn register(start: usize, len: usize) -> &'static Slot {
        let free = slots()
            .find(|slot| slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        let slot = free.unwrap_or_else(Slot::push_new);
        slot.len.store(len, Ordering::Relaxed);
        slot.fault.store(NO_FAULT, Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        slot
    }

    fn push_new() -> &'static Slot {
        let slot: &'static Slot = Box::leak(Box::new(Slot {
            start: AtomicUsize::new(1),
            len: AtomicUsize::new(0),
            fault: AtomicU64::new(NO_FAULT),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let mut head = SLOTS.load(Ordering::Acquire);
        loop {
            slot.next.store(head, Ordering::Relaxed);
            let new = ptr::from_ref(slot).cast_mut();
            match SLOTS.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return slot,
                Err(changed) => head = changed,
            }
        }
    }
}

/// All slots; takes no lock, so the signal handler may walk them.
fn slots() -> impl Iterator<Item = &'static Slot> {
    let mut at = SLOTS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the pointers of the list are null or to leaked slots, which are never freed and only reached shared.
        let slot = unsafe { at.as_ref() }?;
        at = slot.next.load(Ordering::Acquire);
        Some(slot)
    })
}

/// The handler of SIGBUS before ours.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Installs the handler that turns faults inside mappings into errors; once, later calls do nothing. Mapping a file
/// calls it.
///
/// # Errors
/// When the system refuses the handler: then nothing is mapped.
pub fn install_fault_handler() -> io::Result<()> {
    let installed = PREVIOUS.get_or_init(|| {
        // SAFETY: all fields of a sigaction may be zero.
        let (mut action, mut previous): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: both are valid for the call; the handler is async-signal-safe as its comments say.
        let done = unsafe { libc::sigaction(libc::SIGBUS, &action, &mut previous) };
        (done == 0).then_some(previous)
    });
    match installed {
        Some(_) => Ok(()),
        None => Err(io::Error::other("no handler for SIGBUS could be installed")),
    }
}

/// Async-signal-safe: touches atomics, leaked memory and two system calls, and keeps `errno`.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, whose address is set for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY: errno is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    let mended = mend(address);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if !mended {
        pass_on(signal, info, context);
    }
}

/// Puts zeros where a mapping cannot be read and notes it; false when the address is in no mapping.
fn mend(address: usize) -> bool {
    // SAFETY: sysconf is async-signal-safe and asks for a constant.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let page_address = address & !(page - 1);
    for slot in slots() {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        // The mapping that faults is borrowed, so its slot is steady; one that changes under us is another's.
        if start <= 1 || address < start || address - start >= len.next_multiple_of(page) {
            continue;
        }
        if slot.start.load(Ordering::Acquire) != start {
            continue;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page lies within a mapping of ours that is borrowed by the faulting thread, so replacing it
        // affects nobody else; it stays readable, and munmap of the whole range frees it too.
        let mapped = unsafe { libc::mmap(page_address as *mut _, page, libc::PROT_READ, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        slot.fault.fetch_min(page_address.saturating_sub(start) as u64, Ordering::AcqRel);
        return true;
    }
    false
}

/// Hands a SIGBUS that is not ours to whoever handled it before, or lets it do what it does by default.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if let Some(Some(previous)) = PREVIOUS.get()
        && previous.sa_flags & libc::SA_SIGINFO != 0
        && previous.sa_sigaction > libc::SIG_IGN
    {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with SA_SIGINFO the field is a function of this signature, installed by its owner.
        let handler: Handler = unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal, info, context);
    } else {
        // SAFETY: signal is async-signal-safe; the instruction faults again when we return and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_while_mapped_gives_zeros_and_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 5 * 4096 + 9]).unwrap();
        let mapping = Mapping::of_file(&path).unwrap();
        let whole = Mapping::of_file(&path).unwrap();
        assert!(mapping.bytes().iter().all(|byte| *byte == 7));
        mapping.check().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4096 * 2).unwrap();
        assert_eq!(mapping.bytes()[4096 * 4], 0);
        assert_eq!(mapping.check().unwrap_err().offset, 4096 * 4);
        let sum: usize = mapping.bytes().iter().map(|byte| usize::from(*byte)).sum();
        assert_eq!(sum, 2 * 4096 * 7);
        assert_eq!(mapping.check(), Err(MapFault { path, offset: 4096 * 2 }));
        whole.check().unwrap();
    }

    #[test]
    fn slots_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"x").unwrap();
        for _ in 0..1000 {
            assert_eq!(Mapping::of_file(&path).unwrap().bytes(), b"x");
        }
        // Other tests may hold a few at the same time.
        assert!(slots().count() < 100);
    }
}
