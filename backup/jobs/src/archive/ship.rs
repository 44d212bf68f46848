//! Following the journal of a data directory into the archive.
//!
//! A segment is opened as soon as the manifest names it, so what is in it can be read even when the server has removed its
//! name. Nothing but the files says what is durable: a frame's D, or a successor that names where its predecessor ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_disk::Disk;
use cairn_format::header::Predecessor;
use cairn_format::manifest::Manifest;
use cairn_format::{FileId, Lsn};
use cairn_journal::{Boundary, Follower};
use cairn_seal::Keyring;
use cairn_store::StoreError;

use super::catalogue::{self, Piece};
use super::lease::Held;
use super::names::PieceName;
use super::rate::RateLimit;
use super::shelf::{PIECE_BYTES_MAX, Shelf};
use crate::progress::Silent;
use crate::repository::Repository;
use crate::restore::blocking;
use crate::stream::FileBody;
use crate::{JobError, moment, source};

/// How often a directory that does not hold still is looked at again.
const ATTEMPTS: u32 = 20;
/// A round ends after so long, so that the server hears how far the archive is although there is much to catch up with.
const ROUND: Duration = Duration::from_secs(2);

/// What a shipper works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) repository: Arc<Repository>,
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) keyring: Option<Arc<Keyring>>,
    pub(crate) lease: Arc<Held>,
    pub(crate) rate: Option<RateLimit>,
    /// How long pieces that others have taken the place of stay: readers may have listed them.
    pub(crate) grace: Duration,
}

/// Where in the repository the journal goes, and how far it has got.
pub(crate) struct Shipper {
    context: Context,
    /// The history that the data directory belongs to.
    lineage: String,
    /// The folder of the archive; mostly of the same name.
    folder: String,
    shelves: BTreeMap<(u64, FileId), Shelf>,
    queue: Vec<Followed>,
    /// Segments that the manifest names and that need nothing more.
    finished: BTreeSet<FileId>,
    /// What to remove, and when.
    doomed: Vec<(Instant, PieceName)>,
    archived: Option<Position>,
    put_bytes: u64,
}

/// How far the archive reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: u64,
    /// When the newest effect below it was appended; 0 where there is none.
    pub(crate) unix_ms: u64,
}

/// A segment that is being followed.
struct Followed {
    /// Absent while another thread reads it.
    follower: Option<Follower>,
    head: Head,
    /// Where it ends, once its successor says so.
    end: Option<Lsn>,
}

/// What a segment's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    first_lsn: Lsn,
    file_id: FileId,
    predecessor: Option<Predecessor>,
    foreign: bool,
    created_unix_ms: u64,
}

impl Shipper {
    /// Looks at the directory and at the repository, and decides which folder the journal goes on in.
    pub(crate) async fn begin(context: Context) -> Result<Self, JobError> {
        let (known, manifest) = discover(&context, BTreeMap::new(), BTreeSet::new()).await?;
        let manifest = manifest?;
        let queue = in_order(Some(&manifest), known);
        let lineage = manifest.lineage.to_string();
        let mut shipper = Self {
            context,
            lineage: lineage.clone(),
            folder: lineage,
            shelves: BTreeMap::new(),
            queue,
            finished: BTreeSet::new(),
            doomed: Vec::new(),
            archived: None,
            put_bytes: 0,
        };
        shipper.choose(&manifest).await?;
        Ok(shipper)
    }

    /// The history that the data directory belongs to.
    pub(crate) fn lineage(&self) -> &str {
        &self.lineage
    }

    /// The folder of the archive.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// How far the archive reaches.
    pub(crate) fn archived(&self) -> Option<Position> {
        self.archived
    }

    /// Bytes put since the begin.
    pub(crate) fn put_bytes(&self) -> u64 {
        self.put_bytes
    }

    /// The LSN of the first effect in the archive's journal; none while there is none.
    pub(crate) fn first_lsn(&self) -> Option<u64> {
        let begun = self.shelves.iter().find(|(_, shelf)| !shelf.is_empty());
        begun.map(|((first_lsn, _), _)| *first_lsn)
    }

