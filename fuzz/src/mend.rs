//! Puts right checksums into bytes that bear others.

use cairn_format::container::{BLOCK_CLEAR_BYTES, BLOCK_HEADER_BYTES, FOOTER_BYTES, INDEX_ENTRY_BYTES};
use cairn_format::frame::{
    self, BLOCK_BYTES, BLOCK_LOGICAL_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_PAYLOAD_MAX, gather,
    lay_out, seal_crc,
};
use cairn_format::{FileId, HEADER_BYTES, PAGE};

/// Where the index's entries begin: after its totals.
const INDEX_TOTALS_BYTES: usize = 40;

/// Mends the checksum that stands in the last four bytes and covers all before.
pub fn trailing(bytes: &mut [u8]) {
    if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
}

/// Mends the pages of a header; a page of zeros stays one.
pub fn header(bytes: &mut [u8]) {
    for page in bytes.chunks_exact_mut(PAGE).take(HEADER_BYTES / PAGE) {
        if page[..PAGE - 4].iter().any(|byte| *byte != 0) {
            trailing(page);
        }
    }
}

/// The journal frames in `bytes`, which stand `offset` bytes into their file, with right stamps and checksums: as many
/// as follow one another.
#[must_use]
pub fn frames(bytes: &[u8], file: &FileId, offset: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut logical = Vec::new();
    while let Some(rest) = bytes.get(out.len()..)
        && let Some(first) = rest.get(..BLOCK_BYTES)
    {
        let stamps = usize::from(u16_at(first, 14));
        let payload = (u32_at(first, 48) as usize).min(FRAME_PAYLOAD_MAX);
        let tag = usize::from(u16_at(first, 12) & 1) * frame::TAG_BYTES;
        let length = FRAME_HEADER_BYTES + stamps * frame::TIME_STAMP_BYTES + payload + tag;
        let Some(physical) = rest.get(..frame::physical_bytes(length)) else { break };
        gather(physical, length, &mut logical);
        logical[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&file.0);
        crc.update(&logical[12..FRAME_HEADER_BYTES]);
        logical[8..12].copy_from_slice(&crc.finalize().to_le_bytes());
        seal_crc(&mut logical);
        lay_out(&logical, file, (offset + out.len()) as u64, &mut out);
    }
    debug_assert_eq!(BLOCK_LOGICAL_BYTES + 8, BLOCK_BYTES);
    // What follows is no frame any more; it stays as it is.
    let done = out.len();
    out.extend_from_slice(bytes.get(done..).unwrap_or_default());
    out
}

/// Mends a whole container: header, blocks, index and footer. An encrypted index keeps the checksums in it, since only
/// its key can change them.
pub fn container(file: &mut [u8]) {
    header(file);
    let Some(footer_at) = file.len().checked_sub(FOOTER_BYTES).filter(|at| *at >= HEADER_BYTES) else {
        return;
    };
    trailing(&mut file[footer_at..]);
    let Ok(index_at) = usize::try_from(u64_at(&file[footer_at..], 24)) else { return };
    if index_at > footer_at || index_at < HEADER_BYTES {
        return;
    }
    let encrypted = file[12] == 1;
    let mut at = HEADER_BYTES;
    while let Some(block) = file[..index_at].get(at..).filter(|block| block.len() >= BLOCK_HEADER_BYTES) {
        let stored = usize::try_from(u64_at(block, 28)).unwrap_or(usize::MAX);
        let Some(end) = at.checked_add(BLOCK_HEADER_BYTES).and_then(|from| from.checked_add(stored)) else {
            break;
        };
        let Some(block) = file[..index_at].get_mut(at..end) else { break };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&block[..BLOCK_CLEAR_BYTES]);
        crc.update(&block[BLOCK_HEADER_BYTES..]);
        let crc = crc.finalize().to_le_bytes();
        block[BLOCK_CLEAR_BYTES..BLOCK_HEADER_BYTES].copy_from_slice(&crc);
        if !encrypted {
            let entries = file[index_at..footer_at].get_mut(INDEX_TOTALS_BYTES..).unwrap_or_default();
            for entry in entries.chunks_exact_mut(INDEX_ENTRY_BYTES) {
                if u64_at(entry, 0) == at as u64 {
                    entry[INDEX_ENTRY_BYTES - 4..].copy_from_slice(&crc);
                }
            }
        }
        at = end;
    }
    trailing(&mut file[index_at..footer_at]);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
