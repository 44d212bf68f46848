//! Reading one segment: which frames are whole, which never arrived, which were changed.

use std::io;
use std::path::{Path, PathBuf};

use cairn_disk::{Disk, Mapping};
use cairn_format::frame::{
    BLOCK_BYTES, BLOCK_LOGICAL_BYTES, BlockState, CLEAR_FROM, FRAME_ALIGN, FrameHeader, TAG_BYTES, TimeStamp,
    block_state, gather, stored_crc,
};
use cairn_format::header::{Body, Identity, JournalBody, KeySlot, Magic, Predecessor, decode_header};
use cairn_format::{FileId, FormatError, HEADER_BYTES, Lsn};
use cairn_seal::{Keyring, SealError, Sealer};

use crate::chain;
use crate::error::{Damage, JournalError};

/// One frame, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Number in the file, from 0.
    pub number: u64,
    /// LSN of the first byte of the payload.
    pub first_lsn: Lsn,
    /// Effects, in the clear.
    pub payload: Vec<u8>,
    /// Database selected at the last commit boundary at or before `first_lsn`.
    pub database: u32,
    /// Durable LSN known when the frame was written.
    pub durable: Lsn,
    /// Last commit boundary known at or before the frame's end.
    pub commit_lsn: Lsn,
    /// Database selected there.
    pub commit_database: u32,
    /// When the effects were appended.
    pub stamps: Vec<TimeStamp>,
    /// Where the frame begins in the file.
    pub offset: u64,
    /// What it takes there.
    pub file_bytes: u64,
}

/// A frame that was stepped over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedFrame {
    /// Where in the file it ends.
    pub end: u64,
    /// When its newest effect was appended, in milliseconds since 1970.
    pub newest_ms: Option<u64>,
}

/// Reads the frames of one segment in order, through a map of the file.
///
/// Iteration ends where no whole frame follows; changed bytes are an error. In a file that a server writes at the
/// moment, only what [`durable_prefix`] covers may be read.
pub struct SegmentReader {
    pub(crate) path: PathBuf,
    mapping: Mapping,
    identity: Identity,
    body: JournalBody,
    sealer: Option<Sealer>,
    pub(crate) place: Place,
    logical: Vec<u8>,
}

/// How far a segment was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: usize,
    pub(crate) number: u64,
    pub(crate) lsn: Lsn,
    pub(crate) chain: [u8; 32],
}

/// What is wrong at a place of a file.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Fault {
    fn new(offset: usize, what: &'static str, expected: impl ToString, found: impl ToString) -> Fault {
        Fault { offset, what, expected: expected.to_string(), found: found.to_string() }
    }
}

/// What lies where a frame could begin.
pub(crate) enum Found {
    /// A frame with a right CRC.
    Whole(FrameHeader),
    /// Its first block never arrived, or the file ends here.
    Nothing,
    /// Its header arrived, and not all of the rest.
    Unfinished(FrameHeader),
    /// What arrived was changed.
    Bad(Fault),
}