    /// Durable bytes that were read and not put.
    pub(crate) fn pending_bytes(&self) -> u64 {
        let pending = |followed: &Followed| {
            let put = self.shelves.get(&followed.head.key()).map_or(0, |shelf| shelf.end().0);
            followed.follower.as_ref().map_or(0, |follower| follower.durable().offset.saturating_sub(put))
        };
        self.queue.iter().map(pending).sum()
    }

    /// Since when the directory has had its history: what it holds of before comes from another one that it was restored from.
    pub(crate) fn since_unix_ms(&self) -> u64 {
        if !self.queue.iter().any(|followed| followed.head.foreign) {
            return 0;
        }
        let own = self.queue.iter().find(|followed| !followed.head.foreign);
        own.map_or_else(moment::now_unix_ms, |followed| followed.head.created_unix_ms)
    }

    /// When the first segment that is there was begun.
    pub(crate) fn begun_unix_ms(&self) -> u64 {
        self.queue.first().map_or_else(moment::now_unix_ms, |followed| followed.head.created_unix_ms)
    }

    // --- what is there

    /// Decides on a folder: the one that the local journal continues, else that of the history, else a new one.
    async fn choose(&mut self, manifest: &Manifest) -> Result<(), JobError> {
        let heads: Vec<&Head> = self.queue.iter().map(|followed| &followed.head).collect();
        let repository = &self.context.repository;
        let mut folders = repository.store().list_folders("lineage/").await?;
        // Its own comes first.
        folders.sort_by_key(|folder| *folder != self.lineage);
        let mut taken = false;
        for folder in folders {
            let shelves = shelves(catalogue::list_pieces(repository, &folder).await?);
            let own = folder == self.lineage;
            if shelves.is_empty() {
                continue;
            }
            taken |= own;
            if let Some(from) = continued_from(&shelves, &heads) {
                self.take_up(folder, shelves, from);
                return Ok(());
            }
        }
        let folder = if taken { crate::random_hex()? } else { self.lineage.clone() };
        if taken {
            tracing::error!(
                lineage = self.lineage,
                folder,
                "the archive of this history is not continued by the journal in the data directory; a new one is begun: what lies \
                 between cannot be restored"
            );
        }
        self.begin_folder(folder, manifest);
        Ok(())
    }

    fn take_up(&mut self, folder: String, shelves: BTreeMap<(u64, FileId), Shelf>, from: usize) {
        (self.folder, self.shelves) = (folder, shelves);
        let skipped = self.queue.drain(..from).map(|followed| followed.head.file_id);
        self.finished.extend(skipped);
        let soon = Instant::now() + self.context.grace;
        let covered = self.shelves.values_mut().flat_map(Shelf::take_covered);
        self.doomed.extend(covered.map(|name| (soon, name)));
        let last = self.queue.first().and_then(|followed| self.shelves.get(&followed.head.key()));
        let end = last.or(self.shelves.values().next_back()).map(Shelf::end);
        self.archived = end.map(|(_, lsn, unix_ms)| Position { lsn, unix_ms });
    }

