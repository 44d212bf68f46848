//! Following a segment that a server may still be writing: how far it is durable by now.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use cairn_disk::{Disk, File};
use cairn_format::frame::FRAME_ALIGN;
use cairn_format::header::{Identity, JournalBody};
use cairn_format::{FileId, Lsn};

use crate::error::JournalError;
use crate::reader::SegmentReader;

/// A frame boundary of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Where it is in the file.
    pub offset: u64,
    /// The LSN there.
    pub lsn: Lsn,
    /// When the newest effect of the segment before it was appended, in milliseconds since 1970; 0 where there is none.
    pub unix_ms: u64,
}

/// Reads a segment frame by frame as it grows, by CRC alone: no key is needed, and nothing is read twice. The file stays
/// readable when its name goes.
pub struct Follower {
    reader: SegmentReader,
    file: Arc<dyn File>,
    /// The end of the part that is durable.
    durable: Boundary,
    /// The end of the frames read, those past the durable part in order.
    beyond: VecDeque<Boundary>,
    /// Greatest durable LSN that anything told of.
    known: Lsn,
    newest_ms: u64,
    allocated_bytes: Option<u64>,
}

impl Follower {
    /// Opens a segment.
    ///
    /// # Errors
    /// Those of the disk and of the header.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Follower, JournalError> {
        let io = |source| JournalError::Io { file: path.to_path_buf(), operation: "open", source };
        let file = disk.open_read(path).map_err(io)?;
        let (reader, _) = SegmentReader::open_closed(disk, path)?;
        let durable = Boundary { offset: reader.place.offset as u64, lsn: reader.place.lsn, unix_ms: 0 };
        Ok(Follower {
            reader,
            file,
            durable,
            beyond: VecDeque::new(),
            known: Lsn::ZERO,
            newest_ms: 0,
            allocated_bytes: None,
        })
    }

    /// The segment's id.
    pub fn file_id(&self) -> FileId {
        self.reader.file_id()
    }

    /// The header's identity.
    pub fn identity(&self) -> &Identity {
        self.reader.identity()
    }

    /// The header's part that only journals have.
    pub fn body(&self) -> &JournalBody {
        self.reader.body()
    }

    /// The file, open.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The file's path when it was opened.
    pub fn path(&self) -> &Path {
        &self.reader.path
    }

    /// The end of the durable part, as far as it was read.
    pub fn durable(&self) -> Boundary {
        self.durable
    }

    /// How far it was read, durable or not: an offset in the file.
    pub fn read_to(&self) -> u64 {
        self.reader.place.offset as u64
    }

    /// How long the file was preallocated, once a frame told it.
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.allocated_bytes
    }

    /// Reads on, about `bytes_max` bytes at most, and returns the end of the durable part: frames at or below the greatest D that
    /// any frame states, and at or below `durable`, an LSN known from elsewhere (a successor's first LSN; `Lsn::ZERO`
    /// otherwise).
    ///
    /// # Errors
    /// Those of the disk; [`JournalError::Damaged`] when bytes are wrong that are known to be durable. What lies past
    /// those may be half written at this moment, and is looked at again the next time.
    pub fn advance(&mut self, durable: Lsn, bytes_max: u64) -> Result<Boundary, JournalError> {
        self.known = self.known.max(durable);
        let begin = self.reader.place.offset;
        while ((self.reader.place.offset - begin) as u64) < bytes_max {
            match self.reader.advance() {
                Ok(Some(header)) => {
                    self.known = self.known.max(header.durable);
                    self.newest_ms = self
                        .reader
                        .stamps(&header)
                        .last()
                        .map_or(self.newest_ms, |last| self.newest_ms.max(last.unix_ms));
                    self.allocated_bytes = Some(u64::from(header.file_pages) * FRAME_ALIGN as u64);
                    self.beyond.push_back(Boundary {
                        offset: self.reader.place.offset as u64,
                        lsn: self.reader.place.lsn,
                        unix_ms: self.newest_ms,
                    });
                    self.settle();
                }
                Ok(None) => break,
                Err(JournalError::Damaged(_) | JournalError::Map(_))
                    if self.reader.place.lsn >= self.known =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.settle();
        self.reader.release(begin);
        Ok(self.durable)
    }

    /// Moves the end of the durable part.
    fn settle(&mut self) {
        while let Some(boundary) = self.beyond.front().filter(|boundary| boundary.lsn <= self.known) {
            self.durable = *boundary;
            self.beyond.pop_front();
        }
    }
}
