//! Backups of real data directories, made, damaged, proven and restored.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_disk::{Disk, FaultyDisk, RealDisk, Survival, write_file_atomically};
use cairn_format::header::{Body, Identity, Magic, SnapshotBody};
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{FileId, LineageId, Lsn};
use cairn_journal::{Catalog, Fsync, Journal, Options, Resume};
use cairn_seal::{Keyring, new_data_key, new_file_id, open_manifest, seal_manifest, wrap};
use cairn_snapshot::{BlockWriter, LEVEL_DEFAULT, SnapshotError, Source, WriteParams, write_container};
use cairn_store::{Fault, FaultyStore, LocalStore};

use super::*;

/// The manifest of a data directory, kept as a server would.
struct Book {
    dir: PathBuf,
    keyring: Option<Arc<Keyring>>,
    manifest: Mutex<Manifest>,
}

impl Book {
    fn change(&self, change: impl FnOnce(&mut Manifest)) -> std::io::Result<()> {
        let mut manifest = self.manifest.lock().unwrap();
        change(&mut manifest);
        manifest.number += 1;
        let bytes = seal_manifest(&mut manifest, self.keyring.as_deref()).map_err(std::io::Error::other)?;
        write_file_atomically(&RealDisk, &self.dir.join("manifest"), &bytes)
    }
}

impl Catalog for Book {
    fn segment_opened(&self, entry: SegmentEntry) -> std::io::Result<()> {
        self.change(|manifest| {
            manifest.segments.retain(|earlier| earlier.first_lsn < entry.first_lsn);
            manifest.segments.push(entry);
        })
    }
}

/// A data directory with a journal that is being written.
pub(crate) struct Data {
    book: Arc<Book>,
    journal: Arc<Journal>,
    keyring: Option<Arc<Keyring>>,
    disk: Arc<dyn Disk>,
}

const LINEAGE: LineageId = LineageId([7; 16]);

