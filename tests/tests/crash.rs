//! What was acknowledged under `appendfsync always` is there after a crash, nothing else is, and no transaction is
//! torn; first with SIGKILL, then with the shim that also loses what was never synced.

use cairn_tests::counts;
use cairn_tests::files;
use cairn_tests::ledger::{self, Ledger, State};
use cairn_tests::programs;
use cairn_tests::random::{self, Random};
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CONNECTIONS: usize = 20;

/// A third of the connections send one request at a time, a third keep eight in flight, and a third so many that what is
/// pending is written and synced by a thread that serves them.
fn ledgers() -> Vec<Ledger> {
    (0..CONNECTIONS).map(|connection| Ledger::new(connection, [1, 8, 64][connection % 3])).collect()
}

/// Counters as other connections saw them; whoever saw a value may rely on it.
type Seen = Vec<u64>;

/// Reads counters until the server is gone.
fn watch(mut client: Client, mut random: Random) -> Seen {
    let mut seen = vec![0; CONNECTIONS];
    loop {
        let connection = random.below(CONNECTIONS);
        match client.call(&[&b"GET"[..], &Ledger::counter(connection)]) {
            Ok(Value::Bulk(text)) => {
                let value: u64 = String::from_utf8_lossy(&text).parse().expect("a counter is a number");
                seen[connection] = seen[connection].max(value);
            }
            Ok(Value::Null) => {}
            Ok(other) => panic!("GET of a counter: {other:?}"),
            Err(_) => return seen,
        }
    }
}

/// Writes over all connections until `while_it_runs` returns; then the server is killed.
fn write_until_killed(
    server: Server,
    ledgers: &mut [Ledger],
    random: &mut Random,
    while_it_runs: impl FnOnce(&Server),
) -> Seen {
    let mut seen = vec![0; CONNECTIONS];
    thread::scope(|scope| {
        let writers: Vec<_> = ledgers
            .iter_mut()
            .map(|ledger| {
                let mut client = server.connect();
                scope.spawn(move || ledger.run(&mut client))
            })
            .collect();
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                let (client, random) = (server.connect(), Random::new(random.next_u64()));
                scope.spawn(move || watch(client, random))
            })
            .collect();
        while_it_runs(&server);
        server.kill();
        for writer in writers {
            writer.join().expect("a writer ends").expect("every write is answered with success");
        }
        for watcher in watchers {
            for (all, one) in seen.iter_mut().zip(watcher.join().expect("a watcher ends")) {
                *all = one.max(*all);
            }
        }
    });
    seen
}

/// Judges what a restarted server holds.
fn judge(server: &Server, ledgers: &mut [Ledger], seen: &Seen) -> Result<(), String> {
    let mut found = ledger::read_all(&mut server.connect());
    for (connection, ledger) in ledgers.iter_mut().enumerate() {
        let state: State = found.remove(&connection).unwrap_or_default();
        let counter = state
            .get(&Ledger::counter(connection))
            .map_or(0, |text| String::from_utf8_lossy(text).parse().unwrap_or(0));
        ledger.settle(&state)?;
        if counter < seen[connection] {
            return Err(format!(
                "connection {connection}: a reader saw {} and it is {counter} now",
                seen[connection]
            ));
        }
    }
    match found.keys().next() {
        Some(connection) => Err(format!("keys of a connection {connection} that does not exist")),
        None => Ok(()),
    }
}

/// The random moment: no condition is awaited, the kill may come at any time.
fn a_moment(random: &mut Random) {
    thread::sleep(Duration::from_millis(10 + random.below(240) as u64));
}

/// Hundreds of starts leave a segment each until a snapshot trims them: small ones fill no disk, and change more often.
fn small_segments(data: &Path) -> Setup {
    Setup::cairn(data).journal("always").with("journal-segment-size", "8mb")
}

