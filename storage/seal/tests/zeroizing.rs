//! After everything that holds keys is gone, none of them is in the memory of the process: not on the heap, freed or not, and
//! not on a stack that functions have left. The memory is read as a debugger reads it, through `/proc/self/mem`.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use cairn_format::header::Magic;
use cairn_format::manifest::Manifest;
use cairn_format::{FileId, LineageId};
use cairn_seal::{Keyring, Sealer, next_rewrap, open_manifest, seal_manifest, unwrap, wrap};

/// What is looked for is kept in a form that is not found itself.
const MASK: u8 = 0xa5;

fn masked(bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    bytes.into_iter().map(|byte| byte ^ MASK).collect()
}

/// How often the bytes stand in memory that this process can write.
fn found(masked: &[u8]) -> usize {
    const PIECE: usize = 1 << 20;
    let memory = File::open("/proc/self/mem").expect("the memory of this process");
    let maps = fs::read_to_string("/proc/self/maps").expect("its map");
    let mut piece = vec![0; PIECE];
    let mut count = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let range = line.split(' ').next().expect("a range");
        let (from, to) = range.split_once('-').expect("two ends");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        let (mut at, end) = (number(from), number(to));
        while at < end {
            let length = PIECE.min(usize::try_from(end - at).expect("it fits"));
            // So that what an earlier look has found is not found again here.
            piece.fill(0);
            if memory.read_exact_at(&mut piece[..length], at).is_err() {
                break;
            }
            count += piece[..length]
                .windows(masked.len())
                .filter(|window| window.iter().zip(masked).all(|(byte, hidden)| byte ^ MASK == *hidden))
                .count();
            if at + length as u64 >= end {
                break;
            }
            at += (length - masked.len()) as u64;
        }
    }
    piece.fill(0);
    count
}

fn manifest() -> Manifest {
    Manifest {
        lineage: LineageId([1; 16]),
        epoch: 1,
        number: 2,
        encrypted: false,
        file_id: FileId::default(),
        key: None,
        databases: 16,
        snapshot: None,
        segments: Vec::new(),
    }
}

/// All that is done with keys, and what to look for: the active master key in bytes, and in the digits of its line.
#[inline(never)]
fn work(dir: &std::path::Path) -> [Vec<u8>; 2] {
    let path = dir.join("keyring");
    Keyring::generate().expect("a keyring").write_new_file(&path).expect("written");
    Keyring::rotate_file(&path).expect("rotated");
    let keyring = Keyring::load_file(&path).expect("loaded").clone();
    let id = FileId([7; 16]);
    for _ in 0..20 {
        let key = cairn_seal::new_data_key().expect("a key");
        let slot = wrap(&keyring, Magic::Journal, id, &key, 1).expect("wrapped");
        let again = unwrap(&keyring, Magic::Journal, id, &slot).expect("unwrapped");
        let sealer = Sealer::new(&again, id);
        let mut buf = vec![3; 10_000];
        let tag = sealer.seal_in_place(1, false, b"clear", &mut buf);
        sealer.open_in_place(1, false, b"clear", &mut buf, &tag).expect("opened");
        let bytes = seal_manifest(&mut manifest(), Some(&keyring)).expect("sealed");
        open_manifest(&bytes, Some(&keyring)).expect("opened");
    }
    assert!(next_rewrap(&[], Magic::Journal, &keyring).is_err());
    let text = keyring.encode();
    let digits = text.lines().last().and_then(|line| line.split(' ').nth(1)).expect("the active key");
    let looked_for = [
        masked((0..32).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("digits"))),
        masked(digits.bytes()),
    ];
    // It is found while it is there; otherwise that it is not afterwards would say nothing.
    assert!(looked_for.iter().all(|bytes| found(bytes) > 0), "the search works");
    looked_for
}

#[test]
fn nothing_of_a_key_stays_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let [bytes, digits] = work(dir.path());
    assert_eq!(found(&bytes), 0, "the master key is in memory still");
    assert_eq!(found(&digits), 0, "the digits of the master key are in memory still");
}
