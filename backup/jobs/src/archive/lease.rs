//! The lease: who may write a repository's archive, and until when.
//!
//! Each state of it is an object that is put if nobody has put it before, so of two that want the same one gets it. How old
//! a state is, is judged by the store's own clock. A holder stops well before others may take over.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use cairn_store::{ObjectMeta, ObjectStore, StoreError};
use serde::{Deserialize, Serialize};

use super::names::{LEASES, LeaseName};
use crate::document::{self, DOCUMENT_BYTES_MAX};
use crate::{JobError, moment};

const FORMAT: &str = "cairn lease";
const VERSION: u32 = 1;

/// Who holds the lease, and what they have done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseDocument {
    format: String,
    version: u32,
    /// Who it is, for a person: host, process, directory.
    pub holder: String,
    /// Drawn by each holder; known to nobody else until then.
    pub token: String,
    /// The boot of the machine it runs on.
    pub boot: String,
    /// It runs out so long after it was put.
    pub ttl_ms: u64,
    /// It was given up.
    pub released: bool,
    /// How far the archive reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
}

/// How far the archive of a history reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The history.
    pub lineage: String,
    /// The archive holds all effects below it.
    pub lsn: u64,
    /// No other effect was appended up to this moment, in milliseconds since 1970; 0 where that is not known.
    pub unix_ms: u64,
}

/// A state of the lease as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which it is.
    pub name: LeaseName,
    /// When it was put, by the store's clock.
    pub put_unix_ms: u64,
    /// What it says.
    pub document: LeaseDocument,
}

impl Lease {
    /// The moment it runs out, by the store's clock.
    pub fn until_unix_ms(&self) -> u64 {
        self.put_unix_ms.saturating_add(self.document.ttl_ms)
    }
}

