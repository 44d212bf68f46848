//! The hash chain over a segment's frames, by which its successor names it.

use cairn_format::FileId;
use cairn_format::frame::{FrameHeader, TAG_BYTES};
use sha2::{Digest, Sha256};

/// The chain's value before the first frame of a file.
pub(crate) fn begin(file_id: &FileId, predecessor: Option<&[u8; 32]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(file_id.0);
    hash.update(predecessor.unwrap_or(&[0; 32]));
    hash.finalize().into()
}

/// The chain's value after a frame; `tag` is zeros when the frame is not encrypted.
pub(crate) fn next(chain: &[u8; 32], frame: &FrameHeader, crc: u32, tag: &[u8; TAG_BYTES]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(chain);
    hash.update(frame.number.to_le_bytes());
    hash.update(frame.first_lsn.0.to_le_bytes());
    hash.update(frame.payload_bytes.to_le_bytes());
    hash.update(crc.to_le_bytes());
    hash.update(tag);
    hash.finalize().into()
}
