//! A snapshot whose process is killed, stopped, short of memory or short of disk: each is told in words that say what to do,
//! tried again with pauses, and leaves the snapshot before it, the files and the server as they were.

use cairn_tests::counts;
use cairn_tests::files;
use cairn_tests::process::await_some;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use cairn_tests::signal::{self, Signal};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A server with keys, a snapshot of them, and keys that came after it.
fn with_snapshot(setup: &Setup) -> (Server, Client) {
    let server = setup.start();
    let mut client = server.connect();
    client.ask("DEBUG POPULATE 2000 key 100");
    server.bgsave();
    client.ask("SET after 1");
    (server, client)
}

/// Lets snapshots take so long that they can be met at work.
fn slow_down(client: &mut Client) {
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 20000"), Value::ok());
}

/// The files of snapshots, finished or not, with their lengths.
fn snapshots(dir: &Path) -> Vec<(String, u64)> {
    let found = files::all(dir).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        name.starts_with("snapshot-").then(|| (name, std::fs::metadata(&path).map_or(0, |found| found.len())))
    });
    found.collect()
}

/// Waits for the failure of the snapshot that runs and gives its words, once for INFO and the log alike.
#[track_caller]
fn failure(server: &Server) -> String {
    let failed = || match server.info("rdb_bgsave_in_progress").as_deref() {
        Some("0") => Some(server.info("cairn_snapshot_last_error").unwrap_or_default()),
        _ => None,
    };
    let text = await_some(LIMIT, failed).unwrap_or_else(|| panic!("it never ends:\n{}", server.log()));
    assert_eq!(server.info("rdb_last_bgsave_status").as_deref(), Some("err"), "{}", server.log());
    assert!(server.log().contains(&text), "the log says something else than {text:?}:\n{}", server.log());
    println!("{text}");
    text
}

/// After a failure: the same files, the same keys, and all of it after a restart too.
#[track_caller]
fn untouched(setup: &Setup, server: Server, before: &[(String, u64)]) {
    assert_eq!(snapshots(setup.dir()), before, "the files of snapshots changed");
    let digest = server.digest();
    server.kill();
    let server = setup.start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

#[test]
fn one_that_is_killed_is_told_of_and_tried_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let (server, mut client) = with_snapshot(&setup);
    let before = snapshots(setup.dir());
    slow_down(&mut client);
    // Due from now on, so that it is tried again by itself.
    assert_eq!(client.args(&["CONFIG", "SET", "save", "1 1"]), Value::ok());
    let child = server.snapshot_child();
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 0"), Value::ok());
    signal::send(child, Signal::Kill);
    assert_eq!(
        failure(&server),
        "the snapshot was not written: the snapshot process was ended by signal 9 (SIGKILL): by the system for want of \
         memory, or by somebody; where the kernel's log tells of memory, give the machine more or lower maxmemory"
    );
    assert_eq!(snapshots(setup.dir()), before, "the files of snapshots changed");
    // Meanwhile writes are refused, as in Redis, and why is told.
    let Value::Error(refused) = client.ask("SET more 1") else { panic!("the write was taken") };
    assert_eq!(
        String::from_utf8_lossy(&refused),
        "MISCONF the last snapshot could not be written, so writes are refused until one is, or \
         stop-writes-on-bgsave-error is no: the snapshot was not written: the snapshot process was ended by signal 9 \
         (SIGKILL): by the system for want of memory, or by somebody; where the kernel's log tells of memory, give the \
         machine more or lower maxmemory"
    );
    let Value::Error(not_ready) = client.ask("CAIRN READY") else { panic!("it is ready") };
    assert!(not_ready.starts_with(b"NOTREADY snapshot-failed: "), "{}", not_ready.escape_ascii());
    let pause = server.info("cairn_snapshot_retry_in_seconds").and_then(|text| text.parse::<u64>().ok());
    assert!(pause.is_some_and(|pause| (1..=5).contains(&pause)), "{pause:?}");
    let again = || (server.info("rdb_last_bgsave_status").as_deref() == Some("ok")).then_some(());
    assert!(await_some(LIMIT, again).is_some(), "it is not tried again:\n{}", server.log());
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    assert_eq!(client.ask("SET more 1"), Value::ok());
    let after = snapshots(setup.dir());
    assert!(after != before && after.len() == 1, "{after:?}");
    server.stop();
}

#[test]
fn one_that_is_stopped_is_ended() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let (server, mut client) = with_snapshot(&setup);
    let before = snapshots(setup.dir());
    slow_down(&mut client);
    client.ask("BGSAVE");
    signal::send(server.snapshot_child(), Signal::Stop);
    assert_eq!(
        failure(&server),
        "the snapshot was not written: the snapshot process had been stopped for 5 s, by SIGSTOP or a debugger, and was \
         ended, since memory is copied for as long as it is there; let it run next time"
    );
    untouched(&setup, server, &before);
}

#[test]
fn one_that_gets_no_memory_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let (server, mut client) = with_snapshot(&setup);
    let before = snapshots(setup.dir());
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 3000"), Value::ok());
    client.ask("BGSAVE");
    signal::limit_memory(server.snapshot_child(), 1 << 20);
    let text = failure(&server);
    assert!(
        text.starts_with("the snapshot was not written: ") && text.contains("give the machine more"),
        "{text}"
    );
    untouched(&setup, server, &before);
}

