//! Forking a child that writes a snapshot of the memory as it is at this moment.
//!
//! # What a child of a program with threads may do, and why this one may
//!
//! Only the forking thread lives on in the child. A lock that another thread of the parent held at the fork stays held
//! for ever, so the child may use only what is safe after a fork. POSIX promises that for async-signal-safe functions
//! alone; this child needs memory and threads, so each thing it uses was looked at (Linux, glibc 2.34 and newer):
//!
//! - *Allocator.* glibc takes all arena locks around `fork` and resets them in the child. jemalloc registers
//!   `pthread_atfork` handlers (`jemalloc_prefork`, `jemalloc_postfork_child`) that do the same. Both are made for this.
//! - *Threads.* `std::thread::Builder` with a stated stack size does not read the environment, whose lock another
//!   thread may hold. `pthread_create` uses glibc's stack cache, whose lock and lists `fork` resets in the child
//!   (`reclaim_stacks`), and allocates thread-local storage under the dynamic loader's TLS lock, which a thread of the
//!   parent holds for microseconds while it starts a thread itself. A fork within them may hang the child, or one of its
//!   threads: that is what the stall limit of [`ChildLimits`] is for, and why a server starts its threads early.
//! - *Synchronization.* `Mutex`, `Condvar`, `mpsc` and scoped threads of std are futexes and memory of their own, made
//!   after the fork.
//! - *zstd, AES-GCM, CRC-32.* They compute in memory they are given or allocate. What CPU features there are was found
//!   out by the parent or is found out again; it is kept in atomics.
//! - *Files.* They are opened by path after the fork. All descriptors of the parent but the standard ones and the pipe
//!   are closed first: a connection that the parent closes must not be kept open by the child.
//! - *Panics.* The parent's panic hook, which may log, is replaced by one that does nothing; a panic is caught and
//!   becomes the child's message. The child leaves by `_exit`: no destructor and no `atexit` handler of the parent runs.
//! - *Signals.* They are blocked around the fork, so that no handler of the parent (tokio's writes to a pipe they
//!   would share) runs in the child; then all go back to their defaults. SIGINT is ignored, since Ctrl-C reaches the whole
//!   terminal and the parent decides. SIGSEGV and SIGBUS keep their handlers: std's says what overflowed, that of
//!   `cairn-disk` turns a cut file into an error.
//!
//! The child touches no tokio, no tracing and no lock of the parent: that is the part of whoever implements
//! [`Source`](crate::Source).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_disk::Disk;

use crate::error::panic_message;
use crate::watch::{LOOK_EVERY, Watch};
use crate::{ChildError, ChildLimits, Progress, Source, Summary, WriteParams, write_container};

/// How much nicer than its parent the child is: as nice as can be, since commands wait for its turns on the CPU. The price is
/// a longer snapshot where all cores are busy, of which it gets a seventieth beside one thread that never rests, a tenth at 10;
/// with two cores shared by the server, its load and compilers it took 2 s instead of 0.9.
const NICENESS: libc::c_int = 19;

/// A message of a child is at most this long; a longer one is a broken pipe's garbage.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// What the system copies at a time when a shared page is written to, a part of a huge one too.
const SMALL_PAGE_BYTES: u64 = 4096;

/// What a frame in the pipe carries: one byte, then the length in 4 bytes, then that many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Progress = 1,
    Done = 2,
    Failed = 3,
}

/// The child's end of the pipe to its parent.
pub struct ChildPipe {
    file: File,
}

impl ChildPipe {
    /// Tells the parent how far the work has come. When the parent is gone, SIGPIPE ends the child.
    ///
    /// # Errors
    /// Those of the pipe.
    pub fn progress(&self, progress: Progress) -> io::Result<()> {
        self.send(Kind::Progress, &progress.encode())
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let frame = [&[kind as u8][..], &length.to_le_bytes(), payload].concat();
        (&self.file).write_all(&frame)
    }
}

