//! What one connection does reaches another: as it should be, in order, not before it is durable, and never at the cost
//! of the server's memory.

use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

fn server(home: &Path) -> Server {
    Setup::cairn(home).with("appendonly", "no").start()
}

#[track_caller]
fn next(client: &mut Client) -> String {
    shown(client.reply().expect("a message"))
}

/// A message's parts with blanks between them.
fn shown(value: Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Bulk(_) | Value::Simple(_) => value.text(),
        Value::Null => "null".into(),
        other => other.items().into_iter().map(shown).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn an_idle_subscriber_hears_what_others_publish_in_their_order() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut subscriber, mut publisher) = (server.connect(), server.connect());
    assert_eq!(shown(subscriber.ask("SUBSCRIBE a")), "subscribe a 1");
    for number in 0..1_000 {
        publisher.send(format!("PUBLISH a {number}\r\n").as_bytes()).unwrap();
    }
    (0..1_000).for_each(|_| assert_eq!(publisher.reply().unwrap().integer(), 1));
    for number in 0..1_000 {
        assert_eq!(next(&mut subscriber), format!("message a {number}"));
    }
    publisher.ask("MULTI");
    publisher.ask("PUBLISH a first");
    publisher.ask("SET k v");
    publisher.ask("PUBLISH a second");
    publisher.ask("EXEC");
    assert_eq!(
        (next(&mut subscriber), next(&mut subscriber)),
        ("message a first".into(), "message a second".into())
    );
    server.stop();
}

/// A client hears of changes to what it has read, also in a script that begins again since it meets a key it did not
/// declare; what it wrote before it read, in the same transaction, is no news to it.
#[test]
fn a_client_that_tracks_hears_of_what_it_has_read_and_of_no_more() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut reader, mut writer) = (server.connect(), server.connect());
    reader.ask("HELLO 3");
    assert_eq!(shown(reader.ask("CLIENT TRACKING ON")), "OK");
    reader.ask("MULTI");
    reader.ask("SET own 1");
    reader.ask("GET own");
    assert_eq!(shown(reader.ask("EXEC")), "OK 1");
    let script: &[&[u8]] =
        &[b"EVAL", b"redis.call('GET', KEYS[1]) return redis.call('GET', 'other')", b"1", b"declared"];
    assert_eq!(shown(reader.args(script)), "null");
    for key in ["own", "declared"] {
        writer.ask(&format!("SET {key} 2"));
        assert_eq!(next(&mut reader), format!("invalidate {key}"));
    }
    server.stop();
}

#[test]
fn events_tell_of_a_key_that_expires_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut subscriber, mut writer) = (server.connect(), server.connect());
    writer.ask("CONFIG SET notify-keyspace-events Ex");
    subscriber.ask("PSUBSCRIBE __key*");
    writer.ask("SET k v PX 20");
    assert_eq!(next(&mut subscriber), "pmessage __key* __keyevent@0__:expired k");
    server.stop();
}

/// With `appendfsync always`, who hears of a value could tell others of it, or act on it, and a power cut would leave the
/// world without it. So while a sync hangs no message about what it carries goes out, and messages about nothing do.
#[test]
fn nobody_hears_of_a_change_before_it_is_durable() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data");
    let shim = Shim::new(&dir);
    let server = Setup::cairn(&dir).journal("always").env(shim.full_disk(None)).start();
    let (mut events, mut cache, mut monitor, mut plain) =
        (server.connect(), server.connect(), server.connect(), server.connect());
    let (mut writer, mut publisher) = (server.connect(), server.connect());
    writer.ask("CONFIG SET notify-keyspace-events KA");
    writer.ask("SET k before");
    events.ask("SUBSCRIBE __keyspace@0__:k");
    plain.ask("SUBSCRIBE news");
    cache.ask("HELLO 3");
    cache.ask("CLIENT TRACKING ON");
    cache.ask("GET k");
    monitor.ask("MONITOR");
    shim.mark("hang-sync");
    writer.send(b"SET k after\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(publisher.ask("PUBLISH news hello").integer(), 1);
    assert_eq!(next(&mut plain), "message news hello");
    for client in [&mut events, &mut cache, &mut monitor, &mut writer] {
        assert!(client.is_silent(Duration::from_millis(100)), "a client heard of what is not durable");
    }
    shim.unmark("hang-sync");
    assert_eq!(next(&mut events), "message __keyspace@0__:k set");
    assert_eq!(next(&mut cache), "invalidate k");
    assert!(next(&mut monitor).ends_with("\"SET\" \"k\" \"after\""));
    assert_eq!(next(&mut writer), "OK");
    server.stop();
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_and_what_waited_for_it_is_freed() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut slow, mut publisher) = (server.connect(), server.connect());
    publisher.args(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"]);
    slow.ask("SUBSCRIBE a");
    let text = "x".repeat(100_000);
    let mut published = 0;
    while publisher.args(&["PUBLISH", "a", &text]).integer() == 1 {
        published += 1;
        assert!(published < 1_000, "100 MB wait for a client that may let 1 MB wait");
    }
    assert!(slow.until_closed().unwrap().len() < published * 100_100 + 200_000);
    assert_eq!(server.info("pubsub_channels").as_deref(), Some("0"));
    assert!(server.log().contains("reads too slowly"));
    server.stop();
}

#[test]
fn a_reply_that_is_more_than_a_client_may_let_wait_is_never_sent() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut greedy, mut other) = (server.connect(), server.connect());
    other.args(&["SET", "k", &"x".repeat(90_000)]);
    other.args(&["CONFIG", "SET", "client-output-buffer-limit", "normal 100000 0 0"]);
    greedy.send(b"MGET k k\r\n").unwrap();
    assert_eq!(greedy.until_closed().unwrap(), b"");
    assert_eq!(other.ask("PING").text(), "PONG");
    server.stop();
}

#[test]
fn a_pause_holds_writes_and_nothing_else_and_ends() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut pausing, mut writer, mut reader) = (server.connect(), server.connect(), server.connect());
    let start = Instant::now();
    pausing.ask("CLIENT PAUSE 300 WRITE");
    writer.send(b"SET k v\r\n").unwrap();
    assert_eq!(reader.ask("GET k"), Value::Null);
    assert_eq!(next(&mut writer), "OK");
    assert!(start.elapsed() >= Duration::from_millis(300));
    pausing.ask("CLIENT PAUSE 100000 WRITE");
    writer.send(b"SET k w\r\n").unwrap();
    assert!(writer.is_silent(Duration::from_millis(100)));
    // Who waits can be disconnected, and the server can end.
    let id = reader.ask("CLIENT LIST").text();
    let blocked = id.lines().find(|line| line.contains(" flags=b ")).expect("one who waits");
    let id = blocked.split(' ').next().and_then(|field| field.strip_prefix("id=")).expect("an id");
    assert_eq!(reader.ask(&format!("CLIENT KILL ID {id}")).integer(), 1);
    assert_eq!(writer.reply().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    server.stop();
}
