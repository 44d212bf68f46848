//! What appenders, waiters, the writer and the preparing thread share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use cairn_disk::Disk;
use cairn_format::Lsn;
use cairn_format::manifest::SegmentEntry;
use cairn_seal::Keyring;
use parking_lot::{Condvar, Mutex};

use crate::error::{AdmitError, Poisoned, Refusal};
use crate::pending::Pending;
use crate::supply::{Supply, unix_ms};
use crate::{Catalog, Fsync, Options};

/// The state behind [`crate::Journal`].
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) keyring: Mutex<Option<Arc<Keyring>>>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) options: Options,

    pub(crate) pending: Mutex<Pending>,
    /// Wakes the writer; goes with `pending`.
    pub(crate) wake: Condvar,
    pub(crate) kicked: AtomicBool,
    fsync: AtomicU8,
    pub(crate) stopping: AtomicBool,

    /// End of what was appended.
    pub(crate) end: AtomicU64,
    /// End of what the writer took.
    pub(crate) taken: AtomicU64,
    /// End of what was written to a file.
    pub(crate) written: AtomicU64,
    /// End of what was synced.
    durable: AtomicU64,
    closed: AtomicBool,
    poison: Mutex<Option<Poisoned>>,
    waiters: Mutex<WakerList>,

    /// Bytes of permits given and not returned.
    pub(crate) reserved: AtomicU64,
    /// Bytes left in the current segment and those prepared.
    pub(crate) room: AtomicU64,
    /// While the writer is about I/O in `everysec`: when (in ns since `origin`) its oldest effect is a second old; else 0.
    pub(crate) io_deadline_ns: AtomicU64,
    /// When the oldest effect that is not durable was taken, in ns since `origin`.
    pub(crate) oldest_ns: AtomicU64,
    admission_waiting: AtomicUsize,
    admission_waiters: Mutex<WakerList>,

    pub(crate) supply: Mutex<Supply>,
    /// Wakes the preparing thread.
    pub(crate) supply_wanted: Condvar,
    /// Wakes the writer when a segment is ready or cannot be.
    pub(crate) supply_ready: Condvar,
    /// A copy of "the supply has failed", read without its lock.
    pub(crate) supply_failed: AtomicBool,

    pub(crate) counters: Counters,
    pub(crate) segments: Mutex<Vec<SegmentEntry>>,
    pub(crate) origin: Instant,
}

/// Figures for `Status`.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sync_micros_last: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What admission says of a write.
#[derive(Debug)]
pub(crate) enum Verdict {
    Grant,
    /// Some time; with the room (in bytes) that is wanted when room is what lacks.
    Wait {
        room_wanted: Option<u64>,
    },
    Refuse(AdmitError),
}

/// Room kept back for appends that exceed their permits and for the padding of groups, in bytes.
const SLACK_BYTES_MAX: u64 = 4 << 20;
pub(crate) const EVERYSEC_LATE_NS: u64 = 1_000_000_000;

impl Shared {
    pub(crate) fn new(options: Options, catalog: Arc<dyn Catalog>, pending: Pending, start: Lsn) -> Shared {
        let origin = options.driver.as_ref().map_or_else(Instant::now, |driver| driver.now());
        Shared {
            dir: options.dir.clone(),
            disk: Arc::clone(&options.disk),
            keyring: Mutex::new(options.keyring.clone()),
            catalog,
            pending: Mutex::new(pending),
            wake: Condvar::new(),
            kicked: AtomicBool::new(false),
            fsync: AtomicU8::new(options.fsync as u8),
            stopping: AtomicBool::new(false),
            end: AtomicU64::new(start.0),
            taken: AtomicU64::new(start.0),
            written: AtomicU64::new(start.0),
            durable: AtomicU64::new(start.0),
            closed: AtomicBool::new(false),
            poison: Mutex::new(None),
            waiters: Mutex::new(WakerList::default()),
            reserved: AtomicU64::new(0),
            room: AtomicU64::new(0),
            io_deadline_ns: AtomicU64::new(0),
            oldest_ns: AtomicU64::new(0),
            admission_waiting: AtomicUsize::new(0),
            admission_waiters: Mutex::new(WakerList::default()),
            supply: Mutex::new(Supply::default()),
            supply_wanted: Condvar::new(),
            supply_ready: Condvar::new(),
            supply_failed: AtomicBool::new(false),
            counters: Counters::default(),
            segments: Mutex::new(Vec::new()),
            origin,
            options,
        }
    }

