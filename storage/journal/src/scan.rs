//! Reading the whole journal at a start, by the tail rules.
//!
//! Only the last segment has a tail: all before it was synced before its successor was named. The tail is surveyed
//! first, so that damage is found before anything is delivered.

use std::io;
use std::path::{Path, PathBuf};

use cairn_disk::Disk;
use cairn_format::Lsn;
use cairn_format::frame::{BLOCK_BYTES, BlockState, FRAME_ALIGN, FrameHeader, TimeStamp, is_zero};
use cairn_format::manifest::SegmentEntry;
use cairn_seal::Keyring;

use crate::error::{Damage, JournalError, ScanError};
use crate::journal::{Resume, Tail};
use crate::reader::{Fault, Found, Place, SegmentReader, foreign};
use crate::segment::SEGMENT_BYTES_MIN;

/// Takes a run of whole commits: the bytes, the LSN of the first, and the database selected there.
pub type Sink<'a, E> = dyn FnMut(&[u8], Lsn, u32) -> Result<(), E> + 'a;

/// What was cut from the journal's end: writes that were under way when the machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// Where the cut part begins.
    pub offset: u64,
    /// How long it is, up to the last byte that arrived.
    pub bytes: u64,
    /// End of what was kept.
    pub from: Lsn,
    /// Greatest LSN that the cut part is known to have reached.
    pub to: Lsn,
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanReport {
    /// End of what was delivered, a commit boundary.
    pub end: Lsn,
    /// Greatest durable LSN that the files and the manifest tell of.
    pub durable: Lsn,
    /// What was cut, if anything was.
    pub cut: Option<Cut>,
    /// Where and with what the journal goes on: for [`crate::Journal::start`].
    pub resume: Resume,
    /// Database selected at `end`.
    pub database: u32,
    /// Frames read.
    pub frames: u64,
}

/// Reads the effects from `from` on and gives them to `sink`: runs of whole commits, each byte once and in order, with
/// the LSN of the first byte and the database selected there. Nothing past the last commit boundary is given.
///
/// `entries` are the manifest's, in order; `from` is the LSN of the snapshot that was loaded, a frame boundary;
/// `floor_durable` is an LSN below which effects are known to be durable (`from`, if nothing else is known).
/// Memory: one frame, the tail past the durable LSN, and the largest commit that straddles frames.
///
/// # Errors
/// Damage, a missing file, a wrong key, an unreadable disk; or whatever the sink returns. What was delivered before an
/// error is of no use then.
pub fn scan<E>(
    disk: &dyn Disk,
    dir: &Path,
    entries: &[SegmentEntry],
    from: Lsn,
    floor_durable: Lsn,
    keyring: Option<&Keyring>,
    sink: &mut Sink<'_, E>,
) -> Result<ScanReport, ScanError<E>> {
    let floor = floor_durable.max(from);
    let Some(entries) = relevant(dir, entries, from, floor)? else {
        return Ok(ScanReport {
            end: from,
            durable: from,
            cut: None,
            resume: Resume::at(from),
            database: 0,
            frames: 0,
        });
    };
    let opener = Opener { disk, dir, keyring, floor };
    let Some((last_entry, earlier)) = entries.split_last() else {
        return Err(JournalError::Missing { file: dir.to_path_buf(), from, to: None }.into());
    };
    let mut last = opener.open(last_entry, None)?;
    let survey = survey(&mut last, floor.max(last_entry.first_lsn))?;

    let mut delivery = Delivery::new(from, survey.durable, sink);
    let mut previous: Option<SegmentReader> = None;
    for (index, entry) in earlier.iter().enumerate() {
        let next = entries.get(index + 1).unwrap_or(last_entry);
        let mut reader = opener.open(entry, Some(next.first_lsn))?;
        check_link(previous.as_mut(), &reader)?;
        delivery.begin(&reader);
        while reader.place.lsn < next.first_lsn {
            delivery.frame(&mut reader, next.first_lsn)?;
        }
        previous = Some(reader);
    }
    check_link(previous.as_mut(), &last)?;
    delivery.begin(&last);
    while last.place.offset < survey.end.offset {
        delivery.frame(&mut last, Lsn(u64::MAX))?;
    }
    Ok(delivery.finish(&last, &survey))
}

