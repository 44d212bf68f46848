//! All data of a directory, or of files of another kind, in memory and without an engine around it: for programs that
//! read it, choose from it and write it somewhere else.

use std::path::Path;
use std::sync::Arc;

use cairn_commands::script::load_library;
use cairn_commands::{Replayer, replay};
use cairn_format::Lsn;
use cairn_keyspace::access::AccessSettings;
use cairn_keyspace::types::Limits;
use cairn_keyspace::{Entry, Keyspace, Stored, Usage};
use cairn_seal::Keyring;
use cairn_snapshot::Container;

use crate::catalog::Catalog;
use crate::engine::now_ms;
use crate::error::OpenError;
use crate::loading::Loading;
use crate::options::Options;
use crate::recovery::{self, Recovery};

/// Keys and function libraries in memory. Nothing expires here, and nothing is evicted.
pub struct Dataset {
    keyspace: Keyspace,
    limits: Limits,
    threads: usize,
}

/// What is known of a directory whose data was read.
#[derive(Clone, Debug)]
pub struct DatasetFacts {
    /// The effects below this LSN are in it.
    pub end: Lsn,
    /// How many databases it was written with.
    pub databases: u32,
    /// Whether its manifest, and so all it names, is encrypted.
    pub encrypted: bool,
    /// What its recovery was.
    pub recovery: Recovery,
}

impl Dataset {
    /// Without a key, of so many databases.
    #[must_use]
    pub fn new(databases: u16) -> Self {
        let Options { limits, threads, .. } = Options::new("");
        Self { keyspace: Keyspace::new(databases), limits, threads }
    }

    /// Reads a data directory as a start does, and changes nothing in it. No other process may have it open.
    ///
    /// # Errors
    /// What would keep an engine from opening it; [`OpenError::NoData`] where there is none.
    pub fn open(dir: &Path, keyring: Option<Arc<Keyring>>) -> Result<(Self, DatasetFacts), OpenError> {
        let mut options = Options { keyring, ..Options::new(dir) };
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        options.disk.list(dir).map_err(io)?;
        // Where no lock was ever taken there is nobody to keep out, and nothing is to be made in the directory.
        let is_used = options.disk.exists(&recovery::lock_path(&options)).map_err(io)?;
        let _lock = is_used.then(|| recovery::lock(&options)).transpose()?;
        let (catalog, found) = loop {
            let opened = Catalog::open(options.disk.clone(), dir, options.keyring.clone(), options.databases);
            match opened {
                // It says how many it needs.
                Err(OpenError::FewerDatabases { stored, .. }) if options.databases < u16::MAX => {
                    options.databases = u16::try_from(stored).unwrap_or(u16::MAX);
                }
                other => break other?,
            }
        };
        if !found {
            return Err(OpenError::NoData { path: dir.to_owned() });
        }
        let manifest = catalog.manifest();
        let dataset = Self::new(options.databases);
        if let Some(entry) = &manifest.snapshot {
            dataset.record_uses_as(&options, &dir.join(&entry.name));
        }
        let mut recovery = Recovery::default();
        recovery::read(&options, &dataset.keyspace, &manifest, &mut recovery, &Loading::default())?;
        let facts = DatasetFacts {
            end: recovery.end,
            databases: manifest.databases,
            encrypted: manifest.encrypted,
            recovery,
        };
        Ok((dataset, facts))
    }

    /// Lets uses be recorded as a snapshot tells them. What is wrong with it is told by who reads it.
    fn record_uses_as(&self, options: &Options, snapshot: &Path) {
        let Ok(container) = Container::open(&*options.disk, snapshot, options.keyring.as_deref()) else {
            return;
        };
        let Ok(block) = container.read_block(0) else { return };
        let mut by_frequency = false;
        let _ = Entry::load_all(&block, &self.limits, |stored| {
            by_frequency |= matches!(stored, Stored::Used(_, Usage::Frequency(_)));
        });
        self.record_by(by_frequency);
    }

    fn record_by(&self, by_frequency: bool) {
        self.keyspace.access().set(AccessSettings { by_frequency, ..AccessSettings::default() });
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> u16 {
        self.keyspace.databases()
    }

    /// How many keys a database has, and how many of them expire.
    #[must_use]
    pub fn keys(&self, database: u16) -> (u64, u64) {
        let locked = self.keyspace.lock_all();
        (locked.len(database) as u64, locked.expiring(database) as u64)
    }

    /// Adds a key; false, and nothing is changed, where it is there already.
    pub fn insert(&self, database: u16, mut entry: Entry, usage: Option<Usage>) -> bool {
        if let Some(usage) = usage {
            self.record_by(matches!(usage, Usage::Frequency(_)));
            entry.set_clock(self.keyspace.access().recorded(usage, now_ms()));
        }
        let hash = self.keyspace.hash(entry.key());
        let mut locked = self.keyspace.lock_one(hash);
        let database = locked.shard_mut(hash).database_mut(database);
        if database.get(hash.0, entry.key()).is_some() {
            return false;
        }
        database.insert(hash.0, entry, |key| self.keyspace.hash(key).0);
        true
    }

    /// Adds a function library, in place of one of its name.
    ///
    /// # Errors
    /// What is wrong with its source.
    pub fn add_library(&self, source: &[u8]) -> Result<(), String> {
        load_library(&self.keyspace, source)
    }

    /// Replays commands that `feed` gives the [`Replayer`]; it feeds and finishes.
    pub fn replay<R>(&self, feed: impl FnOnce(&mut Replayer<'_>) -> R) -> R {
        replay(&self.keyspace, &self.limits, self.threads, feed)
    }

    /// The sources of all function libraries.
    #[must_use]
    pub fn libraries(&self) -> Vec<Vec<u8>> {
        self.keyspace.libraries.get().values().map(|library| library.code.clone()).collect()
    }

    /// Gives each key of a database, in no order, with how it was used where that is known.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn try_each<E>(
        &self,
        database: u16,
        mut each: impl FnMut(&Entry, Option<Usage>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (locked, now_ms) = (self.keyspace.lock_all(), now_ms());
        for shard in locked.all_shards() {
            for entry in shard.database(database).iter() {
                each(entry, self.keyspace.access().usage(entry.clock(), now_ms))?;
            }
        }
        Ok(())
    }

    /// What DEBUG DIGEST would answer.
    #[must_use]
    pub fn digest(&self) -> String {
        self.keyspace.lock_all().digest().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
