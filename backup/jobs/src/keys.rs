//! Wrapped keys beside the objects they belong to, so that a new master key asks for no upload: the objects keep the wrapping
//! they came with, and a numbered document of the lineage holds the ones that count. The law: `storage/docs/repository.md`,
//! section "Keys".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_format::header::{KeySlot, Magic, decode_header};
use cairn_format::{FileId, HEADER_BYTES};
use cairn_seal::{Keyring, unwrap, wrap};
use cairn_store::{ObjectStore, StoreError, read_all};
use serde::{Deserialize, Serialize};

use crate::document::{self, DOCUMENT_BYTES_MAX};
use crate::manifest::{BackupManifest, ObjectKind};
use crate::progress::{Phase, Progress};
use crate::repository::{Backup, Repository};
use crate::{JobError, moment};

const FORMAT: &str = "cairn keys";
const VERSION: u32 = 1;
/// So many keys are wrapped before what there is by then is put: an interruption costs no more.
const KEYS_PER_DOCUMENT: usize = 1024;
/// How often the documents are listed again because one has gone meanwhile.
const ATTEMPTS: usize = 16;

/// `keys-<number>.json` of a lineage.
#[derive(Debug, Serialize, Deserialize)]
struct KeysDocument {
    format: String,
    version: u32,
    /// Equals the folder's.
    lineage: String,
    created_unix_ms: u64,
    files: Vec<FileKey>,
}

/// The wrapped key of one file.
#[derive(Debug, Serialize, Deserialize)]
struct FileKey {
    /// The id in the file's header, 32 hex digits.
    file_id: String,
    kind: ObjectKind,
    sequence: u64,
    /// The master key's name.
    key: String,
    /// 24 hex digits.
    nonce: String,
    /// 96 hex digits.
    wrapped: String,
}

/// A wrapped key and what kind of file it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapped {
    kind: ObjectKind,
    slot: KeySlot,
}

/// The wrapped keys that stand beside the objects of a lineage.
#[derive(Debug, Default)]
pub(crate) struct LineageKeys {
    /// The numbers of its documents, valid or not, in order.
    numbers: Vec<u64>,
    keys: BTreeMap<FileId, Wrapped>,
    /// Documents that are damaged. The newest valid one counts.
    pub(crate) faults: Vec<JobError>,
}

/// What became of a repository's keys, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RewrappedRepository {
    /// The master key that all of them are under now.
    pub key: String,
    /// Lineages in the repository.
    pub lineages: usize,
    /// Encrypted files in it, each once.
    pub files: usize,
    /// Those that were under another key.
    pub rewrapped: usize,
}

impl FileKey {
    fn new(file_id: FileId, wrapped: &Wrapped) -> Self {
        let Wrapped { kind, slot } = wrapped;
        Self {
            file_id: file_id.to_string(),
            kind: *kind,
            sequence: slot.sequence,
            key: slot.key_name.clone(),
            nonce: hex(&slot.nonce),
            wrapped: hex(&slot.wrapped),
        }
    }

