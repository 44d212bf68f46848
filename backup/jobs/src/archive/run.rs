//! The agent: keeps the archive of a data directory going for as long as it is let.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_disk::{Disk, LockGuard};
use cairn_seal::Keyring;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::base::{self, Wanted};
use super::control::{Control, Report, Status};
use super::lease::{Archived, Held, Holder};
use super::rate::RateLimit;
use super::schedule::Schedule;
use super::ship::{Context, Position, Shipper};
use crate::manifest::BackupManifest;
use crate::repository::Repository;
use crate::{JobError, files, moment};

/// The lock that keeps a second agent from a data directory; it holds the token of the last lease.
pub(crate) const LOCK: &str = "backup.lock";
/// The pause after a failure, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// A base that could not be made is tried again after this long.
const BASE_AGAIN: Duration = Duration::from_secs(30);
/// How long the last upload may take when the agent is told to end.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Statements of the server that wait until the archive has caught up with them.
const STATEMENTS_MAX: usize = 64;

/// How an archive is kept.
pub struct RunOptions {
    /// The data directory.
    pub dir: PathBuf,
    /// The disk it lies on.
    pub disk: Arc<dyn Disk>,
    /// The master keys; without them what is encrypted is copied by its checksums.
    pub keyring: Option<Arc<Keyring>>,
    /// How often the journal is looked at.
    pub interval: Duration,
    /// When snapshots are taken.
    pub schedule: Schedule,
    /// One is also taken when the journal behind the last one is so long, in bytes of effects.
    pub snapshot_after_bytes: u64,
    /// The bytes a second that uploads take at most.
    pub rate: Option<RateLimit>,
    /// How long the lease lasts without being renewed.
    pub lease: Duration,
    /// How long pieces stay that others have taken the place of.
    pub grace: Duration,
    /// The agent ends when this becomes true: it puts what is durable and gives the lease up.
    pub stop: watch::Receiver<bool>,
    /// Hears of what happens.
    pub told: Arc<dyn Fn(&Event) + Send + Sync>,
}

/// What an agent tells of its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The archive goes on, or begins.
    Following {
        /// The history of the data directory.
        lineage: String,
        /// The folder of the archive.
        archive: String,
        /// The LSN below which everything is there.
        archived_lsn: u64,
    },
    /// The archive holds more than before.
    Archived {
        /// All below it is there.
        lsn: u64,
        /// When the newest effect below it was appended, in milliseconds since 1970.
        unix_ms: u64,
        /// Durable bytes that wait.
        pending_bytes: u64,
    },
    /// A base was put.
    Base {
        /// The backup.
        backup: String,
        /// Its LSN.
        lsn: u64,
        /// Its size.
        bytes: u64,
    },
    /// Something failed and is tried again.
    Failed {
        /// What happened.
        error: String,
    },
    /// It goes on again.
    Recovered,
    /// The agent has ended as it was told.
    Ended {
        /// All below it is there.
        archived_lsn: u64,
    },
}

/// Keeps the archive of a data directory until it is told to stop.
///
/// # Errors
/// [`JobError::LeaseHeld`], [`JobError::LeaseLost`], [`JobError::AgentRunning`]; what makes going on senseless. Whatever may pass is
/// told and tried again.
pub async fn run(repository: Repository, options: RunOptions) -> Result<(), JobError> {
    let repository = Arc::new(repository);
    let (_lock, gone) = claim(&options)?;
    let holder = holder(&options, gone)?;
    let token = holder.token.clone();
    let lease = Arc::new(Held::take(Arc::clone(repository.store()), holder).await?);
    note_token(&options, &token)?;
    let context = Context {
        repository,
        dir: options.dir.clone(),
        disk: Arc::clone(&options.disk),
        keyring: options.keyring.clone(),
        lease: Arc::clone(&lease),
        rate: options.rate.clone(),
        grace: options.grace,
    };
    let stated = Arc::new(Mutex::new(None));
    let mut renewing = renew(Arc::clone(&lease), Arc::clone(&stated));
    let mut agent = Agent::new(context, options, stated);
    let ended = tokio::select! {
        ended = agent.go_on() => ended,
        lost = &mut renewing => Err(lost.unwrap_or_else(|error| JobError::Task(error.to_string()))),
    };
    renewing.abort();
    ended?;
    lease.release(agent.statement()).await?;
    agent.tell(&Event::Ended { archived_lsn: agent.archived_lsn() });
    Ok(())
}

