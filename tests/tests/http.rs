//! `http-port`: /livez, /readyz and /metrics, and what else may not be asked there.

use cairn_tests::process::{Running, await_some};
use cairn_tests::programs;
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup, free_port};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// An answer: the status, the head and the body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes and reads all that comes back; `None` where there is nobody.
fn exchange(port: u16, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit can be set");
    // It may be cut off before all of it was sent.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

#[track_caller]
fn get(port: u16, path: &str) -> Answer {
    exchange(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("an answer")
}

/// Values by name and labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let answer = get(port, "/metrics");
    assert_eq!(answer.status, 200);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
    };
    lines.map(pair).collect()
}

fn setup(dir: &Path) -> (Setup, u16) {
    let port = free_port();
    (Setup::cairn(dir).journal("always").with("http-port", &port.to_string()), port)
}

#[test]
fn probes_are_answered_and_nothing_else_is() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (setup, port) = setup(&home.path().join("data"));
    let server = setup.start();
    let live = get(port, "/livez");
    assert_eq!((live.status, live.body.as_str()), (200, "alive\n"));
    let ready = get(port, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert!(ready.head.contains("cache-control: no-store"), "{}", ready.head);
    let head = exchange(port, b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: 6"), "{}", head.head);
    for path in ["/", "/metrics/", "/livez/../metrics", "/config"] {
        assert_eq!(get(port, path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer = exchange(
            port,
            format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        );
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    // Garbage, and more than a head may be.
    for request in [b"\0\x01garbage\r\n\r\n".to_vec(), b"GET /metrics HTTP/9.9\r\n\r\n".to_vec()] {
        assert!(exchange(port, &request).is_none_or(|answer| answer.status >= 400));
    }
    let mut endless = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    endless.resize(1 << 20, b'x');
    assert!(exchange(port, &endless).is_none_or(|answer| answer.status >= 400));
    // Whoever says nothing is cut off, and keeps nobody else from being answered.
    let begun = Instant::now();
    let idle = std::thread::spawn(move || exchange(port, b"GET /metrics HT").map(|answer| answer.status));
    assert_eq!(get(port, "/livez").status, 200);
    assert!(idle.join().expect("a thread").is_none_or(|status| status >= 400));
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    assert_eq!(server.connect().ask("PING"), Value::Simple(b"PONG".to_vec()));
    server.stop();
}

#[test]
fn without_a_port_nothing_is_served_and_one_that_is_taken_is_told() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (setup, free) = setup(&home.path().join("data"));
    let refusal = setup.clone().with("http-port", &port).try_start().expect_err("it is taken");
    refusal.expect(1, &["cannot listen on 127.0.0.1", "is another server running there?"]);
    let server = setup.without("http-port").start();
    assert!(exchange(free, b"GET /livez HTTP/1.1\r\n\r\n").is_none());
    server.stop();
}

#[test]
fn readiness_says_why_not() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let (setup, port) = setup(&dir);
    let server = setup.with("busy-reply-threshold", "50").start();
    let mut busy = server.connect();
    busy.send(b"EVAL \"while true do end\" 0\r\n").expect("it is sent");
    let not_ready = await_some(SOON, || Some(get(port, "/readyz")).filter(|answer| answer.status == 503));
    let not_ready = not_ready.expect("it says so");
    assert!(not_ready.body.starts_with("busy: a script has run for"), "{}", not_ready.body);
    // It lives all the same, and is measured.
    assert_eq!(get(port, "/livez").status, 200);
    let measured = metrics(port);
    assert_eq!((measured["cairn_ready"], measured["cairn_not_ready{reason=\"busy\"}"]), (0.0, 1.0));
    assert_eq!(server.connect().ask("SCRIPT KILL"), Value::ok());
    assert!(await_some(SOON, || (get(port, "/readyz").status == 200).then_some(())).is_some());
    server.stop();
}

#[test]
fn a_server_that_loads_lives_and_is_not_ready() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let (setup, port) = setup(&dir);
    let server = setup.start();
    let mut client = server.connect();
    client
        .call(&["EVAL", "for i = 1, 50000 do redis.call('ZADD', 'z', i, 'm' .. i) end", "1", "z"])
        .expect("it runs");
    for _ in 0..40 {
        client.ask("ZUNIONSTORE d 1 z");
    }
    server.stop();
    let mut command = Command::new(programs::cairn("cairn-server"));
    command.args([
        "--port",
        &free_port().to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "yes",
    ]);
    command.args(["--http-port", &port.to_string(), "--dir"]).arg(&dir);
    let running = Running::spawn(&mut command, &home.path().join("log"));
    let first = await_some(SOON, || exchange(port, b"GET /readyz HTTP/1.1\r\n\r\n")).expect("an answer");
    assert_eq!(first.status, 503, "{}", running.log());
    assert!(first.body.starts_with("loading: the data is being loaded"), "{}", first.body);
    assert_eq!(get(port, "/livez").status, 200);
    assert_eq!(get(port, "/metrics").status, 200);
    assert!(await_some(SOON, || (get(port, "/readyz").status == 200).then_some(())).is_some());
}

fn busy(server: &Server) {
    let mut client = server.connect();
    for line in [
        "SET a 1",
        "SET b 2 EX 5000",
        "GET a",
        "GET none",
        "RPUSH list 1 2 3",
        "INCR list",
        "NOSUCHCOMMAND",
        "SAVE",
        "SET c 3",
    ] {
        client.ask(line);
    }
}

#[test]
fn metrics_tell_what_info_tells() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let (setup, port) = setup(&dir);
    let server = setup.start();
    busy(&server);
    let _other = server.connect();
    // The disk's figures are those of the last second.
    let measured =
        await_some(SOON, || Some(metrics(port)).filter(|found| found["cairn_journal_disk_bytes"] > 0.0));
    let measured = measured.expect("figures");
    for (name, value) in [
        ("redis_up", 1.0),
        ("cairn_ready", 1.0),
        ("redis_connected_clients", 1.0),
        ("redis_keyspace_hits_total", 1.0),
        ("redis_keyspace_misses_total", 1.0),
        ("redis_db_keys{db=\"db0\"}", 4.0),
        ("redis_db_keys_expiring{db=\"db0\"}", 1.0),
        ("redis_commands_total{cmd=\"get\"}", 2.0),
        ("redis_commands_failed_calls_total{cmd=\"incr\"}", 1.0),
        ("redis_errors_total{err=\"WRONGTYPE\"}", 1.0),
        ("redis_rdb_changes_since_last_save", 1.0),
        ("redis_rdb_last_bgsave_status", 1.0),
        ("redis_aof_enabled", 1.0),
        ("redis_aof_last_write_status", 1.0),
        ("cairn_snapshots_total", 1.0),
        ("cairn_snapshot_keys", 3.0),
        ("cairn_encrypted", 0.0),
        ("cairn_backup_enabled", 0.0),
        ("cairn_backup_failing", 0.0),
    ] {
        assert_eq!(measured.get(name), Some(&value), "{name} in {measured:#?}");
    }
    for (name, field) in [
        ("redis_master_repl_offset", "master_repl_offset"),
        ("cairn_journal_durable_lsn", "cairn_journal_durable_lsn"),
        ("cairn_snapshot_lsn", "cairn_snapshot_lsn"),
        ("cairn_snapshot_bytes", "cairn_snapshot_bytes"),
        ("cairn_journal_disk_bytes", "cairn_journal_disk_bytes"),
    ] {
        let told: f64 = server.info(field).expect("a field").parse().expect("a number");
        assert!((measured[name] - told).abs() < 0.5, "{name}: {} and {told}", measured[name]);
    }
    assert!(measured["redis_memory_used_bytes"] > 100_000.0 && measured["redis_memory_used_rss_bytes"] > 1e6);
    assert!(
        measured["cairn_journal_syncs_total"] >= 1.0 && measured["cairn_journal_written_bytes_total"] > 0.0
    );
    assert!(!measured.contains_key("cairn_backup_lag_seconds"), "without a backup there is no lag");
    let text = get(port, "/metrics");
    assert!(text.head.contains("content-type: application/openmetrics-text"), "{}", text.head);
    assert!(text.body.ends_with("# EOF\n"));
    server.stop();
}
