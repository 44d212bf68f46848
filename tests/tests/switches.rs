//! What may be switched from one start to the next: the journal off and on, encryption on. And what may not pass for it.

use cairn_tests::programs;
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use std::path::{Path, PathBuf};

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
    let digest = write_and_stop(server, &["SAVE"]);
    plain.try_start().expect_err("the key is needed from now on").expect(12, &["key"]);

    let server = sealed.start();
    assert_eq!(server.digest(), digest);
    server.stop();
    // The old file in the place of the new one: the same data, but anybody could have written it.
    std::fs::write(snapshot_in(&dir), in_clear).expect("the snapshot is exchanged");
    sealed.try_start().expect_err("a file in clear is refused").expect(13, &["snapshot-"]);
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
