//! The seam to the engine: what it asks of the server around it, and what configuration it takes.

use crate::alloc::{self, HugePages};
use crate::config::{DebugCommand, Fsync, MaxmemoryPolicy, Settings, Written};
use crate::info;
use crate::server::Server;
use crate::supervisor;
use crate::sys;
use crate::users;
use cairn_engine::observed::Observed;
use cairn_engine::{
    AutoRewrite, ClientFilter, Delivery, Destination, Engine, EvictionPolicy, Inbox, Limits, Memory,
    MemoryLimit, Options, OutputLimits, Parcel, Pause, Process, SavePoint, Session,
};
use cairn_seal::Keyring;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::RuntimeFlavor;

/// How long another thread may take to show that it serves, and how often it is asked.
const STEP_ASIDE: Duration = Duration::from_millis(20);
const STEPS_ASIDE_MAX: usize = 10;

impl Process for Server {
    fn load_users(&self) -> Option<Result<Vec<Vec<u8>>, String>> {
        let settings = self.config.read().clone();
        beside_the_worker(|| users::load(self.engine.acl(), &settings))
    }

    fn save_users(&self) -> Option<Result<(), ()>> {
        let file = users::file(&self.config.read())?;
        Some(beside_the_worker(|| users::save(self.engine.acl(), &file)).map_err(|error| {
            tracing::error!(file = %file.display(), %error, "the users could not be saved");
        }))
    }

    fn disconnect_user(&self, user: &[u8], except: u64) {
        let filter =
            ClientFilter { user: Some(user.to_vec()), except: Some(except), ..ClientFilter::default() };
        self.clients.disconnect(&filter, self.uptime_seconds());
    }

    fn disconnect_subscribers(&self, user: &[u8], may: &dyn Fn(&[u8], bool) -> bool) {
        let ids = self.engine.hub().listeners_beyond(may).into_iter().collect();
        let filter = ClientFilter { user: Some(user.to_vec()), ids: Some(ids), ..ClientFilter::default() };
        self.clients.disconnect(&filter, self.uptime_seconds());
    }

    fn client_authenticated(&self, id: u64, user: &[u8]) {
        self.clients.set_user(id, user);
    }

    fn config_get(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        self.config.read().matching(patterns)
    }