    fn decode(&self) -> Option<(FileId, Wrapped)> {
        let (nonce, wrapped) = (bytes(&self.nonce)?, bytes(&self.wrapped)?);
        let slot = KeySlot { sequence: self.sequence, key_name: self.key.clone(), nonce, wrapped };
        let is_named =
            !slot.key_name.is_empty() && slot.key_name.len() <= cairn_format::header::KEY_NAME_BYTES_MAX;
        is_named.then_some((FileId(bytes(&self.file_id)?), Wrapped { kind: self.kind, slot }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes of hexadecimal digits.
fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..N).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok());
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// `keys-000001.json` → 1
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("keys-")?.strip_suffix(".json")?;
    (digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn magic(kind: ObjectKind) -> Magic {
    match kind {
        ObjectKind::Snapshot => Magic::Snapshot,
        ObjectKind::Journal => Magic::Journal,
    }
}

fn document_key(lineage: &str, number: u64) -> String {
    format!("{}keys-{number:06}.json", folder(lineage))
}

fn folder(lineage: &str) -> String {
    format!("lineage/{lineage}/")
}

impl LineageKeys {
    /// Reads the newest valid document.
    pub(crate) async fn read(store: &Arc<dyn ObjectStore>, lineage: &str) -> Result<Self, JobError> {
        for _ in 1..ATTEMPTS {
            if let Some(found) = Self::read_listed(store, lineage).await? {
                return Ok(found);
            }
        }
        Err(crate::repository::missing(store.address(&format!("{}keys-*.json", folder(lineage)))))
    }

    /// Reads the newest valid document that is listed; `None` where one has gone since, for a newer one has taken its place.
    async fn read_listed(store: &Arc<dyn ObjectStore>, lineage: &str) -> Result<Option<Self>, JobError> {
        let listed = store.list(&format!("{}keys-", folder(lineage))).await?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|object| number_of(object.key.rsplit('/').next()?)).collect();
        numbers.sort_unstable();
        let mut found = Self { numbers: numbers.clone(), ..Self::default() };
        for number in numbers.into_iter().rev() {
            let key = document_key(lineage, number);
            let url = store.address(&key);
            let bytes = match store.get_bytes(&key, DOCUMENT_BYTES_MAX).await {
                Err(error) if matches!(error.root(), StoreError::NotFound { .. }) => return Ok(None),
                other => other?,
            };
            match decode(&bytes, &url, lineage) {
                Ok(keys) => {
                    found.keys = keys;
                    break;
                }
                Err(error) if error.is_damage() => found.faults.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(found))
    }

    /// The name of the master key that opens a file, where it is not that of its header.
    fn key_of(&self, file_id: FileId) -> Option<&str> {
        self.keys.get(&file_id).map(|wrapped| wrapped.slot.key_name.as_str())
    }

    /// Lets a manifest name the master keys that count.
    pub(crate) fn apply(&self, manifest: &mut BackupManifest) {
        if self.keys.is_empty() {
            return;
        }
        for object in &mut manifest.objects {
            if object.key.is_some()
                && let Some(key) = object.file_id().and_then(|file_id| self.key_of(file_id))
            {
                object.key = Some(key.to_owned());
            }
        }
        let names: BTreeSet<&String> =
            manifest.objects.iter().filter_map(|object| object.key.as_ref()).collect();
        manifest.keys = names.into_iter().cloned().collect();
    }

    /// Puts a document with all that is known.
    async fn put(&mut self, store: &Arc<dyn ObjectStore>, lineage: &str) -> Result<(), JobError> {
        let document = KeysDocument {
            format: FORMAT.to_owned(),
            version: VERSION,
            lineage: lineage.to_owned(),
            created_unix_ms: moment::now_unix_ms(),
            files: self.keys.iter().map(|(file_id, wrapped)| FileKey::new(*file_id, wrapped)).collect(),
        };
        let encoded = document::encode(&document)?;
        // A number is taken once: of two who rewrap at the same moment one goes on, from what the other has read as well.
        let number = self.numbers.last().copied().unwrap_or(0) + 1;
        let key = document_key(lineage, number);
        match store.put_bytes(&key, encoded).await {
            Err(StoreError::AlreadyExists { .. }) => Err(JobError::Overtaken { place: store.address(&key) }),
            Err(error) => Err(error.into()),
            Ok(_) => {
                self.numbers.push(number);
                Ok(())
            }
        }
    }

    /// This keyring, knowing the wrapped keys.
    pub(crate) fn unlocking(self, keyring: Option<Arc<Keyring>>) -> Option<Arc<Keyring>> {
        let slots = self.keys.into_iter().map(|(file_id, wrapped)| (file_id, wrapped.slot)).collect();
        keyring.map(|keyring| Arc::new(keyring.with_slots(slots)))
    }

    /// Removes all documents but the newest, which holds all that they do; what they hold is under keys that may be given up.
    async fn remove_older(&mut self, store: &Arc<dyn ObjectStore>, lineage: &str) {
        let older = self.numbers.len().saturating_sub(1);
        for number in self.numbers.drain(..older) {
            let key = document_key(lineage, number);
            if let Err(error) = store.delete(&key).await {
                tracing::warn!(key, %error, "an older document with wrapped keys could not be removed; it is not used any more");
                return;
            }
        }
    }
}

pub(crate) fn decode(bytes: &[u8], url: &str, lineage: &str) -> Result<BTreeMap<FileId, Wrapped>, JobError> {
    let document: KeysDocument = document::decode(bytes, url, FORMAT, VERSION)?;
    let damaged = |what, expected: &str, found: String| JobError::Damaged {
        place: url.to_owned(),
        offset: None,
        what,
        expected: expected.to_owned(),
        found,
    };
    if document.lineage != lineage {
        return Err(damaged("lineage of the keys document", lineage, document.lineage));
    }
    let key = |file: &FileKey| {
        file.decode()
            .ok_or_else(|| damaged("wrapped key", "hex digits of their length", file.file_id.clone()))
    };
    document.files.iter().map(key).collect()
}

impl Repository {
    /// A keyring that knows the wrapped keys of a lineage, so that objects open under master keys they were not stored under.
    ///
    /// # Errors
    /// Those of the store. A damaged document is logged: an older one, or what stands in the objects, is used then.
    pub async fn unlocking(
        &self,
        lineage: &str,
        keyring: Option<Arc<Keyring>>,
    ) -> Result<Option<Arc<Keyring>>, JobError> {
        let read = LineageKeys::read(self.store(), lineage).await?;
        for fault in &read.faults {
            tracing::warn!(error = %fault, "a document with rewrapped keys is damaged; an older one is used");
        }
        Ok(read.unlocking(keyring))
    }
}

/// Wraps the data keys of all files in a repository under the keyring's active key, or with `dry_run` says which are not. No
/// object is written again but the documents with the keys. One that ends early is gone on with by the next.
///
/// # Errors
/// A wrong key, damage, the store's.
pub async fn rewrap_repository(
    repository: &Repository,
    keyring: &Keyring,
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<RewrappedRepository, JobError> {
    let rewrapping =
        Rewrapping { repository, keyring, dry_run, progress, keys_per_document: KEYS_PER_DOCUMENT };
    rewrapping.run().await
}

/// A rewrapping under way.
struct Rewrapping<'a> {
    repository: &'a Repository,
    keyring: &'a Keyring,
    dry_run: bool,
    progress: &'a dyn Progress,
    keys_per_document: usize,
}

impl Rewrapping<'_> {
    async fn run(&self) -> Result<RewrappedRepository, JobError> {
        let lineages = self.repository.store().list_folders("lineage/").await?;
        let backups = self.repository.backups().await?;
        let mut done = RewrappedRepository {
            key: self.keyring.active().name().to_owned(),
            lineages: lineages.len(),
            ..RewrappedRepository::default()
        };
        for lineage in lineages {
            self.lineage(&lineage, &backups, &mut done).await?;
        }
        Ok(done)
    }

    async fn lineage(
        &self,
        lineage: &str,
        backups: &[Backup],
        done: &mut RewrappedRepository,
    ) -> Result<(), JobError> {
        let store = self.repository.store();
        let mut known = LineageKeys::read(store, lineage).await?;
        let files = files_of(store, lineage, backups).await?;
        // What is no longer there needs no key; but what a damaged manifest names may be there still.
        let before = known.keys.len();
        if backups.iter().all(|backup| backup.manifest.is_ok()) {
            known.keys.retain(|file_id, _| files.contains_key(file_id));
        }
        // A damaged document must not stay the newest.
        let mut is_changed = known.keys.len() < before || !known.faults.is_empty();
        self.progress.begin(Phase::Rewrap, (files.len() * HEADER_BYTES) as u64);
        let mut since = 0;
        for (file_id, (kind, key)) in files {
            done.files += 1;
            self.progress.advance(HEADER_BYTES as u64);
            let Some(wrapped) = self.rewrapped(&known, file_id, kind, &key).await? else { continue };
            done.rewrapped += 1;
            known.keys.insert(file_id, wrapped);
            is_changed = true;
            since += 1;
            if since == self.keys_per_document && !self.dry_run {
                known.put(store, lineage).await?;
                (is_changed, since) = (false, 0);
            }
        }
        self.progress.end();
        if self.dry_run {
            return Ok(());
        }
        if is_changed {
            known.put(store, lineage).await?;
        }
        known.remove_older(store, lineage).await;
        Ok(())
    }

    /// The key of a file under the active key; `None` where it is under it already.
    async fn rewrapped(
        &self,
        known: &LineageKeys,
        file_id: FileId,
        kind: ObjectKind,
        key: &str,
    ) -> Result<Option<Wrapped>, JobError> {
        let store = self.repository.store();
        let slot = match known.keys.get(&file_id) {
            Some(wrapped) => Some(wrapped.slot.clone()),
            None => header_slot(&**store, key, kind, file_id).await?,
        };
        let is_older = |slot: &KeySlot| slot.key_name != self.keyring.active().name();
        let Some(slot) = slot.filter(is_older) else { return Ok(None) };
        let sealed = |source| JobError::Seal { place: store.address(key), source };
        let data_key = unwrap(self.keyring, magic(kind), file_id, &slot).map_err(sealed)?;
        let sequence = slot.sequence.saturating_add(1);
        let slot = wrap(self.keyring, magic(kind), file_id, &data_key, sequence).map_err(sealed)?;
        Ok(Some(Wrapped { kind, slot }))
    }
}

/// Every encrypted file of a lineage, once, with an object that begins with its header.
async fn files_of(
    store: &Arc<dyn ObjectStore>,
    lineage: &str,
    backups: &[Backup],
) -> Result<BTreeMap<FileId, (ObjectKind, String)>, JobError> {
    let mut files = BTreeMap::new();
    let prefix = folder(lineage);
    for backup in backups.iter().filter(|backup| backup.folder.starts_with(&prefix)) {
        // One whose manifest is damaged cannot be restored from either; `verify` says what is wrong with it.
        let Ok(manifest) = &backup.manifest else { continue };
        for object in manifest.objects.iter().filter(|object| object.key.is_some()) {
            if let Some(file_id) = object.file_id() {
                files.insert(file_id, (object.kind, format!("{}{}", backup.folder, object.name)));
            }
        }
    }
    // The continuous archive: the first piece of a segment holds its header.
    for object in store.list(&format!("{prefix}journal/")).await? {
        if let Some(file_id) = first_piece_of(object.key.get(prefix.len()..).unwrap_or_default()) {
            files.entry(file_id).or_insert((ObjectKind::Journal, object.key));
        }
    }
    Ok(files)
}

/// The segment whose first piece bears this name: `journal/<first LSN>-<file id>/<start>-…`, where it starts at 0.
fn first_piece_of(name: &str) -> Option<FileId> {
    let (segment, piece) = name.strip_prefix("journal/")?.split_once('/')?;
    let (_, file_id) = segment.split_once('-')?;
    let start = piece.split('-').next()?;
    (!start.is_empty() && start.bytes().all(|digit| digit == b'0')).then_some(FileId(bytes(file_id)?))
}

/// The wrapped key in the header that an object begins with; `None` where it is not encrypted, or has gone meanwhile.
async fn header_slot(
    store: &dyn ObjectStore,
    key: &str,
    kind: ObjectKind,
    file_id: FileId,
) -> Result<Option<KeySlot>, JobError> {
    let url = store.address(key);
    let header = match store.get_range(key, Some(0..HEADER_BYTES as u64)).await {
        Err(error) if matches!(error.root(), StoreError::NotFound { .. }) => return Ok(None),
        body => read_all(body?, &url, HEADER_BYTES as u64).await?,
    };
    let (identity, slot) = decode_header(&header, magic(kind))
        .map_err(|source| JobError::Format { place: url.clone(), source })?;
    if identity.file_id != file_id {
        return Err(JobError::Damaged {
            place: url,
            offset: Some(16),
            what: "file id",
            expected: file_id.to_string(),
            found: identity.file_id.to_string(),
        });
    }
    Ok(slot)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Silent;
    use crate::manifest::tests::sample;
    use cairn_format::header::{Body, Identity, JournalBody, encode_header};
    use cairn_format::{LineageId, Lsn};
    use cairn_store::{Fault, FaultyStore, LocalStore};

    /// Files of the repository that tests make, and their lineage.
    const FILES: u8 = 7;
    pub(crate) const LINEAGE: &str = "0123456789abcdef0123456789abcdef";

    fn file_id(number: u8) -> FileId {
        FileId([number; 16])
    }

    /// A repository of one backup with encrypted segments and a first piece of an archive, headers and nothing else.
    async fn filled(dir: &std::path::Path, keyring: &Keyring) -> Arc<dyn ObjectStore> {
        let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.join("r")));
        Repository::init(Arc::clone(&store)).await.unwrap();
        let mut manifest = sample();
        let object = manifest.objects.remove(0);
        for number in 1..=FILES {
            let data_key = cairn_seal::new_data_key().unwrap();
            let slot = wrap(keyring, Magic::Journal, file_id(number), &data_key, 1).unwrap();
            let body = JournalBody { first_lsn: Lsn(0), epoch: 1, predecessor: None };
            let identity = Identity {
                magic: Magic::Journal,
                encrypted: true,
                file_id: file_id(number),
                lineage: LineageId([1; 16]),
                created_unix_ms: 1,
                body: Body::Journal(body),
            };
            let header = encode_header(&identity, Some(&slot));
            if number == FILES {
                let name =
                    format!("{:020}-{}/{:012}-{:012}-{:020}-{:013}", 0, file_id(number), 0, 12_288, 0, 1);
                store.put_bytes(&format!("lineage/{LINEAGE}/journal/{name}"), header).await.unwrap();
                continue;
            }
            let mut object = object.clone();
            object.name = format!("journal-{number}");
            (object.file_id, object.key) = (file_id(number).to_string(), Some(slot.key_name));
            let folder = format!("lineage/{LINEAGE}/snapshot/{}/", manifest.id);
            store.put_bytes(&format!("{folder}{}", object.name), header).await.unwrap();
            manifest.objects.push(object);
        }
        let key = format!("lineage/{LINEAGE}/snapshot/{}/manifest-000001.json", manifest.id);
        store.put_bytes(&key, manifest.encode().unwrap()).await.unwrap();
        store
    }