/// Lets a round pass until the kill. In two of three a snapshot is taken: in one it is as quick as it can be, so that the kill
/// may come before, within or after it, its manifest and its trimming included; in the other it is sure to be at work still.
fn a_round(round: usize, server: &Server, random: &mut Random) {
    a_moment(random);
    if !round.is_multiple_of(3) {
        let mut client = server.connect();
        let delay = if round % 3 == 2 { "1000" } else { "0" };
        assert_eq!(client.args(&["CONFIG", "SET", "rdb-key-save-delay", delay]), Value::ok());
        assert!(!client.ask("BGSAVE").is_error(), "{}", server.log());
        a_moment(random);
    }
}

/// Whether a kill has just met a snapshot at work: its file is there under its temporary name.
fn met_a_snapshot(setup: &Setup) -> bool {
    files::all(setup.dir()).iter().any(|path| path.to_string_lossy().ends_with(".cairn.tmp"))
}

/// Rounds that go on from what the one before has left: more make the data large, and reading all of it after each takes
/// longer than the rounds themselves.
const ROUNDS: usize = 20;

#[test]
fn acknowledged_writes_survive_sigkill() {
    let seed = random::seed("acknowledged_writes_survive_sigkill");
    for series in 0..counts::of(1, 10) {
        survive_kills(counts::of(8, ROUNDS), seed.wrapping_add(series as u64 * 1_000));
    }
}

/// One SIGKILL after the other.
fn survive_kills(kills: usize, seed: u64) {
    let mut random = Random::new(seed);
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let setup = small_segments(&home.path().join("data")).key(&keyring);
    let mut ledgers = ledgers();
    let mut met = 0;
    let mut server = setup.start();
    for round in 0..kills {
        let seen = write_until_killed(server, &mut ledgers, &mut random.clone(), |server| {
            a_round(round, server, &mut Random::new(seed.wrapping_add(round as u64)));
        });
        random.next_u64();
        met += usize::from(met_a_snapshot(&setup));
        server = setup.start();
        if let Err(loss) = judge(&server, &mut ledgers, &seen) {
            panic!("kill {round}, seed {seed}: {loss}");
        }
    }
    let done: u64 = ledgers.iter().map(Ledger::done).sum();
    println!("{kills} kills survived, {met} of them while a snapshot was written, {done} requests");
    assert!(done > 0, "no request was ever acknowledged");
    assert!(met >= kills / 6, "only {met} of {kills} kills met a snapshot");
    server.stop();
}

/// One crash after the other with the shim: unsynced blocks are lost, or reach the disk in part and out of order.
fn survive_power_cuts(rounds: usize, writeback: u8, seed: u64) {
    let mut random = Random::new(seed);
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let plain = small_segments(&data).key(&keyring);
    let mut ledgers = ledgers();
    let mut met = 0;
    for round in 0..rounds {
        let server = plain.clone().env(shim.power_cut(writeback, random.next_u64())).start();
        let mut moments = Random::new(random.next_u64());
        let seen = write_until_killed(server, &mut ledgers, &mut random, |server| {
            a_round(round, server, &mut moments);
        });
        met += usize::from(met_a_snapshot(&plain));
        shim.cut();
        let server = plain.start();
        if let Err(loss) = judge(&server, &mut ledgers, &seen) {
            panic!("power cut {round}, {writeback} % written back early, seed {seed}: {loss}");
        }
        server.stop();
    }
    let done = ledgers.iter().map(Ledger::done).sum::<u64>();
    println!("{rounds} power cuts survived, {met} of them while a snapshot was written, {done} requests");
    assert!(done > 0, "no request was ever acknowledged");
    assert!(met >= rounds / 6, "only {met} of {rounds} power cuts met a snapshot");
}

#[test]
fn acknowledged_writes_survive_a_power_cut() {
    let seed = random::seed("acknowledged_writes_survive_a_power_cut");
    for series in 0..counts::of(1, 4) {
        survive_power_cuts(counts::of(4, ROUNDS), 0, seed.wrapping_add(series as u64));
    }
}

