//! Frames of the journal, and the 512-byte blocks they lie in.
//!
//! The byte tables are in `storage/docs/journal.md`; this module turns them into plain data and back and does no I/O.
//! A reader can tell three things apart for each block: it never reached the disk (all zero), it is as it was
//! written (its stamp is right), or it has been changed since (anything else). That is what the tail rules stand on.

use crate::{FileId, Lsn};

/// Size of a block as it lies on the disk. Disks write a sector of this size wholly or not at all.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of a block that carry a frame; the remaining eight are the block's stamp.
pub const BLOCK_LOGICAL_BYTES: usize = 504;
/// Frames begin on a multiple of this and are padded to one, so that a durable page is never written again.
pub const FRAME_ALIGN: usize = 4096;
/// "CJF1", little-endian.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"CJF1");
/// Bytes of the fixed part of a frame's header, before the table of time stamps.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Bytes of one entry of the table of time stamps.
pub const TIME_STAMP_BYTES: usize = 16;
/// Bytes of the tag that follows the payload of an encrypted frame.
pub const TAG_BYTES: usize = 16;
/// Most payload bytes one frame carries.
pub const FRAME_PAYLOAD_MAX: usize = 1 << 20;
/// The clear part of a frame (bound into the tag) begins here: after the magic and the frame's CRC.
pub const CLEAR_FROM: usize = 8;

const FLAG_ENCRYPTED: u16 = 1;
/// Set in the block number of a stamp when the block is the first of a frame.
const FIRST_BLOCK: u32 = 1 << 31;
const ZEROS: [u8; FRAME_ALIGN] = [0; FRAME_ALIGN];

/// When the effect that begins at `lsn`, and those after it up to the next stamp, were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeStamp {
    /// LSN of the first effect the time holds for.
    pub lsn: Lsn,
    /// Milliseconds since 1970 (UTC); never less than an earlier stamp of the same journal.
    pub unix_ms: u64,
}

/// The fixed part of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// CRC-32 of the stored frame from [`CLEAR_FROM`] to its end, padding excluded. Filled in by [`seal_crc`].
    pub crc: u32,
    /// Number of the frame in its file, from 0; the chunk number of the seal.
    pub number: u64,
    /// LSN of the first byte of the payload.
    pub first_lsn: Lsn,
    /// The durable LSN known when the frame was written.
    pub durable: Lsn,
    /// The last commit boundary known at or before the frame's end; less than the end when a commit goes on in
    /// the next frame.
    pub commit_lsn: Lsn,
    /// Bytes of effects in this frame.
    pub payload_bytes: u32,
    /// Database selected at the first byte of the payload.
    pub database: u32,
    /// Database selected at `commit_lsn`.
    pub commit_database: u32,
    /// Length of the preallocated file in units of [`FRAME_ALIGN`] bytes: tells a shortened file.
    pub file_pages: u32,
    /// Entries in the table of time stamps that follows.
    pub time_stamps: u16,
    /// Whether the payload is sealed and followed by a tag.
    pub encrypted: bool,
}

/// Why bytes are not a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header has.
    #[error("a frame header needs {needed} bytes, there are {available}")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        available: usize,
    },
    /// The magic number is another.
    #[error("frame magic is {found:#010x}, expected {expected:#010x}")]
    Magic {
        /// The magic of a frame.
        expected: u32,
        /// What stands there.
        found: u32,
    },
    /// The CRC of the header is wrong.
    #[error("frame header CRC is {found:#010x}, expected {expected:#010x}")]
    HeaderCrc {
        /// The CRC computed over the header.
        expected: u32,
        /// The CRC stored.
        found: u32,
    },
    /// A field holds a value that no writer writes.
    #[error("frame field {field} holds {found}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

