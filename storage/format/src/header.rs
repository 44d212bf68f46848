//! The 12,288-byte header of journal segments and snapshots: one identity page and two key slots.
//!
//! The law: `storage/docs/seal.md`.

use crate::wire::{Cursor, check_trailing_crc, push_crc, push_text};
use crate::{FORMAT_VERSION, FileId, FormatError, HEADER_BYTES, LineageId, Lsn, PAGE};

/// The longest name of a master key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 64;

/// What kind of file it is: its first 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Magic {
    /// A journal segment.
    Journal,
    /// A snapshot container.
    Snapshot,
    /// A manifest.
    Manifest,
}

impl Magic {
    /// The bytes on disk.
    pub const fn bytes(self) -> [u8; 8] {
        match self {
            Magic::Journal => *b"CAIRNJNL",
            Magic::Snapshot => *b"CAIRNSNP",
            Magic::Manifest => *b"CAIRNMAN",
        }
    }

    pub(crate) fn check(self, found: [u8; 8], offset: u64) -> Result<(), FormatError> {
        if found == self.bytes() {
            return Ok(());
        }
        Err(FormatError::BadMagic {
            offset,
            expected: self.bytes().escape_ascii().to_string(),
            found: found.escape_ascii().to_string(),
        })
    }
}

/// Page 0 of a header: which file this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What kind of file it is; agrees with `body`.
    pub magic: Magic,
    /// Whether the contents are sealed; then one of the key slots holds the data key.
    pub encrypted: bool,
    /// The file's own random id.
    pub file_id: FileId,
    /// The history the file belongs to.
    pub lineage: LineageId,
    /// When the file was begun, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What only this kind of file has.
    pub body: Body,
}

/// The part of an identity that depends on the kind of file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Of a journal segment.
    Journal(JournalBody),
    /// Of a snapshot.
    Snapshot(SnapshotBody),
}

/// What a journal segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBody {
    /// The LSN of the segment's first effect.
    pub first_lsn: Lsn,
    /// The start of the server that wrote it; rises by one with each.
    pub epoch: u64,
    /// The segment before it; none for the first of a lineage.
    pub predecessor: Option<Predecessor>,
}

/// Where a segment continues: the end of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// The id of the earlier segment.
    pub file_id: FileId,
    /// The LSN where its valid frames end and the later segment begins.
    pub end_lsn: Lsn,
    /// Its hash chain at that LSN.
    pub chain: [u8; 32],
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotBody {
    /// The snapshot holds exactly the effects below this LSN.
    pub lsn: Lsn,
}

impl Identity {
    /// Page 0.
    pub fn encode(&self) -> [u8; PAGE] {
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(&self.magic.bytes());
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&[u8::from(self.encrypted), 0, 0, 0]);
        page.extend_from_slice(&self.file_id.0);
        page.extend_from_slice(&self.lineage.0);
        page.extend_from_slice(&self.created_unix_ms.to_le_bytes());
        match &self.body {
            Body::Journal(body) => body.encode(&mut page),
            Body::Snapshot(body) => page.extend_from_slice(&body.lsn.0.to_le_bytes()),
        }
        into_page(page)
    }

    /// Reads page 0 of a file that should be of the kind `expect`.
    ///
    /// # Errors
    /// Another magic, a wrong checksum, an unknown version or a field that cannot be; offsets are those of the file.
    pub fn decode(page: &[u8], expect: Magic) -> Result<Identity, FormatError> {
        let page = exact_page(page, 0)?;
        let mut cursor = Cursor::new(page, 0);
        expect.check(cursor.array()?, 0)?;
        let covered = check_trailing_crc(page, 0, "file header")?;
        let mut cursor = Cursor::new(covered, 0);
        cursor.take(8)?;
        check_version(cursor.u32()?)?;
        let encrypted = cursor.flag("encrypted")?;
        cursor.zeros(3, "reserved bytes")?;
        let file_id = FileId(cursor.array()?);
        let lineage = LineageId(cursor.array()?);
        let created_unix_ms = cursor.u64()?;
        let body = match expect {
            Magic::Journal => Body::Journal(JournalBody::decode(&mut cursor)?),
            Magic::Snapshot => Body::Snapshot(SnapshotBody { lsn: Lsn(cursor.u64()?) }),
            Magic::Manifest => {
                return Err(FormatError::invalid(0, "magic", "a file with a header", "manifest"));
            }
        };
        cursor.zeros(cursor.remaining(), "padding")?;
        Ok(Identity { magic: expect, encrypted, file_id, lineage, created_unix_ms, body })
    }
}

