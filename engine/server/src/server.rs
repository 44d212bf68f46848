//! The running server: what its connections share, its clockwork, and its end.

use crate::alloc;
use crate::backup::Backup;
use crate::clients::Clients;
use crate::config::Settings;
use crate::host;
use crate::links::Links;
use crate::listen;
use crate::log::LevelHandle;
use crate::pause::Paused;
use crate::stats::Stats;
use crate::turns::Turns;
use crate::users;
use cairn_engine::{Engine, Job, JobDone, OpenError};
use cairn_resp::{Protocol, Reply};
use parking_lot::{Mutex, RwLock};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Everything connections share.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) config: RwLock<Settings>,
    /// The file the configuration came from, absolute.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) hot: Hot,
    pub(crate) clients: Clients,
    pub(crate) paused: Paused,
    /// Where one thread serves all connections: the order in which it does.
    pub(crate) turns: Option<Arc<Turns>>,
    /// To the servers that keys are sent to.
    pub(crate) links: Links,
    pub(crate) stats: Stats,
    pub(crate) run_id: String,
    pub(crate) backup: Backup,
    /// The TCP addresses that are listened on, and the tasks that do.
    pub(crate) listening: Mutex<Vec<(SocketAddr, AbortHandle)>>,
    /// One CONFIG SET at a time.
    pub(crate) configuring: Mutex<()>,
    me: Weak<Server>,
    /// Memory in use before there was any data.
    pub(crate) startup_bytes: u64,
    log_level: LevelHandle,
    started: Instant,
    /// Whole seconds since `started`, as of the last tick.
    uptime_seconds: AtomicU64,
    /// Held while the housekeeping runs.
    ticking: Mutex<()>,
    /// One shutdown at a time.
    shutting_down: tokio::sync::Mutex<()>,
    /// The process may end.
    finished: Notify,
    /// Why not everything is on disk then.
    failed: OnceLock<String>,
}

/// How often the momentary rates of INFO are sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// How long the end waits for the sockets to be closed on which is listened.
const CLOSING_MAX: Duration = Duration::from_millis(100);

/// Settings that every batch of requests reads.
#[derive(Default)]
pub(crate) struct Hot {
    /// Bytes of one argument.
    pub(crate) max_bulk: AtomicUsize,
    /// Bytes of requests that wait to be whole.
    pub(crate) query_buffer: AtomicUsize,
    /// Bytes of replies that have not been written.
    pub(crate) replies_max: AtomicUsize,
}

impl Hot {
    fn set(&self, settings: &Settings) {
        let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        self.max_bulk.store(bytes(settings.max_bulk_bytes), Relaxed);
        self.query_buffer.store(bytes(settings.query_buffer_bytes), Relaxed);
        let replies = host::output_limits(settings).normal.hard_bytes;
        self.replies_max.store(if replies == 0 { usize::MAX } else { bytes(replies) }, Relaxed);
    }
}

impl Server {
    pub(crate) fn new(
        engine: Engine,
        settings: Settings,
        config_file: Option<PathBuf>,
        log_level: LevelHandle,
    ) -> Arc<Server> {
        let hot = Hot::default();
        hot.set(&settings);
        host::set_observed(engine.observed(), &settings);
        engine.set_busy_after_ms(u64::try_from(settings.busy_reply_ms).unwrap_or(0));
        // Only where it is asked for, since every wake-up takes a little more.
        let turns = (settings.server_threads == 1).then(Arc::default);
        let server = Arc::new_cyclic(|me| Server {
            engine,
            config: RwLock::new(settings),
            config_file,
            hot,
            clients: Clients::new(),
            paused: Paused::new(),
            turns,
            links: Links::default(),
            stats: Stats::default(),
            run_id: run_id(),
            backup: Backup::default(),
            listening: Mutex::default(),
            configuring: Mutex::default(),
            me: Weak::clone(me),
            startup_bytes: alloc::memory().used,
            log_level,
            started: Instant::now(),
            uptime_seconds: AtomicU64::new(0),
            ticking: Mutex::new(()),
            shutting_down: tokio::sync::Mutex::const_new(()),
            finished: Notify::new(),
            failed: OnceLock::new(),
        });
        server.apply_to_hub(&server.config.read());
        server.engine.set_key_save_delay(server.config.read().key_save_delay);
        server.clients.set_memory_limit(host::client_memory(&server.config.read()));
        host::set_archive(&server.engine, &server.config.read());
        server
    }

