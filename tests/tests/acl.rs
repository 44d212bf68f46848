//! Users and what they may do, beside redis-server: the same requests in the same order, and the same replies.

use cairn_tests::process::await_some;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Both servers, and connections to them by name.
struct Both {
    cairn: Server,
    redis: Server,
    dirs: [PathBuf; 2],
    clients: BTreeMap<String, [Client; 2]>,
    _home: tempfile::TempDir,
}

impl Both {
    fn start() -> Self {
        Self::with(|setup, _| setup)
    }

    /// `change` is given each server's directory too.
    fn with(change: impl Fn(Setup, &Path) -> Setup) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let start = |setup: Setup| {
            let dir = setup.dir().to_owned();
            fs::create_dir_all(&dir).expect("the data directory can be made");
            (change(setup, &dir).start(), dir)
        };
        let (cairn, ours) = start(Setup::cairn(&home.path().join("cairn")).with("appendonly", "no"));
        let (redis, theirs) = start(Setup::redis(&home.path().join("redis")));
        Self { cairn, redis, dirs: [ours, theirs], clients: BTreeMap::new(), _home: home }
    }

    /// Sends a line to both by the connection of this name, a new one at first.
    fn ask(&mut self, client: &str, line: &str) -> [Value; 2] {
        let [cairn, redis] = self
            .clients
            .entry(client.to_owned())
            .or_insert_with(|| [self.cairn.connect(), self.redis.connect()]);
        [cairn.ask(line), redis.ask(line)]
    }

    /// Each line is a connection's name, a colon and a request; the replies must be the same.
    #[track_caller]
    fn same(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (client, request) = line.split_once(": ").expect("a connection and a request");
            let [ours, theirs] = self.ask(client, request).map(rules_in_order);
            assert_eq!(ours, theirs, "{line}");
        }
    }

    /// Both servers have ended this connection.
    #[track_caller]
    fn ended(&mut self, client: &str) {
        let mut clients = self.clients.remove(client).expect("a connection of this name");
        for client in &mut clients {
            client.until_closed().expect("the connection should have been ended");
        }
    }
}

/// A configuration file of one line.
fn configured(setup: Setup, dir: &Path, line: &str) -> Setup {
    let file = dir.join("server.conf");
    fs::create_dir_all(dir).expect("a directory");
    fs::write(&file, format!("{line}\n")).expect("a configuration");
    setup.config(&file)
}

/// Redis writes single commands in no certain order; and a connection's number is each server's own.
fn rules_in_order(value: Value) -> Value {
    let pair = |(name, value)| (name, rules_in_order(value));
    match value {
        Value::Bulk(bytes) if bytes.windows(4).any(|part| part == b"@all") => {
            let mut words: Vec<&[u8]> = bytes.split(|c| *c == b' ').collect();
            words.sort_unstable();
            Value::Bulk(words.join(&b' '))
        }
        Value::Array(mut items) if items.first() == Some(&Value::bulk("server")) => {
            items.retain(|item| !matches!(item, Value::Integer(_)));
            Value::Array(items)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(rules_in_order).collect()),
        Value::Map(mut pairs) => {
            pairs.retain(|(name, _)| *name != Value::bulk("id"));
            Value::Map(pairs.into_iter().map(pair).collect())
        }
        other => other,
    }
}

