//! An agent that follows a data directory, killed and restarted and cut off from its store; what it archived, restored to any
//! point and spoiled in every way.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_disk::RealDisk;
use cairn_seal::Keyring;
use cairn_store::{Fault, FaultyStore, LocalStore, ObjectStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::progress::Silent;
use crate::tests::{Data, contents, keyring, local, to};
use crate::verify::{Verdict, VerifyOptions};
use crate::{JobError, Repository, moment};

/// An agent on a task of its own; dropped without being told to stop it is gone as if it had been killed.
struct Agent {
    task: JoinHandle<Result<(), JobError>>,
    stop: watch::Sender<bool>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Agent {
    fn start(dir: &Path, repository: Repository, change: impl FnOnce(&mut RunOptions)) -> Self {
        let stop = watch::Sender::new(false);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let mut options = RunOptions {
            dir: dir.to_owned(),
            disk: Arc::new(RealDisk),
            keyring: None,
            interval: Duration::from_millis(5),
            schedule: Schedule::parse("@daily").unwrap(),
            snapshot_after_bytes: u64::MAX,
            rate: None,
            lease: Duration::from_secs(30),
            grace: Duration::from_millis(100),
            stop: stop.subscribe(),
            told: Arc::new(move |event: &Event| heard.lock().unwrap().push(event.clone())),
        };
        change(&mut options);
        let task = tokio::spawn(run(repository, options));
        Self { task, stop, events }
    }

    fn archived(&self) -> u64 {
        let events = self.events.lock().unwrap();
        let mut lsns = events.iter().filter_map(|event| match event {
            Event::Archived { lsn, .. } | Event::Following { archived_lsn: lsn, .. } => Some(*lsn),
            _ => None,
        });
        lsns.next_back().unwrap_or(0)
    }

    fn saw(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(wanted)
    }

    async fn until_archived(&self, lsn: u64) {
        self.until("the archive has it", || self.archived() >= lsn).await;
    }

    async fn until_based(&self) {
        self.until("there is a base", || self.saw(|event| matches!(event, Event::Base { .. }))).await;
    }

    async fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !happened() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", self.events.lock().unwrap());
            assert!(!self.task.is_finished(), "{what}: {:?}", self.events.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What was written: after each write the LSN, and a moment at which nothing else had been written.
#[derive(Default)]
struct Diary {
    entries: Vec<(u64, u64)>,
}

impl Diary {
    /// Writes a value and waits until the clock shows another millisecond.
    fn write(&mut self, data: &Data, value: &str) {
        let lsn = data.write(value);
        let moment = moment::now_unix_ms();
        while moment::now_unix_ms() <= moment + 1 {
            std::thread::sleep(Duration::from_micros(300));
        }
        self.entries.push((lsn, moment));
    }

    fn last_lsn(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.0)
    }
}

/// Restores a point and gives where the snapshot is, the effects behind it, and the end.
async fn restored(
    repository: &Repository,
    point: Point,
    keyring: Option<&Arc<Keyring>>,
) -> Result<(u64, Vec<u8>, u64), JobError> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("data");
    let options = to(&target, keyring.cloned());
    let asked = PointOptions { point, lineage: None };
    let planned = plan_point(repository, &asked, options.clone(), dir.path(), Arc::new(Silent)).await?;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a plan leaves nothing");
    let done = restore_point(repository, &asked, options, Arc::new(Silent)).await?;
    assert_eq!((planned.to_lsn, planned.objects), (done.to_lsn, done.objects));
    let (from, effects) = contents(&RealDisk, &target, keyring.map(|keyring| &**keyring));
    let mut left: Vec<_> =
        std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name.to_string_lossy().ends_with(".tmp"));
    assert!(left.is_empty(), "{left:?} are left behind");
    Ok((from, effects, done.to_lsn))
}

async fn verified(repository: &Repository, keyring: Option<&Arc<Keyring>>) -> Vec<Verdict> {
    let scratch = tempfile::tempdir().unwrap();
    let options = VerifyOptions {
        disk: Arc::new(RealDisk),
        keyring: keyring.cloned(),
        scratch: scratch.path().to_owned(),
    };
    let catalogue = Catalogue::read(repository).await.unwrap();
    let mut verdicts = Vec::new();
    for lineage in &catalogue.lineages {
        for backup in &lineage.backups {
            verdicts.push(crate::verify(repository, backup, &options, Arc::new(Silent)).await.unwrap());
        }
        verdicts.push(verify_journal(repository, lineage, &options, Arc::new(Silent)).await.unwrap());
    }
    verdicts
}

async fn all_whole(repository: &Repository, keyring: Option<&Arc<Keyring>>) {
    for verdict in verified(repository, keyring).await {
        assert!(verdict.ok, "{verdict:?}");
    }
}

/// Every state that was written comes back, by its moment and by its LSN, from a directory with rotations and a snapshot, followed
/// by an agent that dies now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_comes_back_by_its_moment_and_by_its_lsn() {
    for keyring in [None, Some(keyring())] {
        let dir = tempfile::tempdir().unwrap();
        let (source, place) = (dir.path().join("source"), dir.path().join("repository"));
        let data = Data::new(&source, keyring.clone());
        let mut diary = Diary::default();
        let key = |options: &mut RunOptions| options.keyring = keyring.clone();
        let mut agent = Agent::start(&source, local(&place).await, key);
        agent.until_based().await;
        for number in 0..90 {
            diary.write(&data, &format!("{number}-{}", "x".repeat(if number % 7 == 0 { 9_000 } else { 40 })));
            if number % 31 == 30 {
                agent.kill().await;
                agent = Agent::start(&source, local(&place).await, key);
            }
            if number == 50 {
                agent.until_archived(diary.last_lsn()).await;
                data.snapshot();
            }
        }
        let all = diary.last_lsn();
        agent.until_archived(all).await;
        let repository = local(&place).await;
        all_whole(&repository, keyring.as_ref()).await;
        let (_, whole, end) = restored(&repository, Point::Lsn(all), keyring.as_ref()).await.unwrap();
        assert_eq!(end, all);
        assert_eq!(restored(&repository, Point::Latest, keyring.as_ref()).await.unwrap().2, all);
        for (lsn, moment) in diary.entries.iter().rev().skip(1).step_by(9) {
            for point in [Point::Lsn(*lsn), Point::Lsn(*lsn + 1), Point::UnixMs(*moment)] {
                let (from, effects, end) = restored(&repository, point, keyring.as_ref()).await.unwrap();
                assert_eq!(end, *lsn, "{point:?}");
                assert_eq!(effects, &whole[from as usize..*lsn as usize], "{point:?}");
            }
        }
        agent.stop().await;
    }
}

