//! Segments put together from their pieces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_disk::File;
use cairn_format::PAGE;
use cairn_format::header::{Body, Identity, Magic};
use cairn_journal::JournalError;
use cairn_store::{BoxBody, StoreError};

use super::catalogue::{Piece, Segment, Stretch, list_pieces};
use super::names;
use super::point::Part;
use crate::progress::Progress;
use crate::repository::{self, Repository};
use crate::restore::blocking;
use crate::{JobError, files};

/// How often pieces that are gone are looked for under other names.
const ATTEMPTS: u32 = 5;

/// A segment, or its beginning, as a file, and the pieces it came from.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    pub(crate) path: PathBuf,
    pub(crate) segment: Segment,
    /// The pieces that were read, in order.
    taken: Vec<Stretch>,
}

/// Reads a part of a segment into an empty file. Pieces that others take the place of meanwhile are looked for anew.
pub(crate) async fn assemble(
    repository: &Repository,
    lineage: &str,
    part: &Part,
    file: Arc<dyn File>,
    path: PathBuf,
    progress: &dyn Progress,
) -> Result<Assembled, JobError> {
    let mut segment = part.segment.clone();
    let (mut taken, mut at, mut attempts) = (Vec::new(), 0, 0);
    let mut waiting = part.stretches.clone();
    waiting.reverse();
    while let Some(stretch) = waiting.pop() {
        match copy(repository, lineage, &stretch, &file, &path, progress).await {
            Ok(()) => {
                at = stretch.piece.name.end;
                taken.push(stretch);
            }
            Err(JobError::Store(error)) if matches!(error.root(), StoreError::NotFound { .. }) => {
                attempts += 1;
                segment.pieces = pieces_of(repository, lineage, &segment).await?;
                waiting = segment.stretches_from(at);
                waiting.retain(|stretch| stretch.piece.name.start < part.end());
                let gone = waiting.is_empty() || attempts == ATTEMPTS;
                if gone {
                    let key = stretch.piece.name.key(lineage);
                    return Err(repository::missing(repository.store().address(&key)));
                }
                waiting.reverse();
            }
            Err(error) => return Err(error),
        }
    }
    if taken.is_empty() {
        let folder = names::segment(lineage, segment.first_lsn, segment.file_id);
        return Err(repository::missing(repository.store().address(&format!("{folder}{:012}-…", 0))));
    }
    let assembled = Assembled { path, segment, taken };
    let (checked, url) = (assembled.clone(), assembled.begin_url(repository, lineage));
    blocking(move || {
        files::io(&checked.path, "sync", file.sync_all())?;
        checked.is_itself(&*file, url)
    })
    .await?;
    Ok(assembled)
}

async fn pieces_of(
    repository: &Repository,
    lineage: &str,
    segment: &Segment,
) -> Result<Vec<Piece>, JobError> {
    let mut pieces = list_pieces(repository, lineage).await?;
    pieces.retain(|piece| piece.name.file_id == segment.file_id && piece.name.first_lsn == segment.first_lsn);
    pieces.sort_by_key(|piece| (piece.name.start, piece.name.end));
    Ok(pieces)
}

/// Copies what a stretch has to its place in the file.
async fn copy(
    repository: &Repository,
    lineage: &str,
    stretch: &Stretch,
    file: &Arc<dyn File>,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(), JobError> {
    let Stretch { piece, skip } = *stretch;
    let key = piece.name.key(lineage);
    let url = repository.store().address(&key);
    if piece.stored_bytes != piece.name.bytes() {
        return Err(size(url, piece.name.bytes(), piece.stored_bytes));
    }
    let range = (skip > 0).then(|| skip..piece.name.bytes());
    let mut body: BoxBody = repository.store().get_range(&key, range).await?;
    let mut at = piece.name.start + skip;
    while let Some(chunk) = body.next().await? {
        let end = at + chunk.len() as u64;
        if end > piece.name.end {
            return Err(size(url, piece.name.bytes(), end - piece.name.start));
        }
        let (file, place, length) = (Arc::clone(file), path.to_owned(), chunk.len() as u64);
        blocking(move || file.write_at(&chunk, at).map_err(|source| JobError::write(&place, length, source)))
            .await?;
        progress.advance(length);
        at = end;
    }
    if at != piece.name.end {
        return Err(size(url, piece.name.bytes(), at - piece.name.start));
    }
    Ok(())
}

fn size(place: String, expected: u64, found: u64) -> JobError {
    JobError::Damaged {
        place,
        offset: None,
        what: "size in bytes",
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

impl Assembled {
    /// Whether a piece was read for it.
    pub(crate) fn has_taken(&self, piece: &Piece) -> bool {
        self.taken.iter().any(|stretch| stretch.piece.name == piece.name && stretch.skip == 0)
    }

    fn begin_url(&self, repository: &Repository, lineage: &str) -> String {
        let first = self.taken.first().map(|stretch| stretch.piece.name.key(lineage)).unwrap_or_default();
        repository.store().address(&first)
    }

    /// Refuses a file whose header is another's: its frames would be whole as such.
    fn is_itself(&self, file: &dyn File, place: String) -> Result<(), JobError> {
        let mut page = [0; PAGE];
        files::io(&self.path, "read", file.read_exact_at(&mut page, 0))?;
        let identity = Identity::decode(&page, Magic::Journal)
            .map_err(|source| JobError::Format { place: place.clone(), source })?;
        let first_lsn = match identity.body {
            Body::Journal(body) => body.first_lsn.0,
            Body::Snapshot(_) => u64::MAX,
        };
        let show = |file_id, lsn| format!("{file_id} from LSN {lsn}");
        let expected = show(self.segment.file_id, self.segment.first_lsn);
        let found = show(identity.file_id, first_lsn);
        if expected == found {
            return Ok(());
        }
        Err(JobError::Damaged { place, offset: Some(0), what: "header of the segment", expected, found })
    }

    /// The piece that a place of the file came from, and the offset in it.
    fn piece_at(&self, offset: u64) -> Option<(Piece, u64)> {
        let holds = |stretch: &&Stretch| stretch.piece.name.end > offset;
        let stretch = self.taken.iter().find(holds).or(self.taken.last())?;
        Some((stretch.piece, offset.saturating_sub(stretch.piece.name.start)))
    }

    /// An error of this file as one of the object that it came from.
    pub(crate) fn of_object(&self, repository: &Repository, lineage: &str, error: JournalError) -> JobError {
        let (offset, what, expected, found) = match &error {
            JournalError::Damaged(damage) if damage.file == self.path => {
                (damage.offset, damage.what, damage.expected.clone(), damage.found.clone())
            }
            JournalError::Format { file, source } if *file == self.path && error.is_damage() => {
                (source.offset().unwrap_or(0), "header", "one that is whole".to_owned(), source.to_string())
            }
            _ => return error.into(),
        };
        let Some((piece, offset)) = self.piece_at(offset) else { return error.into() };
        let place = repository.store().address(&piece.name.key(lineage));
        JobError::Damaged { place, offset: Some(offset), what, expected, found }
    }
}

/// Says which object an error of a file is about.
pub(crate) fn name_object(
    assembled: &[Assembled],
    repository: &Repository,
    lineage: &str,
    error: JobError,
) -> JobError {
    match error {
        JobError::Journal(error) => {
            let file = match &error {
                JournalError::Damaged(damage) => Some(&damage.file),
                JournalError::Format { file, .. } => Some(file),
                _ => None,
            };
            match assembled.iter().find(|one| Some(&one.path) == file) {
                Some(one) => one.of_object(repository, lineage, error),
                None => error.into(),
            }
        }
        other => other,
    }
}