#[test]
fn users_are_made_and_told_of_as_in_redis() {
    Both::start().same(
        "a: ACL WHOAMI
        a: ACL USERS
        a: ACL LIST
        a: ACL GETUSER default
        a: ACL GETUSER nobody
        a: ACL SETUSER alice
        a: ACL LIST
        a: ACL GETUSER alice
        a: ACL SETUSER alice on >one >two >one ~a* %R~b* %W~c* %RW~d* %r~d* &news +get +set +@hash
        a: ACL GETUSER alice
        a: ACL LIST
        a: ACL SETUSER alice <one !ff
        a: ACL SETUSER alice <one
        a: ACL SETUSER alice <one
        a: ACL SETUSER alice #34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6
        a: ACL SETUSER alice #34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4eQ
        a: ACL GETUSER alice
        a: ACL SETUSER alice !34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6
        a: ACL SETUSER alice resetkeys resetchannels allkeys allchannels -@all +@all -set -config +config|get
        a: ACL GETUSER alice
        a: ACL SETUSER alice ~more
        a: ACL SETUSER alice &more
        a: ACL SETUSER alice (+get ~x %R~y) (+set ~z)
        a: ACL SETUSER alice ( +del ~q )
        a: ACL SETUSER alice (+get
        a: ACL SETUSER alice )
        a: ACL SETUSER alice (~* ~x)
        a: ACL SETUSER alice (nonsense)
        a: ACL GETUSER alice
        a: ACL LIST
        a: ACL SETUSER alice clearselectors sanitize-payload
        a: ACL GETUSER alice
        a: ACL SETUSER alice skip-sanitize-payload nopass
        a: ACL GETUSER alice
        a: ACL SETUSER alice reset
        a: ACL GETUSER alice
        a: ACL SETUSER alice +nope
        a: ACL SETUSER alice +@nope
        a: ACL SETUSER alice +config|nope
        a: ACL SETUSER alice -config|nope
        a: ACL SETUSER alice +get|a|b
        a: ACL SETUSER alice -get|a
        a: ACL SETUSER alice +config|get|x
        a: ACL SETUSER alice +debug|
        a: ACL SETUSER alice %X~a
        a: ACL SETUSER alice +select|0 +select|1 +object|freq
        a: ACL GETUSER alice
        a: ACL SETUSER alice +select +object
        a: ACL GETUSER alice
        a: ACL SETUSER alice allcommands -@dangerous nocommands +@read ALLKEYS ON
        a: ACL GETUSER alice
        a: ACL SETUSER bob on nopass
        a: ACL USERS
        a: ACL DELUSER alice nobody bob
        a: ACL DELUSER default bob
        a: ACL USERS
        a: HELLO 3
        a: ACL GETUSER default
        a: ACL GETUSER nobody",
    );
}