/// A server that starts anew goes on in a segment of its own, and one that was restored in a history of its own; all of it stays
/// restorable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_and_a_restore_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (source, place) = (dir.path().join("source"), dir.path().join("repository"));
    let mut diary = Diary::default();
    let data = Data::new(&source, None);
    let agent = Agent::start(&source, local(&place).await, |_| {});
    agent.until_based().await;
    (0..5).for_each(|number| diary.write(&data, &format!("first {number}")));
    drop(data);
    let data = Data::again(&source, None);
    (0..5).for_each(|number| diary.write(&data, &format!("second {number}")));
    agent.until_archived(diary.last_lsn()).await;
    drop(data);
    let repository = local(&place).await;
    all_whole(&repository, None).await;
    assert_eq!(Catalogue::read(&repository).await.unwrap().lineages.len(), 1);
    agent.stop().await;
    // Back to the third write, into the same place.
    std::fs::remove_dir_all(&source).unwrap();
    let (third, moment) = diary.entries[2];
    let asked = PointOptions { point: Point::UnixMs(moment), lineage: None };
    let done = restore_point(&repository, &asked, to(&source, None), Arc::new(Silent)).await.unwrap();
    assert_eq!(done.to_lsn, third);
    let data = Data::again(&source, None);
    let agent = Agent::start(&source, local(&place).await, |_| {});
    agent.until_based().await;
    let mut after = Diary::default();
    (0..3).for_each(|number| after.write(&data, &format!("after {number}")));
    agent.until_archived(after.last_lsn()).await;
    all_whole(&repository, None).await;
    let (_, effects, _) = restored(&repository, Point::UnixMs(after.entries[1].1), None).await.unwrap();
    let text = String::from_utf8(effects).unwrap();
    assert!(text.contains("first 2") && !text.contains("first 3") && !text.contains("second"), "{text}");
    assert!(text.contains("after 1") && !text.contains("after 2"), "{text}");
    let (_, effects, _) = restored(&repository, Point::UnixMs(diary.entries[8].1), None).await.unwrap();
    let text = String::from_utf8(effects).unwrap();
    assert!(text.contains("second 3") && !text.contains("second 4"), "{text}");
    // The same LSN is in both histories, and no moment outside of them is anywhere.
    let twice = restored(&repository, Point::Lsn(third), None).await.unwrap_err();
    assert!(twice.exit_code() == 14 && twice.to_string().contains("--lineage"), "{twice}");
    for outside in [1, moment::now_unix_ms() + 60_000] {
        let refused = restored(&repository, Point::UnixMs(outside), None).await.unwrap_err();
        assert_eq!(refused.exit_code(), 14, "{refused}");
        assert!(refused.to_string().contains("what can be: "), "{refused}");
    }
    agent.stop().await;
}

