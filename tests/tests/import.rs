//! Data of Redis becomes a Cairn data directory: `.rdb` files, from a path and from MinIO, and append-only directories. What
//! redis-server holds is the measure: its digest, its encodings, what it says of streams.

use cairn_tests::counts;
use cairn_tests::encodings;
use cairn_tests::files;
use cairn_tests::minio::{BUCKET, Minio};
use cairn_tests::programs::{self, Done, Tool};
use cairn_tests::random::{self, Random};
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use cairn_tests::workload;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What a server holds.
#[derive(Debug, PartialEq)]
struct Held {
    digest: String,
    keys: Vec<std::collections::BTreeMap<String, Vec<String>>>,
    libraries: Vec<String>,
}

impl Held {
    fn by(server: &Server) -> Self {
        let mut client = server.connect();
        let digest = server.digest();
        let keys = [0, 1, 3, 9].map(|database| encodings::describe(&mut client, database)).into();
        Self { digest, keys, libraries: encodings::libraries(&mut client) }
    }
}

fn restore(from: impl AsRef<std::ffi::OsStr>, to: &Path) -> Tool {
    Tool::restore().option("--from", from).option("--dir", to).arg("--json")
}

/// The digest that a check of a directory gives, without a server.
fn checked(setup: &Setup, keyring: Option<&Path>) -> String {
    let check = Tool::new(programs::cairn("cairn-server")).arg("--check").arg(setup.dir()).arg("--digest");
    let check = match keyring {
        Some(keyring) => check.option("--encryption-key-file", keyring),
        None => check,
    };
    let said = check.run().expect(0).output();
    let is_digest = |word: &&str| word.len() == 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    said.split_whitespace().find(is_digest).unwrap_or_else(|| panic!("no digest in {said}")).to_owned()
}

fn feed(server: &Server, commands: &[workload::Command]) {
    let mut client = server.connect();
    for commands in commands.chunks(500) {
        client.pipeline(commands).expect("the dataset is taken");
    }
}

#[test]
fn a_file_with_every_encoding_becomes_a_directory() {
    let home = Home::new();
    let seed = random::seed("a_file_with_every_encoding_becomes_a_directory");
    let redis = Setup::redis(&home.path("redis")).start();
    encodings::fill(&mut redis.connect());
    feed(&redis, &workload::dataset(seed, counts::of(3_000, 60_000)));
    assert_eq!(redis.connect().ask("SAVE"), Value::ok());
    let expected = Held::by(&redis);
    let libraries = expected.libraries.len() as u64;
    let keyring = home.path("keyring");
    programs::generate_keyring(&keyring);
    for encrypted in [false, true] {
        let setup = Setup::cairn(&home.path(&format!("data-{encrypted}"))).journal("always");
        let tool = restore(home.path("redis/dump.rdb"), setup.dir());
        let (setup, tool) = if encrypted {
            (setup.key(&keyring), tool.option("--encryption-key-file", &keyring))
        } else {
            (setup, tool)
        };
        let document = tool.run().expect(0).json();
        assert_eq!(
            (&document["result"], document["libraries"].as_u64()),
            (&"ok".into(), Some(libraries)),
            "{document}"
        );
        assert_eq!(checked(&setup, encrypted.then_some(&keyring)), expected.digest, "seed {seed}");
        let cairn = setup.start();
        assert_eq!(Held::by(&cairn), expected, "seed {seed}");
        assert_eq!(cairn.connect().ask("FCALL area 0 3 4").integer(), 12);
        // It goes on from there, and survives a crash.
        cairn.connect().ask("SET more 1");
        let digest = cairn.digest();
        cairn.kill();
        assert_eq!(setup.start().digest(), digest);
    }
}

#[test]
fn how_keys_were_used_comes_along_and_stays() {
    let home = Home::new();
    for (policy, option, question) in
        [("allkeys-lfu", "FREQ", "OBJECT FREQ k"), ("allkeys-lru", "IDLETIME", "OBJECT IDLETIME k")]
    {
        let setup = Setup::redis(&home.path(policy)).with("maxmemory-policy", policy);
        let redis = setup.with("lfu-decay-time", "0").start();
        let mut client = redis.connect();
        client.ask("SET k value");
        let Value::Bulk(payload) = client.ask("DUMP k") else { panic!("a payload") };
        let restored =
            client.args(&[b"RESTORE", &b"k"[..], b"0", &payload, b"REPLACE", option.as_bytes(), b"200"]);
        assert_eq!(restored, Value::ok());
        client.ask("SAVE");
        let data = home.path(&format!("{policy}-data"));
        restore(home.path(policy).join("dump.rdb"), &data).run().expect(0);
        let setup = Setup::cairn(&data).with("maxmemory-policy", policy).with("lfu-decay-time", "0");
        let near = |found: i64| assert!((200..230).contains(&found), "{policy}: {found}");
        let cairn = setup.start();
        near(cairn.connect().ask(question).integer());
        // A snapshot of our own tells it too.
        cairn.bgsave();
        cairn.stop();
        near(setup.start().connect().ask(question).integer());
    }
}