    /// Begins an archive with what the directory holds from its snapshot on.
    fn begin_folder(&mut self, folder: String, manifest: &Manifest) {
        let from = manifest.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn);
        let firsts: Vec<Lsn> = self.queue.iter().map(|followed| followed.head.first_lsn).collect();
        let needed = firsts.iter().rposition(|first| *first <= from).unwrap_or(0);
        let skipped = self.queue.drain(..needed).map(|followed| followed.head.file_id);
        self.finished.extend(skipped);
        (self.folder, self.archived) = (folder, None);
        self.shelves.clear();
        self.doomed.clear();
    }

    /// Looks for segments that are new.
    async fn discover(&mut self) -> Result<Manifest, JobError> {
        let known = self
            .queue
            .drain(..)
            .filter_map(|followed| Some((followed.head.file_id, (followed.follower?, followed.head))))
            .collect();
        let (known, manifest) = discover(&self.context, known, self.finished.clone()).await?;
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                // What is open may have lost its name: it must not be let go.
                self.queue = in_order(None, known);
                return Err(error);
            }
        };
        self.queue = in_order(Some(&manifest), known);
        let named: BTreeSet<FileId> = manifest.segments.iter().map(|entry| entry.file_id).collect();
        self.finished.retain(|file_id| named.contains(file_id));
        Ok(manifest)
    }

    // --- shipping

    /// Puts what is durable by now, for as long as a round lasts; says whether there may be more.
    ///
    /// # Errors
    /// Those of the store and the disk, damage; [`JobError::LeaseLost`]. What was put stays, and the next call goes on from there.
    pub(crate) async fn ship(&mut self) -> Result<bool, JobError> {
        let manifest = self.discover().await?;
        if manifest.lineage.to_string() != self.lineage {
            tracing::warn!(from = self.lineage, to = %manifest.lineage, "the data directory holds another history now");
            *self = Self::begin(self.context.clone()).await?;
        }
        let until = Instant::now() + ROUND;
        let mut at = 0;
        while at < self.queue.len() {
            if !self.is_continued(at) {
                self.begin_anew(&manifest, "it was trimmed before it could be archived")?;
                at = 0;
                continue;
            }
            match self.ship_segment(at, until).await? {
                Step::Done => {
                    let followed = self.queue.remove(at);
                    self.finished.insert(followed.head.file_id);
                }
                Step::Open => at += 1,
                Step::Late => return Ok(true),
                Step::Shorter => {
                    self.begin_anew(&manifest, "the directory holds less than was archived from it")?;
                    at = 0;
                }
            }
        }
        self.remove_doomed().await;
        Ok(false)
    }

    /// Whether the archive goes on with this segment without a gap.
    fn is_continued(&self, at: usize) -> bool {
        let Some(head) = self.queue.get(at).map(|followed| &followed.head) else { return true };
        let begun = self.shelves.get(&head.key()).is_some_and(|shelf| !shelf.is_empty());
        if begun || self.shelves.values().all(Shelf::is_empty) {
            return true;
        }
        head.predecessor.as_ref().is_some_and(|predecessor| holds(&self.shelves, predecessor))
    }

    /// After a gap: the archive goes on under another name, from a base of its own.
    fn begin_anew(&mut self, manifest: &Manifest, why: &str) -> Result<(), JobError> {
        let reached = self.archived.map_or(0, |archived| archived.lsn);
        let folder = crate::random_hex()?;
        tracing::error!(
            reached,
            folder,
            "the archive cannot go on with the journal behind LSN {reached}: {why}; it begins anew from a snapshot, and what lies \
             between cannot be restored"
        );
        self.begin_folder(folder, manifest);
        Ok(())
    }

    /// Puts what is durable of one segment.
    async fn ship_segment(&mut self, at: usize, until: Instant) -> Result<Step, JobError> {
        loop {
            let Some((head, end)) = self.queue.get(at).map(|followed| (followed.head.clone(), followed.end))
            else {
                return Ok(Step::Open);
            };
            let (put_to, put_lsn, _) = self.shelf(&head).end();
            // What is in the archive was durable.
            let known = end.unwrap_or(Lsn::ZERO).max(Lsn(put_lsn));
            let Some(read) = self.advance(at, known).await? else { return Ok(Step::Open) };
            let boundary = read.durable;
            if boundary.offset < put_to && !read.moved {
                return Ok(Step::Shorter);
            }
            if boundary.offset > put_to && boundary.lsn.0 > put_lsn {
                let name = self.shelf(&head).next(boundary.offset, boundary.lsn.0, boundary.unix_ms);
                self.put(at, name).await?;
                self.shelf(&head).put(name);
                self.archived = Some(Position { lsn: name.end_lsn, unix_ms: name.unix_ms });
                self.merge(at, false).await?;
                if Instant::now() >= until {
                    return Ok(Step::Late);
                }
            } else if !read.moved {
                let whole = end.is_some_and(|end| boundary.lsn >= end);
                if whole {
                    self.merge(at, true).await?;
                }
                return Ok(if whole { Step::Done } else { Step::Open });
            }
        }
    }

    fn shelf(&mut self, head: &Head) -> &mut Shelf {
        self.shelves.entry(head.key()).or_insert_with(|| Shelf::new(head.first_lsn.0, head.file_id))
    }

    /// Reads on in a segment.
    async fn advance(&mut self, at: usize, known: Lsn) -> Result<Option<Read>, JobError> {
        let Some(mut follower) = self.queue.get_mut(at).and_then(|followed| followed.follower.take()) else {
            return Ok(None);
        };
        let (follower, read) = blocking(move || {
            let before = follower.read_to();
            let read = follower.advance(known, PIECE_BYTES_MAX / 2);
            let moved = follower.read_to() != before;
            Ok((follower, read.map(|durable| Read { durable, moved })))
        })
        .await?;
        if let Some(followed) = self.queue.get_mut(at) {
            followed.follower = Some(follower);
        }
        Ok(Some(read?))
    }

    /// Puts pieces in the place of many small ones.
    async fn merge(&mut self, at: usize, whole: bool) -> Result<(), JobError> {
        let Some(head) = self.queue.get(at).map(|followed| followed.head.clone()) else { return Ok(()) };
        while let Some(name) = self.shelf(&head).merge(whole) {
            self.put(at, name).await?;
            self.shelf(&head).merged(name);
            let gone_at = Instant::now() + self.context.grace;
            let covered = self.shelf(&head).take_covered();
            self.doomed.extend(covered.into_iter().map(|name| (gone_at, name)));
        }
        Ok(())
    }

    async fn put(&mut self, at: usize, name: PieceName) -> Result<(), JobError> {
        let Some(follower) = self.queue.get(at).and_then(|followed| followed.follower.as_ref()) else {
            return Err(JobError::Task("a segment that is not open was to be put".to_owned()));
        };
        self.context.lease.check()?;
        let (file, path) = (Arc::clone(follower.file()), follower.path().to_owned());
        let (body, _) = FileBody::of_part(file, path.clone(), name.start..name.end, None, Arc::new(Silent));
        let body = match &self.context.rate {
            Some(rate) => rate.bound(Box::new(body)),
            None => Box::new(body),
        };
        match self.context.repository.store().put_stream(&name.key(&self.folder), body).await {
            Ok(_) => {}
            // An earlier put arrived although its answer did not: a name has one content.
            Err(error) if matches!(error.root(), StoreError::AlreadyExists { .. }) => {}
            Err(StoreError::Source { source, .. }) => return Err(JobError::io(&path, "read", source)),
            Err(error) => return Err(error.into()),
        }
        self.put_bytes += name.bytes();
        Ok(())
    }

    /// Removes pieces whose time has come; one that cannot be removed is tried again.
    async fn remove_doomed(&mut self) {
        let now = Instant::now();
        while let Some((at, name)) = self.doomed.first().copied() {
            if at > now || self.context.lease.check().is_err() {
                return;
            }
            if let Err(error) = self.context.repository.store().delete(&name.key(&self.folder)).await {
                tracing::debug!(piece = %name, %error, "a piece that is not needed any more could not be removed");
                return;
            }
            self.doomed.remove(0);
        }
    }
}