    async fn rewrap(
        store: &Arc<dyn ObjectStore>,
        keyring: &Keyring,
        faults: Vec<Fault>,
    ) -> (Result<RewrappedRepository, JobError>, u64) {
        let faulty = Arc::new(FaultyStore::new(Arc::clone(store), faults));
        let as_store: Arc<dyn ObjectStore> = Arc::<FaultyStore>::clone(&faulty);
        let done = match Repository::open(as_store).await {
            Ok(repository) => {
                let (dry_run, progress) = (false, &Silent);
                Rewrapping { repository: &repository, keyring, dry_run, progress, keys_per_document: 3 }
                    .run()
                    .await
            }
            Err(error) => Err(error),
        };
        (done, faulty.calls())
    }

    /// Whether every file opens with this keyring and what stands beside the objects.
    async fn opens(store: &Arc<dyn ObjectStore>, keyring: &Keyring) -> bool {
        let repository = Repository::open(Arc::clone(store)).await.unwrap();
        let keyring = repository.unlocking(LINEAGE, Some(Arc::new(keyring.clone()))).await.unwrap().unwrap();
        let backups = repository.backups().await.unwrap();
        let files = files_of(store, LINEAGE, &backups).await.unwrap();
        assert_eq!(files.len(), usize::from(FILES));
        for (file_id, (kind, key)) in files {
            let slot = header_slot(&**store, &key, kind, file_id).await.unwrap().unwrap();
            if unwrap(&keyring, magic(kind), file_id, &slot).is_err() {
                return false;
            }
        }
        true
    }

