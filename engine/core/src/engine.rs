//! The engine: one keyspace, its journal and its snapshots.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cairn_commands::acl::Acl;
use cairn_commands::observed::Observed;
use cairn_commands::{
    CommandSpec, Decision, Effects, Flags, Hub, Job, LockPlan, Lookups, Reply, Route, Session, Tools, Watch,
    decide, expire_shard, may_write, run, script::Scripts,
};
use cairn_format::Lsn;
use cairn_journal::{Admission, AdmissionWait, Fsync, Poisoned, WaitDurable};
use cairn_keyspace::types::Limits;
use cairn_keyspace::{KeyHash, Keyspace, Locked, SHARDS};
use parking_lot::Mutex;

use crate::archive::{Archive, archive_behind};
use crate::attention::{self, Attention};
use crate::blocked::{self, Blocked, Waiters};
use crate::catalog::Catalog;
use crate::error::{OpenError, SaveError};
use crate::eviction::{Eviction, MemoryLimit};
use crate::freeing;
use crate::host::EngineHost;
use crate::keys::{self, Keys};
use crate::loading::Loading;
use crate::log::Log;
use crate::mending::Mending;
use crate::options::{AutoRewrite, CopyLimit, Options, SavePoint};
use crate::process::Process;
use crate::readiness::{Ending, ReadinessLog};
use crate::recovery::{self, Recovery};
use crate::settings::Settings;
use crate::snapshots::{self, SnapshotInfo, Snapshots};
use crate::trimming::JournalSpace;

/// An open data directory. Clones share it; it closes when the last goes, or by [`Engine::shutdown`].
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

/// Something to do at a key.
type Remaining = (KeyHash, Box<dyn FnOnce(&mut Locked<'_>) + Send>);

pub(crate) struct Inner {
    attention: Attention,
    pub(crate) keyspace: Keyspace,
    pub(crate) log: Log,
    pub(crate) archive: Archive,
    pub(crate) space: JournalSpace,
    /// Known once the data is loaded.
    catalog: OnceLock<Arc<Catalog>>,
    pub(crate) loading: Loading,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) snapshots: Snapshots,
    pub(crate) keys: Keys,
    pub(crate) statistics: Statistics,
    pub(crate) observed: Observed,
    recovery: OnceLock<Recovery>,
    pub(crate) mending: Mending,
    pub(crate) waiters: Waiters,
    /// Who may do what.
    pub(crate) acl: Acl,
    pub(crate) hub: Hub,
    pub(crate) scripts: Scripts,
    /// What remains to be done at keys that scripts held.
    remaining: Mutex<Vec<Remaining>>,
    pub(crate) eviction: Eviction,
    pub(crate) ending: Ending,
    readiness_log: ReadinessLog,
    next_session: AtomicU64,
    expire_from: AtomicU64,
    /// Whether keys are removed as they expire (DEBUG SET-ACTIVE-EXPIRE), and whether there is housekeeping at all (DEBUG
    /// PAUSE-CRON).
    pub(crate) active_expire: AtomicBool,
    pub(crate) housekeeping: AtomicBool,
    /// The lock on the directory, for as long as the engine lives.
    _lock: Box<dyn cairn_disk::LockGuard>,
}

/// Counters of INFO.
#[derive(Default)]
pub(crate) struct Statistics {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) expired_fields: AtomicU64,
    /// Ticks that left expired keys for the next one.
    pub(crate) expiry_cut_short: AtomicU64,
    /// Time that removing them took.
    pub(crate) expiry_micros: AtomicU64,
    /// Changes since the last snapshot began.
    pub(crate) dirty: AtomicU64,
}

