//! A segment written anew up to a point between two commits: what a restore to that point ends with.
//!
//! The copy is another file, with an id and a data key of its own, in the place of the one it was cut from: it names the
//! same predecessor. It ends with an empty frame whose D is the cut, so that a reader takes all of it for durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::{Disk, File};
use cairn_format::frame::{FRAME_ALIGN, TimeStamp};
use cairn_format::{FileId, HEADER_BYTES, LineageId, Lsn};
use cairn_seal::Keyring;

use crate::error::{Damage, JournalError};
use crate::reader::{Frame, SegmentReader};
use crate::segment::{FrameParts, Origin, SEGMENT_BYTES_MIN, Segment};
use crate::supply::Prepared;

/// Where a journal is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After the last commit that ends at or below this LSN.
    Lsn(Lsn),
    /// After the last commit that was appended at or before this moment, in milliseconds since 1970.
    UnixMs(u64),
    /// After the last commit that is whole.
    End,
}

/// The copy of a segment.
pub struct CutTo {
    /// An empty file.
    pub file: Arc<dyn File>,
    /// Its path.
    pub path: PathBuf,
    /// The history it belongs to.
    pub lineage: LineageId,
    /// Whether to seal the copy although the original is not.
    pub seal: bool,
}

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSegment {
    /// Its own id.
    pub file_id: FileId,
    /// The LSN of its first effect: the original's.
    pub first_lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The length of the file.
    pub file_bytes: u64,
}

/// Copies the segment at `path` up to a point, and syncs the copy. The original need not be longer than its frames; `before` is
/// the segment before it, where there is one. The end of the copy is below its first LSN where no commit ends in the segment at
/// or below the point: then the segment before it is the one to cut there, and nothing was written.
///
/// # Errors
/// Those of the disk; damage; a wrong key.
pub fn cut_segment(
    disk: &dyn Disk,
    before: Option<&Path>,
    path: &Path,
    keyring: Option<&Keyring>,
    until: Until,
    to: CutTo,
) -> Result<CutSegment, JournalError> {
    let end = find_end(disk, before, path, keyring, until)?;
    let mut reader = SegmentReader::open(disk, path, keyring)?;
    let first_lsn = reader.body().first_lsn;
    if end.lsn < first_lsn {
        return Ok(CutSegment { file_id: FileId::default(), first_lsn, end: end.lsn, file_bytes: 0 });
    }
    let file_bytes = copy_bytes_max(reader.bytes().len() as u64);
    let target = to.path.clone();
    let failed = |operation| {
        let file = target.clone();
        move |source| JournalError::Io { file, operation, source }
    };
    to.file.allocate(file_bytes).map_err(failed("make room for"))?;
    let origin = Origin {
        lineage: to.lineage,
        epoch: reader.body().epoch,
        first_lsn,
        predecessor: reader.body().predecessor.clone(),
    };
    let sealed = reader.identity().encrypted || to.seal;
    let prepared = Prepared { file: Arc::clone(&to.file), path: to.path, file_bytes };
    let mut copy = Segment::begin(prepared, &origin, keyring.filter(|_| sealed)).map_err(failed("begin"))?;
    let mut database = 0;
    while let Some(frame) = reader.read_frame()? {
        if copy.end_lsn >= end.lsn {
            break;
        }
        copy.put(&parts_below(&frame, &end, &mut Vec::new()));
        database = frame.commit_database;
        copy.flush().map_err(failed("write"))?;
    }
    let database = end.database.unwrap_or(database);
    copy.put(&FrameParts {
        payload: &[],
        stamps: &[],
        first_lsn: end.lsn,
        database,
        commit_lsn: end.lsn,
        commit_database: database,
        durable: end.lsn,
    });
    copy.flush().map_err(failed("write"))?;
    to.file.sync_all().map_err(failed("sync"))?;
    Ok(CutSegment { file_id: copy.file_id, first_lsn, end: end.lsn, file_bytes })
}

/// Frames of the copy take no more room than their originals; the last one is followed by an empty one.
fn copy_bytes_max(bytes: u64) -> u64 {
    let align = FRAME_ALIGN as u64;
    (bytes.max(HEADER_BYTES as u64) + 2 * align).next_multiple_of(align).max(SEGMENT_BYTES_MIN)
}