impl Data {
    pub(crate) fn new(dir: &Path, keyring: Option<Arc<Keyring>>) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        disk.create_dir_all(dir).unwrap();
        let manifest = Manifest {
            lineage: LINEAGE,
            epoch: 1,
            number: 0,
            encrypted: keyring.is_some(),
            file_id: FileId::default(),
            key: None,
            databases: 16,
            snapshot: None,
            segments: Vec::new(),
        };
        Self::begin(dir, disk, keyring, manifest, Resume::at(Lsn::ZERO))
    }

    /// As after a start of the server on a directory that is there.
    pub(crate) fn again(dir: &Path, keyring: Option<Arc<Keyring>>) -> Self {
        let mut manifest = source::read_manifest(&RealDisk, dir, keyring.as_deref()).unwrap();
        manifest.epoch += 1;
        let from = manifest.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn);
        let mut ignore = |_: &[u8], _: Lsn, _: u32| Ok::<(), std::convert::Infallible>(());
        let segments = &manifest.segments;
        let report =
            cairn_journal::scan(&RealDisk, dir, segments, from, from, keyring.as_deref(), &mut ignore);
        Self::begin(dir, Arc::new(RealDisk), keyring, manifest, report.unwrap().resume)
    }

    fn begin(
        dir: &Path,
        disk: Arc<dyn Disk>,
        keyring: Option<Arc<Keyring>>,
        manifest: Manifest,
        resume: Resume,
    ) -> Self {
        let options = Options {
            dir: dir.to_owned(),
            disk: Arc::clone(&disk),
            keyring: keyring.clone(),
            fsync: Fsync::Always,
            segment_bytes: 128 << 10,
            lineage: manifest.lineage,
            epoch: manifest.epoch,
            queue_bytes_max: 64 << 20,
            driver: None,
        };
        let book =
            Arc::new(Book { dir: dir.to_owned(), keyring: keyring.clone(), manifest: Mutex::new(manifest) });
        let journal = Journal::start(options, resume, book.clone()).unwrap();
        Self { book, journal, keyring, disk }
    }

    /// Appends one effect, waits until it is durable, and gives its end.
    pub(crate) fn write(&self, value: &str) -> u64 {
        let effect = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
        let end = self.journal.append(0, effect.as_bytes(), moment::now_unix_ms());
        self.journal.block_until_durable(end).unwrap();
        end.0
    }

    /// Takes a snapshot at the journal's end and trims what lies below it.
    pub(crate) fn snapshot(&self) {
        struct Entries;
        impl Source for Entries {
            fn partitions(&self) -> usize {
                3
            }
            fn encode(&self, partition: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
                (0..4000).try_for_each(|number| {
                    out.entry(0, |raw| {
                        raw.extend_from_slice(format!("{partition}-{}", number * 7919).as_bytes())
                    })
                })
            }
        }
        let lsn = self.journal.rotate();
        self.journal.block_until_durable(lsn).unwrap();
        let file_id = new_file_id().unwrap();
        let key = self.keyring.as_ref().map(|keyring| {
            let key = new_data_key().unwrap();
            let slot = wrap(keyring, Magic::Snapshot, file_id, &key, 1).unwrap();
            (key, slot)
        });
        let name = cairn_snapshot::free_name(&self.disk.list(&self.book.dir).unwrap(), lsn);
        let path = self.book.dir.join(&name);
        let params = WriteParams {
            path_tmp: path.with_extension("tmp"),
            path_final: path,
            identity: Identity {
                magic: Magic::Snapshot,
                encrypted: key.is_some(),
                file_id,
                lineage: LINEAGE,
                created_unix_ms: moment::now_unix_ms(),
                body: Body::Snapshot(SnapshotBody { lsn }),
            },
            key,
            threads: 2,
            level: LEVEL_DEFAULT,
        };
        let summary = write_container(&*self.disk, &params, &Entries, &|_| {}).unwrap();
        let mut gone = Vec::new();
        self.book
            .change(|manifest| {
                let entry =
                    SnapshotEntry { name, file_id, lsn, bytes: summary.bytes, entries: summary.entries };
                gone.extend(manifest.snapshot.replace(entry).map(|old| old.name));
                let keep = manifest.segments.iter().rposition(|entry| entry.first_lsn <= lsn).unwrap_or(0);
                gone.extend(manifest.segments.drain(..keep).map(|old| old.name));
            })
            .unwrap();
        for name in gone {
            self.disk.remove(&self.book.dir.join(name)).unwrap();
        }
    }

    async fn back_up(&self, repository: &Repository) -> Result<BackupManifest, JobError> {
        back_up(&self.book.dir, repository, self.keyring.clone()).await
    }
}

async fn back_up(
    dir: &Path,
    repository: &Repository,
    keyring: Option<Arc<Keyring>>,
) -> Result<BackupManifest, JobError> {
    let options = CreateOptions { dir: dir.to_owned(), disk: Arc::new(RealDisk), keyring, durable_lsn: None };
    Prepared::new(options).await?.upload(repository, Arc::new(Silent)).await
}

/// What a server would read from a directory: LSNs and effects, the snapshot's LSN first.
pub(crate) fn contents(disk: &dyn Disk, dir: &Path, keyring: Option<&Keyring>) -> (u64, Vec<u8>) {
    let manifest = source::read_manifest(disk, dir, keyring).unwrap();
    let from = manifest.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.lsn);
    if let Some(snapshot) = &manifest.snapshot {
        let facts = files::check_snapshot(disk, &dir.join(&snapshot.name), keyring, &Silent).unwrap();
        assert_eq!((facts.file_id, facts.lsn, facts.bytes), (snapshot.file_id, snapshot.lsn, snapshot.bytes));
    }
    let mut effects = Vec::new();
    let mut sink = |bytes: &[u8], _: Lsn, _: u32| {
        effects.extend_from_slice(bytes);
        Ok::<(), std::convert::Infallible>(())
    };
    cairn_journal::scan(disk, dir, &manifest.segments, from, from, keyring, &mut sink).unwrap();
    (from.0, effects)
}

pub(crate) fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::generate().unwrap())
}

pub(crate) fn to(dir: &Path, keyring: Option<Arc<Keyring>>) -> RestoreOptions {
    RestoreOptions { dir: dir.to_owned(), disk: Arc::new(RealDisk), keyring, force: false }
}

