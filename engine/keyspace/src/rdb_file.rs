//! Entries out of `.rdb` files, and into them.

use std::io::Write;

use cairn_rdb::file::{self, FileWriter, Usage};
use cairn_rdb::value::kind;
use cairn_rdb::{RdbError, VERSION_OF_FIELD_EXPIRY, VERSION_WRITTEN};

use crate::encode::{Decoded, encode, from_value, type_of};
use crate::entry::Entry;
use crate::types::Limits;

/// Makes a key of a file an entry, in the form that `limits` give it, and says how it was used. `offset` is where it ended
/// in the file, for the error.
///
/// # Errors
/// A value that contradicts itself, as a set with a member twice.
pub fn from_file(
    stored: file::Entry,
    offset: u64,
    limits: &Limits,
) -> Result<(Entry, Option<Usage>), RdbError> {
    let file::Entry { key, expire_at_ms, usage, value, .. } = stored;
    let entry = match from_value(value, offset, limits)? {
        Decoded::String(bytes) => Entry::string(&key, &bytes, expire_at_ms),
        Decoded::Object(object) => Entry::object(&key, object, expire_at_ms),
    };
    Ok((entry, usage))
}

/// For whom a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RdbTarget {
    /// Redis 7.0 and all that came after it.
    #[default]
    Redis70,
    /// Redis 7.4 and all that came after it: hashes may have fields that expire.
    Redis74,
}

impl RdbTarget {
    /// The version in the header.
    #[must_use]
    pub fn version(self) -> u32 {
        match self {
            Self::Redis70 => VERSION_WRITTEN,
            Self::Redis74 => VERSION_OF_FIELD_EXPIRY,
        }
    }

    /// Whether it reads this entry.
    #[must_use]
    pub fn takes(self, entry: &Entry) -> bool {
        let has_expiring_fields =
            matches!(type_of(entry.value()), kind::HASH_METADATA | kind::HASH_LISTPACK_EX);
        !has_expiring_fields || self.version() >= VERSION_OF_FIELD_EXPIRY
    }
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum RdbWriteError {
    /// The file could not be written.
    #[error(transparent)]
    Rdb(#[from] RdbError),
    /// Those for whom the file is cannot read it.
    #[error("a hash has fields that expire, which Redis knows since 7.4")]
    FieldExpiry,
}

/// Writes entries into a `.rdb` file.
pub struct RdbWriter<W> {
    file: FileWriter<W>,
    target: RdbTarget,
    database: Option<u16>,
    value: Vec<u8>,
}

impl<W: Write> RdbWriter<W> {
    /// Writes the header, and for whom and when it was written, in seconds since 1970.
    ///
    /// # Errors
    /// Those of the output; so for all that writes here.
    pub fn new(output: W, target: RdbTarget, unix_seconds: u64) -> Result<Self, RdbError> {
        let mut file = FileWriter::with_version(output, target.version())?;
        // What loads the file looks for the version of a Redis; ours would say nothing to it.
        file.aux("redis-ver", if target == RdbTarget::Redis70 { "7.0.0" } else { "7.4.0" })?;
        file.aux("redis-bits", "64")?;
        file.aux("ctime", &unix_seconds.to_string())?;
        Ok(Self { file, target, database: None, value: Vec::new() })
    }

    /// Writes a function library.
    ///
    /// # Errors
    /// See [`RdbWriter::new`].
    pub fn library(&mut self, source: &[u8]) -> Result<(), RdbError> {
        self.file.function(source)
    }

    /// Begins a database that has so many keys, so many of which expire, so that its tables are laid out at once.
    ///
    /// # Errors
    /// See [`RdbWriter::new`].
    pub fn database(&mut self, database: u16, keys: u64, expiring: u64) -> Result<(), RdbError> {
        self.database = Some(database);
        self.file.database(u64::from(database), keys, expiring)
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`RdbWriteError::FieldExpiry`] where the target knows none; see [`RdbWriter::new`].
    pub fn entry(&mut self, database: u16, entry: &Entry, usage: Option<Usage>) -> Result<(), RdbWriteError> {
        if !self.target.takes(entry) {
            return Err(RdbWriteError::FieldExpiry);
        }
        if self.database != Some(database) {
            self.file.select(u64::from(database))?;
            self.database = Some(database);
        }
        if let Some(usage) = usage {
            self.file.usage(usage)?;
        }
        self.value.clear();
        let code = encode(entry.value(), &mut self.value);
        Ok(self.file.entry(entry.key(), entry.expire_at_ms(), code, &self.value)?)
    }

    /// Writes the end mark and the checksum, and gives the output back.
    ///
    /// # Errors
    /// See [`RdbWriter::new`].
    pub fn finish(self) -> Result<W, RdbError> {
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use cairn_rdb::file::{FileReader, Record};

    use super::*;
    use crate::types::{Hash, Object};

    fn hash(expire_at_ms: Option<i64>) -> Entry {
        let mut hash = Hash::new();
        hash.set(b"field", b"value", &Limits::default());
        hash.set_expire_at_ms(b"field", expire_at_ms);
        Entry::object(b"hash", Object::Hash(hash), None)
    }

    #[test]
    fn entries_come_back_with_database_expiry_and_use() {
        let mut writer = RdbWriter::new(Vec::new(), RdbTarget::Redis70, 1_700_000_000).unwrap();
        writer.library(b"#!lua name=a").unwrap();
        let entries = [
            (0, Entry::string(b"text", b"value", None), Some(Usage::IdleSeconds(5))),
            (0, hash(None), None),
            (7, Entry::string(b"number", b"12", Some(1_900_000_000_000)), Some(Usage::Frequency(9))),
        ];
        for (database, entry, usage) in &entries {
            writer.entry(*database, entry, *usage).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut back = Vec::new();
        for record in FileReader::open(&bytes[..]).unwrap() {
            if let Record::Entry(stored) = record.unwrap() {
                let database = stored.database as u16;
                let (entry, usage) = from_file(*stored, 0, &Limits::default()).unwrap();
                back.push((database, entry, usage));
            }
        }
        assert_eq!(back.len(), entries.len());
        for (before, after) in entries.iter().zip(&back) {
            assert_eq!((before.0, before.2), (after.0, after.2));
            assert_eq!(before.1.key_digest(), after.1.key_digest());
        }
    }

    #[test]
    fn fields_that_expire_are_written_for_those_who_know_them_only() {
        let entry = hash(Some(1_900_000_000_000));
        let write = |target| RdbWriter::new(Vec::new(), target, 0).unwrap().entry(0, &entry, None);
        assert!(matches!(write(RdbTarget::Redis70), Err(RdbWriteError::FieldExpiry)));
        assert!(write(RdbTarget::Redis74).is_ok());
    }
}
