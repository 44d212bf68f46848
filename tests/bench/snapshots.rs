//! Snapshots, restarts from them, and restarts from a journal.

use crate::bench::{Bench, Persist, info, order};
use crate::load::{self, VALUE_BYTES};
use crate::table::{Row, Samples, Target};
use cairn_tests::random::Random;
use cairn_tests::resp::encode;
use cairn_tests::server::{Kind, Server, Setup};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often a server is asked whether its snapshot is complete; oftener would take CPU from it.
const POLL: Duration = Duration::from_millis(5);
/// Keys that the records of the replayed journal are about.
const JOURNAL_KEYS: usize = 1_000_000;
const THIRD: Target = Target::RatioAtMost(1.0 / 3.0);

/// Seconds of one BGSAVE.
pub(crate) fn bgsave(server: &Server) -> f64 {
    let mut client = server.connect();
    let start = Instant::now();
    let reply = client.ask("BGSAVE");
    assert!(!reply.is_error(), "BGSAVE: {reply:?}");
    loop {
        thread::sleep(POLL);
        if info(&mut client, "persistence", "rdb_bgsave_in_progress").as_deref() == Some("0") {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let status = info(&mut client, "persistence", "rdb_last_bgsave_status");
    assert_eq!(status.as_deref(), Some("ok"), "the snapshot failed:\n{}", server.log());
    seconds
}

/// Bytes of the snapshot in this directory.
pub(crate) fn snapshot_bytes(directory: &Path) -> f64 {
    let files = ["snapshot-", "dump.rdb"].map(|name| cairn_tests::files::named(directory, name));
    files.iter().flatten().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len() as f64).sum()
}

/// Starts a server where there is data; seconds from the start of its process until all of it is served.
pub(crate) fn restart(setup: &Setup, keys: usize) -> (Server, f64) {
    let start = Instant::now();
    let server = setup.start();
    let seconds = start.elapsed().as_secs_f64();
    let found = server.connect().ask("DBSIZE").integer();
    assert_eq!(found, keys as i64, "{:?} came back with other keys", server.kind());
    (server, seconds)
}

fn find(servers: &[Server; 2], kind: Kind) -> &Server {
    servers.iter().find(|server| server.kind() == kind).expect("both run")
}

pub(crate) fn snapshot(bench: &mut Bench) {
    const GROUP: &str = "snapshot";
    let keys = bench.settings.keys;
    let million = keys as f64 / 1e6;
    let setups = [Kind::Redis, Kind::Cairn].map(|kind| bench.setup(kind, GROUP, Persist::Nothing));
    let servers = setups.each_ref().map(|setup| setup.start());
    servers.iter().for_each(|server| load::standard(server, keys));
    let (mut time, mut size, mut start) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..bench.settings.rounds {
        for kind in order(round) {
            time.add(kind, bgsave(find(&servers, kind)));
        }
    }
    for (setup, server) in setups.iter().zip(servers) {
        size.add(server.kind(), snapshot_bytes(setup.dir()) / 1e6);
        server.kill();
    }
    for round in 0..bench.settings.rounds {
        for kind in order(round) {
            let (server, seconds) = restart(&setups[usize::from(kind == Kind::Cairn)], keys);
            start.add(kind, seconds);
            server.kill();
        }
    }
    let row =
        |work: &str, unit, samples| Row::new(GROUP, format!("{work} of {million:.1} M keys"), unit, samples);
    bench.report.row(row("snapshot", "s", time).target(THIRD));
    bench.report.row(row("restart from a snapshot", "s", start).target(THIRD));
    bench.report.row(row("size of a snapshot", "MB", size));
    bench.remove(GROUP);
}

/// A restart that has nothing but a journal of SETs.
pub(crate) fn replay(bench: &mut Bench) {
    const GROUP: &str = "replay";
    let records = bench.settings.records;
    let setups = [Kind::Redis, Kind::Cairn].map(|kind| {
        let setup = bench.setup(kind, GROUP, Persist::EverySec);
        if kind == Kind::Redis { setup.with("aof-use-rdb-preamble", "no") } else { setup }
    });
    let keys = JOURNAL_KEYS.min(records);
    for setup in &setups {
        let server = setup.start();
        let (mut random, mut value) = (Random::new(5), [0; VALUE_BYTES]);
        load::pipelined(&mut server.connect(), 0..records, 200, 1, |out, number| {
            load::hex(&mut random, &mut value);
            // First every key once, then any of them again.
            let key = if number < keys { number } else { random.below(keys) };
            encode(out, &[b"SET", load::key(key).as_bytes(), &value]);
        });
        server.stop();
    }
    let mut samples = Samples::default();
    for round in 0..bench.settings.rounds.min(2) {
        for kind in order(round) {
            let (server, seconds) = restart(&setups[usize::from(kind == Kind::Cairn)], keys);
            samples.add(kind, seconds * 1e6 / records as f64);
            server.kill();
        }
    }
    let work = format!(
        "journal replay per command, {:.1} M SETs over {:.1} M keys",
        records as f64 / 1e6,
        keys as f64 / 1e6
    );
    bench.report.row(Row::new(GROUP, work, "µs", samples).target(THIRD));
    bench.remove(GROUP);
}