/// Cuts the last file of an append-only directory, and gives its path.
fn last_file(dir: &Path) -> PathBuf {
    let mut incremental: Vec<_> =
        files::all(dir).into_iter().filter(|path| path.to_string_lossy().ends_with(".incr.aof")).collect();
    incremental.sort();
    incremental.pop().expect("a file of commands")
}

#[test]
fn an_append_only_directory_is_replayed() {
    let home = Home::new();
    let seed = random::seed("an_append_only_directory_is_replayed");
    for (preamble, stamps) in [("yes", "no"), ("no", "yes")] {
        let name = format!("redis-{preamble}");
        let setup = Setup::redis(&home.path(&name))
            .with("appendonly", "yes")
            .with("aof-use-rdb-preamble", preamble)
            .with("aof-timestamp-enabled", stamps);
        let redis = setup.start();
        encodings::fill(&mut redis.connect());
        let commands = workload::dataset(seed, counts::of(4_000, 60_000));
        let (first, second) = commands.split_at(commands.len() / 2);
        feed(&redis, first);
        redis.connect().ask("BGREWRITEAOF");
        let ended = cairn_tests::process::await_some(Duration::from_secs(30), || {
            (redis.info("aof_rewrite_in_progress")? == "0" && redis.info("aof_rewrite_scheduled")? == "0")
                .then_some(())
        });
        assert!(ended.is_some(), "the rewrite ends");
        feed(&redis, second);
        let mut client = redis.connect();
        for line in
            ["MULTI", "SET in:transaction 1", "INCR in:transaction", "SELECT 3", "SET there 1", "EXEC"]
        {
            client.ask(line);
        }
        redis.stop();
        // What Redis itself reads there: of a group's readers its files tell less than it knew.
        let again = setup.start();
        let expected = Held::by(&again);
        again.stop();
        for dir in [home.path(&name), home.path(&name).join("appendonlydir")] {
            let data = home.path("data");
            restore(&dir, &data).run().expect(0);
            let cairn = Setup::cairn(&data).start();
            assert_eq!(Held::by(&cairn), expected, "preamble {preamble}, seed {seed}");
            cairn.stop();
            std::fs::remove_dir_all(&data).expect("the directory can be removed");
        }
    }
}

#[test]
fn a_torn_tail_is_refused_or_left_out_as_redis_does() {
    let home = Home::new();
    let setup = Setup::redis(&home.path("redis")).with("appendonly", "yes").with("aof-load-truncated", "yes");
    let redis = setup.start();
    let mut client = redis.connect();
    for line in ["SET a 1", "SET b 2", "MULTI", "SET c 3", "RPUSH d 4 5", "EXEC", "SET e 6"] {
        client.ask(line);
    }
    redis.stop();
    let last = last_file(&home.path("redis"));
    let whole = std::fs::read(&last).expect("the file can be read");
    let exec = whole.windows(4).position(|bytes| bytes == b"EXEC").expect("a transaction");
    for cut in [whole.len() - 3, exec, exec - 12, 5] {
        std::fs::write(&last, &whole[..cut]).expect("the file can be cut");
        let data = home.path("data");
        let refused = restore(home.path("redis"), &data).run().expect(13);
        refused.saying(&["ends within a", "--load-truncated", "offset"]);
        assert!(!data.exists(), "a refusal leaves nothing");
        let accepted = restore(home.path("redis"), &data).arg("--load-truncated").run().expect(0);
        assert!(accepted.json()["torn_bytes"].as_u64() > Some(0), "{}", accepted.stdout);
        let ours = Setup::cairn(&data).start();
        let theirs = setup.clone().at(&home.path("again"));
        files::copy(&home.path("redis"), &home.path("again"));
        let theirs = theirs.start();
        assert_eq!(ours.digest(), theirs.digest(), "cut at {cut}");
        ours.stop();
        theirs.stop();
        std::fs::remove_dir_all(&data).expect("the directory can be removed");
        std::fs::remove_dir_all(home.path("again")).expect("the directory can be removed");
    }
    // Bytes that are no command are damage wherever they are, and so is a cut in a file that is not the last.
    std::fs::write(&last, [&whole[..], b"garbage\r\n"].concat()).expect("the file can be written");
    let damaged = restore(home.path("redis"), &home.path("data")).arg("--load-truncated").run();
    damaged.expect(13).saying(&["offset", "begins with '*'"]);
}

