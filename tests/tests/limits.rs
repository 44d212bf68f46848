//! What clients may send, have waiting and be: each bound is met with words that tell which one it was, costs the server no
//! memory that was merely announced, and harms nobody else.

use cairn_tests::process::await_some;
use cairn_tests::resp::{Client, Value, encode};
use cairn_tests::server::{Server, Setup};
use std::io;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn server(home: &Path) -> Server {
    Setup::cairn(&home.join("data")).with("appendonly", "no").start()
}

/// Sends bytes and gives all that comes back before the server closes the connection.
#[track_caller]
fn converse(server: &Server, bytes: &[u8]) -> String {
    let mut client = server.connect();
    // The server may have had enough before all is sent.
    let _ = client.send(bytes);
    let _ = client.finish_sending();
    String::from_utf8_lossy(&client.until_closed().expect("an answer")).into_owned()
}

#[track_caller]
fn error(reply: Value) -> String {
    let Value::Error(text) = reply else { panic!("an error was expected, not {reply:?}") };
    String::from_utf8_lossy(&text).into_owned()
}

/// The server's own memory, in bytes.
fn resident(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Each breach ends the connection that it came over, in these words.
#[test]
fn requests_beyond_what_is_allowed_are_refused_in_full_words() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let mut witness = server.connect();
    assert_eq!(witness.args(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]), Value::ok());
    let cases: &[(&[u8], &str)] = &[
        (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*-x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$1048577\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        // A request has no requests within it, so a million of them end at the second.
        (&b"*1\r\n".repeat(1_000_000), "-ERR Protocol error: expected '$', got '*'\r\n"),
        (&b"a".repeat(70_000), "-ERR Protocol error: too big inline request\r\n"),
        (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ];
    for (bytes, answer) in cases {
        assert_eq!(converse(&server, bytes), *answer);
        assert_eq!(witness.ask("PING").text(), "PONG");
    }
    // What would become too long by and by is refused before it does.
    witness.args(&[&b"SET"[..], b"long", &vec![b'v'; 1 << 20]]);
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(error(witness.ask("APPEND long x")), too_long);
    assert_eq!(error(witness.ask("SETRANGE long 1048576 x")), too_long);
    assert_eq!(witness.ask("STRLEN long").integer(), 1 << 20);
    server.stop();
}

/// A reply that would be nested a million deep is refused where it is made, and so is a text that describes one.
#[test]
fn values_nested_a_million_deep_are_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let mut client = server.connect();
    let nest = "local t = {} for _ = 1, 1000000 do t = {t} end ";
    let mut raw = server.connect();
    let mut request = Vec::new();
    encode(&mut request, &["EVAL", &format!("{nest} return t"), "0"]);
    encode(&mut request, &["QUIT"]);
    raw.send(&request).expect("it can be sent");
    let reply = raw.until_closed().expect("a reply");
    assert_eq!(reply, [&b"*1\r\n".repeat(1_001)[..], b"-ERR reached lua stack limit\r\n+OK\r\n"].concat());
    for (script, words) in [
        (format!("{nest} return cjson.encode(t)"), "Cannot serialise, excessive nesting"),
        ("return cjson.decode(string.rep('[', 1000000))".to_owned(), "Found too many nested data structures"),
        (
            // 16 levels down the rest is nil, as in Redis.
            format!("{nest} return redis.error_reply('ERR packed ' .. #cmsgpack.pack(t))"),
            "ERR packed ",
        ),
        ("return cmsgpack.unpack(string.rep('\\145', 1000000))".to_owned(), ""),
    ] {
        let text = error(client.args(&["EVAL", &script, "0"]));
        assert!(text.contains(words), "{text:?} for {script}");
    }
    assert_eq!(client.ask("PING").text(), "PONG");
    server.stop();
}

/// Lengths that are announced and never come take no memory, however many announce them.
#[test]
fn what_is_only_announced_takes_no_memory() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let before = resident(&server);
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let request: &[u8] = match number % 3 {
            0 => b"*2147483647\r\n$3\r\nSET\r\n",
            1 => b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nbegin",
            _ => b"*1000000\r\n$536870912\r\n",
        };
        client.send(request).expect("it can be sent");
    }
    assert_eq!(server.connect().ask("PING").text(), "PONG");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 64 << 20, "200 clients that announce gigabytes take {grown} bytes");
    server.stop();
}