impl Statistics {
    pub(crate) fn reset(&self) {
        for counter in [
            &self.hits,
            &self.misses,
            &self.expired,
            &self.expired_fields,
            &self.expiry_cut_short,
            &self.expiry_micros,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, lookups: Lookups) {
        let add = |counter: &AtomicU64, n: u64| {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        add(&self.hits, lookups.hits);
        add(&self.misses, lookups.misses);
        add(&self.expired, lookups.expired);
        add(&self.expired_fields, lookups.expired_fields);
    }
}

/// What became of a request.
pub enum Outcome {
    /// The reply is in the buffer. It may be sent once the journal is durable up to `hold`.
    Done {
        /// The position to wait for; zero for none.
        hold: Lsn,
    },
    /// Nothing was done: the journal has no room yet. Wait, then give the same request again.
    Wait(AdmissionWait),
    /// Nothing was done: a script that has run for some time holds one of the keys. Wait for some milliseconds, then give
    /// the same request again; once the script has run for too long, that is answered with an error.
    Contended,
    /// As `Done`; then the connection ends.
    Close {
        /// The position to wait for; zero for none.
        hold: Lsn,
    },
    /// Run this by [`Engine::run_job`] where blocking is allowed; then send its reply.
    Blocking(Job),
    /// The request has found nothing and waits; [`Blocked`] has its reply when it has one.
    Blocked(Box<Blocked>),
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobDone {
    /// The reply is in the buffer.
    Replied,
    /// SHUTDOWN went through and everything is on disk: the process may end. There is no reply.
    Exit,
    /// The journal is closed without all it was given, in these words: the process can only end. There is no reply.
    ExitFailed(String),
}

/// What writes are answered with then, the reason behind it.
pub(crate) const SNAPSHOT_FAILED: &str = "the last snapshot could not be written, so writes are refused until one is, or \
    stop-writes-on-bgsave-error is no";

/// What every command of a thread uses again.
struct Scratch {
    effects: Effects,
    /// State of the random numbers.
    random: u64,
    /// The limits of this version.
    limits: (u64, Arc<Limits>),
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { effects: Effects::default(), random: seed(), limits: (0, Arc::default()) });
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Random members of sets are no secret; without randomness any seed will do.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Lets this thread draw the same random numbers again.
#[cfg(test)]
pub(crate) fn seed_random(seed: u64) {
    SCRATCH.with_borrow_mut(|scratch| scratch.random = seed);
}

pub(crate) fn now_ms() -> i64 {
    now_us() / 1000
}

fn now_us() -> i64 {
    #[cfg(test)]
    if let Some(now_us) = crate::simulation::time::now_us() {
        return now_us;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// In place of a time: the request did not run.
const NOT_RUN: i64 = 0;

thread_local! {
    /// When the last command of this thread began, in microseconds since the Unix epoch.
    static LAST_START_US: Cell<i64> = const { Cell::new(NOT_RUN) };
}

impl Engine {
    /// Opens a data directory: loads its snapshot, replays its journal, and goes on from there.
    ///
    /// # Errors
    /// Anything that is not as it was written; see [`OpenError`]. Nothing is started empty, and nothing overwritten.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let engine = Self::claim(options)?;
        engine.load()?;
        engine.serve();
        Ok(engine)
    }

    /// Keeps other processes from a data directory, and reads nothing of it yet: until [`Engine::serve`] all commands that
    /// need the data are answered with an error.
    ///
    /// # Errors
    /// Where the directory cannot be made, or another process has it open.
    pub fn claim(options: Options) -> Result<Self, OpenError> {
        let lock = recovery::claim(&options)?;
        let settings = Settings::new(&options);
        let attention = Attention::new(Attention::LOADING);
        attention.set(Attention::MEMORY, options.memory.bytes > 0);
        let keyspace = Keyspace::new(options.databases);
        freeing::start(&keyspace.discards);
        Ok(Self(Arc::new(Inner {
            attention,
            keyspace,
            log: Log::default(),
            archive: Archive::default(),
            space: JournalSpace::default(),
            snapshots: Snapshots::new(),
            keys: Keys::new(options.keyring.clone()),
            catalog: OnceLock::new(),
            loading: Loading::default(),
            mending: Mending::new(options.heap.clone()),
            waiters: Waiters::default(),
            eviction: Eviction::new(&options.memory, options.heap.clone()),
            options,
            settings,
            statistics: Statistics::default(),
            observed: Observed::default(),
            recovery: OnceLock::new(),
            acl: Acl::default(),
            hub: Hub::default(),
            scripts: Scripts::default(),
            remaining: Mutex::default(),
            ending: Ending::default(),
            readiness_log: ReadinessLog::default(),
            next_session: AtomicU64::new(1),
            expire_from: AtomicU64::new(0),
            active_expire: AtomicBool::new(true),
            housekeeping: AtomicBool::new(true),
            _lock: lock,
        })))
    }

    /// Loads the snapshot and replays the journal, to be called once; [`Engine::serve`] is to follow.
    ///
    /// # Errors
    /// As [`Engine::open`]; what has been loaded by then is part of the data, so the engine is of no use.
    pub fn load(&self) -> Result<(), OpenError> {
        let inner = &*self.0;
        // A snapshot may tell how keys were used, in the form that is recorded.
        inner.keyspace.access().set(inner.options.memory.access());
        let opened = recovery::open(&inner.options, &inner.keyspace, &inner.loading)?;
        // Of what else was loaded it is not known when it was last used.
        inner.keyspace.access().start_at(now_ms());
        opened.snapshot.iter().for_each(|entry| inner.snapshots.loaded(entry));
        match opened.journal {
            Some(journal) => inner.log.begin(journal),
            None => inner.log.count_from(opened.recovery.end),
        }
        assert!(inner.catalog.set(opened.catalog).is_ok(), "a directory is loaded once");
        inner.sample_position();
        inner.recovery.get_or_init(|| opened.recovery);
        Ok(())
    }

    /// From here on all keys are served.
    pub fn serve(&self) {
        self.0.loading.end();
        self.0.attention.set(Attention::LOADING, false);
    }

    /// Whether keys are not served yet.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.0.loading.is_on()
    }

    /// A new client of this engine: the default user.
    #[must_use]
    pub fn session(&self) -> Session {
        let id = self.0.next_session.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(id, !self.0.acl.authentication_required());
        session.user = Some(self.0.acl.default_user());
        session
    }

    /// The users, and what they may do.
    #[must_use]
    pub fn acl(&self) -> &Acl {
        &self.0.acl
    }

    /// Ends a client: what it watched and listened to is forgotten.
    pub fn end_session(&self, mut session: Session) {
        session.inbox.close();
        cairn_commands::end_messages(&mut session, &self.0.hub);
        self.end_watches(&mut session);
    }

    fn end_watches(&self, session: &mut Session) {
        self.0.unwatch(std::mem::take(&mut session.watches));
    }

    /// Runs one request and writes its reply. Never waits for the disk; what has to wait is in the [`Outcome`].
    pub fn execute(
        &self,
        session: &mut Session,
        process: &dyn Process,
        args: &[&[u8]],
        reply: &mut Reply<'_>,
    ) -> Outcome {
        self.execute_routed(session, process, args, &self.route(args), reply)
    }

    /// Looks a request up ahead of its run.
    #[inline]
    #[must_use]
    pub fn route(&self, args: &[&[u8]]) -> Route {
        Route::of(args, &self.0.keyspace)
    }

    /// Whether a request waits while clients that write are paused.
    #[must_use]
    pub fn may_write(&self, session: &Session, route: &Route, args: &[&[u8]]) -> bool {
        route.may_write(session, args, &self.0.scripts, &self.0.keyspace)
    }

    /// Asks the processor for the memory that requests will need: worth it before several are run one after the other.
    pub fn prefetch<'a>(&self, session: &Session, routes: impl Iterator<Item = &'a Route> + Clone) {
        self.0.keyspace.prefetch(session.db, routes.filter_map(Route::hash));
    }

    /// As [`Engine::execute`], for a request that [`Engine::route`] has looked up.
    pub fn execute_routed(
        &self,
        session: &mut Session,
        process: &dyn Process,
        args: &[&[u8]],
        route: &Route,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        if args.is_empty() {
            return Outcome::Done { hold: Lsn::ZERO };
        }
        let inner = &*self.0;
        if inner.scripts.is_busy() && self.refuse_while_busy(session, args, reply) {
            return Outcome::Done { hold: Lsn::ZERO };
        }
        if inner.attention.is_asked_for() && attention::attend(inner, session, args, reply) {
            LAST_START_US.set(NOT_RUN);
            return Outcome::Done { hold: Lsn::ZERO };
        }
        let host = EngineHost { engine: &self.0, process };
        let (spec, mut plan) = match decide(session, &host, args, route, &inner.keyspace, reply) {
            Decision::Replied => {
                LAST_START_US.set(NOT_RUN);
                if args[0].eq_ignore_ascii_case(b"exec") {
                    // It was refused, and the transaction with it; what it watched for is no more.
                    self.end_watches(session);
                }
                return Outcome::Done { hold: Lsn::ZERO };
            }
            Decision::Run(spec, plan) => (spec, plan),
        };
        // Asked before the locks: a disk that is full or slow holds up nobody else, and nothing is half done.
        let bytes = admission_bytes(spec, session, args);
        if bytes.is_some()
            && inner.snapshots.is_failing() | inner.archive.is_behind()
            && let Some(why) = inner.why_no_writes()
        {
            self.refuse(session, &format!("MISCONF {why}"), reply);
            return Outcome::Done { hold: Lsn::ZERO };
        }
        let permit = match bytes.and_then(|bytes| inner.log.admit(bytes)) {
            None => None,
            Some(Admission::Granted(permit)) => Some(permit),
            Some(Admission::Wait(wait)) => return Outcome::Wait(wait),
            Some(Admission::Refused(error)) => {
                self.refuse(session, &format!("MISCONF {error}"), reply);
                return Outcome::Done { hold: Lsn::ZERO };
            }
        };
        let ran = SCRATCH.with_borrow_mut(|Scratch { effects, random, limits }| {
            loop {
                let mut locked = plan.try_lock(&inner.keyspace)?;
                if !spec.flags.has(Flags::READ) && locked.has_destinations() {
                    locked = inner.try_lock_more(locked, &plan)?;
                }
                inner.settings.refresh(limits);
                // Under the locks, so that the stamps of one key's effects rise with them.
                let now_us = now_us();
                LAST_START_US.set(now_us);
                let now_ms = now_us / 1000;
                let known_key = route.known_key(args);
                let tools = Tools { now_ms, limits: &limits.1, random, replaying: false, known_key };
                effects.clear();
                let start = reply.len();
                effects.listen(inner.hub.interest());
                let guard = AbortOnPanic::armed();
                let ran = run(spec, args, session, &host, &mut locked, effects, reply.reborrow(), tools);
                inner.statistics.count(ran.lookups);
                let written = inner.commit(&mut locked, effects, now_ms);
                guard.disarm();
                if ran.strayed.restart {
                    // What had expired is gone, and told; the script itself has done nothing yet.
                    effects.tell(&inner.hub, session.id, written.0);
                    plan = LockPlan::Whole;
                    continue;
                }
                let mut hold = inner.hold_for(&locked, session, spec, &plan, written);
                if let Some(examined) = &ran.strayed.examined {
                    hold = hold.max(inner.hold_for(&locked, session, spec, examined, written));
                }
                effects.tell(&inner.hub, session.id, hold.0);
                let instead = match (ran.job, ran.wait) {
                    (None, None) => None,
                    (Some(job), _) => Some(Box::new(Outcome::Blocking(job))),
                    (None, Some(wait)) => {
                        let otherwise = reply.split_off(start);
                        let blocked = blocked::block(host.engine, &mut locked, session, *wait, otherwise);
                        Some(Box::new(Outcome::Blocked(blocked.held(hold))))
                    }
                };
                return Some((instead, hold));
            }
        });
        let Some((instead, hold)) = ran else {
            LAST_START_US.set(NOT_RUN);
            return Outcome::Contended;
        };
        drop(permit);
        match instead {
            Some(outcome) => *outcome,
            None if session.closing => Outcome::Close { hold },
            None => Outcome::Done { hold },
        }
    }

    /// Answers a write that is not let in.
    #[cold]
    fn refuse(&self, session: &mut Session, why: &str, reply: &mut Reply<'_>) {
        LAST_START_US.set(NOT_RUN);
        // Of a transaction nothing has run, and nothing may run later behind the client's back.
        if session.transaction.take().is_some() {
            self.end_watches(session);
            reply.error(&format!("EXECABORT Transaction discarded because of: {why}"));
        } else {
            reply.error(why);
        }
    }

    /// Answers for a script that has run for too long; false for what may still be asked then.
    #[cold]
    fn refuse_while_busy(&self, session: &mut Session, args: &[&[u8]], reply: &mut Reply<'_>) -> bool {
        if cairn_commands::is_allowed_while_busy(args) {
            return false;
        }
        let why = self.0.scripts.busy_error();
        if args[0].eq_ignore_ascii_case(b"exec") {
            session.transaction = None;
            self.end_watches(session);
            reply.error(&format!("EXECABORT Transaction discarded because of: {why}"));
        } else {
            if let Some(transaction) = &mut session.transaction {
                transaction.broken = true;
            }
            reply.error(why);
        }
        true
    }

    /// Does what a request left to do; blocks for as long as it takes.
    pub fn run_job(&self, job: &Job, process: &dyn Process, out: &mut Reply<'_>) -> JobDone {
        let reply = |out: &mut Reply<'_>, result: Result<(), String>| match result {
            Ok(()) => out.ok(),
            Err(text) => out.error(&text),
        };
        match job {
            Job::Save => reply(out, self.snapshot().map(drop).map_err(|error| format!("ERR {error}"))),
            Job::Reload(how) => {
                reply(out, snapshots::reload(&self.0, *how).map_err(|error| format!("ERR {error}")));
            }
            Job::LoadJournal => {
                reply(out, snapshots::load_journal(&self.0).map_err(|error| format!("ERR {error}")));
            }
            Job::Keys(what) => keys::run_job(&self.0, *what, process, out),
            Job::Sleep(seconds) => {
                let _all = self.0.keyspace.lock_all();
                // What the command is for: everything stands still for so long.
                std::thread::sleep(std::time::Duration::from_secs_f64(*seconds));
                out.ok();
            }
            // There is nothing to write: what is on disk is being read.
            Job::Shutdown { .. } if self.is_loading() => return JobDone::Exit,
            Job::Shutdown { save, force } => match self.end(*save, *force) {
                Ok(done) => return done,
                Err(error) => out.error(&format!("ERR Errors trying to SHUTDOWN: {error}. Check logs.")),
            },
        }
        JobDone::Replied
    }

    /// Writes a snapshot and waits until it is named by the manifest.
    ///
    /// # Errors
    /// See [`SaveError`]; the snapshot before is untouched.
    pub fn snapshot(&self) -> Result<SnapshotInfo, SaveError> {
        snapshots::take(&self.0)
    }

    /// Up to where the journal is durable.
    #[inline]
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.0.log.durable()
    }