impl FrameHeader {
    /// Appends the header and its time stamps to `out`. The CRC stays zero until [`seal_crc`].
    ///
    /// `time_stamps` of the header must be the length of `stamps`.
    pub fn encode(&self, file: &FileId, stamps: &[TimeStamp], out: &mut Vec<u8>) {
        debug_assert_eq!(usize::from(self.time_stamps), stamps.len());
        let mut fixed = Vec::with_capacity(FRAME_HEADER_BYTES);
        fixed.extend_from_slice(&(if self.encrypted { FLAG_ENCRYPTED } else { 0 }).to_le_bytes());
        fixed.extend_from_slice(&self.time_stamps.to_le_bytes());
        fixed.extend_from_slice(&self.number.to_le_bytes());
        fixed.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        fixed.extend_from_slice(&self.durable.0.to_le_bytes());
        fixed.extend_from_slice(&self.commit_lsn.0.to_le_bytes());
        fixed.extend_from_slice(&self.payload_bytes.to_le_bytes());
        fixed.extend_from_slice(&self.database.to_le_bytes());
        fixed.extend_from_slice(&self.commit_database.to_le_bytes());
        fixed.extend_from_slice(&self.file_pages.to_le_bytes());
        out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&header_crc(file, &fixed).to_le_bytes());
        out.extend_from_slice(&fixed);
        for stamp in stamps {
            out.extend_from_slice(&stamp.lsn.0.to_le_bytes());
            out.extend_from_slice(&stamp.unix_ms.to_le_bytes());
        }
    }

    /// Reads the fixed part of a header from the logical bytes of a frame's first block.
    pub fn decode(logical: &[u8], file: &FileId) -> Result<FrameHeader, FrameError> {
        let short = FrameError::Short { needed: FRAME_HEADER_BYTES, available: logical.len() };
        let header = logical.get(..FRAME_HEADER_BYTES).ok_or(short)?;
        let u16_at = |at: usize| array_at::<2>(header, at).map(u16::from_le_bytes).ok_or(short);
        let u32_at = |at: usize| array_at::<4>(header, at).map(u32::from_le_bytes).ok_or(short);
        let u64_at = |at: usize| array_at::<8>(header, at).map(u64::from_le_bytes).ok_or(short);

        let magic = u32_at(0)?;
        if magic != FRAME_MAGIC {
            return Err(FrameError::Magic { expected: FRAME_MAGIC, found: magic });
        }
        let expected = header_crc(file, header.get(12..).ok_or(short)?);
        let found = u32_at(8)?;
        if expected != found {
            return Err(FrameError::HeaderCrc { expected, found });
        }
        let flags = u16_at(12)?;
        if flags & !FLAG_ENCRYPTED != 0 {
            return Err(FrameError::Field { field: "flags", found: u64::from(flags) });
        }
        let payload_bytes = u32_at(48)?;
        if u64::from(payload_bytes) > FRAME_PAYLOAD_MAX as u64 {
            return Err(FrameError::Field { field: "payload bytes", found: u64::from(payload_bytes) });
        }
        Ok(FrameHeader {
            crc: u32_at(4)?,
            encrypted: flags & FLAG_ENCRYPTED != 0,
            time_stamps: u16_at(14)?,
            number: u64_at(16)?,
            first_lsn: Lsn(u64_at(24)?),
            durable: Lsn(u64_at(32)?),
            commit_lsn: Lsn(u64_at(40)?),
            payload_bytes,
            database: u32_at(52)?,
            commit_database: u32_at(56)?,
            file_pages: u32_at(60)?,
        })
    }

    /// LSN of the byte after the payload; `None` if it does not fit 64 bits.
    pub fn end_lsn(&self) -> Option<Lsn> {
        self.first_lsn.0.checked_add(u64::from(self.payload_bytes)).map(Lsn)
    }

    /// Offset of the payload in the frame's logical bytes.
    pub fn payload_from(&self) -> usize {
        FRAME_HEADER_BYTES + usize::from(self.time_stamps) * TIME_STAMP_BYTES
    }

    /// Offset of the byte after the payload in the frame's logical bytes.
    pub fn payload_to(&self) -> usize {
        self.payload_from() + self.payload_bytes as usize
    }

    /// Length of the frame without padding and without block stamps.
    pub fn logical_bytes(&self) -> usize {
        self.payload_to() + if self.encrypted { TAG_BYTES } else { 0 }
    }

    /// Length of the frame as it lies in the file, a multiple of [`FRAME_ALIGN`].
    pub fn physical_bytes(&self) -> usize {
        physical_bytes(self.logical_bytes())
    }

    /// The table of time stamps, from the frame's logical bytes.
    pub fn stamps<'a>(&self, logical: &'a [u8]) -> impl Iterator<Item = TimeStamp> + use<'a> {
        let table = logical.get(FRAME_HEADER_BYTES..self.payload_from()).unwrap_or_default();
        table.chunks_exact(TIME_STAMP_BYTES).filter_map(|entry| {
            let lsn = Lsn(u64::from_le_bytes(array_at::<8>(entry, 0)?));
            Some(TimeStamp { lsn, unix_ms: u64::from_le_bytes(array_at::<8>(entry, 8)?) })
        })
    }
}

