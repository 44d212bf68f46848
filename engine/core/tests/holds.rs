//! What has to wait for the journal, shown with one that writes nothing until it is told to; and what a refused EXEC leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_disk::FaultyDisk;
use cairn_engine::{Driver, Embedded, Engine, Fsync, Lsn, Options, Outcome, Protocol, Reply, Session};

/// The journal's writer never has its turn.
struct Idle;

impl Driver for Idle {
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn rest(&self, _time: Duration) {}
}

fn engine() -> Engine {
    let mut options = Options::new("/data");
    options.disk = Arc::new(FaultyDisk::new());
    options.fsync = Fsync::Always;
    options.threads = 1;
    options.journal_driver = Some(Arc::new(Idle));
    Engine::open(options).expect("an empty directory")
}

/// Runs a request; its reply, and what that has to wait for.
fn run(engine: &Engine, session: &mut Session, args: &[&str]) -> (String, Lsn) {
    let (args, mut out): (Vec<&[u8]>, _) = (args.iter().map(|arg| arg.as_bytes()).collect(), Vec::new());
    match engine.execute(session, &Embedded, &args, &mut Reply::new(&mut out, Protocol::Resp2)) {
        Outcome::Done { hold } => (String::from_utf8_lossy(&out).into_owned(), hold),
        _ => unreachable!("there is room, and nobody else"),
    }
}

fn hold(engine: &Engine, session: &mut Session, request: &str) -> Lsn {
    run(engine, session, &request.split(' ').collect::<Vec<_>>()).1
}

#[test]
fn nobody_learns_of_a_library_before_it_is_durable() {
    let engine = engine();
    let code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let (reply, loaded) = run(&engine, &mut engine.session(), &["FUNCTION", "LOAD", code]);
    assert_eq!(reply, "$3\r\nlib\r\n");
    assert!(loaded > engine.durable());
    let mut other = engine.session();
    for request in ["FUNCTION LIST", "FUNCTION DUMP", "FCALL f 0", "FCALL_RO f 0", "FCALL f 1 key"] {
        let (mut in_transaction, words) = (engine.session(), request.split(' ').collect::<Vec<_>>());
        assert!(run(&engine, &mut other, &words).1 >= loaded, "{request}");
        hold(&engine, &mut in_transaction, "MULTI");
        assert_eq!(run(&engine, &mut in_transaction, &words).0, "+QUEUED\r\n");
        assert!(hold(&engine, &mut in_transaction, "EXEC") >= loaded, "{request} in a transaction");
    }
    assert_eq!(hold(&engine, &mut other, "PING"), Lsn::ZERO);
}

#[test]
fn a_message_does_not_overtake_what_its_sender_has_written() {
    let engine = engine();
    let (mut sender, mut other) = (engine.session(), engine.session());
    let written = hold(&engine, &mut sender, "SET k v");
    assert!(written > engine.durable());
    assert!(hold(&engine, &mut sender, "PUBLISH channel k") >= written);
    hold(&engine, &mut sender, "MULTI");
    hold(&engine, &mut sender, "PUBLISH channel k");
    assert!(hold(&engine, &mut sender, "EXEC") >= written);
    assert_eq!(hold(&engine, &mut other, "PUBLISH channel other"), Lsn::ZERO, "it has not written");
}

#[test]
fn a_refused_exec_ends_the_watches() {
    let engine = engine();
    let (mut client, mut other) = (engine.session(), engine.session());
    for request in ["WATCH k", "MULTI"] {
        hold(&engine, &mut client, request);
    }
    let refused = run(&engine, &mut client, &["EXEC", "now"]).0;
    assert!(refused.starts_with("-EXECABORT "), "{refused}");
    hold(&engine, &mut other, "SET k v");
    for request in ["MULTI", "PING"] {
        hold(&engine, &mut client, request);
    }
    assert_eq!(run(&engine, &mut client, &["EXEC"]).0, "*1\r\n+PONG\r\n");
}

#[test]
fn another_server_does_not_learn_of_what_the_same_transaction_has_written() {
    let engine = engine();
    let mut client = engine.session();
    for request in ["MULTI", "SET k v", "MIGRATE host 1 k 0 1"] {
        hold(&engine, &mut client, request);
    }
    let (reply, _) = run(&engine, &mut client, &["EXEC"]);
    assert!(reply.starts_with("*2\r\n+OK\r\n-ERR the same transaction"), "{reply}");
}