/// Requests that do come are held until they are whole, up to a bound.
#[test]
fn a_request_longer_than_the_query_buffer_ends_its_client() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let (mut greedy, mut other) = (server.connect(), server.connect());
    assert_eq!(other.args(&["CONFIG", "SET", "client-query-buffer-limit", "1mb"]), Value::ok());
    let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4000000\r\n".to_vec();
    request.resize(3_000_000, b'v');
    let _ = greedy.send(&request);
    assert_eq!(greedy.until_closed().expect("the end"), b"");
    assert_eq!(other.ask("EXISTS k").integer(), 0);
    let log = server.log();
    assert!(
        log.contains("closing a client whose request is longer than client-query-buffer-limit allows"),
        "{log}"
    );
    assert!(log.contains("bytes_max=1048576"), "{log}");
    // As many small ones as one likes are no long one.
    let many = b"PING\r\n".repeat(400_000);
    other.send(&many).expect("they can be sent");
    (0..400_000).for_each(|_| assert_eq!(other.reply().expect("an answer").text(), "PONG"));
    server.stop();
}

#[test]
fn one_client_too_many_is_told_so() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let mut first = server.connect();
    assert_eq!(first.ask("CONFIG SET maxclients 3"), Value::ok());
    let mut others: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| assert_eq!(client.ask("PING").text(), "PONG"));
    let mut late = server.connect();
    assert_eq!(late.until_closed().expect("an answer"), b"-ERR max number of clients reached\r\n");
    assert_eq!(first.ask("PING").text(), "PONG");
    drop(others);
    // Whose connection has ended makes room.
    let again = || (server.connect().call(&["PING"]).ok()? == Value::Simple(b"PONG".to_vec())).then_some(());
    assert!(await_some(LIMIT, again).is_some());
    server.stop();
}

/// A client that asks and does not read is given up after the time it is allowed, and what waited for it is freed.
#[test]
fn a_client_that_does_not_read_its_replies_is_cut_off() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = server(home.path());
    let (mut deaf, mut other) = (server.connect(), server.connect());
    assert_eq!(other.args(&["CONFIG", "SET", "client-output-buffer-limit", "normal 0 100kb 1"]), Value::ok());
    other.args(&[&b"SET"[..], b"large", &vec![b'v'; 1 << 20]]);
    let mut requests = Vec::new();
    (0..64).for_each(|_| encode(&mut requests, &["GET", "large"]));
    deaf.send(&requests).expect("they can be sent");
    let told = || server.log().contains("closing a client that reads too slowly").then_some(());
    assert!(await_some(LIMIT, told).is_some(), "{}", server.log());
    assert!(deaf.until_closed().expect("the end").len() < 32 << 20, "it got most of it");
    let alone = || (server.info("connected_clients").as_deref() <= Some("2")).then_some(());
    assert!(await_some(LIMIT, alone).is_some());
    assert_eq!(other.ask("PING").text(), "PONG");
    server.stop();
}

/// Who has not said who it is may send little, have little sent, and gets no memory for it.
#[test]
fn strangers_are_held_to_little() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&home.path().join("data"))
        .with("appendonly", "no")
        .with("requirepass", "secret")
        .start();
    for (bytes, answer) in [
        (&b"*11\r\n"[..], "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (b"*2\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
        (b"CAIRN READY\r\n", "-NOAUTH Authentication required.\r\n"),
        (b"EVAL x 0\r\n", "-NOAUTH Authentication required.\r\n"),
    ] {
        assert_eq!(converse(&server, bytes), answer);
    }
    // One that never reads is let go as soon as its socket is full; nobody waits for it.
    let mut deaf = server.connect();
    let flood = b"GET k\r\n".repeat(100_000);
    let ended = (0..100).find_map(|_| deaf.send(&flood).err());
    let kind = ended.map(|error| error.kind());
    assert!(
        matches!(kind, Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)),
        "70 MB of requests were taken from a stranger who reads nothing: {kind:?}"
    );
    let mut client = server.connect();
    assert_eq!(client.ask("AUTH secret"), Value::ok());
    assert_eq!(client.ask("CAIRN READY"), Value::ok());
    server.stop();
}

/// Nobody is a stranger once nobody has to say who it is, whenever it connected.
#[test]
fn who_need_not_authenticate_any_more_is_no_stranger() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&home.path().join("data"))
        .with("appendonly", "no")
        .with("requirepass", "secret")
        .start();
    let (mut early, mut admin) = (server.connect(), server.connect());
    assert!(error(early.ask("PING")).starts_with("NOAUTH"));
    assert_eq!(admin.ask("AUTH secret"), Value::ok());
    assert_eq!(admin.args(&["CONFIG", "SET", "requirepass", ""]), Value::ok());
    assert_eq!(early.ask("MSET a 1 b 2 c 3 d 4 e 5 f 6"), Value::ok());
    server.stop();
}