    fn config_set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        let _alone = self.configuring.lock();
        let changed = self.config.read().with(pairs)?;
        if self.engine.is_loading() && changed.appendonly != self.config.read().appendonly {
            let why = "the data is being loaded, from the journal there is";
            return Err(format!("ERR CONFIG SET failed (possibly related to argument 'appendonly') - {why}"));
        }
        if let Some((directive, why)) = crate::config::contradiction(&changed) {
            return Err(format!(
                "ERR CONFIG SET failed (possibly related to argument '{directive}') - {why}"
            ));
        }
        let elsewhere = self.listen_elsewhere(&changed)?;
        if changed.encryption_key_file != self.config.read().encryption_key_file {
            self.change_keyring(&changed).map_err(|why| {
                format!("ERR CONFIG SET failed (possibly related to argument 'encryption-key-file') - {why}")
            })?;
        }
        let mut config = self.config.write();
        if changed.appendonly != config.appendonly {
            let failed = |error| {
                format!("ERR CONFIG SET failed (possibly related to argument 'appendonly') - {error}")
            };
            self.engine.set_append_only(changed.appendonly).map_err(failed)?;
        }
        // Nothing below fails.
        if let Some(elsewhere) = elsewhere {
            elsewhere.finish();
        }
        for (directive, why) in changed.unfollowed_since(&config) {
            tracing::warn!(directive, "a directive of the configuration is not followed: {why}");
        }
        self.apply(&changed);
        if changed.requirepass != config.requirepass {
            self.engine.acl().set_default_password(changed.requirepass.as_bytes());
        }
        let is_other_agent = supervisor::is_other_agent(&config, &changed);
        *config = changed;
        drop(config);
        if is_other_agent {
            self.backup.changed.notify_one();
        }
        Ok(())
    }

    fn config_rewrite(&self) -> Result<(), String> {
        let Some(path) = &self.config_file else {
            return Err("ERR The server is running without a config file".into());
        };
        self.rewrite(path, Written::Needed).map_err(|error| format!("ERR Rewriting config file: {error}"))
    }

    fn config_rewrite_all(&self) -> Result<(), String> {
        let path = self.config_file.as_ref().ok_or("the server is running without a config file")?;
        self.rewrite(path, Written::All).map_err(|error| error.to_string())
    }

    fn load_keyring(&self) -> Result<Option<Keyring>, String> {
        crate::keyring(&self.config.read().clone()).map_err(|failure| failure.text)
    }

    fn keyring_changed(&self) {
        // The backup's agent has read the one before, and could not read the manifest any more.
        self.backup.changed.notify_one();
    }

    fn reset_statistics(&self) {
        self.stats.reset();
        self.clients.memory.evicted_total.store(0, Relaxed);
    }

    fn info(&self, section: &str) -> Vec<(&'static str, String)> {
        info::section(self, section)
    }

    fn memory(&self) -> Memory {
        let heap = alloc::memory();
        Memory {
            used: heap.used,
            peak: heap.peak,
            startup: self.startup_bytes,
            clients: self.clients.memory_bytes() as u64,
            allocated: heap.allocated,
            active: heap.active,
            resident: heap.resident,
            process: sys::resident_bytes(),
            ..Memory::default()
        }
    }

    fn allocator_report(&self) -> String {
        alloc::report()
    }

    fn allocator_number(&self, name: &[u8]) -> Result<i64, String> {
        alloc::number(name)
    }

    fn allocator_text(&self, name: &[u8]) -> Result<String, String> {
        alloc::text(name)
    }

    fn allocator_action(&self, name: &[u8]) -> Result<(), String> {
        alloc::act(name)
    }

    fn release_memory(&self) -> Result<(), String> {
        alloc::purge()
    }

    fn clients(&self, filter: &ClientFilter, asking: &Session) -> String {
        if let Some(client) = self.clients.get(asking.id) {
            client.show_all(asking);
        }
        self.clients.list(filter, self.engine.hub(), self.uptime_seconds())
    }

    fn kill_clients(&self, filter: &ClientFilter) -> usize {
        self.clients.disconnect(filter, self.uptime_seconds())
    }

    fn inbox(&self, client: u64) -> Option<Arc<Inbox>> {
        self.clients.get(client).map(|client| Arc::clone(&client.inbox))
    }

    fn client_address(&self, client: u64) -> String {
        self.clients.get(client).map_or_else(String::new, |client| client.source())
    }

    fn pause_clients(&self, milliseconds: u64, what: Pause) {
        self.paused.begin(Duration::from_millis(milliseconds), what);
    }

    fn unpause_clients(&self) {
        self.paused.end();
    }

    fn latency_percentiles(&self) -> Vec<f64> {
        self.config.read().latency_percentiles.iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn client_named(&self, id: u64, name: &[u8]) {
        self.clients.rename(id, name);
    }

    /// Gives the connections of this thread to another, and waits until some thread has shown that it serves.
    fn step_aside(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return;
        }
        for _ in 0..STEPS_ASIDE_MAX {
            let (shown, served) = mpsc::channel();
            let served = tokio::task::block_in_place(|| {
                runtime.spawn(async move {
                    // Who waits for it has waited long enough otherwise.
                    let _ = shown.send(());
                });
                served.recv_timeout(STEP_ASIDE)
            });
            if served.is_ok() {
                return;
            }
        }
    }

    fn deliver(&self, to: &Destination<'_>, parcels: &[Parcel<'_>]) -> Delivery {
        self.links.deliver(to, parcels)
    }

    fn debug_allowed(&self, session: u64) -> bool {
        match self.config.read().enable_debug_command {
            DebugCommand::No => false,
            DebugCommand::Yes => true,
            DebugCommand::Local => self.clients.get(session).is_some_and(|client| client.is_local),
        }
    }
}

impl Server {
    /// Lets the keyring of other settings take effect, and with the first one encryption.
    fn change_keyring(&self, changed: &Settings) -> Result<(), String> {
        if changed.encryption_key_file.is_empty() {
            return Err("encryption cannot be switched off: the files are encrypted, and stay so".to_owned());
        }
        if !changed.encryption_key_command.is_empty() {
            return Err("encryption-key-command is set; the keyring has one source".to_owned());
        }
        let change = || {
            let keyring = crate::keyring(changed).map_err(|failure| failure.text)?;
            let keyring = keyring.ok_or("the file names no keyring")?;
            self.engine.set_keyring(keyring).map_err(|error| error.to_string())
        };
        beside_the_worker(change)
    }

    fn rewrite(&self, path: &Path, what: Written) -> io::Result<()> {
        // Not under its lock: the disk may hang, and every new connection looks at the configuration.
        let config = self.config.read().clone();
        let users = users::lines_to_keep(self.engine.acl(), &config);
        beside_the_worker(|| crate::config::rewrite(path, &config, what, &users))
    }
}

/// Runs what reads or writes files, for which the other connections of this thread need not wait.
fn beside_the_worker<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// How the engine is opened with these settings.
pub(crate) fn options(settings: &Settings, keyring: Option<Keyring>) -> Options {
    let mut options = Options::new(&settings.dir);
    options.databases = u16::try_from(settings.databases).unwrap_or(u16::MAX);
    options.append_only = settings.appendonly;
    options.fsync = fsync(settings);
    options.segment_bytes = settings.journal_segment_bytes;
    options.keyring = keyring.map(Arc::new);
    options.auto_rewrite = auto_rewrite(settings);
    options.save_points = save_points(settings);
    options.stop_writes_on_snapshot_error = settings.stop_writes_on_snapshot_error;
    options.copy_limit = settings.copy_limit;
    options.limits = limits(settings);
    options.memory = memory(settings);
    options.heap = Some(Arc::new(HugePages::default()));
    options
}