#[test]
fn what_has_no_form_is_refused_as_in_redis() {
    Both::start().same(
        "a: ACL
        a: ACL NOPE
        a: ACL CAT
        a: ACL CAT nope
        a: ACL CAT a b
        a: ACL CAT @read
        a: ACL SETUSER
        a: ACL WHOAMI x
        a: ACL GENPASS 0
        a: ACL GENPASS -5
        a: ACL GENPASS 4097
        a: ACL GENPASS x
        a: ACL GENPASS 1 2
        a: ACL LOG x
        a: ACL LOG 1 2
        a: ACL LOG -1
        a: ACL LOG RESET
        a: ACL LOAD
        a: ACL SAVE
        a: ACL HELP x
        a: ACL DRYRUN default
        a: ACL DRYRUN nobody get x
        a: ACL DRYRUN default nope x
        a: ACL DRYRUN default config nope
        a: ACL DRYRUN default config
        a: ACL DRYRUN default get
        a: ACL DRYRUN default get x
        a: AUTH
        a: AUTH x
        a: AUTH a b c
        a: AUTH nobody x
        a: AUTH default x
        a: HELLO 2 AUTH nobody x",
    );
    let mut both = Both::start();
    for (bits, length) in [("", 64), (" 1", 1), (" 5", 2), (" 4096", 1024)] {
        for reply in both.ask("a", &format!("ACL GENPASS{bits}")) {
            let text = reply.text();
            assert!(text.len() == length && text.bytes().all(|c| c.is_ascii_hexdigit()), "{text}");
        }
    }
    let tabbed: [&[u8]; 4] = [b"ACL", b"SETUSER", b"a\tb", b"on"];
    let replies =
        both.clients.get_mut("a").expect("a connection").each_mut().map(|client| client.args(&tabbed));
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn commands_keys_and_channels_are_allowed_as_in_redis() {
    Both::start().same(
        "a: ACL SETUSER u on >pw
        u: AUTH u wrong
        u: AUTH u pw
        u: ACL WHOAMI
        u: GET x
        u: PING
        u: CONFIG GET maxmemory
        a: ACL SETUSER u +@all ~foo:* %R~read* %W~write*
        u: ACL WHOAMI
        u: SET foo:1 a
        u: SET bar a
        u: GET read1
        u: SET read1 x
        u: SET write1 x
        u: SET write1 x GET
        u: GET write1
        u: EXISTS write1
        u: EXISTS read1 write1 foo:9
        u: EXISTS read1 other
        u: MGET foo:1 read1 other
        u: COPY read1 write1
        u: COPY write1 read1
        u: RENAME foo:1 foo:2
        u: RENAME foo:2 read1
        u: STRLEN write1
        u: ZUNIONSTORE write2 2 read1 read2
        u: ZUNIONSTORE read1 1 read2
        u: ZUNION 2 read1 other
        u: ZUNION 9 other
        u: OBJECT ENCODING write1
        u: OBJECT ENCODING other
        u: LMPOP 1 other LEFT
        u: DEL foo:1 read1
        u: UNLINK write1
        u: DBSIZE
        u: KEYS *
        a: ACL SETUSER u -@all +acl|whoami +config -config|set +select|0 +@string
        u: CONFIG GET hz
        u: CONFIG SET hz 10
        u: CONFIG NOPE
        u: SELECT 0
        u: SELECT 1
        u: DEL foo:1
        u: APPEND foo:1 x
        u: AUTH u pw
        u: HELLO 2
        u: HELLO 2 AUTH u pw
        u: RESET
        u: ACL WHOAMI
        a: ACL SETUSER s on nopass -@all (+@write ~write::*) (+@read ~read::*)
        u: AUTH s x
        u: SET write::1 x
        u: GET read::1
        u: GET write::1
        u: SET read::1 x
        u: COPY read::1 write::1
        u: PING
        a: ACL SETUSER s clearselectors +mget ~key (+mget ~key ~other)
        u: MGET key other
        u: MGET other more
        u: MGET key other more
        u: GET key",
    );
}

#[test]
fn dry_runs_tell_what_redis_tells() {
    let mut both = Both::start();
    both.same("a: ACL SETUSER u +@all %R~read* %W~write* %RW~rw* resetchannels &channel");
    for request in "get read|get write|set write x|set write x get|set read x|set rw x get|getex read|getdel rw|copy read write|copy write read
        hexists read f|hexists write f|hexists nothing f|hstrlen write f|sismember write f|smismember write f|smismember read f|sintercard 2 read read
        sintercard 2 write read|zcount write 0 1|touch write|touch nothing|exists rw|type write|strlen nothing|hlen write|llen write|scard write|zcard write
        lpush write a|lpush read a|lmove rw write left left|lmove write rw left left|lmove rw read left left|smove rw write m|rpoplpush rw write
        zadd write 1 m|zincrby write 1 m|hset write f v|hincrby write f 1|hincrby rw f 1|del write|del read|unlink rw|expire write 1|expire read 1|persist write
        rename rw write|rename write rw|renamenx rw write|mset write 1 rw 2|mset write 1 read 2|msetnx write 1|mget read write|sunionstore write read rw
        sinterstore write read|sinterstore rw write|zrangestore write read 0 1|zrangestore read write 0 1|zmpop 1 write min|zmpop 1 rw min|lpop write
        lpop rw|spop rw|srem write m|append write x|append read x|setrange write 0 x|incr write|incr rw|watch read|watch nothing|object freq nothing
        move rw 1|move write 1|randomkey|scan 0|flushall|config get x|select 1|auth a b|quit|multi|ping"
        .split(['|', '\n'])
    {
        both.same(&format!("a: ACL DRYRUN u {}", request.trim()));
    }
}

#[test]
fn transactions_are_checked_when_queued_and_when_run() {
    Both::start().same(
        "a: ACL SETUSER u on nopass ~* +get +set +multi +exec +incr
        u: AUTH u x
        u: MULTI
        u: DEL x
        u: EXEC
        u: MULTI
        u: SET x 1
        u: INCR x
        u: GET x
        a: ACL SETUSER u -incr
        u: EXEC
        u: MULTI
        u: GET x
        a: ACL SETUSER u resetkeys ~y
        u: EXEC
        u: MULTI
        a: ACL SETUSER u -exec
        u: EXEC
        a: ACL SETUSER u +exec
        u: EXEC",
    );
}

/// Redis 7.0 serves whoever waits as it might when it came; since 7.2 it is asked again.
#[test]
fn who_waits_is_served_only_what_it_still_may_have() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&home.path().join("data")).with("appendonly", "no").start();
    let (mut admin, mut refused, mut served) = (server.connect(), server.connect(), server.connect());
    assert_eq!(admin.ask("ACL SETUSER u on nopass ~* +blpop +client"), Value::ok());
    assert_eq!(refused.ask("AUTH u x"), Value::ok());
    let id = refused.ask("CLIENT ID").integer();
    refused.send(b"BLPOP list 0\r\n").expect("it can be sent");
    await_blocked(&mut admin, 1);
    served.send(b"BLPOP list 0\r\n").expect("it can be sent");
    await_blocked(&mut admin, 2);
    assert_eq!(admin.ask("ACL SETUSER u resetkeys ~other"), Value::ok());
    assert_eq!(admin.ask("RPUSH list element").integer(), 1);
    let text = "NOPERM this user has no permissions to access one of the keys used as arguments";
    assert_eq!(refused.reply().expect("an answer"), Value::Error(text.into()));
    assert_eq!(served.reply().expect("an answer").items(), ["list", "element"].map(Value::bulk));
    assert_eq!(refused.ask("CLIENT ID").integer(), id, "it stays connected");
    assert_eq!(entries(admin.ask("ACL LOG")).len(), 1);
    server.stop();
}

