//! A start serves clients from its beginning: until every key is there they hear LOADING, and what needs no key works.

use cairn_tests::process::{Running, await_some};
use cairn_tests::programs;
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Setup, free_port};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LOADING: &[u8] = b"LOADING Redis is loading the dataset in memory";

/// A journal that takes seconds to replay: few effects, each of them long work.
fn slow_to_load(dir: &Path) -> String {
    let server = Setup::cairn(dir).journal("everysec").with("requirepass", "secret").start();
    let mut client = server.connect();
    client.ask("AUTH secret");
    let add = "for i = 1, 50000 do redis.call('ZADD', 'z', i, 'm' .. i) end";
    client.call(&["EVAL", add, "1", "z"]).expect("the script runs");
    for _ in 0..60 {
        assert_eq!(client.ask("ZUNIONSTORE d 1 z").integer(), 50_000);
    }
    client.ask("SET last 1");
    let size = client.ask("DBSIZE").integer().to_string();
    server.stop();
    size
}

/// Starts it and comes back as soon as somebody answers.
fn start(dir: &Path) -> (Running, Client) {
    let port = free_port();
    let mut command = Command::new(programs::cairn("cairn-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "yes", "--requirepass", "secret", "--dir"]).arg(dir);
    let running = Running::spawn(&mut command, &dir.with_extension("log"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let client = await_some(Duration::from_secs(30), || Client::connect(address).ok());
    (running, client.expect("it listens"))
}

fn field(client: &mut Client, name: &str) -> Option<String> {
    let text = client.ask("INFO persistence").text();
    text.lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")).map(|value| value.trim_end().to_owned()))
}

#[test]
fn clients_hear_loading_until_every_key_is_there() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let size = slow_to_load(&dir);
    let (running, mut client) = start(&dir);
    assert!(matches!(client.ask("PING"), Value::Error(text) if text.starts_with(b"NOAUTH")));
    assert_eq!(client.ask("AUTH secret"), Value::ok());
    for line in ["PING", "GET last", "SET other 1", "DBSIZE", "WATCH last", "BGSAVE", "DEBUG DIGEST"] {
        assert_eq!(client.ask(line), Value::Error(LOADING.to_vec()), "{line}");
    }
    assert!(matches!(client.ask("NOSUCH"), Value::Error(text) if text.starts_with(b"ERR unknown command")));
    assert_eq!(field(&mut client, "loading").as_deref(), Some("1"));
    for name in ["start_time", "total_bytes", "loaded_bytes", "loaded_perc", "eta_seconds"] {
        let value = field(&mut client, &format!("loading_{name}"));
        assert!(value.is_some_and(|value| value.parse::<f64>().is_ok()), "{name}");
    }
    assert!(matches!(client.ask("HELLO 3"), Value::Map(_)));
    assert_eq!(client.ask("CONFIG SET appendfsync always"), Value::ok());
    // A transaction that hears it cannot run.
    assert_eq!(client.ask("MULTI"), Value::ok());
    assert_eq!(client.ask("GET last"), Value::Error(LOADING.to_vec()));
    assert!(matches!(client.ask("EXEC"), Value::Error(text) if text.starts_with(b"EXECABORT")));
    assert!(!running.log().contains("Ready to accept connections"), "the log says so too early");

    let is_served = || (client.ask("PING") == Value::Simple(b"PONG".to_vec())).then_some(());
    await_some(Duration::from_secs(60), is_served).expect("everything is loaded in the end");
    assert_eq!(client.ask("DBSIZE").integer().to_string(), size);
    assert_eq!(client.ask("GET last"), Value::bulk("1"));
    assert_eq!(field(&mut client, "loading").as_deref(), Some("0"));
    assert_eq!(client.ask("SET other 1"), Value::ok());
    assert_eq!(field(&mut client, "cairn_journal_oldest_unsynced_ms").as_deref(), Some("0"));
    let ready = || running.log().contains("Ready to accept connections").then_some(());
    await_some(Duration::from_secs(5), ready).expect("the log says so");
}

#[test]
fn a_server_that_loads_can_be_ended() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("data");
    let size = slow_to_load(&dir);
    let (mut running, mut client) = start(&dir);
    assert_eq!(client.ask("AUTH secret"), Value::ok());
    assert_eq!(client.ask("PING"), Value::Error(LOADING.to_vec()));
    // There is no reply to it.
    assert!(client.call(&["SHUTDOWN", "NOSAVE"]).is_err());
    assert_eq!(programs::exit_code(running.wait(Duration::from_secs(30))), 0, "{}", running.log());
    let again = Setup::cairn(&dir).journal("everysec").with("requirepass", "secret").start();
    let mut client = again.connect();
    client.ask("AUTH secret");
    assert_eq!(client.ask("DBSIZE").integer().to_string(), size);
}
