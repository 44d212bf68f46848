//! What Cairn holds becomes a `.rdb` file that redis-check-rdb and redis-server accept, encodings included, and the way back
//! gives the same again.

use cairn_tests::counts;
use cairn_tests::encodings;
use cairn_tests::programs::{self, Tool};
use cairn_tests::random;
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use cairn_tests::workload;
use std::path::{Path, PathBuf};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A redis-server that has loaded a file, which redis-check-rdb accepts.
fn loaded(file: &Path, dir: &Path, setup: impl Fn(Setup) -> Setup) -> Server {
    Tool::new(programs::system("redis-check-rdb")).arg(file).run().expect(0).saying(&["RDB looks OK"]);
    std::fs::create_dir_all(dir).expect("a directory");
    std::fs::copy(file, dir.join("dump.rdb")).expect("the file can be copied");
    setup(Setup::redis(dir)).start()
}

fn described(server: &Server) -> String {
    let mut client = server.connect();
    let keys = [0, 1, 3, 9].map(|database| encodings::describe(&mut client, database));
    format!("{keys:#?}\n{:?}", encodings::libraries(&mut client))
}

fn export(file: &Path) -> Tool {
    Tool::backup().arg("export").option("--rdb", file).arg("--json")
}

#[test]
fn every_encoding_goes_to_redis_and_comes_back() {
    let home = Home::new();
    let seed = random::seed("every_encoding_goes_to_redis_and_comes_back");
    let setup = Setup::cairn(&home.path("data")).journal("always");
    let cairn = setup.start();
    encodings::fill(&mut cairn.connect());
    cairn.bgsave();
    // Behind the snapshot, so that a journal is replayed.
    let mut client = cairn.connect();
    for commands in workload::dataset(seed, counts::of(3_000, 60_000)).chunks(500) {
        client.pipeline(commands).expect("the dataset is taken");
    }
    let (digest, expected) = (cairn.digest(), described(&cairn));

    // While the server runs, and once it has stopped.
    let (live, still) = (home.path("live.rdb"), home.path("still.rdb"));
    let document = export(&live).option("--dir", setup.dir()).run().expect(0).json();
    assert_eq!((&document["result"], &document["encrypted"]), (&"ok".into(), &false.into()), "{document}");
    cairn.stop();
    export(&still).option("--dir", setup.dir()).run().expect(0);
    for file in [&live, &still] {
        let redis = loaded(file, &file.with_extension("redis"), |setup| setup);
        assert_eq!(redis.digest(), digest, "seed {seed}");
        assert_eq!(described(&redis), expected, "seed {seed}");
        assert_eq!(redis.connect().ask("FCALL area 0 3 4").integer(), 12);
        // Back again, by a file of Redis's own.
        redis.connect().ask("SAVE");
        let back = Setup::cairn(&file.with_extension("back"));
        let from = file.with_extension("redis").join("dump.rdb");
        Tool::restore().option("--from", from).option("--dir", back.dir()).run().expect(0);
        let back = back.start();
        assert_eq!((back.digest(), described(&back)), (digest.clone(), expected.clone()), "seed {seed}");
    }
    export(&still).option("--dir", setup.dir()).run().expect(1).saying(&["still.rdb", "--force"]);
    export(&still).option("--dir", setup.dir()).arg("--force").run().expect(0);
}

