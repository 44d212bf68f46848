//! What a repository's listing says can be restored.

use std::collections::BTreeMap;

use cairn_format::FileId;
use serde::Serialize;

use super::lease::{self, Lease};
use super::names::{self, PieceName};
use crate::manifest::BackupManifest;
use crate::repository::{Backup, Repository};
use crate::{JobError, moment};

/// Everything in a repository, as its listing tells it.
#[derive(Debug)]
pub struct Catalogue {
    /// The histories, in order of their ids.
    pub lineages: Vec<Lineage>,
    /// The newest state of the lease that can be read.
    pub lease: Option<Lease>,
}

/// One history of a dataset.
#[derive(Debug)]
pub struct Lineage {
    /// 32 hex digits.
    pub id: String,
    /// The journal, by ascending first LSN, each LSN once: a segment that another took the place of is not among them.
    pub segments: Vec<Segment>,
    /// Where a restore can begin, by ascending LSN.
    pub bases: Vec<Base>,
    /// All backups, the oldest first, those that are damaged too.
    pub backups: Vec<Backup>,
    /// Every effect up to this moment lies below this LSN, as the holder of the lease has stated.
    pub complete: Option<Complete>,
}

/// A statement that nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// The archive holds all below it.
    pub lsn: u64,
    /// No effect beyond that was appended up to this moment, in milliseconds since 1970; 0 where that is not known.
    pub unix_ms: u64,
}

/// A segment of the journal in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The LSN of its first effect.
    pub first_lsn: u64,
    /// Its own id.
    pub file_id: FileId,
    /// Its pieces, in order of their starts.
    pub pieces: Vec<Piece>,
}

/// A piece of a segment that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What its name says.
    pub name: PieceName,
    /// The size of the object in bytes.
    pub stored_bytes: u64,
    /// When it was put, by the store's clock, in milliseconds since 1970.
    pub put_unix_ms: u64,
}

/// A part of a piece that a reader takes: from `skip` bytes into it to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The piece.
    pub piece: Piece,
    /// How many of its first bytes an earlier piece holds too.
    pub skip: u64,
}

/// A backup whose snapshot the journal continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The backup's folder, with a slash at its end.
    pub folder: String,
    /// What the backup holds.
    pub manifest: BackupManifest,
    /// The snapshot's LSN.
    pub lsn: u64,
    /// The first moment it can be used for: no effect below its LSN was appended later.
    pub from_unix_ms: u64,
}

/// A stretch of a history of which every point between two commits can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The history.
    pub lineage: String,
    /// The LSN of the first base.
    pub from_lsn: u64,
    /// Where the journal ends.
    pub to_lsn: u64,
    /// The first moment that can be asked for, in milliseconds since 1970.
    pub from_unix_ms: u64,
    /// The last moment that can be asked for; before `from_unix_ms` where none can, only LSNs.
    pub to_unix_ms: u64,
    /// The first moment, as text.
    pub from: String,
    /// The last moment, as text.
    pub to: String,
    /// How many bases it has.
    pub bases: usize,
}

impl Catalogue {
    /// Lists a repository and reads the manifests of its backups.
    ///
    /// # Errors
    /// Those of the store. Damaged manifests are among the backups, with the reason.
    pub async fn read(repository: &Repository) -> Result<Self, JobError> {
        // What it states was there before; so whatever of that is not listed is missing.
        let lease = lease::newest(repository.store()).await?;
        let mut lineages: BTreeMap<String, Lineage> = BTreeMap::new();
        for backup in repository.backups().await? {
            let id = backup.folder.split('/').nth(1).unwrap_or_default().to_owned();
            lineages.entry(id.clone()).or_insert_with(|| Lineage::empty(id)).backups.push(backup);
        }
        for id in repository.store().list_folders("lineage/").await? {
            let pieces = list_pieces(repository, &id).await?;
            if pieces.is_empty() && !lineages.contains_key(&id) {
                continue;
            }
            lineages.entry(id.clone()).or_insert_with(|| Lineage::empty(id)).segments = segments(pieces);
        }
        for lineage in lineages.values_mut() {
            lineage.note_bases();
            lineage.complete = lease
                .as_ref()
                .and_then(|lease| lease.document.archived.as_ref())
                .filter(|archived| archived.lineage == lineage.id)
                .map(|archived| Complete { lsn: archived.lsn, unix_ms: archived.unix_ms });
        }
        Ok(Self { lineages: lineages.into_values().collect(), lease })
    }

    /// The history of this id.
    pub fn lineage(&self, id: &str) -> Option<&Lineage> {
        self.lineages.iter().find(|lineage| lineage.id == id)
    }

    /// What can be restored, in order of time.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = self.lineages.iter().flat_map(Lineage::ranges).collect();
        ranges.sort_by_key(|range| (range.from_unix_ms, range.from_lsn));
        ranges
    }
}