impl SegmentReader {
    /// Maps a segment and reads its header.
    ///
    /// # Errors
    /// Those of the disk and of the header; [`SealError::WrongKey`] when the keyring does not open the file.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        keyring: Option<&Keyring>,
    ) -> Result<SegmentReader, JournalError> {
        let (mut reader, slot) = SegmentReader::open_closed(disk, path)?;
        if let Some(slot) = slot {
            let file_id = reader.identity.file_id;
            let key = match keyring {
                Some(keyring) => cairn_seal::unwrap(keyring, Magic::Journal, file_id, &slot),
                None => Err(SealError::WrongKey { needed: slot.key_name, have: Vec::new() }),
            };
            let key = key.map_err(|source| JournalError::Seal { file: path.to_path_buf(), source })?;
            reader.sealer = Some(Sealer::new(&key, file_id));
        }
        Ok(reader)
    }

    /// As [`SegmentReader::open`] without a key: for [`SegmentReader::pass_frame`] by CRC.
    ///
    /// # Errors
    /// Those of the disk and of the header.
    pub fn open_without_key(disk: &dyn Disk, path: &Path) -> Result<SegmentReader, JournalError> {
        Ok(SegmentReader::open_closed(disk, path)?.0)
    }

    /// As [`SegmentReader::open`] without the key: frames can be checked by CRC and not opened.
    pub(crate) fn open_closed(
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<(SegmentReader, Option<KeySlot>), JournalError> {
        let io_error = |source: io::Error| JournalError::Io {
            file: path.to_path_buf(),
            operation: "open the segment",
            source,
        };
        let mapping = disk.map(path).map_err(io_error)?;
        let header = mapping.bytes().get(..HEADER_BYTES).unwrap_or(mapping.bytes());
        let decoded = decode_header(header, Magic::Journal);
        mapping.check()?;
        let format_error = |source| JournalError::Format { file: path.to_path_buf(), source };
        let (identity, slot) = decoded.map_err(format_error)?;
        let Body::Journal(body) = identity.body.clone() else {
            return Err(format_error(FormatError::invalid(
                0,
                "kind of file",
                "a journal segment",
                "another",
            )));
        };
        let place = Place {
            offset: HEADER_BYTES,
            number: 0,
            lsn: body.first_lsn,
            chain: chain::begin(&identity.file_id, body.predecessor.as_ref().map(|before| &before.chain)),
        };
        let path = path.to_path_buf();
        let reader =
            SegmentReader { path, mapping, identity, body, sealer: None, place, logical: Vec::new() };
        Ok((reader, slot))
    }

    /// The header's identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The header's part that only journals have.
    pub fn body(&self) -> &JournalBody {
        &self.body
    }

    /// The position after the frames read so far, as a successor that begins there names it.
    pub fn point(&self) -> Predecessor {
        Predecessor { file_id: self.identity.file_id, end_lsn: self.place.lsn, chain: self.place.chain }
    }

    /// Reads the next frame; `None` where no whole one follows.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when what follows was changed.
    pub fn read_frame(&mut self) -> Result<Option<Frame>, JournalError> {
        let offset = self.place.offset;
        let Some(header) = self.advance()? else { return Ok(None) };
        let payload = self.open_payload(&header, offset)?.to_vec();
        Ok(Some(Frame {
            number: header.number,
            first_lsn: header.first_lsn,
            payload,
            database: header.database,
            durable: header.durable,
            commit_lsn: header.commit_lsn,
            commit_database: header.commit_database,
            stamps: header.stamps(&self.logical).collect(),
            offset: offset as u64,
            file_bytes: header.physical_bytes() as u64,
        }))
    }

    /// Steps over the next frame and checks it: by its CRC, and where it is to be `opened`, by its seal too. `None` where no whole
    /// one follows.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when what follows was changed.
    pub fn pass_frame(&mut self, opened: bool) -> Result<Option<PassedFrame>, JournalError> {
        let offset = self.place.offset;
        let Some(header) = self.advance()? else { return Ok(None) };
        let newest_ms = self.stamps(&header).last().map(|stamp| stamp.unix_ms);
        if opened {
            self.open_payload(&header, offset)?;
        }
        self.release(offset);
        Ok(Some(PassedFrame { end: self.place.offset as u64, newest_ms }))
    }

    /// Whether the hash chain has this value here or after empty frames that follow.
    pub(crate) fn reaches_chain(&mut self, chain: &[u8; 32]) -> Result<bool, JournalError> {
        loop {
            if self.place.chain == *chain {
                return Ok(true);
            }
            match self.advance()? {
                Some(header) if header.payload_bytes == 0 => {}
                _ => return Ok(false),
            }
        }
    }

    pub(crate) fn file_id(&self) -> FileId {
        self.identity.file_id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    /// Says that what was read since `begin` is not needed again soon.
    pub(crate) fn release(&self, begin: usize) {
        self.mapping.release(begin..self.place.offset);
    }

    /// An error when a page of the file could not be read since it was mapped; before that is known, zeros mean nothing.
    pub(crate) fn check_map(&self) -> Result<(), JournalError> {
        Ok(self.mapping.check()?)
    }

    /// Time stamps of the frame that was advanced over last.
    pub(crate) fn stamps(&self, header: &FrameHeader) -> impl Iterator<Item = TimeStamp> + use<'_> {
        header.stamps(&self.logical)
    }

    /// Steps over the next frame in sequence; its logical bytes stay at hand for `open_payload`.
    pub(crate) fn advance(&mut self) -> Result<Option<FrameHeader>, JournalError> {
        let mut logical = std::mem::take(&mut self.logical);
        let found = self.frame_at(self.place.offset, &mut logical);
        self.logical = logical;
        // A fault behind the frame is nothing to it.
        let end = match &found {
            Found::Whole(header) => self.place.offset + header.physical_bytes(),
            _ => usize::MAX,
        };
        self.mapping.check().or_else(|fault| if fault.offset < end as u64 { Err(fault) } else { Ok(()) })?;
        let header = match found {
            Found::Whole(header) => header,
            Found::Nothing | Found::Unfinished(_) => return Ok(None),
            Found::Bad(fault) => return Err(self.damaged(fault)),
        };
        self.check_sequence(&header).map_err(|fault| self.damaged(fault))?;
        let tag = if header.encrypted { self.logical.last_chunk::<TAG_BYTES>().copied() } else { None };
        let tag = tag.unwrap_or_default();
        self.place = Place {
            offset: self.place.offset + header.physical_bytes(),
            number: header.number + 1,
            lsn: header.first_lsn.advance(header.payload_bytes as usize),
            chain: chain::next(&self.place.chain, &header, header.crc, &tag),
        };
        Ok(Some(header))
    }

    /// The effects of the frame that was advanced over last, which began at `offset`.
    pub(crate) fn open_payload(
        &mut self,
        header: &FrameHeader,
        offset: usize,
    ) -> Result<&[u8], JournalError> {
        let (from, to) = (header.payload_from(), header.payload_to());
        if header.encrypted {
            let opened = self.open_sealed(header);
            if !opened {
                let expected = format!("the seal of frame {}", header.number);
                let fault =
                    Fault::new(offset, "frame", expected, "a payload or header that was sealed otherwise");
                return Err(self.damaged_from(fault, header.first_lsn));
            }
        }
        Ok(self.logical.get(from..to).unwrap_or_default())
    }

    fn open_sealed(&mut self, header: &FrameHeader) -> bool {
        let Some(sealer) = &self.sealer else { return false };
        let Some(tag) = self.logical.last_chunk::<TAG_BYTES>().copied() else { return false };
        let Some((head, rest)) = self.logical.split_at_mut_checked(header.payload_from()) else {
            return false;
        };
        let clear = head.get(CLEAR_FROM..).unwrap_or_default();
        let Some(payload) = rest.get_mut(..header.payload_bytes as usize) else { return false };
        sealer.open_in_place(header.number, false, clear, payload, &tag).is_ok()
    }

    /// Judges what lies at `offset`, where a frame could begin, by the bytes alone. A whole frame's logical bytes are
    /// left in `logical`.
    pub(crate) fn frame_at(&self, offset: usize, logical: &mut Vec<u8>) -> Found {
        let bytes = self.bytes();
        if offset >= bytes.len() {
            return Found::Nothing;
        }
        let Some(first) = bytes.get(offset..offset + BLOCK_BYTES) else {
            return Found::Bad(Fault::new(bytes.len(), "file", "a whole block", "its end"));
        };
        match self.block_state(first, offset) {
            BlockState::First => {}
            BlockState::Absent => return Found::Nothing,
            BlockState::Inner => {
                return Found::Bad(Fault::new(
                    offset,
                    "block",
                    "the first of a frame",
                    "a later one of a frame",
                ));
            }
            BlockState::Foreign => return Found::Bad(foreign(offset)),
        }
        let file_id = self.file_id();
        let decoded = FrameHeader::decode(first.get(..BLOCK_LOGICAL_BYTES).unwrap_or(first), &file_id);
        let header = match decoded {
            Ok(header) => header,
            Err(error) => return Found::Bad(Fault::new(offset, "frame header", "one that is whole", error)),
        };
        if header.encrypted != self.identity.encrypted {
            return Found::Bad(Fault::new(offset, "frame", "encrypted as its file", "the opposite"));
        }
        let Some(physical) = bytes.get(offset..offset + header.physical_bytes()) else {
            let needed = format!("{} bytes", offset + header.physical_bytes());
            return Found::Bad(Fault::new(bytes.len(), "file", needed, format!("{} bytes", bytes.len())));
        };
        match self.arrived(physical, offset) {
            Ok(true) => {}
            Ok(false) => return Found::Unfinished(header),
            Err(fault) => return Found::Bad(fault),
        }
        let clean = gather(physical, header.logical_bytes(), logical);
        let crc = stored_crc(logical);
        if crc != header.crc {
            let hex = |crc: u32| format!("CRC {crc:#010x}");
            return Found::Bad(Fault::new(offset, "frame", hex(header.crc), hex(crc)));
        }
        if !clean {
            return Found::Bad(Fault::new(offset, "padding of the frame", "zeros", "something else"));
        }
        Found::Whole(header)
    }

    /// Whether all blocks of a frame are there; an error when one was changed.
    fn arrived(&self, physical: &[u8], offset: usize) -> Result<bool, Fault> {
        let mut whole = true;
        for (index, block) in physical.chunks(BLOCK_BYTES).enumerate().skip(1) {
            let at = offset + index * BLOCK_BYTES;
            match self.block_state(block, at) {
                BlockState::Inner => {}
                BlockState::Absent => whole = false,
                BlockState::First | BlockState::Foreign => return Err(foreign(at)),
            }
        }
        Ok(whole)
    }

    pub(crate) fn block_state(&self, block: &[u8], offset: usize) -> BlockState {
        block_state(block, &self.identity.file_id, offset as u64)
    }

    fn check_sequence(&self, header: &FrameHeader) -> Result<(), Fault> {
        let Place { offset, number, lsn, .. } = self.place;
        if header.number != number {
            return Err(Fault::new(offset, "frame number", number, header.number));
        }
        if header.first_lsn != lsn {
            return Err(Fault::new(offset, "first LSN of the frame", lsn, header.first_lsn));
        }
        let Some(end) = header.end_lsn() else {
            return Err(Fault::new(offset, "last LSN of the frame", "a 64-bit number", "more"));
        };
        if header.durable > lsn || header.commit_lsn > end {
            let found = format!("{} and {}", header.durable, header.commit_lsn);
            return Err(Fault::new(
                offset,
                "durable and commit LSN",
                format!("at most {lsn} and {end}"),
                found,
            ));
        }
        Ok(())
    }

    pub(crate) fn damaged(&self, fault: Fault) -> JournalError {
        self.damaged_from(fault, self.place.lsn)
    }

    pub(crate) fn damaged_from(&self, fault: Fault, lost_from: Lsn) -> JournalError {
        let Fault { offset, what, expected, found } = fault;
        let offset = offset as u64;
        let file = self.path.clone();
        JournalError::Damaged(Box::new(Damage {
            file,
            offset,
            what,
            expected,
            found,
            lost_from,
            lost_to: None,
        }))
    }
}

