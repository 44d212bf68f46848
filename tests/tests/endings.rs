//! SIGTERM and SIGINT, whatever the server is about: it ends within seconds, with the code that is true, and everything that
//! was acknowledged is there afterwards. Two servers, or a restore, never share a directory.

use cairn_tests::files;
use cairn_tests::process::{Running, await_some};
use cairn_tests::programs::{self, Tool};
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup, free_port};
use cairn_tests::shim::Shim;
use cairn_tests::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// An end is a matter of a second or two; more is allowed only because other tests run beside this one.
const BOUND: Duration = Duration::from_secs(20);

const SIGNALS: [Signal; 2] = [Signal::Terminate, Signal::Interrupt];

/// A data directory of its own for each case.
struct Case {
    _home: tempfile::TempDir,
    dir: PathBuf,
}

impl Case {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = home.path().join("data");
        Self { _home: home, dir }
    }

    /// With a journal, and with save points, since those ask for a snapshot at the end.
    fn setup(&self) -> Setup {
        Setup::cairn(&self.dir).journal("always").with("save", "3600 100000")
    }
}

/// Sends the signal; the server must end in time, with code 0, and the next start has what `digest` stands for.
#[track_caller]
fn ends_cleanly(server: Server, signal: Signal, setup: &Setup, digest: &str) -> String {
    let log = ends(server, signal, 0);
    assert!(log.contains("ready to exit, bye bye"), "{log}");
    restarts(setup, digest);
    log
}

#[track_caller]
fn ends(server: Server, signal: Signal, code: i32) -> String {
    let began = Instant::now();
    server.signal(signal);
    let (found, log) = server.log_at_end();
    assert!(began.elapsed() < BOUND, "it took {:?} to end:\n{log}", began.elapsed());
    assert_eq!(found, code, "{log}");
    log
}