/// The entries that hold anything from `from` on; `None` when there is no journal at all.
fn relevant<'a>(
    dir: &Path,
    entries: &'a [SegmentEntry],
    from: Lsn,
    floor: Lsn,
) -> Result<Option<&'a [SegmentEntry]>, JournalError> {
    let Some(first) = entries.first() else {
        if floor > from {
            return Err(JournalError::Missing { file: dir.to_path_buf(), from, to: Some(floor) });
        }
        return Ok(None);
    };
    let mut pairs = entries.iter().zip(entries.iter().skip(1));
    if let Some((a, b)) = pairs.find(|(a, b)| a.first_lsn >= b.first_lsn) {
        return Err(JournalError::Damaged(Box::new(Damage {
            file: dir.join("manifest"),
            offset: 0,
            what: "order of the journal segments",
            expected: format!("a first LSN after {} for {}", a.first_lsn, b.name),
            found: b.first_lsn.to_string(),
            lost_from: a.first_lsn,
            lost_to: None,
        })));
    }
    if first.first_lsn > from {
        let file = dir.join(format!("journal-{:020}", from.0));
        return Err(JournalError::Missing { file, from, to: Some(first.first_lsn) });
    }
    let begin = entries.iter().rposition(|entry| entry.first_lsn <= from).unwrap_or(0);
    Ok(entries.get(begin..))
}

struct Opener<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    keyring: Option<&'a Keyring>,
    floor: Lsn,
}

impl Opener<'_> {
    fn open(&self, entry: &SegmentEntry, end: Option<Lsn>) -> Result<SegmentReader, JournalError> {
        let path = self.dir.join(&entry.name);
        let reader = SegmentReader::open(self.disk, &path, self.keyring).map_err(|error| match error {
            JournalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                JournalError::Missing {
                    file: path.clone(),
                    from: entry.first_lsn,
                    to: end.or((self.floor > entry.first_lsn).then_some(self.floor)),
                }
            }
            other => other,
        })?;
        let identity = |what, expected: String, found: String| {
            reader.damaged_from(Fault { offset: 0, what, expected, found }, entry.first_lsn)
        };
        if reader.file_id() != entry.file_id {
            let (expected, found) = (entry.file_id.to_string(), reader.file_id().to_string());
            return Err(identity("file id", expected, found));
        }
        if reader.body().first_lsn != entry.first_lsn {
            let (expected, found) = (entry.first_lsn.to_string(), reader.body().first_lsn.to_string());
            return Err(identity("first LSN", expected, found));
        }
        Ok(reader)
    }
}

/// Holds a segment against its predecessor, which was read up to the segment's first LSN: they must name the same
/// file, LSN and hash chain.
fn check_link(previous: Option<&mut SegmentReader>, reader: &SegmentReader) -> Result<(), JournalError> {
    let Some(previous) = previous else { return Ok(()) };
    let expected = previous.point();
    let Some(named) = reader.body().predecessor.clone() else {
        return Err(broken_link(reader, expected.file_id.to_string(), "none".to_owned()));
    };
    if named.file_id != expected.file_id || named.end_lsn != expected.end_lsn {
        let show = |file: cairn_format::FileId, lsn: Lsn| format!("{file} up to LSN {lsn}");
        let (named, expected) =
            (show(named.file_id, named.end_lsn), show(expected.file_id, expected.end_lsn));
        return Err(broken_link(reader, expected, named));
    }
    // Empty frames at the same LSN each have their own value; the successor was begun at one of them.
    if previous.reaches_chain(&named.chain)? {
        return Ok(());
    }
    // The successor's header is whole, so it is the frames before it that are others, or too few.
    let fault = Fault {
        offset: previous.place.offset,
        what: "frames of the predecessor",
        expected: format!("the chain {} that {} names", hex(&named.chain), reader.path.display()),
        found: hex(&expected.chain),
    };
    Err(previous.damaged_from(fault, expected.end_lsn))
}