/// A forked child. Dropping it before it was waited for kills it.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    pipe: File,
    fork_time: Duration,
    /// The minor faults of the parent until the fork.
    faults_before: u64,
    /// Whether its end was collected: then the pid may be another's.
    reaped: Mutex<bool>,
}

/// Forks a child that writes a container, as [`write_container`] does: the caller holds whatever keeps `source` still
/// until this returns, and not longer. [`Child::wait`] gives the [`Summary`], encoded.
///
/// # Errors
/// As [`fork_child`].
pub fn fork_writer(disk: &dyn Disk, params: &WriteParams, source: &dyn Source) -> io::Result<Child> {
    fork_child(|pipe| {
        let progress = |progress| {
            // A broken pipe means that the parent is gone; SIGPIPE ends us.
            let _ = pipe.progress(progress);
        };
        write_container(disk, params, source, &progress)
            .map(|summary| summary.encode().to_vec())
            .map_err(|error| error.to_string())
    })
}

/// Forks. The child runs `run`, sends what it gives and exits; it never returns from here. `run` must obey the rules of
/// this module, and what it captures must own no descriptor, since those of the parent are closed in the child.
///
/// The child ends when the *thread* that called this ends (the kernel's parent-death signal knows threads), so call it
/// from one that lives as long as the child, best the one that waits for it.
///
/// # Errors
/// When the system has no room for another process or pipe.
pub fn fork_child(run: impl FnOnce(&mut ChildPipe) -> Result<Vec<u8>, String>) -> io::Result<Child> {
    let (reader, writer) = pipe()?;
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    let unblocked = block_signals()?;
    let begun = Instant::now();
    // SAFETY: in the child, only what this module's documentation justifies is done until `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        run_child(parent, writer, run);
    }
    let fork_time = begun.elapsed();
    let error = io::Error::last_os_error();
    restore_signals(&unblocked);
    if pid < 0 {
        return Err(error);
    }
    drop(writer);
    Ok(Child { pid, pipe: reader, fork_time, faults_before: minor_faults(), reaped: Mutex::new(false) })
}

impl Child {
    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How long the parent stood still in fork(2).
    pub fn fork_time(&self) -> Duration {
        self.fork_time
    }

    /// Waits for the child's result, which [`fork_writer`]'s child encodes as a [`Summary`]. A child that takes more than
    /// `limits` allow is killed. `on_look` is called some times a second with how far it has come.
    ///
    /// # Errors
    /// How the child ended instead.
    pub fn wait(
        &self,
        limits: ChildLimits,
        on_look: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, ChildError> {
        let mut result = None;
        let mut frames = Frames::default();
        let mut watch = Watch::new(limits);
        loop {
            if self.readable(LOOK_EVERY)? {
                if !frames.read_from(&self.pipe)? {
                    break;
                }
                while let Some((kind, payload)) = frames.next() {
                    match kind {
                        Kind::Progress => {
                            Progress::decode(&payload).into_iter().for_each(|progress| watch.told(progress));
                        }
                        Kind::Done => result = Some(Ok(payload)),
                        Kind::Failed => result = Some(Err(String::from_utf8_lossy(&payload).into_owned())),
                    }
                }
            }
            let Some(progress) = watch.due() else { continue };
            on_look(progress);
            if let Err(error) = watch.look(self) {
                self.kill();
                self.reap()?;
                return Err(error);
            }
        }
        on_look(watch.newest());
        let status = self.reap()?;
        match result {
            Some(Err(message)) => Err(ChildError::Reported { message }),
            Some(Ok(message)) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(message),
            _ if libc::WIFSIGNALED(status) => Err(ChildError::Signalled { signal: libc::WTERMSIG(status) }),
            _ => Err(ChildError::Exited { status: libc::WEXITSTATUS(status) }),
        }
    }

    /// As [`Child::wait`], for a child of [`fork_writer`].
    ///
    /// # Errors
    /// How the child ended instead.
    pub fn wait_summary(
        &self,
        limits: ChildLimits,
        on_look: &mut dyn FnMut(Progress),
    ) -> Result<Summary, ChildError> {
        let message = self.wait(limits, on_look)?;
        let garbled = || ChildError::Reported { message: "its result was garbled".to_owned() };
        Summary::decode(&message).ok_or_else(garbled)
    }

    /// Ends the child now; [`Child::wait`] tells then that a signal did. Nothing when it has ended.
    pub fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // SAFETY: kill touches no memory; the pid is our child's until it is reaped, which the lock excludes.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }

    /// How many bytes were copied because the parent wrote to a page that it shared with the child: its minor faults since
    /// the fork, a small page each. A fault for new memory counts as one, so it is rather too much than too little.
    ///
    /// [`Child::private_bytes`] is exact, and dear.
    pub fn copied_bytes(&self) -> u64 {
        minor_faults().saturating_sub(self.faults_before).saturating_mul(SMALL_PAGE_BYTES)
    }

    /// How many bytes would be free again if the child ended: pages that are its own since the parent wrote to the other one or
    /// gave it back, and what it has allocated itself. `None` where the system does not tell. The kernel walks all page
    /// tables for it, some milliseconds for each gigabyte, on a core that commands want.
    pub fn private_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    }

