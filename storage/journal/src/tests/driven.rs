//! A journal that is driven: it does nothing by itself, and what only a certain order of things brings about comes about.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::Driver;

/// A clock that stands unless the journal rests.
struct Still {
    origin: Instant,
    rested_ms: AtomicU64,
}

impl Driver for Still {
    fn now(&self) -> Instant {
        self.origin + Duration::from_millis(self.rested_ms.load(Ordering::Relaxed))
    }

    fn rest(&self, time: Duration) {
        self.rested_ms.fetch_add(time.as_millis() as u64 + 1, Ordering::Relaxed);
    }
}

fn start(world: &World, resume: Resume) -> Arc<Journal> {
    start_at(world, resume, &Arc::new(Still { origin: Instant::now(), rested_ms: AtomicU64::new(0) }))
}

fn start_at(world: &World, resume: Resume, driver: &Arc<Still>) -> Arc<Journal> {
    let driver: Arc<dyn Driver> = driver.clone();
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let names = Names::load(&*disk);
    let options = Options { driver: Some(driver), ..world.options() };
    Journal::start(options, resume, Names::new(disk, names)).expect("start")
}

#[test]
fn nothing_happens_but_by_its_driver() {
    let world = World::new(Fsync::Always, true);
    let journal = start(&world, Resume::at(Lsn::ZERO));
    let mut model = Model::default();
    let end = model.append(&journal, 0, effect(1, 100), 1);
    journal.kick();
    assert_eq!(journal.durable(), Lsn::ZERO);
    let idle = journal.turn().expect("an empty frame is due later");
    assert_eq!(journal.durable(), end);
    let operations = world.disk.operations();
    assert_eq!(journal.turn(), Some(idle));
    assert_eq!(world.disk.operations(), operations, "the clock stands");
    let more = model.append(&journal, 0, effect(2, 100), 2);
    journal.block_until_durable(more).expect("it drives itself");
    journal.shutdown().expect("shutdown");
    let (stream, report) = world.scan(Lsn::ZERO).expect("scan");
    assert_eq!(report.resume.lsn, more, "a shutdown says what is durable");
    model.check(&stream, report.end);
}

#[test]
fn a_full_disk_is_waited_for_by_resting() {
    let world = World::new(Fsync::Always, false);
    let journal = start(&world, Resume::at(Lsn::ZERO));
    journal.turn();
    world.disk.limit_space(Some(20_000));
    let mut number = 0;
    let refused = loop {
        number += 1;
        match journal.admit(4_000) {
            Admission::Granted(permit) => {
                let end = journal.append(0, &effect(number, 4_000), number);
                drop(permit);
                journal.block_until_durable(end).expect("what was admitted becomes durable");
            }
            Admission::Wait(_) => drop(journal.turn()),
            Admission::Refused(error) => break error,
        }
    };
    assert!(refused.to_string().contains("free some"), "{refused}");
    world.disk.limit_space(None);
    journal.turn();
    assert!(granted(&journal, 4_000));
}

/// Found by a simulated run: the power went right after the first effect in a segment that a snapshot had begun, in a
/// database other than 0. The next start copied it into a new segment as one of database 0, and the start after that
/// replayed it there.
#[test]
fn what_is_copied_from_the_beginning_of_a_segment_stays_in_its_database() {
    let world = World::new(Fsync::Always, false);
    let journal = start(&world, Resume::at(Lsn::ZERO));
    let mut model = Model::default();
    let before = model.append(&journal, 2, effect(1, 100), 1);
    journal.block_until_durable(before).expect("durable");
    assert_eq!(journal.rotate(), before);
    let end = model.append(&journal, 2, effect(2, 100), 2);
    journal.block_until_durable(end).expect("durable");
    // No frame says so yet, and the snapshot vouches only for what lies below.
    let world = World { disk: world.disk.crash(cairn_disk::Survival::Nothing), ..world };
    let databases = |world: &World| {
        let (mut databases, entries) = (Vec::new(), Names::load(&world.disk));
        let report =
            scan::<()>(&world.disk, Path::new(DIR), &entries, before, before, None, &mut |_, _, db| {
                databases.push(db);
                Ok(())
            });
        let Ok(report) = report else { panic!("the journal is whole") };
        (databases, report.resume)
    };
    let (found, resume) = databases(&world);
    assert_eq!((found, resume.lsn, resume.end()), (vec![2], before, end));
    drop(start(&world, resume));
    assert_eq!(databases(&world).0, [2]);
}

/// Found by a simulated run: the sync of an empty frame hung, which no effect waited for, and so admission went on for as long
/// as it did: a power cut lost seconds of them.
#[test]
fn a_sync_that_carries_nothing_is_waited_for_all_the_same() {
    let world = World::new(Fsync::EverySec, false);
    let driver = Arc::new(Still { origin: Instant::now(), rested_ms: AtomicU64::new(0) });
    let journal = start_at(&world, Resume::at(Lsn::ZERO), &driver);
    journal.append(0, &effect(1, 100), 1);
    journal.block_until_durable(journal.end_lsn()).expect("durable");
    let granted_after = Arc::new(Mutex::new(Vec::new()));
    let (weak, clock, seen) = (Arc::downgrade(&journal), Arc::clone(&driver), Arc::clone(&granted_after));
    world.disk.slow_syncs(Some(Arc::new(move || {
        let Some(journal) = weak.upgrade().filter(|_| seen.lock().is_empty()) else { return };
        journal.append(0, &effect(2, 100), 2);
        for _ in 0..4 {
            clock.rest(Duration::from_millis(400));
            seen.lock().push(granted(&journal, 100));
        }
    })));
    driver.rest(Duration::from_millis(200));
    journal.turn();
    world.disk.slow_syncs(None);
    assert_eq!(*granted_after.lock(), [true, true, false, false]);
    // What came meanwhile is overdue by now, and not taken for new.
    assert_eq!(journal.durable(), journal.end_lsn());
    assert!(granted(&journal, 100), "nothing is under way any more");
}