    /// Prepares to listen elsewhere where `changed` says so; the error is the reply.
    pub(crate) fn listen_elsewhere(&self, changed: &Settings) -> Result<Option<listen::Move>, String> {
        let failed = |name: &str, why: &str| {
            Err(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
        };
        let (port, bind) = {
            let config = self.config.read();
            (config.port != changed.port, config.bind != changed.bind)
        };
        if !port && !bind {
            return Ok(None);
        }
        if changed.port == 0 && changed.unixsocket.is_empty() {
            return failed("port", "0 means no TCP, and no unixsocket is set: no client could connect");
        }
        let Some(server) = self.me.upgrade() else { return Ok(None) };
        let error = match listen::prepare(server, changed) {
            Ok(prepared) => return Ok(Some(prepared)),
            Err(error) => error,
        };
        tracing::error!(%error, "the addresses of the configuration cannot be listened on; the old ones stay");
        if port {
            return failed("port", "Unable to listen on this port. Check server logs.");
        }
        failed("bind", "Failed to bind to specified addresses.")
    }

    fn apply_to_hub(&self, settings: &Settings) {
        let hub = self.engine.hub();
        hub.set_output_limits(host::output_limits(settings));
        hub.set_classes(settings.events);
        hub.set_tracked_keys_max(usize::try_from(settings.tracked_keys_max).unwrap_or(usize::MAX));
    }

    /// Whole seconds since the start.
    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.uptime_seconds.load(Relaxed)
    }

    /// Lets settings that CONFIG SET changed take effect; those read where they are used need nothing.
    pub(crate) fn apply(&self, settings: &Settings) {
        self.hot.set(settings);
        users::apply(self.engine.acl(), settings);
        self.log_level.set(settings.loglevel);
        self.engine.set_fsync(host::fsync(settings));
        self.engine.set_limits(host::limits(settings));
        self.engine.set_memory(host::memory(settings));
        self.engine.set_auto_rewrite(host::auto_rewrite(settings));
        self.engine.set_key_save_delay(settings.key_save_delay);
        self.engine.set_copy_limit(settings.copy_limit);
        self.engine.set_save_points(host::save_points(settings));
        self.engine.set_stop_writes_on_snapshot_error(settings.stop_writes_on_snapshot_error);
        host::set_observed(self.engine.observed(), settings);
        self.apply_to_hub(settings);
        self.clients.set_memory_limit(host::client_memory(settings));
        self.engine.set_busy_after_ms(u64::try_from(settings.busy_reply_ms).unwrap_or(0));
        host::set_archive(&self.engine, settings);
    }

    /// Starts the thread that runs the housekeeping `hz` times a second, for as long as the process lives. It is no
    /// task, so that expiring many keys or forking delays nobody's replies.
    pub(crate) fn start_clock(self: &Arc<Self>) -> std::io::Result<()> {
        let server = Arc::clone(self);
        std::thread::Builder::new().name("cairn-clock".into()).spawn(move || {
            let mut second = Instant::now();
            let mut sampled = second;
            loop {
                let hz = u64::try_from(server.config.read().hz).unwrap_or(10).max(1);
                std::thread::sleep(Duration::from_millis(1000 / hz));
                server.tick();
                server.clients.count_memory();
                let now = Instant::now();
                if now.duration_since(sampled) >= SAMPLE_EVERY {
                    server.stats.sample(now);
                    // So that a peak between two questions about memory is seen.
                    alloc::memory();
                    sampled = now;
                }
                if now.duration_since(second) >= Duration::from_secs(1) {
                    server.disconnect_idle();
                    server.links.close_idle();
                    server.clients.check_output(&server.engine.hub().output_limits());
                    second = now;
                }
            }
        })?;
        Ok(())
    }

    /// Loads the data, while clients hear that it is being loaded.
    pub(crate) fn load(&self) -> Result<(), OpenError> {
        self.engine.load()?;
        // What was set meanwhile found nothing to be set in.
        self.apply(&self.config.read());
        Ok(())
    }

