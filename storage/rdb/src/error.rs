//! The one error of this crate.

use thiserror::Error;

/// Why RDB bytes could not be read. Offsets count from the start of the value or of the file that was being read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RdbError {
    /// The bytes end inside a value.
    #[error(
        "the data ends at offset {offset} where {needed} more bytes belong; it was cut, take a whole copy"
    )]
    Truncated {
        /// Where the missing bytes begin.
        offset: u64,
        /// How many bytes the reader asked for.
        needed: u64,
    },
    /// A structure contradicts itself.
    #[error("{structure} at offset {offset} is damaged: {reason}; take another copy")]
    Malformed {
        /// Where the structure ends or was found to be wrong.
        offset: u64,
        /// What was read: "listpack", "intset", "length", ...
        structure: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value type this crate does not know.
    #[error(
        "value type {code} at offset {offset} is unknown; it was written by a newer server, export it from there as commands"
    )]
    UnknownType {
        /// The type byte.
        code: u8,
        /// Where it stands.
        offset: u64,
    },
    /// A value of a module, which only that module can read.
    #[error(
        "a value of module {module:?} at offset {offset} cannot be read without that module; delete such keys before the export"
    )]
    Module {
        /// The module's name from its 64-bit id; empty where the file does not say.
        module: String,
        /// Where the value begins.
        offset: u64,
    },
    /// A kind of data that is known but not kept by this server.
    #[error("{what} at offset {offset} cannot be kept by this server; remove it before the export")]
    Unsupported {
        /// The kind: "a hash with field expiry", "a function of a release candidate", ...
        what: &'static str,
        /// Where it begins.
        offset: u64,
    },
    /// The file does not begin as an RDB file does.
    #[error("not an RDB file: it begins with {found:?} and not with \"REDIS\" or \"VALKEY\" and a version")]
    NotRdb {
        /// The first bytes.
        found: String,
    },
    /// The file was written in a version from the future.
    #[error(
        "RDB version {found} is newer than {supported}, the newest this server reads; export it with an older server"
    )]
    FutureVersion {
        /// The version in the header.
        found: u32,
        /// The newest version read.
        supported: u32,
    },
    /// The checksum at the end differs from that of the bytes.
    #[error(
        "the checksum at offset {offset} is {expected:016x} but the bytes give {found:016x}; take another copy"
    )]
    Checksum {
        /// Where the checksum stands.
        offset: u64,
        /// The checksum in the file.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// The source of the bytes failed.
    #[error("reading failed at offset {offset}: {source}")]
    Io {
        /// How many bytes had been read.
        offset: u64,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

impl RdbError {
    /// What the operating system said, where that is the reason.
    ///
    /// # Errors
    /// The error itself where it is another.
    pub fn into_io(self) -> Result<std::io::Error, Self> {
        match self {
            Self::Io { source, .. } => Ok(source),
            error => Err(error),
        }
    }

    pub(crate) fn malformed(offset: u64, structure: &'static str, reason: &'static str) -> Self {
        Self::Malformed { offset, structure, reason }
    }
}