impl JournalBody {
    fn encode(&self, page: &mut Vec<u8>) {
        page.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        page.extend_from_slice(&self.epoch.to_le_bytes());
        page.push(u8::from(self.predecessor.is_some()));
        page.extend_from_slice(&[0; 7]);
        if let Some(predecessor) = &self.predecessor {
            page.extend_from_slice(&predecessor.file_id.0);
            page.extend_from_slice(&predecessor.end_lsn.0.to_le_bytes());
            page.extend_from_slice(&predecessor.chain);
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<JournalBody, FormatError> {
        let first_lsn = Lsn(cursor.u64()?);
        let epoch = cursor.u64()?;
        let has_predecessor = cursor.flag("predecessor present")?;
        cursor.zeros(7, "reserved bytes")?;
        let predecessor = if has_predecessor {
            Some(Predecessor {
                file_id: FileId(cursor.array()?),
                end_lsn: Lsn(cursor.u64()?),
                chain: cursor.array()?,
            })
        } else {
            None
        };
        Ok(JournalBody { first_lsn, epoch, predecessor })
    }
}

/// A wrapped data key, in a page that can be replaced alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// Rises by one with each rewrapping; the greatest valid one counts.
    pub sequence: u64,
    /// The name of the master key it is wrapped under, of at most [`KEY_NAME_BYTES_MAX`] bytes.
    pub key_name: String,
    /// The nonce of the wrapping.
    pub nonce: [u8; 12],
    /// The data key, encrypted, and its tag.
    pub wrapped: [u8; 48],
}

impl KeySlot {
    /// The slot as a page.
    pub fn encode(&self) -> [u8; PAGE] {
        let mut page = Vec::with_capacity(PAGE);
        self.encode_fields(&mut page);
        into_page(page)
    }

    /// Reads a slot that stands `offset` bytes into its file; `None` for a page of zeros.
    ///
    /// # Errors
    /// A page that is neither zeros nor a slot with a right checksum.
    pub fn decode(page: &[u8], offset: u64) -> Result<Option<KeySlot>, FormatError> {
        let page = exact_page(page, offset)?;
        if page.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let covered = check_trailing_crc(page, offset, "key slot")?;
        let mut cursor = Cursor::new(covered, offset);
        let slot = KeySlot::decode_fields(&mut cursor)?;
        cursor.zeros(cursor.remaining(), "padding")?;
        Ok(Some(slot))
    }

    pub(crate) fn encode_fields(&self, bytes: &mut Vec<u8>) {
        assert!(self.key_name.len() <= KEY_NAME_BYTES_MAX, "key names are checked when a keyring is read");
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        push_text(bytes, &self.key_name);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.wrapped);
    }

    pub(crate) fn decode_fields(cursor: &mut Cursor<'_>) -> Result<KeySlot, FormatError> {
        let sequence = cursor.u64()?;
        let offset = cursor.offset();
        let key_name = cursor.text("key name")?;
        if key_name.is_empty() || key_name.len() > KEY_NAME_BYTES_MAX {
            return Err(FormatError::invalid(offset, "length of the key name", "1 to 64", key_name.len()));
        }
        Ok(KeySlot { sequence, key_name, nonce: cursor.array()?, wrapped: cursor.array()? })
    }
}

/// The slot that counts: the valid one with the greatest sequence. `None` when both pages are zeros.
///
/// # Errors
/// A damaged page, unless the other holds a valid slot: a rewrapping that was interrupted leaves such a page.
pub fn newest_slot(page1: &[u8], page2: &[u8]) -> Result<Option<KeySlot>, FormatError> {
    let [first, second] = decode_slots(page1, page2);
    match (first, second) {
        (Ok(Some(a)), Ok(Some(b))) => Ok(Some(if b.sequence > a.sequence { b } else { a })),
        (Ok(Some(slot)), _) | (_, Ok(Some(slot))) => Ok(Some(slot)),
        (Ok(None), Ok(None)) => Ok(None),
        (Err(damage), _) | (_, Err(damage)) => Err(damage),
    }
}