/// A point between two commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    lsn: Lsn,
    /// The database selected there, where it lies inside of a frame.
    database: Option<u32>,
}

/// The part of a frame below the end.
fn parts_below<'a>(frame: &'a Frame, end: &End, stamps: &'a mut Vec<TimeStamp>) -> FrameParts<'a> {
    let kept = usize::try_from(end.lsn.0 - frame.first_lsn.0).unwrap_or(usize::MAX).min(frame.payload.len());
    stamps.extend(frame.stamps.iter().take_while(|stamp| stamp.lsn < end.lsn));
    let inside = kept < frame.payload.len();
    FrameParts {
        payload: frame.payload.get(..kept).unwrap_or_default(),
        stamps,
        first_lsn: frame.first_lsn,
        database: frame.database,
        commit_lsn: if inside { end.lsn } else { frame.commit_lsn },
        commit_database: end.database.filter(|_| inside).unwrap_or(frame.commit_database),
        durable: frame.durable,
    }
}

/// Reads a segment up to the point and says where exactly it is; before the segment's first LSN where that lies inside of a
/// commit. The segment `before` it is read too where a commit may go on from there.
fn find_end(
    disk: &dyn Disk,
    before: Option<&Path>,
    path: &Path,
    keyring: Option<&Keyring>,
    until: Until,
) -> Result<End, JournalError> {
    let mut commits = Commits::default();
    let own_first = SegmentReader::open(disk, path, keyring)?.body().first_lsn;
    let before = before.filter(|_| matches!(until, Until::Lsn(_)));
    for path in before.into_iter().chain([path]) {
        let mut reader = SegmentReader::open(disk, path, keyring)?;
        let is_before = reader.body().first_lsn < own_first;
        commits.enter(reader.body().first_lsn);
        while let Some(frame) = reader.read_frame()? {
            // What follows belongs to a file that was abandoned.
            if is_before && frame.first_lsn >= own_first {
                break;
            }
            let limit = match until {
                Until::Lsn(lsn) => Some(lsn),
                Until::UnixMs(ms) => first_after(&frame, ms),
                Until::End => None,
            };
            let Some(limit) = limit.filter(|limit| *limit < frame_end(&frame)) else {
                commits.pass(&frame);
                continue;
            };
            if until != Until::Lsn(limit) {
                // A stamp is taken where a commit begins.
                return Ok(End { lsn: limit, database: None });
            }
            return commits.cut_in(&frame, limit).map_err(|found| not_effects(path, &frame, found));
        }
    }
    Ok(End { lsn: commits.lsn, database: None })
}

/// Where the first effect begins that was appended after a moment.
fn first_after(frame: &Frame, unix_ms: u64) -> Option<Lsn> {
    frame.stamps.iter().find(|stamp| stamp.unix_ms > unix_ms).map(|stamp| stamp.lsn)
}

fn frame_end(frame: &Frame) -> Lsn {
    frame.first_lsn.advance(frame.payload.len())
}

fn not_effects(path: &Path, frame: &Frame, found: &'static str) -> JournalError {
    JournalError::Damaged(Box::new(Damage {
        file: path.to_path_buf(),
        offset: frame.offset,
        what: "effects of the frame",
        expected: "commands as RESP arrays of bulk strings".to_owned(),
        found: found.to_owned(),
        lost_from: frame.first_lsn,
        lost_to: None,
    }))
}

/// What was passed over: the last commit boundary that a frame tells, and all that follows it.
#[derive(Default)]
struct Commits {
    lsn: Lsn,
    database: Option<u32>,
    part: Vec<u8>,
    /// Not all that follows it was seen: it began before the first segment that was read.
    is_part_cut: bool,
    begun: bool,
}

impl Commits {
    fn enter(&mut self, first_lsn: Lsn) {
        if !self.begun {
            self.lsn = first_lsn;
        }
    }

