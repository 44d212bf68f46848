//! Authenticating manifests: the tag over all of a manifest, under a data key of its own.

use cairn_format::header::Magic;
use cairn_format::manifest::{Decoded, Manifest};

use crate::{Keyring, SealError, Sealer, new_data_key, new_file_id, unwrap, wrap};

/// The bytes of a manifest as a new file: draws its file id and, with a keyring, its data key; `encrypted`, `file_id`
/// and `key` of the manifest given are set accordingly.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn seal_manifest(manifest: &mut Manifest, keyring: Option<&Keyring>) -> Result<Vec<u8>, SealError> {
    manifest.file_id = new_file_id()?;
    manifest.encrypted = keyring.is_some();
    manifest.key = None;
    let Some(keyring) = keyring else {
        return Ok(manifest.encode(|_| [0; 16]));
    };
    let key = new_data_key()?;
    manifest.key = Some(wrap(keyring, Magic::Manifest, manifest.file_id, &key, 1)?);
    let sealer = Sealer::new(&key, manifest.file_id);
    Ok(manifest.encode(|bytes| sealer.seal_in_place(0, true, bytes, &mut [])))
}

/// Reads a manifest and checks its tag when it has one.
///
/// # Errors
/// [`SealError::Format`] for damage, [`SealError::WrongKey`] for an encrypted one without the right keyring,
/// [`SealError::Forged`].
pub fn open_manifest(bytes: &[u8], keyring: Option<&Keyring>) -> Result<Manifest, SealError> {
    let Decoded { manifest, tag, authenticated } = Manifest::decode(bytes)?;
    let (Some(slot), Some(tag)) = (&manifest.key, tag) else {
        return Ok(manifest);
    };
    let Some(keyring) = keyring else {
        return Err(SealError::WrongKey { needed: slot.key_name.clone(), have: Vec::new() });
    };
    let key = unwrap(keyring, Magic::Manifest, manifest.file_id, slot)?;
    Sealer::new(&key, manifest.file_id).open_in_place(0, true, authenticated, &mut [], &tag)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_format::manifest::SegmentEntry;
    use cairn_format::{FileId, LineageId, Lsn};

    fn manifest() -> Manifest {
        let segment = SegmentEntry { name: "journal-0".into(), file_id: FileId([4; 16]), first_lsn: Lsn(0) };
        Manifest {
            lineage: LineageId([1; 16]),
            epoch: 1,
            number: 2,
            encrypted: false,
            file_id: FileId::default(),
            key: None,
            databases: 16,
            snapshot: None,
            segments: vec![segment],
        }
    }

    #[test]
    fn manifests_open_with_their_keyring_only() {
        let keyring = Keyring::generate().unwrap();
        let mut sealed = manifest();
        let bytes = seal_manifest(&mut sealed, Some(&keyring)).unwrap();
        assert!(sealed.encrypted && sealed.key.is_some());
        assert_eq!(open_manifest(&bytes, Some(&keyring)).unwrap(), sealed);
        assert!(matches!(open_manifest(&bytes, None), Err(SealError::WrongKey { .. })));
        let other = Keyring::generate().unwrap();
        assert!(matches!(open_manifest(&bytes, Some(&other)), Err(SealError::WrongKey { .. })));

        let mut plain = manifest();
        let bytes = seal_manifest(&mut plain, None).unwrap();
        assert_eq!(open_manifest(&bytes, None).unwrap(), plain);
        assert_eq!(open_manifest(&bytes, Some(&keyring)).unwrap(), plain);
    }

    #[test]
    fn a_changed_manifest_with_a_mended_checksum_is_forged() {
        let keyring = Keyring::generate().unwrap();
        let bytes = seal_manifest(&mut manifest(), Some(&keyring)).unwrap();
        let mut forged = bytes[..bytes.len() - 4].to_vec();
        forged[48] ^= 1;
        cairn_format::wire::push_crc(&mut forged);
        assert!(matches!(open_manifest(&forged, Some(&keyring)), Err(SealError::Forged { chunk: 0 })));
    }

    #[test]
    fn each_manifest_has_its_own_id_and_key() {
        let keyring = Keyring::generate().unwrap();
        let mut manifest = manifest();
        let first = seal_manifest(&mut manifest, Some(&keyring)).unwrap();
        let (id, key) = (manifest.file_id, manifest.key.clone());
        let second = seal_manifest(&mut manifest, Some(&keyring)).unwrap();
        assert_ne!((id, key), (manifest.file_id, manifest.key.clone()));
        assert_ne!(first, second);
    }
}
