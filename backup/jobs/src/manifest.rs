//! The manifest of one backup.

use cairn_format::FileId;
use serde::{Deserialize, Serialize};

use crate::{JobError, document, moment};

/// `format` of a backup's manifest.
pub const FORMAT: &str = "cairn backup";
/// `version` of a backup's manifest.
pub const VERSION: u32 = 1;

/// What a backup consists of, and what it holds. `storage/docs/repository.md` is the law.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// The backup's name: `<UTC yyyymmddThhmmssmmmZ>-<LSN>`.
    pub id: String,
    /// The history it belongs to, 32 hex digits.
    pub lineage: String,
    /// The last start of the server that wrote it.
    pub epoch: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// How many databases the server has.
    pub databases: u32,
    /// Whether the data directory was encrypted.
    pub encrypted: bool,
    /// The master keys that its files need, each once, in ascending order.
    pub keys: Vec<String>,
    /// The LSN of the snapshot; 0 where there is none and the journal begins the history.
    pub from_lsn: u64,
    /// Restoring it gives the effects below this LSN, cut back to the last whole commit.
    pub to_lsn: u64,
    /// How many keys the snapshot holds.
    pub entries: u64,
    /// The first moment the snapshot can be used for in going back to a moment: no effect in it is younger. In milliseconds
    /// since 1970; `created_unix_ms` where it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_unix_ms: Option<u64>,
    /// The digest of the snapshot's keys that the server computed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The snapshot first, if there is one, then the journal's segments in order.
    pub objects: Vec<ObjectEntry>,
}

/// What an object of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A snapshot container.
    Snapshot,
    /// A journal segment, up to its last durable frame.
    Journal,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its name within the backup's folder.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// The name of the file it was copied from.
    pub file: String,
    /// The file's own id, 32 hex digits.
    pub file_id: String,
    /// The name of the master key that its data key is wrapped by; none if it is not encrypted.
    pub key: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// The length of the file it was copied from; the last segment of a journal is extended to it with zeros.
    pub file_bytes: u64,
    /// The CRC-32 of all its bytes, 8 hex digits.
    pub crc32: String,
    /// The first LSN in it (of a snapshot: 0).
    pub first_lsn: u64,
    /// The LSN where it ends.
    pub end_lsn: u64,
    /// How many keys it holds, if it is a snapshot.
    pub entries: u64,
}

impl BackupManifest {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, JobError> {
        document::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8], url: &str) -> Result<Self, JobError> {
        let manifest: Self = document::decode(bytes, url, FORMAT, VERSION)?;
        manifest.check(url)?;
        Ok(manifest)
    }

    /// The bytes of all its objects.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    /// When it was made, as text.
    pub fn created(&self) -> String {
        moment::rfc3339(self.created_unix_ms)
    }

    /// The snapshot, if there is one.
    pub fn snapshot(&self) -> Option<&ObjectEntry> {
        self.objects.iter().find(|object| object.kind == ObjectKind::Snapshot)
    }

    /// The journal's segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &ObjectEntry> {
        self.objects.iter().filter(|object| object.kind == ObjectKind::Journal)
    }

    /// A name out of a manifest becomes a file's name in a restore: it must not lead elsewhere.
    fn check(&self, url: &str) -> Result<(), JobError> {
        let damaged = |what, expected: &str, found: &str| JobError::Damaged {
            place: url.to_owned(),
            offset: None,
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        for object in &self.objects {
            for name in [&object.name, &object.file] {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.bytes().all(plain) {
                    return Err(damaged("name of an object", "a plain file name", name));
                }
            }
            if object.file_id().is_none() {
                return Err(damaged("file id", "32 hex digits", &object.file_id));
            }
            if object.file_bytes < object.bytes {
                return Err(damaged(
                    "length of a file",
                    "at least its object's",
                    &object.file_bytes.to_string(),
                ));
            }
            if u32::from_str_radix(&object.crc32, 16).is_err() {
                return Err(damaged("checksum of an object", "8 hex digits", &object.crc32));
            }
        }
        // What is counted up in progress and in lists.
        if self.objects.iter().try_fold(0_u64, |sum, object| sum.checked_add(object.bytes)).is_none() {
            return Err(damaged("sizes of the objects", "a sum below 2^64", "a greater one"));
        }
        if self.objects.iter().skip(1).any(|object| object.kind == ObjectKind::Snapshot) {
            return Err(damaged("objects", "one snapshot at most, first", "another order"));
        }
        if hex16(&self.lineage).is_none() {
            return Err(damaged("lineage", "32 hex digits", &self.lineage));
        }
        Ok(())
    }
}

impl ObjectEntry {
    /// The file id as such; manifests that were read have one.
    pub fn file_id(&self) -> Option<FileId> {
        hex16(&self.file_id).map(FileId)
    }

    /// The checksum as a number.
    pub(crate) fn crc(&self) -> Option<u32> {
        u32::from_str_radix(&self.crc32, 16).ok()
    }
}

pub(crate) fn hex16(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> BackupManifest {
        BackupManifest {
            format: FORMAT.into(),
            version: VERSION,
            id: "20261123T101504250Z-100".into(),
            lineage: "0123456789abcdef0123456789abcdef".into(),
            epoch: 3,
            created_unix_ms: 1_795_428_904_250,
            databases: 16,
            encrypted: false,
            keys: Vec::new(),
            from_lsn: 0,
            to_lsn: 100,
            entries: 0,
            snapshot_unix_ms: None,
            digest: None,
            objects: vec![ObjectEntry {
                name: "journal-00000000000000000000".into(),
                kind: ObjectKind::Journal,
                file: "journal-00000000000000000000".into(),
                file_id: "ff".repeat(16),
                key: None,
                bytes: 12_288,
                file_bytes: 131_072,
                crc32: "0000abcd".into(),
                first_lsn: 0,
                end_lsn: 100,
                entries: 0,
            }],
        }
    }

    /// Their sum overflowed, of which a build with assertions dies, in `list` already.
    #[test]
    fn sizes_that_cannot_be_counted_up_are_refused() {
        let mut manifest = sample();
        manifest.objects.push(manifest.objects[0].clone());
        for object in &mut manifest.objects {
            (object.bytes, object.file_bytes) = (u64::MAX, u64::MAX);
        }
        let read = BackupManifest::decode(&manifest.encode().unwrap(), "u");
        assert!(matches!(read, Err(JobError::Damaged { .. })));
    }

    #[test]
    fn manifests_come_back_and_lead_nowhere_else() {
        let manifest = sample();
        let bytes = manifest.encode().unwrap();
        assert_eq!(BackupManifest::decode(&bytes, "u").unwrap(), manifest);
        for name in ["../x", "/etc/x", "a/b", "", ".", "..", ".tmp", "a\0b"] {
            let mut bad = sample();
            bad.objects[0].file = name.into();
            let read = BackupManifest::decode(&bad.encode().unwrap(), "u");
            assert!(matches!(read, Err(JobError::Damaged { .. })), "{name:?}");
        }
    }

    /// Old backups must stay readable: this text was written by version 1.
    #[test]
    fn version_1_stays_readable() {
        let text = include_bytes!("../fixtures/manifest-v1.json");
        let manifest = BackupManifest::decode(text, "fixture").unwrap();
        assert_eq!(manifest, sample());
        assert_eq!(sample().encode().unwrap(), text);
    }
}