    fn newest_alone(keyring: &Keyring) -> Keyring {
        let text = keyring.encode();
        Keyring::parse(text.lines().last().unwrap().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_rewrapping_that_ends_anywhere_is_gone_on_with() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let alone = newest_alone(&both);
        let mut ends = 0;
        for first in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let store = filled(dir.path(), &old).await;
            assert!(opens(&store, &old).await && !opens(&store, &alone).await);
            let (ended, calls) =
                rewrap(&store, &both, vec![Fault::Unreachable { first, last: u64::MAX }]).await;
            assert!(opens(&store, &both).await, "the store went away at call {first}");
            ends += u32::from(ended.is_err());
            let (done, _) = rewrap(&store, &both, Vec::new()).await;
            let done = done.unwrap();
            assert_eq!(done.files, usize::from(FILES));
            assert!(opens(&store, &alone).await, "the store went away at call {first}");
            let listed = store.list(&format!("lineage/{LINEAGE}/keys-")).await.unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            if calls < first {
                assert_eq!(done.rewrapped, 0, "nothing was left to do");
                break;
            }
        }
        assert!(ends > 10, "{ends} calls failed");
    }

    #[tokio::test]
    async fn two_at_once_leave_what_opens_with_the_newest_key() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &old).await;
        let (one, two) = tokio::join!(rewrap(&store, &both, Vec::new()), rewrap(&store, &both, Vec::new()));
        let overtaken = |done: &Result<_, JobError>| matches!(done, Err(JobError::Overtaken { .. }));
        assert!(one.0.is_ok() || two.0.is_ok());
        assert!([&one.0, &two.0].into_iter().all(|done| done.is_ok() || overtaken(done)));
        rewrap(&store, &both, Vec::new()).await.0.unwrap();
        assert!(opens(&store, &newest_alone(&both)).await);
    }

    #[tokio::test]
    async fn every_changed_byte_of_a_document_is_seen_and_the_objects_open_without_it() {
        let old = Keyring::generate().unwrap();
        let both = old.rotated().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), &old).await;
        rewrap(&store, &both, Vec::new()).await.0.unwrap();
        let read = LineageKeys::read(&store, LINEAGE).await.unwrap();
        let key = document_key(LINEAGE, *read.numbers.last().unwrap());
        let whole = store.get_bytes(&key, DOCUMENT_BYTES_MAX).await.unwrap();
        let url = store.address(&key);
        assert_eq!(decode(&whole, &url, LINEAGE).unwrap(), read.keys);
        assert!(decode(&whole, &url, &"f".repeat(32)).unwrap_err().is_damage(), "another lineage's");
        for at in (0..whole.len() - 1).step_by(7) {
            let mut bad = whole.to_vec();
            bad[at] ^= 1;
            assert!(decode(&bad, &url, LINEAGE).is_err(), "byte {at}");
            assert!(decode(&whole[..at], &url, LINEAGE).is_err(), "cut at {at}");
        }
        let flip = Fault::Flip { key: "/keys-".into(), offset: 300, mask: 1 };
        let faulty: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(store, vec![flip]));
        assert!(!LineageKeys::read(&faulty, LINEAGE).await.unwrap().faults.is_empty());
        assert!(opens(&faulty, &old).await);
    }

    fn wrapped(byte: u8) -> Wrapped {
        let slot = KeySlot { sequence: 3, key_name: "k".into(), nonce: [byte; 12], wrapped: [byte; 48] };
        Wrapped { kind: ObjectKind::Journal, slot }
    }

    /// A document of two keys.
    pub(crate) fn sample_document() -> Vec<u8> {
        let files = [1, 2].map(|number| FileKey::new(file_id(number), &wrapped(number)));
        let document = KeysDocument {
            format: FORMAT.to_owned(),
            version: VERSION,
            lineage: LINEAGE.to_owned(),
            created_unix_ms: 1,
            files: files.into(),
        };
        document::encode(&document).unwrap()
    }

    #[test]
    fn wrapped_keys_come_back_as_they_went_and_others_are_refused() {
        let file = FileKey::new(FileId([7; 16]), &wrapped(0xab));
        assert_eq!(file.decode(), Some((FileId([7; 16]), wrapped(0xab))));
        for bad in [
            FileKey { nonce: "ab".repeat(11), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
            FileKey { nonce: "é".repeat(12), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
            FileKey { wrapped: "ab".repeat(49), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
            FileKey { file_id: "+b".repeat(16), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
            FileKey { key: String::new(), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
            FileKey { key: "k".repeat(65), ..FileKey::new(FileId([7; 16]), &wrapped(1)) },
        ] {
            assert_eq!(bad.decode(), None, "{bad:?}");
        }
    }

    #[test]
    fn names_of_documents_and_of_first_pieces() {
        assert_eq!(number_of("keys-000012.json"), Some(12));
        for bad in ["keys-12.json", "keys-00000x.json", "keys-000001.json.tmp", "manifest-000001.json"] {
            assert_eq!(number_of(bad), None, "{bad}");
        }
        let segment = format!("journal/{:020}-{}", 93, "0a".repeat(16));
        let piece =
            |start: u64| format!("{segment}/{start:012}-000000016384-00000000000000000200-1795000000000");
        assert_eq!(first_piece_of(&piece(0)), Some(FileId([0x0a; 16])));
        assert_eq!(first_piece_of(&piece(4096)), None);
        for bad in ["journal/x", "journal/93-zz/000-1", "snapshot/93-0a/0-1", ""] {
            assert_eq!(first_piece_of(bad), None, "{bad}");
        }
    }
}
