//! Manifests of format version 1, plain and encrypted, and their keyring, as a released program wrote them: they stay
//! readable for ever. They name the files in `storage/journal/fixtures/v1` and `storage/snapshot/fixtures/v1`, and make
//! data directories with them. They are never written again: a new version of the format gets fixtures of its own.

use std::path::{Path, PathBuf};

use cairn_format::header::KeySlot;
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{FileId, FormatError, LineageId, Lsn};
use cairn_seal::{Keyring, SealError, open_manifest};

fn read(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn keyring() -> Keyring {
    Keyring::parse(&read("keyring")).expect("a keyring")
}

/// A manifest of the ids that were drawn when its fixture was written: its own, the snapshot's, the segments'.
fn manifest(ids: [u128; 4], snapshot_bytes: u64, key: Option<KeySlot>) -> Manifest {
    let [own, snapshot, first, second] = ids.map(|id| FileId(id.to_be_bytes()));
    let segment =
        |lsn: u64, file_id| SegmentEntry { name: format!("journal-{lsn:020}"), file_id, first_lsn: Lsn(lsn) };
    Manifest {
        lineage: LineageId(*b"fixture lineage."),
        epoch: 1,
        number: 3,
        encrypted: key.is_some(),
        file_id: own,
        key,
        databases: 16,
        snapshot: Some(SnapshotEntry {
            name: "snapshot-00000000000000000221.cairn".into(),
            file_id: snapshot,
            lsn: Lsn(221),
            bytes: snapshot_bytes,
            entries: 4,
        }),
        segments: vec![segment(0, first), segment(221, second)],
    }
}

#[test]
fn the_keyring_of_version_1_opens() {
    let keyring = keyring();
    assert_eq!(keyring.names().collect::<Vec<_>>(), ["fixture-v1"]);
    let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    assert!(keyring.encode().ends_with(&format!("\nfixture-v1 {digits}\n")));
}

#[test]
fn the_plain_manifest_of_version_1_opens() {
    let ids = [
        0xc7df12d8_7c6dc421_9c813b45_6eec8943,
        0x90bc6875_6c6f50df_914bb76c_19336358,
        0xb2f257ec_57a0c270_93e344ec_9930720e,
        0x25a3d6ed_c9f37d9d_a62ff0b8_1d3b997c,
    ];
    let expected = manifest(ids, 12_631, None);
    assert_eq!(open_manifest(&read("plain/manifest"), None).expect("it opens"), expected);
}

#[test]
fn the_encrypted_manifest_of_version_1_opens() {
    let ids = [
        0x46e3a832_2c09d815_1f4480bc_529b21d4,
        0xc5942144_d46779fd_f1f1f46b_f8115d30,
        0xde744af7_8842b3c7_4f284758_94c1a933,
        0x57b9fe08_fe65fd99_e7506a96_68eb15df,
    ];
    let bytes = read("encrypted/manifest");
    let nonce = *b"\x9b\x20\xb2\xb7\x0f\xf8\x7b\x00\xb3\xbb\x80\x1a";
    let opened = open_manifest(&bytes, Some(&keyring())).expect("it opens");
    // The wrapped key is random and proven by the tag it makes; its place in the file is held here.
    let wrapped = bytes[99..147].try_into().expect("48 bytes");
    let key = KeySlot { sequence: 1, key_name: "fixture-v1".into(), nonce, wrapped };
    assert_eq!(opened, manifest(ids, 12_679, Some(key)));
    let refused = open_manifest(&bytes, None).expect_err("no key");
    assert!(matches!(&refused, SealError::WrongKey { needed, .. } if needed == "fixture-v1"), "{refused}");
}

#[test]
fn an_unknown_version_is_refused_with_both_versions_named() {
    for name in ["plain/manifest", "encrypted/manifest"] {
        let mut bytes = read(name);
        bytes.truncate(bytes.len() - 4);
        bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
        cairn_format::wire::push_crc(&mut bytes);
        let refused = open_manifest(&bytes, Some(&keyring())).expect_err("it is refused");
        let newer = FormatError::UnknownVersion { found: 7, known: 1 };
        assert!(matches!(&refused, SealError::Format(source) if *source == newer), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("version 7") && said.contains("version 1"), "{said}");
    }
}