/// Keeps other agents from the directory; also the token of the one before, which is certainly gone.
fn claim(options: &RunOptions) -> Result<(Box<dyn LockGuard>, Option<String>), JobError> {
    let path = options.dir.join(LOCK);
    if !files::io(&options.dir, "look for", options.disk.exists(&options.dir))? {
        return Err(JobError::NoData { dir: options.dir.clone() });
    }
    let guard = match options.disk.lock(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(JobError::AgentRunning { dir: options.dir.clone() });
        }
        other => files::io(&path, "lock", other)?,
    };
    let file = files::io(&path, "open", options.disk.open_read(&path))?;
    let mut token = [0; 32];
    let gone = file.read_exact_at(&mut token, 0).ok().and_then(|()| String::from_utf8(token.to_vec()).ok());
    Ok((guard, gone))
}

fn note_token(options: &RunOptions, token: &str) -> Result<(), JobError> {
    let path = options.dir.join(LOCK);
    let file = files::io(&path, "open", options.disk.open_write(&path))?;
    files::io(&path, "write", file.write_at(token.as_bytes(), 0).and_then(|()| file.sync_data()))
}

fn holder(options: &RunOptions, gone: Option<String>) -> Result<Holder, JobError> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let dir = std::path::absolute(&options.dir).unwrap_or_else(|_| options.dir.clone());
    let (host, process) = (read("/proc/sys/kernel/hostname"), std::process::id());
    Ok(Holder {
        name: format!("process {process} on {host} for {}", dir.display()),
        token: crate::random_hex()?,
        boot: read("/proc/sys/kernel/random/boot_id"),
        gone: gone.filter(|_| !read("/proc/sys/kernel/random/boot_id").is_empty()),
        ttl: options.lease,
    })
}

/// Renews the lease as long as it can be; ends with how it was lost.
fn renew(lease: Arc<Held>, stated: Arc<Mutex<Option<Archived>>>) -> JoinHandle<JobError> {
    tokio::spawn(async move {
        let mut pause = lease.renew_every();
        loop {
            tokio::time::sleep(pause).await;
            pause = lease.renew_every();
            let archived = stated.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match lease.renew(archived).await {
                Ok(()) => {}
                Err(error @ JobError::LeaseLost { .. }) => return error,
                Err(error) => {
                    tracing::warn!(%error, "the lease could not be renewed; trying again");
                    pause = pause.min(PAUSE_FIRST);
                }
            }
        }
    })
}

struct Agent {
    context: Context,
    options: RunOptions,
    shipper: Option<Shipper>,
    control: Option<Control>,
    /// What the next renewal of the lease states.
    stated: Arc<Mutex<Option<Archived>>>,
    /// What the server said was durable, and when, until the archive has that.
    statements: VecDeque<Position>,
    complete_unix_ms: u64,
    bases: Bases,
    last_error: Option<String>,
    stored_bytes: u64,
    /// The archived LSN that was told last, and whether there was a base.
    told: Option<(u64, bool)>,
    pause: Duration,
}

/// The newest base, and the one that is being made.
#[derive(Default)]
struct Bases {
    folder: String,
    newest: Option<Newest>,
    making: JoinSet<Result<Option<BackupManifest>, JobError>>,
    /// None was to be had, or it failed: not before this.
    not_before: Option<Instant>,
    /// Why the last one failed.
    error: Option<String>,
}

#[derive(Clone, Copy)]
struct Newest {
    lsn: u64,
    created_unix_ms: u64,
}

impl Agent {
    fn new(context: Context, options: RunOptions, stated: Arc<Mutex<Option<Archived>>>) -> Self {
        Self {
            context,
            options,
            shipper: None,
            control: None,
            stated,
            statements: VecDeque::new(),
            complete_unix_ms: 0,
            bases: Bases::default(),
            last_error: None,
            stored_bytes: 0,
            told: None,
            pause: PAUSE_FIRST,
        }
    }

    fn tell(&self, event: &Event) {
        (self.options.told)(event);
    }

    fn archived(&self) -> Option<Position> {
        self.shipper.as_ref().and_then(Shipper::archived)
    }

    fn archived_lsn(&self) -> u64 {
        self.archived().map_or(0, |archived| archived.lsn)
    }

