//! Power cuts at every moment: what was acknowledged is there, nothing else is, and no commit is torn.

use cairn_disk::Survival;

use std::path::Path;

use super::*;

/// One life after another on the same disk, each ended by a power cut after a random number of disk operations and
/// leaving a random subset of the unsynced sectors and names behind.
fn lives(seed: u64) {
    let mut random = Random(seed);
    let fsync = [Fsync::Always, Fsync::Always, Fsync::EverySec, Fsync::No][random.below(4)];
    let mut world = World::new(fsync, random.below(2) == 0);
    let mut model = Model::default();
    let mut resume = Resume::at(Lsn::ZERO);
    let mut number = seed * 1_000_000;
    for life in 0..6 {
        // What the start itself found is acknowledged as soon as it returns.
        let mut acknowledged = resume.lsn;
        let kept = resume.end();
        if random.below(3) > 0 {
            world.disk.power_off_after(random.below(250) as u64);
        }
        if let Ok(journal) = world.start(resume) {
            acknowledged = kept;
            for _ in 0..random.below(60) {
                number += 1;
                let bytes = if random.below(25) == 0 { 150_000 } else { random.below(600) };
                let end = model.append(&journal, random.below(3) as u32, effect(number, bytes), number);
                if random.below(12) == 0 {
                    journal.rotate();
                }
                if random.below(4) == 0 && journal.block_until_durable(end).is_err() {
                    break;
                }
            }
            acknowledged = acknowledged.max(journal.durable());
            // The image is a copy: the threads of this life cannot touch it while they end.
            world.disk = world.disk.crash(Survival::Sectors(random.next()));
        } else {
            world.disk = world.disk.crash(Survival::Sectors(random.next()));
        }
        let (stream, report) =
            world.scan(Lsn::ZERO).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        assert!(
            report.end >= acknowledged,
            "seed {seed}, life {life}: {} of {acknowledged} acknowledged",
            report.end
        );
        model.check(&stream, report.end);
        model.cut(report.end);
        remove_leftovers(&world.disk);
        resume = report.resume;
    }
}

fn remove_leftovers(disk: &FaultyDisk) {
    for entry in disk.list(Path::new(DIR)).expect("list") {
        if entry.name.ends_with(".tmp") {
            disk.remove(&Path::new(DIR).join(entry.name)).expect("remove");
        }
    }
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let seeds = std::env::var("CAIRN_CRASH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30);
    for seed in 1..=seeds {
        lives(seed);
    }
}

/// The recovered tail past the durable LSN is durable once a start returns, even if the power goes right after it.
#[test]
fn a_recovered_tail_survives_the_next_power_cut() {
    for seed in 0..20 {
        let world = World::new(Fsync::Always, true);
        let journal = world.begin();
        let mut model = Model::default();
        let mut end = Lsn::ZERO;
        for number in 0..10 {
            end = model.append(&journal, 0, effect(number, 200), number);
            journal.block_until_durable(end).expect("durable");
        }
        let world = World { disk: world.disk.crash(Survival::Everything), ..world };
        drop(journal);
        let (_, report) = world.scan(Lsn::ZERO).expect("scan");
        assert_eq!(report.end, end);
        // The power may go at any moment of the start.
        world.disk.power_off_after(seed * 2);
        let started = world.start(report.resume);
        let image = world.disk.crash(Survival::Sectors(seed));
        let (stream, report) = world.scan_image(&image).expect("scan");
        assert_eq!(report.end, end, "started: {}", started.is_ok());
        model.check(&stream, end);
    }
}