#[test]
fn a_backup_that_is_encrypted_is_exported_with_a_warning() {
    let home = Home::new();
    let (keyring, repository) =
        (home.path("keyring"), format!("file://{}", home.path("repository").display()));
    programs::generate_keyring(&keyring);
    let setup = Setup::cairn(&home.path("data")).journal("always").key(&keyring);
    let cairn = setup.start();
    encodings::fill(&mut cairn.connect());
    let first = cairn.digest();
    let create = || {
        let create = Tool::backup().option("--repo", &repository).arg("create").option("--dir", setup.dir());
        let address = cairn.address().to_string();
        let made =
            create.option("--encryption-key-file", &keyring).option("--server", &address).arg("--json").run();
        made.expect(0).json()["backup"].as_str().expect("its name").to_owned()
    };
    let id = create();
    cairn.connect().ask("SET later 1");
    create();
    let file = home.path("a.rdb");
    let from = |file: &Path| export(file).option("--repo", &repository);
    from(&file).run().expect(12);
    assert!(!file.exists());
    let with_key = |tool: Tool| tool.option("--encryption-key-file", &keyring);
    with_key(from(&file)).run().expect(0).saying(&["not: whoever can read the file can read the data"]);
    assert_eq!(loaded(&file, &home.path("newest"), |setup| setup).digest(), cairn.digest());
    let old = home.path("old.rdb");
    with_key(from(&old).option("--backup", &id)).run().expect(0);
    assert_eq!(loaded(&old, &home.path("old"), |setup| setup).digest(), first);
    // A dry run reads it all and writes nothing.
    let dry = home.path("dry.rdb");
    let document = with_key(from(&dry)).arg("--dry-run").run().expect(0).json();
    assert!(document["entries"].as_u64() > Some(20) && !dry.exists(), "{document}");
}

#[test]
fn fields_that_expire_need_a_redis_that_knows_them() {
    let home = Home::new();
    let setup = Setup::cairn(&home.path("data")).journal("always");
    let cairn = setup.start();
    let mut client = cairn.connect();
    for line in ["HSET small a 1 b 2 c 3", "HPEXPIREAT small 4102444800123 FIELDS 1 b", "SET text value"] {
        client.ask(line);
    }
    for number in 0..700 {
        client.ask(&format!("HSET large field:{number} {number}"));
    }
    client.ask("HPEXPIREAT large 4102444800456 FIELDS 2 field:1 field:2");
    let digest = cairn.digest();
    cairn.stop();
    let file = home.path("a.rdb");
    export(&file).option("--dir", setup.dir()).run().expect(1).saying(&["7.4", "--redis-version"]);
    assert!(!file.exists(), "a refusal leaves nothing");
    export(&file).option("--dir", setup.dir()).option("--redis-version", "7.4").run().expect(0);
    assert!(std::fs::read(&file).expect("the file").starts_with(b"REDIS0012"));
    let back = Setup::cairn(&home.path("back"));
    Tool::restore().option("--from", &file).option("--dir", back.dir()).run().expect(0);
    let back = back.start();
    assert_eq!(back.digest(), digest);
    let at = back.connect().ask("HPEXPIRETIME small FIELDS 3 a b c").items();
    assert_eq!(at, [-1, 4_102_444_800_123, -1].map(Value::Integer));
    let at = back.connect().ask("HPEXPIRETIME large FIELDS 2 field:1 field:3").items();
    assert_eq!(at, [4_102_444_800_456, -1].map(Value::Integer));
}

#[test]
fn how_often_keys_are_used_is_exported() {
    let home = Home::new();
    let lfu = |setup: Setup| setup.with("maxmemory-policy", "allkeys-lfu").with("lfu-decay-time", "0");
    let setup = lfu(Setup::cairn(&home.path("data")));
    let cairn = setup.start();
    let mut client = cairn.connect();
    client.ask("SET k value");
    let Value::Bulk(payload) = client.ask("DUMP k") else { panic!("a payload") };
    client.args(&[b"RESTORE", &b"k"[..], b"0", &payload, b"REPLACE", b"FREQ", b"150"]);
    assert_eq!(client.ask("SAVE"), Value::ok());
    cairn.stop();
    let file = home.path("a.rdb");
    export(&file).option("--dir", setup.dir()).run().expect(0);
    let redis = loaded(&file, &home.path("redis"), lfu);
    assert_eq!(redis.connect().ask("OBJECT FREQ k").integer(), 150);
}
