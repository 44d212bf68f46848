//! Servers as child processes: `cairn-server`, and `redis-server` as the oracle, behind one interface.

use crate::process::{Running, await_some};
use crate::programs;
use crate::resp::{Client, Value};
use crate::signal::Signal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A start, recovery included, takes no longer in any test.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A clean end, last sync and snapshot included.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server under test.
    Cairn,
    /// Debian's Redis, whose replies and digests are the measure.
    Redis,
}

/// How a server is started; it can be started again and again in the same directory.
#[derive(Clone, Debug)]
pub struct Setup {
    kind: Kind,
    dir: PathBuf,
    log: PathBuf,
    program: Option<PathBuf>,
    config: Option<PathBuf>,
    directives: Vec<(String, String)>,
    env: BTreeMap<String, String>,
}

/// A start that ended instead of serving.
#[derive(Debug)]
pub struct Refusal {
    /// The exit code.
    pub code: i32,
    /// All it said.
    pub log: String,
}

impl Refusal {
    /// Fails unless the code is `code` and the log holds each of `words`, whatever their case.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "exit code of the refused start:\n{}", self.log);
        let log = self.log.to_lowercase();
        for word in words {
            assert!(
                log.contains(&word.to_lowercase()),
                "the refused start should say {word:?}:\n{}",
                self.log
            );
        }
    }
}

impl Setup {
    /// `cairn-server` on `dir`, without save points, DEBUG allowed, its log beside the directory.
    pub fn cairn(dir: &Path) -> Self {
        Self::new(Kind::Cairn, dir)
    }

    /// `redis-server` on `dir`, in memory only unless directives say otherwise.
    pub fn redis(dir: &Path) -> Self {
        Self::new(Kind::Redis, dir)
    }

    fn new(kind: Kind, dir: &Path) -> Self {
        let log = dir.with_extension("log");
        let (dir, program, config) = (dir.to_owned(), None, None);
        let setup = Self { kind, dir, log, program, config, directives: Vec::new(), env: BTreeMap::new() };
        setup.with("save", "").with("enable-debug-command", "yes")
    }

    /// Another program that takes the same arguments, in its place.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// `appendonly yes` with this `appendfsync`.
    pub fn journal(self, fsync: &str) -> Self {
        self.with("appendonly", "yes").with("appendfsync", fsync)
    }

    /// Encryption with this keyring.
    pub fn key(self, keyring: &Path) -> Self {
        let keyring = keyring.to_str().expect("test paths are UTF-8").to_owned();
        self.with("encryption-key-file", &keyring)
    }

    /// The same on another directory.
    pub fn at(mut self, dir: &Path) -> Self {
        self.log = dir.with_extension("log");
        dir.clone_into(&mut self.dir);
        self
    }

    /// A configuration file, read before the directives.
    pub fn config(self, path: &Path) -> Self {
        Self { config: Some(path.to_owned()), ..self }
    }

    /// A directive; it takes the place of an earlier one of that name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.directives.retain(|(known, _)| known != name);
        self.directives.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same without a directive.
    pub fn without(mut self, name: &str) -> Self {
        self.directives.retain(|(known, _)| known != name);
        self
    }

    /// Environment variables beside the inherited ones.
    pub fn env<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        self.env.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that collects the output of every start.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn password(&self) -> Option<&str> {
        let mut set = self.directives.iter().filter(|(name, _)| name == "requirepass");
        set.next().map(|(_, password)| password.as_str()).filter(|password| !password.is_empty())
    }

    /// Starts it and waits until PING is answered with PONG; a start that is refused fails the test.
    #[track_caller]
    pub fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(refusal) => panic!(
                "{:?} ended with code {} instead of serving:\n{}",
                self.kind, refusal.code, refusal.log
            ),
        }
    }

    /// Starts it; the refusal when it ends instead of answering PING.
    #[track_caller]
    pub fn try_start(&self) -> Result<Server, Refusal> {
        std::fs::create_dir_all(&self.dir).expect("the data directory can be made");
        let port = free_port();
        let program = match self.kind {
            Kind::Cairn => self.program.clone().unwrap_or_else(|| programs::cairn("cairn-server")),
            Kind::Redis => self.program.clone().unwrap_or_else(|| programs::system("redis-server")),
        };
        let mut command = Command::new(program);
        command.args(&self.config);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).arg("--dir").arg(&self.dir);
        for (name, value) in &self.directives {
            command.arg(format!("--{name}")).arg(value);
        }
        command.envs(&self.env);
        let mut running = Running::spawn(&mut command, &self.log);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let outcome = await_some(START_LIMIT, || match running.ended() {
            Some(status) => Some(Err(programs::exit_code(status))),
            None if serves(address, self.password()) => Some(Ok(())),
            None => None,
        });
        match outcome {
            Some(Ok(())) => Ok(Server { running, address, kind: self.kind }),
            Some(Err(code)) => Err(Refusal { code, log: running.log() }),
            None => {
                panic!("{:?} neither serves nor ends after {START_LIMIT:?}:\n{}", self.kind, running.log())
            }
        }
    }
}