fn broken_link(reader: &SegmentReader, expected: String, found: String) -> JournalError {
    reader.damaged_from(Fault { offset: 0, what: "predecessor", expected, found }, reader.place.lsn)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the last segment holds.
struct Survey {
    /// The place after the last frame that is kept, commit boundary or not.
    end: Place,
    /// Greatest durable LSN known.
    durable: Lsn,
    /// End of the last block that arrived.
    arrived_to: usize,
    /// Greatest LSN any frame that arrived tells of.
    greatest: Lsn,
}

/// Reads the last segment without opening its payloads and applies the tail rules. The reader stays where it was.
fn survey(reader: &mut SegmentReader, floor: Lsn) -> Result<Survey, JournalError> {
    let begin = reader.place.clone();
    let surveyed = survey_from_here(reader, floor);
    reader.place = begin;
    surveyed
}

fn survey_from_here(walk: &mut SegmentReader, floor: Lsn) -> Result<Survey, JournalError> {
    let mut durable = floor;
    let mut file_bytes = SEGMENT_BYTES_MIN;
    while let Some(header) = walk.advance()? {
        durable = durable.max(header.durable);
        file_bytes = u64::from(header.file_pages) * FRAME_ALIGN as u64;
    }
    let end = walk.place.clone();
    let mut survey = Survey { arrived_to: end.offset, greatest: end.lsn, durable, end };
    survey_rest(walk, &mut survey, &mut file_bytes)?;
    walk.check_map()?;

    let found_bytes = walk.bytes().len() as u64;
    if found_bytes < file_bytes {
        let fault = Fault {
            offset: walk.bytes().len(),
            what: "length of the file",
            expected: format!("{file_bytes} bytes, as it was preallocated"),
            found: format!("{found_bytes} bytes"),
        };
        return Err(walk.damaged(fault));
    }
    if survey.end.lsn < survey.durable {
        return Err(JournalError::Damaged(Box::new(Damage {
            file: walk.path.clone(),
            offset: survey.end.offset as u64,
            what: "frame",
            expected: format!("effects up to the durable LSN {}", survey.durable),
            found: "blocks that are zero".to_owned(),
            lost_from: survey.end.lsn,
            lost_to: Some(survey.durable.max(survey.greatest)),
        })));
    }
    Ok(survey)
}

/// Looks at all that follows the first frame that is not there: whole frames tell a durable LSN, changed blocks are
/// damage, the rest belongs to writes that were under way.
fn survey_rest(walk: &SegmentReader, survey: &mut Survey, file_bytes: &mut u64) -> Result<(), JournalError> {
    let mut logical = Vec::new();
    let mut offset = survey.end.offset;
    while let Some(page) = walk.bytes().get(offset..).filter(|rest| !rest.is_empty()) {
        let page = page.get(..FRAME_ALIGN).unwrap_or(page);
        if is_zero(page) {
            offset += page.len();
            continue;
        }
        let first = page.get(..BLOCK_BYTES).unwrap_or(page);
        if walk.block_state(first, offset) != BlockState::First {
            check_orphans(walk, page, offset)?;
            survey.arrived_to = offset + page.len();
            offset += page.len();
            continue;
        }
        let header = match walk.frame_at(offset, &mut logical) {
            Found::Whole(header) => {
                survey.durable = survey.durable.max(header.durable);
                header
            }
            Found::Unfinished(header) => header,
            Found::Bad(fault) => return Err(walk.damaged(fault)),
            // Excluded by the state of the first block.
            Found::Nothing => return Err(walk.damaged(foreign(offset))),
        };
        *file_bytes = u64::from(header.file_pages) * FRAME_ALIGN as u64;
        survey.greatest = survey.greatest.max(header.end_lsn().unwrap_or_default());
        offset += header.physical_bytes();
        survey.arrived_to = offset;
    }
    Ok(())
}

/// A page whose first block never arrived, or that continues a frame whose beginning did not: its blocks must be zero
/// or rightly stamped all the same.
fn check_orphans(walk: &SegmentReader, page: &[u8], offset: usize) -> Result<(), JournalError> {
    for (index, block) in page.chunks(BLOCK_BYTES).enumerate() {
        let at = offset + index * BLOCK_BYTES;
        match walk.block_state(block, at) {
            BlockState::Absent | BlockState::Inner => {}
            BlockState::First | BlockState::Foreign => return Err(walk.damaged(foreign(at))),
        }
    }
    Ok(())
}

/// Turns frames into runs of whole commits.
struct Delivery<'a, E> {
    sink: &'a mut Sink<'a, E>,
    from: Lsn,
    durable: Lsn,
    begun: bool,
    frames: u64,
    /// Part of a commit whose end was not seen yet.
    held: Vec<u8>,
    held_from: Lsn,
    /// Where the first frame of it lies.
    held_at: Option<(PathBuf, usize)>,
    /// Database at the last commit boundary.
    database: u32,
    resume: Resume,
    stamps: Vec<TimeStamp>,
    last_ms: u64,
}

impl<'a, E> Delivery<'a, E> {
    fn new(from: Lsn, durable: Lsn, sink: &'a mut Sink<'a, E>) -> Self {
        Delivery {
            sink,
            from,
            durable,
            begun: false,
            frames: 0,
            held: Vec::new(),
            held_from: from,
            held_at: None,
            database: 0,
            resume: Resume::at(from),
            stamps: Vec::new(),
            last_ms: 0,
        }
    }

    /// Notes where the journal goes on if the first segment turns out to hold nothing.
    fn begin(&mut self, reader: &SegmentReader) {
        if !self.begun {
            self.begun = true;
            self.resume.lsn = reader.place.lsn;
            self.resume.predecessor = reader.body().predecessor.clone();
            self.held_from = reader.place.lsn;
        }
    }

