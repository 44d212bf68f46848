//! Restoring to a point between two commits.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use cairn_format::header::Magic;
use cairn_format::manifest::{SegmentEntry, SnapshotEntry};
use cairn_format::{LineageId, Lsn};
use cairn_journal::{CutSegment, CutTo, ScanError, SegmentReader, Until, cut_segment, scan};
use cairn_snapshot::Passed;

use super::assemble::{self, Assembled, assemble};
use super::catalogue::Catalogue;
use super::point::{Plan, Point, is_snapshot};
use crate::progress::{Phase, Progress};
use crate::repository::Repository;
use crate::restore::{RestoreOptions, Restored, blocking, fetch, need_keys, new_manifest};
use crate::rewrap::take_key;
use crate::target::{Placed, Target, refuse_filled};
use crate::{JobError, files};

/// Which state is restored.
#[derive(Debug, Clone)]
pub struct PointOptions {
    /// The point.
    pub point: Point,
    /// The history, where more than one has such a point.
    pub lineage: Option<String>,
}

/// Says what [`restore_point`] would do, having done it in a directory of its own in `scratch`, which goes again.
///
/// # Errors
/// As [`restore_point`].
pub async fn plan_point(
    repository: &Repository,
    point: &PointOptions,
    options: RestoreOptions,
    scratch: &Path,
    progress: Arc<dyn Progress>,
) -> Result<Restored, JobError> {
    refuse_filled(&*options.disk, &options.dir, options.force)?;
    let trial = tempfile::Builder::new()
        .prefix("cairn-restore-")
        .tempdir_in(scratch)
        .map_err(|error| JobError::io(scratch, "create a directory in", error))?;
    let dir = trial.path().join("data");
    let tried = RestoreOptions { dir, force: false, ..options.clone() };
    let restored = restore_point(repository, point, tried, progress).await?;
    Ok(Restored { dir: options.dir, lineage: None, ..restored })
}

