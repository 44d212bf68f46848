//! Point 5: a backup brings everything back after the data directory is gone, from a directory and from MinIO, and what comes
//! back is what Redis holds after the same commands.

use cairn_tests::counts;
use cairn_tests::files;
use cairn_tests::minio::{self, Minio};
use cairn_tests::programs::{self, Tool};
use cairn_tests::random;
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use cairn_tests::workload;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A repository and how the tools reach it.
struct Repository {
    url: String,
    env: Vec<(&'static str, String)>,
}

impl Repository {
    fn backup(&self, keyring: Option<&Path>) -> Tool {
        self.with_key(Tool::backup().option("--repo", &self.url), keyring)
    }

    fn restore(&self, keyring: Option<&Path>, to: &Path) -> Tool {
        self.with_key(Tool::restore().option("--repo", &self.url).option("--dir", to), keyring)
    }

    fn with_key(&self, tool: Tool, keyring: Option<&Path>) -> Tool {
        let tool = tool.env(self.env.clone());
        match keyring {
            Some(keyring) => tool.option("--encryption-key-file", keyring),
            None => tool,
        }
    }
}

struct Home {
    directory: tempfile::TempDir,
    keyring: Option<PathBuf>,
}

impl Home {
    fn new(encrypted: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keyring = encrypted.then(|| {
            let keyring = directory.path().join("keyring");
            programs::generate_keyring(&keyring);
            keyring
        });
        Self { directory, keyring }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn setup(&self, name: &str) -> Setup {
        let setup = Setup::cairn(&self.path(name)).journal("always");
        match &self.keyring {
            Some(keyring) => setup.key(keyring),
            None => setup,
        }
    }

    fn directory_repository(&self) -> Repository {
        Repository { url: format!("file://{}", self.path("repository").display()), env: Vec::new() }
    }
}

/// The identifiers of the backups that `list --json` shows.
fn listed(repository: &Repository) -> Vec<String> {
    let done = repository.backup(None).arg("list").arg("--json").run().expect(0);
    let document = done.json();
    let backups = document.get("backups").unwrap_or(&document);
    let backups =
        backups.as_array().unwrap_or_else(|| panic!("`{}` lists no array: {}", done.line, done.stdout));
    let id = |backup: &serde_json::Value| match backup.get("backup") {
        Some(serde_json::Value::String(id)) => id.clone(),
        other => panic!("a backup has a name, not {other:?}: {}", done.stdout),
    };
    backups.iter().map(id).collect()
}

fn feed(server: &Server, commands: &[workload::Command]) {
    let mut client = server.connect();
    for commands in commands.chunks(200) {
        client.pipeline(commands).expect("the dataset is taken");
    }
}

fn round_trip(repository: &Repository, home: &Home) {
    let keyring = home.keyring.as_deref();
    let seed = random::seed(&format!("round_trip of {}", repository.url));
    let commands = workload::dataset(seed, counts::of(6_000, 100_000));
    let redis = Setup::redis(&home.path("redis")).start();
    let setup = home.setup("data");
    let server = setup.start();
    let (first, second) = commands.split_at(commands.len() / 2);

    feed(&server, first);
    feed(&redis, first);
    let early = server.digest();
    assert_eq!(early, redis.digest(), "before any backup");
    let address = server.address().to_string();
    let create = || {
        repository
            .backup(keyring)
            .arg("create")
            .option("--dir", setup.dir())
            .option("--server", &address)
            .run()
    };
    create().expect(0);
    assert_eq!(listed(repository).len(), 1);

    feed(&server, second);
    feed(&redis, second);
    create().expect(0);
    let ids = listed(repository);
    assert_eq!(ids.len(), 2);
    repository.backup(keyring).arg("verify").run().expect(0);
    let digest = server.digest();
    assert_eq!(digest, redis.digest(), "after all commands");

    // The machine is gone.
    server.kill();
    std::fs::remove_dir_all(setup.dir()).expect("the data directory can be removed");
    repository.restore(keyring, setup.dir()).arg("--json").run().expect(0).json();
    let server = setup.start();
    assert_eq!(server.digest(), digest, "restored from {}", repository.url);
    // And it goes on from there, durably.
    assert_eq!(server.connect().ask("SET after:restore 1"), Value::ok());
    server.kill();
    assert_eq!(setup.start().connect().ask("GET after:restore").text(), "1");

    // An older backup by its name, whatever order the list has.
    let older = home.path("older");
    let found = ids.iter().any(|id| {
        if older.exists() {
            std::fs::remove_dir_all(&older).expect("a directory can be removed");
        }
        repository.restore(keyring, &older).option("--backup", id).run().expect(0);
        let server = home.setup("older").start();
        let found = server.digest() == early;
        server.stop();
        found
    });
    assert!(found, "none of {ids:?} gives the first digest");
}

#[test]
fn a_directory_brings_everything_back() {
    let home = Home::new(true);
    round_trip(&home.directory_repository(), &home);
}

#[test]
fn a_directory_brings_everything_back_unencrypted() {
    let home = Home::new(false);
    round_trip(&home.directory_repository(), &home);
}

#[test]
fn minio_brings_everything_back() {
    let home = Home::new(true);
    let minio = Minio::start();
    round_trip(&Repository { url: minio.url("some/prefix"), env: minio.env() }, &home);
}

/// Large enough for several parts of a multipart upload; the tools' memory must not grow with it.
#[test]
fn a_large_backup_streams() {
    let home = Home::new(true);
    let keyring = home.keyring.as_deref();
    let minio = Minio::start();
    let repository = Repository { url: minio.url("large"), env: minio.env() };
    let setup = home.setup("data").with("appendfsync", "no");
    let server = setup.start();
    let mut random = random::Random::new(3);
    let mut client = server.connect();
    let megabytes = counts::of(160, 1_024);
    for n in 0..megabytes {
        // Random bytes do not compress: the file is as large as the data.
        let value = random.bytes(1 << 20);
        assert_eq!(client.args(&[&b"SET"[..], format!("large:{n}").as_bytes(), &value]), Value::ok());
    }
    let digest = server.digest();
    let address = server.address().to_string();
    let create =
        repository.backup(keyring).arg("create").option("--dir", setup.dir()).option("--server", &address);
    let created = create.run().expect(0);
    server.kill();
    std::fs::remove_dir_all(setup.dir()).expect("the data directory can be removed");
    let restored = repository.restore(keyring, setup.dir()).run().expect(0);
    for done in [created, restored] {
        let peak = done.peak_kib >> 10;
        assert!(peak < 120, "`{}` took {peak} MiB of memory for {megabytes} MiB of data", done.line);
    }
    assert_eq!(setup.start().digest(), digest);
}

/// Where there is no repository the answer is 10; where no answer can be had it is 1.
#[test]
fn absent_and_unreachable_are_told_apart() {
    let home = Home::new(true);
    let keyring = home.keyring.as_deref();
    let nothing = home.directory_repository();
    nothing.backup(None).arg("list").run().expect(10);
    nothing.restore(keyring, &home.path("restored")).run().expect(10);

    let minio = Minio::start();
    let empty = Repository { url: minio.url("nothing/here"), env: minio.env() };
    empty.backup(None).arg("list").run().expect(10);
    empty.restore(keyring, &home.path("restored")).run().expect(10);
    let no_bucket = Repository { url: "s3://no-such-bucket/prefix".to_owned(), env: minio.env() };
    no_bucket.backup(None).arg("list").run().expect(10).saying(&["no-such-bucket"]);

    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, cairn_tests::server::free_port()));
    let mut env = minio::env(nowhere);
    env.push(("CAIRN_RETRY_SECONDS", "3".to_owned()));
    let unreachable = Repository { url: minio.url("x"), env };
    unreachable.backup(None).arg("list").run().expect(1);
    unreachable.restore(keyring, &home.path("restored")).run().expect(1);
    assert_eq!(
        files::data(&home.path("restored")),
        Vec::<PathBuf>::new(),
        "a restore that failed leaves nothing named"
    );
}
