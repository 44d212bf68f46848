//! The manifest: what a data directory holds.
//!
//! The law: `storage/docs/manifest.md`.

use crate::header::{KeySlot, Magic, check_version};
use crate::wire::{Cursor, check_trailing_crc, push_crc, push_text};
use crate::{FORMAT_VERSION, FileId, FormatError, LineageId, Lsn};

/// What a data directory holds. A new one is written under a temporary name and renamed for each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The history the directory belongs to.
    pub lineage: LineageId,
    /// The start of the server that wrote it; rises by one with each.
    pub epoch: u64,
    /// Rises by one with each manifest written.
    pub number: u64,
    /// Whether the manifest is authenticated by a key; then `key` is there.
    pub encrypted: bool,
    /// This manifest's own random id, new with each write.
    pub file_id: FileId,
    /// The wrapped data key its tag is made with.
    pub key: Option<KeySlot>,
    /// How many databases the server was configured for.
    pub databases: u32,
    /// The snapshot recovery begins with; none while the journal reaches back to the beginning.
    pub snapshot: Option<SnapshotEntry>,
    /// The journal segments, in the order of their LSNs.
    pub segments: Vec<SegmentEntry>,
}

/// The snapshot a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Its file name in the directory.
    pub name: String,
    /// The id in its header.
    pub file_id: FileId,
    /// It holds the effects below this LSN.
    pub lsn: Lsn,
    /// The length of the file.
    pub bytes: u64,
    /// How many keys it holds.
    pub entries: u64,
}

/// A journal segment a manifest names. It is valid up to the next entry's `first_lsn`; the last is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its file name in the directory.
    pub name: String,
    /// The id in its header.
    pub file_id: FileId,
    /// The LSN of its first effect.
    pub first_lsn: Lsn,
}

/// A manifest as read, before its tag was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// What the bytes say.
    pub manifest: Manifest,
    /// The tag of an encrypted manifest.
    pub tag: Option<[u8; 16]>,
    /// The bytes that the tag authenticates.
    pub authenticated: &'a [u8],
}

impl Manifest {
    /// The bytes of the file. `tag` is called with the bytes to authenticate when `encrypted`, and not otherwise.
    ///
    /// # Panics
    /// When `encrypted` and `key` disagree, or a name is longer than 255 bytes: those are mistakes of the caller.
    pub fn encode(&self, tag: impl FnOnce(&[u8]) -> [u8; 16]) -> Vec<u8> {
        assert_eq!(self.encrypted, self.key.is_some(), "an encrypted manifest, and no other, has a key");
        let mut bytes = Vec::with_capacity(256 + 64 * self.segments.len());
        bytes.extend_from_slice(&Magic::Manifest.bytes());
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[u8::from(self.encrypted), 0, 0, 0]);
        bytes.extend_from_slice(&self.file_id.0);
        bytes.extend_from_slice(&self.lineage.0);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.databases.to_le_bytes());
        if let Some(key) = &self.key {
            key.encode_fields(&mut bytes);
        }
        bytes.push(u8::from(self.snapshot.is_some()));
        if let Some(snapshot) = &self.snapshot {
            push_text(&mut bytes, &snapshot.name);
            bytes.extend_from_slice(&snapshot.file_id.0);
            bytes.extend_from_slice(&snapshot.lsn.0.to_le_bytes());
            bytes.extend_from_slice(&snapshot.bytes.to_le_bytes());
            bytes.extend_from_slice(&snapshot.entries.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        for segment in &self.segments {
            push_text(&mut bytes, &segment.name);
            bytes.extend_from_slice(&segment.file_id.0);
            bytes.extend_from_slice(&segment.first_lsn.0.to_le_bytes());
        }
        if self.encrypted {
            let tag = tag(&bytes);
            bytes.extend_from_slice(&tag);
        }
        push_crc(&mut bytes);
        bytes
    }

    /// Reads a manifest; gives it with its tag, when it is encrypted, and the bytes that the tag authenticates. The
    /// caller checks the tag: without that an encrypted manifest proves nothing.
    ///
    /// # Errors
    /// Another magic, a wrong checksum, an unknown version, or a field that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, FormatError> {
        Magic::Manifest.check(Cursor::new(bytes, 0).array()?, 0)?;
        let covered = check_trailing_crc(bytes, 0, "manifest")?;
        let mut cursor = Cursor::new(covered, 0);
        cursor.take(8)?;
        check_version(cursor.u32()?)?;
        let encrypted = cursor.flag("encrypted")?;
        cursor.zeros(3, "reserved bytes")?;
        let file_id = FileId(cursor.array()?);
        let lineage = LineageId(cursor.array()?);
        let epoch = cursor.u64()?;
        let number = cursor.u64()?;
        let databases = cursor.u32()?;
        let key = if encrypted { Some(KeySlot::decode_fields(&mut cursor)?) } else { None };
        let snapshot =
            if cursor.flag("snapshot present")? { Some(decode_snapshot(&mut cursor)?) } else { None };
        let segments = decode_segments(&mut cursor)?;
        let authenticated =
            covered.get(..covered.len().saturating_sub(cursor.remaining())).unwrap_or_default();
        let tag = if encrypted { Some(cursor.array()?) } else { None };
        if cursor.remaining() != 0 {
            return Err(FormatError::invalid(
                cursor.offset(),
                "end of the manifest",
                "nothing",
                format!("{} more bytes", cursor.remaining()),
            ));
        }
        let manifest =
            Manifest { lineage, epoch, number, encrypted, file_id, key, databases, snapshot, segments };
        Ok(Decoded { manifest, tag, authenticated })
    }
}

