//! Where keys go: into a data directory, into a `.rdb` file, or nowhere, to be counted. A server is in `live.rs`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_engine::rdb_file::{RdbTarget, RdbWriter};
use cairn_engine::{Entry, Usage, store_library};
use cairn_jobs::{EntrySink, Output};

use crate::error::RestoreError;

/// Takes keys and function libraries.
pub(crate) trait Sink {
    /// Takes a key.
    fn entry(&mut self, database: u16, entry: &Entry, usage: Option<Usage>) -> Result<(), RestoreError>;

    /// Takes the source of a function library.
    fn library(&mut self, source: &[u8]) -> Result<(), RestoreError>;
}

/// A data directory.
impl Sink for EntrySink {
    fn entry(&mut self, database: u16, entry: &Entry, usage: Option<Usage>) -> Result<(), RestoreError> {
        Ok(EntrySink::entry(self, u32::from(database), |raw| entry.store_used(usage, raw))?)
    }

    fn library(&mut self, source: &[u8]) -> Result<(), RestoreError> {
        Ok(EntrySink::entry(self, 0, |raw| store_library(source, raw))?)
    }
}

/// A `.rdb` file.
pub(crate) struct RdbFile {
    path: PathBuf,
    writer: RdbWriter<Output>,
}

impl RdbFile {
    pub(crate) fn create(path: &Path, target: RdbTarget, force: bool) -> Result<Self, RestoreError> {
        let output = Output::create(path, force)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let writer = RdbWriter::new(output, target, now.as_secs())
            .map_err(|error| RestoreError::write(path, error.into()))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Gives the file its name; its length in bytes.
    pub(crate) fn finish(self) -> Result<u64, RestoreError> {
        let output = self.writer.finish().map_err(|error| RestoreError::write(&self.path, error.into()))?;
        Ok(output.finish()?)
    }
}

impl Sink for RdbFile {
    fn entry(&mut self, database: u16, entry: &Entry, usage: Option<Usage>) -> Result<(), RestoreError> {
        let written = self.writer.entry(database, entry, usage);
        written.map_err(|error| RestoreError::write(&self.path, error))
    }

    fn library(&mut self, source: &[u8]) -> Result<(), RestoreError> {
        self.writer.library(source).map_err(|error| RestoreError::write(&self.path, error.into()))
    }
}

/// Takes everything and keeps nothing: a dry run.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn entry(&mut self, _: u16, _: &Entry, _: Option<Usage>) -> Result<(), RestoreError> {
        Ok(())
    }

    fn library(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}
