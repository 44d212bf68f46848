//! The writer: takes what is pending, writes it, syncs it, tells those who wait. A thread of its own does so, and in
//! `always` mode any thread that has work in it and a disk quick enough ([`Writer::lead`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use cairn_format::Lsn;
use cairn_format::frame::TimeStamp;
use cairn_format::header::Predecessor;
use cairn_format::manifest::SegmentEntry;

use parking_lot::Mutex;

use crate::journal::{Fsync, Resume};
use crate::pace::Pace;
use crate::pending::{Group, Mark, Pending, Run};
use crate::segment::{FRAME_STAMPS_MAX, FrameParts, Origin, Segment};
use crate::shared::{EVERYSEC_LATE_NS, Shared};
use crate::supply::{RETRY_AFTER, is_passing, is_ready, obtain, remove};

/// `always`: what nobody kicked for is taken after this long; also how often the writer looks while it is not idle.
const UNKICKED_AFTER: Duration = Duration::from_millis(2);
/// `always`: this much pending is taken without a kick.
const UNKICKED_BYTES: usize = 256 << 10;
/// Other modes: what is pending is written (not synced) after this long, so that a killed process loses little.
const WRITE_AFTER: Duration = Duration::from_millis(100);
/// Other modes: this much pending is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// `everysec`: half of what is promised, so that writes seldom have to wait.
const SYNC_AFTER: Duration = Duration::from_millis(500);
/// After this long without work, what is durable is written down in a frame of its own.
const IDLE_AFTER: Duration = Duration::from_millis(100);
/// Frames are gathered up to about this many bytes for one write.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// Buffers larger than this are not kept for reuse.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// `always`: less than this waits for company, and for the writer thread.
pub(crate) const LEAD_BYTES_MIN: usize = 16 << 10;
/// `always`: a leader writes at most this much; more is sealed by the writer thread while others go on.
const LEAD_BYTES_MAX: usize = 1 << 20;

/// The writer's own state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    current: Segment,
    /// What `Shared::room` counts for the current segment.
    current_room: u64,
    /// End of what is synced; a commit boundary.
    durable: Lsn,
    /// Database selected there.
    durable_database: u32,
    /// The frame boundary at `durable`, where a new segment begins when the current one must be abandoned.
    point: Option<Predecessor>,
    /// Database selected at the end of what was written.
    end_database: u32,
    /// Groups written and not synced, in order: what an abandoned file would lose.
    unsynced: Vec<Group>,
    spare: Vec<Group>,
    /// Whether something was written since the last sync.
    dirty: bool,
    /// The durable LSN that a reader of the files alone would find.
    recorded_durable: Lsn,
    payload_max: usize,
    starting: bool,
    rescuing: bool,
    poisoned: bool,
    /// Why a leader's write or sync failed: the file is to be abandoned before anything else is done.
    failed: Option<io::Error>,
    /// Set while a leader writes. Whoever holds the writer and finds it set knows that the leader panicked.
    leading: bool,
    pace: Pace,
    /// Files that hold nothing of the journal any more, to be removed once the manifest names another in their place.
    abandoned: Vec<std::path::PathBuf>,
    stamps: Vec<TimeStamp>,
    /// Not later than the first append of what is pending.
    pending_since: Option<Instant>,
    /// Not later than the first append of what was taken and is not durable.
    oldest: Option<Instant>,
    idle_since: Instant,
}

enum Work {
    Write {
        group: Group,
        sync: bool,
    },
    RecordDurable,
    /// What a leader left behind when its file failed.
    Rescue {
        error: io::Error,
    },
    Stop {
        group: Group,
    },
}

/// What the thread does next.
enum Next {
    Work(Work),
    /// Wait for a wake-up, until then at the latest.
    Wait(Option<Instant>),
}