#[track_caller]
fn await_blocked(client: &mut Client, count: usize) {
    let waits = || {
        let info = client.ask("INFO clients").text();
        info.contains(&format!("blocked_clients:{count}\r\n")).then_some(())
    };
    assert!(await_some(Duration::from_secs(60), waits).is_some(), "{count} clients wait");
}

/// The entries of ACL LOG without what differs from run to run.
fn entries(reply: Value) -> Vec<Vec<(String, Value)>> {
    let fields = |entry: Value| {
        let items = entry.items();
        let pairs = items.chunks_exact(2).map(|pair| (pair[0].text(), pair[1].clone()));
        pairs.filter(|(name, _)| !matches!(name.as_str(), "age-seconds" | "client-info")).collect()
    };
    reply.items().into_iter().map(fields).collect()
}

#[test]
fn refusals_are_logged_as_in_redis() {
    let mut both = Both::start();
    both.same(
        "a: ACL SETUSER u on >pw +multi +exec +set +mget +config|get ~ok*
        u: AUTH u pw
        u: GET x
        u: GET x
        u: CONFIG SET hz 10
        u: SET no x
        u: MGET ok1 no1 no2
        u: MULTI
        u: INCR x
        u: EXEC
        u: AUTH u wrong
        u: HELLO 3 AUTH nobody wrong
        u: GET x",
    );
    let [ours, theirs] = both.ask("a", "ACL LOG 100").map(entries);
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 7);
    let [ours, theirs] = both.ask("a", "ACL LOG 2").map(entries);
    assert_eq!(ours, theirs);
    both.same("a: CONFIG SET acllog-max-len 3\n u: SET no2 x\n a: ACL LOG RESET\n a: ACL LOG");
    for at in 0..5 {
        both.same(&format!("u: SET no:{at} x"));
    }
    let [ours, theirs] = both.ask("a", "ACL LOG 100").map(entries);
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 3);
    let [ours, theirs] = both.ask("a", "ACL LOG 1").map(|log| log.items().remove(0).items());
    for entry in [ours, theirs] {
        let client = entry.last().expect("client-info").text();
        assert!(client.starts_with("id=") && client.contains(" user=u "), "{client}");
    }
    let info = both.ask("a", "INFO stats")[0].text();
    for line in [
        "acl_access_denied_auth:2",
        "acl_access_denied_cmd:5",
        "acl_access_denied_key:8",
        "acl_access_denied_channel:0",
    ] {
        assert!(info.contains(line), "{line} in\n{info}");
    }
}

