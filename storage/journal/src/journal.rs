//! The journal as its users see it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cairn_disk::Disk;
use cairn_format::frame::{FRAME_ALIGN, TimeStamp};
use cairn_format::header::Predecessor;
use cairn_format::manifest::SegmentEntry;
use cairn_format::{LineageId, Lsn};
use cairn_seal::Keyring;
use parking_lot::Mutex;

use crate::driver::Driver;
use crate::error::{JournalError, Poisoned, Refusal};
use crate::pending::Pending;
use crate::segment::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, file_bytes_for, payload_max};
use crate::shared::{Shared, Verdict};
use crate::wait::{Admission, AdmissionWait, Permit, WaitDurable};
use crate::writer::{LEAD_BYTES_MIN, Writer};
use crate::{supply, writer};

/// When effects are made durable (`appendfsync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fsync {
    /// Each group of commits is synced before anybody hears of it.
    Always = 0,
    /// Twice a second; writes wait rather than let an effect get older than a second.
    EverySec = 1,
    /// When the kernel likes; the journal itself syncs at segment ends, on request and every half queue.
    No = 2,
}

/// What a journal is made of.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// With a keyring new segments are encrypted under its active key.
    pub keyring: Option<Arc<Keyring>>,
    /// When to sync.
    pub fsync: Fsync,
    /// Length of a segment file in bytes; held within 128 KiB and 64 GiB and rounded up to pages. 64 MiB is usual.
    pub segment_bytes: u64,
    /// The history that the effects belong to.
    pub lineage: LineageId,
    /// Number of this start.
    pub epoch: u64,
    /// Most bytes of effects that are not durable (64 MiB is usual); beyond it writes wait for admission.
    pub queue_bytes_max: u64,
    /// Who does what the journal's threads would do; without one it has its threads.
    pub driver: Option<Arc<dyn Driver>>,
}

/// Who keeps the manifest.
pub trait Catalog: Send + Sync {
    /// Names a segment in the manifest and syncs that, before any effect in it is acknowledged.
    ///
    /// Entries whose first LSN is not below the new one's belong to abandoned files and leave the manifest with the same
    /// write. Called from the journal's own thread, and from [`Journal::start`] before it returns. After an error the
    /// journal does not use the file, but the entry may be on disk; the next call puts that right.
    ///
    /// # Errors
    /// Those of the disk. While space, memory or file handles lack the call is repeated.
    fn segment_opened(&self, entry: SegmentEntry) -> io::Result<()>;
}

/// Where a journal goes on: made by [`crate::scan()`], or by [`Resume::at`] where there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The durable LSN, at which the new segment begins.
    pub lsn: Lsn,
    /// What lies before it, if anything does.
    pub predecessor: Option<Predecessor>,
    /// Database selected at `lsn`.
    pub database: u32,
    /// Time of the newest stamp before `lsn`, in unix ms; later stamps are not less.
    pub last_ms: u64,
    /// What was recovered past `lsn` and must be copied.
    pub tail: Tail,
}

/// Commits past the durable LSN that a scan kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// The effects.
    pub bytes: Vec<u8>,
    /// When they were appended.
    pub stamps: Vec<TimeStamp>,
    /// Database selected at their end.
    pub end_database: u32,
}

impl Resume {
    /// A journal that begins at `lsn` with nothing before it.
    pub fn at(lsn: Lsn) -> Resume {
        Resume { lsn, predecessor: None, database: 0, last_ms: 0, tail: Tail::default() }
    }

    /// The LSN up to which effects are known.
    pub fn end(&self) -> Lsn {
        self.lsn.advance(self.tail.bytes.len())
    }
}

/// How a journal is.
#[derive(Debug, Clone)]
pub struct Status {
    /// End of what is durable.
    pub durable: Lsn,
    /// End of what was appended.
    pub end: Lsn,
    /// The mode.
    pub fsync: Fsync,
    /// How long the last sync took, in microseconds.
    pub sync_micros_last: u64,
    /// Syncs since the start.
    pub syncs_total: u64,
    /// Frames written since the start.
    pub frames_total: u64,
    /// Bytes written to segments since the start, headers and padding included.
    pub bytes_total: u64,
    /// Bytes of effects that are not durable.
    pub pending_bytes: u64,
    /// Age of the oldest effect that is not durable, in milliseconds; `None` when all is.
    pub oldest_unsynced_ms: Option<u64>,
    /// Why the journal stopped, if it did.
    pub poisoned: Option<Poisoned>,
    /// Since when (unix ms) no segment can be prepared for want of space.
    pub disk_full_since_unix_ms: Option<u64>,
    /// Segments opened since the start, the current one last.
    pub segments: Vec<SegmentEntry>,
}