/// The newest state of the lease.
///
/// # Errors
/// Those of the store; damage.
pub async fn newest(store: &Arc<dyn ObjectStore>) -> Result<Option<Lease>, JobError> {
    // One that is cleared away between the listing and the reading has a successor.
    for _ in 0..5 {
        let listed = store.list(LEASES).await?;
        let Some((name, put_unix_ms)) = newest_name(&listed) else { return Ok(None) };
        let key = name.to_string();
        match store.get_bytes(&key, DOCUMENT_BYTES_MAX).await {
            Ok(bytes) => {
                let document = document::decode(&bytes, &store.address(&key), FORMAT, VERSION)?;
                return Ok(Some(Lease { name, put_unix_ms, document }));
            }
            Err(error) if matches!(error.root(), StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(JobError::Task("the lease changed during each of five attempts to read it".to_owned()))
}

fn newest_name(listed: &[ObjectMeta]) -> Option<(LeaseName, u64)> {
    let named =
        listed.iter().filter_map(|object| Some((LeaseName::parse(&object.key)?, object.modified_unix_ms)));
    named.max()
}

/// Who wants the lease.
#[derive(Debug, Clone)]
pub struct Holder {
    /// For a person: host, process, directory.
    pub name: String,
    /// Random, this holder's alone.
    pub token: String,
    /// The boot of this machine.
    pub boot: String,
    /// The token of the holder before in the same place, if that is certainly gone: its lease need not run out.
    pub gone: Option<String>,
    /// How long the lease lasts without being renewed.
    pub ttl: Duration,
}

/// A lease that is held. It must be renewed before it runs out, and each put asks it for leave.
pub struct Held {
    store: Arc<dyn ObjectStore>,
    holder: Holder,
    state: Mutex<State>,
}

struct State {
    name: LeaseName,
    /// When the last renewal was begun, by two clocks: one may stand still while the machine sleeps, the other be set.
    begun: (Instant, SystemTime),
    lost: Option<String>,
}

impl Held {
    /// Takes the lease if nobody holds it.
    ///
    /// # Errors
    /// [`JobError::LeaseHeld`] with who holds it and until when.
    pub async fn take(store: Arc<dyn ObjectStore>, holder: Holder) -> Result<Self, JobError> {
        let state = begin(&store, &holder).await?;
        Ok(Self { store, holder, state: Mutex::new(state) })
    }

    /// Who holds it.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whether something may be put now.
    ///
    /// # Errors
    /// [`JobError::LeaseLost`] when another has taken it; [`JobError::LeaseStale`] when it may have run out.
    pub fn check(&self) -> Result<(), JobError> {
        let state = self.state();
        let url = || self.store.url().to_owned();
        if let Some(why) = &state.lost {
            return Err(JobError::LeaseLost { url: url(), why: why.clone() });
        }
        let age = state.age();
        if age.saturating_add(self.holder.ttl / 4) < self.holder.ttl {
            return Ok(());
        }
        Err(JobError::LeaseStale { url: url(), seconds: age.as_secs() })
    }

    /// How long after a renewal the next one is due.
    pub fn renew_every(&self) -> Duration {
        self.holder.ttl / 4
    }

    /// Renews it and tells how far the archive reaches.
    ///
    /// # Errors
    /// [`JobError::LeaseLost`]; those of the store, after which it is tried again until it has run out.
    pub async fn renew(&self, archived: Option<Archived>) -> Result<(), JobError> {
        self.put(archived, false).await
    }

    /// Gives it up.
    ///
    /// # Errors
    /// As [`Held::renew`].
    pub async fn release(&self, archived: Option<Archived>) -> Result<(), JobError> {
        self.put(archived, true).await
    }

    async fn put(&self, archived: Option<Archived>, released: bool) -> Result<(), JobError> {
        let begun = (Instant::now(), SystemTime::now());
        let name = match self.next_name()? {
            Some(name) => name,
            None => {
                self.take_again().await?;
                LeaseName { renewal: 2, ..self.state().name }
            }
        };
        let document = self.holder.document(archived, released);
        match self.store.put_bytes(&name.to_string(), document::encode(&document)?).await {
            Ok(_) => {}
            // A put that was thought to have failed had arrived after all.
            Err(error) if matches!(error.root(), StoreError::AlreadyExists { .. }) => {
                self.state().name = name;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        let listed = self.store.list(LEASES).await?;
        if let Some((newest, _)) = newest_name(&listed)
            && newest.epoch > name.epoch
        {
            return Err(self.lose(format!("another has taken it as epoch {}", newest.epoch)));
        }
        {
            let mut state = self.state();
            (state.name, state.begun) = (name, begun);
        }
        self.clear(&listed, name).await;
        Ok(())
    }

    /// The name of the next state; none if the lease may have run out.
    fn next_name(&self) -> Result<Option<LeaseName>, JobError> {
        let state = self.state();
        if let Some(why) = &state.lost {
            return Err(JobError::LeaseLost { url: self.store.url().to_owned(), why: why.clone() });
        }
        let in_time = state.age() < self.holder.ttl;
        Ok(in_time.then(|| LeaseName { renewal: state.name.renewal + 1, ..state.name }))
    }

    /// Takes the lease again after it ran out, unless another has it: a store that was away for long ends nothing.
    async fn take_again(&self) -> Result<(), JobError> {
        let holder = Holder { gone: Some(self.holder.token.clone()), ..self.holder.clone() };
        match begin(&self.store, &holder).await {
            Ok(state) => {
                tracing::warn!("the lease had run out, and nobody had taken it meanwhile");
                *self.state() = state;
                Ok(())
            }
            Err(JobError::LeaseHeld { holder, .. }) => Err(self.lose(format!("{holder} has taken it"))),
            Err(error) => Err(error),
        }
    }

    fn lose(&self, why: String) -> JobError {
        self.state().lost = Some(why.clone());
        JobError::LeaseLost { url: self.store.url().to_owned(), why }
    }

    /// Removes states that count no more.
    async fn clear(&self, listed: &[ObjectMeta], newest: LeaseName) {
        for object in listed {
            if LeaseName::parse(&object.key).is_some_and(|name| name < newest)
                && let Err(error) = self.store.delete(&object.key).await
            {
                tracing::debug!(key = object.key, %error, "an old state of the lease could not be removed");
                return;
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long ago the last renewal was begun, by the clock that says more.
    fn age(&self) -> Duration {
        self.begun.0.elapsed().max(self.begun.1.elapsed().unwrap_or(Duration::MAX))
    }
}

/// Puts the first state of a new epoch, if nobody holds the lease.
async fn begin(store: &Arc<dyn ObjectStore>, holder: &Holder) -> Result<State, JobError> {
    let begun = (Instant::now(), SystemTime::now());
    let found = newest(store).await?;
    if let Some(lease) = &found {
        let gone = holder.gone.as_ref() == Some(&lease.document.token) && holder.boot == lease.document.boot;
        if !lease.document.released && !gone && store_now(store).await? < lease.until_unix_ms() {
            return Err(held_by(store, lease));
        }
    }
    let name = LeaseName { epoch: found.as_ref().map_or(0, |lease| lease.name.epoch) + 1, renewal: 1 };
    // What the one before has stated is still so.
    let archived = found.and_then(|lease| lease.document.archived);
    let document = holder.document(archived, false);
    match store.put_bytes(&name.to_string(), document::encode(&document)?).await {
        Ok(_) => Ok(State { name, begun, lost: None }),
        // Somebody else wanted it at the same moment.
        Err(error) if matches!(error.root(), StoreError::AlreadyExists { .. }) => {
            Err(newest(store).await?.map_or_else(|| error.into(), |lease| held_by(store, &lease)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Holder {
    fn document(&self, archived: Option<Archived>, released: bool) -> LeaseDocument {
        LeaseDocument {
            format: FORMAT.to_owned(),
            version: VERSION,
            holder: self.name.clone(),
            token: self.token.clone(),
            boot: self.boot.clone(),
            ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
            released,
            archived,
        }
    }
}

fn held_by(store: &Arc<dyn ObjectStore>, lease: &Lease) -> JobError {
    JobError::LeaseHeld {
        url: store.url().to_owned(),
        holder: lease.document.holder.clone(),
        until: moment::rfc3339(lease.until_unix_ms()),
    }
}

/// What the store's clock says: an object is put for it, and removed.
async fn store_now(store: &Arc<dyn ObjectStore>) -> Result<u64, JobError> {
    let key = format!("{LEASES}clock-{}", crate::random_hex()?);
    store.put_bytes(&key, "now").await?;
    let told = store.head(&key).await;
    store.delete(&key).await?;
    Ok(told?.modified_unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::LocalStore;

    fn holder(name: &str, ttl: Duration) -> Holder {
        Holder { name: name.into(), token: name.into(), boot: "b".into(), gone: None, ttl }
    }

    fn store(dir: &std::path::Path) -> Arc<dyn ObjectStore> {
        std::fs::create_dir_all(dir.join("r")).unwrap();
        Arc::new(LocalStore::new(dir.join("r")))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_second_holder_is_refused_until_the_first_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let first = Held::take(Arc::clone(&store), holder("first", LONG)).await.unwrap();
        first.check().unwrap();
        let refused = Held::take(Arc::clone(&store), holder("second", LONG)).await.err().unwrap();
        assert_eq!(refused.exit_code(), 11);
        let text = refused.to_string();
        let until = newest(&store).await.unwrap().unwrap().until_unix_ms();
        assert!(text.contains("first") && text.contains(&moment::rfc3339(until)), "{text}");
        let archived = Archived { lineage: "ab".into(), lsn: 7, unix_ms: 9 };
        first.renew(Some(archived.clone())).await.unwrap();
        assert!(Held::take(Arc::clone(&store), holder("second", LONG)).await.is_err());
        first.release(Some(archived.clone())).await.unwrap();
        let second = Held::take(Arc::clone(&store), holder("second", LONG)).await.unwrap();
        second.renew(None).await.unwrap();
        let found = newest(&store).await.unwrap().unwrap();
        assert_eq!(
            (found.name, found.document.holder.as_str()),
            (LeaseName { epoch: 2, renewal: 2 }, "second")
        );
        assert_eq!(store.list(LEASES).await.unwrap().len(), 1, "old states are cleared away");
    }

    #[tokio::test]
    async fn a_lease_runs_out_by_itself_and_its_holder_stops_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let short = Duration::from_millis(400);
        let first = Held::take(Arc::clone(&store), holder("first", short)).await.unwrap();
        let taken_at = Instant::now();
        let second = loop {
            let could_put = first.check().is_ok();
            match Held::take(Arc::clone(&store), holder("second", LONG)).await {
                Ok(second) => {
                    assert!(!could_put, "both could put");
                    break second;
                }
                Err(error) => assert_eq!(error.exit_code(), 11, "{error}"),
            }
            assert!(taken_at.elapsed() < Duration::from_secs(30));
        };
        assert!(matches!(first.check(), Err(JobError::LeaseStale { .. })));
        assert!(matches!(first.renew(None).await, Err(JobError::LeaseLost { .. })));
        second.check().unwrap();
        assert_eq!(newest(&store).await.unwrap().unwrap().name.epoch, 2);
    }

    #[tokio::test]
    async fn one_that_ran_out_is_taken_again_if_nobody_else_did() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let held = Held::take(Arc::clone(&store), holder("first", Duration::from_millis(50))).await.unwrap();
        let stale = || matches!(held.check(), Err(JobError::LeaseStale { .. }));
        while !stale() || held.next_name().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        held.renew(None).await.unwrap();
        assert_eq!(newest(&store).await.unwrap().unwrap().name, LeaseName { epoch: 2, renewal: 2 });
    }

    #[tokio::test]
    async fn one_that_slept_learns_that_another_took_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let first = Held::take(Arc::clone(&store), holder("first", LONG)).await.unwrap();
        // As if the first one's clocks had stood still while its lease ran out.
        let taken = holder("second", LONG).document(None, false);
        let name = LeaseName { epoch: 2, renewal: 1 };
        store.put_bytes(&name.to_string(), document::encode(&taken).unwrap()).await.unwrap();
        assert!(matches!(first.renew(None).await, Err(JobError::LeaseLost { .. })));
        assert!(first.check().is_err());
    }

    #[tokio::test]
    async fn who_is_certainly_gone_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        drop(Held::take(Arc::clone(&store), holder("first", LONG)).await.unwrap());
        let other_boot = Holder { gone: Some("first".into()), boot: "c".into(), ..holder("second", LONG) };
        assert!(
            Held::take(Arc::clone(&store), other_boot).await.is_err(),
            "of another boot nothing is certain"
        );
        let same = Holder { gone: Some("first".into()), ..holder("second", LONG) };
        Held::take(store, same).await.unwrap().check().unwrap();
    }
}