pub(crate) async fn local(dir: &Path) -> Repository {
    Repository::init(Arc::new(LocalStore::new(dir.to_owned()))).await.unwrap()
}

/// The same repository through a store with faults, which also hides that it is local.
async fn bent(dir: &Path, faults: Vec<Fault>) -> Repository {
    let store = FaultyStore::new(Arc::new(LocalStore::new(dir.to_owned())), faults);
    Repository::open(Arc::new(store)).await.unwrap()
}

async fn verdict(repository: &Repository, keyring: Option<Arc<Keyring>>) -> Verdict {
    let scratch = tempfile::tempdir().unwrap();
    let options = VerifyOptions { disk: Arc::new(RealDisk), keyring, scratch: scratch.path().to_owned() };
    let backup = repository.backups().await.unwrap().pop().unwrap();
    let verdict = verify(repository, &backup, &options, Arc::new(Silent)).await.unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "the scratch directory is left empty");
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_backed_up_comes_back() {
    for keyring in [None, Some(keyring())] {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::new(&dir.path().join("data"), keyring.clone());
        let repository = local(&dir.path().join("repository")).await;
        for round in 0..3 {
            // The first round has no snapshot yet, the second and third have segments on both sides of one.
            if round > 0 {
                data.snapshot();
            }
            for number in 0..60 {
                data.write(&format!("{round}-{number}-{}", "x".repeat(2000)));
            }
            let made = data.back_up(&repository).await.unwrap();
            assert_eq!(made.to_lsn, data.journal.durable().0, "all that is durable is in it");
            let proven = verdict(&repository, keyring.clone()).await;
            assert!(proven.ok && proven.tier == Tier::Contents, "{proven:?}");
            let remote = bent(&dir.path().join("repository"), Vec::new()).await;
            assert!(verdict(&remote, keyring.clone()).await.ok);
            if keyring.is_some() {
                let proven = verdict(&repository, None).await;
                assert!(proven.ok && proven.tier == Tier::Checksums, "{proven:?}");
            }

            let target = dir.path().join(format!("restored-{round}"));
            let options = to(&target, keyring.clone());
            assert_eq!(
                plan(&repository, None, &options, &std::env::temp_dir(), Arc::new(Silent))
                    .await
                    .unwrap()
                    .to_lsn,
                made.to_lsn
            );
            assert!(!target.exists());
            let restored = restore(&remote, Some(&made.id), options, Arc::new(Silent)).await.unwrap();
            assert_eq!((restored.to_lsn, restored.entries), (made.to_lsn, made.entries));
            let (expected, found) = (
                contents(&RealDisk, &data.book.dir, keyring.as_deref()),
                contents(&RealDisk, &target, keyring.as_deref()),
            );
            assert!(expected == found, "round {round}: the effects differ");
            let manifest = source::read_manifest(&RealDisk, &target, keyring.as_deref()).unwrap();
            assert_eq!(manifest.encrypted, keyring.is_some());
            assert_ne!(manifest.lineage, LINEAGE);
            // What was restored can be backed up again, as a lineage of its own.
            let again = back_up(&target, &repository, keyring.clone()).await.unwrap();
            assert_eq!((again.to_lsn, &again.lineage), (made.to_lsn, restored.lineage.as_ref().unwrap()));
            let refused = restore(&repository, None, to(&target, keyring.clone()), Arc::new(Silent)).await;
            assert!(matches!(refused, Err(JobError::NotEmpty { .. })));
        }
        assert_eq!(repository.backups().await.unwrap().len(), 6);
    }
}