/// How long a journal that is driven rests where nothing but its driver can bring it on.
const WITHOUT_AN_END: Duration = Duration::from_secs(1);

/// The group-commit writer. All methods may be called from any thread.
pub struct Journal {
    shared: Arc<Shared>,
    /// Held by whoever writes: the writer thread, or in `always` mode a thread that leads.
    writer: Arc<Mutex<Writer>>,
    running: Mutex<Option<Running>>,
}

/// Who writes, until the end.
enum Running {
    Threads {
        writer: JoinHandle<()>,
        supply: JoinHandle<()>,
    },
    /// Whoever calls [`Journal::turn`].
    Driven,
}

impl Journal {
    /// Opens a new segment at `resume.lsn`, copies the recovered tail into it, syncs and names it, and starts the
    /// threads. On return all of [`Resume::end`] is durable.
    ///
    /// # Errors
    /// Those of the disk, of the catalog and of the keyring.
    pub fn start(
        mut options: Options,
        resume: Resume,
        catalog: Arc<dyn Catalog>,
    ) -> Result<Arc<Journal>, JournalError> {
        options.segment_bytes = options
            .segment_bytes
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
            .next_multiple_of(FRAME_ALIGN as u64);
        let payload_max = payload_max(options.segment_bytes);
        let run_bytes = (payload_max / 2).min(256 << 10);
        let (dir, end) = (options.dir.clone(), resume.end());
        let end_database =
            if resume.tail.bytes.is_empty() { resume.database } else { resume.tail.end_database };
        let last_ms =
            resume.tail.stamps.last().map_or(resume.last_ms, |stamp| stamp.unix_ms.max(resume.last_ms));
        let pending = Pending::new(end, end_database, last_ms, run_bytes);
        let shared = Arc::new(Shared::new(options, catalog, pending, end));
        shared.supply.lock().first_bytes = if resume.tail.bytes.is_empty() {
            0
        } else {
            file_bytes_for(resume.tail.bytes.len(), resume.tail.stamps.len(), payload_max)
                .next_multiple_of(FRAME_ALIGN as u64)
        };

        let failed = |operation, source| JournalError::Io { file: dir.clone(), operation, source };
        if shared.options.driver.is_some() {
            let writer = Writer::begin(Arc::clone(&shared), resume, payload_max)
                .map_err(|error| failed("begin a journal segment", error))?;
            let (writer, running) = (Arc::new(Mutex::new(writer)), Mutex::new(Some(Running::Driven)));
            return Ok(Arc::new(Journal { shared, writer, running }));
        }
        let supply = spawn("cairn-journal-prepare", &shared, supply::run)
            .map_err(|error| failed("start a thread", error))?;
        let writer = match Writer::begin(Arc::clone(&shared), resume, payload_max) {
            Ok(writer) => writer,
            Err(error) => {
                shared.close("the journal could not be started");
                stop_supply(&shared, supply);
                return Err(failed("begin a journal segment", error));
            }
        };
        let writer = Arc::new(Mutex::new(writer));
        let thread = {
            let (writer, its_shared) = (Arc::clone(&writer), Arc::clone(&shared));
            spawn("cairn-journal", &shared, move |_| writer::run(&its_shared, &writer))
        };
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                stop_supply(&shared, supply);
                return Err(failed("start a thread", error));
            }
        };
        let running = Mutex::new(Some(Running::Threads { writer: thread, supply }));
        Ok(Arc::new(Journal { shared, writer, running }))
    }

    /// Asks to write `bytes` of effects, before any lock is taken.
    #[inline]
    pub fn admit(&self, bytes: usize) -> Admission<'_> {
        let bytes = bytes as u64;
        let shared = &*self.shared;
        let reserved = shared.reserved.fetch_add(bytes, Ordering::SeqCst) + bytes;
        match shared.verdict(reserved, bytes) {
            Verdict::Grant => Admission::Granted(Permit { shared, bytes }),
            verdict => self.not_admitted(verdict, bytes),
        }
    }

    #[cold]
    fn not_admitted(&self, verdict: Verdict, bytes: u64) -> Admission<'_> {
        drop(Permit { shared: &self.shared, bytes });
        match verdict {
            Verdict::Refuse(error) => Admission::Refused(error),
            Verdict::Grant | Verdict::Wait { .. } => {
                Admission::Wait(AdmissionWait::new(Arc::clone(&self.shared), bytes))
            }
        }
    }

    /// Appends one commit: one effect, or a transaction whole, as RESP commands that act on `database`; a SELECT is put
    /// before it where the stream is at another database. Returns the commit's end. Neither blocks on I/O nor fails.
    ///
    /// Wakes nobody in `always` mode: see [`Journal::kick`]. `now_ms` is unix time in milliseconds.
    #[inline]
    pub fn append(&self, database: u32, effects: &[u8], now_ms: u64) -> Lsn {
        let mut pending = self.shared.pending.lock();
        let end = pending.append(database, effects, now_ms);
        self.shared.end.store(end.0, Ordering::Release);
        if pending.group.bytes.len() >= pending.wake_at {
            pending.wake_at = usize::MAX;
            drop(pending);
            self.shared.wake.notify_one();
        }
        end
    }

    /// In `always` mode: lets the writer take what is pending. To be called when a thread runs out of work, so that
    /// groups are large; what nobody kicks for is taken within a few milliseconds all the same.
    #[inline]
    pub fn kick(&self) {
        let shared = &*self.shared;
        if shared.end.load(Ordering::SeqCst) == shared.taken.load(Ordering::SeqCst)
            || shared.fsync() != Fsync::Always
            || shared.kicked.swap(true, Ordering::SeqCst)
        {
            return;
        }
        shared.wake_writer();
    }

    /// In `always` mode: whether so much is pending that [`Journal::lead`] may write it.
    #[inline]
    pub fn is_worth_leading(&self) -> bool {
        let shared = &*self.shared;
        let pending = shared.end.load(Ordering::SeqCst).saturating_sub(shared.taken.load(Ordering::SeqCst));
        pending >= LEAD_BYTES_MIN as u64 && shared.fsync() == Fsync::Always
    }

    /// In `always` mode: writes and syncs what is pending on this thread, if the disk has been quick lately, nobody else
    /// is writing and there is nothing about it that could take long. Whether what the caller needs is durable then is to
    /// be looked at: where it is not, wait for it. To be called when others that were ready have run too.
    ///
    /// What may block is given to `aside`, since even a quick disk may hang one day: nobody else's work may wait for it.
    pub fn lead(&self, aside: impl FnOnce(&mut dyn FnMut())) {
        if self.shared.fsync() == Fsync::Always
            && let Some(mut writer) = self.writer.try_lock()
        {
            writer.lead(aside);
        }
    }

    /// End of what was appended.
    #[inline]
    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.shared.end.load(Ordering::SeqCst))
    }

    /// End of what is durable.
    #[inline]
    pub fn durable(&self) -> Lsn {
        self.shared.durable()
    }

    /// Resolves once `lsn` is durable.
    pub fn wait_durable(&self, lsn: Lsn) -> WaitDurable {
        WaitDurable::new(Arc::clone(&self.shared), lsn)
    }

    /// Asks for a sync and blocks the thread until `lsn` is durable.
    ///
    /// # Errors
    /// [`Poisoned`] when that will never be known.
    pub fn block_until_durable(&self, lsn: Lsn) -> Result<(), Poisoned> {
        if self.durable() < lsn {
            self.sync();
        }
        match &self.shared.options.driver {
            None => self.wait_durable(lsn).block(),
            Some(driver) => self.drive_until_durable(lsn, &**driver),
        }
    }

    fn drive_until_durable(&self, lsn: Lsn, driver: &dyn Driver) -> Result<(), Poisoned> {
        loop {
            let until = self.turn();
            if let Some(settled) = self.shared.settled(lsn) {
                return settled;
            }
            let now = driver.now();
            driver.rest(until.map_or(WITHOUT_AN_END, |until| until.saturating_duration_since(now)));
        }
    }

    /// Of a journal that is driven: does what its threads would have done by now. Returns when, by the driver's clock,
    /// there is more for them to do if nothing else happens.
    pub fn turn(&self) -> Option<Instant> {
        let until = writer::turn(&self.shared, &self.writer);
        supply::step(&self.shared, &mut self.shared.supply.lock());
        until
    }

    /// Makes the current end the boundary to a new segment and returns it. No I/O: the writer splits there.
    pub fn rotate(&self) -> Lsn {
        self.shared.pending.lock().rotate()
    }

    /// Asks for a sync of all that was appended, whatever the mode. Does not wait for it.
    pub fn sync(&self) {
        self.shared.pending.lock().sync_requested = true;
        self.shared.wake.notify_one();
    }

    /// Changes the mode.
    pub fn set_fsync(&self, fsync: Fsync) {
        self.shared.set_fsync(fsync);
    }

    /// Changes the keyring under which later segments are encrypted; [`Journal::renew`] makes the next one a later one.
    pub fn set_keyring(&self, keyring: Option<Arc<Keyring>>) {
        *self.shared.keyring.lock() = keyring;
    }

    /// Goes on in a new segment where the one being written is not under the keyring's active key; what that one holds is
    /// synced then, and nothing is written to it any more. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// Where no segment is to be had for now, which leaves all as it is; where writing fails, after which the journal does
    /// what it does then.
    pub fn renew(&self) -> Result<(), JournalError> {
        self.writer.lock().renew().map_err(|source| JournalError::Io {
            file: self.shared.dir.clone(),
            operation: "begin a journal segment under another key",
            source,
        })
    }

    /// How the journal is. Takes a few locks; not for the path of a command.
    pub fn status(&self) -> Status {
        let shared = &*self.shared;
        let (durable, end) = (self.durable(), self.end_lsn());
        let counters = &shared.counters;
        let oldest_ns = shared.oldest_ns.load(Ordering::Relaxed);
        let age_ms = shared.now_ns().saturating_sub(oldest_ns) / 1_000_000;
        Status {
            durable,
            end,
            fsync: shared.fsync(),
            sync_micros_last: counters.sync_micros_last.load(Ordering::Relaxed),
            syncs_total: counters.syncs.load(Ordering::Relaxed),
            frames_total: counters.frames.load(Ordering::Relaxed),
            bytes_total: counters.bytes.load(Ordering::Relaxed),
            pending_bytes: end.0.saturating_sub(durable.0),
            oldest_unsynced_ms: (durable < end).then_some(age_ms),
            poisoned: shared.poisoned(),
            disk_full_since_unix_ms: shared.supply.lock().full_since(),
            segments: shared.segments.lock().clone(),
        }
    }

    /// Why writes are refused, where they are, or soon will be. What lies in the disk's way is known from the last attempt, some tenths of
    /// a second ago at most.
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.refusal()
    }

    /// Makes all that was appended durable, writes a last frame that says so, and ends the threads. Appends after it are
    /// lost. A second call does nothing more.
    ///
    /// # Errors
    /// [`JournalError::Poisoned`] when not all became durable.
    pub fn shutdown(&self) -> Result<(), JournalError> {
        if let Some(running) = self.running.lock().take() {
            self.shared.stopping.store(true, Ordering::SeqCst);
            self.shared.pending.lock().stop = true;
            self.shared.wake.notify_one();
            // Under the lock, so that the writer is not about to wait for a segment unaware.
            drop(self.shared.supply.lock());
            self.shared.supply_ready.notify_all();
            match running {
                Running::Threads { writer, supply } => {
                    if writer.join().is_err() {
                        tracing::error!("the journal's writer thread panicked");
                    }
                    self.shared.close("it was shut down");
                    stop_supply(&self.shared, supply);
                }
                Running::Driven => {
                    writer::turn(&self.shared, &self.writer);
                    self.shared.close("it was shut down");
                    supply::remove_prepared(&self.shared, &mut self.shared.supply.lock());
                }
            }
        }
        self.shared.settled(self.end_lsn()).unwrap_or(Ok(())).map_err(JournalError::from)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::error!(%error, "the journal could not be shut down cleanly");
        }
    }
}

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    run: impl FnOnce(&Shared) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))
}

fn stop_supply(shared: &Shared, thread: JoinHandle<()>) {
    shared.supply.lock().stop = true;
    shared.supply_wanted.notify_all();
    if thread.join().is_err() {
        tracing::error!("the journal's preparing thread panicked");
    }
}
