//! What can go wrong beside the jobs: with files of another program, and with a server that is restored into.

use std::path::PathBuf;

use cairn_engine::OpenError;
use cairn_engine::rdb_file::RdbWriteError;
use cairn_jobs::JobError;
use cairn_rdb::RdbError;

/// An error of this program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Those of the jobs.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A data directory cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A `.rdb` file cannot be read.
    #[error("{place}: {source}")]
    Rdb {
        /// The file.
        place: String,
        /// Why.
        source: RdbError,
    },
    /// A file holds data of a module.
    #[error(
        "{place}: it holds data of the module {module}, which only that module can read; \
         restore what else is in it with --skip-module-data"
    )]
    ModuleData {
        /// The file.
        place: String,
        /// The module.
        module: String,
    },
    /// A function library that cannot be loaded.
    #[error("{place}: a function library cannot be loaded: {why}")]
    Library {
        /// The file.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number of a database beyond any that a server has.
    #[error("{place}: it holds a key of database {database}, and no server has so many")]
    Database {
        /// The file.
        place: String,
        /// The database.
        database: u64,
    },
    /// A key that is there twice.
    #[error("{place}: a key of database {database} stands in it twice; take another copy")]
    Duplicate {
        /// The file.
        place: String,
        /// The database.
        database: u16,
    },
    /// Two keys that would have one name.
    #[error(
        "--rename-prefix gives two keys of database {database} one name; choose a prefix that no other key begins with"
    )]
    SameName {
        /// The database.
        database: u16,
    },
    /// A hash whose fields expire, for a server that knows no such thing.
    #[error("{place}: {what}; Redis knows that since 7.4")]
    FieldExpiry {
        /// Where it would go.
        place: String,
        /// What to do about it.
        what: &'static str,
    },
    /// An append-only directory that is not one.
    #[error("{}: {why}", path.display())]
    AppendOnly {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An append-only file whose commands are damaged.
    #[error("{}: offset {offset}: {why}; take another copy", path.display())]
    Commands {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The last append-only file ends within a command or a transaction.
    #[error(
        "{}: offset {offset}: the file ends within a {within}, so {bytes} bytes behind that offset would be lost; \
         accept that with --load-truncated",
        path.display()
    )]
    Torn {
        /// The file.
        path: PathBuf,
        /// Up to where it is whole.
        offset: u64,
        /// How many bytes follow.
        bytes: u64,
        /// "command" or "transaction".
        within: &'static str,
    },
    /// A server that is restored into failed.
    #[error("{address}: {why}")]
    Server {
        /// Its address.
        address: String,
        /// What it said, and what to do.
        why: String,
    },
}

impl RestoreError {
    /// An error of reading a `.rdb` file; one of the store it comes from is that.
    pub(crate) fn rdb(place: &str) -> impl Fn(RdbError) -> Self {
        move |source| Self::Rdb { place: place.to_owned(), source }
    }

    /// Where a `.rdb` file is written.
    pub(crate) fn write(place: &std::path::Path, error: RdbWriteError) -> Self {
        match error {
            RdbWriteError::FieldExpiry => Self::FieldExpiry {
                place: place.display().to_string(),
                what: "a hash has fields that expire; write the file with --redis-version 7.4",
            },
            RdbWriteError::Rdb(RdbError::Io { source, .. }) => {
                cairn_jobs::Output::error(place, source).into()
            }
            RdbWriteError::Rdb(source) => Self::Rdb { place: place.display().to_string(), source },
        }
    }

    /// What the program ends with: 1 failed, 2 usage, 11 locked, 12 wrong key, 13 damaged, 130 interrupted.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Job(error) => error.exit_code(),
            Self::Open(error) => u8::try_from(error.exit_code()).unwrap_or(1),
            Self::Rdb { source, .. } => match source {
                RdbError::Truncated { .. }
                | RdbError::Malformed { .. }
                | RdbError::NotRdb { .. }
                | RdbError::Checksum { .. } => 13,
                _ => 1,
            },
            Self::Duplicate { .. }
            | Self::Database { .. }
            | Self::AppendOnly { .. }
            | Self::Commands { .. }
            | Self::Torn { .. } => 13,
            Self::SameName { .. } => 2,
            Self::ModuleData { .. }
            | Self::Library { .. }
            | Self::FieldExpiry { .. }
            | Self::Server { .. } => 1,
        }
    }
}

impl From<RestoreError> for JobError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Job(error) => error,
            error => Self::Program { exit_code: error.exit_code(), error: Box::new(error) },
        }
    }
}