impl Iterator for SegmentReader {
    type Item = Result<Frame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_frame().transpose()
    }
}

pub(crate) fn foreign(offset: usize) -> Fault {
    Fault::new(offset, "block", "the stamp of its file and place, or zeros", "neither: it was changed")
}

/// The part of a segment that is known to be durable: what a backup may ship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurablePrefix {
    /// LSN of the segment's first effect.
    pub first_lsn: Lsn,
    /// LSN after the last frame of the part.
    pub end: Lsn,
    /// Length of the part in the file: header and whole frames.
    pub file_bytes: u64,
    /// Hash chain at its end.
    pub chain: [u8; 32],
    /// Length that the whole file was preallocated with, once a frame tells it. A copy that is to be the last segment of
    /// a data directory must be extended to it with zeros: a shorter file counts as cut.
    pub allocated_bytes: Option<u64>,
}

/// Finds the durable part of a segment by CRC alone; see [`OpenSegment::durable_prefix`].
///
/// # Errors
/// As there, and those of opening it.
pub fn durable_prefix(
    disk: &dyn Disk,
    path: &Path,
    known_durable: Lsn,
) -> Result<DurablePrefix, JournalError> {
    OpenSegment::open(disk, path)?.durable_prefix(known_durable)
}

/// A segment that stays readable when its name goes, though its frames stay closed without their key.
pub struct OpenSegment {
    reader: SegmentReader,
    start: Place,
}