/// Whether something there serves keys: it answers PING with PONG, and before that with an error. Who is unknown hears
/// NOAUTH from the start, so where a password is set it is given.
fn serves(address: SocketAddr, password: Option<&str>) -> bool {
    let ping = |mut client: Client| {
        if let Some(password) = password {
            client.call(&["AUTH", password])?;
        }
        client.call(&["PING"])
    };
    match Client::connect(address).and_then(ping) {
        Ok(Value::Simple(text)) => text == b"PONG",
        Ok(Value::Error(text)) => text.starts_with(b"NOAUTH"),
        _ => false,
    }
}

/// A port that is free on the loopback interface, below the range the kernel hands out to outgoing connections, and
/// not given out before by this process.
pub fn free_port() -> u16 {
    const FIRST: usize = 10_000;
    const COUNT: usize = 20_000;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = std::process::id() as usize * 61;
        let port = u16::try_from(FIRST + (start + step) % COUNT).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT);
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    running: Running,
    address: SocketAddr,
    kind: Kind,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Whose server it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.address, self.log()))
    }

    /// DEBUG DIGEST.
    #[track_caller]
    pub fn digest(&self) -> String {
        match self.connect().ask("DEBUG DIGEST") {
            Value::Error(text) => panic!("DEBUG DIGEST: {}", text.escape_ascii()),
            value => value.text(),
        }
    }

    /// A field of INFO.
    #[track_caller]
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.connect().ask("INFO").text();
        let prefix = format!("{field}:");
        info.lines().find_map(|line| line.strip_prefix(&prefix).map(|value| value.trim_end().to_owned()))
    }

    /// Starts a snapshot and waits until it is complete.
    #[track_caller]
    pub fn bgsave(&self) {
        let mut client = self.connect();
        let reply = client.ask("BGSAVE");
        assert!(!reply.is_error(), "BGSAVE: {reply:?}");
        self.await_snapshot();
    }

    /// The process that writes a snapshot, once there is one.
    #[track_caller]
    pub fn snapshot_child(&self) -> u32 {
        let mine = |pid: u32| -> Option<u32> {
            let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // Behind the name: the state, and who started it.
            let parent = line.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()?;
            (parent == self.pid()).then_some(pid)
        };
        let find = || {
            let processes = std::fs::read_dir("/proc").expect("/proc can be listed").flatten();
            processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(mine)
        };
        await_some(START_LIMIT, find).unwrap_or_else(|| panic!("no snapshot is written:\n{}", self.log()))
    }

    /// Waits until no snapshot is being taken, and fails unless the last one went well.
    #[track_caller]
    pub fn await_snapshot(&self) {
        let done = await_some(START_LIMIT, || match self.info("rdb_bgsave_in_progress").as_deref() {
            Some("0") => Some(()),
            Some(_) => None,
            None => panic!("INFO has no rdb_bgsave_in_progress"),
        });
        assert!(done.is_some(), "the snapshot is not complete after {START_LIMIT:?}:\n{}", self.log());
        assert_eq!(self.info("rdb_last_bgsave_status").as_deref(), Some("ok"), "{}", self.log());
    }

    /// SIGKILL, as a crash would.
    pub fn kill(mut self) {
        self.running.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// SIGTERM, and waits for the clean end that must follow.
    #[track_caller]
    pub fn stop(mut self) {
        self.running.signal(Signal::Terminate);
        let status = self.running.wait(END_LIMIT);
        assert_eq!(programs::exit_code(status), 0, "a clean end was asked for:\n{}", self.running.log());
    }

    /// Waits until it ends; its exit code and all it said.
    #[track_caller]
    pub fn log_at_end(mut self) -> (i32, String) {
        let code = programs::exit_code(self.running.wait(END_LIMIT));
        (code, self.running.log())
    }

    /// Waits until it ends by itself; its exit code.
    #[track_caller]
    pub fn wait(mut self) -> i32 {
        programs::exit_code(self.running.wait(END_LIMIT))
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.running.log()
    }
}
