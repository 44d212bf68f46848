//! The server and its backup's agent: it is kept running, told to end, waited for; its failures are seen by everyone who might
//! look, and the journal stays until it is archived. The agent is one that does as it is told.

use cairn_tests::files;
use cairn_tests::process::await_some;
use cairn_tests::programs;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A server beside programs that do as they are told.
struct Scene {
    home: tempfile::TempDir,
    setup: Setup,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("a directory can be made");
        link(&programs::cairn("cairn-server"), &bin.join("cairn-server"));
        for name in ["cairn-backup", "cairn-restore"] {
            link(Path::new(env!("CARGO_BIN_EXE_cairn-stand-in")), &bin.join(name));
        }
        let setup = Setup::cairn(&home.path().join("data"))
            .program(bin.join("cairn-server"))
            .env([("CAIRN_STAND_IN", home.path().to_str().expect("UTF-8").to_owned())])
            .journal("always");
        Self { home, setup }
    }

    /// The same with a backup.
    fn backed_up(agent: &str) -> Self {
        let mut scene = Self::new();
        scene.setup = scene.setup.with("backup-url", "file:///nowhere");
        scene.tell("agent", agent);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// Puts what a program is to do in its file, in one step.
    fn tell(&self, file: &str, what: &str) {
        fs::write(self.path("told"), what).expect("a file can be written");
        fs::rename(self.path("told"), self.path(file)).expect("a file can be renamed");
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A second name for a program, so that it finds others beside that one.
fn link(program: &Path, name: &Path) {
    if fs::hard_link(program, name).is_err() {
        fs::copy(program, name).expect("a program can be copied");
    }
}

#[track_caller]
fn await_info(server: &Server, field: &str, wanted: impl Fn(&str) -> bool) {
    let mut last = String::new();
    let found = await_some(SOON, || {
        last = server.info(field).expect("INFO has the field");
        wanted(&last).then_some(())
    });
    assert!(found.is_some(), "{field} is {last:?}:\n{}", server.log());
}

#[track_caller]
fn await_log(server: &Server, words: &str) {
    let found = await_some(SOON, || server.log().contains(words).then_some(()));
    assert!(found.is_some(), "the log should say {words:?}:\n{}", server.log());
}

fn set(client: &mut Client, key: &str) -> Value {
    client.ask(&format!("SET {key} 1"))
}

#[test]
fn the_agent_is_started_with_what_it_needs_and_ended_gently() {
    let scene = Scene::backed_up("follow");
    let keyring = scene.path("keyring");
    programs::generate_keyring(&keyring);
    let setup = scene.setup.clone().key(&keyring);
    let setup = setup.with("backup-interval", "250ms");
    let setup =
        setup.with("backup-schedule", "0 3 * * *").env([("AWS_SECRET_ACCESS_KEY", "hidden".to_owned())]);
    let server = setup.start();
    assert_eq!(set(&mut server.connect(), "a"), Value::ok());
    await_info(&server, "backup_last_success_unixtime", |value| value != "0");
    await_info(&server, "backup_lag_seconds", |value| value == "0.0");
    let durable = server.info("cairn_journal_durable_lsn").expect("a field");
    await_info(&server, "backup_archived_lsn", |value| value == durable);
    for (field, expected) in [
        ("backup_status", "ok"),
        ("backup_url", "file:///nowhere"),
        ("backup_lag_bytes", "0"),
        ("backup_last_error", ""),
        ("backup_last_verified_unixtime", "1700000000"),
        ("backup_stored_bytes", "4096"),
        ("backup_agent_restarts", "0"),
    ] {
        assert_eq!(server.info(field).as_deref(), Some(expected), "{field}");
    }
    assert_ne!(server.info("backup_agent_pid").as_deref(), Some("0"));

    let dir = scene.dir().display();
    let expected = format!("run --repo file:///nowhere --dir {dir} --interval 250ms --schedule 0 3 * * *");
    assert_eq!(scene.lines("starts"), [expected]);
    let environment = scene.lines("environment");
    assert!(
        environment.contains(&format!("CAIRN_ENCRYPTION_KEY_FILE={}", keyring.display())),
        "{environment:?}"
    );
    assert!(environment.contains(&"AWS_SECRET_ACCESS_KEY=hidden".to_owned()));

    // Other settings are another agent.
    assert_eq!(server.connect().ask("CONFIG SET backup-interval 2s"), Value::ok());
    let restarted = || (scene.lines("starts").len() == 2).then_some(());
    assert!(await_some(SOON, restarted).is_some(), "{}", server.log());
    assert!(scene.lines("starts")[1].contains("--interval 2s"));
    assert_eq!(scene.lines("ended"), ["asked to"]);

    server.stop();
    assert_eq!(scene.lines("ended").len(), 2, "the server waits for its agent");
}

#[test]
fn an_agent_that_does_not_end_is_killed_and_one_without_a_server_ends() {
    let scene = Scene::backed_up("stay");
    let server = scene.setup.clone().with("shutdown-timeout", "1").start();
    await_info(&server, "backup_agent_pid", |pid| pid != "0");
    server.stop();
    assert!(scene.lines("ended").is_empty());

    scene.tell("agent", "follow");
    let server = scene.setup.start();
    await_info(&server, "backup_lag_bytes", |value| value == "0");
    server.kill();
    assert!(await_some(SOON, || (scene.lines("ended").len() == 1).then_some(())).is_some());
}

#[test]
fn an_agent_that_fails_is_started_again_and_everybody_hears_of_it() {
    let scene = Scene::backed_up("fail 11 the repository is locked by another");
    let hook =
        format!("cat >> {0}; printf '%s\\n' \"$CAIRN_BACKUP_ERROR\" >> {0}", scene.path("hook").display());
    let server = scene.setup.clone().with("backup-on-failure", &hook).start();
    let error = "the repository is locked by another (exit code 11)";
    await_info(&server, "backup_last_error", |value| value == error);
    await_info(&server, "backup_status", |value| value == "failing");
    await_info(&server, "backup_agent_restarts", |value| {
        value.parse::<u32>().is_ok_and(|restarts| restarts >= 2)
    });
    assert_eq!(set(&mut server.connect(), "a"), Value::ok(), "the failure of a backup stops nobody");
    let told = await_some(SOON, || (scene.lines("hook").len() >= 2).then(|| scene.lines("hook")))
        .expect("the hook ran");
    let document: Json = serde_json::from_str(&told[0]).expect("one JSON document");
    assert_eq!((&document["event"], &document["error"]), (&"backup-failing".into(), &error.into()));
    assert_eq!(document["dir"], scene.dir().display().to_string());
    assert!(document["since_unix_ms"].is_u64() && document["lag_seconds"].is_number());
    assert_eq!(told[1], error);
    assert_ne!(server.info("backup_failing_since_unixtime").as_deref(), Some("0"));

    scene.tell("agent", "follow");
    await_info(&server, "backup_status", |value| value == "ok");
    await_log(&server, "the backup goes well again");
    assert_eq!(server.info("backup_last_error").as_deref(), Some(""));
    assert_eq!(
        scene.lines("hook").len(),
        2,
        "it is told on the change, not with every try:\n{}",
        server.log()
    );

    // What the agent itself reports is as bad, and another change.
    scene.tell("agent", "report the disk of the store is full");
    await_info(&server, "backup_last_error", |value| value == "the disk of the store is full");
    let again = || (scene.lines("hook").len() == 4).then_some(());
    assert!(await_some(SOON, again).is_some(), "{}", server.log());
    server.stop();
}

#[test]
fn an_agent_that_is_not_there_is_missed() {
    let scene = Scene::backed_up("follow");
    fs::remove_file(scene.path("bin/cairn-backup")).expect("a file can be removed");
    let server = scene.setup.clone().env([("PATH", "/usr/bin".to_owned())]).start();
    await_info(&server, "backup_last_error", |value| {
        value.contains("cairn-backup cannot be started") && value.contains("beside cairn-server and in PATH")
    });
    server.stop();
}

#[test]
fn writes_are_refused_while_the_backup_is_too_far_behind() {
    let scene = Scene::backed_up("lag");
    let server = scene.setup.clone().with("backup-max-lag", "1s").start();
    let mut client = server.connect();
    assert_eq!(set(&mut client, "a"), Value::ok(), "nothing is missing yet");
    let refusal =
        await_some(SOON, || Some(set(&mut client, "a")).filter(Value::is_error)).expect("a refusal");
    let Value::Error(text) = refusal else { unreachable!() };
    let text = String::from_utf8(text).expect("UTF-8");
    assert_eq!(
        text,
        "MISCONF the backup is further behind than backup-max-lag allows (1 s), so writes are refused; they resume by \
         themselves once it has caught up. INFO backup and the log say what keeps it"
    );
    assert_eq!(client.ask("GET a"), Value::bulk("1"), "reads go on");
    let Value::Error(not_ready) = client.ask("CAIRN READY") else { panic!("it is not ready") };
    assert!(String::from_utf8_lossy(&not_ready).contains("backup-behind"), "{}", not_ready.escape_ascii());
    assert_eq!(server.info("backup_writes_refused").as_deref(), Some("1"));
    assert!(server.info("backup_lag_seconds").expect("a field").parse::<f64>().expect("a number") >= 1.0);

    scene.tell("agent", "follow");
    assert!(await_some(SOON, || Some(set(&mut client, "b")).filter(|reply| *reply == Value::ok())).is_some());
    assert_eq!(server.info("backup_writes_refused").as_deref(), Some("0"));
    // The bound may be changed, and taken away.
    scene.tell("agent", "lag");
    assert_eq!(client.ask("CONFIG SET backup-max-lag 2s"), Value::ok());
    set(&mut client, "c");
    assert!(await_some(SOON, || Some(set(&mut client, "c")).filter(Value::is_error)).is_some());
    assert_eq!(client.ask("CONFIG SET backup-max-lag 0"), Value::ok());
    assert!(await_some(SOON, || Some(set(&mut client, "c")).filter(|reply| *reply == Value::ok())).is_some());
    server.stop();
}

/// A bound that nobody would ever exceed is no bound, and who sets it believes that there is one.
#[test]
fn a_bound_needs_a_backup_and_a_backup_a_journal() {
    let scene = Scene::new();
    let server = scene.setup.start();
    let said = |server: &Server, line: &str| match server.connect().ask(line) {
        Value::Error(text) => String::from_utf8_lossy(&text).into_owned(),
        reply => panic!("{line}: {reply:?}"),
    };
    assert!(
        said(&server, "CONFIG SET backup-max-lag 5s")
            .ends_with("it needs a backup-url: without one there is no backup")
    );
    server.stop();
    let scene = Scene::backed_up("follow");
    let server = scene.setup.start();
    assert!(
        said(&server, "CONFIG SET appendonly no")
            .contains("a backup follows the journal, so it needs appendonly yes")
    );
    assert_eq!(server.info("aof_enabled").as_deref(), Some("1"));
    server.stop();
}

fn segments(dir: &Path) -> Vec<u64> {
    files::named(dir, "journal-").iter().map(|path| files::lsn(path)).collect()
}

#[test]
fn journal_below_a_snapshot_stays_until_it_is_archived() {
    let scene = Scene::backed_up("lag");
    let server = scene.setup.start();
    let mut client = server.connect();
    for key in ["a", "b", "c"] {
        set(&mut client, key);
        server.bgsave();
    }
    set(&mut client, "d");
    assert_eq!(segments(scene.dir())[0], 0, "nothing is archived yet");
    await_info(&server, "cairn_journal_kept_bytes", |value| value != "0");
    server.kill();
    // A start keeps it too.
    let server = scene.setup.start();
    assert_eq!(segments(scene.dir())[0], 0);
    let snapshot: u64 = server.info("cairn_snapshot_lsn").expect("a field").parse().expect("a number");
    scene.tell("agent", "follow");
    let trimmed = || (segments(scene.dir())[0] == snapshot).then_some(());
    assert!(await_some(SOON, trimmed).is_some(), "{:?}\n{}", segments(scene.dir()), server.log());
    assert_eq!(server.info("cairn_journal_dropped_segments").as_deref(), Some("0"));
    let digest = server.digest();
    server.kill();
    let server = scene.setup.start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

#[test]
fn at_the_limit_the_oldest_journal_goes_loudly() {
    let scene = Scene::backed_up("lag");
    let server =
        scene.setup.clone().with("journal-segment-size", "1mb").with("journal-disk-limit", "8mb").start();
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    for round in 0..120 {
        assert_eq!(client.call(&["SET", &format!("k{}", round % 10), &value]).expect("a reply"), Value::ok());
        if round % 10 == 9 {
            server.bgsave();
        }
    }
    await_log(&server, "comes near journal-disk-limit");
    await_log(&server, "a segment of the journal went that is not archived");
    await_info(&server, "cairn_journal_dropped_segments", |value| value != "0");
    await_info(&server, "cairn_journal_disk_bytes", |value| {
        value.parse::<u64>().is_ok_and(|bytes| bytes < 8 << 20)
    });
    let digest = server.digest();
    server.kill();
    let server = scene.setup.start();
    assert_eq!(server.digest(), digest, "what recovery needs is never let go of");
    server.stop();
}

/// What recovery needs is beyond any limit: it is a snapshot that makes it unneeded, and until there is one it stays.
#[test]
fn at_the_limit_a_snapshot_is_taken_and_what_recovery_needs_stays() {
    let scene = Scene::backed_up("follow");
    let setup = scene.setup.clone().with("journal-segment-size", "1mb").with("journal-disk-limit", "4mb");
    let server = setup.with("auto-aof-rewrite-percentage", "0").start();
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    let mut write = |key: &str| assert_eq!(client.call(&["SET", key, &value]).expect("a reply"), Value::ok());
    (0..80).for_each(|_| write("a"));
    await_info(&server, "rdb_saves", |saves| saves != "0");
    server.await_snapshot();
    await_info(&server, "cairn_journal_disk_bytes", |bytes| {
        bytes.parse::<u64>().is_ok_and(|bytes| bytes < 4 << 20)
    });
    // The next snapshot takes its time.
    server.connect().ask("CONFIG SET rdb-key-save-delay 20000000");
    (0..80).for_each(|_| write("b"));
    await_info(&server, "rdb_bgsave_in_progress", |running| running == "1");
    await_info(&server, "cairn_journal_disk_bytes", |bytes| {
        bytes.parse::<u64>().is_ok_and(|bytes| bytes > 6 << 20)
    });
    let digest = server.digest();
    server.kill();
    let server = scene.setup.start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

#[test]
fn an_empty_directory_is_filled_and_one_with_data_is_not() {
    let scene = Scene::new();
    let source = Setup::cairn(&scene.path("source")).journal("always");
    let server = source.start();
    set(&mut server.connect(), "seeded");
    server.stop();
    scene.tell("restore", &format!("fill {}", source.dir().display()));
    let seeded =
        scene.setup.clone().with("seed-from", "s3://bucket/prefix").with("seed-time", "2026-11-23T10:15:04Z");
    let server = seeded.start();
    assert_eq!(server.connect().ask("EXISTS seeded").integer(), 1);
    let dir = scene.dir().display();
    let expected = format!("--repo s3://bucket/prefix --time 2026-11-23T10:15:04Z --dir {dir}");
    assert_eq!(scene.lines("starts"), [expected]);
    set(&mut server.connect(), "own");
    server.stop();
    let server = seeded.start();
    assert_eq!(server.connect().ask("EXISTS seeded own").integer(), 2);
    assert_eq!(scene.lines("starts").len(), 1, "a directory with data is its own");
    server.stop();
}

#[test]
fn a_server_that_was_to_be_filled_does_not_start_empty() {
    let scene = Scene::new();
    let seeded = scene.setup.clone().with("seed-from", "s3://bucket/prefix");
    scene.tell("restore", "fail 14 no backup reaches back that far");
    let refusal = seeded.try_start().expect_err("it is not filled");
    refusal.expect(
        14,
        &["seed-from s3://bucket/prefix", "no backup reaches back that far", "does not start empty"],
    );
    scene.tell("restore", "fail 10 there is no repository");
    let refusal = seeded.try_start().expect_err("it is not filled");
    refusal.expect(10, &["there is no repository", "or-empty"]);
    assert!(!scene.dir().join("manifest").exists());
    // Where that is said to be fine, and only that.
    let fine = seeded.clone().with("seed-from", "s3://bucket/prefix or-empty");
    scene.tell("restore", "fail 1 the store cannot be reached");
    fine.try_start().expect_err("it is not filled").expect(1, &["the store cannot be reached"]);
    scene.tell("restore", "fail 10 there is no repository");
    fine.start().stop();
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data"));
    let url = |setup: &Setup| setup.clone().with("backup-url", "file:///nowhere");
    for (setup, words) in [
        (url(&setup), "it needs appendonly yes"),
        (setup.clone().with("backup-max-lag", "5s"), "it needs a backup-url"),
        (setup.clone().with("seed-time", "2026-11-23T10:15:04Z"), "it needs a seed-from"),
        (setup.clone().with("backup-url", "s3://key:secret@bucket/p"), "credentials do not belong in a URL"),
        (url(&setup).with("backup-schedule", "daily"), "five fields of cron"),
    ] {
        let refusal = setup.try_start().expect_err("it is refused");
        refusal.expect(2, &[words]);
        assert!(!refusal.log.contains("secret"), "{}", refusal.log);
    }
    let server = setup.journal("always").start();
    for line in ["CONFIG SET backup-url file:///elsewhere", "CONFIG SET backup-on-failure reboot"] {
        assert!(
            matches!(server.connect().ask(line), Value::Error(text) if text.ends_with(b"immutable config")),
            "{line}"
        );
    }
    server.stop();
}
