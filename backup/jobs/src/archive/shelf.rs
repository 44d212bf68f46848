//! What the archive holds of one segment, as the agent that writes it keeps count.

use cairn_format::FileId;

use super::catalogue::{Piece, Segment};
use super::names::PieceName;

/// Pieces become one when so many of a kind follow each other.
const MERGE_COUNT: usize = 32;
/// A piece that was merged from others is not longer than this: the default length of a whole segment.
pub(crate) const PIECE_BYTES_MAX: u64 = 64 << 20;

/// The pieces of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelf {
    first_lsn: u64,
    file_id: FileId,
    /// Those a reader takes, in order, each with how often it was merged.
    path: Vec<(PieceName, u32)>,
    /// Those that longer ones have taken the place of, and that are still there.
    covered: Vec<PieceName>,
}

impl Shelf {
    /// An empty one.
    pub(crate) fn new(first_lsn: u64, file_id: FileId) -> Self {
        Self { first_lsn, file_id, path: Vec::new(), covered: Vec::new() }
    }

    /// What a listing shows.
    pub(crate) fn of(first_lsn: u64, file_id: FileId, mut pieces: Vec<Piece>) -> Self {
        pieces.sort_by_key(|piece| (piece.name.start, piece.name.end));
        let segment = Segment { first_lsn, file_id, pieces };
        let path: Vec<_> = segment.stretches().iter().map(|stretch| (stretch.piece.name, 0)).collect();
        let end = path.last().map_or(0, |(name, _)| name.end);
        let is_covered = |name: &PieceName| name.end <= end && path.iter().all(|(taken, _)| taken != name);
        let covered = segment.pieces.iter().map(|piece| piece.name).filter(is_covered).collect();
        Self { first_lsn, file_id, path, covered }
    }

    /// Where the pieces end, and the LSN and moment there; the segment's begin where there are none.
    pub(crate) fn end(&self) -> (u64, u64, u64) {
        self.path.last().map_or((0, self.first_lsn, 0), |(name, _)| (name.end, name.end_lsn, name.unix_ms))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.path.is_empty()
    }

    /// The name of the piece that goes on from here to there.
    pub(crate) fn next(&self, end: u64, end_lsn: u64, unix_ms: u64) -> PieceName {
        let (first_lsn, file_id, (start, ..)) = (self.first_lsn, self.file_id, self.end());
        PieceName { first_lsn, file_id, start, end, end_lsn, unix_ms }
    }

    /// Notes a piece that was put at the end.
    pub(crate) fn put(&mut self, name: PieceName) {
        debug_assert_eq!(name.start, self.end().0);
        self.path.push((name, 0));
    }

    /// A piece that is worth putting in the place of others: of a segment that grows, where many alike follow each other; of
    /// one that is `whole`, as long as may be.
    pub(crate) fn merge(&self, whole: bool) -> Option<PieceName> {
        let range = if whole { self.longest() } else { self.alike() }?;
        let first = self.path.get(*range.start())?.0;
        let last = self.path.get(*range.end())?.0;
        Some(PieceName { start: first.start, ..last })
    }

    /// The first run of several pieces that together are not too long.
    fn longest(&self) -> Option<std::ops::RangeInclusive<usize>> {
        let mut begin = 0;
        while let Some((first, _)) = self.path.get(begin) {
            let within = |(name, _): &&(PieceName, u32)| name.end - first.start <= PIECE_BYTES_MAX;
            let count = self.path.get(begin..)?.iter().take_while(within).count().max(1);
            if count > 1 {
                return Some(begin..=begin + count - 1);
            }
            begin += 1;
        }
        None
    }

    /// The last pieces, if enough of them were merged equally often.
    fn alike(&self) -> Option<std::ops::RangeInclusive<usize>> {
        let level = self.path.last()?.1;
        let count = self.path.iter().rev().take_while(|(_, merged)| *merged == level).count();
        let begin = self.path.len().checked_sub(MERGE_COUNT)?;
        let length = self.end().0 - self.path.get(begin)?.0.start;
        (count >= MERGE_COUNT && length <= PIECE_BYTES_MAX).then(|| begin..=self.path.len() - 1)
    }

    /// Notes that a piece was put in the place of those it holds.
    pub(crate) fn merged(&mut self, name: PieceName) {
        let begin = self.path.iter().position(|(taken, _)| taken.start == name.start);
        let end = self.path.iter().position(|(taken, _)| taken.end == name.end);
        let (Some(begin), Some(end)) = (begin, end) else { return };
        let level = self.path.get(end).map_or(0, |(_, level)| level + 1);
        self.covered.extend(self.path.splice(begin..=end, [(name, level)]).map(|(taken, _)| taken));
    }

    /// Those that nobody needs any more, to be removed.
    pub(crate) fn take_covered(&mut self) -> Vec<PieceName> {
        std::mem::take(&mut self.covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(pieces: u64, bytes: u64) -> Shelf {
        let mut shelf = Shelf::new(7, FileId([1; 16]));
        for number in 1..=pieces {
            shelf.put(shelf.next(number * bytes, 7 + number, number));
        }
        shelf
    }

    #[test]
    fn pieces_alike_become_one_and_those_again() {
        let mut shelf = shelf(0, 0);
        let mut puts = 0;
        for number in 1..=2_100 {
            shelf.put(shelf.next(number * 4_096, 7 + number, number));
            while let Some(name) = shelf.merge(false) {
                shelf.merged(name);
                puts += 1;
            }
        }
        assert!(shelf.path.len() < 3 * MERGE_COUNT, "{} pieces", shelf.path.len());
        assert_eq!(puts, 2_100 / 32 + 2_100 / 1_024);
        assert_eq!(shelf.end(), (2_100 * 4_096, 2_107, 2_100));
        assert_eq!(shelf.take_covered().len(), 2_100 / 32 * 32 + 2_100 / 1_024 * 32);
        let whole = shelf.merge(true).unwrap();
        assert_eq!((whole.start, whole.end, whole.end_lsn, whole.unix_ms), (0, 2_100 * 4_096, 2_107, 2_100));
        shelf.merged(whole);
        assert_eq!(shelf.merge(true), None);
    }

    #[test]
    fn a_long_segment_stays_in_several() {
        let mut shelf = shelf(10, 20 << 20);
        while let Some(name) = shelf.merge(true) {
            assert!(name.bytes() <= PIECE_BYTES_MAX);
            shelf.merged(name);
        }
        assert_eq!(shelf.path.len(), 4);
    }

    #[test]
    fn a_listing_tells_the_same() {
        let mut shelf = shelf(32, 4_096);
        let merged = shelf.merge(false).unwrap();
        let listed = |names: &[PieceName]| {
            let piece = |name: &PieceName| Piece { name: *name, stored_bytes: name.bytes(), put_unix_ms: 0 };
            Shelf::of(7, FileId([1; 16]), names.iter().map(piece).collect())
        };
        let mut names: Vec<_> = shelf.path.iter().map(|(name, _)| *name).collect();
        names.push(merged);
        shelf.merged(merged);
        let mut found = listed(&names);
        assert_eq!(found.end(), shelf.end());
        assert_eq!(found.take_covered(), shelf.take_covered());
        // Behind a gap something may still be needed.
        let mut gap = listed(&[names[0], names[2]]);
        assert_eq!((gap.end().0, gap.take_covered()), (4_096, Vec::new()));
    }
}