/// A store that does not answer for a while loses nothing: what waits is put when it answers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (source, place) = (dir.path().join("source"), dir.path().join("repository"));
    let data = Data::new(&source, None);
    local(&place).await;
    let away = Fault::Unreachable { first: 60, last: 72 };
    let store = FaultyStore::new(Arc::new(LocalStore::new(place.clone())), vec![away]);
    let agent = Agent::start(&source, Repository::open(Arc::new(store)).await.unwrap(), |_| {});
    let mut diary = Diary::default();
    let failed = |event: &Event| matches!(event, Event::Failed { .. });
    while !agent.saw(failed) {
        diary.write(&data, "while it may be away");
    }
    // More than one segment, and all of it is trimmed in the directory before the store is back.
    (0..40).for_each(|_| diary.write(&data, &"y".repeat(9_000)));
    agent.until("it goes on", || agent.saw(|event| *event == Event::Recovered)).await;
    agent.until_archived(diary.last_lsn()).await;
    agent.stop().await;
    let repository = local(&place).await;
    all_whole(&repository, None).await;
    assert_eq!(restored(&repository, Point::Latest, None).await.unwrap().2, diary.last_lsn());
}

/// What was trimmed while no agent ran is missing, said so, and never passed over: the archive begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_begins_the_archive_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (source, place) = (dir.path().join("source"), dir.path().join("repository"));
    let data = Data::new(&source, None);
    let mut diary = Diary::default();
    let agent = Agent::start(&source, local(&place).await, |_| {});
    agent.until_based().await;
    (0..3).for_each(|_| diary.write(&data, "before"));
    agent.until_archived(diary.last_lsn()).await;
    agent.kill().await;
    for _ in 0..2 {
        (0..20).for_each(|_| diary.write(&data, &"z".repeat(9_000)));
        data.snapshot();
    }
    diary.write(&data, "behind the gap");
    let agent = Agent::start(&source, local(&place).await, |_| {});
    agent.until_based().await;
    agent.until_archived(diary.last_lsn()).await;
    agent.stop().await;
    let repository = local(&place).await;
    all_whole(&repository, None).await;
    let catalogue = Catalogue::read(&repository).await.unwrap();
    assert_eq!(catalogue.lineages.len(), 2);
    let (from, effects, end) = restored(&repository, Point::Latest, None).await.unwrap();
    assert!(from > 0 && end == diary.last_lsn() && effects.ends_with(b"behind the gap\r\n"));
    assert_eq!(
        restored(&repository, Point::Lsn(diary.entries[1].0), None).await.unwrap().2,
        diary.entries[1].0
    );
    let missing = restored(&repository, Point::Lsn(diary.entries[10].0), None).await.unwrap_err();
    assert_eq!(missing.exit_code(), 14, "{missing}");
}