/// Restores the state at a point.
///
/// # Errors
/// [`JobError::NotRestorable`], and those of [`crate::restore()`]. The directory then holds what it held before.
pub async fn restore_point(
    repository: &Repository,
    point: &PointOptions,
    options: RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<Restored, JobError> {
    refuse_filled(&*options.disk, &options.dir, options.force)?;
    let plan = choose(repository, point, &options).await?;
    let keyring = repository.unlocking(&plan.lineage, options.keyring.clone()).await?;
    let options = RestoreOptions { keyring, ..options };
    let mut target = Target::open(Arc::clone(&options.disk), &options.dir, options.force)?;
    let mut manifest = new_manifest(plan.base.manifest.epoch, plan.base.manifest.databases)?;
    progress.begin(Phase::Download, plan.bytes());
    let snapshot = take_snapshot(repository, &plan, &options, &mut target, &*progress).await?;
    let taken = take_segments(repository, &plan, &mut target, &*progress).await?;
    progress.end();
    let assembled: Vec<Assembled> = taken.iter().map(|(_, assembled)| assembled.clone()).collect();
    let work = Work { plan: plan.clone(), options: options.clone(), lineage: manifest.lineage, progress };
    let (snapshot, journal, target) = blocking(move || {
        let mut target = target;
        work.check_snapshot(snapshot.as_ref())?;
        let journal = work.cut(&mut target, taken)?;
        work.check_journal(&journal)?;
        work.take_keys(snapshot.as_ref(), &journal)?;
        Ok((snapshot, journal, target))
    })
    .await
    .map_err(|error| assemble::name_object(&assembled, repository, &plan.lineage, error))?;
    let end = journal.end;
    let mut placed = Vec::new();
    if let Some(found) = &snapshot {
        manifest.snapshot = Some(found.entry.clone());
        placed.push(found.placed.clone());
    }
    for (file, entry) in &journal.segments {
        manifest.segments.push(entry.clone());
        placed.push(file.clone());
    }
    let lineage = manifest.lineage.to_string();
    let sealed = plan.base.manifest.encrypted && journal.is_sealed;
    let keyring = options.keyring.clone().filter(|_| sealed);
    blocking(move || target.commit(&placed, &mut manifest, keyring.as_deref())).await?;
    Ok(summary(&plan, &options, Some(lineage), end.0))
}

async fn choose(
    repository: &Repository,
    point: &PointOptions,
    options: &RestoreOptions,
) -> Result<Plan, JobError> {
    let mut catalogue = Catalogue::read(repository).await?;
    let plan = catalogue.plan(point.point, point.lineage.as_deref())?;
    // A backup between the base and the point that cannot be read is not passed over in silence.
    let (from, to) = (plan.base.lsn, plan.reach_lsn());
    let of_plan = catalogue.lineages.iter_mut().filter(|lineage| lineage.id == plan.lineage);
    for backup in of_plan.flat_map(|lineage| std::mem::take(&mut lineage.backups)) {
        let lsn: u64 = backup.id.rsplit('-').next().and_then(|lsn| lsn.parse().ok()).unwrap_or(u64::MAX);
        if lsn > from && lsn <= to {
            backup.manifest?;
        }
    }
    let place = repository.store().address(&plan.base.folder);
    need_keys(&place, &plan.base.manifest.keys, options.keyring.as_deref())?;
    Ok(plan)
}

/// A snapshot in the target.
struct Snapshot {
    placed: Placed,
    entry: SnapshotEntry,
    passed: Option<Passed>,
}

async fn take_snapshot(
    repository: &Repository,
    plan: &Plan,
    options: &RestoreOptions,
    target: &mut Target,
    progress: &dyn Progress,
) -> Result<Option<Snapshot>, JobError> {
    let Some(object) = plan.base.manifest.objects.iter().find(|object| is_snapshot(object)) else {
        return Ok(None);
    };
    let (file, placed) = target.create(&object.file)?;
    let passing = Some(files::passing(options.keyring.as_ref()));
    let (folder, temporary) = (&plan.base.folder, placed.temporary.clone());
    let passed = fetch(repository, folder, object, file, temporary, passing, progress).await?;
    let entry = SnapshotEntry {
        name: placed.name.clone(),
        file_id: object.file_id().unwrap_or_default(),
        lsn: Lsn(object.end_lsn),
        bytes: object.bytes,
        entries: object.entries,
    };
    Ok(Some(Snapshot { placed, entry, passed }))
}

async fn take_segments(
    repository: &Repository,
    plan: &Plan,
    target: &mut Target,
    progress: &dyn Progress,
) -> Result<Vec<(Placed, Assembled)>, JobError> {
    let mut taken = Vec::new();
    for part in &plan.segments {
        let (file, placed) = target.create(&format!("journal-{:020}", part.segment.first_lsn))?;
        // Absolute, so that it means the same wherever it is joined to.
        let path = files::io(&placed.temporary, "find", std::path::absolute(&placed.temporary))?;
        taken.push((placed, assemble(repository, &plan.lineage, part, file, path, progress).await?));
    }
    Ok(taken)
}

/// The journal of the restored directory, its last segment cut at the point.
struct Journal {
    segments: Vec<(Placed, SegmentEntry)>,
    end: Lsn,
    is_sealed: bool,
}

/// What is done with what was downloaded, before any of it is named.
struct Work {
    plan: Plan,
    options: RestoreOptions,
    lineage: LineageId,
    progress: Arc<dyn Progress>,
}

impl Work {
    fn check_snapshot(&self, snapshot: Option<&Snapshot>) -> Result<(), JobError> {
        let Some(Snapshot { placed, entry, passed }) = snapshot else { return Ok(()) };
        self.progress.begin(Phase::Verify, entry.bytes);
        let (disk, path, keyring) = (&*self.options.disk, &placed.temporary, self.options.keyring.as_deref());
        let facts = match passed {
            Some(passed) => files::check_passed(disk, path, keyring, passed, &*self.progress)?,
            None => files::check_snapshot(disk, path, keyring, &*self.progress)?,
        };
        files::agree(path, "file id of the snapshot", entry.file_id, facts.file_id)?;
        files::agree(path, "LSN of the snapshot", entry.lsn, facts.lsn)?;
        files::agree(path, "number of keys in the snapshot", entry.entries, facts.entries)?;
        self.progress.end();
        Ok(())
    }

    /// Puts wrapped keys that stand beside the objects into the files.
    fn take_keys(&self, snapshot: Option<&Snapshot>, journal: &Journal) -> Result<(), JobError> {
        let (disk, keyring) = (&*self.options.disk, self.options.keyring.as_deref());
        if let Some(Snapshot { placed, entry, .. }) = snapshot {
            take_key(disk, &placed.temporary, Magic::Snapshot, entry.file_id, keyring)?;
        }
        let mut segments = journal.segments.iter();
        segments.try_for_each(|(placed, entry)| {
            take_key(disk, &placed.temporary, Magic::Journal, entry.file_id, keyring)
        })
    }

    /// Writes the segment that holds the point anew, up to there. Where no commit ends in it below the point, that is done with
    /// the one before it.
    fn cut(&self, target: &mut Target, mut taken: Vec<(Placed, Assembled)>) -> Result<Journal, JobError> {
        let mut until = self.plan.point.until();
        let mut segments = Vec::new();
        let mut is_sealed = true;
        let end = loop {
            let Some((placed, last)) = taken.pop() else { break Lsn(self.plan.base.lsn) };
            let before = taken.last().map(|(_, before)| before.path.clone());
            let cut = self.cut_one(target, before.as_deref(), &last, until)?;
            target.discard(&placed)?;
            if let Some((copy, made)) = cut {
                is_sealed = self.is_sealed(&copy.temporary)?;
                let entry = SegmentEntry {
                    name: copy.name.clone(),
                    file_id: made.file_id,
                    first_lsn: made.first_lsn,
                };
                segments.push((copy, entry));
                break made.end;
            }
            until = Until::Lsn(Lsn(last.segment.first_lsn));
        };
        for (placed, whole) in taken.into_iter().rev() {
            is_sealed &= self.is_sealed(&whole.path)?;
            let first_lsn = Lsn(whole.segment.first_lsn);
            let entry = SegmentEntry { name: placed.name.clone(), file_id: whole.segment.file_id, first_lsn };
            segments.push((placed, entry));
        }
        segments.reverse();
        Ok(Journal { segments, end: end.max(Lsn(self.plan.base.lsn)), is_sealed })
    }

    fn cut_one(
        &self,
        target: &mut Target,
        before: Option<&Path>,
        last: &Assembled,
        until: Until,
    ) -> Result<Option<(Placed, CutSegment)>, JobError> {
        let (file, copy) = target.create(&format!("journal-{:020}.1", last.segment.first_lsn))?;
        let to = CutTo {
            file,
            path: copy.temporary.clone(),
            lineage: self.lineage,
            seal: self.plan.base.manifest.encrypted,
        };
        let (disk, keyring) = (&*self.options.disk, self.options.keyring.as_deref());
        let made = cut_segment(disk, before, &last.path, keyring, until, to)?;
        if made.end < made.first_lsn {
            target.discard(&copy)?;
            return Ok(None);
        }
        Ok(Some((copy, made)))
    }

    fn is_sealed(&self, path: &Path) -> Result<bool, JobError> {
        let reader = SegmentReader::open(&*self.options.disk, path, self.options.keyring.as_deref())?;
        Ok(reader.identity().encrypted)
    }

    /// Reads the journal as a server would.
    fn check_journal(&self, journal: &Journal) -> Result<(), JobError> {
        let mut entries = Vec::new();
        for (placed, entry) in &journal.segments {
            let path = files::io(&placed.temporary, "find", std::path::absolute(&placed.temporary))?;
            let name = path_text(&path)?;
            entries.push(SegmentEntry { name, ..entry.clone() });
        }
        let (from, to) = (Lsn(self.plan.base.lsn), journal.end);
        self.progress.begin(Phase::Verify, to.0.saturating_sub(from.0));
        let mut count = |effects: &[u8], _: Lsn, _: u32| {
            self.progress.advance(effects.len() as u64);
            Ok::<(), Infallible>(())
        };
        let keyring = self.options.keyring.as_deref();
        let scanned = scan(&*self.options.disk, Path::new("/"), &entries, from, to, keyring, &mut count);
        self.progress.end();
        let report = scanned.map_err(|error| match error {
            ScanError::Journal(error) => error,
            ScanError::Sink(never) => match never {},
        })?;
        let place = self.options.dir.join("journal");
        files::agree(&place, "end of the journal", to, report.end)
    }
}

fn path_text(path: &Path) -> Result<String, JobError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| JobError::Usage(format!("{}: the path is not UTF-8", path.display())))
}

