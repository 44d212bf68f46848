//! The documents of a repository as somebody writes them who knows the format and means no good: changed anywhere, with the
//! checksum mended. Whatever is read of them is within its bounds, and nothing panics.
//!
//! It is a fuzz target that lives here, since those in `fuzz/` build without an object store; `CAIRN_FUZZ_SECONDS=<number>`
//! has it go on for so long, from `CAIRN_FUZZ_SEED=<number>` on.

use std::time::{Duration, Instant};

use crate::keys::{self, tests::sample_document};
use crate::manifest::{BackupManifest, tests::sample};

const ROUNDS: u64 = 20_000;

/// The document around a content, under a right checksum.
fn document(content: &[u8]) -> Vec<u8> {
    let head = format!("{{\"crc32\":\"{:08x}\",\"content\":", crc32fast::hash(content));
    [head.as_bytes(), content, b"}\n"].concat()
}

/// The content of a document that was encoded.
fn content(document: &[u8]) -> Vec<u8> {
    let from = document.windows(10).position(|bytes| bytes == b"\"content\":").unwrap() + 10;
    document[from..document.len() - 2].to_vec()
}

/// SplitMix64: the same numbers for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// What stands where a value of JSON may stand, and much of it where it may not.
const VALUES: &[&str] = &[
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "null",
    "true",
    "\"\"",
    "\"..\"",
    "\"/etc/x\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[[[[",
    "\"journal\"",
    "\"é\"",
];

fn mutate(text: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(text.len());
    match random.below(6) {
        0 => text[at] ^= 1 << random.below(8),
        1 => drop(text.drain(at..(at + 1 + random.below(8)).min(text.len()))),
        2 => {
            let piece = text[at..(at + random.below(200)).min(text.len())].to_vec();
            text.splice(at..at, piece).for_each(drop);
        }
        // A value in the place of another.
        _ => {
            let Some(from) = text[at..].iter().position(|byte| *byte == b':').map(|by| at + by + 1) else {
                return;
            };
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']');
            let to = text[from..].iter().position(ends).map_or(text.len(), |by| from + by);
            let value = VALUES[random.below(VALUES.len())];
            text.splice(from..to, value.bytes()).for_each(drop);
        }
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

fn fuzz(seed: &[u8], read: impl Fn(&[u8])) {
    let first = number_from("CAIRN_FUZZ_SEED", 1);
    let until = Instant::now() + Duration::from_secs(number_from("CAIRN_FUZZ_SECONDS", 0));
    let mut number = 0;
    while number < ROUNDS || Instant::now() < until {
        let mut random = Random(first.wrapping_add(number));
        let mut text = seed.to_vec();
        for _ in 0..=random.below(4) {
            if !text.is_empty() {
                mutate(&mut text, &mut random);
            }
        }
        let read = || read(&document(&text));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err() {
            panic!("CAIRN_FUZZ_SEED={}: {}", first.wrapping_add(number), text.escape_ascii());
        }
        number += 1;
    }
}

#[test]
fn manifests_of_backups_stay_within_their_bounds() {
    let mut seed = sample();
    seed.objects.push(seed.objects[0].clone());
    fuzz(&content(&seed.encode().unwrap()), |bytes| {
        let Ok(manifest) = BackupManifest::decode(bytes, "u") else { return };
        let _ = (manifest.bytes(), manifest.created());
        for object in &manifest.objects {
            assert!(
                object.file_id().is_some() && object.crc().is_some() && object.bytes <= object.file_bytes
            );
            let is_plain =
                |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.');
            assert!(is_plain(&object.name) && is_plain(&object.file));
        }
        assert_eq!(BackupManifest::decode(&manifest.encode().unwrap(), "u").unwrap(), manifest);
    });
}

#[test]
fn documents_with_keys_stay_within_their_bounds() {
    fuzz(&content(&sample_document()), |bytes| drop(keys::decode(bytes, "u", keys::tests::LINEAGE)));
}