    #[inline]
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn now(&self) -> Instant {
        self.options.driver.as_ref().map_or_else(Instant::now, |driver| driver.now())
    }

    pub(crate) fn now_ns(&self) -> u64 {
        let since = self.now().saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    #[inline]
    pub(crate) fn fsync(&self) -> Fsync {
        match self.fsync.load(Ordering::Relaxed) {
            0 => Fsync::Always,
            1 => Fsync::EverySec,
            _ => Fsync::No,
        }
    }

    pub(crate) fn set_fsync(&self, fsync: Fsync) {
        self.fsync.store(fsync as u8, Ordering::Relaxed);
        self.wake_writer();
        self.wake_admission();
    }

    /// Wakes the writer whatever it waits for. Taking the lock first means it cannot be about to wait unaware.
    pub(crate) fn wake_writer(&self) {
        drop(self.pending.lock());
        self.wake.notify_one();
    }

    /// Makes a new durable LSN known and wakes all it satisfies in one sweep.
    pub(crate) fn publish_durable(&self, lsn: Lsn) {
        self.durable.store(lsn.0, Ordering::SeqCst);
        let woken = self.waiters.lock().take(lsn);
        woken.into_iter().for_each(Waker::wake);
        self.wake_admission();
    }

    // --- the end of it all

    pub(crate) fn poisoned(&self) -> Option<Poisoned> {
        if !self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.poison.lock().clone()
    }

    /// Lets every waiter, present and future, hear that nothing more becomes durable.
    pub(crate) fn close(&self, reason: &str) {
        let poisoned = || Poisoned { reason: Arc::from(reason), since_unix_ms: unix_ms() };
        self.poison.lock().get_or_insert_with(poisoned);
        self.pending.lock().poison();
        self.closed.store(true, Ordering::SeqCst);
        let woken = self.waiters.lock().take(Lsn(u64::MAX));
        woken.into_iter().for_each(Waker::wake);
        self.wake_admission();
    }

    /// The state of a waiter for `lsn`: `None` while it must wait.
    pub(crate) fn settled(&self, lsn: Lsn) -> Option<Result<(), Poisoned>> {
        if self.durable() >= lsn {
            return Some(Ok(()));
        }
        let poisoned = self.poisoned()?;
        // It may have become durable just before the end.
        Some(if self.durable() >= lsn { Ok(()) } else { Err(poisoned) })
    }

    /// Registers a waker, or replaces that of `id`; settled when `lsn` was reached in between.
    pub(crate) fn register(
        &self,
        id: &mut Option<u64>,
        lsn: Lsn,
        waker: &Waker,
    ) -> Option<Result<(), Poisoned>> {
        let mut waiters = self.waiters.lock();
        // Looked at under the lock that the sweep takes after it has stored the new value: no wake-up is lost.
        if let Some(settled) = self.settled(lsn) {
            return Some(settled);
        }
        waiters.put(id, lsn, waker);
        None
    }

    pub(crate) fn unregister(&self, id: u64) {
        self.waiters.lock().remove(id);
    }

    // --- admission

    /// Judges a write of `bytes` whose permit is part of `reserved` already.
    #[inline]
    pub(crate) fn verdict(&self, reserved: u64, bytes: u64) -> Verdict {
        if self.closed.load(Ordering::SeqCst)
            && let Some(poisoned) = self.poisoned()
        {
            return Verdict::Refuse(AdmitError::Poisoned(poisoned));
        }
        // The writer lowers `room` before it raises `written`, so in this order what it moves is counted twice at worst.
        let written = self.written.load(Ordering::SeqCst);
        let room = self.room.load(Ordering::SeqCst);
        let durable = self.durable.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        let unwritten = end.saturating_sub(written) + reserved;
        let wanted = unwritten + unwritten / 32 + self.slack();
        if wanted > room {
            return self.short_of_room(wanted);
        }
        let others = reserved.saturating_sub(bytes);
        if end.saturating_sub(durable) + others >= self.options.queue_bytes_max {
            return Verdict::Wait { room_wanted: None };
        }
        let deadline = self.io_deadline_ns.load(Ordering::SeqCst);
        if deadline != 0 && self.now_ns() > deadline {
            return Verdict::Wait { room_wanted: None };
        }
        Verdict::Grant
    }

    #[cold]
    fn short_of_room(&self, wanted: u64) -> Verdict {
        if self.supply_failed.load(Ordering::SeqCst)
            && let Some(error) = self.supply.lock().refusal(&self.dir)
        {
            return Verdict::Refuse(error);
        }
        Verdict::Wait { room_wanted: Some(wanted) }
    }

    /// Why a write of some length would be refused now, and since when. Short ones may still find room for a while.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        /// Longer than nearly every write.
        const LONG_BYTES: u64 = 1 << 20;
        let bytes = LONG_BYTES.min(self.options.segment_bytes / 8);
        let reserved = self.reserved.load(Ordering::SeqCst) + bytes;
        let Verdict::Refuse(error) = self.verdict(reserved, bytes) else { return None };
        let since_unix_ms = match &error {
            AdmitError::Poisoned(poisoned) => poisoned.since_unix_ms,
            AdmitError::NoSpace { .. } | AdmitError::NoSegment { .. } => {
                self.supply.lock().failing_since().unwrap_or_else(unix_ms)
            }
        };
        Some(Refusal { error, since_unix_ms })
    }