    fn tick(&self) {
        self.uptime_seconds.store(self.started.elapsed().as_secs(), Relaxed);
        let _alone = self.ticking.lock();
        if !self.clients.is_gate_closed() {
            self.engine.tick(self.paused.lets_expire());
        }
    }

    fn disconnect_idle(&self) {
        let timeout = u64::try_from(self.config.read().timeout_seconds).unwrap_or(0);
        if timeout > 0 {
            self.clients.disconnect_idle(timeout, self.uptime_seconds());
        }
    }

    /// Does long work away from the threads that serve connections; returns the reply.
    pub(crate) async fn run_job(self: &Arc<Self>, job: Job, protocol: Protocol) -> Vec<u8> {
        let server = Arc::clone(self);
        let work = move || {
            let mut out = Vec::new();
            // Housekeeping writes too, so it must not meet an engine that ends; the gate keeps it out afterwards.
            let _no_tick = matches!(job, Job::Shutdown { .. }).then(|| server.ticking.lock());
            let done = server.engine.run_job(&job, &*server, &mut Reply::new(&mut out, protocol));
            (done, out)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((JobDone::Replied, reply)) => reply,
            Ok((done @ (JobDone::Exit | JobDone::ExitFailed(_)), _)) => {
                if let JobDone::ExitFailed(why) = done {
                    self.failed.get_or_init(|| why);
                }
                self.finished.notify_one();
                // The process ends, and this connection with it.
                std::future::pending().await
            }
            Err(_) => FAILED.to_vec(),
        }
    }

    /// Ends the engine while nobody runs commands. Returns only, with the error as a reply, where that failed; the
    /// server then goes on.
    pub(crate) async fn shut_down(self: &Arc<Self>, job: Job, protocol: Protocol) -> Vec<u8> {
        // On a task of its own: who asked may be disconnected, and the gate must not stay closed then.
        let server = Arc::clone(self);
        match tokio::spawn(async move { server.shut_down_alone(job, protocol).await }).await {
            Ok(reply) => reply,
            Err(_) => FAILED.to_vec(),
        }
    }

    async fn shut_down_alone(self: &Arc<Self>, job: Job, protocol: Protocol) -> Vec<u8> {
        let _alone = self.shutting_down.lock().await;
        let patience = u64::try_from(self.config.read().shutdown_timeout_seconds).unwrap_or(0);
        // A script that does not end is not waited for: nothing of it is in the journal.
        let patience = if self.engine.is_busy() { 0 } else { patience };
        self.engine.set_ending(true);
        let everybody = self.clients.close_gate();
        if tokio::time::timeout(Duration::from_secs(patience), everybody).await.is_err() {
            tracing::warn!(
                seconds = patience,
                "some clients did not take their replies in time; ending without them"
            );
        }
        let reply = self.run_job(job, protocol).await;
        self.engine.set_ending(false);
        self.clients.open_gate();
        reply
    }

    /// Resolves when the process may end; the error says why not everything is on disk.
    pub(crate) async fn finished(&self) -> Result<(), String> {
        self.finished.notified().await;
        self.stop_listening().await;
        self.failed.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Closes the sockets on which is listened. Before any connection ends: whoever asked for the end and sees it come finds
    /// nobody listening any more.
    async fn stop_listening(&self) {
        let listening = std::mem::take(&mut *self.listening.lock());
        listening.iter().for_each(|(_, task)| task.abort());
        let closed = async {
            while !listening.iter().all(|(_, task)| task.is_finished()) {
                tokio::task::yield_now().await;
            }
        };
        // Where no thread is left to close them, the end of the process does.
        let _ = tokio::time::timeout(CLOSING_MAX, closed).await;
    }
}

const FAILED: &[u8] = b"-ERR the server failed while it ran this command\r\n";

/// Forty hexadecimal digits that no other start has.
fn run_id() -> String {
    let mut bytes = [0_u8; 20];
    if getrandom::fill(&mut bytes).is_err() {
        // It is a name, not a secret: the time will do.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes[..16].copy_from_slice(&now.as_nanos().to_le_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
