//! The names of an archive's objects: made here, and read here.
//!
//! Numbers have a fixed width, so that a listing in order of names is one in order of LSNs and offsets.

use std::fmt;

use cairn_format::FileId;

/// `lineage/<lineage>/`
pub fn lineage(lineage: &str) -> String {
    format!("lineage/{lineage}/")
}

/// `lineage/<lineage>/journal/`: the folder of all segments.
pub fn journal(lineage: &str) -> String {
    format!("lineage/{lineage}/journal/")
}

/// `lineage/<lineage>/journal/<first LSN>-<file id>/`: the folder of one segment.
pub fn segment(lineage: &str, first_lsn: u64, file_id: FileId) -> String {
    format!("{}{first_lsn:020}-{file_id}/", journal(lineage))
}

/// The folder of leases.
pub const LEASES: &str = "lease/";
/// The folder of tombstones.
pub const TOMBSTONES: &str = "tombstone/";

/// A piece of a journal segment: the bytes from `start` to `end` of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceName {
    /// The LSN of the segment's first effect.
    pub first_lsn: u64,
    /// The segment's own id.
    pub file_id: FileId,
    /// Where in the file the piece begins; 0, or the end of a frame.
    pub start: u64,
    /// Where it ends: the end of a frame.
    pub end: u64,
    /// The LSN reached there.
    pub end_lsn: u64,
    /// When the newest effect below that was appended, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl PieceName {
    /// Reads `<first LSN, 20>-<file id>/<start, 12>-<end, 12>-<end LSN, 20>-<unix ms, 13>`, which stands below `journal/`.
    pub fn parse(name: &str) -> Option<Self> {
        let (segment, piece) = name.split_once('/')?;
        let (first_lsn, file_id) = segment.split_once('-')?;
        let mut parts = piece.split('-');
        let name = Self {
            first_lsn: digits(first_lsn, 20)?,
            file_id: file_id_of(file_id)?,
            start: digits(parts.next()?, 12)?,
            end: digits(parts.next()?, 12)?,
            end_lsn: digits(parts.next()?, 20)?,
            unix_ms: digits(parts.next()?, 13)?,
        };
        let sound = parts.next().is_none() && name.start < name.end && name.first_lsn <= name.end_lsn;
        sound.then_some(name)
    }

    /// The object's name in the repository.
    pub fn key(&self, lineage: &str) -> String {
        format!("{}{self}", journal(lineage))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

impl fmt::Display for PieceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_lsn, file_id, start, end, end_lsn, unix_ms } = self;
        write!(f, "{first_lsn:020}-{file_id}/{start:012}-{end:012}-{end_lsn:020}-{unix_ms:013}")
    }
}

/// One state of the lease: `lease/<epoch, 10>/<renewal, 10>.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    /// Rises with each holder.
    pub epoch: u64,
    /// Rises with each renewal of one holder, from 1.
    pub renewal: u64,
}

impl LeaseName {
    /// Reads the whole name of an object.
    pub fn parse(key: &str) -> Option<Self> {
        let (epoch, renewal) = key.strip_prefix(LEASES)?.split_once('/')?;
        Some(Self { epoch: digits(epoch, 10)?, renewal: digits(renewal.strip_suffix(".json")?, 10)? })
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LEASES}{:010}/{:010}.json", self.epoch, self.renewal)
    }
}

/// A document of which the highest number counts: `<stem>-<number, 6>.json`.
pub fn numbered(stem: &str, number: u64) -> String {
    format!("{stem}-{number:06}.json")
}

/// The number in such a name, which stands alone, without its folder.
pub fn number_of(name: &str, stem: &str) -> Option<u64> {
    digits(name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".json")?, 6)
}

/// The object of a tombstone: `tombstone/<number, 10>.json`.
pub fn tombstone(number: u64) -> String {
    format!("{TOMBSTONES}{number:010}.json")
}

/// The number of a tombstone, from the whole name of its object.
pub fn tombstone_number(key: &str) -> Option<u64> {
    digits(key.strip_prefix(TOMBSTONES)?.strip_suffix(".json")?, 10)
}

/// A number of exactly so many decimal digits.
fn digits(text: &str, width: usize) -> Option<u64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn file_id_of(text: &str) -> Option<FileId> {
    crate::manifest::hex16(text).map(FileId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: &str = "00000000000000000100-07070707070707070707070707070707/\
                         000000012288-000000020480-00000000000000000177-1795428904250";

    #[test]
    fn pieces_come_back_from_their_names() {
        let piece = PieceName {
            first_lsn: 100,
            file_id: FileId([7; 16]),
            start: 12_288,
            end: 20_480,
            end_lsn: 177,
            unix_ms: 1_795_428_904_250,
        };
        assert_eq!(piece.to_string(), PIECE);
        assert_eq!(PieceName::parse(PIECE), Some(piece));
        assert_eq!(piece.key("ab"), format!("lineage/ab/journal/{PIECE}"));
        for bad in [
            &PIECE[1..],
            &PIECE[..PIECE.len() - 1],
            &format!("{PIECE}-1"),
            &format!("{PIECE}/x"),
            &PIECE.replace("000000020480", "000000012288"),
            &PIECE.replace("00000000000000000177", "00000000000000000099"),
            &PIECE.replace("0707", "07G7"),
            &PIECE.replace("000000020480", "+00000020480"),
            "notes.txt",
            "",
        ] {
            assert_eq!(PieceName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_names_come_back_too() {
        let lease = LeaseName { epoch: 7, renewal: 41 };
        assert_eq!(lease.to_string(), "lease/0000000007/0000000041.json");
        assert_eq!(LeaseName::parse(&lease.to_string()), Some(lease));
        assert_eq!(LeaseName::parse("lease/7/41.json"), None);
        assert_eq!(numbered("keys", 3), "keys-000003.json");
        assert_eq!(number_of("keys-000003.json", "keys"), Some(3));
        assert_eq!(number_of("kept-000003.json", "keys"), None);
        assert_eq!(tombstone_number(&tombstone(12)), Some(12));
    }
}