#[test]
fn acknowledged_writes_survive_a_power_cut_with_early_writeback() {
    let seed = random::seed("acknowledged_writes_survive_a_power_cut_with_early_writeback");
    for series in 0..counts::of(1, 2) {
        for (step, writeback) in [10, 50, 90].into_iter().enumerate() {
            let seed = seed.wrapping_add((3 * series + step) as u64);
            survive_power_cuts(counts::of(2, ROUNDS), writeback, seed);
        }
    }
}

/// The test above would notice an `always` that does not sync: here syncs succeed and do nothing from some moment on.
#[test]
fn a_server_that_does_not_sync_is_found_out() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let setup = Setup::cairn(&data).journal("always");
    let mut ledgers = ledgers();
    let server = setup.clone().env(shim.power_cut(0, 1)).start();
    let ignored = AtomicBool::new(false);
    let seen = write_until_killed(server, &mut ledgers, &mut Random::new(1), |server| {
        let mut client = server.connect();
        let counter = |client: &mut Client| client.args(&[&b"GET"[..], &Ledger::counter(0)]);
        let is_counting = |client: &mut Client| {
            cairn_tests::process::await_some(Duration::from_secs(60), || {
                matches!(counter(client), Value::Bulk(_)).then_some(())
            })
        };
        assert!(is_counting(&mut client).is_some(), "the writers get nowhere");
        shim.mark("ignore-sync");
        ignored.store(true, Ordering::Relaxed);
        let mark = counter(&mut client).text();
        let moved = cairn_tests::process::await_some(Duration::from_secs(60), || {
            (counter(&mut client).text() != mark).then_some(())
        });
        assert!(moved.is_some(), "the writers get nowhere once syncs do nothing");
    });
    assert!(ignored.load(Ordering::Relaxed));
    shim.unmark("ignore-sync");
    shim.cut();
    // The server itself cannot know; it recovers what the disk holds, and the judge must see what is missing.
    let loss = match setup.try_start() {
        Ok(server) => judge(&server, &mut ledgers, &seen)
            .expect_err("writes that were never synced cannot have survived"),
        Err(refusal) => refusal.log,
    };
    println!("found out: {loss}");
    assert!(loss.contains("lost") || loss.contains("instead of") || loss.contains("a reader saw"), "{loss}");
}

/// A disk that hangs holds up those who wait for it and nobody else, even where one thread serves all connections.
#[test]
fn a_sync_that_hangs_silences_nobody() {
    // In memory, where syncs are quick: connections then write and sync for each other.
    let home = tempfile::tempdir_in("/dev/shm").expect("a temporary directory in memory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let setup = Setup::cairn(&data).journal("always").with("server-threads", "1");
    // So many in flight that it is worth it.
    let mut ledgers: Vec<_> = (0..CONNECTIONS).map(|connection| Ledger::new(connection, 64)).collect();
    let server = setup.clone().env(shim.full_disk(None)).start();
    let seen = write_until_killed(server, &mut ledgers, &mut Random::new(1), |server| {
        let syncs = || server.info("cairn_journal_syncs").and_then(|text| text.parse::<u64>().ok());
        for _ in 0..counts::of(5, 50) {
            let before = syncs();
            let go_on = cairn_tests::process::await_some(Duration::from_secs(60), || {
                (syncs() > before.map(|count| count + 300)).then_some(())
            });
            assert!(go_on.is_some(), "the writers get nowhere");
            shim.mark("hang-sync");
            let hangs = cairn_tests::process::await_some(Duration::from_secs(60), || {
                let age = server.info("cairn_journal_oldest_unsynced_ms")?.parse::<u64>().ok()?;
                (age >= 50).then_some(())
            });
            assert!(hangs.is_some(), "INFO does not tell that the disk hangs");
            assert_eq!(server.connect().ask("PING").text(), "PONG");
            shim.unmark("hang-sync");
        }
    });
    let server = setup.start();
    judge(&server, &mut ledgers, &seen).expect("nothing acknowledged is lost");
    server.stop();
}