    /// Resolves when the journal is durable up to `lsn`; on any runtime.
    ///
    /// `None` when there is no journal, and so nothing to wait for.
    #[must_use]
    pub fn wait_durable(&self, lsn: Lsn) -> Option<WaitDurable> {
        self.0.log.journal().map(|journal| journal.wait_durable(lsn))
    }

    /// Waits until the journal is durable up to `lsn`.
    ///
    /// # Errors
    /// When it never will be: the disk failed, and whether the write is there after a restart is unknown.
    pub fn block_until_durable(&self, lsn: Lsn) -> Result<(), Poisoned> {
        self.0.log.journal().map_or(Ok(()), |journal| journal.block_until_durable(lsn))
    }

    /// Lets the journal write what is pending: to be called when no more requests are ready.
    #[inline]
    pub fn kick(&self) {
        if let Some(journal) = self.0.log.journal() {
            journal.kick();
        }
    }

    /// With `appendfsync always`: whether so much is pending that [`Engine::lead`] is worth it.
    #[inline]
    #[must_use]
    pub fn is_worth_leading(&self) -> bool {
        self.0.log.journal().is_some_and(|journal| journal.is_worth_leading())
    }

    /// With `appendfsync always`: writes and syncs what is pending on this thread, where that is quick; see
    /// [`cairn_journal::Journal::lead`].
    pub fn lead(&self, aside: impl FnOnce(&mut dyn FnMut())) {
        if let Some(journal) = self.0.log.journal() {
            journal.lead(aside);
        }
    }

