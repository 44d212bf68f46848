//! A segment being written: frames are sealed, laid over blocks and written once, in order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_disk::File;
use cairn_format::frame::{
    self, CLEAR_FROM, FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX, FrameHeader, TAG_BYTES,
    TIME_STAMP_BYTES, TimeStamp, lay_out, physical_bytes, seal_crc,
};
use cairn_format::header::{Body, Identity, JournalBody, Magic, Predecessor, encode_header};
use cairn_format::{FileId, HEADER_BYTES, LineageId, Lsn};
use cairn_seal::{Keyring, SealError, Sealer};

use crate::chain;
use crate::supply::{Prepared, unix_ms};

/// Most time stamps one frame carries.
pub(crate) const FRAME_STAMPS_MAX: usize = 1024;
/// Logical bytes of a frame beside its payload, at most.
const OVERHEAD_MAX: usize = FRAME_HEADER_BYTES + FRAME_STAMPS_MAX * TIME_STAMP_BYTES + TAG_BYTES;

/// Memory for frames that a journal keeps while nothing is written, in bytes.
const KEPT_WHILE_IDLE: usize = 256 << 10;

/// The least length of a segment file.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 128 << 10;
/// The greatest, below what a block's stamp can number.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 30;

/// Most payload a frame in files of this length carries.
pub(crate) fn payload_max(segment_bytes: u64) -> usize {
    let blocks = (segment_bytes.saturating_sub(HEADER_BYTES as u64)) / frame::BLOCK_BYTES as u64;
    let logical = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(frame::BLOCK_LOGICAL_BYTES);
    FRAME_PAYLOAD_MAX.min(logical.saturating_sub(OVERHEAD_MAX))
}

/// An upper bound of what effects and their stamps take in a file, all written at once.
pub(crate) fn file_bytes_for(effects: usize, stamps: usize, payload_max: usize) -> u64 {
    let frames = effects / payload_max + stamps / FRAME_STAMPS_MAX + 4;
    let logical = effects + (stamps + frames) * TIME_STAMP_BYTES + frames * (OVERHEAD_MAX + FRAME_ALIGN);
    (HEADER_BYTES + physical_bytes(logical) + (4 << 20)) as u64
}

/// One frame's contents.
pub(crate) struct FrameParts<'a> {
    pub(crate) payload: &'a [u8],
    /// Stamps that apply from the first LSN on, the first at it.
    pub(crate) stamps: &'a [TimeStamp],
    pub(crate) first_lsn: Lsn,
    pub(crate) database: u32,
    pub(crate) commit_lsn: Lsn,
    pub(crate) commit_database: u32,
    pub(crate) durable: Lsn,
}

/// What a new segment's header says.
pub(crate) struct Origin {
    pub(crate) lineage: LineageId,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) predecessor: Option<Predecessor>,
}

/// A segment that is written to.
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    /// Whether it has its final name and the manifest has it.
    pub(crate) named: bool,
    pub(crate) file_id: FileId,
    pub(crate) first_lsn: Lsn,
    /// LSN after the last frame.
    pub(crate) end_lsn: Lsn,
    /// Hash chain after the last frame.
    pub(crate) chain: [u8; 32],
    /// The master key that its data key is wrapped under; `None` where it is not encrypted.
    pub(crate) key_name: Option<String>,
    sealer: Option<Sealer>,
    file_bytes: u64,
    /// Where the next write goes.
    pub(crate) offset: u64,
    next_number: u64,
    /// Blocks of frames that wait for the next write.
    out: Vec<u8>,
    logical: Vec<u8>,
}

impl Segment {
    /// Writes the header of a new segment into a prepared file.
    pub(crate) fn begin(
        prepared: Prepared,
        origin: &Origin,
        keyring: Option<&Keyring>,
    ) -> io::Result<Segment> {
        let file_id = cairn_seal::new_file_id().map_err(io::Error::other)?;
        let (slot, sealer) = match keyring {
            Some(keyring) => {
                let (slot, sealer) = new_key(keyring, file_id).map_err(io::Error::other)?;
                (Some(slot), Some(sealer))
            }
            None => (None, None),
        };
        let identity = Identity {
            magic: Magic::Journal,
            encrypted: slot.is_some(),
            file_id,
            lineage: origin.lineage,
            created_unix_ms: unix_ms(),
            body: Body::Journal(JournalBody {
                first_lsn: origin.first_lsn,
                epoch: origin.epoch,
                predecessor: origin.predecessor.clone(),
            }),
        };
        prepared.file.write_at(&encode_header(&identity, slot.as_ref()), 0)?;
        Ok(Segment {
            file: prepared.file,
            path: prepared.path,
            named: false,
            file_id,
            first_lsn: origin.first_lsn,
            end_lsn: origin.first_lsn,
            chain: chain::begin(&file_id, origin.predecessor.as_ref().map(|before| &before.chain)),
            key_name: slot.map(|slot| slot.key_name),
            sealer,
            file_bytes: prepared.file_bytes,
            offset: HEADER_BYTES as u64,
            next_number: 0,
            out: Vec::new(),
            logical: Vec::new(),
        })
    }

