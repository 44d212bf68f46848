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
use crate::repository::Repository;
use crate::{JobError, moment};

const FORMAT: &str = "cairn keys";
const VERSION: u32 = 1;
/// So many keys are wrapped before what there is by then is put: an interruption costs no more.
const KEYS_PER_DOCUMENT: usize = 1024;
/// How often a number that somebody else took is tried again with the next one.
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
struct Wrapped {
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
        for _ in 0..ATTEMPTS {
            let number = self.numbers.last().copied().unwrap_or(0) + 1;
            self.numbers.push(number);
            match store.put_bytes(&document_key(lineage, number), encoded.clone()).await {
                Ok(_) => return Ok(()),
                // Somebody else rewraps at the same moment; whoever is last has all there is, too.
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(JobError::Damaged {
            place: store.address(&folder(lineage)),
            offset: None,
            what: "numbering of the keys documents",
            expected: "a number that is free".to_owned(),
            found: format!("{ATTEMPTS} that were taken meanwhile"),
        })
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

fn decode(bytes: &[u8], url: &str, lineage: &str) -> Result<BTreeMap<FileId, Wrapped>, JobError> {
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
        let Some(keyring) = keyring else { return Ok(None) };
        let read = LineageKeys::read(self.store(), lineage).await?;
        for fault in &read.faults {
            tracing::warn!(error = %fault, "a document with rewrapped keys is damaged; an older one is used");
        }
        if read.keys.is_empty() {
            return Ok(Some(keyring));
        }
        let slots = read.keys.into_iter().map(|(file_id, wrapped)| (file_id, wrapped.slot)).collect();
        Ok(Some(Arc::new(keyring.with_slots(slots))))
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
    let store = repository.store();
    let lineages = store.list_folders("lineage/").await?;
    let mut done = RewrappedRepository {
        key: keyring.active().name().to_owned(),
        lineages: lineages.len(),
        ..RewrappedRepository::default()
    };
    for lineage in lineages {
        rewrap_lineage(repository, &lineage, keyring, dry_run, progress, &mut done).await?;
    }
    Ok(done)
}

async fn rewrap_lineage(
    repository: &Repository,
    lineage: &str,
    keyring: &Keyring,
    dry_run: bool,
    progress: &dyn Progress,
    done: &mut RewrappedRepository,
) -> Result<(), JobError> {
    let store = repository.store();
    let mut known = LineageKeys::read(store, lineage).await?;
    let files = files_of(repository, lineage).await?;
    // What is no longer there needs no key.
    let before = known.keys.len();
    known.keys.retain(|file_id, _| files.contains_key(file_id));
    // A damaged document must not stay the newest.
    let mut is_changed = known.keys.len() < before || !known.faults.is_empty();
    progress.begin(Phase::Rewrap, (files.len() * HEADER_BYTES) as u64);
    let mut since = 0;
    for (file_id, (kind, key)) in files {
        done.files += 1;
        progress.advance(HEADER_BYTES as u64);
        if known.key_of(file_id) == Some(keyring.active().name()) {
            continue;
        }
        let slot = match known.keys.get(&file_id) {
            Some(wrapped) => wrapped.slot.clone(),
            None => match header_slot(&**store, &key, kind, file_id).await? {
                Some(slot) => slot,
                None => continue,
            },
        };
        if slot.key_name == keyring.active().name() && !known.keys.contains_key(&file_id) {
            continue;
        }
        done.rewrapped += 1;
        let sealed = |source| JobError::Seal { place: store.address(&key), source };
        let data_key = unwrap(keyring, magic(kind), file_id, &slot).map_err(sealed)?;
        if dry_run {
            continue;
        }
        let slot = wrap(keyring, magic(kind), file_id, &data_key, slot.sequence.saturating_add(1))
            .map_err(sealed)?;
        known.keys.insert(file_id, Wrapped { kind, slot });
        is_changed = true;
        since += 1;
        if since == KEYS_PER_DOCUMENT {
            known.put(store, lineage).await?;
            (is_changed, since) = (false, 0);
        }
    }
    progress.end();
    if dry_run {
        return Ok(());
    }
    if is_changed {
        known.put(store, lineage).await?;
    }
    known.remove_older(store, lineage).await;
    Ok(())
}

/// Every encrypted file of a lineage, once, with an object that begins with its header.
async fn files_of(
    repository: &Repository,
    lineage: &str,
) -> Result<BTreeMap<FileId, (ObjectKind, String)>, JobError> {
    let mut files = BTreeMap::new();
    let prefix = folder(lineage);
    for backup in repository.backups().await?.into_iter().filter(|backup| backup.folder.starts_with(&prefix))
    {
        // One whose manifest is damaged cannot be restored from either; `verify` says what is wrong with it.
        let Ok(manifest) = &backup.manifest else { continue };
        for object in manifest.objects.iter().filter(|object| object.key.is_some()) {
            if let Some(file_id) = object.file_id() {
                files.insert(file_id, (object.kind, format!("{}{}", backup.folder, object.name)));
            }
        }
    }
    // The continuous archive: the first piece of a segment holds its header.
    for object in repository.store().list(&format!("{prefix}journal/")).await? {
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
mod tests {
    use super::*;

    fn wrapped(byte: u8) -> Wrapped {
        let slot = KeySlot { sequence: 3, key_name: "k".into(), nonce: [byte; 12], wrapped: [byte; 48] };
        Wrapped { kind: ObjectKind::Journal, slot }
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