/// Two agents on one repository: the second is refused; one whose lease was taken stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("repository");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let (data, _other) = (Data::new(&first, None), Data::new(&second, None));
    let agent = Agent::start(&first, local(&place).await, |options| options.lease = Duration::from_secs(2));
    agent.until_based().await;
    let refused = Agent::start(&second, local(&place).await, |_| {}).task.await.unwrap().unwrap_err();
    assert_eq!(refused.exit_code(), 11);
    assert!(refused.to_string().contains("first"), "{refused}");
    let same = Agent::start(&first, local(&place).await, |_| {}).task.await.unwrap().unwrap_err();
    assert!(matches!(same, JobError::AgentRunning { .. }), "{same}");
    // Somebody takes the lease although it has not run out: the first must learn of it.
    let taken = lease::Holder {
        name: "third".into(),
        token: "t".into(),
        boot: "b".into(),
        gone: None,
        ttl: Duration::from_secs(60),
    };
    let store: Arc<dyn ObjectStore> = Arc::new(LocalStore::new(place.clone()));
    let newest = lease::newest(&store).await.unwrap().unwrap();
    let forced =
        lease::Holder { gone: Some(newest.document.token.clone()), boot: newest.document.boot, ..taken };
    let third = lease::Held::take(store, forced).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(20), agent.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(lost, JobError::LeaseLost { .. }), "{lost}");
    let before = Catalogue::read(&local(&place).await).await.unwrap().ranges();
    data.write("nobody archives this");
    assert_eq!(Catalogue::read(&local(&place).await).await.unwrap().ranges(), before);
    third.check().unwrap();
}

/// Objects deleted, cut, changed, exchanged: verify names each, and a restore that needs it refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spoiled_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (source, place) = (dir.path().join("source"), dir.path().join("repository"));
    let keyring = keyring();
    let data = Data::new(&source, Some(Arc::clone(&keyring)));
    let mut diary = Diary::default();
    let key = |options: &mut RunOptions| options.keyring = Some(Arc::clone(&keyring));
    let agent = Agent::start(&source, local(&place).await, key);
    agent.until_based().await;
    for number in 0..60 {
        diary.write(&data, &format!("{number}{}", "w".repeat(9_000)));
    }
    agent.until_archived(diary.last_lsn()).await;
    // Its lease states how far the archive reaches, so that even a missing end is seen.
    agent.stop().await;
    let repository = local(&place).await;
    all_whole(&repository, Some(&keyring)).await;
    let mut pieces: Vec<_> = files_below(&place.join("lineage"));
    pieces.retain(|path| path.to_string_lossy().contains("/journal/"));
    pieces.sort();
    assert!(pieces.len() > 4, "{pieces:?}");
    let other = std::fs::read(&pieces[0]).unwrap();
    for path in &pieces {
        let whole = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;
        let change =
            |bytes: Vec<u8>| -> Spoil<'_> { Box::new(move |path| std::fs::write(path, &bytes).unwrap()) };
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        let mut exchanged = other.clone();
        exchanged.resize(whole.len(), 0);
        let spoils: Vec<(&str, Spoil<'_>)> = vec![
            ("deleted", Box::new(|path: &Path| std::fs::remove_file(path).unwrap())),
            ("cut", change(whole[..whole.len() - 4_096].to_vec())),
            ("changed at its begin", change(flipped(20))),
            ("changed in the middle", change(flipped(whole.len() / 2))),
            ("changed at its end", change(flipped(whole.len() - 9))),
            ("exchanged", change(exchanged.clone())),
        ];
        for (what, spoil) in spoils {
            if what == "exchanged" && exchanged == whole {
                continue;
            }
            spoil(path);
            let verdicts = verified(&repository, Some(&keyring)).await;
            let faults: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.faults).collect();
            assert!(verdicts.iter().any(|verdict| verdict.exit_code == 13), "{name} {what}: {faults:?}");
            let segment = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            let named = faults
                .iter()
                .any(|fault| fault.contains(&name) || (what == "deleted" && fault.contains(&segment)));
            assert!(named || what == "deleted", "{name} {what}: {faults:?}");
            let refused = restored(&repository, Point::Lsn(diary.last_lsn()), Some(&keyring)).await;
            let code = refused.as_ref().err().map(JobError::exit_code);
            // What is not there may be the end of what can be asked for.
            assert!(
                code == Some(13) || (what == "deleted" && code == Some(14)),
                "{name} {what}: {refused:?}"
            );
            std::fs::write(path, &whole).unwrap();
        }
    }
    all_whole(&repository, Some(&keyring)).await;
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let (mut open, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}