/// The pieces that the archive of a history holds.
///
/// # Errors
/// Those of the store.
pub(crate) async fn list_pieces(repository: &Repository, lineage: &str) -> Result<Vec<Piece>, JobError> {
    let prefix = names::journal(lineage);
    let listed = repository.store().list(&prefix).await?;
    // A name that is not ours is nothing to us.
    Ok(listed
        .into_iter()
        .filter_map(|object| {
            let name = PieceName::parse(object.key.strip_prefix(&prefix)?)?;
            Some(Piece { name, stored_bytes: object.bytes, put_unix_ms: object.modified_unix_ms })
        })
        .collect())
}

/// Pieces as segments. Of several that begin at one LSN the one counts that reaches furthest, then the one put last: what
/// was durable in a segment that was abandoned, or left by a start, is in the one that took its place.
fn segments(pieces: Vec<Piece>) -> Vec<Segment> {
    let mut by_file: BTreeMap<(u64, FileId), Vec<Piece>> = BTreeMap::new();
    for piece in pieces {
        by_file.entry((piece.name.first_lsn, piece.name.file_id)).or_default().push(piece);
    }
    let mut segments: Vec<Segment> = Vec::new();
    for ((first_lsn, file_id), mut pieces) in by_file {
        pieces.sort_by_key(|piece| (piece.name.start, piece.name.end));
        let segment = Segment { first_lsn, file_id, pieces };
        match segments.last_mut() {
            Some(last) if last.first_lsn == first_lsn => {
                if segment.precedence() > last.precedence() {
                    *last = segment;
                }
            }
            _ => segments.push(segment),
        }
    }
    segments
}

impl Segment {
    /// The pieces a reader takes, in order: from each position the one that reaches furthest.
    pub fn stretches(&self) -> Vec<Stretch> {
        self.stretches_from(0)
    }

    /// As [`Segment::stretches`], from a place in the file that was reached already.
    pub fn stretches_from(&self, mut at: u64) -> Vec<Stretch> {
        let mut taken = Vec::new();
        loop {
            let next = self
                .pieces
                .iter()
                .take_while(|piece| piece.name.start <= at)
                .filter(|piece| piece.name.end > at)
                .max_by_key(|piece| (piece.name.end, piece.name.start));
            let Some(piece) = next else { return taken };
            taken.push(Stretch { piece: *piece, skip: at - piece.name.start });
            at = piece.name.end;
        }
    }

    /// How far its pieces reach without a gap: the last of them.
    pub fn reach(&self) -> Option<PieceName> {
        self.stretches().last().map(|stretch| stretch.piece.name)
    }

    /// The LSN that its pieces reach without a gap.
    pub fn end_lsn(&self) -> u64 {
        self.reach().map_or(self.first_lsn, |name| name.end_lsn)
    }

    fn precedence(&self) -> (u64, u64) {
        let put = self.pieces.iter().map(|piece| piece.put_unix_ms).max().unwrap_or_default();
        (self.end_lsn(), put)
    }
}

impl Lineage {
    fn empty(id: String) -> Self {
        Self { id, segments: Vec::new(), bases: Vec::new(), backups: Vec::new(), complete: None }
    }

    fn note_bases(&mut self) {
        let readable =
            self.backups.iter().filter_map(|backup| Some((backup, backup.manifest.as_ref().ok()?)));
        let base = |(backup, manifest): (&Backup, &BackupManifest)| Base {
            folder: backup.folder.clone(),
            manifest: manifest.clone(),
            lsn: manifest.from_lsn,
            // One that does not tell is certainly not younger than its own making.
            from_unix_ms: manifest.snapshot_unix_ms.unwrap_or(manifest.created_unix_ms),
        };
        self.bases = readable.map(base).collect();
        self.bases.sort_by_key(|base| (base.lsn, base.from_unix_ms));
    }

    /// The runs of segments that follow each other without a gap.
    pub fn runs(&self) -> Vec<&[Segment]> {
        self.segments.chunk_by(|before, after| before.end_lsn() >= after.first_lsn).collect()
    }