fn decode_snapshot(cursor: &mut Cursor<'_>) -> Result<SnapshotEntry, FormatError> {
    Ok(SnapshotEntry {
        name: file_name(cursor)?,
        file_id: FileId(cursor.array()?),
        lsn: Lsn(cursor.u64()?),
        bytes: cursor.u64()?,
        entries: cursor.u64()?,
    })
}

fn decode_segments(cursor: &mut Cursor<'_>) -> Result<Vec<SegmentEntry>, FormatError> {
    let count = cursor.u64()?;
    // The count allocates nothing by itself: a false one ends in Truncated.
    let mut segments: Vec<SegmentEntry> = Vec::new();
    for _ in 0..count {
        let offset = cursor.offset();
        let segment = SegmentEntry {
            name: file_name(cursor)?,
            file_id: FileId(cursor.array()?),
            first_lsn: Lsn(cursor.u64()?),
        };
        if let Some(last) = segments.last()
            && last.first_lsn > segment.first_lsn
        {
            return Err(FormatError::invalid(
                offset,
                "first LSN of a segment",
                format!("at least {}", last.first_lsn),
                segment.first_lsn,
            ));
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// A name that cannot lead out of the directory.
fn file_name(cursor: &mut Cursor<'_>) -> Result<String, FormatError> {
    let offset = cursor.offset();
    let name = cursor.text("file name")?;
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(FormatError::invalid(offset, "file name", "a plain file name", name.escape_debug()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(encrypted: bool) -> Manifest {
        let key = KeySlot { sequence: 1, key_name: "k".into(), nonce: [5; 12], wrapped: [6; 48] };
        let segment = |first: u64| SegmentEntry {
            name: format!("journal-{first:020}"),
            file_id: FileId([7; 16]),
            first_lsn: Lsn(first),
        };
        Manifest {
            lineage: LineageId([1; 16]),
            epoch: 3,
            number: 9,
            encrypted,
            file_id: FileId([2; 16]),
            key: encrypted.then_some(key),
            databases: 16,
            snapshot: Some(SnapshotEntry {
                name: "snapshot-00000000000000000100.cairn".into(),
                file_id: FileId([8; 16]),
                lsn: Lsn(100),
                bytes: 4096,
                entries: 11,
            }),
            segments: vec![segment(100), segment(100), segment(250)],
        }
    }

    #[test]
    fn manifests_come_back_as_they_went() {
        let plain = Manifest { snapshot: None, segments: Vec::new(), ..manifest(false) };
        for (manifest, tag) in [(manifest(true), Some([9; 16])), (manifest(false), None), (plain, None)] {
            let mut authenticated = Vec::new();
            let bytes = manifest.encode(|bytes| {
                authenticated = bytes.to_vec();
                [9; 16]
            });
            let Decoded { manifest: decoded, tag: found_tag, authenticated: found_bytes } =
                Manifest::decode(&bytes).unwrap();
            assert_eq!(decoded, manifest);
            assert_eq!(found_tag, tag);
            if manifest.encrypted {
                assert_eq!(found_bytes, authenticated);
            }
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_is_refused() {
        let bytes = manifest(true).encode(|_| [9; 16]);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            assert!(Manifest::decode(&bad).is_err(), "byte {at} flipped");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Manifest::decode(&longer).is_err());
    }

    #[test]
    fn a_right_checksum_does_not_excuse_wrong_fields() {
        let refused = |manifest: Manifest| Manifest::decode(&manifest.encode(|_| [0; 16])).unwrap_err();
        let mut backwards = manifest(false);
        backwards.segments.reverse();
        assert!(matches!(refused(backwards), FormatError::Invalid { what: "first LSN of a segment", .. }));
        let mut outside = manifest(false);
        outside.segments[0].name = "../journal".into();
        assert!(matches!(refused(outside), FormatError::Invalid { what: "file name", .. }));
    }

    #[test]
    fn persisted_numbers_stay() {
        let bytes = manifest(false).encode(|_| [0; 16]);
        assert_eq!(&bytes[..16], b"CAIRNMAN\x01\0\0\0\0\0\0\0");
        assert_eq!(bytes[48..56], 3_u64.to_le_bytes());
        assert_eq!(bytes[56..64], 9_u64.to_le_bytes());
        assert_eq!(bytes[64..68], 16_u32.to_le_bytes());
    }
}