#[test]
fn one_that_gets_no_disk_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let shim = Shim::new(setup.dir());
    let (server, mut client) = with_snapshot(&setup.clone().env(shim.full_disk(None)));
    let before = snapshots(setup.dir());
    shim.mark("disk-full");
    client.ask("BGSAVE");
    let text = failure(&server);
    let file = text.strip_prefix("the snapshot was not written: ").unwrap_or(&text);
    let (file, why) = file.split_once(": ").unwrap_or_default();
    assert!(file.starts_with(&*setup.dir().join("snapshot-").to_string_lossy()), "{text}");
    assert_eq!(why, "No space left on device (os error 28); free some space there");
    shim.unmark("disk-full");
    untouched(&setup, server, &before);
}

/// A limit to the size of files is an error like any other, and not the end of the process by a signal.
#[test]
fn one_that_may_not_write_so_much_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let (server, mut client) = with_snapshot(&setup);
    let before = snapshots(setup.dir());
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 3000"), Value::ok());
    client.ask("BGSAVE");
    signal::limit_files(server.snapshot_child(), 1);
    let text = failure(&server);
    assert!(
        text.ends_with(
            ".cairn.tmp: File too large (os error 27); raise the limit for the size of files (ulimit -f)"
        ),
        "{text}"
    );
    untouched(&setup, server, &before);
}

#[test]
fn one_that_cannot_even_begin_says_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let shim = Shim::new(setup.dir());
    let (server, mut client) = with_snapshot(&setup.clone().env(shim.full_disk(None)));
    let before = snapshots(setup.dir());
    shim.mark("fail-fork");
    client.ask("BGSAVE");
    assert_eq!(
        failure(&server),
        "fork failed: Cannot allocate memory (os error 12); the system has no memory or no process left for it: set \
         vm.overcommit_memory to 1, or lower maxmemory, or raise the limit of processes"
    );
    shim.unmark("fail-fork");
    server.bgsave();
    assert_ne!(snapshots(setup.dir()), before);
    let before = snapshots(setup.dir());
    untouched(&setup, server, &before);
}

/// It says that it lives, ten times a second, and gets nowhere, since a thread of it hangs.
#[test]
fn one_that_gets_nowhere_is_ended() {
    if !counts::prove() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).with("appendonly", "no");
    let shim = Shim::new(setup.dir());
    let (server, mut client) = with_snapshot(&setup.clone().env(shim.full_disk(None)));
    let before = snapshots(setup.dir());
    shim.mark("hang-sync");
    client.ask("BGSAVE");
    let ended = || (server.info("rdb_bgsave_in_progress").as_deref() == Some("0")).then_some(());
    assert!(await_some(2 * LIMIT, ended).is_some(), "it never ends:\n{}", server.log());
    assert_eq!(
        failure(&server),
        "the snapshot was not written: the snapshot process made no progress for 60 s and was ended; where the disk is slow \
         or does not answer look at that, otherwise the next snapshot may succeed"
    );
    assert_eq!(snapshots(setup.dir()), before, "the files of snapshots changed");
    shim.unmark("hang-sync");
    server.bgsave();
    server.stop();
}

/// The memory that writes copy while a snapshot is written is bounded; without writes the same bound is no obstacle.
#[test]
fn one_for_which_too_much_is_copied_is_ended_before_memory_runs_out() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).with("snapshot-cow-limit", "24mb");
    let server = setup.start();
    let mut client = server.connect();
    let keys = counts::of(600, 6_000);
    let value = vec![b'v'; 100_000];
    let write = |client: &mut Client| {
        for key in 0..keys {
            assert_eq!(
                client.args(&[&b"SETRANGE"[..], format!("{key}").as_bytes(), b"0", &value]).integer(),
                100_000
            );
        }
    };
    write(&mut client);
    server.bgsave();
    assert_eq!(server.info("cairn_snapshot_cow_limit").as_deref(), Some("25165824"));
    let before = snapshots(setup.dir());
    slow_down(&mut client);
    client.ask("BGSAVE");
    server.snapshot_child();
    write(&mut client);
    let text = failure(&server);
    let tail = text.split_once(" bytes of memory were copied, ").map(|(_, tail)| tail);
    assert_eq!(
        tail,
        Some(
            "because of writes while the snapshot process was at work; that is more than the 25165824 that \
             snapshot-cow-limit allows, so it was ended before memory ran out; take snapshots when less is written, give \
             the server more memory, or raise snapshot-cow-limit"
        )
    );
    assert_eq!(snapshots(setup.dir()), before, "the files of snapshots changed");
    // By default it is a share of what the machine has left.
    assert_eq!(
        client.args(&["CONFIG", "SET", "snapshot-cow-limit", "80%", "rdb-key-save-delay", "0"]),
        Value::ok()
    );
    server.bgsave();
    let limit = server.info("cairn_snapshot_cow_limit").and_then(|text| text.parse::<u64>().ok());
    assert!(limit > Some(1 << 20), "{limit:?}");
    server.stop();
}