    /// Whether a signal has stopped it, or a debugger holds it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state(), Some('T' | 't'))
    }

    /// Whether it has ended, though nobody has asked yet how; the system tells nothing of its memory any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), None | Some('Z' | 'X'))
    }

    fn state(&self) -> Option<char> {
        let line = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before it may hold anything, blanks and parentheses too.
        line.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
    }

    /// Whether the pipe has something to read, or its end, within the limit.
    fn readable(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the last wait does not become a spin.
            let left_ms = i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
            let mut poll = libc::pollfd { fd: self.pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd, and the descriptor is open while `self` is borrowed.
            let count = unsafe { libc::poll(&mut poll, 1, left_ms) };
            if count > 0 {
                return Ok(true);
            }
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Waits for the child's end and collects it; gives its status.
    fn reap(&self) -> io::Result<libc::c_int> {
        // First without collecting it, so that `kill` can take the lock meanwhile.
        // SAFETY: a siginfo may be all zeros, and is valid for the call.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let pid = libc::id_t::try_from(self.pid).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as above.
        retry(|| unsafe { libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT) })?;
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = 0;
        // SAFETY: the status is valid for the call; the pid is a child of ours that was not reaped.
        retry(|| unsafe { libc::waitpid(self.pid, &mut status, 0) })?;
        *reaped = true;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let reaped = *self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !reaped {
            self.kill();
            // It was killed, so this ends; an error means that there is nothing left to collect.
            let _ = self.reap();
        }
    }
}

/// How often a page was missing or shared in this process, all its threads, and no disk was needed for it.
fn minor_faults() -> u64 {
    // SAFETY: a rusage may be all zeros, and is valid for the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    u64::try_from(usage.ru_minflt).unwrap_or(0)
}

/// Cuts what comes out of the pipe into frames.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Reads once; false at the end.
    fn read_from(&mut self, mut pipe: &File) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let count = loop {
            match pipe.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        let (head, rest) = self.bytes.split_first_chunk::<5>()?;
        let [kind, length @ ..] = *head;
        let length = u32::from_le_bytes(length).min(MESSAGE_BYTES_MAX);
        let payload = rest.get(..usize::try_from(length).ok()?)?.to_vec();
        self.bytes.drain(..head.len() + payload.len());
        let kind = match kind {
            1 => Kind::Progress,
            2 => Kind::Done,
            _ => Kind::Failed,
        };
        Some((kind, payload))
    }
}

