//! The program as a client and an operator meet it: over its sockets, its signals and its exit codes.

use cairn_resp::{Value, decode};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cairn-server");

/// A server on a Unix socket in a directory of its own, so that no test waits for another's port.
struct Running {
    child: Child,
    log: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
}

impl Running {
    fn start(args: &[&str]) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["--port", "0", "--save", "", "--unixsocketperm", "700"])
            .arg("--unixsocket")
            .arg(dir.path().join("socket"))
            .arg("--pidfile")
            .arg(dir.path().join("pid"))
            .arg("--dir")
            .arg(dir.path().join("data"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, log, dir };
        running.log_until("Ready to accept connections");
        running
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// Reads the log up to a line with `text`; returns what was read.
    fn log_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let before = read.len();
            self.log.read_line(&mut read).unwrap();
            assert!(read.len() > before, "the server ended before it logged {text:?}: {read}");
        }
        read
    }

    fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Client {
    fn new(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream, read: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn reply(&mut self) -> Value {
        loop {
            if let Some((value, used)) = decode(&self.read).unwrap() {
                self.read.drain(..used);
                return value;
            }
            let mut piece = [0; 65_536];
            let count = self.stream.read(&mut piece).unwrap();
            assert!(count > 0, "the connection ended where a reply was due");
            self.read.extend_from_slice(&piece[..count]);
        }
    }

    fn ask(&mut self, line: &str) -> Value {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    fn error(&mut self, line: &str) -> String {
        match self.ask(line) {
            Value::Error(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// The connection ends here, and nothing more comes before.
    fn ends(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.stream.read_to_end(&mut rest);
        assert_eq!(self.read, b"");
        assert_eq!(rest, b"");
    }
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

/// The id of the client's own connection.
fn id(client: &mut Client) -> i64 {
    match client.ask("CLIENT ID") {
        Value::Integer(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pipelines_are_answered_in_order() {
    let server = Running::start(&[]);
    let mut client = server.client();
    client.send(
        b"SET a 1\r\nINCR a\r\n\r\n*0\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nz\r\nPI",
    );
    assert_eq!(
        [client.reply(), client.reply(), client.reply(), client.reply()],
        [ok(), Value::Integer(2), bulk("2"), Value::Null]
    );
    client.send(b"NG\r\n");
    assert_eq!(client.reply(), Value::Simple("PONG".into()));

    // Ten thousand replies of a kilobyte each, asked for at once: written as they come, none lost.
    client.send(format!("SET big {}\r\n", "x".repeat(1000)).as_bytes());
    assert_eq!(client.reply(), ok());
    let mut writer = client.stream.try_clone().unwrap();
    let asking = std::thread::spawn(move || writer.write_all(&b"GET big\r\n".repeat(10_000)).unwrap());
    for _ in 0..10_000 {
        assert_eq!(client.reply(), Value::Bulk(vec![b'x'; 1000]));
    }
    asking.join().unwrap();
}

#[test]
fn a_bad_request_ends_its_own_connection_only() {
    let server = Running::start(&[]);
    let mut other = server.client();
    assert_eq!(other.ask("PING"), Value::Simple("PONG".into()));
    for (bytes, error) in [
        (&b"*1\r\n$abc\r\n"[..], "ERR Protocol error: invalid bulk length"),
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n!\r\n", "ERR Protocol error: expected '$', got '!'"),
        (b"SET 'a\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (&[b'A'; 300_000], "ERR Protocol error: too big inline request"),
        (b"*2\r\n$3\r\nGET\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
    ] {
        let mut client = server.client();
        client.send(b"PING\r\n");
        client.send(bytes);
        assert_eq!(client.reply(), Value::Simple("PONG".into()));
        assert_eq!(client.reply(), Value::Error(error.into()));
        client.ends();
        assert_eq!(other.ask("PING"), Value::Simple("PONG".into()));
    }
    let mut client = server.client();
    client.send(b"QUIT\r\nPING\r\n");
    assert_eq!(client.reply(), ok());
    client.ends();
}

#[test]
fn settings_change_together_or_not_at_all() {
    let server = Running::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("CONFIG SET maxclients 2 proto-max-bulk-len 1mb"), ok());
    let both = Value::Array(vec![bulk("maxclients"), bulk("2")]);
    assert_eq!(client.ask("CONFIG GET maxcl*"), both);
    assert_eq!(
        client.error("CONFIG SET maxclients 9 databases 1"),
        "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config"
    );
    assert_eq!(client.ask("CONFIG GET maxclients"), both);
    assert_eq!(client.error("CONFIG REWRITE"), "ERR The server is running without a config file");

    let mut second = server.client();
    assert_eq!(second.ask("PING"), Value::Simple("PONG".into()));
    let mut third = server.client();
    assert_eq!(third.reply(), Value::Error("ERR max number of clients reached".into()));
    third.ends();
    second.send(b"*2\r\n$3\r\nGET\r\n$1048577\r\n");
    assert_eq!(second.reply(), Value::Error("ERR Protocol error: invalid bulk length".into()));
    second.ends();
}

#[test]
fn strangers_have_to_say_the_password() {
    let server = Running::start(&["--requirepass", "sesame"]);
    let mut client = server.client();
    assert_eq!(client.error("PING"), "NOAUTH Authentication required.");
    assert!(client.error("AUTH wrong").starts_with("WRONGPASS "));
    assert_eq!(client.ask("AUTH sesame"), ok());
    assert_eq!(client.ask("PING"), Value::Simple("PONG".into()));
    let mut stranger = server.client();
    stranger.send(b"*2\r\n$3\r\nGET\r\n$16385\r\n");
    assert_eq!(stranger.reply(), Value::Error("ERR Protocol error: unauthenticated bulk length".into()));
    stranger.ends();
}

#[test]
fn clients_are_listed_and_ended() {
    let server = Running::start(&[]);
    let (mut one, mut two) = (server.client(), server.client());
    let (first, second) = (id(&mut one), id(&mut two));
    assert_ne!(first, second);
    let Value::Bulk(list) = one.ask("CLIENT LIST") else { panic!("a list is a text") };
    let list = String::from_utf8(list).unwrap();
    assert!(
        list.contains(&format!("id={first} addr=")) && list.contains(&format!("id={second} addr=")),
        "{list}"
    );
    assert_eq!(one.ask(&format!("CLIENT KILL ID {second}")), Value::Integer(1));
    two.ends();
    assert_eq!(one.ask("CONFIG SET timeout 1"), ok());
    // Nothing is sent for longer than that.
    one.ends();
}

#[test]
fn ends_cleanly_by_command_and_by_signal() {
    let mut server = Running::start(&[]);
    assert_eq!(std::fs::metadata(server.socket()).unwrap().permissions().mode() & 0o777, 0o700);
    let pid = std::fs::read_to_string(server.dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim(), server.child.id().to_string());
    server.client().send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(server.exit_code(), Some(0));
    assert!(!server.socket().exists() && !server.dir.path().join("pid").exists());

    let mut server = Running::start(&["--log-format", "json"]);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let mut log = String::new();
    server.log.read_to_string(&mut log).unwrap();
    assert!(log.lines().last().unwrap().starts_with("{\"timestamp\""), "{log}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Running::start(&["--enable-debug-command", "yes"]);
    let mut client = server.client();
    // What comes before the sleep is answered when it is about to begin.
    client.send(b"PING\r\nDEBUG SLEEP 60\r\n");
    assert_eq!(client.reply(), Value::Simple("PONG".into()));
    server.signal("INT");
    server.log_until("a second signal ends at once");
    server.signal("INT");
    assert_eq!(server.exit_code(), Some(130));
}

#[test]
fn wrong_settings_are_refused() {
    for (args, code, text) in [
        (&["--nonsense", "1"][..], 2, "'nonsense': unknown directive"),
        (&["--replicaof", "a", "1"], 2, "'replicaof': only '' is provided: there is no replication"),
        (&["--daemonize", "yes"], 2, "only 'no' is provided"),
        (&["/nonexistent.conf"], 2, "/nonexistent.conf"),
        (&["--bind", "example.org"], 2, "names are not looked up"),
        (&["--encryption-key-file", "/nonexistent"], 12, "the keyring cannot be had"),
    ] {
        // A data directory that cannot be made: should anything here be accepted, it would not start all the same.
        let args = args.iter().chain(&["--dir", "/dev/null/x", "--port", "0", "--unixsocket", "/dev/null/x"]);
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(text), "{error}");
    }
}

/// A client that sent more than the sockets hold before it read a reply waited for ever: the server waited for it to read,
/// and read nothing meanwhile. Libraries send their pipelines like that.
#[test]
fn a_client_may_send_everything_before_it_reads_anything() {
    const REQUESTS: usize = 20_000;
    let server = Running::start(&["--appendonly", "no"]);
    let mut client = server.client();
    client.stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(client.ask(&format!("SET key {}", "x".repeat(1_000))), ok());
    let request = format!("GET key{}\r\n", " ".repeat(100));
    client.send(format!("{}INCR after\r\n", request.repeat(REQUESTS)).as_bytes());
    for _ in 0..REQUESTS {
        assert_eq!(client.reply(), bulk(&"x".repeat(1_000)));
    }
    assert_eq!(client.reply(), Value::Integer(1));
}

/// A field of INFO.
fn info(client: &mut Client, field: &str) -> String {
    let Value::Bulk(text) = client.ask("INFO") else { panic!("INFO is a text") };
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO has no {field}: {text}")).to_owned()
}

/// Waits until a field of INFO has a value.
fn info_becomes(client: &mut Client, field: &str, value: &str) {
    let begun = Instant::now();
    while info(client, field) != value {
        assert!(begun.elapsed() < Duration::from_secs(30), "{field} does not become {value}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// While one that trims the journal is being written, no other is promised; when there is no journal any more, it ends.
#[test]
fn a_rewrite_is_refused_while_one_runs_and_ends_with_the_journal() {
    let server = Running::start(&["--appendonly", "yes"]);
    let mut client = server.client();
    assert_eq!(client.ask("SET key value"), ok());
    // So that it takes a minute.
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 60000000"), ok());
    let started = Value::Simple("Background append only file rewriting started".into());
    assert_eq!(client.ask("BGREWRITEAOF"), started);
    assert_eq!(client.error("BGREWRITEAOF"), "ERR Background append only file rewriting already in progress");
    assert_eq!(client.ask("CONFIG SET appendonly no"), ok());
    info_becomes(&mut client, "aof_enabled", "0");
    info_becomes(&mut client, "rdb_bgsave_in_progress", "0");
    // It has not failed, so nothing is refused because of it.
    assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 0"), ok());
}

/// Whoever reads what is evicted hears of that before the reply of the command that found memory short, whichever it is.
#[test]
fn any_command_makes_room_and_its_client_hears_first_of_what_went() {
    let server = Running::start(&["--appendonly", "no"]);
    let mut client = server.client();
    client.ask("HELLO 3");
    assert_eq!(client.ask("CLIENT TRACKING ON"), ok());
    let used: u64 = info(&mut client, "used_memory").parse().unwrap();
    // The housekeeping would do it soon after.
    assert_eq!(client.ask("CONFIG SET hz 1"), ok());
    assert_eq!(
        client.ask(&format!("CONFIG SET maxmemory {} maxmemory-policy volatile-random", used + (200 << 10))),
        ok()
    );
    assert_eq!(client.ask("SETEX volatile 10000 x"), ok());
    assert_eq!(client.ask("GET volatile"), bulk("x"));
    assert_eq!(client.ask("SETBIT large 8000000 0"), Value::Integer(0));
    let gone = Value::Push(vec![bulk("invalidate"), Value::Array(vec![bulk("volatile")])]);
    assert_eq!(client.ask("GETBIT large 0"), gone);
    assert_eq!(client.reply(), Value::Integer(0));
    assert_eq!(info(&mut client, "evicted_keys"), "1");
}

/// What takes long to free is freed after the reply, and INFO counts it.
#[test]
fn large_values_are_freed_in_the_background() {
    let server = Running::start(&["--appendonly", "no"]);
    let mut client = server.client();
    let used: u64 = info(&mut client, "used_memory").parse().unwrap();
    let fill = |client: &mut Client| {
        let mut request = String::from("*50002\r\n$4\r\nSADD\r\n$5\r\nlarge\r\n");
        (0..50_000).for_each(|n| request.push_str(&format!("$12\r\nmember:{n:05}\r\n")));
        client.send(request.as_bytes());
        assert_eq!(client.reply(), Value::Integer(50_000));
    };
    for (end, objects) in [("UNLINK large", 1), ("FLUSHALL ASYNC", 2)] {
        fill(&mut client);
        client.ask(end);
        info_becomes(&mut client, "lazyfreed_objects", &objects.to_string());
        assert_eq!(info(&mut client, "lazyfree_pending_objects"), "0");
        let after: u64 = info(&mut client, "used_memory").parse().unwrap();
        assert!(after < used + (1 << 20), "{end}: {used} before, {after} after");
    }
}
