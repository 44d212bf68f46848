//! Point 1: the usual samples of a cache guide work through Python's redis client, in RESP2 and RESP3.

use cairn_tests::programs::{self, Tool};
use cairn_tests::server::{Server, Setup};

fn sample(server: &Server, protocol: &str) {
    let python = programs::repository().join(".deps/venv/bin/python");
    assert!(python.is_file(), "{} is missing: run tests/scripts/setup.sh", python.display());
    Tool::new(python)
        .arg(programs::repository().join("tests/python/sample.py"))
        .arg(server.address().port().to_string())
        .arg(protocol)
        .run()
        .expect(0)
        .saying(&["lazy loading", "write-through", "session store", "leaderboard", "distributed counter"]);
}

fn samples(setup: &Setup) {
    let server = setup.start();
    for protocol in ["2", "3"] {
        sample(&server, protocol);
    }
    server.stop();
}

/// The sample itself is right: Redis passes it.
#[test]
fn the_sample_passes_on_redis() {
    let home = tempfile::tempdir().expect("a temporary directory");
    samples(&Setup::redis(&home.path().join("data")));
}

#[test]
fn the_sample_passes_encrypted_with_a_journal() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    samples(&Setup::cairn(&home.path().join("data")).journal("everysec").key(&keyring));
}

#[test]
fn the_sample_passes_unencrypted_in_memory() {
    let home = tempfile::tempdir().expect("a temporary directory");
    samples(&Setup::cairn(&home.path().join("data")).with("appendonly", "no"));
}

/// The counter of 20 clients is exact after a crash too: every increment was acknowledged under `always`.
#[test]
fn the_samples_counter_survives_a_crash() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let server = setup.start();
    sample(&server, "2");
    server.kill();
    let server = setup.start();
    assert_eq!(server.connect().ask("GET sample:counter").text(), "2000");
}
