//! `cairn-restore --dry-run`: what is there, whether every byte of it is whole, and what would be restored, without a trace.

use cairn_tests::files;
use cairn_tests::programs::{self, Tool};
use cairn_tests::server::Setup;
use cairn_tests::workload;
use std::path::{Path, PathBuf};

/// A snapshot that left its server, a repository, and the key to both.
struct Backup {
    home: tempfile::TempDir,
    keyring: PathBuf,
    snapshot: PathBuf,
    repository: PathBuf,
    keys: u64,
}

impl Backup {
    fn make() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let keyring = home.path().join("keyring");
        programs::generate_keyring(&keyring);
        let setup = Setup::cairn(&home.path().join("data")).journal("always").key(&keyring);
        let server = setup.start();
        server.connect().pipeline(&workload::dataset(7, 600)).expect("the dataset is taken");
        server.bgsave();
        let keys = server.info("cairn_snapshot_entries").and_then(|text| text.parse().ok()).unwrap_or(0);
        let snapshot = home.path().join("copy.cairn");
        let named = files::named(setup.dir(), "snapshot-").pop().expect("a snapshot");
        std::fs::copy(named, &snapshot).expect("it can be copied");
        server.connect().ask("SET behind:the:snapshot 1");
        let repository = home.path().join("repository");
        let create =
            Tool::backup().option("--repo", format!("file://{}", repository.display())).arg("create");
        let create = create.option("--dir", setup.dir()).option("--server", server.address().to_string());
        create.option("--encryption-key-file", &keyring).run().expect(0);
        server.stop();
        Self { home, keyring, snapshot, repository, keys }
    }

    fn target(&self) -> PathBuf {
        self.home.path().join("target")
    }

    fn restore(&self) -> Tool {
        let restore = Tool::restore().option("--dir", self.target()).arg("--dry-run");
        restore.option("--encryption-key-file", &self.keyring)
    }

    fn restoring_the_file(&self) -> Tool {
        self.restore().option("--from", &self.snapshot)
    }

    fn restoring_the_repository(&self) -> Tool {
        self.restore().option("--repo", format!("file://{}", self.repository.display()))
    }
}

#[test]
fn what_is_whole_is_said_to_be_and_nothing_is_written() {
    let backup = Backup::make();
    let before = files::contents(&backup.repository);
    let told = backup.restoring_the_file().arg("--json").run().expect(0).json();
    assert_eq!((told["whole"].as_bool(), told["dry_run"].as_bool()), (Some(true), Some(true)), "{told}");
    assert_eq!(told["entries"].as_u64(), Some(backup.keys).filter(|keys| *keys > 0), "{told}");
    let text = backup.restoring_the_file().run().expect(0);
    text.saying(&[
        "would restore",
        &backup.snapshot.to_string_lossy(),
        "every byte was read, and it is whole",
    ]);
    let told = backup.restoring_the_repository().arg("--json").run().expect(0).json();
    assert_eq!(told["whole"].as_bool(), Some(true), "{told}");
    assert!(told["to_lsn"].as_u64() > Some(0), "{told}");
    backup
        .restoring_the_repository()
        .run()
        .expect(0)
        .saying(&["would restore", "every byte was read, and it is whole"]);
    assert!(!backup.target().exists(), "a dry run made the target");
    assert_eq!(files::changed(&before, &files::contents(&backup.repository)), [""; 0]);
}

/// Turns a byte well behind the header, where only a reader of all of it sees that.
fn spoil(path: &Path) {
    files::flip(path, files::written_length(path) / 4 * 3);
}

#[test]
fn what_is_damaged_is_refused_as_a_restore_would() {
    let backup = Backup::make();
    spoil(&backup.snapshot);
    let shown = backup.snapshot.display().to_string();
    backup.restoring_the_file().run().expect(13).saying(&[&shown, "offset", "expected", "found"]);
    let objects = files::all(&backup.repository);
    let largest = objects.iter().max_by_key(|path| std::fs::metadata(path).map_or(0, |found| found.len()));
    spoil(largest.expect("objects"));
    let name = largest.and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy().into_owned();
    let told = backup.restoring_the_repository().run().expect(13);
    told.saying(&["is not whole", &name, "expected", "found", "choose another backup (cairn-backup list)"]);
    assert!(!backup.target().exists(), "a dry run made the target");
}

#[test]
fn without_the_right_key_it_says_so() {
    let backup = Backup::make();
    let other = backup.home.path().join("other");
    programs::generate_keyring(&other);
    let restore = Tool::restore().option("--dir", backup.target()).arg("--dry-run");
    let with_other = restore.clone().option("--encryption-key-file", &other);
    let repository = format!("file://{}", backup.repository.display());
    with_other.clone().option("--from", &backup.snapshot).run().expect(12).saying(&["key"]);
    with_other.option("--repo", &repository).run().expect(12).saying(&["key"]);
    restore.clone().option("--from", &backup.snapshot).run().expect(12).saying(&["key"]);
    restore.option("--repo", &repository).run().expect(12).saying(&["key"]);
}