/// The child: never returns.
fn run_child(
    parent: libc::pid_t,
    writer: File,
    run: impl FnOnce(&mut ChildPipe) -> Result<Vec<u8>, String>,
) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        become_child(parent, writer.as_raw_fd());
        std::panic::set_hook(Box::new(|_| {}));
        let mut pipe = ChildPipe { file: writer };
        let (kind, mut message) = match catch_unwind(AssertUnwindSafe(|| run(&mut pipe))) {
            Ok(Ok(message)) => (Kind::Done, message),
            Ok(Err(message)) => (Kind::Failed, message.into_bytes()),
            Err(payload) => (Kind::Failed, format!("it panicked: {}", panic_message(&*payload)).into_bytes()),
        };
        message.truncate(usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX));
        pipe.send(kind, &message).is_ok() && kind == Kind::Done
    }));
    let status = if matches!(outcome, Ok(true)) { 0 } else { 1 };
    // SAFETY: _exit has no preconditions; nothing of the parent's is run or flushed.
    unsafe { libc::_exit(status) }
}

/// What a child does before its work. Failures of what only helps are passed over.
fn become_child(parent: libc::pid_t, pipe: RawFd) {
    // SAFETY: plain system calls that touch no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            // It died before the signal was armed.
            libc::_exit(1);
        }
        libc::prctl(libc::PR_SET_NAME, c"cairn-snapshot".as_ptr());
        libc::nice(NICENESS);
    }
    close_descriptors_but(pipe);
    reset_signals();
    // When memory runs out, the child goes before the server does.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
}

/// Closes all descriptors but the standard ones and `kept`.
fn close_descriptors_but(kept: RawFd) {
    let Ok(kept) = libc::c_uint::try_from(kept) else { return };
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.saturating_add(1), libc::c_uint::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: the owners of these descriptors lie in the parent's memory image and never run in this process.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed != 0 {
            close_one_by_one(first, last);
        }
    }
}

/// For kernels before 5.9.
fn close_one_by_one(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: sysconf touches no memory of ours.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(0, 65_536);
    let last = last.min(libc::c_uint::try_from(limit).unwrap_or(65_536));
    for descriptor in (first..=last).filter_map(|number| libc::c_int::try_from(number).ok()) {
        // SAFETY: as in `close_descriptors_but`.
        unsafe { libc::close(descriptor) };
    }
}

/// Puts all handlers to their defaults but those that catch faults, ignores SIGINT, and SIGXFSZ in favour of the error that
/// a write then gives, and lets signals through again.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        let action = match signal {
            libc::SIGSEGV | libc::SIGBUS => continue,
            libc::SIGINT | libc::SIGXFSZ => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // SAFETY: sets no function of ours; what the system refuses (SIGKILL, SIGSTOP) stays as it is.
        unsafe { libc::signal(signal, action) };
    }
    // SAFETY: an emptied set is valid for both calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Blocks all signals for this thread; gives the mask as it was.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: a sigset may be all zeros; both are valid for the calls.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: the mask came from `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// A pipe whose ends close on exec: reader and writer.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were opened just now and have no other owner.
    let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ok((reader.into(), writer.into()))
}