/// A server goes on writing, rotating and trimming all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_directory_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = Arc::new(Data::new(&dir.path().join("data"), None));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (data, stop) = (Arc::clone(&data), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                data.write(&format!("{number}-{}", "y".repeat(3000)));
                number += 1;
                if number % 50 == 0 {
                    data.snapshot();
                }
            }
        })
    };
    let repository = local(&dir.path().join("repository")).await;
    for round in 0..15 {
        let before = data.journal.durable().0;
        let made = data.back_up(&repository).await.unwrap();
        assert!(made.to_lsn >= made.from_lsn && made.to_lsn <= data.journal.durable().0);
        assert!(made.to_lsn + 8000 >= before, "{} lags behind {before}", made.to_lsn);
        let proven = verdict(&repository, None).await;
        assert!(proven.ok, "round {round}: {proven:?}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_by_verify_and_refused_by_restore() {
    let keyring = Some(keyring());
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), keyring.clone());
    let root = dir.path().join("repository");
    let repository = local(&root).await;
    data.snapshot();
    for number in 0..100 {
        data.write(&format!("{number}-{}", "z".repeat(3000)));
    }
    let made = data.back_up(&repository).await.unwrap();
    assert!(made.objects.len() >= 3, "a snapshot and several segments: {made:?}");
    let target = dir.path().join("target");
    let folder = root.join(format!("lineage/{}/snapshot/{}", made.lineage, made.id));
    let refused = async |what: &str| {
        let proven = verdict(&repository, keyring.clone()).await;
        assert!(!proven.ok && proven.exit_code == 13, "{what}: {proven:?}");
        assert!(!proven.faults.is_empty(), "{what}");
        let error =
            restore(&repository, None, to(&target, keyring.clone()), Arc::new(Silent)).await.unwrap_err();
        assert_eq!(error.exit_code(), 13, "{what}: {error}");
        assert!(!target.exists(), "{what}: something was left in the target");
        error.to_string()
    };
    for object in &made.objects {
        let path = folder.join(&object.name);
        let whole = std::fs::read(&path).unwrap();
        for at in [0, 100, 5000, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            let text = refused(&format!("byte {at} of {}", object.name)).await;
            assert!(text.contains(&object.name), "{text}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        refused(&format!("{} cut", object.name)).await;
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        refused(&format!("{} extended", object.name)).await;
        std::fs::remove_file(&path).unwrap();
        refused(&format!("{} gone", object.name)).await;
        std::fs::write(&path, &whole).unwrap();
    }
    let manifest = folder.join("manifest-000001.json");
    let whole = std::fs::read(&manifest).unwrap();
    for at in [1, whole.len() / 3, whole.len() - 10] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&manifest, flipped).unwrap();
        refused(&format!("byte {at} of the manifest")).await;
    }
    std::fs::write(&manifest, &whole).unwrap();
    assert!(verdict(&repository, keyring.clone()).await.ok);
}

/// A manifest that was made to agree with a changed object does not make it genuine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_object_is_refused_by_its_seal() {
    let keyring = Some(keyring());
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), keyring.clone());
    for number in 0..10 {
        data.write(&format!("{number}"));
    }
    data.snapshot();
    let mut source = manifest_of(&data);
    let snapshot = source.snapshot.take().unwrap();
    // The snapshot of another dataset under the same key, in its place.
    let other = Data::new(&dir.path().join("other"), keyring.clone());
    for number in 0..10 {
        other.write(&format!("{number}"));
    }
    other.snapshot();
    let theirs = manifest_of(&other).snapshot.unwrap();
    std::fs::copy(other.book.dir.join(&theirs.name), data.book.dir.join(&snapshot.name)).unwrap();
    let error = data.back_up(&local(&dir.path().join("repository")).await).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
}

