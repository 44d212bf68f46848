//! Where keys come from: a `.rdb` file, a snapshot container, or a data set in memory, which an append-only directory or a
//! data directory was read into.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::rdb_file::from_file;
use cairn_engine::{Dataset, Entry, Limits, Stored};
use cairn_jobs::{Input, JobError, Keyring, Phase, Progress, RealDisk, RetryPolicy};
use cairn_rdb::RdbError;
use cairn_rdb::file::{FileReader, Record};

use crate::append_only::{self, AppendOnly};
use crate::error::RestoreError;
use crate::select::{Chosen, Twice};

/// How a source is read.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) keyring: Option<Arc<Keyring>>,
    /// Passes over what only a module can read.
    pub(crate) skip_module_data: bool,
    /// Accepts that the last append-only file ends within a command.
    pub(crate) load_truncated: bool,
    /// How many databases the server of an append-only directory had.
    pub(crate) databases: u16,
    /// Where a container out of a store is kept while it is read.
    pub(crate) scratch: PathBuf,
    pub(crate) progress: Arc<dyn Progress>,
}

/// What was met on the way and is not restored.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// Keys with values of modules.
    pub(crate) module_values: u64,
    /// Modules of which data was left out.
    pub(crate) modules: Vec<String>,
    /// Bytes behind the last whole command of an append-only directory.
    pub(crate) torn_bytes: u64,
}

impl Left {
    fn module(&mut self, name: String) {
        if !self.modules.contains(&name) {
            self.modules.push(name);
        }
    }
}

/// A source that was opened.
pub(crate) struct Source {
    /// What a person calls it.
    pub(crate) place: String,
    /// The LSN below which its effects lie; 1 where it has none of its own.
    pub(crate) lsn: u64,
    /// How many databases its server had, as far as that is known.
    pub(crate) databases: u32,
    left: Left,
    kind: Kind,
}

enum Kind {
    Rdb {
        input: Box<dyn Read + Send>,
        bytes: u64,
    },
    Container(PathBuf),
    /// One that goes with this value.
    Fetched(tempfile::NamedTempFile),
    Dataset(Box<Dataset>),
}

/// Databases a server has when nobody says otherwise.
const DATABASES: u32 = 16;

impl Source {
    /// Opens what `--from` names, known by what is in it.
    pub(crate) async fn open(
        from: &str,
        policy: RetryPolicy,
        reading: Reading,
    ) -> Result<Self, RestoreError> {
        let place = from.to_owned();
        if Input::is_url(from) {
            let input = Input::open_url(from, policy).await?;
            return blocking(move || Self::of_input(place, input, &reading)).await;
        }
        let path = PathBuf::from(from);
        blocking(move || {
            if !path.is_dir() {
                let file = Input::open_file(&path)?;
                return Self::of_file(place, &path, file);
            }
            match append_only::find(&path)? {
                Some(files) => Self::of_append_only(place, &files, &reading),
                None => Self::of_directory(place, &path, &reading),
            }
        })
        .await
    }

    /// A data directory, as a start reads it.
    pub(crate) fn of_directory(place: String, path: &Path, reading: &Reading) -> Result<Self, RestoreError> {
        let (dataset, facts) = Dataset::open(path, reading.keyring.clone())?;
        let (lsn, databases) = (facts.end.0.max(1), facts.databases);
        Ok(Self { place, lsn, databases, left: Left::default(), kind: Kind::Dataset(Box::new(dataset)) })
    }

    fn of_append_only(place: String, files: &AppendOnly, reading: &Reading) -> Result<Self, RestoreError> {
        let (dataset, left) = files.read(reading)?;
        let databases = u32::from(dataset.databases());
        Ok(Self { place, lsn: 1, databases, left, kind: Kind::Dataset(Box::new(dataset)) })
    }

    fn of_file(place: String, path: &Path, mut input: Input) -> Result<Self, RestoreError> {
        let (head, bytes) = (head(&place, &mut input)?, input.bytes.unwrap_or(0));
        let kind = if is_container(&head) {
            Kind::Container(path.to_owned())
        } else {
            Kind::Rdb { input: Box::new(Cursor::new(head).chain(input)), bytes }
        };
        Ok(Self { place, lsn: 1, databases: DATABASES, left: Left::default(), kind })
    }

    /// An object is read once, so a container, which is read from its end, is copied first.
    fn of_input(place: String, mut input: Input, reading: &Reading) -> Result<Self, RestoreError> {
        let (head, bytes) = (head(&place, &mut input)?, input.bytes.unwrap_or(0));
        let mut whole = Cursor::new(head.clone()).chain(input);
        let kind = if is_container(&head) {
            let scratch = &reading.scratch;
            let failed = |source| JobError::Io { path: scratch.clone(), operation: "copy into", source };
            let mut copy = tempfile::NamedTempFile::new_in(scratch).map_err(failed)?;
            std::io::copy(&mut whole, &mut copy).map_err(failed)?;
            Kind::Fetched(copy)
        } else {
            Kind::Rdb { input: Box::new(whole), bytes }
        };
        Ok(Self { place, lsn: 1, databases: DATABASES, left: Left::default(), kind })
    }

    /// What two keys of one name would mean.
    pub(crate) fn twice(&self) -> Twice {
        if matches!(self.kind, Kind::Rdb { .. }) { Twice::Damage } else { Twice::OnlyRenamed }
    }