/// Where a rewrapped key goes, so that the slot that counts stays until the new one is synced: the offset of the other
/// slot's page in the file, and the new slot's sequence.
///
/// # Errors
/// As [`newest_slot`]; and [`FormatError::Invalid`] when neither slot holds a key.
pub fn next_slot(page1: &[u8], page2: &[u8]) -> Result<(u64, u64), FormatError> {
    let Some(newest) = newest_slot(page1, page2)? else {
        return Err(FormatError::invalid(PAGE as u64, "key slots", "a wrapped key", "zeros"));
    };
    let [first, _] = decode_slots(page1, page2);
    let newest_is_first = matches!(&first, Ok(Some(slot)) if *slot == newest);
    let offset = if newest_is_first { 2 * PAGE } else { PAGE };
    Ok((offset as u64, newest.sequence.saturating_add(1)))
}

fn decode_slots(page1: &[u8], page2: &[u8]) -> [Result<Option<KeySlot>, FormatError>; 2] {
    [KeySlot::decode(page1, PAGE as u64), KeySlot::decode(page2, 2 * PAGE as u64)]
}

/// A whole header: the identity page, the key in slot A when there is one, slot B empty.
pub fn encode_header(identity: &Identity, key: Option<&KeySlot>) -> Vec<u8> {
    assert_eq!(identity.encrypted, key.is_some(), "an encrypted file, and no other, has a key");
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&identity.encode());
    if let Some(slot) = key {
        header.extend_from_slice(&slot.encode());
    }
    header.resize(HEADER_BYTES, 0);
    header
}

/// Reads a whole header from the start of a file.
///
/// # Errors
/// As [`Identity::decode`] and [`newest_slot`], and when `encrypted` and the slots disagree.
pub fn decode_header(bytes: &[u8], expect: Magic) -> Result<(Identity, Option<KeySlot>), FormatError> {
    let mut cursor = Cursor::new(bytes, 0);
    let identity = Identity::decode(cursor.take(PAGE)?, expect)?;
    let slot = newest_slot(cursor.take(PAGE)?, cursor.take(PAGE)?)?;
    match (identity.encrypted, slot.is_some()) {
        (true, false) => Err(FormatError::invalid(PAGE as u64, "key slots", "a wrapped key", "zeros")),
        (false, true) => Err(FormatError::invalid(PAGE as u64, "key slots", "zeros", "a wrapped key")),
        _ => Ok((identity, slot)),
    }
}

pub(crate) fn check_version(found: u32) -> Result<(), FormatError> {
    if found == FORMAT_VERSION {
        Ok(())
    } else {
        Err(FormatError::UnknownVersion { found, known: FORMAT_VERSION })
    }
}

/// Pads to a page and puts the checksum into its last 4 bytes.
fn into_page(mut bytes: Vec<u8>) -> [u8; PAGE] {
    assert!(bytes.len() <= PAGE - 4, "the fields of a page fit it");
    bytes.resize(PAGE - 4, 0);
    push_crc(&mut bytes);
    let mut page = [0; PAGE];
    page.copy_from_slice(&bytes);
    page
}