/// What reading on gave.
struct Read {
    durable: Boundary,
    /// Whether anything was read.
    moved: bool,
}

/// What became of a segment.
enum Step {
    /// More may come.
    Open,
    /// The round is over.
    Late,
    /// It needs nothing more.
    Done,
    /// The archive holds more of it than the directory.
    Shorter,
}

impl Head {
    fn of(follower: &Follower, manifest: &Manifest) -> Self {
        let (identity, body) = (follower.identity(), follower.body());
        Self {
            first_lsn: body.first_lsn,
            file_id: identity.file_id,
            predecessor: body.predecessor.clone(),
            foreign: identity.lineage != manifest.lineage,
            created_unix_ms: identity.created_unix_ms,
        }
    }

    fn key(&self) -> (u64, FileId) {
        (self.first_lsn.0, self.file_id)
    }
}

/// The segments that are open, by their ids.
type Known = BTreeMap<FileId, (Follower, Head)>;

/// Opens what the manifest names and is neither `known` nor finished, all of it before any is read: only that has to be quicker
/// than the server's trimming. What is known is given back in any case.
async fn discover(
    context: &Context,
    known: Known,
    finished: BTreeSet<FileId>,
) -> Result<(Known, Result<Manifest, JobError>), JobError> {
    let context = context.clone();
    blocking(move || {
        let mut known = known;
        let manifest = open_all(&context, &mut known, &finished);
        Ok((known, manifest))
    })
    .await
}