    /// Of an engine whose journal has a driver: does what the journal's threads would have done by now; see
    /// [`cairn_journal::Journal::turn`].
    pub fn turn(&self) -> Option<Instant> {
        self.0.log.journal().and_then(|journal| journal.turn())
    }

    /// Housekeeping, to be called about ten times a second: removes expired keys where `expire` lets it, evicts where memory
    /// is short, takes snapshots that are due.
    pub fn tick(&self, expire: bool) {
        if self.is_loading() {
            return;
        }
        self.0.sample_position();
        if !self.0.housekeeping.load(Ordering::Relaxed) {
            return;
        }
        self.0.do_remaining();
        self.0.readiness_log.note(self.readiness());
        if expire && self.0.active_expire.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.0.expire_some();
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            if self.0.observed.latency.is_slow(took_us) {
                self.0.observed.note_event("expire-cycle", took_us);
            }
        }
        self.0.evict_some();
        snapshots::start_if_due(&self.0);
    }

    /// Changes when the journal is synced.
    pub fn set_fsync(&self, fsync: Fsync) {
        *self.0.settings.fsync.lock() = fsync;
        if let Some(journal) = self.0.log.journal() {
            self.0.settings.set_always(fsync == Fsync::Always, || journal.end_lsn());
            journal.set_fsync(fsync);
        }
    }

    /// Begins or ends the journal. That needs every shard, so it happens on a thread of its own, soon; INFO shows when.
    ///
    /// # Errors
    /// When there can be no thread. What fails later is in the log, and the journal stays as it was.
    pub fn set_append_only(&self, on: bool) -> std::io::Result<()> {
        let inner = Arc::clone(&self.0);
        inner.settings.append_only.store(on, Ordering::SeqCst);
        if !on {
            inner.snapshots.cancel_rewrite();
        }
        // From here on INFO shows that something is being written, so that one can wait for it to end.
        let is_announced = inner.snapshots.begin().is_ok();
        let switch = move || match snapshots::switch_journal(&inner, is_announced) {
            Ok(()) => tracing::info!(on = inner.log.journal().is_some(), "the journal was switched"),
            Err(error) => tracing::error!(%error, "the journal could not be switched; it stays as it was"),
        };
        let spawned = std::thread::Builder::new().name("cairn-switch".to_owned()).spawn(switch);
        if spawned.is_err() && is_announced {
            snapshots::end_without(&self.0);
        }
        spawned.map(drop)
    }

    /// Changes when small collections change their encoding.
    pub fn set_limits(&self, limits: Limits) {
        self.0.settings.set_limits(limits);
    }

    /// Changes how much memory may be in use, and what happens beyond.
    pub fn set_memory(&self, memory: MemoryLimit) {
        self.0.keyspace.access().set(memory.access());
        let is_limited = memory.bytes > 0;
        self.0.eviction.set(memory);
        self.0.attention.set(Attention::MEMORY, is_limited);
    }

    /// Changes when the journal is trimmed by itself.
    pub fn set_auto_rewrite(&self, auto_rewrite: AutoRewrite) {
        *self.0.settings.auto_rewrite.lock() = auto_rewrite;
    }

    /// Changes when a snapshot is taken by itself.
    pub fn set_save_points(&self, save_points: Vec<SavePoint>) {
        *self.0.settings.save_points.lock() = save_points;
    }

    /// Makes snapshots slow, for tests: so many microseconds for each key, or, where negative, so many keys for each.
    pub fn set_key_save_delay(&self, delay: i64) {
        self.0.settings.key_save_delay.store(delay, Ordering::Relaxed);
    }

    /// Changes how much memory may be copied because of a snapshot: of the next one.
    pub fn set_copy_limit(&self, limit: CopyLimit) {
        *self.0.settings.copy_limit.lock() = limit;
    }

    /// Changes whether writes are refused while the last snapshot that save points asked for failed.
    pub fn set_stop_writes_on_snapshot_error(&self, stop: bool) {
        self.0.settings.stop_writes_on_snapshot_error.store(stop, Ordering::Relaxed);
    }

    /// What is noted of commands that ran. Whoever runs them measures and notes how long they took.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.0.observed
    }

    /// When the last request on this thread began to run, in microseconds since the Unix epoch: the clock reading that it
    /// took anyway. `None` where it was queued or refused instead.
    #[inline]
    #[must_use]
    pub fn last_start_us() -> Option<i64> {
        Some(LAST_START_US.get()).filter(|start| *start != NOT_RUN)
    }

    /// Where what one client does reaches others.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Changes after how many milliseconds of a script other clients hear that it is running; 0: never.
    pub fn set_busy_after_ms(&self, ms: u64) {
        self.0.scripts.set_busy_after_ms(ms);
    }

    /// Whether a script has run for longer than that.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.scripts.is_busy()
    }

    /// What was found when the directory was opened.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        self.0.recovery()
    }
}

