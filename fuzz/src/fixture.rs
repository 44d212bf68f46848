//! The files of format version 1 that are kept beside the crates that read them: here they lend headers and keys.

use std::path::PathBuf;
use std::sync::LazyLock;

use cairn_format::header::{Identity, KeySlot, Magic, decode_header};
use cairn_format::{FileId, HEADER_BYTES};
use cairn_seal::{Keyring, Sealer, unwrap};

/// The name of the first journal segment.
pub const SEGMENT: &str = "journal-00000000000000000000";

/// The header of a file, from its fixture.
#[derive(Debug)]
pub struct Header {
    /// As it stands in the file.
    pub bytes: Vec<u8>,
    /// Page 0.
    pub identity: Identity,
    /// The wrapped key, when the file is encrypted.
    pub slot: Option<KeySlot>,
}

impl Header {
    /// Reads the header of a fixture, a path in the folder `storage`.
    ///
    /// # Panics
    /// When the fixture is not there or not whole.
    #[must_use]
    pub fn load(path: &str, magic: Magic) -> Header {
        let mut bytes = read(path);
        bytes.truncate(HEADER_BYTES);
        let (identity, slot) = decode_header(&bytes, magic).expect("a fixture is whole");
        Header { bytes, identity, slot }
    }

    /// The id of the file.
    #[must_use]
    pub fn file_id(&self) -> FileId {
        self.identity.file_id
    }

    /// What seals and opens the file's chunks, when it is encrypted.
    ///
    /// # Panics
    /// When the keyring of the fixtures does not open it.
    #[must_use]
    pub fn sealer(&self) -> Option<Sealer> {
        let slot = self.slot.as_ref()?;
        let key = unwrap(&KEYRING, self.identity.magic, self.file_id(), slot).expect("the fixtures' key");
        Some(Sealer::new(&key, self.file_id()))
    }
}

/// The keyring of all fixtures.
pub static KEYRING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::parse(&read("seal/fixtures/v1/keyring")).expect("a fixture is whole"));

/// Headers of a plain and of an encrypted journal segment.
pub static SEGMENTS: LazyLock<[Header; 2]> = LazyLock::new(|| {
    ["plain", "encrypted"]
        .map(|kind| Header::load(&format!("journal/fixtures/v1/{kind}/{SEGMENT}"), Magic::Journal))
});

/// Headers of a plain and of an encrypted snapshot.
pub static SNAPSHOTS: LazyLock<[Header; 2]> = LazyLock::new(|| {
    ["plain", "encrypted"].map(|kind| {
        Header::load(&format!("snapshot/fixtures/v1/{kind}/{}", snapshot_name()), Magic::Snapshot)
    })
});

/// The name of the snapshot.
#[must_use]
pub fn snapshot_name() -> String {
    format!("snapshot-{:020}.cairn", SNAPSHOT_LSN)
}

/// The LSN at which the journal of the fixtures begins its second segment, that of the snapshot.
pub const SNAPSHOT_LSN: u64 = 221;

/// A file in the folder `storage`.
#[must_use]
pub fn path(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../storage")).join(path)
}

/// The bytes of a file in the folder `storage`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
