//! Snapshot containers.

use std::sync::Mutex;

use cairn_format::container::{BLOCK_HEADER_BYTES, BlockHeader, Footer, Index};
use cairn_format::header::Magic;
use cairn_snapshot::{Block, Container, Depth, SnapshotError};

use crate::fixture::{KEYRING, SNAPSHOTS};
use crate::{disk_with, header, mend};

/// Reads `data` as what follows the header of a plain and of an encrypted container, as a whole one, and as a header.
pub fn snapshot_container(data: &[u8]) {
    header(data, Magic::Snapshot);
    parts(data);
    read_container(data);
    for snapshot in SNAPSHOTS.iter() {
        let mut file = [snapshot.bytes.as_slice(), data].concat();
        read_container(&file);
        let before = file.clone();
        mend::container(&mut file);
        if file != before {
            read_container(&file);
        }
    }
}

/// Block header, index and footer, by the format alone.
fn parts(data: &[u8]) {
    if let Ok((block, crc)) = BlockHeader::decode(data, 0) {
        assert_eq!(block.encode(crc), data[..BLOCK_HEADER_BYTES]);
    }
    if let Ok(index) = Index::decode(data, 0) {
        assert_eq!(index.encode(), data);
        let _ = index.check_cover(u64::MAX);
    }
    if let Ok(footer) = Footer::decode(data, data.len() as u64) {
        assert!(data.ends_with(&footer.encode()));
    }
}

/// A container by each of its readers, which must agree; whether all of it could be loaded.
fn read_container(file: &[u8]) -> bool {
    let (disk, path) = disk_with("snapshot", &[file]);
    if let Some(container) = opened(Container::open_without_key(&disk, &path)) {
        let _ = container.verify(1, Depth::Contents, &|_| {}).map_err(|error| told(&error));
    }
    let Some(container) = opened(Container::open(&disk, &path, Some(&KEYRING))) else { return false };
    let loaded = Mutex::new(vec![None; container.index().blocks.len()]);
    let load = container.load_parallel(1, &|block: Block<'_>| {
        let number = usize::try_from(block.number).map_err(|_| ())?;
        loaded.lock().expect("one thread")[number] = Some(block.raw.to_vec());
        Ok::<(), ()>(())
    });
    let verified = container.verify(1, Depth::Contents, &|_| {});
    assert_eq!(load.is_ok(), verified.is_ok(), "what is verified can be loaded, and nothing else");
    for (number, raw) in loaded.into_inner().expect("one thread").into_iter().enumerate() {
        if let Some(raw) = raw {
            assert_eq!(raw.len() as u64, container.index().blocks[number].header.raw_bytes);
            assert!(container.read_block(number).is_ok_and(|again| again == raw));
        }
    }
    load.is_ok()
}

fn opened(result: Result<Container, SnapshotError>) -> Option<Container> {
    result.map_err(|error| told(&error)).ok()
}

/// Any error is right but one that has nothing to say.
fn told(error: &SnapshotError) {
    assert!(!error.to_string().is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this a seed that no longer fits its header would be refused at the door, and nothing would tell.
    #[test]
    fn seeds_and_mended_checksums_get_through() {
        for (snapshot, name) in SNAPSHOTS.iter().zip(["plain", "encrypted"]) {
            let path = format!("{}/seeds/snapshot_container/{name}", env!("CARGO_MANIFEST_DIR"));
            let seed = std::fs::read(path).expect("a seed");
            let whole = [snapshot.bytes.as_slice(), &seed].concat();
            assert!(read_container(&whole), "{name}");
            let mut file = whole.clone();
            // The checksums of page 0, the first block, the index and the footer.
            let blocks = snapshot.bytes.len();
            let footer = file.len() - cairn_format::container::FOOTER_BYTES;
            for at in [cairn_format::PAGE - 1, blocks + BLOCK_HEADER_BYTES - 1, footer - 1, file.len() - 1] {
                file[at] ^= 1;
            }
            assert!(!read_container(&file), "{name}");
            mend::container(&mut file);
            assert_eq!(file, whole, "{name}");
        }
    }
}
