//! Function libraries: named source texts, with what is known of the functions in them.
//!
//! They are data: what changes them is journaled and a snapshot carries them. What they mean, the keyspace never knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_rdb::primitives::write_string_compressed;
use cairn_rdb::{Reader, Source, VERSION_READ_MAX, VERSION_WRITTEN, crc64};
use parking_lot::RwLock;

use crate::stored::LIBRARY;

/// One library.
#[derive(Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name, unique among libraries.
    pub name: String,
    /// Its whole source text, as it was given.
    pub code: Vec<u8>,
    /// The functions it registers, by name; each name is unique among all libraries.
    pub functions: Vec<FunctionInfo>,
}

/// What a library says of one of its functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// What FCALL names it.
    pub name: String,
    /// In the author's words.
    pub description: Option<Vec<u8>>,
    /// Bits of those who run it.
    pub flags: u8,
}

/// Libraries by name.
pub type LibraryMap = BTreeMap<String, Arc<Library>>;

/// All libraries of a keyspace. They are changed only while every shard is locked.
#[derive(Debug, Default)]
pub struct Libraries {
    current: RwLock<Arc<LibraryMap>>,
    version: AtomicU64,
}

/// Versions handed out so far: no two of a process are the same, so that a thread's copy needs no other name.
static VERSIONS: AtomicU64 = AtomicU64::new(0);

impl Libraries {
    /// The libraries as they are now.
    #[must_use]
    pub fn get(&self) -> Arc<LibraryMap> {
        Arc::clone(&self.current.read())
    }

    /// Changes with every [`Libraries::set`]; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Puts others in place of all.
    pub fn set(&self, libraries: LibraryMap) {
        let mut current = self.current.write();
        *current = Arc::new(libraries);
        self.version.store(VERSIONS.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
    }
}

/// Bytes behind the libraries of a dump: a version and a checksum.
const FOOTER_BYTES: usize = 10;

impl Libraries {
    /// All libraries as FUNCTION DUMP gives them.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for library in self.get().values() {
            out.push(LIBRARY);
            write_string_compressed(&mut out, &library.code);
        }
        out.extend_from_slice(&(VERSION_WRITTEN as u16).to_le_bytes());
        let checksum = crc64::update(0, &out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// The sources in a dump.
///
/// # Errors
/// What is wrong with it, in the words of FUNCTION RESTORE.
pub fn read_libraries(dump: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    const WRONG: &str = "DUMP payload version or checksum are wrong";
    let end = dump.len().checked_sub(FOOTER_BYTES).ok_or(WRONG)?;
    let (body, footer) = dump.split_at(end);
    let (version, checksum) = footer.split_at(2);
    let version = u32::from(u16::from_le_bytes(version.try_into().map_err(|_| WRONG)?));
    let checksum = u64::from_le_bytes(checksum.try_into().map_err(|_| WRONG)?);
    // As in Redis, a checksum of 0 says that there is none.
    if version > VERSION_READ_MAX || (checksum != 0 && checksum != crc64::update(0, &dump[..end + 2])) {
        return Err(WRONG);
    }
    let mut reader = Reader::new(body);
    let mut sources = Vec::new();
    while !reader.is_at_end() {
        if reader.u8().map_err(|_| "can not read data type")? != LIBRARY {
            return Err("given type is not a function");
        }
        let source = reader.string().map_err(|_| "failed loading the given functions payload")?;
        sources.push(source);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, code: &[u8]) -> Arc<Library> {
        Arc::new(Library { name: name.to_owned(), code: code.to_vec(), functions: Vec::new() })
    }

    #[test]
    fn a_dump_holds_every_source_and_damage_is_found() {
        let libraries = Libraries::default();
        let codes: [&[u8]; 2] = [b"#!lua name=a\nfirst", b"#!lua name=b\nsecond second second second second"];
        libraries.set([("a", codes[0]), ("b", codes[1])].map(|(n, c)| (n.to_owned(), library(n, c))).into());
        let dump = libraries.dump();
        assert_eq!(read_libraries(&dump).unwrap(), codes);
        for at in 0..dump.len() {
            let mut damaged = dump.clone();
            damaged[at] ^= 1;
            assert!(read_libraries(&damaged).is_err(), "byte {at}");
        }
        assert!(read_libraries(b"short").is_err());
    }
}
