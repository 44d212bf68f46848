//! A repository: its address, its identity, and the backups in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_store::{ObjectStore, StoreError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::document::DOCUMENT_BYTES_MAX;
use crate::keys::LineageKeys;
use crate::manifest::BackupManifest;
use crate::{JobError, document, moment};

const FORMAT: &str = "cairn repository";
const VERSION: u32 = 1;
/// The object that makes a place a repository.
const REPOSITORY: &str = "repository.json";
/// Manifests read at the same time.
const READS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RepositoryDocument {
    format: String,
    version: u32,
    id: String,
    created_unix_ms: u64,
}

/// An open repository.
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    id: String,
}

/// A backup in a repository: a folder with a manifest.
#[derive(Debug)]
pub struct Backup {
    /// Its name.
    pub id: String,
    /// Its folder within the store, with a slash at the end.
    pub folder: String,
    /// The newest valid manifest; the reason if there is none.
    pub manifest: Result<BackupManifest, JobError>,
    /// The objects in its folder, and their sizes in bytes.
    pub stored: BTreeMap<String, u64>,
}

impl Repository {
    /// Opens the repository in a store.
    ///
    /// # Errors
    /// [`JobError::NoRepository`] when the store answered and there is none.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, JobError> {
        let bytes = match store.get_bytes(REPOSITORY, DOCUMENT_BYTES_MAX).await {
            Err(error) if matches!(error.root(), StoreError::NotFound { .. }) => {
                return Err(Self::absent(&store).await?);
            }
            other => other?,
        };
        let document: RepositoryDocument =
            document::decode(&bytes, &store.address(REPOSITORY), FORMAT, VERSION)?;
        Ok(Self { store, id: document.id })
    }

    /// Opens the repository in a store, making one if there is provably none.
    ///
    /// # Errors
    /// Those of the store; damage if there are backups but nothing that says it is a repository.
    pub async fn init(store: Arc<dyn ObjectStore>) -> Result<Self, JobError> {
        match Self::open(Arc::clone(&store)).await {
            Err(JobError::NoRepository { .. }) => {}
            // A directory that is not there yet is made with the first object; a bucket must be there.
            Err(JobError::Store(StoreError::NoSuchBucket { .. }))
                if store.local_path(REPOSITORY).is_some() => {}
            other => return other,
        }
        let document = RepositoryDocument {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: crate::random_hex()?,
            created_unix_ms: moment::now_unix_ms(),
        };
        match store.put_bytes(REPOSITORY, document::encode(&document)?).await {
            // Somebody else made it at the same moment.
            Err(StoreError::AlreadyExists { .. }) => Self::open(store).await,
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Self { store, id: document.id }),
        }
    }

    /// What the absence of `repository.json` means.
    async fn absent(store: &Arc<dyn ObjectStore>) -> Result<JobError, JobError> {
        let lineages = store.list_folders("lineage/").await?;
        let url = store.url().to_owned();
        Ok(match lineages.first() {
            None => JobError::NoRepository { url },
            Some(lineage) => JobError::Damaged {
                place: store.address(REPOSITORY),
                offset: None,
                what: "repository",
                expected: "this object, since there are backups".to_owned(),
                found: format!("lineage/{lineage} without it"),
            },
        })
    }

    /// The store it lies in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Its address.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// Its own id, 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All backups, the oldest first; one whose manifests are all damaged is among them with the reason.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn backups(&self) -> Result<Vec<Backup>, JobError> {
        let mut folders: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for lineage in self.store.list_folders("lineage/").await? {
            keys.insert(lineage.clone(), LineageKeys::read(&self.store, &lineage).await?);
            let prefix = format!("lineage/{lineage}/snapshot/");
            for object in self.store.list(&prefix).await? {
                if let Some((folder, name)) = object.key.rsplit_once('/') {
                    folders.entry(format!("{folder}/")).or_default().insert(name.to_owned(), object.bytes);
                }
            }
        }
        let mut tasks = JoinSet::new();
        let mut backups = Vec::new();
        for (folder, stored) in folders {
            // Without a manifest it is a backup that was never finished, and nobody's.
            if !stored.keys().any(|name| manifest_number(name).is_some()) {
                continue;
            }
            if tasks.len() >= READS {
                backups.extend(
                    tasks.join_next().await.transpose().map_err(|error| JobError::Task(error.to_string()))?,
                );
            }
            tasks.spawn(read_backup(Arc::clone(&self.store), folder, stored));
        }
        while let Some(read) = tasks.join_next().await {
            backups.push(read.map_err(|error| JobError::Task(error.to_string()))?);
        }
        let mut found = backups.into_iter().collect::<Result<Vec<_>, _>>()?;
        for manifest in found.iter_mut().filter_map(|backup| backup.manifest.as_mut().ok()) {
            keys.get(&manifest.lineage).into_iter().for_each(|keys| keys.apply(manifest));
        }
        // The name begins with the moment it was made.
        found.sort_by(|a, b| (&a.id, &a.folder).cmp(&(&b.id, &b.folder)));
        Ok(found)
    }

    /// The backup of this name, or the newest one.
    ///
    /// # Errors
    /// [`JobError::NoSuchBackup`], [`JobError::NoBackups`]; damage if that very backup's manifest is damaged: another one
    /// is not taken in its place without being asked for.
    pub async fn find(&self, id: Option<&str>) -> Result<(String, BackupManifest), JobError> {
        let backup = self.find_backup(id).await?;
        Ok((backup.folder, backup.manifest?))
    }

    /// As [`Repository::find`], whether its manifest can be read or not.
    ///
    /// # Errors
    /// That there is none, and those of the store.
    pub async fn find_backup(&self, id: Option<&str>) -> Result<Backup, JobError> {
        let mut backups = self.backups().await?;
        if let Some(id) = id {
            backups.retain(|backup| backup.id == id);
        }
        let url = self.url().to_owned();
        match (backups.pop(), id) {
            (Some(backup), _) => Ok(backup),
            (None, Some(id)) => Err(JobError::NoSuchBackup { url, id: id.to_owned() }),
            (None, None) => Err(JobError::NoBackups { url }),
        }
    }
}

