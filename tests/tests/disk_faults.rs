//! A disk that is full, fails or hangs under a running server: who writes hears why before anything is applied, who reads
//! goes on, INFO and the log say what and since when, CAIRN READY turns to no and back.

use cairn_tests::counts;
use cairn_tests::process::await_some;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use cairn_tests::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on a disk that can be made to fail.
struct Trial {
    _home: tempfile::TempDir,
    dir: PathBuf,
    shim: Shim,
    setup: Setup,
}

impl Trial {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = home.path().join("data");
        let shim = Shim::new(&dir);
        // Small, so that the room that is kept ahead is soon used up.
        let setup = Setup::cairn(&dir).journal("always").with("journal-segment-size", "1mb");
        Self { _home: home, dir, shim, setup }
    }

    fn start(&self) -> Server {
        self.setup.clone().env(self.shim.full_disk(None)).start()
    }
}

#[track_caller]
fn error(reply: &Value) -> String {
    let Value::Error(text) = reply else { panic!("an error was expected, not {reply:?}") };
    String::from_utf8_lossy(text).into_owned()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// CAIRN READY's words, without how long it has been so.
#[track_caller]
fn not_ready(client: &mut Client) -> String {
    let text = error(&client.ask("CAIRN READY"));
    let (words, since) = text.rsplit_once(" (for ").unwrap_or((&text, ""));
    assert!(since.ends_with(" s)"), "it says for how long: {text}");
    words.to_owned()
}

/// INFO says the same as CAIRN READY, and since when; the log says it too.
#[track_caller]
fn told_everywhere(server: &Server, name: &str, why: &str, since: u64) {
    assert_eq!(server.info("cairn_ready").as_deref(), Some("0"));
    assert_eq!(server.info("cairn_not_ready").as_deref(), Some(name));
    assert_eq!(server.info("cairn_not_ready_reason").as_deref(), Some(why));
    let told = server.info("cairn_not_ready_since").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    assert!((since..=unix_seconds()).contains(&told), "since {told}, and it began at {since}");
    let logged = || server.log().contains(&format!("not ready: {why}")).then_some(());
    assert!(await_some(LIMIT, logged).is_some(), "the log does not say {why:?}:\n{}", server.log());
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else_until_it_has_room() {
    let trial = Trial::new();
    let server = trial.start();
    let mut client = server.connect();
    assert_eq!(client.ask("SET first 1"), Value::ok());
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    let began = unix_seconds();
    trial.shim.mark("disk-full");
    let value = vec![b'v'; 100_000];
    let refused = (0..1_000).find_map(|number| {
        let reply = client.args(&[&b"SET"[..], format!("fill:{number}").as_bytes(), &value]);
        reply.is_error().then(|| (number, error(&reply)))
    });
    let (number, text) = refused.expect("a full disk refuses writes in the end");
    let dir = trial.dir.display();
    let why = format!("no space left for the journal in {dir}: free some; writes resume by themselves");
    assert_eq!(text, format!("MISCONF {why}"));
    assert_eq!(client.ask(&format!("EXISTS fill:{number}")).integer(), 0, "a refused write was applied");
    assert_eq!(client.ask("GET first").text(), "1");
    // Of a transaction nothing is applied either.
    client.ask("MULTI");
    client.args(&[&b"SET"[..], b"second", &value]);
    assert_eq!(
        error(&client.ask("EXEC")),
        format!("EXECABORT Transaction discarded because of: MISCONF {why}")
    );
    assert_eq!(client.ask("EXISTS second").integer(), 0);
    // Small writes may still find room; when none do, the server is not ready, and a script is refused before it runs.
    let full = || client.ask("INCR small").is_error().then_some(());
    assert!(await_some(LIMIT, full).is_some());
    let script = "return redis.call('SET', KEYS[1], 'v')";
    assert_eq!(error(&client.args(&["EVAL", script, "1", "third"])), format!("MISCONF {why}"));
    let why = format!("writes are refused: {why}");
    assert_eq!(not_ready(&mut client), format!("NOTREADY disk-full: {why}"));
    told_everywhere(&server, "disk-full", &why, began);
    assert_eq!(server.info("aof_last_write_status").as_deref(), Some("err"));

    trial.shim.unmark("disk-full");
    let again = || (client.ask("SET again 1") == Value::ok()).then_some(());
    assert!(await_some(LIMIT, again).is_some(), "writes do not go on:\n{}", server.log());
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    assert_eq!(server.info("cairn_ready").as_deref(), Some("1"));
    let logged = || server.log().contains("ready again").then_some(());
    assert!(await_some(LIMIT, logged).is_some(), "{}", server.log());
    let digest = server.digest();
    server.kill();
    assert_eq!(trial.setup.start().digest(), digest);
}

/// Once is a mishap: what the file may have lost is written to a new one, and nobody notices but the log.
#[test]
fn a_sync_that_fails_once_costs_nobody_anything() {
    let trial = Trial::new();
    let server = trial.start();
    let mut client = server.connect();
    assert_eq!(client.ask("SET first 1"), Value::ok());
    for number in 0..counts::of(5, 50) {
        trial.shim.mark("fail-sync-once");
        assert_eq!(client.ask(&format!("SET key:{number} 1")), Value::ok());
    }
    assert!(server.log().contains("journal file abandoned; writing what is not durable to a new one"));
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    let digest = server.digest();
    server.kill();
    assert_eq!(trial.setup.start().digest(), digest);
}

/// Twice in a row is a disk that cannot be trusted: no more writes, and those under way hear that their outcome is unknown.
#[test]
fn a_disk_that_fails_stops_the_journal_and_not_the_readers() {
    let trial = Trial::new();
    let server = trial.start();
    let (mut client, mut writer) = (server.connect(), server.connect());
    assert_eq!(client.ask("SET first 1"), Value::ok());
    let began = unix_seconds();
    trial.shim.mark("fail-sync");
    assert_eq!(
        error(&writer.ask("SET second 1")),
        "ERR the journal could not be written: whether this write will survive a restart is unknown; restart the server \
         once the disk is well, and read it back"
    );
    let why = "the journal stopped: writing or syncing failed (Input/output error (os error 5)) and so did a new file \
         (Input/output error (os error 5)); whether effects past the durable LSN survive is unknown; restart the server \
         once the disk is well";
    assert_eq!(error(&client.ask("SET third 1")), format!("MISCONF {why}"));
    assert_eq!(client.ask("GET first").text(), "1");
    assert_eq!(not_ready(&mut client), format!("NOTREADY journal-stopped: writes are refused: {why}"));
    told_everywhere(&server, "journal-stopped", &format!("writes are refused: {why}"), began);
    assert!(server.info("cairn_journal_stopped_since").is_some());
    assert!(server.log().contains("see to the disk, then restart the server"), "{}", server.log());
    // It stays so, even when the disk is well again: nobody knows what it has lost.
    trial.shim.unmark("fail-sync");
    assert!(client.ask("SET third 1").is_error());
    // What lies past the durable LSN is told to nobody.
    assert!(server.connect().call(&["GET", "second"]).is_ok_and(|reply| reply.is_error()));
    server.signal(Signal::Terminate);
    let log = server.log_at_end();
    assert!(log.0 == 1 && log.1.contains(&format!("cairn-server: ended, but not cleanly: {why}")), "{log:?}");
    let server = trial.setup.start();
    let mut client = server.connect();
    assert_eq!(client.ask("GET first").text(), "1");
    assert_eq!(client.ask("EXISTS third").integer(), 0);
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    server.stop();
}

/// A sync that does not return is an error nowhere; after ten seconds it is told all the same.
#[test]
fn a_disk_that_hangs_is_told_of() {
    if !counts::prove() {
        return;
    }
    let trial = Trial::new();
    let server = trial.start();
    let (mut client, mut writer) = (server.connect(), server.connect());
    assert_eq!(client.ask("SET first 1"), Value::ok());
    let began = unix_seconds();
    trial.shim.mark("hang-sync");
    writer.send(b"SET second 1\r\n").expect("it can be sent");
    let hangs = || client.ask("CAIRN READY").is_error().then_some(());
    assert!(await_some(LIMIT, hangs).is_some());
    let text = not_ready(&mut client);
    assert!(
        text.starts_with("NOTREADY disk-hangs: the disk does not answer: the oldest write has waited 1")
            && text.ends_with(
                " s to be synced, and others wait behind it; look at the disk of the data directory, what waits is told once \
                 it answers"
            ),
        "{text}"
    );
    assert_eq!(client.ask("GET first").text(), "1");
    let since = server.info("cairn_not_ready_since").and_then(|text| text.parse::<u64>().ok());
    assert!(since.is_some_and(|since| (began..began + 5).contains(&since)), "{since:?}, began at {began}");
    trial.shim.unmark("hang-sync");
    assert_eq!(writer.reply().expect("an answer"), Value::ok());
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    server.stop();
}

/// Waiting for the disk is not refusing to read: RESET makes a client that has authenticated a stranger, whose replies still
/// tell of a write.
#[test]
fn who_becomes_a_stranger_hears_of_its_writes_first() {
    let trial = Trial::new();
    let server = trial.setup.clone().with("requirepass", "secret").start();
    let mut client = server.connect();
    assert_eq!(client.ask("AUTH secret"), Value::ok());
    client.send(b"SET k v\r\nRESET\r\n").expect("it can be sent");
    assert_eq!(client.reply().expect("the write's reply"), Value::ok());
    assert_eq!(client.reply().expect("RESET's reply").text(), "RESET");
    assert_eq!(error(&client.ask("GET k")), "NOAUTH Authentication required.");
    server.stop();
}

/// Clients that time out on a disk that hangs, and come again, must not use up the connections of those who read.
#[test]
fn who_waits_for_a_disk_that_hangs_can_be_ended_and_is_when_it_has_gone() {
    let trial = Trial::new();
    let server = trial.start();
    let (mut reader, mut first) = (server.connect(), server.connect());
    let (mut killed, mut gone) = (server.connect(), server.connect());
    let id = killed.ask("CLIENT ID").integer();
    assert_eq!(gone.ask("CLIENT SETNAME gone"), Value::ok());
    trial.shim.mark("hang-sync");
    first.send(b"SET first 1\r\n").expect("it can be sent");
    let hangs = || (server.info("cairn_journal_oldest_unsynced_ms").as_deref() != Some("0")).then_some(());
    assert!(await_some(LIMIT, hangs).is_some());
    killed.send(b"SET second 1\r\n").expect("it can be sent");
    gone.send(b"SET third 1\r\n").expect("it can be sent");
    let wait = || reader.ask("INFO keyspace").text().contains("db0:keys=3,").then_some(());
    assert!(await_some(LIMIT, wait).is_some(), "their writes are there, and not durable");
    assert_eq!(reader.ask(&format!("CLIENT KILL ID {id}")).integer(), 1);
    assert_eq!(killed.until_closed().expect("it is ended"), b"");
    drop(gone);
    let forgotten = || (!reader.ask("CLIENT LIST").text().contains("name=gone")).then_some(());
    assert!(await_some(LIMIT, forgotten).is_some(), "a client that has gone is kept while the disk hangs");
    trial.shim.unmark("hang-sync");
    assert_eq!(first.reply().expect("an answer"), Value::ok());
    server.stop();
}

/// Whoever saves the users, or the configuration, waits for the disk alone.
#[test]
fn a_file_that_cannot_be_written_silences_nobody_else() {
    let trial = Trial::new();
    std::fs::write(trial.dir.join("users.acl"), "").expect("the file is made");
    let setup = trial.setup.clone().with("server-threads", "1").with("aclfile", "users.acl");
    let server = setup.env(trial.shim.full_disk(None)).start();
    let (mut saver, mut other) = (server.connect(), server.connect());
    trial.shim.mark("hang-sync");
    saver.send(b"ACL SAVE\r\n").expect("it can be sent");
    let written = || trial.dir.join("users.acl.tmp").exists().then_some(());
    assert!(await_some(LIMIT, written).is_some());
    assert_eq!(other.ask("PING").text(), "PONG");
    trial.shim.unmark("hang-sync");
    assert_eq!(saver.reply().expect("an answer"), Value::ok());
    assert_eq!(other.ask("MULTI"), Value::ok());
    assert_eq!(error(&other.ask("ACL SAVE")), "ERR Command not allowed inside a transaction");
    server.stop();
}