/// Bytes a frame of `logical_bytes` takes in the file: whole blocks of 504, padded to [`FRAME_ALIGN`].
pub const fn physical_bytes(logical_bytes: usize) -> usize {
    (logical_bytes.div_ceil(BLOCK_LOGICAL_BYTES) * BLOCK_BYTES).next_multiple_of(FRAME_ALIGN)
}

/// Completes a frame's logical bytes (header, stamps, stored payload, tag) with its CRC, which it returns.
pub fn seal_crc(logical: &mut [u8]) -> u32 {
    let crc = stored_crc(logical);
    if let Some(place) = logical.get_mut(4..CLEAR_FROM) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    crc
}

/// The CRC that a frame's logical bytes must carry.
pub fn stored_crc(logical: &[u8]) -> u32 {
    crc32fast::hash(logical.get(CLEAR_FROM..).unwrap_or_default())
}

/// Lays a frame's logical bytes over blocks and appends these to `out`; `offset` is the frame's place in the file.
pub fn lay_out(logical: &[u8], file: &FileId, offset: u64, out: &mut Vec<u8>) {
    debug_assert_eq!(offset % FRAME_ALIGN as u64, 0);
    let total = physical_bytes(logical.len());
    out.reserve(total);
    let first = offset / BLOCK_BYTES as u64;
    let mut chunks = logical.chunks(BLOCK_LOGICAL_BYTES);
    for index in 0..(total / BLOCK_BYTES) as u64 {
        let chunk = chunks.next().unwrap_or_default();
        out.extend_from_slice(chunk);
        out.extend_from_slice(ZEROS.get(..BLOCK_LOGICAL_BYTES - chunk.len()).unwrap_or_default());
        out.extend_from_slice(&stamp(file, first + index, index == 0));
    }
}

/// Takes a frame's logical bytes out of its blocks into `out` (cleared first). The stamps are not looked at.
///
/// Returns whether the padding after them is zero, as it must be.
pub fn gather(physical: &[u8], logical_bytes: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    for block in physical.chunks(BLOCK_BYTES) {
        out.extend_from_slice(block.get(..BLOCK_LOGICAL_BYTES).unwrap_or(block));
    }
    let clean = out.get(logical_bytes..).is_some_and(is_zero);
    out.truncate(logical_bytes);
    clean
}

/// What a block's stamp says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// All zero: it never reached the disk.
    Absent,
    /// Written by this file's writer at this place, as the first block of a frame.
    First,
    /// Written by this file's writer at this place, as a later block of a frame.
    Inner,
    /// Neither zero nor rightly stamped: changed since, or never ours.
    Foreign,
}

