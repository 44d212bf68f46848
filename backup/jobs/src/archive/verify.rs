//! Proving that an archived journal is what its names say, and that nothing of it is missing.

use std::path::Path;
use std::sync::Arc;

use cairn_format::header::Predecessor;
use cairn_journal::{JournalError, SegmentReader};
use cairn_seal::Keyring;

use super::assemble::{Assembled, assemble};
use super::catalogue::{Lineage, Piece, Segment};
use super::names;
use super::point::Part;
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::restore::blocking;
use crate::verify::{Tier, Verdict, VerifyOptions};
use crate::{JobError, files};

/// Verifies the archived journal of a history: each piece against its name, each frame, the chain of frames and segments, and
/// with a keyring each seal. Damage is a verdict; an error is what kept us from one.
///
/// # Errors
/// Those of the store and the scratch directory.
pub async fn verify_journal(
    repository: &Repository,
    lineage: &Lineage,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
) -> Result<Verdict, JobError> {
    let pieces = || lineage.segments.iter().flat_map(|segment| &segment.pieces);
    let mut verdict = Verdict::begin(format!("journal of {}", lineage.id));
    verdict.objects = pieces().count() as u64;
    verdict.bytes = pieces().map(|piece| piece.name.bytes()).sum();
    let sizes: Vec<JobError> = pieces().filter_map(|piece| wrong_size(repository, lineage, piece)).collect();
    let gaps = gaps(repository, lineage);
    let whole = sizes.is_empty() && gaps.is_empty();
    verdict.note(sizes)?;
    verdict.note(gaps)?;
    if whole {
        verdict.tier = Tier::Sizes;
    }
    let keyring = repository.unlocking(&lineage.id, options.keyring.clone()).await?;
    let options = &VerifyOptions { keyring, ..options.clone() };
    progress.begin(Phase::Verify, verdict.bytes);
    let mut chain = Chain { before: None, decrypted: true };
    for segment in &lineage.segments {
        let faults = verify_segment(repository, lineage, segment, options, &progress, &mut chain).await?;
        verdict.note(faults)?;
    }
    progress.end();
    verdict.ok = verdict.faults.is_empty();
    if verdict.ok {
        verdict.tier = if chain.decrypted { Tier::Contents } else { Tier::Checksums };
    }
    Ok(verdict)
}

