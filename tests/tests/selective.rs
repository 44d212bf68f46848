//! Some of the keys of a backup or a file, under other names perhaps, into a directory, a `.rdb` file or a server that runs.

use cairn_tests::counts;
use cairn_tests::programs::{self, Done, Tool};
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A repository with one backup: a snapshot and a journal behind it, encrypted.
struct Origin {
    home: tempfile::TempDir,
    keyring: PathBuf,
    repository: String,
}

impl Origin {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let keyring = home.path().join("keyring");
        programs::generate_keyring(&keyring);
        let repository = format!("file://{}", home.path().join("repository").display());
        let setup = Setup::cairn(&home.path().join("origin")).journal("always").key(&keyring);
        let cairn = setup.start();
        let mut client = cairn.connect();
        let fill = |client: &mut cairn_tests::resp::Client, from: usize| {
            for number in from..from + 500 {
                client.ask(&format!("SET user:{number} name:{number}"));
                client.ask(&format!("HSET order:{number} user {number}"));
            }
            client.ask("PEXPIREAT user:7 4102444800123");
        };
        fill(&mut client, 0);
        client.ask("SELECT 3");
        client.ask("RPUSH user:list a b c");
        client.ask("SELECT 0");
        client.args(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('f', function() return 1 end)",
        ]);
        let create = Tool::backup().option("--repo", &repository).arg("create").option("--dir", setup.dir());
        let create = create.option("--encryption-key-file", &keyring);
        cairn.bgsave();
        fill(&mut client, 500);
        create.run().expect(0);
        Self { home, keyring, repository }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn restore(&self, more: &[&str]) -> Done {
        self.tool(more).run()
    }

    fn tool(&self, more: &[&str]) -> Tool {
        let tool =
            Tool::restore().option("--repo", &self.repository).option("--encryption-key-file", &self.keyring);
        more.iter().fold(tool.arg("--json"), |tool, argument| tool.arg(argument))
    }

    fn cairn(&self, dir: &str) -> Server {
        Setup::cairn(&self.path(dir)).key(&self.keyring).start()
    }
}

fn count(server: &Server, database: u16, pattern: &str) -> usize {
    let mut client = server.connect();
    client.ask(&format!("SELECT {database}"));
    client.ask(&format!("KEYS {pattern}")).items().len()
}

fn size(server: &Server) -> i64 {
    server.connect().ask("DBSIZE").integer()
}

#[test]
fn chosen_keys_become_a_directory() {
    let origin = Origin::new();
    let to = |name: &str| origin.path(name).to_str().expect("UTF-8").to_owned();
    let chosen = origin.restore(&["--dir", &to("users"), "--keys", "user:*"]).expect(0).json();
    assert_eq!((&chosen["entries"], &chosen["left_out"]), (&1_001.into(), &1_000.into()), "{chosen}");
    let users = origin.cairn("users");
    assert_eq!((count(&users, 0, "user:*"), size(&users), count(&users, 3, "*")), (1_000, 1_000, 1));
    assert_eq!(users.connect().ask("PEXPIRETIME user:7").integer(), 4_102_444_800_123);
    assert_eq!(users.connect().ask("FUNCTION LIST").items().len(), 0, "libraries are no keys");

    origin.restore(&["--dir", &to("third"), "--db", "3", "--rename-prefix", "user:=u/"]).expect(0);
    let third = origin.cairn("third");
    assert_eq!((size(&third), count(&third, 3, "u/list")), (0, 1));

    origin.restore(&["--dir", &to("renamed"), "--rename-prefix", "user:=staging:user:"]).expect(0);
    let renamed = origin.cairn("renamed");
    assert_eq!((count(&renamed, 0, "staging:user:*"), count(&renamed, 0, "order:*")), (1_000, 1_000));
    assert_eq!(renamed.connect().ask("FCALL f 0").integer(), 1);

    let one = origin.restore(&["--dir", &to("one"), "--rename-prefix", "user:=order:"]);
    one.expect(2).saying(&["one name"]);
    assert!(!origin.path("one").exists());
    origin.restore(&["--dir", &to("users"), "--keys", "a*"]).expect(1).saying(&["--force"]);
    let dry = origin.restore(&["--dir", &to("dry"), "--keys", "order:9*", "--dry-run"]).expect(0).json();
    assert_eq!(dry["entries"], 111, "{dry}");
    assert!(!origin.path("dry").exists());
    let keyless = Tool::restore().option("--repo", &origin.repository).option("--dir", to("keyless"));
    keyless.option("--keys", "a*").run().expect(12);
}

