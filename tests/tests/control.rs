//! The control socket: what an agent that follows the data asks and tells, and what the server keeps for it.

use cairn_tests::control::Agent;
use cairn_tests::files;
use cairn_tests::process::await_some;
use cairn_tests::server::{Server, Setup};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn status(agent: &mut Agent) -> Value {
    agent.ask(&json!({ "request": "status" }))
}

#[track_caller]
fn number(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or_else(|| panic!("{field} in {answer}"))
}

/// Fails unless the answer is an error that says this.
#[track_caller]
fn refused(answer: &Value, words: &str) {
    assert_eq!(answer["ok"], false, "{answer}");
    let error = answer["error"].as_str().expect("an error is text");
    assert!(error.contains(words), "{error:?} should say {words:?}");
}

/// Writes until everything is durable; where that is.
#[track_caller]
fn write(server: &Server, agent: &mut Agent, key: &str) -> u64 {
    assert_eq!(server.connect().ask(&format!("SET {key} 1")).text(), "OK");
    number(&status(agent), "durable_lsn")
}

#[test]
fn status_tells_where_the_data_is() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let server = Setup::cairn(&dir).journal("always").start();
    let mode = std::fs::metadata(dir.join("control.sock")).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut agent = Agent::connect(&dir).expect("it connects");
    let empty = status(&mut agent);
    assert_eq!(
        (&empty["ok"], &empty["journal"], &empty["encrypted"]),
        (&json!(true), &json!(true), &json!(false))
    );
    assert_eq!(
        (number(&empty, "durable_lsn"), &empty["archived_lsn"], &empty["snapshot"]),
        (0, &Value::Null, &Value::Null)
    );
    assert_eq!(empty["lineage"].as_str(), server.info("cairn_lineage").as_deref());
    assert_eq!((number(&empty, "epoch"), number(&empty, "databases")), (1, 16));

    let durable = write(&server, &mut agent, "a");
    assert_eq!(server.info("cairn_journal_durable_lsn"), Some(durable.to_string()));
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    // What is durable is so up to a moment that goes on while nothing is written.
    let goes_on =
        || (number(&status(&mut agent), "durable_unix_ms") > before.as_millis() as u64).then_some(());
    assert!(await_some(SOON, goes_on).is_some());

    server.connect().ask("SAVE");
    let saved = status(&mut agent);
    let snapshot = &saved["snapshot"];
    assert_eq!((number(snapshot, "lsn"), number(snapshot, "entries")), (durable, 1));
    assert!(dir.join(snapshot["file"].as_str().expect("a name")).is_file());
    server.stop();
    assert!(!dir.join("control.sock").exists(), "a server that ends takes its socket away");
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_long_path_is_no_hindrance() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("d".repeat(150));
    let setup = Setup::cairn(&dir).journal("always");
    // A link makes the path short enough for a plain client.
    let link = home.path().join("l");
    setup.start().kill();
    std::os::unix::fs::symlink(&dir, &link).expect("a link can be made");
    assert!(Agent::connect(&link).is_err(), "nobody is there any more");
    let server = setup.start();
    // Another server is refused by the lock, and leaves the socket alone.
    setup.try_start().expect_err("the directory is locked").expect(11, &["locked"]);
    let mut agent = Agent::connect(&link).expect("it connects");
    assert_eq!(status(&mut agent)["ok"], true);
    server.stop();
}

#[test]
fn what_makes_no_sense_is_answered_and_bounded() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let server = Setup::cairn(&dir).journal("always").start();
    let mut agent = Agent::connect(&dir).expect("it connects");
    refused(&agent.ask(&json!({ "request": "format" })), "unknown variant `format`");
    refused(&agent.ask(&json!({ "request": "hold" })), "missing field `lsn`");
    refused(&agent.ask(&json!({ "request": "hold", "lsn": 1 })), "beyond 0");
    refused(&agent.ask(&json!({ "request": "archived", "lsn": 1, "unix_ms": 1 })), "another lineage");
    assert_eq!(status(&mut agent)["ok"], true, "an error ends nothing");

    agent.send(b"status\n").expect("it takes bytes");
    refused(&agent.answer().expect("an answer"), "no JSON document");
    assert_eq!(agent.answer(), None, "whoever sends garbage is cut off");

    let mut endless = Agent::connect(&dir).expect("it connects");
    // It may be cut off before all of it was sent.
    let _ = endless.send(&vec![b' '; 1 << 20]);
    assert!(
        endless
            .answer()
            .is_none_or(|answer| answer["error"].as_str().is_some_and(|e| e.contains("no whole line")))
    );

    let mut all: Vec<Agent> = (0..16).map(|_| Agent::connect(&dir).expect("it connects")).collect();
    assert!(all.iter_mut().all(|agent| status(agent)["ok"] == true));
    refused(&Agent::connect(&dir).expect("it connects").answer().expect("an answer"), "16 connections");
    all.pop();
    let place = || {
        Agent::connect(&dir).ok().filter(|_| true).and_then(|mut agent| {
            agent.send(b"{\"request\":\"status\"}\n").ok()?;
            agent.answer().filter(|answer| answer["ok"] == true)
        })
    };
    assert!(await_some(SOON, place).is_some(), "a place that was left is given to another");
    server.stop();
}