    /// Gives all it holds; what is not restored.
    pub(crate) fn read(self, reading: &Reading, chosen: &mut Chosen<'_>) -> Result<Left, RestoreError> {
        let Self { place, mut left, kind, .. } = self;
        match kind {
            Kind::Rdb { input, bytes } => {
                reading.progress.begin(Phase::Import, bytes);
                read_rdb(input, &place, reading, &mut left, chosen)?;
                reading.progress.end();
            }
            Kind::Container(path) => read_container(&path, &place, reading, chosen)?,
            Kind::Fetched(file) => read_container(file.path(), &place, reading, chosen)?,
            Kind::Dataset(dataset) => read_dataset(&dataset, &place, chosen)?,
        }
        Ok(left)
    }
}

/// The first bytes, which tell what it is.
fn head(place: &str, input: &mut Input) -> Result<Vec<u8>, RestoreError> {
    let mut head = Vec::new();
    let read = input.by_ref().take(8).read_to_end(&mut head);
    read.map_err(|source| RestoreError::rdb(place)(RdbError::Io { offset: 0, source }))?;
    Ok(head)
}

fn is_container(head: &[u8]) -> bool {
    head == b"CAIRNSNP"
}

/// Takes what a `.rdb` file holds.
pub(crate) trait Records {
    fn entry(
        &mut self,
        place: &str,
        database: u16,
        entry: Entry,
        usage: Option<cairn_engine::Usage>,
    ) -> Result<(), RestoreError>;
    fn library(&mut self, place: &str, source: &[u8]) -> Result<(), RestoreError>;
}

impl Records for Chosen<'_> {
    fn entry(
        &mut self,
        place: &str,
        database: u16,
        entry: Entry,
        usage: Option<cairn_engine::Usage>,
    ) -> Result<(), RestoreError> {
        Chosen::entry(self, place, database, &entry, usage)
    }

    fn library(&mut self, place: &str, source: &[u8]) -> Result<(), RestoreError> {
        // A library that cannot be loaded would keep the server from starting.
        let checked = Dataset::new(1).add_library(source);
        checked.map_err(|why| RestoreError::Library { place: place.to_owned(), why })?;
        Chosen::library(self, source)
    }
}

/// Reads a `.rdb` file to its end.
pub(crate) fn read_rdb(
    input: impl Read,
    place: &str,
    reading: &Reading,
    left: &mut Left,
    records: &mut impl Records,
) -> Result<(), RestoreError> {
    let limits = Limits::default();
    let mut reader = FileReader::open(input).map_err(RestoreError::rdb(place))?;
    if reading.skip_module_data {
        reader = reader.skip_module_values();
    }
    let mut told = 0;
    while let Some(record) = reader.next_record().map_err(|error| read_error(place, error))? {
        let offset = reader.offset();
        reading.progress.advance(offset - told);
        told = offset;
        match record {
            Record::Entry(stored) => {
                let database = stored.database;
                let Ok(database) = u16::try_from(database) else {
                    return Err(RestoreError::Database { place: place.to_owned(), database });
                };
                let (entry, usage) = from_file(*stored, offset, &limits).map_err(RestoreError::rdb(place))?;
                records.entry(place, database, entry, usage)?;
            }
            Record::Function(source) => records.library(place, &source)?,
            Record::ModuleAux { module } if reading.skip_module_data => left.module(module),
            Record::ModuleAux { module } => {
                return Err(RestoreError::ModuleData { place: place.to_owned(), module });
            }
            Record::ModuleValue { module } => {
                left.module_values += 1;
                left.module(module);
            }
            // What a writer remarks changes nothing of the data.
            _ => {}
        }
    }
    Ok(())
}

/// A value of a module is named with the way around it, and an error of the store is the store's.
fn read_error(place: &str, error: RdbError) -> RestoreError {
    match error {
        RdbError::Module { module, .. } if !module.is_empty() => {
            RestoreError::ModuleData { place: place.to_owned(), module }
        }
        error => RestoreError::rdb(place)(error),
    }
}

fn read_container(
    path: &Path,
    place: &str,
    reading: &Reading,
    chosen: &mut Chosen<'_>,
) -> Result<(), RestoreError> {
    let (limits, keyring) = (Limits::default(), reading.keyring.as_deref());
    cairn_jobs::read_blocks(&RealDisk, path, keyring, &*reading.progress, |database, raw| {
        let Ok(database) = u16::try_from(database) else {
            return Err(RestoreError::Database { place: place.to_owned(), database: u64::from(database) });
        };
        let mut stored = Vec::new();
        Entry::load_all(raw, &limits, |one| stored.push(one)).map_err(RestoreError::rdb(place))?;
        stored.into_iter().try_for_each(|one| match one {
            Stored::Entry(entry) => chosen.entry(place, database, &entry, None),
            Stored::Used(entry, usage) => chosen.entry(place, database, &entry, Some(usage)),
            Stored::Library(source) => chosen.library(&source),
        })
    })
}

fn read_dataset(dataset: &Dataset, place: &str, chosen: &mut Chosen<'_>) -> Result<(), RestoreError> {
    dataset.libraries().iter().try_for_each(|source| chosen.library(source))?;
    (0..dataset.databases()).try_for_each(|database| {
        dataset.try_each(database, |entry, usage| chosen.entry(place, database, entry, usage))
    })
}

/// Opens a file of an append-only directory.
pub(crate) fn open(path: &Path) -> Result<File, RestoreError> {
    let failed = |source| JobError::Io { path: path.to_owned(), operation: "open", source };
    Ok(File::open(path).map_err(failed)?)
}

/// Runs work that blocks where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| JobError::Task(error.to_string()))?
}