/// Judges the block at `offset` in the file by its stamp.
pub fn block_state(block: &[u8], file: &FileId, offset: u64) -> BlockState {
    let number = offset / BLOCK_BYTES as u64;
    let found = array_at::<8>(block, BLOCK_LOGICAL_BYTES);
    if found == Some(stamp(file, number, false)) {
        BlockState::Inner
    } else if found == Some(stamp(file, number, true)) {
        BlockState::First
    } else if is_zero(block) {
        BlockState::Absent
    } else {
        BlockState::Foreign
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Compared with a page of zeros, because that is the platform's memcmp in every build profile.
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

/// The last eight bytes of a written block: who wrote it and where. Never all zero.
fn stamp(file: &FileId, number: u64, first: bool) -> [u8; 8] {
    let [a, b, c, d, ..] = file.0;
    let [e, f, g, h, ..] = number.to_le_bytes();
    let number = u32::from_le_bytes([e, f, g, h]) & !FIRST_BLOCK | if first { FIRST_BLOCK } else { 0 };
    let [e, f, g, h] = number.to_le_bytes();
    [a | 1, b, c, d, e, f, g, h]
}

/// The CRC of the fixed header begins with the file id, so that no client's data can pass for a header.
fn header_crc(file: &FileId, fixed: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file.0);
    crc.update(fixed);
    crc.finalize()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId([7; 16]);

    fn header() -> FrameHeader {
        FrameHeader {
            crc: 0,
            number: 3,
            first_lsn: Lsn(1000),
            durable: Lsn(900),
            commit_lsn: Lsn(1005),
            payload_bytes: 5,
            database: 2,
            commit_database: 4,
            file_pages: 19,
            time_stamps: 1,
            encrypted: false,
        }
    }

    fn logical(payload: &[u8]) -> Vec<u8> {
        let stamps = [TimeStamp { lsn: Lsn(1000), unix_ms: 77 }];
        let mut out = Vec::new();
        FrameHeader { payload_bytes: payload.len() as u32, ..header() }.encode(&FILE, &stamps, &mut out);
        out.extend_from_slice(payload);
        seal_crc(&mut out);
        out
    }

    #[test]
    fn a_frame_survives_the_blocks() {
        for length in [0, 1, 5, 424, 425, 3951, 3952, 3953, 100_000] {
            let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let frame = logical(&payload);
            let mut physical = Vec::new();
            lay_out(&frame, &FILE, 12_288, &mut physical);
            assert_eq!(physical.len() % FRAME_ALIGN, 0);
            assert_eq!(physical.len(), physical_bytes(frame.len()));
            for (index, block) in physical.chunks(BLOCK_BYTES).enumerate() {
                let expected = if index == 0 { BlockState::First } else { BlockState::Inner };
                let offset = 12_288 + (index * BLOCK_BYTES) as u64;
                assert_eq!(block_state(block, &FILE, offset), expected);
                assert_eq!(block_state(block, &FILE, offset + 512), BlockState::Foreign);
                assert_eq!(block_state(block, &FileId([9; 16]), offset), BlockState::Foreign);
            }
            let found = FrameHeader::decode(&physical[..BLOCK_LOGICAL_BYTES], &FILE).expect("decode");
            assert_eq!(found.physical_bytes(), physical.len());
            let mut back = Vec::new();
            assert!(gather(&physical, found.logical_bytes(), &mut back));
            assert_eq!(back, frame);
            assert_eq!(stored_crc(&back), found.crc);
            assert_eq!(found.stamps(&back).next(), Some(TimeStamp { lsn: Lsn(1000), unix_ms: 77 }));
            assert_eq!(&back[found.payload_from()..found.payload_to()], payload);
        }
    }

    /// The numbers of the format, written out: a frame of a released version must stay readable for ever.
    #[test]
    fn the_bytes_are_those_of_the_document() {
        let frame = logical(b"hello");
        assert_eq!(&frame[..4], b"CJF1");
        assert_eq!(frame[12..16], [0, 0, 1, 0]);
        assert_eq!(frame[16..24], 3u64.to_le_bytes());
        assert_eq!(frame[24..32], 1000u64.to_le_bytes());
        assert_eq!(frame[32..40], 900u64.to_le_bytes());
        assert_eq!(frame[40..48], 1005u64.to_le_bytes());
        assert_eq!(frame[48..52], 5u32.to_le_bytes());
        assert_eq!(frame[52..56], 2u32.to_le_bytes());
        assert_eq!(frame[56..60], 4u32.to_le_bytes());
        assert_eq!(frame[60..64], 19u32.to_le_bytes());
        assert_eq!(frame[64..72], 1000u64.to_le_bytes());
        assert_eq!(frame[72..80], 77u64.to_le_bytes());
        assert_eq!(&frame[80..], b"hello");
        assert_eq!(frame[4..8], crc32fast::hash(&frame[8..]).to_le_bytes());
        let mut covered = FILE.0.to_vec();
        covered.extend_from_slice(&frame[12..64]);
        assert_eq!(frame[8..12], crc32fast::hash(&covered).to_le_bytes());
        assert_eq!(stamp(&FileId([0; 16]), 24, true), [1, 0, 0, 0, 24, 0, 0, 0x80]);
        assert_eq!(stamp(&FileId([0; 16]), 25, false), [1, 0, 0, 0, 25, 0, 0, 0]);
    }

    #[test]
    fn every_flipped_header_byte_is_refused() {
        let frame = logical(b"hello");
        for at in (0..4).chain(8..FRAME_HEADER_BYTES) {
            let mut bad = frame.clone();
            bad[at] ^= 0x40;
            assert!(FrameHeader::decode(&bad, &FILE).is_err(), "byte {at}");
        }
        assert!(FrameHeader::decode(&frame[..63], &FILE).is_err());
        assert!(FrameHeader::decode(&frame, &FileId([8; 16])).is_err());
    }
}
