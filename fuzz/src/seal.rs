//! Sealed chunks, keyrings and manifests.

use std::sync::LazyLock;

use cairn_format::header::KeySlot;
use cairn_format::manifest::Manifest;
use cairn_seal::{Keyring, Sealer, TAG_BYTES, open_manifest};

use crate::fixture::{KEYRING, SEGMENTS};
use crate::mend;

static SEALER: LazyLock<Sealer> =
    LazyLock::new(|| SEGMENTS[1].sealer().expect("the second fixture is encrypted"));

/// Reads `data` as a chunk (number u64, finality u8, length of the clear bytes u8, clear bytes, sealed bytes, tag), as a
/// page with a wrapped key, and as the text of a keyring.
pub fn sealed_chunk(data: &[u8]) {
    chunk(data);
    if let Ok(keyring) = Keyring::parse(data) {
        let again = Keyring::parse(keyring.encode().as_bytes()).expect("what was written");
        assert_eq!(again.encode().as_bytes(), keyring.encode().as_bytes());
    }
    let mut page = vec![0; cairn_format::PAGE];
    let used = data.len().min(page.len());
    page[..used].copy_from_slice(&data[..used]);
    mend::trailing(&mut page);
    if let Ok(Some(slot)) = KeySlot::decode(&page, 0) {
        assert_eq!(slot.encode(), page.as_slice());
    }
}

fn chunk(data: &[u8]) -> Option<()> {
    let (number, rest) = data.split_first_chunk::<8>()?;
    let (&[is_final, clear_bytes], rest) = rest.split_first_chunk::<2>()?;
    let (number, is_final) = (u64::from_le_bytes(*number), is_final & 1 == 1);
    let (clear, rest) = rest.split_at_checked(usize::from(clear_bytes))?;
    let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>()?;

    let mut opened = sealed.to_vec();
    match SEALER.open_in_place(number, is_final, clear, &mut opened, tag) {
        Ok(()) => {
            let again = SEALER.seal_in_place(number, is_final, clear, &mut opened);
            assert_eq!((opened.as_slice(), again), (sealed, *tag), "sealing is a function of its input");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(opened, sealed, "a refused chunk is left as it was");
        }
    }
    let mut buf = sealed.to_vec();
    let tag = SEALER.seal_in_place(number, is_final, clear, &mut buf);
    assert!(SEALER.open_in_place(number, !is_final, clear, &mut buf, &tag).is_err());
    assert!(SEALER.open_in_place(number ^ 1, is_final, clear, &mut buf, &tag).is_err());
    SEALER.open_in_place(number, is_final, clear, &mut buf, &tag).expect("what was sealed opens");
    assert_eq!(buf, sealed);
    Some(())
}

/// Reads `data` as a manifest.
pub fn manifest(data: &[u8]) {
    read_manifest(data);
    let mut mended = data.to_vec();
    mend::trailing(&mut mended);
    read_manifest(&mended);
}

fn read_manifest(bytes: &[u8]) {
    match Manifest::decode(bytes) {
        Ok(decoded) => {
            let written = decoded.manifest.encode(|authenticated| {
                assert_eq!(authenticated, decoded.authenticated);
                decoded.tag.expect("an encrypted manifest has a tag")
            });
            assert_eq!(written, bytes, "a manifest is written as it was read");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let without_key = open_manifest(bytes, None);
    match open_manifest(bytes, Some(&KEYRING)) {
        Ok(manifest) => assert_eq!(without_key.is_ok(), !manifest.encrypted),
        Err(error) => assert!(without_key.is_err() && !error.to_string().is_empty()),
    }
}