/// What a start finds; nothing half done is left lying about.
#[track_caller]
fn restarts(setup: &Setup, digest: &str) {
    let unfinished = files::all(setup.dir()).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("snapshot-") && name.ends_with(".tmp")
    });
    assert_eq!(unfinished.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    let server = setup.start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

fn populate(server: &Server) -> (Client, String) {
    let mut client = server.connect();
    client.ask("DEBUG POPULATE 2000 key 100");
    client.ask("SET last 1");
    (client, server.digest())
}

#[test]
fn while_a_snapshot_is_written() {
    for signal in SIGNALS {
        for command in ["BGSAVE", "BGREWRITEAOF"] {
            let case = Case::new();
            let server = case.setup().start();
            let (mut client, digest) = populate(&server);
            assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 20000"), Value::ok());
            client.ask(command);
            server.snapshot_child();
            // The snapshot at the end is not to dawdle too.
            assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 0"), Value::ok());
            let log = ends_cleanly(server, signal, &case.setup(), &digest);
            assert!(log.contains("the snapshot was called off, since the server ends"), "{log}");
        }
    }
}

#[test]
fn while_the_journal_is_switched_on() {
    for signal in SIGNALS {
        let case = Case::new();
        let setup = case.setup().with("appendonly", "no");
        let server = setup.start();
        let (mut client, digest) = populate(&server);
        assert_eq!(client.ask("CONFIG SET appendonly yes"), Value::ok());
        ends_cleanly(server, signal, &setup, &digest);
    }
}

/// There is no room for a snapshot at the end; the journal has everything, so none is missed.
#[test]
fn while_the_disk_is_full() {
    for signal in SIGNALS {
        let case = Case::new();
        let shim = Shim::new(&case.dir);
        let server = case.setup().with("journal-segment-size", "1mb").env(shim.full_disk(None)).start();
        let (mut client, _) = populate(&server);
        shim.mark("disk-full");
        let value = "v".repeat(100_000);
        let refused =
            |number: i32| client.args(&["SET", &format!("fill:{number}"), &value]).is_error().then_some(());
        assert!((0..1_000).find_map(refused).is_some(), "a full disk refuses writes in the end");
        let digest = server.digest();
        let log = ends_cleanly(server, signal, &case.setup(), &digest);
        assert!(log.contains("ending without a snapshot; the journal holds everything"), "{log}");
        assert!(log.contains("No space left on device (os error 28); free some space there"), "{log}");
    }
}

/// Without a journal the snapshot is all there is: the server stays rather than lose the data, until it is told to.
#[test]
fn while_the_disk_is_full_and_there_is_no_journal() {
    let case = Case::new();
    let shim = Shim::new(&case.dir);
    let server = case.setup().with("appendonly", "no").env(shim.full_disk(None)).start();
    let (mut client, digest) = populate(&server);
    shim.mark("disk-full");
    server.signal(Signal::Terminate);
    let stays = || server.log().contains("could not end cleanly, so the server goes on").then_some(());
    assert!(await_some(LIMIT, stays).is_some(), "{}", server.log());
    assert!(server.log().contains("SHUTDOWN NOSAVE ends without one"), "{}", server.log());
    let refusal = client.ask("SHUTDOWN SAVE");
    let Value::Error(text) = &refusal else { panic!("{refusal:?}") };
    let text = String::from_utf8_lossy(text);
    assert!(
        text.starts_with("ERR Errors trying to SHUTDOWN: the snapshot was not written: ")
            && text.ends_with(
                "No space left on device (os error 28); free some space there; SHUTDOWN NOSAVE ends without one. Check logs."
            ),
        "{text}"
    );
    assert_eq!(server.digest(), digest);
    shim.unmark("disk-full");
    ends_cleanly(server, Signal::Terminate, &case.setup().with("appendonly", "no"), &digest);
}

/// What is not durable may be lost, nobody was told otherwise, and the exit code says that it was no clean end.
#[test]
fn when_the_journal_has_stopped() {
    for signal in SIGNALS {
        let case = Case::new();
        let shim = Shim::new(&case.dir);
        let server = case.setup().env(shim.full_disk(None)).start();
        let (mut client, digest) = populate(&server);
        shim.mark("fail-sync");
        assert!(client.ask("SET lost 1").is_error());
        let log = ends(server, signal, 1);
        assert!(log.contains("cairn-server: ended, but not cleanly: the journal stopped: "), "{log}");
        let server = case.setup().start();
        server.connect().ask("DEL lost");
        assert_eq!(server.digest(), digest);
    }
}

/// What waits for the disk is waited for; a second signal does not wait, and the exit code says so.
#[test]
fn while_the_disk_hangs() {
    for signal in SIGNALS {
        let case = Case::new();
        let shim = Shim::new(&case.dir);
        let setup = case.setup().with("save", "");
        let server = setup.clone().env(shim.full_disk(None)).start();
        let (mut client, digest) = populate(&server);
        shim.mark("hang-sync");
        client.send(b"SET unacknowledged 1\r\n").expect("it can be sent");
        assert!(client.is_silent(Duration::from_millis(200)));
        server.signal(signal);
        let begun = || server.log().contains("ending cleanly; a second signal ends at once").then_some(());
        assert!(await_some(LIMIT, begun).is_some(), "{}", server.log());
        let log = ends(server, signal, 130);
        assert!(log.contains("ending at once: what is not yet durable is lost"), "{log}");
        let server = setup.start();
        server.connect().ask("DEL unacknowledged");
        assert_eq!(server.digest(), digest);
        server.stop();
    }
}

#[test]
fn while_a_script_runs_on() {
    // One that has written cannot be ended, and nothing of it may be there afterwards.
    for script in ["while true do end", "redis.call('SET', 'half', '1') while true do end"] {
        for signal in SIGNALS {
            let case = Case::new();
            let server = case.setup().with("busy-reply-threshold", "50").start();
            let (mut client, digest) = populate(&server);
            let mut busy = server.connect();
            let mut request = Vec::new();
            cairn_tests::resp::encode(&mut request, &["EVAL", script, "1", "half"]);
            busy.send(&request).expect("it can be sent");
            let is_busy = || {
                matches!(client.ask("PING"), Value::Error(text) if text.starts_with(b"BUSY")).then_some(())
            };
            assert!(await_some(LIMIT, is_busy).is_some());
            let Value::Error(not_ready) = client.ask("CAIRN READY") else { panic!("it is ready") };
            assert!(
                not_ready.starts_with(b"NOTREADY busy: a script has run for "),
                "{}",
                not_ready.escape_ascii()
            );
            let log = ends_cleanly(server, signal, &case.setup(), &digest);
            assert!(log.contains("ending without a snapshot, since a script holds keys"), "{log}");
        }
    }
}

/// Without a journal there has to be a snapshot, and so the script has to go.
#[test]
fn while_a_script_runs_on_and_there_is_no_journal() {
    let case = Case::new();
    let setup = case.setup().with("appendonly", "no");
    let server = setup.clone().with("busy-reply-threshold", "50").start();
    let (mut client, digest) = populate(&server);
    let mut busy = server.connect();
    busy.send(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n").expect("it can be sent");
    let is_busy =
        || matches!(client.ask("PING"), Value::Error(text) if text.starts_with(b"BUSY")).then_some(());
    assert!(await_some(LIMIT, is_busy).is_some());
    let log = ends_cleanly(server, Signal::Terminate, &setup, &digest);
    assert!(log.contains("a script was ended, since the server ends"), "{log}");
}

#[test]
fn while_clients_wait() {
    for signal in SIGNALS {
        let case = Case::new();
        let server = case.setup().start();
        let (mut client, digest) = populate(&server);
        let mut waiting: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for (waiting, command) in
            waiting.iter_mut().zip(["BLPOP nothing 0", "WAITAOF 0 1 0", "SUBSCRIBE nothing"])
        {
            waiting.send(format!("{command}\r\n").as_bytes()).expect("it can be sent");
        }
        client.ask("CLIENT PAUSE 100000 WRITE");
        let mut paused = server.connect();
        paused.send(b"SET paused 1\r\n").expect("it can be sent");
        let blocked = || (server.info("blocked_clients").as_deref() != Some("0")).then_some(());
        assert!(await_some(LIMIT, blocked).is_some());
        ends_cleanly(server, signal, &case.setup(), &digest);
    }
}

/// A client that takes no replies is waited for, but not for long.
#[test]
fn while_a_client_does_not_read() {
    let case = Case::new();
    let setup = case.setup().with("shutdown-timeout", "1");
    let server = setup.start();
    let (mut client, _) = populate(&server);
    client.args(&["SET", "large", &"v".repeat(1 << 20)]);
    let digest = server.digest();
    let mut deaf = server.connect();
    (0..64).for_each(|_| deaf.send(b"GET large\r\n").expect("it can be sent"));
    let waits = || {
        let list = client.ask("CLIENT LIST").text();
        list.lines().any(|line| line.contains("cmd=get") || line.contains("obl=1")).then_some(())
    };
    let _ = await_some(Duration::from_secs(2), waits);
    ends_cleanly(server, Signal::Terminate, &setup, &digest);
}

/// The data is being read, and stays as it is.
#[test]
fn while_the_data_is_loaded() {
    let case = Case::new();
    let setup = case.setup().with("save", "").with("appendfsync", "everysec");
    let server = setup.start();
    let mut client = server.connect();
    let add = "for i = 1, 50000 do redis.call('ZADD', 'z', i, 'm' .. i) end";
    client.args(&["EVAL", add, "1", "z"]);
    for _ in 0..40 {
        assert_eq!(client.ask("ZUNIONSTORE d 1 z").integer(), 50_000);
    }
    let digest = server.digest();
    server.stop();
    for signal in SIGNALS {
        let (mut running, mut client) = start_loading(setup.dir());
        let Value::Error(text) = client.ask("CAIRN READY") else { panic!("{}", running.log()) };
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            text.starts_with("NOTREADY loading: the data is being loaded, ")
                && text.contains(" % so far; nothing needs to be done (for "),
            "{text}"
        );
        let began = Instant::now();
        running.signal(signal);
        let code = programs::exit_code(running.wait(BOUND));
        assert_eq!(code, 0, "{}", running.log());
        assert!(!running.log().contains("Ready to accept"), "it had loaded:\n{}", running.log());
        println!("ended within {:?}", began.elapsed());
    }
    restarts(&setup, &digest);
}

/// Starts it and comes back as soon as somebody answers.
fn start_loading(dir: &Path) -> (Running, Client) {
    let port = free_port();
    let mut command = Command::new(programs::cairn("cairn-server"));
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--dir",
    ]);
    let running = Running::spawn(command.arg(dir), &dir.with_extension("log"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let client = await_some(LIMIT, || Client::connect(address).ok());
    (running, client.expect("it listens"))
}

#[test]
fn a_second_server_or_a_restore_on_the_same_directory_is_refused() {
    let case = Case::new();
    let server = case.setup().start();
    let (mut client, digest) = populate(&server);
    let before = files::named(&case.dir, "snapshot-");
    let refusal = case.setup().try_start().expect_err("the directory is in use");
    assert_eq!(refusal.code, 11);
    let lock = case.dir.join("lock");
    let said = format!(
        "cairn-server: {} is locked: another cairn-server runs on this directory; stop it, or give another dir",
        lock.display()
    );
    assert!(refusal.log.contains(&said), "{}", refusal.log);

    server.bgsave();
    let snapshot = files::named(&case.dir, "snapshot-").pop().expect("a snapshot");
    let copy = case.dir.with_extension("cairn");
    std::fs::copy(&snapshot, &copy).expect("a snapshot can be copied");
    let restore = Tool::restore().option("--from", &copy).option("--dir", &case.dir);
    let dir = case.dir.display();
    let done = restore.run().expect(1);
    let there = format!("{dir}: the directory holds ");
    assert!(
        done.stderr.contains(&there) && done.stderr.contains("choose an empty one, or give --force"),
        "{}",
        done.stderr
    );
    let done = restore.arg("--force").arg("-y").run().expect(11);
    assert_eq!(
        done.stderr.trim(),
        format!(
            "cairn-restore: {dir}: the directory is locked: a server or a restore is using it; stop that first, or choose \
             another directory"
        )
    );
    assert!(before.is_empty());
    assert_eq!(client.ask("GET last").text(), "1");
    assert_eq!(server.digest(), digest);
    ends_cleanly(server, Signal::Terminate, &case.setup(), &digest);
}