fn open_all(context: &Context, known: &mut Known, finished: &BTreeSet<FileId>) -> Result<Manifest, JobError> {
    let (disk, dir, keyring) = (&*context.disk, &context.dir, context.keyring.as_deref());
    let mut manifest = source::read_manifest(disk, dir, keyring)?;
    for _ in 0..ATTEMPTS {
        let Err(error) = open_named(disk, dir, &manifest, known, finished) else { return Ok(manifest) };
        let again = source::read_manifest(disk, dir, keyring)?;
        if again.number == manifest.number && again.file_id == manifest.file_id {
            return Err(error);
        }
        manifest = again;
    }
    Err(JobError::Changing { dir: dir.clone(), attempts: ATTEMPTS })
}

fn open_named(
    disk: &dyn Disk,
    dir: &Path,
    manifest: &Manifest,
    known: &mut Known,
    finished: &BTreeSet<FileId>,
) -> Result<(), JobError> {
    for entry in &manifest.segments {
        if known.contains_key(&entry.file_id) || finished.contains(&entry.file_id) {
            continue;
        }
        let path = dir.join(&entry.name);
        let follower = Follower::open(disk, &path)?;
        if follower.file_id() != entry.file_id {
            let (expected, found) = (entry.file_id, follower.file_id());
            return Err(source::damaged(&path, "file id", expected, found));
        }
        let head = Head::of(&follower, manifest);
        known.insert(entry.file_id, (follower, head));
    }
    Ok(())
}

/// What is open, in order, without those that the manifest has replaced by others (one that it names no more, but begins
/// before all that it names, was trimmed); where each ends, as its successor says.
fn in_order(manifest: Option<&Manifest>, known: Known) -> Vec<Followed> {
    let counts = |head: &Head| {
        let Some(manifest) = manifest else { return true };
        let trimmed = manifest.segments.first().is_some_and(|first| head.first_lsn < first.first_lsn);
        trimmed || manifest.segments.iter().any(|entry| entry.file_id == head.file_id)
    };
    let mut queue: Vec<Followed> = known
        .into_values()
        .filter(|(_, head)| counts(head))
        .map(|(follower, head)| Followed { follower: Some(follower), head, end: None })
        .collect();
    queue.sort_by_key(|followed| followed.head.first_lsn);
    let ends: BTreeMap<FileId, Lsn> = queue
        .iter()
        .filter_map(|followed| followed.head.predecessor.as_ref())
        .map(|predecessor| (predecessor.file_id, predecessor.end_lsn))
        .collect();
    for followed in &mut queue {
        followed.end = ends.get(&followed.head.file_id).copied();
    }
    queue
}

fn shelves(pieces: Vec<Piece>) -> BTreeMap<(u64, FileId), Shelf> {
    let mut by_file: BTreeMap<(u64, FileId), Vec<Piece>> = BTreeMap::new();
    for piece in pieces {
        by_file.entry((piece.name.first_lsn, piece.name.file_id)).or_default().push(piece);
    }
    by_file.into_iter().map(|(key, pieces)| (key, Shelf::of(key.0, key.1, pieces))).collect()
}

/// Whether an archive holds a segment up to where its successor begins.
fn holds(shelves: &BTreeMap<(u64, FileId), Shelf>, predecessor: &Predecessor) -> bool {
    let same = |((_, file_id), shelf): (&(u64, FileId), &Shelf)| {
        *file_id == predecessor.file_id && shelf.end().1 >= predecessor.end_lsn.0
    };
    shelves.iter().any(same)
}

/// The first local segment that an archive goes on with; none if it does not go on with any, or holds later ones than there
/// are: then the directory is not what it was archived from.
fn continued_from(shelves: &BTreeMap<(u64, FileId), Shelf>, heads: &[&Head]) -> Option<usize> {
    let last = heads.last()?;
    let newer = shelves.keys().any(|(first_lsn, file_id)| {
        *first_lsn > last.first_lsn.0 && heads.iter().all(|head| head.file_id != *file_id)
    });
    if newer {
        return None;
    }
    let held = heads.iter().rposition(|head| shelves.contains_key(&head.key()));
    held.or_else(|| {
        heads.iter().rposition(|head| head.predecessor.as_ref().is_some_and(|before| holds(shelves, before)))
    })
}