/// The loop of the thread "cairn-journal".
pub(crate) fn run(shared: &Arc<Shared>, writer: &Mutex<Writer>) {
    let guard = ClosesOnPanic(Arc::clone(shared));
    loop {
        let Some(mut held) = writer.try_lock() else {
            // Somebody leads, and most of what this thread wakes for is done by that.
            let mut pending = shared.pending.lock();
            let wanted = pending.stop || pending.sync_requested || shared.kicked.load(Ordering::SeqCst);
            if wanted || shared.fsync() != Fsync::Always {
                drop(pending);
                drop(writer.lock());
            } else {
                shared.wake.wait_for(&mut pending, UNKICKED_AFTER);
            }
            continue;
        };
        let mut pending = shared.pending.lock();
        let next = held.next_work(&mut pending);
        let until = match next {
            Next::Work(work) => {
                drop(pending);
                if held.perform(work) {
                    continue;
                }
                break;
            }
            Next::Wait(until) => until,
        };
        // Who leads meanwhile needs the writer, not this thread.
        drop(held);
        match until {
            Some(until) => drop(shared.wake.wait_until(&mut pending, until)),
            None => shared.wake.wait(&mut pending),
        }
    }
    drop(guard);
}

/// Does what the thread would do now; says when it would wake up for more, `None` at the end or for nothing. Nothing either
/// where the driver calls while it is about something.
pub(crate) fn turn(shared: &Shared, writer: &Mutex<Writer>) -> Option<Instant> {
    let mut writer = writer.try_lock()?;
    loop {
        let next = writer.next_work(&mut shared.pending.lock());
        match next {
            Next::Work(work) => {
                if !writer.perform(work) {
                    return None;
                }
            }
            Next::Wait(until) => return until,
        }
    }
}

/// Nobody may wait for a thread that is gone.
struct ClosesOnPanic(Arc<Shared>);

impl Drop for ClosesOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close("its writer thread panicked");
        }
    }
}

impl Writer {
    /// Opens the first segment with the recovered tail in it, synced and named.
    pub(crate) fn begin(shared: Arc<Shared>, resume: Resume, payload_max: usize) -> io::Result<Writer> {
        let prepared = obtain(&shared, false)?;
        let origin = Origin {
            lineage: shared.options.lineage,
            epoch: shared.options.epoch,
            first_lsn: resume.lsn,
            predecessor: resume.predecessor.clone(),
        };
        let keyring = shared.keyring.lock().clone();
        let current = Segment::begin(prepared, &origin, keyring.as_deref())?;
        let tail = resume.tail;
        let group = Group {
            first_lsn: resume.lsn,
            end_database: if tail.bytes.is_empty() { resume.database } else { tail.end_database },
            bytes: tail.bytes,
            stamps: tail.stamps,
            marks: vec![Mark { at: 0, database: resume.database, rotate: false }],
            commits: 0,
        };
        let mut writer = Writer {
            current_room: current.unwritten_room(),
            current,
            durable: resume.lsn,
            durable_database: resume.database,
            point: resume.predecessor,
            end_database: group.end_database,
            unsynced: Vec::new(),
            spare: Vec::new(),
            dirty: true,
            recorded_durable: resume.lsn,
            payload_max,
            starting: true,
            rescuing: false,
            poisoned: false,
            failed: None,
            leading: false,
            pace: Pace::default(),
            abandoned: Vec::new(),
            stamps: Vec::new(),
            pending_since: None,
            oldest: None,
            idle_since: shared.now(),
            shared,
        };
        writer.write_and_sync(&group, true)?;
        writer.starting = false;
        Ok(writer)
    }

    // --- deciding what to do

    fn next_work(&mut self, pending: &mut Pending) -> Next {
        let shared = Arc::clone(&self.shared);
        if pending.stop {
            return Next::Work(Work::Stop { group: self.take(pending) });
        }
        self.poisoned |= self.leading;
        if self.poisoned {
            return Next::Wait(None);
        }
        if let Some(error) = self.failed.take() {
            return Next::Work(Work::Rescue { error });
        }
        let now = self.shared.now();
        if pending.group.bytes.is_empty() {
            self.pending_since = None;
            // A kick that came too late for the last group must not hide the next one.
            shared.kicked.store(false, Ordering::SeqCst);
        } else if self.pending_since.is_none() {
            self.pending_since = Some(now);
            self.note_oldest();
        }
        if std::mem::take(&mut pending.sync_requested) {
            return Next::Work(Work::Write { group: self.take(pending), sync: true });
        }
        let wait = match shared.fsync() {
            Fsync::Always => self.judge_always(pending, now),
            mode => self.judge_relaxed(pending, now, mode),
        };
        let until = match wait {
            Wait::Write { sync } => return Next::Work(Work::Write { group: self.take(pending), sync }),
            Wait::Until(until) => until,
        };
        match self.idle_due(pending) {
            Some(due) if due <= now => Next::Work(Work::RecordDurable),
            idle => Next::Wait(earliest(until, idle)),
        }
    }