#[test]
fn chosen_keys_become_a_file_and_go_into_servers_that_run() {
    let origin = Origin::new();
    let file = origin.path("users.rdb");
    origin
        .restore(&["--to-rdb", file.to_str().expect("UTF-8"), "--keys", "user:1*", "--keys", "order:2*"])
        .expect(0);
    std::fs::create_dir(origin.path("loaded")).expect("a directory");
    std::fs::copy(&file, origin.path("loaded/dump.rdb")).expect("the file can be copied");
    let loaded = Setup::redis(&origin.path("loaded")).start();
    assert_eq!((size(&loaded), count(&loaded, 0, "user:1*"), count(&loaded, 0, "order:2*")), (222, 111, 111));

    let socket = origin.path("redis.sock");
    let redis = Setup::redis(&origin.path("redis"))
        .with("requirepass", "sesame")
        .with("unixsocket", socket.to_str().expect("UTF-8"));
    let redis = redis.start();
    let address = redis.address().to_string();
    let unlocked = |tool: Tool| tool.env([("CAIRN_TO_PASSWORD", "sesame".to_owned())]);
    origin.restore(&["--to", &address]).expect(1).saying(&["CAIRN_TO_PASSWORD"]);
    let first = unlocked(origin.tool(&["--to", &address, "--keys", "user:*"])).run().expect(0).json();
    assert_eq!((&first["written"], &first["same"]), (&1_001.into(), &0.into()), "{first}");

    // Again: what is there is found to be the same. All of it, by a socket: only the rest is written.
    let by_socket = format!("unix://{}", socket.display());
    let rest = unlocked(origin.tool(&["--to", &by_socket])).run().expect(0).json();
    assert_eq!(
        (&rest["written"], &rest["same"], &rest["different"]),
        (&1_000.into(), &1_001.into(), &0.into())
    );
    let mut client = cairn_tests::resp::Client::connect(redis.address()).expect("a connection");
    client.ask("AUTH sesame");
    assert_eq!(client.ask("FCALL f 0"), Value::Integer(1));
    assert_eq!(client.ask("PEXPIRETIME user:7"), Value::Integer(4_102_444_800_123));

    // A key of the server's own stays, unless it is to be replaced.
    client.ask("SET user:1 mine");
    client.ask("PERSIST user:7");
    let kept = unlocked(origin.tool(&["--to", &address])).run().expect(3).json();
    assert_eq!((&kept["result"], &kept["different"]), (&"partly done".into(), &2.into()), "{kept}");
    assert_eq!(client.ask("GET user:1"), Value::bulk("mine"));
    unlocked(origin.tool(&["--to", &format!("redis://default@{address}"), "--force"])).run().expect(0);
    assert_eq!(client.ask("GET user:1"), Value::bulk("name:1"));
    origin.restore(&["--to", &format!("redis://default:sesame@{address}")]).expect(2).saying(&["everybody"]);
    origin.restore(&["--to", &format!("rediss://{address}")]).expect(2).saying(&["TLS"]);

    // A Cairn is a server too, and holds in the end what the backup does.
    let cairn = Setup::cairn(&origin.path("cairn")).journal("always").start();
    origin.restore(&["--to", &cairn.address().to_string()]).expect(0);
    origin.restore(&["--dir", origin.path("whole").to_str().expect("UTF-8")]).expect(0);
    assert_eq!(cairn.digest(), origin.cairn("whole").digest());
}

#[test]
fn a_restore_into_a_server_that_was_cut_off_goes_on() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = Setup::redis(&home.path().join("source")).start();
    source.connect().ask("DEBUG POPULATE 60000 key 300");
    source.connect().ask("SAVE");
    let file = home.path().join("source/dump.rdb");
    for round in 0..counts::of(2, 20) {
        let target = Setup::redis(&home.path().join(format!("target-{round}"))).start();
        let address = target.address().to_string();
        let mut child = Command::new(programs::cairn("cairn-restore"))
            .arg("--from")
            .arg(&file)
            .args(["--to", &address])
            .stdout(Stdio::null())
            .spawn()
            .expect("cairn-restore starts");
        let begun =
            cairn_tests::process::await_some(Duration::from_secs(30), || (size(&target) > 0).then_some(()));
        assert!(begun.is_some(), "the first keys arrive");
        child.kill().expect("a child can be killed");
        child.wait().expect("it ended");
        let there = size(&target);
        let done =
            Tool::restore().option("--from", &file).option("--to", &address).arg("--json").run().expect(0);
        let (written, same) = (done.json()["written"].as_u64(), done.json()["same"].as_u64());
        assert_eq!(written.zip(same).map(|(written, same)| written + same), Some(60_000));
        assert!(same >= Some(there as u64), "{same:?} of {there}");
        assert_eq!(target.digest(), source.digest());
    }
}