    /// Bytes of the file that nothing was put into yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.file_bytes - self.offset - self.out.len() as u64
    }

    /// Bytes of the file not written yet.
    pub(crate) fn unwritten_room(&self) -> u64 {
        self.file_bytes - self.offset
    }

    /// Bytes that wait for [`Segment::flush`].
    pub(crate) fn buffered(&self) -> usize {
        self.out.len()
    }

    /// Whether a frame of this payload and number of stamps has room in the file.
    pub(crate) fn fits(&self, payload: usize, stamps: usize) -> bool {
        let logical = FRAME_HEADER_BYTES + stamps * TIME_STAMP_BYTES + payload + TAG_BYTES;
        physical_bytes(logical) as u64 <= self.remaining()
    }

    /// The place a successor that begins here would name.
    pub(crate) fn point(&self) -> Predecessor {
        Predecessor { file_id: self.file_id, end_lsn: self.end_lsn, chain: self.chain }
    }

    /// Seals a frame and puts its blocks into the buffer. It must fit.
    pub(crate) fn put(&mut self, parts: &FrameParts<'_>) {
        debug_assert_eq!(parts.first_lsn, self.end_lsn);
        let header = FrameHeader {
            crc: 0,
            number: self.next_number,
            first_lsn: parts.first_lsn,
            durable: parts.durable,
            commit_lsn: parts.commit_lsn,
            payload_bytes: u32_of(parts.payload.len()),
            database: parts.database,
            commit_database: parts.commit_database,
            file_pages: u32::try_from(self.file_bytes / FRAME_ALIGN as u64).unwrap_or(u32::MAX),
            time_stamps: u16::try_from(parts.stamps.len()).unwrap_or(u16::MAX),
            encrypted: self.sealer.is_some(),
        };
        self.next_number += 1;
        self.logical.clear();
        header.encode(&self.file_id, parts.stamps, &mut self.logical);
        self.logical.extend_from_slice(parts.payload);
        let mut tag = [0; TAG_BYTES];
        if let Some(sealer) = &self.sealer
            && let Some((head, payload)) = self.logical.split_at_mut_checked(header.payload_from())
        {
            tag = sealer.seal_in_place(
                header.number,
                false,
                head.get(CLEAR_FROM..).unwrap_or_default(),
                payload,
            );
            self.logical.extend_from_slice(&tag);
        }
        let crc = seal_crc(&mut self.logical);
        let place = self.offset + self.out.len() as u64;
        lay_out(&self.logical, &self.file_id, place, &mut self.out);
        self.chain = chain::next(&self.chain, &header, crc, &tag);
        self.end_lsn = parts.first_lsn.advance(parts.payload.len());
    }

    /// Writes the buffer out; a failed write is repeated once, byte for byte. Returns the bytes written.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        if self.out.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.file.write_at(&self.out, self.offset) {
            tracing::warn!(file = %self.path.display(), offset = self.offset, %error, "journal write failed; repeating it");
            self.file.write_at(&self.out, self.offset)?;
        }
        let written = self.out.len() as u64;
        self.offset += written;
        self.out.clear();
        // One large group must not hold its memory for ever.
        self.out.shrink_to(8 << 20);
        self.logical.shrink_to(2 << 20);
        Ok(written)
    }

    /// Gives back what large groups took, where the next ones will not be written at once.
    pub(crate) fn release_memory(&mut self) {
        self.out.shrink_to(KEPT_WHILE_IDLE);
        self.logical.shrink_to(KEPT_WHILE_IDLE);
    }
}

fn new_key(keyring: &Keyring, file_id: FileId) -> Result<(cairn_format::header::KeySlot, Sealer), SealError> {
    let key = cairn_seal::new_data_key()?;
    let slot = cairn_seal::wrap(keyring, Magic::Journal, file_id, &key, 1)?;
    Ok((slot, Sealer::new(&key, file_id)))
}

fn u32_of(length: usize) -> u32 {
    // A frame's payload is at most FRAME_PAYLOAD_MAX.
    debug_assert!(length <= FRAME_PAYLOAD_MAX);
    u32::try_from(length).unwrap_or(u32::MAX)
}