fn summary(plan: &Plan, options: &RestoreOptions, lineage: Option<String>, to_lsn: u64) -> Restored {
    Restored {
        from: plan.base.manifest.id.clone(),
        created_unix_ms: plan.base.manifest.created_unix_ms,
        dir: options.dir.clone(),
        lineage,
        objects: plan.objects(),
        bytes: plan.bytes(),
        entries: plan.base.manifest.entries,
        to_lsn,
    }
}

/// The newest state of a repository as a point of its archive; none where a backup that was made by hand is newer, or there is
/// no archive.
///
/// # Errors
/// Those of the store.
pub async fn latest(repository: &Repository) -> Result<Option<PointOptions>, JobError> {
    let catalogue = Catalogue::read(repository).await?;
    let archived = catalogue.lineages.iter().filter(|lineage| !lineage.segments.is_empty());
    let Some(lineage) = archived.max_by_key(|lineage| lineage.newest_unix_ms()) else { return Ok(None) };
    let Some(range) = lineage.ranges().into_iter().max_by_key(|range| range.to_lsn) else { return Ok(None) };
    let backups = catalogue.lineages.iter().flat_map(|lineage| &lineage.backups);
    // Names begin with the moment of their making.
    let Some(newest) = backups.max_by(|a, b| a.id.cmp(&b.id)) else { return Ok(None) };
    let is_newer = match &newest.manifest {
        Ok(manifest) if manifest.lineage == lineage.id => manifest.to_lsn > range.to_lsn,
        Ok(manifest) => manifest.created_unix_ms > lineage.newest_unix_ms(),
        Err(_) => true,
    };
    let point = PointOptions { point: Point::Latest, lineage: Some(lineage.id.clone()) };
    Ok((!is_newer).then_some(point))
}