#[test]
fn clients_of_a_user_that_is_removed_are_ended() {
    let mut both = Both::start();
    both.same(
        "a: ACL SETUSER u on nopass +@all ~*
        one: AUTH u x
        two: AUTH u x
        two: PING
        a: ACL DELUSER u",
    );
    both.ended("one");
    both.ended("two");
    both.same(
        "a: ACL SETUSER u on nopass +@all ~*
        three: AUTH u x
        three: ACL DELUSER u",
    );
    both.ended("three");
    both.same("a: PING\n a: ACL USERS");
}

#[test]
fn the_default_user_decides_who_has_to_authenticate() {
    let mut both = Both::with(|setup, _| setup.with("requirepass", "secret"));
    // The password of the default user is what each server's first connection used already.
    for line in [
        "PING",
        "HELLO 3",
        "NOPE",
        "GET",
        "AUTH wrong",
        "AUTH secret",
        "PING",
        "ACL WHOAMI",
        "ACL LIST",
        "CONFIG GET requirepass",
    ] {
        both.same(&format!("a: {line}"));
    }
    both.same(
        "a: CONFIG SET requirepass other
        a: ACL LIST
        b: AUTH secret
        b: AUTH default other
        b: PING
        a: CONFIG SET requirepass \"\"
        a: ACL LIST
        c: PING
        a: ACL SETUSER default off
        d: PING
        d: AUTH default x
        c: PING
        a: ACL SETUSER default on resetpass
        e: PING
        e: AUTH x
        a: ACL SETUSER default nopass -@all +acl
        e: PING
        e: ACL WHOAMI
        f: PING
        f: AUTH default anything
        f: HELLO 2 AUTH default anything
        a: ACL SETUSER default +@all",
    );
}

#[test]
fn users_of_the_configuration_are_there_at_the_start() {
    let mut both = Both::with(|setup, dir| {
        configured(setup, dir, "user alice on >pw ~a* (+set ~b* %R~c*) +get resetchannels &x")
    });
    both.same(
        "a: ACL LIST
        a: AUTH alice pw
        a: GET a1
        a: GET b1
        a: SET b1 x
        a: SET a1 x",
    );
    let mut both =
        Both::with(|setup, dir| configured(setup, dir, "user default on nopass ~* +@all -flushdb"));
    both.same("a: FLUSHDB\n a: ACL LIST\n a: ACL GETUSER default");
    let mut both = Both::with(|setup, _| setup.with("acl-pubsub-default", "allchannels"));
    both.same(
        "a: ACL SETUSER u
        a: ACL LIST
        a: ACL SETUSER u &x
        a: CONFIG SET acl-pubsub-default resetchannels
        a: ACL SETUSER v (+get)
        a: ACL SETUSER u reset
        a: ACL LIST
        a: CONFIG GET acl-pubsub-default
        a: CONFIG GET acllog-max-len",
    );
}

const FILE: &str =
    "user alice on nopass allcommands allkeys &*\nuser bob on -@all +@set +acl ~set* &* >bob (+get ~x)\n";