fn wrong_size(repository: &Repository, lineage: &Lineage, piece: &Piece) -> Option<JobError> {
    let (expected, found) = (piece.name.bytes(), piece.stored_bytes);
    (expected != found).then(|| JobError::Damaged {
        place: address(repository, lineage, piece),
        offset: None,
        what: "size in bytes",
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

fn address(repository: &Repository, lineage: &Lineage, piece: &Piece) -> String {
    repository.store().address(&piece.name.key(&lineage.id))
}

/// What must be there and is not listed.
fn gaps(repository: &Repository, lineage: &Lineage) -> Vec<JobError> {
    let missing = |segment: &Segment, expected: String| JobError::Damaged {
        place: repository.store().address(&names::segment(&lineage.id, segment.first_lsn, segment.file_id)),
        offset: segment.reach().map(|reach| reach.end),
        what: "journal",
        expected,
        found: format!("pieces that reach LSN {}", segment.end_lsn()),
    };
    let mut gaps = Vec::new();
    for (segment, next) in lineage.segments.iter().zip(lineage.segments.iter().skip(1)) {
        if segment.end_lsn() < next.first_lsn {
            gaps.push(missing(
                segment,
                format!("pieces up to LSN {}, where the next segment begins", next.first_lsn),
            ));
        }
    }
    // What lies behind a piece that is missing shows where the names end.
    if let Some(last) = lineage.segments.last() {
        let reach = last.reach().map_or(0, |reach| reach.end);
        if last.pieces.iter().any(|piece| piece.name.start > reach) {
            gaps.push(missing(last, "pieces without a gap between them".to_owned()));
        } else if let Some(complete) = lineage.complete.filter(|complete| complete.lsn > last.end_lsn()) {
            gaps.push(missing(last, format!("pieces up to LSN {}, as the lease states", complete.lsn)));
        }
    }
    // A snapshot that was put as a base is followed by the journal, if any is there.
    if let Some(first) = lineage.segments.first() {
        let continued =
            |base: &&super::Base| base.manifest.snapshot_unix_ms.is_some() && base.lsn < first.first_lsn;
        if let Some(base) = lineage.bases.iter().find(continued) {
            gaps.push(JobError::Damaged {
                place: repository.store().address(&format!("lineage/{}/journal/", lineage.id)),
                offset: None,
                what: "journal",
                expected: format!(
                    "a segment that holds LSN {}, where backup {} ends",
                    base.lsn, base.manifest.id
                ),
                found: format!("none before LSN {}", first.first_lsn),
            });
        }
    }
    gaps
}

/// What the segment before has left to compare.
struct Chain {
    before: Option<Before>,
    decrypted: bool,
}

struct Before {
    segment: Segment,
    /// The places where a successor may go on.
    points: Vec<Predecessor>,
}

async fn verify_segment(
    repository: &Repository,
    lineage: &Lineage,
    segment: &Segment,
    options: &VerifyOptions,
    progress: &Arc<dyn Progress>,
    chain: &mut Chain,
) -> Result<Vec<JobError>, JobError> {
    let scratch = tempfile::Builder::new()
        .prefix("cairn-verify-")
        .tempdir_in(&options.scratch)
        .map_err(|error| JobError::io(&options.scratch, "create a directory in", error))?;
    let path = scratch.path().join("segment");
    let file = files::io(&path, "create", options.disk.create_new(&path))?;
    let part = Part { segment: segment.clone(), stretches: segment.stretches() };
    let assembled = match assemble(repository, &lineage.id, &part, file, path, &**progress).await {
        Ok(assembled) => assembled,
        Err(error) if error.is_damage() => {
            chain.before = None;
            return Ok(vec![error]);
        }
        Err(error) => return Err(error),
    };
    let mut faults = Vec::new();
    let walked = {
        let (options, assembled) = (options.clone(), assembled.clone());
        let next = lineage.segments.iter().find(|next| next.first_lsn > segment.first_lsn);
        let next = next.map(|next| next.first_lsn);
        blocking(move || Ok(walk(&options, &assembled, next))).await?
    };
    match walked {
        Ok(walked) => {
            chain.decrypted &= walked.decrypted;
            faults.extend(names_agree(repository, lineage, segment, &walked));
            faults.extend(broken_link(repository, lineage, segment, &walked, chain.before.as_ref()));
            chain.before = Some(Before { segment: segment.clone(), points: walked.points });
        }
        Err(error) => {
            chain.before = None;
            faults.push(assembled.of_object(repository, &lineage.id, error));
        }
    }
    for piece in segment.pieces.iter().filter(|piece| !assembled.has_taken(piece)) {
        faults.extend(differs(repository, lineage, piece, options, &assembled).await?);
    }
    Ok(faults)
}

/// What a segment turned out to hold.
struct Walked {
    predecessor: Option<Predecessor>,
    first_lsn: u64,
    /// Each frame boundary: offset, LSN, the newest moment before it.
    boundaries: Vec<(u64, u64, u64)>,
    points: Vec<Predecessor>,
    decrypted: bool,
}

fn walk(options: &VerifyOptions, assembled: &Assembled, next: Option<u64>) -> Result<Walked, JournalError> {
    let keyring: Option<&Keyring> = options.keyring.as_deref();
    let mut reader = match keyring {
        Some(_) => SegmentReader::open(&*options.disk, &assembled.path, keyring)?,
        None => SegmentReader::open_without_key(&*options.disk, &assembled.path)?,
    };
    let mut walked = Walked {
        predecessor: reader.body().predecessor.clone(),
        first_lsn: reader.body().first_lsn.0,
        boundaries: Vec::new(),
        points: vec![reader.point()],
        decrypted: keyring.is_some() || !reader.identity().encrypted,
    };
    let mut newest_ms = 0;
    loop {
        let Some(passed) = reader.pass_frame(walked.decrypted)? else { return Ok(walked) };
        newest_ms = newest_ms.max(passed.newest_ms.unwrap_or(0));
        let point = reader.point();
        walked.boundaries.push((passed.end, point.end_lsn.0, newest_ms));
        if next == Some(point.end_lsn.0) {
            walked.points.push(point);
        }
    }
}

/// Holds the names of a segment's pieces against what is in them.
fn names_agree(
    repository: &Repository,
    lineage: &Lineage,
    segment: &Segment,
    walked: &Walked,
) -> Vec<JobError> {
    let mut faults = Vec::new();
    let mut fault = |place: String, what, expected: String, found: String| {
        faults.push(JobError::Damaged { place, offset: None, what, expected, found });
    };
    if walked.first_lsn != segment.first_lsn
        && let Some(piece) = segment.pieces.first()
    {
        let (expected, found) = (segment.first_lsn.to_string(), walked.first_lsn.to_string());
        fault(address(repository, lineage, piece), "first LSN", expected, found);
    }
    let reach = segment.reach().map_or(0, |reach| reach.end);
    for piece in segment.pieces.iter().filter(|piece| piece.name.end <= reach) {
        let name = piece.name;
        let found = walked.boundaries.iter().find(|(offset, ..)| *offset == name.end);
        let expected = format!("LSN {} and {} at its end", name.end_lsn, crate::rfc3339(name.unix_ms));
        match found {
            Some((_, lsn, ms)) if (*lsn, *ms) == (name.end_lsn, name.unix_ms) => {}
            Some((_, lsn, ms)) => {
                let found = format!("LSN {lsn} and {}", crate::rfc3339(*ms));
                fault(address(repository, lineage, piece), "name of the piece", expected, found);
            }
            None => {
                fault(
                    address(repository, lineage, piece),
                    "end of the piece",
                    expected,
                    "no frame's end".to_owned(),
                );
            }
        }
    }
    faults
}

/// Holds a segment against the one before it.
fn broken_link(
    repository: &Repository,
    lineage: &Lineage,
    segment: &Segment,
    walked: &Walked,
    before: Option<&Before>,
) -> Option<JobError> {
    let before = before.filter(|before| before.segment.end_lsn() >= segment.first_lsn)?;
    let named = walked.predecessor.as_ref();
    if named.is_some_and(|named| before.points.contains(named)) {
        return None;
    }
    let show = |point: &Predecessor| format!("{} up to LSN {}", point.file_id, point.end_lsn);
    Some(JobError::Damaged {
        place: segment.pieces.first().map(|piece| address(repository, lineage, piece)).unwrap_or_default(),
        offset: Some(0),
        what: "predecessor",
        expected: before.points.last().map(show).unwrap_or_default(),
        found: named.map_or("none".to_owned(), show),
    })
}

/// Compares a piece that others cover with what they hold.
async fn differs(
    repository: &Repository,
    lineage: &Lineage,
    piece: &Piece,
    options: &VerifyOptions,
    assembled: &Assembled,
) -> Result<Option<JobError>, JobError> {
    let key = piece.name.key(&lineage.id);
    let body = match repository.store().get_stream(&key).await {
        // It was merged into another while this went on.
        Err(error) if matches!(error.root(), cairn_store::StoreError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    compare(body, piece, options, &assembled.path).await.map(|at| {
        at.map(|offset| JobError::Damaged {
            place: repository.store().address(&key),
            offset: Some(offset),
            what: "piece",
            expected: "the bytes that the other pieces of its segment hold".to_owned(),
            found: "others".to_owned(),
        })
    })
}

/// The first offset in a piece at which it is not what the segment holds there. Key slots may have been written anew.
async fn compare(
    mut body: cairn_store::BoxBody,
    piece: &Piece,
    options: &VerifyOptions,
    path: &Path,
) -> Result<Option<u64>, JobError> {
    let file = files::io(path, "open", options.disk.open_read(path))?;
    let slots = cairn_format::PAGE as u64..cairn_format::HEADER_BYTES as u64;
    let mut at = piece.name.start;
    while let Some(chunk) = body.next().await? {
        let mut held = vec![0; chunk.len()];
        // What lies behind the other pieces is compared with nothing.
        if file.read_exact_at(&mut held, at).is_err() {
            return Ok(None);
        }
        let differs =
            |(offset, (a, b)): (u64, (&u8, &u8))| (a != b && !slots.contains(&offset)).then_some(offset);
        if let Some(offset) = (at..).zip(chunk.iter().zip(&held)).find_map(differs) {
            return Ok(Some(offset - piece.name.start));
        }
        at += chunk.len() as u64;
    }
    Ok(None)
}