fn manifest_of(data: &Data) -> Manifest {
    source::read_manifest(&RealDisk, &data.book.dir, data.keyring.as_deref()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_missing_keys_are_named() {
    let right = keyring();
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), Some(Arc::clone(&right)));
    data.write("x");
    let repository = local(&dir.path().join("repository")).await;
    let made = data.back_up(&repository).await.unwrap();
    assert_eq!(made.keys, [right.active().name()]);
    // The key is not needed to copy what is sealed.
    back_up(&data.book.dir, &repository, None).await.unwrap();
    let target = dir.path().join("target");
    let same_name = format!("{} {}", right.active().name(), "5".repeat(64));
    let impostor = Arc::new(Keyring::parse(same_name.as_bytes()).unwrap());
    for wrong in [None, Some(keyring()), Some(impostor)] {
        let given = wrong.is_some();
        let error =
            restore(&repository, None, to(&target, wrong.clone()), Arc::new(Silent)).await.unwrap_err();
        assert_eq!(error.exit_code(), 12, "{error}");
        assert!(error.to_string().contains(right.active().name()), "{error}");
        assert!(!target.exists());
        if given {
            assert_eq!(
                back_up(&data.book.dir, &repository, wrong.clone()).await.unwrap_err().exit_code(),
                12
            );
            let proven = verdict(&repository, wrong).await;
            assert!(!proven.ok && proven.exit_code == 12, "{proven:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), None);
    data.snapshot();
    data.write("x");
    let root = dir.path().join("repository");
    local(&root).await;
    for part in ["snapshot.cairn", "journal-", "manifest-"] {
        let repository = bent(&root, vec![Fault::FailPut { key: part.to_owned(), after: 100 }]).await;
        let error = data.back_up(&repository).await.unwrap_err();
        assert_eq!(error.exit_code(), 1, "{part}: {error}");
        assert!(repository.backups().await.unwrap().is_empty(), "{part}");
    }
}

/// A snapshot is checked while it is uploaded: one that is damaged must still not become an object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_gets_no_name_in_the_repository() {
    for keyring in [None, Some(keyring())] {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::new(&dir.path().join("data"), keyring);
        data.write("x");
        data.snapshot();
        let path = data.book.dir.join(manifest_of(&data).snapshot.unwrap().name);
        let root = dir.path().join("repository");
        let repository = local(&root).await;
        let whole = std::fs::read(&path).unwrap();
        for at in [20, 13_000, whole.len() / 2, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, flipped).unwrap();
            let error = data.back_up(&repository).await.unwrap_err();
            assert_eq!(error.exit_code(), 13, "byte {at}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            let objects = repository.store().list("lineage/").await.unwrap();
            assert!(objects.is_empty(), "byte {at}: {objects:?}");
        }
        std::fs::write(&path, whole).unwrap();
        data.back_up(&repository).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_and_half_a_thing_are_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let repository = local(&dir.path().join("repository")).await;
    let none = back_up(&dir.path().join("none"), &repository, None).await.unwrap_err();
    assert!(matches!(none, JobError::NoData { .. }), "{none}");
    let data = Data::new(&dir.path().join("data"), None);
    data.write("x");
    data.snapshot();
    let off = dir.path().join("off");
    std::fs::create_dir(&off).unwrap();
    let mut manifest = manifest_of(&data);
    manifest.segments.clear();
    std::fs::write(off.join("manifest"), seal_manifest(&mut manifest, None).unwrap()).unwrap();
    let name = manifest.snapshot.unwrap().name;
    std::fs::copy(data.book.dir.join(&name), off.join(&name)).unwrap();
    let error = back_up(&off, &repository, None).await.unwrap_err();
    assert!(matches!(error, JobError::JournalOff { .. }), "{error}");
    std::fs::remove_file(data.book.dir.join(&name)).unwrap();
    let error = data.back_up(&repository).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_restore_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), None);
    data.write("x");
    data.snapshot();
    let root = dir.path().join("repository");
    data.back_up(&local(&root).await).await.unwrap();
    let slow = bent(&root, vec![Fault::Slow { pause: Duration::from_millis(20) }]).await;
    let target = dir.path().join("target");
    for pause_ms in [5, 30, 50, 70, 90] {
        let restoring = restore(&slow, None, to(&target, None), Arc::new(Silent));
        let ended = tokio::time::timeout(Duration::from_millis(pause_ms), restoring).await;
        if ended.is_ok() {
            assert!(target.join("manifest").exists());
            break;
        }
        assert!(!target.exists(), "after {pause_ms} ms something is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), None);
    data.snapshot();
    data.write("x");
    let repository = local(&dir.path().join("repository")).await;
    let made = data.back_up(&repository).await.unwrap();
    let target = Path::new("/target");
    let mut full = 0;
    for room in (0..made.bytes() + 200_000).step_by(20_000) {
        let disk = Arc::new(FaultyDisk::new());
        disk.limit_space(Some(room));
        let options =
            RestoreOptions { dir: target.to_owned(), disk: disk.clone(), keyring: None, force: false };
        let Err(error) = restore(&repository, None, options, Arc::new(Silent)).await else { break };
        assert!(matches!(error, JobError::NoSpace { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(disk.list(target).unwrap().is_empty(), "{:?}", disk.list(target));
        full += 1;
    }
    assert!(full > 1);
}

/// The power goes after each number of operations in turn: the target is then either whole or holds no manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_loses_power_is_whole_or_nothing() {
    let keyring = Some(keyring());
    let dir = tempfile::tempdir().unwrap();
    let data = Data::new(&dir.path().join("data"), keyring.clone());
    data.snapshot();
    data.write("x");
    let repository = local(&dir.path().join("repository")).await;
    data.back_up(&repository).await.unwrap();
    let expected = contents(&RealDisk, &data.book.dir, keyring.as_deref());
    let target = Path::new("/target");
    let mut whole = 0;
    for operations in 0.. {
        let disk = Arc::new(FaultyDisk::new());
        disk.power_off_after(operations);
        let options = RestoreOptions {
            dir: target.to_owned(),
            disk: disk.clone(),
            keyring: keyring.clone(),
            force: false,
        };
        let restored = restore(&repository, None, options, Arc::new(Silent)).await;
        for survival in [Survival::Nothing, Survival::Everything, Survival::Sectors(operations)] {
            let after = disk.crash(survival);
            let found = after.exists(&target.join("manifest")).unwrap_or(false);
            assert!(
                found || restored.is_err(),
                "after {operations} operations a restore that succeeded is gone"
            );
            if found {
                assert!(
                    contents(&after, target, keyring.as_deref()) == expected,
                    "after {operations} operations"
                );
            }
        }
        whole += u32::from(restored.is_ok());
        if whole == 3 {
            assert!(operations > 8);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_snapshot_is_restored() {
    for keyring in [None, Some(keyring())] {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::new(&dir.path().join("data"), keyring.clone());
        data.write("x");
        data.snapshot();
        let name = manifest_of(&data).snapshot.unwrap().name;
        let path = data.book.dir.join(&name);
        let target = dir.path().join("target");
        let planned =
            restore_file(&path, to(&target, keyring.clone()), true, Arc::new(Silent)).await.unwrap();
        assert!(!target.exists());
        let restored =
            restore_file(&path, to(&target, keyring.clone()), false, Arc::new(Silent)).await.unwrap();
        assert_eq!((planned.entries, planned.bytes), (restored.entries, restored.bytes));
        assert_eq!(restored.entries, 12_000);
        let bytes = std::fs::read(target.join("manifest")).unwrap();
        let manifest = open_manifest(&bytes, keyring.as_deref()).unwrap();
        assert_eq!(
            (manifest.snapshot.unwrap().lsn.0, manifest.encrypted),
            (restored.to_lsn, keyring.is_some())
        );
        assert_eq!(std::fs::read(target.join(&name)).unwrap(), std::fs::read(&path).unwrap());
        if keyring.is_some() {
            let other = dir.path().join("other");
            let error = restore_file(&path, to(&other, None), false, Arc::new(Silent)).await.unwrap_err();
            assert_eq!(error.exit_code(), 12, "{error}");
        }
        let whole = std::fs::read(&path).unwrap();
        for at in [20, 13_000, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            let bad = dir.path().join("bad.cairn");
            std::fs::write(&bad, flipped).unwrap();
            let other = dir.path().join("other");
            let error =
                restore_file(&bad, to(&other, keyring.clone()), false, Arc::new(Silent)).await.unwrap_err();
            assert_eq!(error.exit_code(), 13, "byte {at}: {error}");
            assert!(!other.exists());
        }
        for (name, bytes) in [("dump.rdb", &b"REDIS0011"[..]), ("x", b"CA"), ("y", b"")] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = restore_file(&path, to(&dir.path().join("o"), None), false, Arc::new(Silent))
                .await
                .unwrap_err();
            assert!(matches!(error, JobError::Unsupported { .. }), "{error}");
        }
    }
}