/// `manifest-000001.json` → 1
fn manifest_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("manifest-")?.strip_suffix(".json")?;
    (digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The name of a backup's first manifest.
pub(crate) const FIRST_MANIFEST: &str = "manifest-000001.json";

/// The newest valid number wins.
async fn read_backup(
    store: Arc<dyn ObjectStore>,
    folder: String,
    stored: BTreeMap<String, u64>,
) -> Result<Backup, JobError> {
    let id = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let mut names: Vec<&String> = stored.keys().filter(|name| manifest_number(name).is_some()).collect();
    names.sort();
    let mut first_fault = None;
    let mut manifest = None;
    for name in names.into_iter().rev() {
        let key = format!("{folder}{name}");
        let url = store.address(&key);
        let read = match store.get_bytes(&key, DOCUMENT_BYTES_MAX).await {
            Ok(bytes) => BackupManifest::decode(&bytes, &url)
                .and_then(|manifest| belongs(manifest, &folder, &id, &url)),
            Err(error) if matches!(error.root(), StoreError::NotFound { .. }) => Err(missing(url)),
            Err(error) => return Err(error.into()),
        };
        match read {
            Ok(read) => {
                manifest = Some(read);
                break;
            }
            Err(error) => first_fault = first_fault.or(Some(error)),
        }
    }
    let manifest = match (manifest, first_fault) {
        (Some(manifest), _) => Ok(manifest),
        (None, Some(error)) => Err(error),
        (None, None) => Err(missing(store.address(&folder))),
    };
    Ok(Backup { id, folder, manifest, stored })
}

/// A manifest copied from one backup's folder to another's is damage.
fn belongs(manifest: BackupManifest, folder: &str, id: &str, url: &str) -> Result<BackupManifest, JobError> {
    let expected = format!("lineage/{}/snapshot/{}/", manifest.lineage, manifest.id);
    if expected == folder {
        return Ok(manifest);
    }
    Err(JobError::Damaged {
        place: url.to_owned(),
        offset: None,
        what: "manifest's place",
        expected: id.to_owned(),
        found: format!("the manifest of {}", manifest.id),
    })
}

pub(crate) fn missing(place: String) -> JobError {
    JobError::Damaged {
        place,
        offset: None,
        what: "object",
        expected: "to be there".to_owned(),
        found: "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample;
    use cairn_store::LocalStore;

    #[test]
    fn manifest_names() {
        assert_eq!(manifest_number(FIRST_MANIFEST), Some(1));
        assert_eq!(manifest_number("manifest-999999.json"), Some(999_999));
        for bad in ["manifest-1.json", "manifest-00000x.json", "manifest-000001.json.tmp", "snapshot.cairn"] {
            assert_eq!(manifest_number(bad), None, "{bad}");
        }
    }

    async fn with_backups(dir: &std::path::Path, ids: &[&str]) -> Repository {
        let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.join("r")));
        let repository = Repository::init(store).await.unwrap();
        for id in ids {
            let manifest = BackupManifest { id: (*id).to_owned(), ..sample() };
            let key = format!("lineage/{}/snapshot/{id}/{FIRST_MANIFEST}", manifest.lineage);
            repository.store.put_bytes(&key, manifest.encode().unwrap()).await.unwrap();
        }
        repository
    }

    #[tokio::test]
    async fn a_repository_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.path().join("r")));
        let none = Repository::open(Arc::clone(&store)).await.err().unwrap();
        assert_eq!(none.exit_code(), 10);
        let made = Repository::init(Arc::clone(&store)).await.unwrap();
        assert_eq!(Repository::init(Arc::clone(&store)).await.unwrap().id(), made.id());
        assert_eq!(Repository::open(Arc::clone(&store)).await.unwrap().id(), made.id());
        assert!(made.backups().await.unwrap().is_empty());
        assert!(matches!(made.find(None).await, Err(JobError::NoBackups { .. })));
        // An empty directory that is there is no repository either.
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let empty: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(dir.path().join("empty")));
        assert_eq!(Repository::open(empty).await.err().unwrap().exit_code(), 10);
    }

    #[tokio::test]
    async fn backups_without_their_repository_document_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let repository = with_backups(dir.path(), &["20261123T101504250Z-100"]).await;
        repository.store.delete(REPOSITORY).await.unwrap();
        let error = Repository::init(Arc::clone(&repository.store)).await.err().unwrap();
        assert_eq!(error.exit_code(), 13, "{error}");
    }

    #[tokio::test]
    async fn the_newest_valid_manifest_wins() {
        let dir = tempfile::tempdir().unwrap();
        let repository =
            with_backups(dir.path(), &["20261123T101504250Z-100", "20261124T101504250Z-90"]).await;
        let (folder, newest) = repository.find(None).await.unwrap();
        assert_eq!(newest.id, "20261124T101504250Z-90");
        let better = BackupManifest { entries: 7, ..newest.clone() };
        repository
            .store
            .put_bytes(&format!("{folder}manifest-000002.json"), better.encode().unwrap())
            .await
            .unwrap();
        assert_eq!(repository.find(None).await.unwrap().1.entries, 7);
        repository.store.put_bytes(&format!("{folder}manifest-000003.json"), "{").await.unwrap();
        assert_eq!(repository.find(None).await.unwrap().1.entries, 7);
        let gone = repository.find(Some("20261124T101504250Z-91")).await.unwrap_err();
        assert!(matches!(gone, JobError::NoSuchBackup { .. }), "{gone}");
    }

    #[tokio::test]
    async fn a_damaged_or_moved_manifest_is_named_not_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let repository = with_backups(dir.path(), &["20261123T101504250Z-100"]).await;
        let moved = format!("lineage/{}/snapshot/20261125T101504250Z-5/{FIRST_MANIFEST}", sample().lineage);
        repository.store.put_bytes(&moved, sample().encode().unwrap()).await.unwrap();
        let backups = repository.backups().await.unwrap();
        assert_eq!(backups.len(), 2);
        let error = repository.find(None).await.unwrap_err();
        assert_eq!(error.exit_code(), 13, "{error}");
        assert!(repository.find(Some("20261123T101504250Z-100")).await.is_ok());
        // What was never finished is no backup.
        repository.store.put_bytes("lineage/00/snapshot/x/snapshot.cairn", "x").await.unwrap();
        assert_eq!(repository.backups().await.unwrap().len(), 2);
    }
}