    /// Delivers the next frame, which must be there and end at `limit` at the latest.
    fn frame(&mut self, reader: &mut SegmentReader, limit: Lsn) -> Result<(), ScanError<E>> {
        let place = reader.place.clone();
        let at = |what, expected: String, found: &str| {
            let found = found.to_owned();
            Fault { offset: place.offset, what, expected, found }
        };
        let Some(header) = reader.advance()? else {
            let fault =
                at("frame", format!("frame {} at LSN {}", place.number, place.lsn), "none, or a part of one");
            return Err(reader.damaged(fault).into());
        };
        let end = reader.place.lsn;
        if end > limit {
            let fault =
                at("frame", format!("its end at LSN {limit}, where the next segment begins"), "a later end");
            return Err(reader.damaged_from(fault, place.lsn).into());
        }
        if place.lsn < self.from && end > self.from {
            let fault =
                at("frame", format!("a boundary at LSN {}", self.from), "effects on both sides of it");
            return Err(reader.damaged_from(fault, self.from).into());
        }
        if self.frames == 0 {
            // Where nothing in the segment is known to be durable the journal goes on from its beginning.
            self.resume.database = header.database;
        }
        self.frames += 1;
        for stamp in reader.stamps(&header) {
            if stamp.unix_ms > self.last_ms || self.stamps.is_empty() {
                self.last_ms = self.last_ms.max(stamp.unix_ms);
                self.stamps.push(TimeStamp { lsn: stamp.lsn, unix_ms: self.last_ms });
            }
        }
        let settles = header.commit_lsn == end && end <= self.durable;
        self.payload(reader, &header, &place, settles)?;
        if settles {
            self.resume = Resume {
                lsn: end,
                predecessor: Some(reader.point()),
                database: header.commit_database,
                last_ms: self.last_ms,
                tail: Tail::default(),
            };
            self.stamps.clear();
        }
        Ok(())
    }

    fn payload(
        &mut self,
        reader: &mut SegmentReader,
        header: &FrameHeader,
        place: &Place,
        settles: bool,
    ) -> Result<(), ScanError<E>> {
        let end = reader.place.lsn;
        // Opened even when it is not delivered or empty: the seal covers the header too.
        let payload = reader.open_payload(header, place.offset)?;
        if end <= self.from {
            self.database = header.commit_database;
            self.held_from = end;
            return Ok(());
        }
        if self.held.is_empty() && header.commit_lsn == end {
            if !payload.is_empty() {
                (self.sink)(payload, place.lsn, header.database).map_err(ScanError::Sink)?;
                if !settles {
                    self.resume.tail.bytes.extend_from_slice(payload);
                }
            }
            self.database = header.commit_database;
            self.held_from = end;
            return Ok(());
        }
        let begins = self.held.is_empty();
        self.held.extend_from_slice(payload);
        if begins {
            self.held_from = place.lsn;
            self.database = header.database;
            self.held_at = Some((reader.path.clone(), place.offset));
        }
        self.release(header)
    }

    /// Delivers what is held up to the frame's commit boundary.
    fn release(&mut self, header: &FrameHeader) -> Result<(), ScanError<E>> {
        let length = header.commit_lsn.0.saturating_sub(self.held_from.0);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.held.len());
        if length == 0 {
            return Ok(());
        }
        let commits = self.held.get(..length).unwrap_or_default();
        (self.sink)(commits, self.held_from, self.database).map_err(ScanError::Sink)?;
        self.resume.tail.bytes.extend_from_slice(commits);
        self.held.drain(..length);
        self.held_from = self.held_from.advance(length);
        self.database = header.commit_database;
        Ok(())
    }

    fn finish(mut self, reader: &SegmentReader, survey: &Survey) -> ScanReport {
        let end = self.held_from.max(self.from);
        self.stamps.retain(|stamp| stamp.lsn < end);
        self.resume.tail.stamps = self.stamps;
        self.resume.tail.end_database = self.database;
        let cut_at = match self.held_at.filter(|_| !self.held.is_empty()) {
            Some(place) => Some(place),
            None if survey.arrived_to > survey.end.offset => Some((reader.path.clone(), survey.end.offset)),
            None => None,
        };
        let cut = cut_at.map(|(file, offset)| Cut {
            bytes: if file == reader.path { survey.arrived_to.saturating_sub(offset) as u64 } else { 0 },
            file,
            offset: offset as u64,
            from: end,
            to: survey.greatest.max(end),
        });
        ScanReport {
            end,
            durable: survey.durable,
            cut,
            resume: self.resume,
            database: self.database,
            frames: self.frames,
        }
    }
}