/// How much room in the journal a request may need; `None` for one that writes nothing.
fn admission_bytes(spec: &CommandSpec, session: &Session, args: &[&[u8]]) -> Option<usize> {
    /// What a script writes is known only when it has run: room for many small writes.
    const SCRIPT_BYTES: usize = 64 << 10;
    let bytes = |lengths: &mut dyn Iterator<Item = usize>| 64 + lengths.map(|len| len + 16).sum::<usize>();
    if spec.flags.has(Flags::WRITE) {
        return Some(bytes(&mut args.iter().map(|arg| arg.len())));
    }
    if spec.name == "exec" {
        let queue = &session.transaction.as_ref()?.queue;
        let writes =
            queue.iter().any(|args| cairn_commands::resolve(args).is_some_and(|spec| may_write(spec)));
        return writes.then(|| bytes(&mut queue.iter().flatten().map(Vec::len)));
    }
    may_write(spec).then(|| SCRIPT_BYTES + bytes(&mut args.iter().map(|arg| arg.len())))
}

impl Inner {
    /// Why writes are refused although the journal would take them, if they are.
    #[cold]
    fn why_no_writes(&self) -> Option<String> {
        if self.snapshots.is_failing() && self.settings.stops_writes_on_snapshot_error() {
            let (_, why) = self.snapshots.failure();
            return Some(format!("{SNAPSHOT_FAILED}: {why}"));
        }
        self.archive.behind().map(|(_, max)| archive_behind(max))
    }