/// Repeats a system call that a signal interrupts.
fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        if call() >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: ChildLimits = ChildLimits { stall: Duration::from_secs(30), copied_bytes: None };

    #[test]
    fn a_child_gives_its_message_and_its_progress() {
        let child = fork_child(|pipe| {
            for entries in 1..=3 {
                let progress = Progress { entries, ..Progress::default() };
                pipe.progress(progress).map_err(|error| error.to_string())?;
            }
            let threads: Vec<_> = (0..4_u64).map(|number| std::thread::spawn(move || number * 2)).collect();
            let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            Ok(vec![u8::try_from(sum).unwrap(); 100_000])
        })
        .unwrap();
        let mut seen = Vec::new();
        let message = child.wait(LIMIT, &mut |progress| seen.push(progress.entries)).unwrap();
        assert_eq!(message, vec![12; 100_000]);
        assert_eq!(seen.last(), Some(&3));
        assert!(child.fork_time() > Duration::ZERO);
        child.kill();
    }

    #[test]
    fn failures_and_panics_are_reported() {
        let child = fork_child(|_| Err("no room".to_owned())).unwrap();
        let failed = child.wait(LIMIT, &mut |_| {}).unwrap_err();
        assert!(matches!(&failed, ChildError::Reported { message } if message == "no room"));
        let child = fork_child(|_| panic!("lost {}", "it")).unwrap();
        let failed = child.wait(LIMIT, &mut |_| {}).unwrap_err();
        assert!(matches!(&failed, ChildError::Reported { message } if message == "it panicked: lost it"));
    }

    #[test]
    fn a_killed_child_and_one_that_exits_are_told_apart() {
        let child = fork_child(|_| {
            loop {
                std::thread::park()
            }
        })
        .unwrap();
        child.kill();
        let ended = child.wait(LIMIT, &mut |_| {}).unwrap_err();
        assert!(matches!(ended, ChildError::Signalled { signal: libc::SIGKILL }));
        // SAFETY: ends the child, which owns nothing.
        let child = fork_child(|_| unsafe { libc::_exit(7) }).unwrap();
        assert!(matches!(child.wait(LIMIT, &mut |_| {}), Err(ChildError::Exited { status: 7 })));
    }

    #[test]
    fn what_is_written_while_a_child_shares_it_counts_as_copied() {
        let mut block = vec![1_u8; 1 << 20];
        let child = fork_child(|_| {
            loop {
                std::thread::park()
            }
        })
        .unwrap();
        let before = child.copied_bytes();
        block.iter_mut().step_by(4096).for_each(|byte| *std::hint::black_box(byte) += 1);
        let copied = child.copied_bytes() - before;
        assert!(copied >= 1 << 20, "{copied}");
    }

    #[test]
    fn a_silent_child_is_killed() {
        let child = fork_child(|_| {
            loop {
                std::thread::park()
            }
        })
        .unwrap();
        let stalled = child.wait(ChildLimits::of_time(Duration::from_millis(50)), &mut |_| {});
        assert!(matches!(stalled, Err(ChildError::Stalled { .. })));
    }

    /// One thread that says that it lives does not make up for others that hang.
    #[test]
    fn a_child_that_reports_and_gets_nowhere_is_killed() {
        let child = fork_child(|pipe| {
            loop {
                let progress = Progress { entries: 7, ..Progress::default() };
                pipe.progress(progress).map_err(|error| error.to_string())?;
                std::thread::sleep(Duration::from_millis(10));
            }
        })
        .unwrap();
        let stalled = child.wait(ChildLimits::of_time(Duration::from_millis(300)), &mut |_| {});
        assert!(matches!(stalled, Err(ChildError::Stalled { .. })));
    }

    #[test]
    fn a_dropped_child_leaves_no_process() {
        let child = fork_child(|_| {
            loop {
                std::thread::park()
            }
        })
        .unwrap();
        let pid = child.pid();
        drop(child);
        // SAFETY: signal 0 only asks whether the process is there.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1);
    }

    #[test]
    fn the_child_has_no_descriptor_of_its_parent_and_ignores_ctrl_c() {
        let dir = tempfile::tempdir().unwrap();
        let kept = File::create(dir.path().join("kept-by-the-parent")).unwrap();
        let child = fork_child(|_| {
            let open = std::fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
            let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            let leaked = targets.filter(|target| target.to_string_lossy().contains("kept-by-the-parent"));
            // SAFETY: raises a signal that is ignored.
            unsafe { libc::raise(libc::SIGINT) };
            Ok(vec![u8::try_from(leaked.count()).unwrap()])
        })
        .unwrap();
        assert_eq!(child.wait(LIMIT, &mut |_| {}).unwrap(), [0]);
        drop(kept);
    }
}
