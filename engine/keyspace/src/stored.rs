//! Entries as a snapshot stores them: how they were used and `0xFC` and the expiry (i64, ms), where there is that; type code,
//! key, value.

use cairn_rdb::file::Usage;
use cairn_rdb::primitives::write_string_plain;
use cairn_rdb::{RdbError, Reader, Source};

use crate::encode::{Decoded, decode, encode, key_digest, type_of, value_digest};
use crate::entry::Entry;
use crate::libraries::Library;
use crate::types::Limits;

/// The opcode before an expiry in milliseconds.
const EXPIRES_MS: u8 = 0xFC;

/// The code before a function library, as in a `.rdb` file.
pub(crate) const LIBRARY: u8 = 245;

/// What a snapshot holds.
pub enum Stored {
    /// A key.
    Entry(Entry),
    /// A key of which the snapshot tells how it was used.
    Used(Entry, Usage),
    /// The source of a function library.
    Library(Vec<u8>),
}

impl Library {
    /// Appends the library as a snapshot holds it.
    pub fn store(&self, out: &mut Vec<u8>) {
        store_library(&self.code, out);
    }
}

/// Appends a function library of this source as a snapshot holds it.
pub fn store_library(source: &[u8], out: &mut Vec<u8>) {
    out.push(LIBRARY);
    write_string_plain(out, source);
}

impl Entry {
    /// As [`Entry::store`], with how it was used.
    pub fn store_used(&self, usage: Option<Usage>, out: &mut Vec<u8>) {
        if let Some(usage) = usage {
            usage.write(out);
        }
        self.store(out);
    }

    /// Appends the entry as a snapshot stores it.
    pub fn store(&self, out: &mut Vec<u8>) {
        if let Some(at) = self.expire_at_ms() {
            out.push(EXPIRES_MS);
            out.extend_from_slice(&at.to_le_bytes());
        }
        out.push(type_of(self.value()));
        write_string_plain(out, self.key());
        encode(self.value(), out);
    }

    /// Reads entries that [`Entry::store`] wrote, one after the other to the end of `bytes`; returns how many.
    ///
    /// # Errors
    /// Those of the RDB encoding; entries before the error have been given out.
    pub fn load_all(bytes: &[u8], limits: &Limits, mut each: impl FnMut(Stored)) -> Result<usize, RdbError> {
        let mut reader = Reader::new(bytes);
        let mut count = 0;
        while !reader.is_at_end() {
            let mut code = reader.u8()?;
            count += 1;
            if code == LIBRARY {
                each(Stored::Library(reader.string()?));
                continue;
            }
            let usage = Usage::read(code, &mut reader)?;
            if usage.is_some() {
                code = reader.u8()?;
            }
            let mut expire_at_ms = None;
            if code == EXPIRES_MS {
                expire_at_ms = Some(reader.u64()?.cast_signed());
                code = reader.u8()?;
            }
            let key = reader.string_borrowed()?;
            let entry = match decode(code, &mut reader, limits)? {
                Decoded::String(bytes) => Entry::string(&key, &bytes, expire_at_ms),
                Decoded::Object(object) => Entry::object(&key, object, expire_at_ms),
            };
            each(match usage {
                None => Stored::Entry(entry),
                Some(usage) => Stored::Used(entry, usage),
            });
        }
        Ok(count)
    }

    /// What DEBUG DIGEST-VALUE answers for the entry.
    #[must_use]
    pub fn value_digest(&self) -> [u8; 20] {
        value_digest(self.value(), self.expire_at_ms().is_some())
    }

    /// The entry's part in DEBUG DIGEST.
    #[must_use]
    pub fn key_digest(&self) -> [u8; 20] {
        key_digest(self.key(), self.value(), self.expire_at_ms().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Object, Set};

    fn entry_of(stored: Stored) -> Option<Entry> {
        match stored {
            Stored::Entry(entry) | Stored::Used(entry, _) => Some(entry),
            Stored::Library(_) => None,
        }
    }

    #[test]
    fn libraries_stand_among_entries() {
        let library = Library { name: "a".to_owned(), code: b"#!lua name=a".to_vec(), functions: Vec::new() };
        let mut bytes = Vec::new();
        Entry::string(b"key", b"value", None).store(&mut bytes);
        library.store(&mut bytes);
        Entry::string(b"other", b"value", None).store(&mut bytes);
        let (mut keys, mut sources) = (Vec::new(), Vec::new());
        let count = Entry::load_all(&bytes, &Limits::default(), |stored| match stored {
            Stored::Entry(entry) | Stored::Used(entry, _) => keys.push(entry.key().to_vec()),
            Stored::Library(source) => sources.push(source),
        });
        assert_eq!((count.unwrap(), keys.len(), sources), (3, 2, vec![library.code]));
    }

    #[test]
    fn how_a_key_was_used_stands_before_it() {
        let mut bytes = Vec::new();
        let entry = Entry::string(b"key", b"value", Some(1_700_000_000_000));
        for usage in [Some(Usage::IdleSeconds(100_000)), None, Some(Usage::Frequency(255))] {
            entry.store_used(usage, &mut bytes);
        }
        let mut found = Vec::new();
        let count = Entry::load_all(&bytes, &Limits::default(), |stored| match stored {
            Stored::Used(entry, usage) => found.push((entry.expire_at_ms(), Some(usage))),
            Stored::Entry(entry) => found.push((entry.expire_at_ms(), None)),
            Stored::Library(_) => {}
        });
        let usages = [Some(Usage::IdleSeconds(100_000)), None, Some(Usage::Frequency(255))];
        assert_eq!(
            (count.unwrap(), found),
            (3, usages.map(|usage| (Some(1_700_000_000_000), usage)).to_vec())
        );
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let limits = Limits::default();
        let mut set = Set::new();
        assert!(set.add(b"member", &limits));
        let entries = [
            Entry::string(b"plain", b"value", None),
            Entry::string(b"number", b"-12345", Some(1_700_000_000_000)),
            Entry::string(b"long", &[7; 100_000], None),
            Entry::object(b"set", Object::Set(set), Some(-1)),
        ];
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| entry.store(&mut bytes));
        let mut loaded = Vec::new();
        assert_eq!(
            Entry::load_all(&bytes, &limits, |stored| loaded.extend(entry_of(stored))).unwrap(),
            entries.len()
        );
        for (before, after) in entries.iter().zip(&loaded) {
            assert_eq!((before.key(), before.expire_at_ms()), (after.key(), after.expire_at_ms()));
            assert_eq!(before.value_digest(), after.value_digest());
        }
        for cut in 0..bytes.len() {
            // A cut may fall between two entries; what it must not do is panic or make an entry up.
            let mut count = 0;
            let _ = Entry::load_all(&bytes[..cut], &limits, |_| count += 1);
            assert!(count < entries.len());
        }
    }
}
