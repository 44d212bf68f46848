//! Bringing a file under the active master key: its data key stays, only the wrapping in its header is replaced.

use cairn_format::PAGE;
use cairn_format::header::{KeySlot, Magic, decode_header, next_slot};

use crate::{Keyring, SealError, unwrap, wrap};

/// A page of a file's header that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What stands there then.
    pub page: Box<[u8; PAGE]>,
}

impl SlotWrite {
    /// Does the same to a copy of the header.
    pub fn apply(&self, header: &mut [u8]) {
        let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
        if let Some(place) = header.get_mut(at..).and_then(|rest| rest.get_mut(..PAGE)) {
            place.copy_from_slice(&*self.page);
        }
    }
}

/// What is to be written next so that a file's key stands under the active master key, and under no other; `None` when that
/// is so, or the file is not encrypted. `header` is the file's, [`cairn_format::HEADER_BYTES`] long.
///
/// Each write is to be synced before the next one is asked for: the new wrapping goes into the slot that does not count, and
/// only when it is there for certain the old one is written over. So wherever this ends, the file can be opened, and asking
/// again goes on from there.
///
/// # Errors
/// [`SealError::Format`] for a header that is none, [`SealError::WrongKey`] where the keyring does not open the file.
pub fn next_rewrap(header: &[u8], magic: Magic, keyring: &Keyring) -> Result<Option<SlotWrite>, SealError> {
    let (identity, Some(newest)) = decode_header(header, magic)? else { return Ok(None) };
    // Also where it bears the right name: another key may bear it too, and nothing may be written over then.
    let key = unwrap(keyring, magic, identity.file_id, &newest)?;
    let slot = |at: usize| header.get(at * PAGE..(at + 1) * PAGE).unwrap_or_default();
    let (offset, sequence) = next_slot(slot(1), slot(2))?;
    let active = keyring.active().name();
    if newest.key_name == active {
        let other = slot(if offset == PAGE as u64 { 1 } else { 2 });
        let is_done = match KeySlot::decode(other, offset) {
            Ok(None) => true,
            Ok(Some(other)) => other.key_name == active,
            // A write that was interrupted: what it was to replace may still be legible.
            Err(_) => false,
        };
        if is_done {
            return Ok(None);
        }
    }
    let page = Box::new(wrap(keyring, magic, identity.file_id, &key, sequence)?.encode());
    Ok(Some(SlotWrite { offset, page }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataKey, new_data_key};
    use cairn_format::header::{Body, Identity, SnapshotBody, encode_header, newest_slot};
    use cairn_format::{FileId, LineageId, Lsn};

    const MAGIC: Magic = Magic::Snapshot;

    fn identity(encrypted: bool) -> Identity {
        Identity {
            magic: MAGIC,
            encrypted,
            file_id: FileId([7; 16]),
            lineage: LineageId([2; 16]),
            created_unix_ms: 1,
            body: Body::Snapshot(SnapshotBody { lsn: Lsn(9) }),
        }
    }

    fn sealed(keyring: &Keyring) -> (Vec<u8>, DataKey) {
        let (identity, key) = (identity(true), new_data_key().unwrap());
        let slot = wrap(keyring, MAGIC, identity.file_id, &key, 1).unwrap();
        (encode_header(&identity, Some(&slot)), key)
    }

    fn opens(header: &[u8], keyring: &Keyring, key: &DataKey) -> bool {
        let slot = newest_slot(&header[PAGE..2 * PAGE], &header[2 * PAGE..]).unwrap().unwrap();
        unwrap(keyring, MAGIC, FileId([7; 16]), &slot).is_ok_and(|found| found.bytes() == key.bytes())
    }

    fn only(keyring: &Keyring) -> Keyring {
        let text = keyring.encode();
        Keyring::parse(text.lines().last().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn two_writes_leave_nothing_under_the_old_key() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let (mut header, key) = sealed(&old);
        assert_eq!(next_rewrap(&header, MAGIC, &old).unwrap(), None);
        let mut offsets = Vec::new();
        while let Some(write) = next_rewrap(&header, MAGIC, &both).unwrap() {
            offsets.push(write.offset);
            write.apply(&mut header);
            assert!(opens(&header, &both, &key) && opens(&header, &only(&both), &key));
        }
        assert_eq!(offsets, [8192, 4096]);
        assert!(!opens(&header, &old, &key));
        let old_name = old.active().name().as_bytes();
        assert!(!header.windows(old_name.len()).any(|bytes| bytes == old_name), "the old wrapping is there");
        // And once more, the other way round.
        let third = both.rotated().unwrap();
        let first = next_rewrap(&header, MAGIC, &third).unwrap().unwrap();
        assert_eq!(first.offset, 8192, "the slot that does not count");
    }

    /// Every 512-byte sector of every write for itself: whatever arrived, the file opens, and rewrapping ends as it should.
    #[test]
    fn a_write_that_is_torn_anywhere_is_taken_up_again() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let (mut header, key) = sealed(&old);
        while let Some(write) = next_rewrap(&header, MAGIC, &both).unwrap() {
            for arrived in 0..256_u32 {
                let mut torn = header.clone();
                let mut whole = header.clone();
                write.apply(&mut whole);
                for sector in 0..8 {
                    if arrived & (1 << sector) != 0 {
                        let at = usize::try_from(write.offset).unwrap() + sector * 512;
                        torn[at..at + 512].copy_from_slice(&whole[at..at + 512]);
                    }
                }
                assert!(opens(&torn, &both, &key), "sectors {arrived:08b} at {}", write.offset);
                while let Some(again) = next_rewrap(&torn, MAGIC, &both).unwrap() {
                    again.apply(&mut torn);
                }
                assert!(opens(&torn, &only(&both), &key) && !opens(&torn, &old, &key));
            }
            write.apply(&mut header);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_not_touched() {
        let (header, _) = sealed(&Keyring::generate().unwrap());
        let other = Keyring::generate().unwrap();
        assert!(matches!(next_rewrap(&header, MAGIC, &other), Err(SealError::WrongKey { .. })));
        assert!(matches!(next_rewrap(&header, Magic::Journal, &other), Err(SealError::Format(_))));
        assert!(matches!(next_rewrap(&header[..PAGE], MAGIC, &other), Err(SealError::Format(_))));
        let plain = encode_header(&identity(false), None);
        assert_eq!(next_rewrap(&plain, MAGIC, &other).unwrap(), None);
    }
}