    /// The files of the directory; they are known to all that runs after loading.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        self.catalog.get().expect("nothing asks for files before they are loaded")
    }

    /// What was found when the directory was opened; nothing while it is being loaded.
    pub(crate) fn recovery(&self) -> &Recovery {
        static NOTHING_YET: LazyLock<Recovery> = LazyLock::new(Recovery::default);
        self.recovery.get().unwrap_or(&NOTHING_YET)
    }

    /// The position of the last snapshot.
    pub(crate) fn snapshot_lsn(&self) -> Lsn {
        self.catalog.get().map_or(Lsn::ZERO, |catalog| catalog.snapshot_lsn())
    }

    /// The name that all files of the directory bear; zeros while it is not known.
    pub(crate) fn lineage(&self) -> String {
        self.catalog.get().map_or_else(|| "0".repeat(32), |catalog| catalog.lineage().to_string())
    }

    /// Appends what was done, under the locks it was done under: the journal's order is the commit order.
    /// Those who wait for what was changed are served with it.
    #[inline]
    pub(crate) fn commit(&self, locked: &mut Locked<'_>, effects: &mut Effects, now_ms: i64) -> Lsn {
        if effects.is_empty() {
            return Lsn::ZERO;
        }
        if locked.has_ready() {
            self.serve(locked, effects, now_ms)
        } else {
            self.append(locked, effects, now_ms)
        }
    }

    #[inline(never)]
    pub(crate) fn append(&self, locked: &mut Locked<'_>, effects: &mut Effects, now_ms: i64) -> Lsn {
        self.statistics.dirty.fetch_add(effects.changes(), Ordering::Relaxed);
        let (db, bytes) = effects.finish();
        let lsn = self.log.append(db, bytes, now_ms);
        effects.release();
        if !self.settings.is_always() {
            return Lsn::ZERO;
        }
        let durable = self.log.durable();
        if effects.changed_whole() {
            (0..SHARDS).for_each(|shard| locked.shard_at_mut(shard).undurable.mark_all(lsn.0));
        }
        for hash in effects.changed() {
            locked.shard_mut(*hash).undurable.mark(hash.0, lsn.0, durable.0);
        }
        lsn
    }

    /// The position that a reply about these keys has to wait for, so that nobody learns of a value that a power cut
    /// could take away. `written` is where the command's own effects end.
    #[inline]
    fn hold_for(
        &self,
        locked: &Locked<'_>,
        session: &mut Session,
        spec: &CommandSpec,
        plan: &LockPlan,
        written: Lsn,
    ) -> Lsn {
        if self.settings.is_always() {
            session.written_until = session.written_until.max(written.0);
            // The client's earlier replies wait for that anyway, and this one comes behind them: it is for messages, which
            // must not overtake what their sender has written.
            self.hold_for_durable(locked, spec, plan).max(Lsn(session.written_until))
        } else {
            written
        }
    }

    /// Where replies wait for the journal, blocks until all that has been written is durable; whether it is.
    pub(crate) fn is_safe_to_tell(&self) -> bool {
        match self.log.journal() {
            Some(journal) if self.settings.is_always() => {
                journal.block_until_durable(journal.end_lsn()).is_ok()
            }
            _ => true,
        }
    }

    #[inline(never)]
    fn hold_for_durable(&self, locked: &Locked<'_>, spec: &CommandSpec, plan: &LockPlan) -> Lsn {
        // INFO tells of the server, and of keys only how many there are: whoever looks after a disk that hangs needs it.
        if spec.name == "info" {
            return Lsn::ZERO;
        }
        let durable = self.log.durable().0;
        let floor = self.settings.always_from().0;
        let floor = if floor > durable && *plan != LockPlan::None { Lsn(floor) } else { Lsn::ZERO };
        floor.max(match plan {
            // The function is data, whatever it does.
            LockPlan::None if spec.name.starts_with("fcall") => self.log.end(),
            LockPlan::None => Lsn::ZERO,
            LockPlan::One(hash) => Lsn(locked.shard(*hash).undurable.position_of(hash.0, durable)),
            LockPlan::Many(hashes) => Lsn(hashes
                .iter()
                .map(|hash| locked.shard(*hash).undurable.position_of(hash.0, durable))
                .max()
                .unwrap_or(0)),
            LockPlan::Whole => self.log.end(),
        })
    }

    /// Ends watches; those of keys that a script holds, with the next tick.
    fn unwatch(&self, watches: Vec<Watch>) {
        for watch in watches {
            let hash = self.keyspace.hash(&watch.key);
            match self.keyspace.try_lock_one(hash) {
                Some(mut locked) => locked.shard_mut(hash).unwatch(watch.db, &watch.key),
                None => self.later(hash, move |locked| locked.shard_mut(hash).unwatch(watch.db, &watch.key)),
            }
        }
    }

    /// Leaves something to be done at a key to the clock, since a script holds the key.
    pub(crate) fn later(&self, hash: KeyHash, work: impl FnOnce(&mut Locked<'_>) + Send + 'static) {
        self.remaining.lock().push((hash, Box::new(work)));
    }

    /// Does what remained to be done, where scripts have let go.
    fn do_remaining(&self) {
        for (hash, work) in std::mem::take(&mut *self.remaining.lock()) {
            match self.keyspace.try_lock_one(hash) {
                Some(mut locked) => work(&mut locked),
                None => self.remaining.lock().push((hash, work)),
            }
        }
    }

    /// Removes keys that have expired: all that are due, but no more than a few hundred of a shard at a time, so that no
    /// lock is held for long and a burst is spread over the next ticks.
    pub(crate) fn expire_some(&self) {
        const MOST_PER_SHARD: usize = 200;
        const MOST_PER_TICK: usize = 20_000;
        // Expiry needs no client's leave, but it waits like any write where the journal has no room.
        let _permit = match self.log.admit(MOST_PER_TICK * 64) {
            None => None,
            Some(Admission::Granted(permit)) => Some(permit),
            Some(_) => return,
        };
        let begun = Instant::now();
        let (mut effects, mut random, limits) = (Effects::default(), 0, Limits::default());
        let start = self.expire_from.load(Ordering::Relaxed) as usize;
        let mut removed = 0;
        for offset in 0..SHARDS {
            let shard = (start + offset) % SHARDS;
            if removed >= MOST_PER_TICK {
                // The next tick goes on here, so that no shard starves.
                self.statistics.expiry_cut_short.fetch_add(1, Ordering::Relaxed);
                self.expire_from.store(shard as u64, Ordering::Relaxed);
                break;
            }
            // A script that holds it for long must not hold up the clock too.
            let Some(mut locked) = self.keyspace.try_lock_shard(shard) else { continue };
            for db in 0..self.keyspace.databases() {
                let database = locked.shard_at(shard).database(db);
                if database.expiring() == 0 && !database.has_expiring_fields() {
                    continue;
                }
                effects.clear();
                effects.listen(self.hub.interest());
                let (now_ms, random) = (now_ms(), &mut random);
                let tools = Tools { now_ms, limits: &limits, random, replaying: false, known_key: None };
                let guard = AbortOnPanic::armed();
                let expired = expire_shard(&mut locked, shard, db, MOST_PER_SHARD, &mut effects, tools);
                let after = self.commit(&mut locked, &mut effects, now_ms);
                guard.disarm();
                effects.tell(&self.hub, 0, after.0);
                self.statistics.expired.fetch_add(expired.keys as u64, Ordering::Relaxed);
                self.statistics.expired_fields.fetch_add(expired.fields as u64, Ordering::Relaxed);
                removed += expired.keys + expired.fields;
            }
        }
        self.statistics.expiry_micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// A handler that panics has changed part of what it was to change, and the journal knows nothing of it: going on would
/// write that into the next snapshot. The journal holds everything that was acknowledged, so the process ends.
pub(crate) struct AbortOnPanic {
    armed: bool,
}

impl AbortOnPanic {
    pub(crate) fn armed() -> Self {
        Self { armed: true }
    }

    /// Memory and journal are the same again.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        tracing::error!(
            "what changes keys panicked under its locks; ending, since memory and journal may differ"
        );
        std::process::abort();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keyspace.discards.close();
        // An engine that was shut down has nothing left to flush; one that was merely dropped ends as cleanly.
        if let Err(error) = self.log.shutdown() {
            tracing::error!(%error, "the journal could not be closed cleanly");
        }
    }
}