fn exact_page(page: &[u8], offset: u64) -> Result<&[u8], FormatError> {
    page.get(..PAGE).ok_or(FormatError::Truncated {
        offset,
        needed: PAGE as u64,
        available: page.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(predecessor: Option<Predecessor>) -> Identity {
        Identity {
            magic: Magic::Journal,
            encrypted: true,
            file_id: FileId([1; 16]),
            lineage: LineageId([2; 16]),
            created_unix_ms: 1_795_000_000_000,
            body: Body::Journal(JournalBody { first_lsn: Lsn(77), epoch: 5, predecessor }),
        }
    }

    fn slot(sequence: u64) -> KeySlot {
        KeySlot { sequence, key_name: "k-20261123-01020304".into(), nonce: [3; 12], wrapped: [4; 48] }
    }

    #[test]
    fn headers_come_back_as_they_went() {
        let predecessor = Predecessor { file_id: FileId([9; 16]), end_lsn: Lsn(77), chain: [8; 32] };
        for identity in [journal(None), journal(Some(predecessor))] {
            let bytes = encode_header(&identity, Some(&slot(1)));
            assert_eq!(bytes.len(), HEADER_BYTES);
            assert_eq!(decode_header(&bytes, Magic::Journal), Ok((identity, Some(slot(1)))));
        }
        let snapshot = Identity {
            magic: Magic::Snapshot,
            encrypted: false,
            body: Body::Snapshot(SnapshotBody { lsn: Lsn(12) }),
            ..journal(None)
        };
        assert_eq!(decode_header(&encode_header(&snapshot, None), Magic::Snapshot), Ok((snapshot, None)));
    }

    #[test]
    fn persisted_numbers_stay() {
        let page = journal(None).encode();
        assert_eq!(&page[..16], b"CAIRNJNL\x01\0\0\0\x01\0\0\0");
        assert_eq!(Magic::Snapshot.bytes(), *b"CAIRNSNP");
        assert_eq!(Magic::Manifest.bytes(), *b"CAIRNMAN");
        assert_eq!(page[16..32], [1; 16]);
        assert_eq!(page[32..48], [2; 16]);
        assert_eq!(page[48..56], 1_795_000_000_000_u64.to_le_bytes());
        assert_eq!(page[56..64], 77_u64.to_le_bytes());
        assert_eq!(page[64..72], 5_u64.to_le_bytes());
        let page = slot(7).encode();
        assert_eq!(page[..8], 7_u64.to_le_bytes());
        assert_eq!(page[8], 19);
    }

    #[test]
    fn every_flipped_bit_of_an_identity_is_refused() {
        let page = journal(None).encode();
        for at in 0..PAGE {
            let mut bad = page;
            bad[at] ^= 1 << (at % 8);
            assert!(Identity::decode(&bad, Magic::Journal).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_kind_and_another_version_are_named() {
        let page = journal(None).encode();
        assert!(matches!(Identity::decode(&page, Magic::Snapshot), Err(FormatError::BadMagic { .. })));
        let mut newer = page[..PAGE - 4].to_vec();
        newer[8] = 2;
        push_crc(&mut newer);
        let refused = Identity::decode(&newer, Magic::Journal);
        assert_eq!(refused, Err(FormatError::UnknownVersion { found: 2, known: 1 }));
    }

    #[test]
    fn a_cut_page_is_truncated() {
        let page = journal(None).encode();
        for length in 0..PAGE {
            let cut = Identity::decode(&page[..length], Magic::Journal);
            assert!(matches!(cut, Err(FormatError::Truncated { .. })), "{length} bytes");
        }
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        let (old, new, zero) = (slot(1).encode(), slot(2).encode(), [0; PAGE]);
        let mut torn = new;
        torn[100] ^= 1;
        assert_eq!(newest_slot(&old, &new), Ok(Some(slot(2))));
        assert_eq!(newest_slot(&new, &old), Ok(Some(slot(2))));
        assert_eq!(newest_slot(&old, &torn), Ok(Some(slot(1))));
        assert_eq!(newest_slot(&torn, &old), Ok(Some(slot(1))));
        assert_eq!(newest_slot(&zero, &zero), Ok(None));
        assert!(matches!(newest_slot(&torn, &zero), Err(FormatError::BadCrc { offset: 4096, .. })));
        assert!(matches!(newest_slot(&zero, &torn), Err(FormatError::BadCrc { offset: 8192, .. })));
    }

    #[test]
    fn a_rewrapped_key_takes_the_other_slot() {
        let (old, new, zero) = (slot(1).encode(), slot(2).encode(), [0; PAGE]);
        assert_eq!(next_slot(&old, &zero), Ok((8192, 2)));
        assert_eq!(next_slot(&old, &new), Ok((4096, 3)));
        assert_eq!(next_slot(&new, &old), Ok((8192, 3)));
        assert!(next_slot(&zero, &zero).is_err());
    }

    #[test]
    fn encrypted_and_the_slots_agree() {
        let mut bytes = encode_header(&journal(None), Some(&slot(1)));
        bytes[PAGE..].fill(0);
        assert!(matches!(decode_header(&bytes, Magic::Journal), Err(FormatError::Invalid { .. })));
        let plain = Identity { encrypted: false, ..journal(None) };
        let mut bytes = encode_header(&plain, None);
        bytes[PAGE..2 * PAGE].copy_from_slice(&slot(1).encode());
        assert!(matches!(decode_header(&bytes, Magic::Journal), Err(FormatError::Invalid { .. })));
    }
}