    fn slack(&self) -> u64 {
        SLACK_BYTES_MAX.min(self.options.segment_bytes / 8)
    }

    /// Judges again a write that had to wait; registers the waker while it still must.
    pub(crate) fn wait_for_admission(&self, id: &mut Option<u64>, bytes: u64, waker: &Waker) -> bool {
        {
            let mut waiters = self.admission_waiters.lock();
            waiters.put(id, Lsn::ZERO, waker);
            self.admission_waiting.store(waiters.list.len(), Ordering::SeqCst);
        }
        let reserved = self.reserved.load(Ordering::SeqCst) + bytes;
        match self.verdict(reserved, bytes) {
            Verdict::Wait { room_wanted } => {
                if let Some(wanted) = room_wanted {
                    self.want_room(wanted);
                }
                true
            }
            Verdict::Grant | Verdict::Refuse(_) => {
                if let Some(id) = id.take() {
                    self.leave_admission(id);
                }
                false
            }
        }
    }

    pub(crate) fn leave_admission(&self, id: u64) {
        let mut waiters = self.admission_waiters.lock();
        waiters.remove(id);
        self.admission_waiting.store(waiters.list.len(), Ordering::SeqCst);
    }

    /// Lets those who wait for admission look again. Called after whatever may have changed the verdict: a `SeqCst` store,
    /// as is theirs into `admission_waiting`, after which they look once more; so one of the two sees the other.
    #[inline]
    pub(crate) fn wake_admission(&self) {
        if self.admission_waiting.load(Ordering::SeqCst) > 0 {
            self.wake_admission_waiters();
        }
    }

    #[cold]
    fn wake_admission_waiters(&self) {
        let woken = {
            let mut waiters = self.admission_waiters.lock();
            self.admission_waiting.store(0, Ordering::SeqCst);
            waiters.take(Lsn(u64::MAX))
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn want_room(&self, wanted: u64) {
        let mut supply = self.supply.lock();
        if wanted > supply.demand {
            supply.demand = wanted;
            drop(supply);
            self.supply_wanted.notify_one();
        }
    }
}

/// Wakers, each with the LSN it waits for.
#[derive(Default)]
struct WakerList {
    next_id: u64,
    list: Vec<(u64, Lsn, Waker)>,
}

impl WakerList {
    fn put(&mut self, id: &mut Option<u64>, lsn: Lsn, waker: &Waker) {
        if let Some(id) = *id
            && let Some(entry) = self.list.iter_mut().find(|entry| entry.0 == id)
        {
            entry.2.clone_from(waker);
            return;
        }
        self.next_id += 1;
        *id = Some(self.next_id);
        self.list.push((self.next_id, lsn, waker.clone()));
    }

    fn remove(&mut self, id: u64) {
        if let Some(index) = self.list.iter().position(|entry| entry.0 == id) {
            self.list.swap_remove(index);
        }
    }

    /// Takes out all that wait for `lsn` or less.
    fn take(&mut self, lsn: Lsn) -> Vec<Waker> {
        self.list.extract_if(.., |entry| entry.1 <= lsn).map(|entry| entry.2).collect()
    }
}
