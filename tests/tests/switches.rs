//! What may be switched from one start to the next: the journal off and on, encryption on. And what may not pass for it.

use cairn_tests::process::await_some;
use cairn_tests::programs;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup, free_port};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes, stops without a snapshot, and gives the digest there was.
fn write_and_stop(server: Server, commands: &[&str]) -> String {
    let mut client = server.connect();
    for command in commands {
        assert!(!client.ask(command).is_error(), "{command}");
    }
    let digest = server.digest();
    server.stop();
    digest
}

/// A snapshot taken without a journal lies past the end of the journal that was there before; the directory was then
/// refused as damaged at the next start.
#[test]
fn the_journal_may_be_switched_off_and_on_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let with = Setup::cairn(&dir).journal("always");
    let without = Setup::cairn(&dir).with("appendonly", "no");
    let first = write_and_stop(with.start(), &["SET a 1", "RPUSH l 1 2 3"]);
    let server = without.start();
    assert_eq!(server.digest(), first, "the journal is replayed where none is written");
    let second = write_and_stop(server, &["SET b 2", "DEL a", "SAVE"]);
    for setup in [&with, &without, &with] {
        let server = setup.start();
        assert_eq!(server.digest(), second);
        server.stop();
    }
    let third = write_and_stop(with.start(), &["SET c 3"]);
    let server = with.start();
    assert_eq!(server.digest(), third);
    server.stop();
}

/// CONFIG SET appendonly, until it has happened.
fn set_append_only(server: &Server, on: bool) {
    let word = if on { "yes" } else { "no" };
    assert_eq!(server.connect().ask(&format!("CONFIG SET appendonly {word}")), Value::ok());
    let wanted = if on { "1" } else { "0" };
    let switched = await_some(Duration::from_secs(20), || {
        (server.info("aof_enabled").as_deref() == Some(wanted)).then_some(())
    });
    assert!(switched.is_some(), "{}", server.log());
}

/// What is acknowledged while the journal is on survives a killed server, whatever was before.
#[test]
fn the_journal_may_be_switched_while_the_server_runs() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let without = Setup::cairn(&dir).with("appendonly", "no").with("appendfsync", "always");
    let with = without.clone().with("appendonly", "yes");
    let server = without.start();
    let mut client = server.connect();
    client.ask("SET before 1");
    set_append_only(&server, true);
    assert_eq!(client.ask("SET during 2"), Value::ok());
    set_append_only(&server, false);
    let first = server.digest();
    client.ask("SET lost 3");
    server.kill();

    let server = without.start();
    assert_eq!(server.digest(), first, "what was written without a journal is gone, and nothing else");
    let mut client = server.connect();
    client.ask("SET after 4");
    for on in [true, false, true] {
        set_append_only(&server, on);
    }
    client.ask("SET last 5");
    let second = server.digest();
    server.kill();
    let server = with.start();
    assert_eq!(server.digest(), second);
    server.stop();
}

/// DEBUG RELOAD and LOADAOF leave in memory what a restart finds.
#[test]
fn what_debug_loads_is_what_a_restart_finds() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always").with("enable-debug-command", "yes");
    let server = setup.start();
    let mut client = server.connect();
    client.ask("SET a 1");
    client.ask("SAVE");
    client.ask("SET b 2");
    let both = server.digest();
    assert_eq!(client.ask("DEBUG LOADAOF"), Value::ok());
    assert_eq!(server.digest(), both);
    assert!(client.ask("DEBUG RELOAD NOFLUSH").is_error(), "the keys are there");
    assert_eq!(client.ask("DEBUG RELOAD NOFLUSH MERGE"), Value::ok());
    assert_eq!(server.digest(), both);
    client.ask("DEL a");
    client.ask("SET c 3");
    assert_eq!(client.ask("DEBUG RELOAD NOSAVE NOFLUSH MERGE"), Value::ok());
    assert_eq!(client.ask("MGET a b c").items(), ["1", "2", "3"].map(Value::bulk));
    client.ask("SET d 4");
    assert_eq!(client.ask("DEBUG RELOAD NOSAVE"), Value::ok());
    assert_eq!(client.ask("EXISTS a b c d").integer(), 3, "the snapshot of the merge holds three");
    let last = server.digest();
    server.kill();
    let server = setup.start();
    assert_eq!(server.digest(), last);
    server.stop();
}

