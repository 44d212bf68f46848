//! redis_exporter reads a Cairn server as it reads Redis: it scrapes without an error and finds the same metrics.

use cairn_tests::process::{Running, await_some};
use cairn_tests::programs;
use cairn_tests::server::{Server, Setup, free_port};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What redis_exporter tells of a server.
struct Scrape {
    metrics: String,
    log: String,
}

impl Scrape {
    fn of(server: &Server, home: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(programs::dependency("redis_exporter"));
        command.arg("-redis.addr").arg(format!("redis://{}", server.address()));
        command.arg("-web.listen-address").arg(format!("127.0.0.1:{port}"));
        let exporter = Running::spawn(&mut command, &home.join(format!("{port}.log")));
        let metrics = await_some(Duration::from_secs(30), || get(port, "/metrics").ok());
        let metrics = metrics.unwrap_or_else(|| panic!("no metrics:\n{}", exporter.log()));
        Self { metrics, log: exporter.log() }
    }

    /// The names of all metrics about the server.
    fn names(&self) -> BTreeSet<&str> {
        let kinds = self.metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        kinds.filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with("redis_")).collect()
    }

    #[track_caller]
    fn expect(&self, line: &str) {
        assert!(self.metrics.lines().any(|one| one == line), "{line:?} is not in:\n{}", self.metrics);
    }
}

fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if !text.starts_with("HTTP/1.0 200") {
        return Err(io::Error::other(text));
    }
    Ok(text)
}

/// Some of everything, so that there is something to tell.
fn busy(server: &Server) {
    let mut client = server.connect();
    for line in [
        "CONFIG SET latency-monitor-threshold 1",
        "SET a 1",
        "SET b 2 EX 5000",
        "GET a",
        "GET none",
        "RPUSH list 1 2 3",
        "INCR list",
        "NOSUCHCOMMAND",
        "DEBUG SLEEP 0.02",
    ] {
        client.ask(line);
    }
}

#[test]
fn redis_exporter_finds_what_it_looks_for() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let cairn = Setup::cairn(&home.path().join("cairn")).journal("everysec").start();
    let redis = Setup::redis(&home.path().join("redis")).with("appendonly", "yes").start();
    busy(&cairn);
    busy(&redis);
    let (ours, theirs) = (Scrape::of(&cairn, home.path()), Scrape::of(&redis, home.path()));
    assert!(!ours.log.contains("level=error"), "{}", ours.log);
    for line in [
        "redis_up 1",
        "redis_exporter_last_scrape_error{err=\"\"} 0",
        "redis_keyspace_hits_total 1",
        "redis_keyspace_misses_total 1",
        "redis_db_keys{db=\"db0\"} 3",
        "redis_db_keys_expiring{db=\"db0\"} 1",
        "redis_aof_enabled 1",
        "redis_commands_total{cmd=\"get\"} 2",
    ] {
        theirs.expect(line);
        ours.expect(line);
    }
    let (ours, theirs) = (ours.names(), theirs.names());
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "Redis tells of these, and Cairn does not: {missing:?}");
}