    fn pass(&mut self, frame: &Frame) {
        if !self.begun && frame.commit_lsn < frame.first_lsn {
            (self.lsn, self.is_part_cut) = (frame.commit_lsn, true);
        }
        self.begun = true;
        if frame.commit_lsn <= self.lsn {
            self.part.extend_from_slice(&frame.payload);
            return;
        }
        let behind = frame.commit_lsn.0.saturating_sub(frame.first_lsn.0);
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        self.part.clear();
        self.part.extend_from_slice(frame.payload.get(behind..).unwrap_or_default());
        (self.lsn, self.database, self.is_part_cut) = (frame.commit_lsn, Some(frame.commit_database), false);
    }

    /// The last commit boundary at or below `limit`, which lies in this frame.
    fn cut_in(mut self, frame: &Frame, limit: Lsn) -> Result<End, &'static str> {
        if self.is_part_cut || (!self.begun && frame.commit_lsn < frame.first_lsn) {
            return Ok(End { lsn: self.lsn.min(frame.commit_lsn), database: None });
        }
        let database = self.database.unwrap_or(frame.database);
        self.part.extend_from_slice(&frame.payload);
        let (length, database) = last_boundary(&self.part, limit.0.saturating_sub(self.lsn.0), database)?;
        Ok(End { lsn: self.lsn.advance(length), database: Some(database) })
    }
}

/// Walks effects that begin between two commits: the last such place that is not past `limit` bytes, and the database
/// selected there.
fn last_boundary(effects: &[u8], limit: u64, database: u32) -> Result<(usize, u32), &'static str> {
    let (mut at, mut selected, mut in_transaction) = (0, database, false);
    let mut boundary = (0, database);
    while at < effects.len() {
        let Some(effect) = Effect::parse(effects.get(at..).unwrap_or_default())? else { break };
        at += effect.length;
        if at as u64 > limit {
            break;
        }
        match effect.kind {
            Kind::Multi => in_transaction = true,
            Kind::Exec => in_transaction = false,
            Kind::Select(database) => selected = database,
            Kind::Other => {}
        }
        if !in_transaction {
            boundary = (at, selected);
        }
    }
    Ok(boundary)
}

/// One command of the stream.
struct Effect {
    length: usize,
    kind: Kind,
}

enum Kind {
    Multi,
    Exec,
    Select(u32),
    Other,
}

impl Effect {
    /// Reads one; `None` when its end is not there.
    fn parse(bytes: &[u8]) -> Result<Option<Effect>, &'static str> {
        let Some((words, mut at)) = number(bytes, 0, b'*')? else { return Ok(None) };
        let mut first: &[u8] = &[];
        let mut second: &[u8] = &[];
        for index in 0..words {
            let Some((length, begin)) = number(bytes, at, b'$')? else { return Ok(None) };
            let end = begin.checked_add(length).ok_or("a word that is too long")?;
            let Some(word) = bytes.get(begin..end) else { return Ok(None) };
            match index {
                0 => first = word,
                1 => second = word,
                _ => {}
            }
            at = end + 2;
        }
        if at > bytes.len() {
            return Ok(None);
        }
        let kind = match (words, first) {
            (1, b"MULTI") => Kind::Multi,
            (1, b"EXEC") => Kind::Exec,
            (2, b"SELECT") => {
                let text = std::str::from_utf8(second).unwrap_or_default();
                Kind::Select(text.parse().map_err(|_| "SELECT without a number")?)
            }
            _ => Kind::Other,
        };
        Ok(Some(Effect { length: at, kind }))
    }
}

/// A number after `mark`, and where its line ends; `None` when that end is not there.
fn number(bytes: &[u8], at: usize, mark: u8) -> Result<Option<(usize, usize)>, &'static str> {
    let Some(line) = bytes.get(at..) else { return Ok(None) };
    match line.first() {
        None => return Ok(None),
        Some(first) if *first != mark => return Err("something else"),
        Some(_) => {}
    }
    let Some(length) = line.iter().take(24).position(|byte| *byte == b'\r') else {
        return if line.len() < 24 { Ok(None) } else { Err("a number without an end") };
    };
    let digits = line.get(1..length).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
    let number = digits.parse().map_err(|_| "a length that is no number")?;
    Ok(Some((number, at + length + 2)))
}