fn snapshot_in(dir: &Path) -> PathBuf {
    let names = std::fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path());
    let mut snapshots: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|end| end == "cairn")).collect();
    assert_eq!(snapshots.len(), 1, "one snapshot in {}", dir.display());
    snapshots.remove(0)
}

#[test]
fn encryption_may_be_switched_on_and_never_falls_off_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let plain = Setup::cairn(&dir).journal("always");
    let sealed = plain.clone().key(&keyring);
    write_and_stop(plain.start(), &["SET secret-name secret-value", "SAVE"]);
    let in_clear = std::fs::read(snapshot_in(&dir)).expect("the snapshot");

    let server = sealed.start();
    assert_eq!(server.connect().ask("GET secret-name").text(), "secret-value");
    assert!(server.log().contains("without encryption"), "{}", server.log());
    // A snapshot is taken by itself, and ends it.
    let ended = await_some(Duration::from_secs(20), || {
        (server.info("cairn_files_in_clear").as_deref() == Some("0")).then_some(())
    });
    assert!(ended.is_some(), "{}", server.log());
    let digest = write_and_stop(server, &[]);
    plain.try_start().expect_err("the key is needed from now on").expect(12, &["key"]);

    let server = sealed.start();
    assert_eq!(server.digest(), digest);
    server.stop();
    // The old file in the place of the new one: the same data, but anybody could have written it.
    std::fs::write(snapshot_in(&dir), in_clear).expect("the snapshot is exchanged");
    sealed.try_start().expect_err("a file in clear is refused").expect(13, &["snapshot-"]);
}

/// CONFIG SET sets all or none: a key that cannot be had must not leave the server on another port than CONFIG GET says.
#[test]
fn a_refused_key_leaves_the_port_alone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&home.path().join("data")).journal("everysec").start();
    let (mut client, port) = (server.connect(), free_port());
    let (port_text, missing) = (port.to_string(), home.path().join("missing"));
    let missing = missing.to_str().expect("test paths are UTF-8");
    let pairs = ["CONFIG", "SET", "port", &port_text, "encryption-key-file", missing];
    assert!(client.args(&pairs).is_error());
    assert_eq!(server.connect().ask("PING").text(), "PONG");
    assert!(Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err(), "nobody listens there");
    assert_eq!(client.ask("CONFIG GET port").items()[1].text(), server.address().port().to_string());
    server.stop();
}

/// A start used to remove every file that looked a little like one of its own.
#[test]
fn other_peoples_files_stay_and_redis_data_is_not_started_beside() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let setup = Setup::cairn(&dir).journal("always");
    write_and_stop(setup.start(), &["SET a 1", "SAVE"]);
    let names = ["notes.tmp", "journal-of-a-summer", "snapshot.cairn.bak"];
    for name in names {
        std::fs::write(dir.join(name), "mine").expect("a file");
    }
    let server = setup.start();
    assert_eq!(server.connect().ask("GET a"), Value::bulk("1"));
    server.stop();
    for name in names {
        assert_eq!(std::fs::read_to_string(dir.join(name)).ok().as_deref(), Some("mine"), "{name}");
    }

    let other = home.path().join("redis");
    std::fs::create_dir(&other).expect("a directory");
    std::fs::write(other.join("dump.rdb"), b"REDIS0010").expect("a file");
    let refused = Setup::cairn(&other).journal("always").try_start().expect_err("it is refused");
    refused.expect(1, &["dump.rdb"]);
}