/// What the archive needs of the journal.
pub(crate) fn set_archive(engine: &Engine, settings: &Settings) {
    let lag_max = settings.backup_max_lag.duration();
    engine.await_archive(!settings.backup_url.is_empty(), Some(lag_max).filter(|max| !max.is_zero()));
    engine.set_journal_disk_limit(settings.journal_disk_limit);
}

/// What of the commands that run is worth noting.
pub(crate) fn set_observed(observed: &Observed, settings: &Settings) {
    let len_max = usize::try_from(settings.slowlog_len_max).unwrap_or(usize::MAX);
    observed.slowlog.set_limits(settings.slowlog_slower_than_us, len_max);
    observed.usage.set_tracked(settings.latency_tracking);
    observed.latency.set_threshold(settings.latency_threshold_ms.unsigned_abs());
}

pub(crate) fn fsync(settings: &Settings) -> cairn_engine::Fsync {
    match settings.appendfsync {
        Fsync::Always => cairn_engine::Fsync::Always,
        Fsync::EverySecond => cairn_engine::Fsync::EverySec,
        Fsync::No => cairn_engine::Fsync::No,
    }
}

pub(crate) fn auto_rewrite(settings: &Settings) -> AutoRewrite {
    AutoRewrite {
        percentage: u32::try_from(settings.auto_rewrite_percentage).unwrap_or(u32::MAX),
        min_bytes: settings.auto_rewrite_min_bytes,
    }
}

pub(crate) fn save_points(settings: &Settings) -> Vec<SavePoint> {
    settings.save.iter().map(|&(seconds, changes)| SavePoint { seconds, changes }).collect()
}

pub(crate) fn output_limits(settings: &Settings) -> OutputLimits {
    // There are no replicas; what is set for them is only shown.
    let [normal, _, pubsub] = settings.output_limits;
    OutputLimits { normal, pubsub }
}

/// How many bytes all clients may take; 0: no bound.
pub(crate) fn client_memory(settings: &Settings) -> usize {
    usize::try_from(settings.client_memory.bytes(settings.maxmemory)).unwrap_or(usize::MAX)
}

pub(crate) fn memory(settings: &Settings) -> MemoryLimit {
    let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    MemoryLimit {
        bytes: settings.maxmemory,
        policy: match settings.maxmemory_policy {
            MaxmemoryPolicy::VolatileLru => EvictionPolicy::VolatileLru,
            MaxmemoryPolicy::VolatileLfu => EvictionPolicy::VolatileLfu,
            MaxmemoryPolicy::VolatileRandom => EvictionPolicy::VolatileRandom,
            MaxmemoryPolicy::VolatileTtl => EvictionPolicy::VolatileTtl,
            MaxmemoryPolicy::AllKeysLru => EvictionPolicy::AllKeysLru,
            MaxmemoryPolicy::AllKeysLfu => EvictionPolicy::AllKeysLfu,
            MaxmemoryPolicy::AllKeysRandom => EvictionPolicy::AllKeysRandom,
            MaxmemoryPolicy::NoEviction => EvictionPolicy::NoEviction,
        },
        samples: usize::try_from(settings.maxmemory_samples).unwrap_or(1),
        tenacity: number(settings.maxmemory_eviction_tenacity),
        log_factor: number(settings.lfu_log_factor),
        decay_minutes: number(settings.lfu_decay_minutes),
    }
}

pub(crate) fn limits(settings: &Settings) -> Limits {
    let count = |value: i64| usize::try_from(value).unwrap_or(0);
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Limits {
        hash_entries: count(settings.hash_entries),
        hash_value: bytes(settings.hash_value),
        zset_entries: count(settings.zset_entries),
        zset_value: bytes(settings.zset_value),
        set_intset_entries: count(settings.set_intset_entries),
        set_listpack_entries: count(settings.set_entries),
        set_listpack_value: bytes(settings.set_value),
        // -1 is 4 KiB, and each further step up to -5 doubles it; where elements are counted, 8 KiB is the most.
        list_listpack_bytes: match settings.list_size {
            0.. => 8192,
            size => 2048 << size.unsigned_abs().min(5),
        },
        list_listpack_entries: if settings.list_size < 0 { usize::MAX } else { count(settings.list_size) },
        hll_sparse_bytes: bytes(settings.hll_sparse_bytes),
        string_bytes: bytes(settings.max_bulk_bytes),
        stream_node_bytes: bytes(settings.stream_node_bytes),
        stream_node_entries: settings.stream_node_entries.unsigned_abs(),
    }
}