fn curl(minio: &Minio, args: &[&str]) {
    let env = minio.env();
    let value = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let user = format!("{}:{}", value("AWS_ACCESS_KEY_ID").unwrap(), value("AWS_SECRET_ACCESS_KEY").unwrap());
    let done = Command::new(programs::system("curl"))
        .args(["-sSf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user])
        .args(args)
        .output()
        .expect("curl runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn files_come_out_of_a_bucket() {
    let (home, minio) = (Home::new(), Minio::start());
    let redis = Setup::redis(&home.path("redis")).start();
    encodings::fill(&mut redis.connect());
    redis.connect().ask("SAVE");
    let file = home.path("redis/dump.rdb");
    let endpoint =
        minio.env().into_iter().find(|(name, _)| *name == "AWS_ENDPOINT_URL").expect("an endpoint").1;
    curl(&minio, &["-T", file.to_str().expect("UTF-8"), &format!("{endpoint}/{BUCKET}/exports/nightly.rdb")]);
    let data = home.path("data");
    restore(minio.url("exports/nightly.rdb"), &data).env(minio.env()).run().expect(0);
    let setup = Setup::cairn(&data);
    assert_eq!(checked(&setup, None), redis.digest());
    let gone = restore(minio.url("exports/none.rdb"), &home.path("none")).env(minio.env()).run();
    gone.expect(1).saying(&["exports/none.rdb"]);
    // A snapshot container in a bucket, which is read from its end.
    let container = files::named(&data, "snapshot-").remove(0);
    curl(
        &minio,
        &["-T", container.to_str().expect("UTF-8"), &format!("{endpoint}/{BUCKET}/exports/a.cairn")],
    );
    restore(minio.url("exports/a.cairn"), &home.path("from-container")).env(minio.env()).run().expect(0);
    assert_eq!(checked(&Setup::cairn(&home.path("from-container")), None), redis.digest());
}

/// `REDIS0009`, what stands in the file, the end and a checksum that is switched off.
fn handmade(path: &Path, records: &[u8]) {
    let bytes = [b"REDIS0009", records, &[0xff], &[0; 8]].concat();
    std::fs::write(path, bytes).expect("the file can be written");
}

#[test]
fn what_cannot_be_kept_is_refused_by_name_and_nothing_is_written() {
    let home = Home::new();
    let (file, data) = (home.path("a.rdb"), home.path("data"));
    let run = |more: &[&str]| {
        let tool = more.iter().fold(restore(&file, &data), |tool, argument| tool.arg(argument));
        let done: Done = tool.run();
        assert!(done.code == 0 || !data.exists(), "a refusal leaves nothing");
        done
    };
    // A key, then a value of the module "AAAAAAAAB" (six bits a letter) of one integer, then another key.
    let module = [0x81, 0, 0, 0, 0, 0, 0, 4, 0];
    let records = [&b"\x00\x01a\x011\x07\x01m"[..], &module, b"\x02\x05\x00\x00\x01b\x012"].concat();
    handmade(&file, &records);
    run(&[]).expect(1).saying(&["module AAAAAAAAB", "--skip-module-data"]);
    let skipped = run(&["--skip-module-data"]).expect(0).json();
    assert_eq!((&skipped["entries"], &skipped["module_values"]), (&2.into(), &1.into()), "{skipped}");
    std::fs::remove_dir_all(&data).expect("the directory can be removed");
    for (records, code, said) in [
        (&b"\x00\x01a\x011\x00\x01a\x012"[..], 13, "twice"),
        (b"\x1a\x01a", 1, "unknown"),
        (b"\x00\x01a\x3fabc", 13, "ends at offset"),
        (b"\xf5\x0b#!lua bad=a", 1, "function library"),
        (b"\xf6\x01a", 1, "release candidate"),
        (b"\x02\x01a\x02\x01x\x01x", 13, "twice"),
    ] {
        handmade(&file, records);
        run(&[]).expect(code).saying(&["a.rdb", said]);
    }
    std::fs::write(&file, "REDIS0099").expect("the file can be written");
    run(&[]).expect(1).saying(&["version 99"]);
    std::fs::write(&file, "no file of Redis").expect("the file can be written");
    run(&[]).expect(13).saying(&["not an RDB file"]);
    std::fs::create_dir(home.path("empty")).expect("a directory");
    restore(home.path("empty"), &data).run().expect(1).saying(&["no data"]);
}

#[test]
fn a_damaged_file_leaves_what_was_there() {
    let home = Home::new();
    let redis = Setup::redis(&home.path("redis")).start();
    encodings::fill(&mut redis.connect());
    redis.connect().ask("SAVE");
    let file = home.path("redis/dump.rdb");
    let whole = std::fs::read(&file).expect("the file can be read");
    let data = home.path("data");
    restore(&file, &data).run().expect(0);
    let before = files::contents(&data);
    restore(&file, &data).run().expect(1).saying(&["--force"]);
    let mut random = Random::new(random::seed("a_damaged_file_leaves_what_was_there"));
    for _ in 0..counts::of(8, 200) {
        let mut damaged = whole.clone();
        let at = 9 + random.below(whole.len() - 9);
        damaged[at] ^= 1 << random.below(8);
        std::fs::write(&file, damaged).expect("the file can be written");
        let done = restore(&file, &data).arg("--force").run();
        assert!(done.code == 13 || done.code == 1, "flip at {at}: {} {}", done.code, done.output());
        assert_eq!(files::contents(&data), before, "flip at {at}");
    }
    // The whole file takes the place of what is there.
    std::fs::write(&file, &whole).expect("the file can be written");
    restore(&file, &data).arg("--force").run().expect(0);
    assert_eq!(checked(&Setup::cairn(&data), None), redis.digest());
}

#[test]
fn a_restore_that_is_killed_is_run_again() {
    let home = Home::new();
    let redis = Setup::redis(&home.path("redis")).start();
    encodings::fill(&mut redis.connect());
    redis.connect().ask("DEBUG POPULATE 60000 key 200");
    redis.connect().ask("SAVE");
    let (file, digest) = (home.path("redis/dump.rdb"), redis.digest());
    let mut random = Random::new(random::seed("a_restore_that_is_killed_is_run_again"));
    for round in 0..counts::of(6, 60) {
        let data = home.path(&format!("data-{round}"));
        let mut child = Command::new(programs::cairn("cairn-restore"))
            .arg("--from")
            .arg(&file)
            .arg("--dir")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cairn-restore starts");
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        child.kill().expect("a child can be killed");
        let was_done = child.wait().expect("it ended").success() || data.join("manifest").exists();
        if !was_done {
            restore(&file, &data).run().expect(0);
        }
        assert_eq!(checked(&Setup::cairn(&data), None), digest, "round {round}");
        let known = |name: &str| ["lock", "manifest"].contains(&name) || name.starts_with("snapshot-");
        let names =
            std::fs::read_dir(&data).expect("the directory").map(|entry| entry.expect("a name").file_name());
        let strange: Vec<_> = names.filter(|name| !known(&name.to_string_lossy())).collect();
        assert!(was_done || strange.is_empty(), "{strange:?}");
    }
}

#[test]
fn a_server_is_seeded_from_a_file_and_begins_anew_where_a_restore_died() {
    let home = Home::new();
    let redis = Setup::redis(&home.path("redis")).start();
    encodings::fill(&mut redis.connect());
    redis.connect().ask("SAVE");
    let (file, digest) = (home.path("redis/dump.rdb"), redis.digest());
    let setup =
        Setup::cairn(&home.path("data")).journal("always").with("seed-from", file.to_str().expect("UTF-8"));
    let first = setup.start();
    assert_eq!(first.digest(), digest);
    first.connect().ask("SET more 1");
    let more = first.digest();
    first.stop();
    let again = setup.start();
    assert_eq!(again.digest(), more, "a directory that holds data is not seeded again");
    again.stop();

    // As a restore that died leaves it: files have their names, and nothing names them.
    std::fs::remove_dir_all(setup.dir()).expect("the directory can be removed");
    restore(&file, setup.dir()).run().expect(0);
    let snapshot = files::named(setup.dir(), "snapshot-").remove(0);
    let name = snapshot.file_name().expect("a name").to_str().expect("UTF-8");
    std::fs::remove_file(setup.dir().join("manifest")).expect("the manifest can be removed");
    let closed =
        setup.clone().without("seed-from").try_start().expect_err("nothing starts empty beside data");
    closed.expect(13, &["manifest", "cairn-restore"]);
    let refused = restore(&file, setup.dir()).run().expect(1);
    refused.saying(&[name, "--force"]);
    std::fs::write(setup.dir().join("restore.placing"), format!("{name}\n"))
        .expect("the note can be written");
    let seeded = setup.start();
    assert_eq!(seeded.digest(), digest);
    assert!(!setup.dir().join("restore.placing").exists());
}