    /// Does it; false at the end.
    fn perform(&mut self, work: Work) -> bool {
        // Whatever it is, it may take long, and what comes meanwhile is not older than this moment.
        let since = *self.pending_since.get_or_insert_with(|| self.shared.now());
        if self.shared.fsync() == Fsync::EverySec {
            let deadline = self.since_origin(self.oldest.unwrap_or(since)) + EVERYSEC_LATE_NS;
            self.shared.io_deadline_ns.store(deadline, Ordering::SeqCst);
        }
        let goes_on = self.perform_now(work);
        self.shared.io_deadline_ns.store(0, Ordering::SeqCst);
        self.shared.wake_admission();
        goes_on
    }

    fn perform_now(&mut self, work: Work) -> bool {
        match work {
            Work::Write { group, sync } => self.step(group, sync),
            Work::RecordDurable => self.record_durable(),
            Work::Rescue { error } => self.rescue(&error),
            Work::Stop { group } => {
                if let Some(error) = self.failed.take() {
                    self.rescue(&error);
                }
                self.step(group, true);
                self.record_durable();
                return false;
            }
        }
        true
    }

    fn judge_always(&self, pending: &mut Pending, now: Instant) -> Wait {
        let length = pending.group.bytes.len();
        if length == 0 {
            if self.has_unsynced() {
                return Wait::Write { sync: true };
            }
            // While commits keep coming, kicks and short naps; a nap without end is ended by the first append.
            let active = self.recorded_durable < self.durable;
            pending.wake_at = if active { UNKICKED_BYTES } else { 1 };
            return Wait::Until(active.then(|| now + UNKICKED_AFTER));
        }
        let unkicked = self.pending_since.map_or(now, |since| since + UNKICKED_AFTER);
        let kicked = self.shared.kicked.load(Ordering::SeqCst);
        let due = match self.pace.due(pending.group.commits) {
            _ if !kicked => unkicked,
            None => now,
            Some(due) => due.min(unkicked),
        };
        if length >= UNKICKED_BYTES || due <= now {
            return Wait::Write { sync: true };
        }
        pending.wake_at = UNKICKED_BYTES;
        Wait::Until(Some(due))
    }

    fn judge_relaxed(&self, pending: &mut Pending, now: Instant, mode: Fsync) -> Wait {
        let length = pending.group.bytes.len();
        let half_queue = self.shared.options.queue_bytes_max / 2;
        let unsynced = self.current.end_lsn.0.saturating_sub(self.durable.0) + length as u64;
        let oldest = if self.has_unsynced() { self.oldest } else { None };
        let sync_due = match mode {
            Fsync::EverySec => oldest.or(self.pending_since).map(|since| since + SYNC_AFTER),
            Fsync::Always | Fsync::No => None,
        };
        // Bounds what a failed sync would have to write again.
        let sync = sync_due.is_some_and(|due| due <= now) || (unsynced > 0 && unsynced >= half_queue);
        let write_due = self.pending_since.map(|since| since + WRITE_AFTER);
        let wake_at = WRITE_BYTES.min(usize::try_from(half_queue).unwrap_or(usize::MAX)).max(1);
        if sync || length >= wake_at || write_due.is_some_and(|due| due <= now) {
            return Wait::Write { sync };
        }
        pending.wake_at = if length == 0 { 1 } else { wake_at };
        Wait::Until(earliest(sync_due, write_due))
    }