    /// Works until it is told to stop, and then once more.
    async fn go_on(&mut self) -> Result<(), JobError> {
        let mut stop = self.options.stop.clone();
        loop {
            let stopping = *stop.borrow_and_update();
            let worked = if stopping {
                tokio::time::timeout(END_LIMIT, self.step()).await.unwrap_or_else(|_| {
                    Err(JobError::Task(format!(
                        "what is durable could not be archived within {} s",
                        END_LIMIT.as_secs()
                    )))
                })
            } else {
                self.step().await
            };
            let pause = match worked {
                Ok(false) if stopping => return Ok(()),
                Ok(more) => {
                    self.succeeded();
                    if more { Duration::ZERO } else { self.options.interval }
                }
                Err(error) if stopping || is_final(&error) => return Err(error),
                Err(error) => self.failed(&error),
            };
            self.report().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = stop.changed() => if changed.is_err() {
                    // Nobody is there any more who could tell it to stop.
                    tokio::time::sleep(pause).await;
                },
                Some(made) = self.bases.making.join_next() => {
                    self.base_made(made.unwrap_or_else(|error| Err(JobError::Task(error.to_string()))))?;
                }
            }
        }
    }

    fn succeeded(&mut self) {
        self.pause = PAUSE_FIRST;
        if self.last_error.take().is_some() {
            tracing::info!("archiving goes on");
            self.tell(&Event::Recovered);
        }
    }

    /// Notes a failure; says how long to wait.
    fn failed(&mut self, error: &JobError) -> Duration {
        let text = error.to_string();
        if self.last_error.as_ref() != Some(&text) {
            tracing::error!(%error, "archiving failed; it is tried again until it succeeds");
            self.tell(&Event::Failed { error: text.clone() });
        }
        self.last_error = Some(text);
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause.max(self.options.interval.min(PAUSE_MAX))
    }

    /// One round: asks the server, puts what is durable, tells the server. Says whether there may be more to put.
    async fn step(&mut self) -> Result<bool, JobError> {
        self.context.lease.check()?;
        let status = self.ask_server().await?;
        if let Some(status) = &status {
            self.statements.push_back(Position { lsn: status.durable_lsn, unix_ms: status.durable_unix_ms });
            if self.statements.len() > STATEMENTS_MAX {
                // The oldest is the first that the archive catches up with.
                self.statements.remove(1);
            }
        }
        if self.shipper.is_none() {
            self.begin().await?;
        }
        let before = self.archived();
        let Some(shipper) = &mut self.shipper else { return Ok(false) };
        let shipped = shipper.ship().await;
        self.note_archived(before);
        if self.folder_changed() {
            self.begun().await?;
        }
        self.look_for_base(status.as_ref());
        self.tell_server().await;
        shipped
    }

    /// Connects to the server if there is one, and asks how it stands.
    async fn ask_server(&mut self) -> Result<Option<Status>, JobError> {
        if self.control.is_none() {
            self.control = Control::connect(&self.context.dir).await;
            self.told = None;
        }
        let Some(control) = &mut self.control else { return Ok(None) };
        match control.status().await {
            Ok(status) if !status.journal => {
                Err(JobError::JournalOff { place: self.context.dir.display().to_string() })
            }
            Ok(status) => Ok(Some(status)),
            Err(error) => {
                tracing::info!(%error, "the server is not to be asked; the files say what is durable");
                self.control = None;
                Ok(None)
            }
        }
    }

    async fn begin(&mut self) -> Result<(), JobError> {
        self.shipper = Some(Shipper::begin(self.context.clone()).await?);
        self.begun().await
    }

    /// Whether the shipper has chosen another folder than the one that is known here.
    fn folder_changed(&self) -> bool {
        self.shipper.as_ref().is_some_and(|shipper| shipper.folder() != self.bases.folder)
    }

    /// Learns what the folder of the archive holds, and tells of it.
    async fn begun(&mut self) -> Result<(), JobError> {
        let Some(shipper) = &self.shipper else { return Ok(()) };
        let folder = shipper.folder().to_owned();
        let (lineage, first_lsn) = (shipper.lineage().to_owned(), shipper.first_lsn());
        let prefix = format!("lineage/{folder}/");
        let stored = self.context.repository.store().list(&prefix).await?;
        self.stored_bytes = stored.iter().map(|object| object.bytes).sum();
        let backups = self.context.repository.backups().await?;
        let of_folder = backups.iter().filter(|backup| backup.folder.starts_with(&prefix));
        let bases = of_folder.filter_map(|backup| backup.manifest.as_ref().ok());
        // One from before the journal begins is none.
        let usable = bases.filter(|base| first_lsn.is_some_and(|first| base.from_lsn >= first));
        let newest = usable.max_by_key(|base| (base.from_lsn, base.created_unix_ms));
        let newest = newest.map(|base| Newest { lsn: base.from_lsn, created_unix_ms: base.created_unix_ms });
        self.bases = Bases { folder: folder.clone(), newest, ..Bases::default() };
        self.statements.clear();
        self.complete_unix_ms = 0;
        let archived_lsn = self.archived_lsn();
        tracing::info!(lineage, archive = folder, archived_lsn, "following the journal");
        self.tell(&Event::Following { lineage, archive: folder, archived_lsn });
        Ok(())
    }

    /// Draws the conclusions from how far the archive reaches now.
    fn note_archived(&mut self, before: Option<Position>) {
        let Some(archived) = self.archived() else { return };
        while let Some(statement) = self.statements.front().filter(|stated| stated.lsn <= archived.lsn) {
            self.complete_unix_ms = self.complete_unix_ms.max(statement.unix_ms);
            self.statements.pop_front();
        }
        *self.stated.lock().unwrap_or_else(PoisonError::into_inner) = self.statement();
        if before != Some(archived) {
            let pending_bytes = self.shipper.as_ref().map_or(0, Shipper::pending_bytes);
            self.tell(&Event::Archived { lsn: archived.lsn, unix_ms: archived.unix_ms, pending_bytes });
        }
    }

    /// What the lease states of the archive.
    fn statement(&self) -> Option<Archived> {
        let archived = self.archived()?;
        let lineage = self.shipper.as_ref()?.folder().to_owned();
        Some(Archived { lineage, lsn: archived.lsn, unix_ms: self.complete_unix_ms })
    }

    // --- bases

    /// Begins to make a base when one is due.
    fn look_for_base(&mut self, status: Option<&Status>) {
        if !self.bases.making.is_empty() || self.bases.not_before.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let Some(shipper) = &self.shipper else { return };
        let due = self.bases.newest.is_none_or(|newest| {
            let reached = status.map_or(self.archived_lsn(), |status| status.durable_lsn);
            let long = reached.saturating_sub(newest.lsn) >= self.options.snapshot_after_bytes;
            long || self.options.schedule.is_due(newest.created_unix_ms, moment::now_unix_ms())
        });
        if !due {
            return;
        }
        let wanted = Wanted {
            folder: shipper.folder().to_owned(),
            above: self.bases.newest.map(|newest| newest.lsn),
            since_unix_ms: shipper.since_unix_ms(),
            begun_unix_ms: shipper.begun_unix_ms(),
        };
        self.bases.making.spawn(base::make(self.context.clone(), wanted));
    }

    fn base_made(&mut self, made: Result<Option<BackupManifest>, JobError>) -> Result<(), JobError> {
        match made {
            Ok(Some(base)) => {
                self.stored_bytes += base.bytes();
                let created_unix_ms = base.created_unix_ms;
                self.bases.newest = Some(Newest { lsn: base.from_lsn, created_unix_ms });
                (self.bases.not_before, self.bases.error) = (None, None);
                tracing::info!(backup = base.id, lsn = base.from_lsn, bytes = base.bytes(), "a base was put");
                self.tell(&Event::Base { lsn: base.from_lsn, bytes: base.bytes(), backup: base.id });
            }
            Ok(None) => {
                self.bases.not_before = Some(Instant::now() + BASE_AGAIN.min(self.options.interval * 30))
            }
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a base could not be put; it is tried again");
                self.tell(&Event::Failed { error: error.to_string() });
                self.bases.error = Some(error.to_string());
                self.bases.not_before = Some(Instant::now() + BASE_AGAIN.min(self.options.interval * 30));
            }
        }
        Ok(())
    }

    // --- telling

    /// Has the server keep what is not archived, and tells it how far it may trim. Without a base the archive is of no use, whatever it holds.
    async fn tell_server(&mut self) {
        let (Some(archived), Some(control)) = (self.archived(), &mut self.control) else { return };
        let is_based = self.bases.newest.is_some();
        if self.told == Some((archived.lsn, is_based)) {
            return;
        }
        if let Err(error) = control.hold(archived.lsn).await {
            tracing::warn!(%error, "the server keeps no journal for the archive");
        }
        if is_based && let Err(error) = control.archived(archived.lsn, archived.unix_ms).await {
            tracing::warn!(%error, "the server could not be told what is archived");
            return;
        }
        self.told = Some((archived.lsn, is_based));
    }

    async fn report(&mut self) {
        let report = Report {
            // Without a base nothing can be restored, however much of the journal there is.
            last_success_unix_ms: self
                .bases
                .newest
                .map(|_| self.complete_unix_ms)
                .filter(|moment| *moment > 0),
            last_error: self.last_error.clone().or_else(|| self.bases.error.clone()),
            stored_bytes: Some(self.stored_bytes + self.shipper.as_ref().map_or(0, Shipper::put_bytes)),
            pending_bytes: Some(self.shipper.as_ref().map_or(0, Shipper::pending_bytes)),
        };
        let Some(control) = &mut self.control else { return };
        if let Err(error) = control.report(&report).await {
            tracing::debug!(%error, "the server could not be told how the archive stands");
            self.control = None;
        }
    }
}

/// Whether going on is senseless.
fn is_final(error: &JobError) -> bool {
    matches!(error, JobError::LeaseLost { .. } | JobError::LeaseHeld { .. } | JobError::Usage(_))
        || matches!(error, JobError::Seal { .. } if error.is_wrong_key())
}