    /// What can be restored of this history: each run of segments from its first base on, and each base that no journal
    /// continues as a single point.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges = Vec::new();
        let mut continued = vec![false; self.bases.len()];
        for run in self.runs() {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let inside = first.first_lsn..=last.end_lsn();
            let mut within = Vec::new();
            for (base, continued) in self.bases.iter().zip(&mut continued) {
                if inside.contains(&base.lsn) {
                    *continued = true;
                    within.push(base);
                }
            }
            let (Some(base), Some(reach)) = (within.first(), last.reach()) else { continue };
            let from = within.iter().map(|base| base.from_unix_ms).min().unwrap_or(base.from_unix_ms);
            ranges.push(self.range(base.lsn, reach.end_lsn, from, self.certain_until(&reach), within.len()));
        }
        for (base, _) in self.bases.iter().zip(continued).filter(|(_, continued)| !continued) {
            // One with a journal of its own is restored whole, by its name.
            if base.manifest.to_lsn == base.lsn {
                ranges.push(self.range(base.lsn, base.lsn, base.from_unix_ms, base.from_unix_ms, 1));
            }
        }
        ranges
    }

    /// The last moment of which it is certain that all its effects are below the end of this piece: one before its newest
    /// effect, since others of that same millisecond may have followed, or what the lease states.
    fn certain_until(&self, reach: &PieceName) -> u64 {
        let before_newest = reach.unix_ms.saturating_sub(1);
        match self.complete {
            Some(complete) if complete.lsn <= reach.end_lsn => before_newest.max(complete.unix_ms),
            _ => before_newest,
        }
    }

    fn range(&self, from_lsn: u64, to_lsn: u64, from_unix_ms: u64, to_unix_ms: u64, bases: usize) -> Range {
        Range {
            lineage: self.id.clone(),
            from_lsn,
            to_lsn,
            from_unix_ms,
            to_unix_ms,
            from: moment::rfc3339(from_unix_ms),
            to: moment::rfc3339(to_unix_ms),
            bases,
        }
    }

    /// The newest moment that anything here tells of.
    pub fn newest_unix_ms(&self) -> u64 {
        let journal = self.segments.last().and_then(Segment::reach).map_or(0, |name| name.unix_ms);
        let backups = self.backups.iter().filter_map(|backup| backup.manifest.as_ref().ok());
        backups.map(|manifest| manifest.created_unix_ms).max().unwrap_or(0).max(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample;

    const T: u64 = 1_795_000_000_000;

    fn piece(first_lsn: u64, file: u8, bytes: std::ops::Range<u64>, end_lsn: u64, put: u64) -> Piece {
        let name = PieceName {
            first_lsn,
            file_id: FileId([file; 16]),
            start: bytes.start,
            end: bytes.end,
            end_lsn,
            unix_ms: T + end_lsn,
        };
        Piece { name, stored_bytes: name.bytes(), put_unix_ms: put }
    }

    fn base(lsn: u64) -> Base {
        let mut manifest = sample();
        (manifest.from_lsn, manifest.to_lsn) = (lsn, lsn);
        Base { folder: String::new(), manifest, lsn, from_unix_ms: T + lsn }
    }

    fn lineage(pieces: Vec<Piece>, bases: &[u64]) -> Lineage {
        let bases = bases.iter().map(|lsn| base(*lsn)).collect();
        Lineage { segments: segments(pieces), bases, ..Lineage::empty("ab".to_owned()) }
    }

    #[test]
    fn the_piece_that_reaches_furthest_is_taken() {
        let pieces = vec![
            piece(0, 1, 0..100, 10, 0),
            piece(0, 1, 100..200, 20, 0),
            piece(0, 1, 0..200, 20, 0),
            piece(0, 1, 200..250, 25, 0),
            piece(0, 1, 150..300, 30, 0),
            piece(0, 1, 350..400, 40, 0),
        ];
        let segments = segments(pieces);
        let stretches: Vec<_> = segments[0]
            .stretches()
            .iter()
            .map(|stretch| (stretch.piece.name.start, stretch.skip, stretch.piece.name.end))
            .collect();
        assert_eq!(stretches, [(0, 0, 200), (150, 50, 300)]);
        assert_eq!(segments[0].end_lsn(), 30, "what lies behind a gap does not count");
    }

    #[test]
    fn of_segments_that_begin_together_the_furthest_and_then_the_last_counts() {
        let ids = |pieces| segments(pieces).iter().map(|segment| segment.file_id.0[0]).collect::<Vec<_>>();
        assert_eq!(ids(vec![piece(5, 9, 0..100, 10, 7), piece(5, 1, 0..50, 8, 9)]), [9]);
        assert_eq!(ids(vec![piece(5, 9, 0..100, 10, 7), piece(5, 1, 0..50, 10, 9)]), [1]);
    }

    #[test]
    fn ranges_begin_with_a_base_and_end_at_a_gap() {
        let pieces = vec![
            piece(0, 1, 0..100, 10, 0),
            piece(10, 2, 0..100, 20, 0),
            // Something is missing here.
            piece(25, 3, 0..100, 40, 0),
            piece(38, 4, 0..100, 60, 0),
        ];
        let mut lineage = lineage(pieces, &[5, 15, 22, 60]);
        let lsns = |lineage: &Lineage| {
            lineage
                .ranges()
                .iter()
                .map(|range| (range.from_lsn, range.to_lsn, range.bases))
                .collect::<Vec<_>>()
        };
        assert_eq!(lsns(&lineage), [(5, 20, 2), (60, 60, 1), (22, 22, 1)]);
        let first = &lineage.ranges()[0];
        assert_eq!((first.from_unix_ms, first.to_unix_ms), (T + 5, T + 19));
        lineage.complete = Some(Complete { lsn: 60, unix_ms: T + 99 });
        assert_eq!(lineage.ranges()[1].to_unix_ms, T + 99, "the lease states that nothing more was appended");
        assert_eq!(lineage.ranges()[0].to_unix_ms, T + 19, "which says nothing of an older range");
        lineage.complete = Some(Complete { lsn: 61, unix_ms: T + 99 });
        assert_eq!(lineage.ranges()[1].to_unix_ms, T + 59, "something that was archived is not listed");
    }
}