    /// When the durable LSN shall be written down for want of other work.
    fn idle_due(&self, pending: &Pending) -> Option<Instant> {
        let idle = pending.group.bytes.is_empty() && !self.has_unsynced();
        (idle && self.recorded_durable < self.durable).then(|| self.idle_since + IDLE_AFTER)
    }

    fn has_unsynced(&self) -> bool {
        self.current.end_lsn > self.durable
    }

    fn take(&mut self, pending: &mut Pending) -> Group {
        self.shared.kicked.store(false, Ordering::SeqCst);
        let spare = self.spare.pop().unwrap_or_default();
        let group = pending.take(spare);
        self.shared.taken.store(group.end_lsn().0, Ordering::SeqCst);
        let now = self.shared.now();
        if !group.bytes.is_empty() {
            let since = self.pending_since.unwrap_or(now);
            self.pace.note_group(group.commits);
            self.oldest.get_or_insert(since);
            self.note_oldest();
        }
        // What comes while this group is written cannot be older.
        self.pending_since = Some(now);
        group
    }

    fn note_oldest(&self) {
        if let Some(oldest) = self.oldest.or(self.pending_since) {
            self.shared.oldest_ns.store(self.since_origin(oldest), Ordering::Relaxed);
        }
    }

    fn since_origin(&self, instant: Instant) -> u64 {
        let nanos = instant.saturating_duration_since(self.shared.origin).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    // --- writing

    fn step(&mut self, group: Group, sync: bool) {
        if self.poisoned {
            return;
        }
        if let Err(error) = self.write_whole(group, sync) {
            self.rescue(&error);
        }
        self.idle_since = self.shared.now();
    }

    /// In `always` mode: writes and syncs what is pending on the calling thread, which then need not wait for another one
    /// to wake up, do it and wake it in turn. Does nothing where that could take long: see [`Pace`]; whatever needs a new
    /// segment, and whatever follows a failure, is the writer thread's.
    /// `aside` runs what may block, however the caller's other work is kept from waiting for it.
    pub(crate) fn lead(&mut self, aside: impl FnOnce(&mut dyn FnMut())) {
        let shared = Arc::clone(&self.shared);
        let guard = ClosesOnPanic(Arc::clone(&shared));
        let group = {
            let mut pending = shared.pending.lock();
            let stopped = pending.stop || self.poisoned || self.failed.is_some();
            if stopped || !self.pace.is_quick() || !self.has_room_for(&pending.group) {
                return;
            }
            self.take(&mut pending)
        };
        self.leading = true;
        let (mut group, mut outcome) = (Some(group), Ok(()));
        let mut write = || {
            if let Some(group) = group.take() {
                outcome = self.write_whole(group, true);
            }
        };
        aside(&mut write);
        // What was taken must be written, whatever `aside` did.
        write();
        self.leading = false;
        if let Err(error) = outcome {
            self.failed = Some(error);
            shared.wake_writer();
        }
        shared.wake_admission();
        self.idle_since = self.shared.now();
        drop(guard);
    }

    /// Whether a group can be written to the current file, and is small enough that sealing it takes little time.
    fn has_room_for(&self, group: &Group) -> bool {
        let length = group.bytes.len();
        (LEAD_BYTES_MIN..=LEAD_BYTES_MAX).contains(&length)
            && !group.marks.iter().any(|mark| mark.rotate)
            && self.current.named
            && self.current.remaining() >= 2 * LEAD_BYTES_MAX as u64
    }

    fn write_whole(&mut self, group: Group, sync: bool) -> io::Result<()> {
        let outcome = self.write_and_sync(&group, sync);
        self.end_database = group.end_database;
        if group.end_lsn() > self.durable {
            self.unsynced.push(group);
        } else {
            self.keep_spare(group);
        }
        outcome
    }

    fn write_and_sync(&mut self, group: &Group, sync: bool) -> io::Result<()> {
        self.write_group(group)?;
        self.flush()?;
        if sync {
            self.sync_current(Some(group.end_database))?;
        }
        Ok(())
    }

    /// Writes the frames of a group, but for the runs that are durable already (a group that is written again).
    fn write_group(&mut self, group: &Group) -> io::Result<()> {
        let from = self.current.end_lsn;
        for run in group.runs() {
            let start = group.first_lsn.advance(run.range.start);
            if start < from {
                continue;
            }
            // A boundary that was asked for saves space later; it is not worth waiting for space now. The frame that
            // begins here is boundary enough for a reader.
            if run.rotate && self.current.first_lsn < start && is_ready(&self.shared) {
                self.rotate(Some(run.database))?;
            }
            self.write_run(group, &run)?;
        }
        Ok(())
    }

    fn write_run(&mut self, group: &Group, run: &Run) -> io::Result<()> {
        let run_start = group.first_lsn.advance(run.range.start);
        let run_end = group.first_lsn.advance(run.range.end);
        let mut at = run.range.start;
        while at < run.range.end {
            let first_lsn = group.first_lsn.advance(at);
            let to = self.choose_stamps(group, at, run.range.end.min(at + self.payload_max));
            if !self.current.fits(to - at, self.stamps.len()) {
                let at_commit = at == run.range.start;
                self.rotate(at_commit.then_some(run.database))?;
            }
            let whole = to == run.range.end;
            self.current.put(&FrameParts {
                payload: group.bytes.get(at..to).unwrap_or_default(),
                stamps: &self.stamps,
                first_lsn,
                database: run.database,
                commit_lsn: if whole { run_end } else { run_start },
                commit_database: if whole { run.end_database } else { run.database },
                durable: self.durable,
            });
            self.note_frame();
            at = to;
            if self.current.buffered() >= WRITE_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Collects the stamps that apply to the bytes from `at` to `to`; returns the end, nearer when there are too many.
    fn choose_stamps(&mut self, group: &Group, at: usize, to: usize) -> usize {
        self.stamps.clear();
        let (first_lsn, end_lsn) = (group.first_lsn.advance(at), group.first_lsn.advance(to));
        let later = group.stamps.partition_point(|stamp| stamp.lsn <= first_lsn);
        if let Some(stamp) = later.checked_sub(1).and_then(|before| group.stamps.get(before)) {
            self.stamps.push(TimeStamp { lsn: first_lsn, unix_ms: stamp.unix_ms });
        }
        for stamp in group.stamps.iter().skip(later).take_while(|stamp| stamp.lsn < end_lsn) {
            if self.stamps.len() == FRAME_STAMPS_MAX {
                let length = usize::try_from(stamp.lsn.0 - first_lsn.0).unwrap_or(to - at);
                return at + length;
            }
            self.stamps.push(*stamp);
        }
        to
    }

    fn note_frame(&mut self) {
        self.recorded_durable = self.recorded_durable.max(self.durable);
        self.shared.counters.frames.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.current.flush()?;
        if written > 0 {
            self.dirty = true;
            let counted = written.min(self.current_room);
            self.current_room -= counted;
            self.shared.room.fetch_sub(counted, Ordering::SeqCst);
            self.shared.written.fetch_max(self.current.end_lsn.0, Ordering::SeqCst);
            self.shared.counters.bytes.fetch_add(written, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Syncs the current segment, names it if it is not, and with `commit` (the database selected at its end, which
    /// then is a commit boundary) publishes what has become durable.
    fn sync_current(&mut self, commit: Option<u32>) -> io::Result<()> {
        self.flush()?;
        if self.dirty || !self.current.named {
            let start = self.shared.now();
            if self.current.named {
                self.current.file.sync_data()?;
            } else {
                self.current.file.sync_all()?;
            }
            let ended = self.shared.now();
            let micros = ended.saturating_duration_since(start).as_micros();
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.shared.counters.sync_micros_last.store(micros, Ordering::Relaxed);
            self.pace.note_sync(start, ended);
            self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
            self.dirty = false;
        }
        if !self.current.named {
            self.name_current()?;
        }
        if let Some(database) = commit {
            self.durable = self.current.end_lsn;
            self.durable_database = database;
            // Where the segment holds nothing yet, its predecessor is what a new one would follow.
            if self.current.end_lsn > self.current.first_lsn {
                self.point = Some(self.current.point());
            }
            self.publish();
        }
        Ok(())
    }

    fn publish(&mut self) {
        let durable = self.durable;
        let (done, kept) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|group| group.end_lsn() <= durable);
        self.unsynced = kept;
        let done: Vec<Group> = done;
        done.into_iter().for_each(|group| self.keep_spare(group));
        if self.shared.taken.load(Ordering::SeqCst) <= durable.0 {
            self.oldest = None;
            self.note_oldest();
        }
        self.shared.publish_durable(durable);
    }

    fn keep_spare(&mut self, group: Group) {
        if self.spare.len() < 2 && group.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(group);
        }
    }

    /// Writes an empty frame that carries the durable LSN, so that a reader knows it from the files.
    fn record_durable(&mut self) {
        if self.poisoned || self.has_unsynced() || self.recorded_durable >= self.durable {
            return;
        }
        if let Err(error) = self.write_empty_frame() {
            self.rescue(&error);
        }
        // While nothing is written, nothing is kept for it.
        self.spare.clear();
        self.current.release_memory();
        self.idle_since = self.shared.now();
    }

    fn write_empty_frame(&mut self) -> io::Result<()> {
        let database = self.durable_database;
        if !self.current.fits(0, 0) {
            // The successor's name in the manifest says the same.
            return self.rotate(Some(database));
        }
        let end = self.durable;
        self.current.put(&FrameParts {
            payload: &[],
            stamps: &[],
            first_lsn: end,
            database,
            commit_lsn: end,
            commit_database: database,
            durable: end,
        });
        self.note_frame();
        self.sync_current(Some(database))
    }

    // --- segments

    /// Ends the current segment, wholly synced, and begins the next. `commit`: as for `sync_current`.
    fn rotate(&mut self, commit: Option<u32>) -> io::Result<()> {
        self.sync_current(commit)?;
        let mut next = self.begin_segment(self.current.end_lsn, Some(self.current.point()))?;
        if self.rescuing || self.starting {
            // Named with its first sync: until then the old file holds what this one copies.
            self.current = next;
            return Ok(());
        }
        next.file.sync_all()?;
        std::mem::swap(&mut self.current, &mut next);
        self.name_current()?;
        let mut supply = self.shared.supply.lock();
        supply.done.push((next.file, next.path, next.offset));
        drop(supply);
        self.shared.supply_wanted.notify_one();
        Ok(())
    }

    /// Goes on in a new segment where the current one is not under the keyring's active key. Between two groups, all that
    /// was written is whole commits.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let wanted = self.shared.keyring.lock().as_deref().map(|keyring| keyring.active().name().to_owned());
        if self.current.key_name == wanted {
            return Ok(());
        }
        if self.poisoned || self.leading || self.failed.is_some() {
            return Err(io::Error::other("the journal's file has just failed"));
        }
        if !is_ready(&self.shared) {
            let why = self.shared.supply.lock().refusal(&self.shared.dir);
            return Err(io::Error::other(why.map_or("it was shut down".to_owned(), |why| why.to_string())));
        }
        let guard = ClosesOnPanic(Arc::clone(&self.shared));
        self.leading = true;
        let outcome = self.begin_after_current();
        self.leading = false;
        if let Err(error) = &outcome {
            self.failed = Some(io::Error::new(error.kind(), error.to_string()));
        }
        self.shared.wake_writer();
        self.shared.wake_admission();
        drop(guard);
        outcome
    }

    fn begin_after_current(&mut self) -> io::Result<()> {
        let database = self.end_database;
        self.sync_current(Some(database))?;
        if self.current.end_lsn > self.current.first_lsn {
            return self.rotate(Some(database));
        }
        // It holds nothing: what follows it takes its place, and names its predecessor.
        let next = self.begin_segment(self.durable, self.point.clone())?;
        self.abandoned.push(std::mem::replace(&mut self.current, next).path);
        self.sync_current(Some(database))
    }

    fn begin_segment(&mut self, first_lsn: Lsn, predecessor: Option<Predecessor>) -> io::Result<Segment> {
        // What is left of the current file will not be used, and nobody may be admitted against it meanwhile.
        self.shared.room.fetch_sub(std::mem::take(&mut self.current_room), Ordering::SeqCst);
        let prepared = obtain(&self.shared, !self.starting)?;
        let options = &self.shared.options;
        let origin = Origin { lineage: options.lineage, epoch: options.epoch, first_lsn, predecessor };
        let keyring = self.shared.keyring.lock().clone();
        let room = prepared.file_bytes - cairn_format::HEADER_BYTES as u64;
        let segment = Segment::begin(prepared, &origin, keyring.as_deref());
        match segment {
            Ok(segment) => {
                self.current_room = room;
                self.dirty = true;
                Ok(segment)
            }
            Err(error) => {
                self.shared.room.fetch_sub(room, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Gives the current segment its final name and has it put into the manifest. What it holds is synced before.
    fn name_current(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let base = format!("journal-{:020}", self.current.first_lsn.0);
        let mut name = base.clone();
        let mut number = 0;
        while shared.disk.exists(&shared.dir.join(&name))? {
            number += 1;
            name = format!("{base}.{number}");
        }
        let path = shared.dir.join(&name);
        shared.disk.rename(&self.current.path, &path)?;
        self.current.path = path;
        shared.disk.sync_dir(&shared.dir)?;
        let entry = SegmentEntry { name, file_id: self.current.file_id, first_lsn: self.current.first_lsn };
        self.tell_catalog(&entry)?;
        self.current.named = true;
        self.recorded_durable = self.recorded_durable.max(self.durable.min(self.current.first_lsn));
        let mut segments = shared.segments.lock();
        segments.retain(|older| older.first_lsn < entry.first_lsn);
        segments.push(entry);
        drop(segments);
        for path in self.abandoned.drain(..) {
            remove(&shared, &path);
        }
        Ok(())
    }

    fn tell_catalog(&self, entry: &SegmentEntry) -> io::Result<()> {
        let shared = &*self.shared;
        loop {
            match shared.catalog.segment_opened(entry.clone()) {
                Err(error) if is_passing(&error) && !self.starting => {
                    let mut supply = shared.supply.lock();
                    if shared.stopping.load(Ordering::SeqCst) {
                        return Err(error);
                    }
                    match &shared.options.driver {
                        None => drop(shared.supply_ready.wait_for(&mut supply, RETRY_AFTER)),
                        Some(driver) => {
                            drop(supply);
                            driver.rest(RETRY_AFTER);
                        }
                    }
                }
                outcome => return outcome,
            }
        }
    }

    // --- failures

    /// Abandons the current file: all past the durable LSN goes once to a new one. A second failure poisons.
    fn rescue(&mut self, error: &io::Error) {
        tracing::error!(
            file = %self.current.path.display(), %error, durable = self.durable.0,
            "journal file abandoned; writing what is not durable to a new one"
        );
        let groups = std::mem::take(&mut self.unsynced);
        self.rescuing = true;
        let outcome = self.write_again(&groups);
        self.rescuing = false;
        match outcome {
            Ok(()) => groups.into_iter().for_each(|group| self.keep_spare(group)),
            Err(second) => self.poison(error, &second),
        }
    }

    fn write_again(&mut self, groups: &[Group]) -> io::Result<()> {
        let holds_durable = self.point.as_ref().is_some_and(|point| point.file_id == self.current.file_id);
        if !holds_durable {
            self.abandoned.push(self.current.path.clone());
        }
        self.current = self.begin_segment(self.durable, self.point.clone())?;
        for group in groups {
            self.write_group(group)?;
        }
        let database = if groups.is_empty() { self.durable_database } else { self.end_database };
        self.sync_current(Some(database))
    }

    fn poison(&mut self, first: &io::Error, second: &io::Error) {
        tracing::error!(
            %first, %second, durable = self.durable.0,
            "the journal stopped: writing or syncing failed, and so did a new file; writes are refused, reads go on; whether \
             effects past the durable LSN survive is unknown; see to the disk, then restart the server"
        );
        self.poisoned = true;
        self.unsynced = Vec::new();
        self.shared.close(&format!("writing or syncing failed ({first}) and so did a new file ({second})"));
    }
}

enum Wait {
    Write { sync: bool },
    Until(Option<Instant>),
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