/// A directory whose segments are small, with one snapshot after each round of writes.
fn segments(dir: &Path) -> Vec<u64> {
    files::named(dir, "journal-").iter().map(|path| files::lsn(path)).collect()
}

#[test]
fn journal_that_is_held_stays_until_the_connection_ends() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let server = Setup::cairn(&dir).journal("always").start();
    let mut agent = Agent::connect(&dir).expect("it connects");
    let first = write(&server, &mut agent, "a");
    let held = agent.ask(&json!({ "request": "hold", "lsn": 0 }));
    assert_eq!((&held["ok"], number(&held, "journal_lsn")), (&json!(true), 0));
    for key in ["b", "c"] {
        server.bgsave();
        write(&server, &mut agent, key);
    }
    assert_eq!(segments(&dir)[0], 0, "the journal is held from its beginning");
    let digest = server.digest();
    // The hold moves along, and what it has left may go with the next snapshot.
    let second = segments(&dir)[1];
    assert_eq!(second, first);
    assert_eq!(agent.ask(&json!({ "request": "hold", "lsn": second }))["ok"], true);
    server.bgsave();
    assert_eq!(segments(&dir)[0], second);
    refused(&agent.ask(&json!({ "request": "hold", "lsn": 0 })), &format!("begins at {second}"));
    // It is held by the connection that is there, also over that refusal.
    server.bgsave();
    assert_eq!(segments(&dir)[0], second);
    drop(agent);
    let trimmed = || {
        server.bgsave();
        (segments(&dir)[0] > second).then_some(())
    };
    assert!(await_some(SOON, trimmed).is_some(), "nobody holds it any more");
    server.kill();
    // A directory with more journal than recovery needs is as good as another.
    let server = Setup::cairn(&dir).journal("always").start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

#[test]
fn a_snapshot_is_taken_or_joined() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let server = Setup::cairn(&dir).journal("always").start();
    let mut agent = Agent::connect(&dir).expect("it connects");
    write(&server, &mut agent, "a");
    let lsn = write(&server, &mut agent, "b");
    let taken = agent.ask(&json!({ "request": "snapshot" }));
    assert_eq!((&taken["ok"], number(&taken, "lsn"), number(&taken, "entries")), (&json!(true), lsn, 2));
    assert_eq!(taken["file"], status(&mut agent)["snapshot"]["file"]);

    // Two that ask while one is slowly taken get the same.
    server.connect().ask("CONFIG SET rdb-key-save-delay 300000");
    server.connect().ask("BGSAVE");
    let mut others = [Agent::connect(&dir).expect("it connects"), Agent::connect(&dir).expect("it connects")];
    others
        .iter_mut()
        .for_each(|agent| agent.send(b"{\"request\":\"snapshot\"}\n").expect("it takes requests"));
    // Others are answered meanwhile.
    assert_eq!(status(&mut agent)["snapshot"]["file"], taken["file"]);
    let [one, two] = others.map(|mut agent| agent.answer().expect("an answer"));
    assert_eq!((&one["ok"], &one), (&json!(true), &two));
    assert_ne!(one["file"], taken["file"]);
    assert_eq!(server.info("rdb_saves").as_deref(), Some("2"), "nothing was taken twice");
    server.stop();
}

#[test]
fn a_snapshot_that_fails_is_told() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let server = Setup::cairn(&dir).journal("always").start();
    let mut agent = Agent::connect(&dir).expect("it connects");
    write(&server, &mut agent, "a");
    // A directory stands where the snapshot's temporary file would.
    let lsn = number(&status(&mut agent), "next_lsn");
    std::fs::create_dir(dir.join(format!("snapshot-{lsn:020}.cairn.tmp"))).expect("a directory can be made");
    refused(&agent.ask(&json!({ "request": "snapshot" })), "snapshot");
    assert_eq!(status(&mut agent)["snapshot"], Value::Null);
    server.stop();
}
