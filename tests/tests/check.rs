//! `cairn-server --check DIR`: says what is there and whether a start would get through, and changes nothing.

use cairn_tests::files;
use cairn_tests::programs::{self, Done, Tool};
use cairn_tests::server::Setup;
use cairn_tests::workload;
use std::path::Path;

fn check(dir: &Path, keyring: Option<&Path>, options: &[&str]) -> Done {
    let mut tool = Tool::new(programs::cairn("cairn-server")).option("--check", dir);
    for option in options {
        tool = tool.arg(option);
    }
    match keyring {
        Some(keyring) => tool.option("--encryption-key-file", keyring).run(),
        None => tool.run(),
    }
}

/// A directory with a snapshot and a journal behind it, its server killed; with the digest of what was in it.
fn killed(home: &Path, keyring: &Path) -> (Setup, String) {
    programs::generate_keyring(keyring);
    let setup = Setup::cairn(&home.join("data")).journal("always").key(keyring);
    let server = setup.start();
    let commands = workload::dataset(5, 600);
    let (first, second) = commands.split_at(300);
    server.connect().pipeline(first).expect("the dataset is taken");
    server.bgsave();
    server.connect().pipeline(second).expect("the dataset is taken");
    let digest = server.digest();
    server.kill();
    (setup, digest)
}

#[test]
fn what_is_there_is_told_and_stays_as_it_is() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    let (setup, digest) = killed(home.path(), &keyring);
    let before = files::contents(setup.dir());
    let done = check(setup.dir(), Some(&keyring), &["--digest", "--json"]).expect(0);
    let told = done.json();
    assert_eq!(told["digest"].as_str(), Some(digest.as_str()));
    assert_eq!(
        (told["whole"].as_bool(), told["encrypted"].as_bool(), told["empty"].as_bool()),
        (Some(true), Some(true), Some(false))
    );
    assert!(told["files"].as_array().is_some_and(|files| files.len() >= 2), "{told}");
    assert!(told["journal_effects"].as_u64() > Some(0), "{told}");
    let text = check(setup.dir(), Some(&keyring), &["--digest"]).expect(0);
    text.saying(&["whole, encrypted", "snapshot-", "journal-", "recovery:", &format!("digest: {digest}")]);
    assert_eq!(files::changed(&before, &files::contents(setup.dir())), [""; 0]);

    // The start afterwards finds what was told.
    let server = setup.start();
    assert_eq!(server.digest(), digest);
    check(setup.dir(), Some(&keyring), &[]).expect(11).saying(&["locked", "another cairn-server"]);
}

#[test]
fn what_a_start_would_refuse_is_refused_with_its_words() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (keyring, other) = (home.path().join("keyring"), home.path().join("other"));
    let (setup, _) = killed(home.path(), &keyring);
    programs::generate_keyring(&other);
    check(setup.dir(), Some(&other), &[]).expect(12);
    check(setup.dir(), None, &[]).expect(12);
    let segment = files::needed_segments(setup.dir()).pop().expect("a journal");
    files::flip(&segment, 4096 + 200);
    check(setup.dir(), Some(&keyring), &["--json"]).expect(13).saying(&["offset", "journal-"]);
    let snapshot = files::named(setup.dir(), "snapshot-").pop().expect("a snapshot");
    files::flip(&segment, 4096 + 200);
    std::fs::remove_file(&snapshot).expect("the snapshot can go");
    check(setup.dir(), Some(&keyring), &[]).expect(13).saying(&["missing", "snapshot-"]);
}

#[test]
fn a_directory_without_data_is_said_to_be_one() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    check(&empty, None, &[]).expect(0).saying(&["no data", "start empty"]);
    let told = check(&empty, None, &["--json"]).expect(0).json();
    assert_eq!((told["empty"].as_bool(), told["lineage"].is_null()), (Some(true), true));
    assert!(files::all(&empty).is_empty(), "a check makes no file");
    check(&home.path().join("nowhere"), None, &[]).expect(1).saying(&["no such directory"]);
    assert!(!home.path().join("nowhere").exists());
    let usage = Tool::new(programs::cairn("cairn-server")).arg("--check").run().expect(2);
    usage.saying(&["--check needs the data directory"]);
    check(&empty, None, &["--digst", "x"]).expect(2).saying(&["digst"]);
}