impl OpenSegment {
    /// Maps the segment.
    ///
    /// # Errors
    /// Those of the disk and of the header.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<OpenSegment, JournalError> {
        let (reader, _) = SegmentReader::open_closed(disk, path)?;
        let start = reader.place.clone();
        Ok(OpenSegment { reader, start })
    }

    /// Finds the durable part by CRC alone: no key is needed, and a server may be writing to the file.
    ///
    /// `known_durable` is the durable LSN known from elsewhere (the server, or the first LSN of the segment's successor);
    /// with `Lsn::ZERO` only what the file itself says counts.
    ///
    /// # Errors
    /// Those of the disk; [`JournalError::Damaged`] when a durable byte was changed.
    pub fn durable_prefix(&mut self, known_durable: Lsn) -> Result<DurablePrefix, JournalError> {
        let reader = &mut self.reader;
        reader.place = self.start.clone();
        let mut durable = known_durable;
        let mut prefix = DurablePrefix {
            first_lsn: reader.place.lsn,
            end: reader.place.lsn,
            file_bytes: reader.place.offset as u64,
            chain: reader.place.chain,
            allocated_bytes: None,
        };
        // Places past the greatest durable LSN seen so far, which a later frame may turn out to cover.
        let mut beyond: Vec<Place> = Vec::new();
        let stopped = loop {
            match reader.advance() {
                Ok(Some(header)) => {
                    durable = durable.max(header.durable);
                    prefix.allocated_bytes = Some(u64::from(header.file_pages) * FRAME_ALIGN as u64);
                    beyond.push(reader.place.clone());
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            let covered = beyond.iter().rposition(|place| place.lsn <= durable);
            if let Some(place) = covered.and_then(|index| beyond.drain(..=index).next_back()) {
                prefix.end = place.lsn;
                prefix.file_bytes = place.offset as u64;
                prefix.chain = place.chain;
            }
        };
        match stopped {
            // Past the durable LSN a frame may be half written at this moment, or the file be cut to its frames since its
            // server goes on in another; below it nothing may be wrong.
            Some(JournalError::Damaged(_) | JournalError::Map(_)) if reader.place.lsn >= durable => {
                Ok(prefix)
            }
            Some(error) => Err(error),
            None => Ok(prefix),
        }
    }
}
