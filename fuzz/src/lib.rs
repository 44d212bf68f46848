//! What reads bytes from outside, as functions that take any bytes: none may panic, none may read back other than was
//! written. `fuzz_targets/` puts libFuzzer behind each; `tests/smoke.rs` replays the seeds and mutations of them with a
//! stable compiler.
//!
//! Checksums would stop nearly every mutation at the door. So what bears them is tried twice: as it is, and with its
//! checksums mended ([`mend`]), as somebody would write it who knows the format.

mod engine;
pub mod fixture;
mod journal;
pub mod mend;
mod rdb;
mod resp;
mod seal;
mod snapshot;

pub use engine::{commands, restore, script_libraries};
pub use journal::journal_frame;
pub use rdb::{rdb_file, rdb_value};
pub use resp::resp;
pub use seal::{manifest, sealed_chunk};
pub use snapshot::snapshot_container;

use std::path::{Path, PathBuf};

use cairn_disk::{Disk, FaultyDisk};
use cairn_format::header::{Magic, decode_header, encode_header};
use cairn_format::{HEADER_BYTES, PAGE};

/// A disk in memory with one file on it.
fn disk_with(name: &str, parts: &[&[u8]]) -> (FaultyDisk, PathBuf) {
    let (disk, path) = (FaultyDisk::new(), Path::new("/data").join(name));
    disk.create_dir_all(Path::new("/data")).expect("a disk in memory");
    disk.create_new(&path).expect("a disk in memory");
    disk.damage(&path, |file| parts.iter().for_each(|part| file.extend_from_slice(part)));
    (disk, path)
}

/// How many bytes of each of a header's pages [`compact_header`] gives; the rest of a whole one is zeros.
const COMPACT_PAGE: usize = 160;

/// A header without the padding of its pages, so that mutations meet what is in them.
#[must_use]
pub fn compact_header(header: &[u8]) -> Vec<u8> {
    header.chunks(PAGE).take(3).flat_map(|page| &page[..COMPACT_PAGE.min(page.len())]).copied().collect()
}

/// Reads a header whose pages begin with the parts of `compact`.
fn header(compact: &[u8], magic: Magic) {
    let mut bytes = vec![0; HEADER_BYTES];
    for (page, part) in bytes.chunks_mut(PAGE).zip(compact.chunks(COMPACT_PAGE)) {
        page[..part.len()].copy_from_slice(part);
    }
    let _ = decode_header(compact, magic).map_err(|error| error.to_string());
    mend::header(&mut bytes);
    match decode_header(&bytes, magic) {
        Ok((identity, slot)) => {
            assert_eq!(identity.encode(), bytes[..PAGE], "an identity is written as it was read");
            let written = encode_header(&identity, slot.as_ref());
            assert_eq!(decode_header(&written, magic), Ok((identity, slot)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
