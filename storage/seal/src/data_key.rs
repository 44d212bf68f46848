//! Data keys, one for each file, and their wrapping under a master key.

use aes_gcm::Nonce;
use aes_gcm::aead::AeadInOut;
use cairn_format::FileId;
use cairn_format::header::{KeySlot, Magic};
use zeroize::Zeroizing;

use crate::chunk::cipher;
use crate::{Keyring, MasterKey, SealError, TAG_BYTES, fill_random, random};

/// The key of one file. On the heap, so that moving it leaves no copy behind; zeroized on drop.
#[derive(Clone)]
pub struct DataKey(Box<Zeroizing<[u8; 32]>>);

impl DataKey {
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> DataKey {
        DataKey(Box::new(Zeroizing::new(bytes)))
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey")
    }
}

/// A new random data key.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn new_data_key() -> Result<DataKey, SealError> {
    let mut key = Box::new(Zeroizing::new([0; 32]));
    fill_random(key.as_mut_slice())?;
    Ok(DataKey(key))
}

/// Wraps the data key of a file under the keyring's active master key.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn wrap(
    keyring: &Keyring,
    magic: Magic,
    file_id: FileId,
    key: &DataKey,
    sequence: u64,
) -> Result<KeySlot, SealError> {
    let master = keyring.active();
    let nonce: [u8; 12] = random()?;
    let mut wrapped = [0; 48];
    if let Some((secret, tag_place)) = wrapped.split_first_chunk_mut::<32>() {
        secret.copy_from_slice(key.bytes());
        let associated = wrap_associated(magic, file_id, master.name());
        let tag = cipher(master.bytes())
            .encrypt_inout_detached(&Nonce::from(nonce), &associated, secret.as_mut_slice().into())
            .unwrap_or_else(|_| panic!("32 bytes are never too long for AES-GCM"));
        tag_place.copy_from_slice(&tag);
    }
    Ok(KeySlot { sequence, key_name: master.name().to_owned(), nonce, wrapped })
}

/// Gets the data key of a file back: from the wrapping that the keyring knows beside the file, else from the one in its
/// header, `slot`.
///
/// # Errors
/// [`SealError::WrongKey`] when the keyring lacks the master key or has another under its name.
pub fn unwrap(
    keyring: &Keyring,
    magic: Magic,
    file_id: FileId,
    slot: &KeySlot,
) -> Result<DataKey, SealError> {
    let beside = keyring.slot_of(file_id).and_then(|slot| {
        keyring.get(&slot.key_name).and_then(|master| open_slot(master, magic, file_id, slot))
    });
    if let Some(key) = beside {
        return Ok(key);
    }
    let wrong_key = || SealError::WrongKey {
        needed: slot.key_name.clone(),
        have: keyring.names().map(str::to_owned).collect(),
    };
    let master = keyring.get(&slot.key_name).ok_or_else(wrong_key)?;
    open_slot(master, magic, file_id, slot).ok_or_else(wrong_key)
}

fn open_slot(master: &MasterKey, magic: Magic, file_id: FileId, slot: &KeySlot) -> Option<DataKey> {
    let secret = slot.wrapped.first_chunk::<32>()?;
    let tag = slot.wrapped.last_chunk::<TAG_BYTES>()?;
    let mut key = Box::new(Zeroizing::new(*secret));
    let associated = wrap_associated(magic, file_id, &slot.key_name);
    cipher(master.bytes())
        .decrypt_inout_detached(
            &Nonce::from(slot.nonce),
            &associated,
            key.as_mut_slice().into(),
            &(*tag).into(),
        )
        .ok()?;
    Some(DataKey(key))
}

fn wrap_associated(magic: Magic, file_id: FileId, key_name: &str) -> Vec<u8> {
    [b"cairn wrap 1".as_slice(), &magic.bytes(), &file_id.0, key_name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FileId = FileId([7; 16]);

    #[test]
    fn wrapped_keys_come_back_from_the_right_keyring_only() {
        let keyring = Keyring::generate().unwrap();
        let key = new_data_key().unwrap();
        let slot = wrap(&keyring, Magic::Journal, ID, &key, 3).unwrap();
        assert_eq!((slot.sequence, slot.key_name.as_str()), (3, keyring.active().name()));
        assert_ne!(&slot.wrapped[..32], key.bytes());
        let back = unwrap(&keyring, Magic::Journal, ID, &slot).unwrap();
        assert_eq!(back.bytes(), key.bytes());

        let wrong = |result: Result<DataKey, SealError>| matches!(result, Err(SealError::WrongKey { .. }));
        assert!(wrong(unwrap(&Keyring::generate().unwrap(), Magic::Journal, ID, &slot)));
        assert!(wrong(unwrap(&keyring, Magic::Snapshot, ID, &slot)), "moved to a file of another kind");
        assert!(wrong(unwrap(&keyring, Magic::Journal, FileId([8; 16]), &slot)), "moved to another file");
        let impostor = format!("{} {}\n", slot.key_name, "00".repeat(32));
        let impostor = Keyring::parse(impostor.as_bytes()).unwrap();
        assert!(wrong(unwrap(&impostor, Magic::Journal, ID, &slot)), "another key of the same name");
        for at in 0..48 {
            let mut bad = slot.clone();
            bad.wrapped[at] ^= 1;
            assert!(wrong(unwrap(&keyring, Magic::Journal, ID, &bad)), "byte {at}");
        }
    }

    #[test]
    fn a_new_active_key_still_opens_what_the_old_one_wrapped() {
        let old = Keyring::generate().unwrap();
        let key = new_data_key().unwrap();
        let slot = wrap(&old, Magic::Snapshot, ID, &key, 1).unwrap();
        let rotated = old.rotated().unwrap();
        assert_eq!(unwrap(&rotated, Magic::Snapshot, ID, &slot).unwrap().bytes(), key.bytes());
        let newer = wrap(&rotated, Magic::Snapshot, ID, &key, 2).unwrap();
        assert_ne!(newer.key_name, slot.key_name);
        assert!(unwrap(&old, Magic::Snapshot, ID, &newer).is_err());
    }

    #[test]
    fn a_wrapping_beside_the_file_is_preferred_and_a_false_one_changes_nothing() {
        let old = Keyring::generate().unwrap();
        let key = new_data_key().unwrap();
        let slot = wrap(&old, Magic::Snapshot, ID, &key, 1).unwrap();
        let new = Keyring::generate().unwrap();
        let beside = wrap(&new, Magic::Snapshot, ID, &key, 2).unwrap();
        let known = |keyring: &Keyring, slot: &KeySlot| keyring.with_slots([(ID, slot.clone())].into());
        assert!(unwrap(&new, Magic::Snapshot, ID, &slot).is_err());
        let found = unwrap(&known(&new, &beside), Magic::Snapshot, ID, &slot).unwrap();
        assert_eq!(found.bytes(), key.bytes());
        // Another file's, or one whose key is not had: the header's slot is there still.
        let others = wrap(&old, Magic::Snapshot, FileId([8; 16]), &new_data_key().unwrap(), 2).unwrap();
        for false_one in [&others, &beside] {
            let found = unwrap(&known(&old, false_one), Magic::Snapshot, ID, &slot).unwrap();
            assert_eq!(found.bytes(), key.bytes());
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let key = DataKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "DataKey");
    }
}