#[test]
fn a_file_of_users_is_loaded_and_saved_as_in_redis() {
    let write = |dir: &Path, text: &str| fs::write(dir.join("users.acl"), text).expect("a file of users");
    let mut both = Both::with(|setup, dir| {
        write(dir, FILE);
        setup.with("aclfile", "users.acl")
    });
    both.same(
        "a: ACL LIST
        b: AUTH bob bob
        b: SADD set1 m
        b: SET set1 x
        b: GET x
        a: ACL SETUSER eve +get allkeys >eve on
        a: ACL SAVE
        a: ACL DELUSER eve
        a: ACL LOAD",
    );
    both.ended("b");
    both.same("a: ACL LIST\n c: AUTH eve eve\n c: GET x\n c: SET x y");
    let files = both.dirs.each_ref().map(|dir| dir.join("users.acl"));
    let [ours, theirs] = files.each_ref().map(|file| {
        let text = fs::read_to_string(file).expect("a file of users");
        let mut lines: Vec<_> = text.lines().map(|line| rules_in_order(Value::bulk(line))).collect();
        lines.sort();
        lines
    });
    assert_eq!(ours, theirs);
    let mode = fs::metadata(&files[0]).expect("a file of users").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds digests of passwords");
    for wrong in [
        "user alice on\nuser alice on\n",
        "nobody\n",
        "user bob +nope\n",
        "user bob on nonsense worse\n\nuser carol (+get\n",
    ] {
        files.iter().for_each(|file| fs::write(file, wrong).expect("a file of users"));
        both.same("a: ACL LOAD\n a: ACL USERS");
    }
    files.iter().for_each(|file| fs::remove_file(file).expect("a file of users"));
    both.same("a: ACL LOAD\n a: ACL USERS");
}

#[test]
fn wrong_users_are_refused_at_the_start_without_telling_passwords() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("cairn"));
    let refusal = |setup: &Setup| setup.try_start().expect_err("the server does not start");
    let refused = refusal(&configured(setup.clone(), home.path(), "user alice on hunter2"));
    refused.expect(2, &["'user'", "rule 2", "syntax error"]);
    assert!(!refused.log.contains("hunter2"), "{}", refused.log);
    fs::write(setup.dir().join("users.acl"), "user a on\n\nuser b hunter2\n").expect("a file of users");
    let refused = refusal(&setup.clone().with("aclfile", "users.acl"));
    refused.expect(2, &["users.acl:3"]);
    assert!(!refused.log.contains("hunter2"), "{}", refused.log);
    refusal(&setup.clone().with("aclfile", "none.acl")).expect(2, &["aclfile", "none.acl", "no such file"]);
    refusal(&configured(setup.with("aclfile", "users.acl"), home.path(), "user a on"))
        .expect(2, &["'user'", "aclfile"]);
}

#[test]
fn rewritten_configurations_hold_the_users() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("cairn.conf");
    fs::write(&file, "# users\nuser alice on >pw ~a*\n").expect("a configuration");
    let setup = Setup::cairn(&home.path().join("cairn")).with("appendonly", "no").config(&file);
    let lines = {
        let server = setup.start();
        let mut client = server.connect();
        assert_eq!(client.ask("ACL SETUSER alice +get (+set ~b)"), Value::ok());
        assert_eq!(client.ask("ACL SETUSER bob on nopass"), Value::ok());
        assert_eq!(client.ask("CONFIG REWRITE"), Value::ok());
        let lines = client.ask("ACL LIST").items();
        lines.iter().map(Value::text).collect::<Vec<_>>()
    };
    let text = fs::read_to_string(&file).expect("a configuration");
    assert!(text.starts_with("# users\n") && !text.contains(">pw"), "{text}");
    // The default user of a configuration has been reset, as in Redis.
    let again = setup.start().connect().ask("ACL LIST").items();
    let again: Vec<_> = again.iter().map(|line| line.text().replace(" sanitize-payload", "")).collect();
    assert_eq!(again, lines);
}
