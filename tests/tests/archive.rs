//! The continuous archive: whatever dies, every moment of it comes back.

use cairn_tests::counts;
use cairn_tests::minio::Minio;
use cairn_tests::process::{Running, await_some};
use cairn_tests::programs::{self, Done, Tool};
use cairn_tests::random::{self, Random};
use cairn_tests::server::{Server, Setup};
use cairn_tests::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing that is awaited takes longer, however busy the machine.
const LIMIT: Duration = Duration::from_secs(90);
/// How often the agent looks at the journal.
const INTERVAL: Duration = Duration::from_millis(200);
/// What is missing after all has died at once is not older than this: the interval, and the upload on a busy machine.
const MISSING_MAX: Duration = Duration::from_secs(8);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A data directory, its keyring, and a repository.
struct Home {
    directory: tempfile::TempDir,
    keyring: PathBuf,
    url: String,
    env: Vec<(&'static str, String)>,
}

impl Home {
    fn new(minio: Option<&Minio>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keyring = directory.path().join("keyring");
        programs::generate_keyring(&keyring);
        let (url, env) = match minio {
            Some(minio) => (minio.url("archive"), minio.env()),
            None => (format!("file://{}", directory.path().join("repository").display()), Vec::new()),
        };
        Self { directory, keyring, url, env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, name: &str) -> Server {
        // Small segments, so that many are begun and merged.
        let setup = Setup::cairn(&self.path(name)).journal("always").key(&self.keyring);
        setup.with("journal-segment-size", "1mb").start()
    }

    fn tool(&self, tool: Tool) -> Tool {
        let tool = tool.env(self.env.clone()).option("--repo", &self.url);
        tool.option("--encryption-key-file", &self.keyring).env([("CAIRN_RETRY_SECONDS", "20".to_owned())])
    }

    fn restore(&self, point: &[&str], to: &Path) -> Done {
        let tool = point.iter().fold(self.tool(Tool::restore()), |tool, word| tool.arg(word));
        tool.option("--dir", to).arg("--json").run()
    }

    /// Starts the agent.
    fn agent(&self) -> Agent {
        let mut command = Command::new(programs::cairn("cairn-backup"));
        command.args(["run", "--json", "--lease", "4s", "--grace", "2s", "--retry-seconds", "1"]);
        command.args([
            "--interval",
            &format!("{}ms", INTERVAL.as_millis()),
            "--repo",
            &self.url,
            "--log",
            "error",
        ]);
        command.arg("--dir").arg(self.path("data")).arg("--encryption-key-file").arg(&self.keyring);
        command.envs(self.env.iter().map(|(name, value)| (*name, value.as_str())));
        Agent { running: Running::spawn(&mut command, &self.path("agent.log")) }
    }

    /// The counter that a restore gives.
    fn counter_at(&self, point: &[&str]) -> u64 {
        let target = self.path("restored");
        if target.exists() {
            std::fs::remove_dir_all(&target).expect("a directory can be removed");
        }
        self.restore(point, &target).expect(0);
        let server = Setup::cairn(&target).journal("always").key(&self.keyring).start();
        let counter = server.connect().ask("GET counter").text();
        server.stop();
        counter.parse().unwrap_or(0)
    }

    /// Waits until this moment can be restored.
    fn until_restorable(&self, moment: u64) {
        let restorable = await_some(LIMIT, || {
            // The list needs no key, and refuses one.
            let list = Tool::backup().env(self.env.clone()).option("--repo", &self.url);
            let done = list.arg("list").arg("--json").run();
            let ranges = done.expect(0).json()["ranges"].clone();
            let holds =
                |range: &serde_json::Value| range["to_unix_ms"].as_u64().is_some_and(|to| to >= moment);
            ranges.as_array().is_some_and(|ranges| ranges.iter().any(holds)).then_some(())
        });
        assert!(restorable.is_some(), "{moment} is not restorable after {LIMIT:?}:\n{}", self.agent_log());
    }

    fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }
}

/// A running agent.
struct Agent {
    running: Running,
}

impl Agent {
    /// The events it told of, of one kind.
    fn events(&self, kind: &str) -> Vec<serde_json::Value> {
        let lines = self.running.log();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.filter(|event| event["event"] == kind).collect()
    }

    fn until(&mut self, kind: &str) {
        let seen = await_some(LIMIT, || {
            assert!(self.running.ended().is_none(), "the agent ended:\n{}", self.running.log());
            (!self.events(kind).is_empty()).then_some(())
        });
        assert!(seen.is_some(), "no event {kind:?} after {LIMIT:?}:\n{}", self.running.log());
    }

    /// All below it is in the archive, as the agent says.
    fn archived_lsn(&self) -> Option<u64> {
        self.events("archived").last().and_then(|event| event["lsn"].as_u64())
    }

    fn stop(mut self) -> i32 {
        self.running.signal(Signal::Terminate);
        programs::exit_code(self.running.wait(LIMIT))
    }
}

/// One step of the counter: it was this after a command that was sent and answered at these moments.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    sent_ms: u64,
    answered_ms: u64,
    counter: u64,
}

/// Counts up every ten milliseconds, until the server is gone or it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stamp>>,
    stamps: Arc<Mutex<Vec<Stamp>>>,
}

impl Writer {
    fn start(server: &Server) -> Self {
        let (stop, stamps) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (told, noted) = (Arc::clone(&stop), Arc::clone(&stamps));
        let mut client = server.connect();
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let sent_ms = now_ms();
                let Ok(answer) = client.call(&["INCR", "counter"]) else { break };
                let stamp = Stamp { sent_ms, answered_ms: now_ms(), counter: answer.integer() as u64 };
                noted.lock().expect("nobody panics").push(stamp);
                thread::sleep(Duration::from_millis(10));
            }
            noted.lock().expect("nobody panics").clone()
        });
        Self { stop, thread, stamps }
    }

    fn written(&self) -> usize {
        self.stamps.lock().expect("nobody panics").len()
    }

    fn end(self) -> Vec<Stamp> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

fn moment(ms: u64) -> String {
    format!("{}.{:03}Z", utc_seconds(ms / 1_000), ms % 1_000)
}

/// `date -u` knows the calendar.
fn utc_seconds(seconds: u64) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"])
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Fails unless a counter is that of this moment: all that was answered before it, nothing that was sent after it.
#[track_caller]
fn check(counter: u64, at: u64, stamps: &[Stamp]) {
    let least =
        stamps.iter().filter(|stamp| stamp.answered_ms < at).map(|stamp| stamp.counter).max().unwrap_or(0);
    let most =
        stamps.iter().filter(|stamp| stamp.sent_ms <= at).map(|stamp| stamp.counter).max().unwrap_or(0);
    assert!((least..=most).contains(&counter), "at {at}: {counter}, which should be {least} to {most}");
}

/// Point 1: restores to random moments each give the counter of that moment, while the disk stalls now and then.
fn moments_come_back(minio: Option<&Minio>) {
    let home = Home::new(minio);
    let mut random = Random::new(random::seed("moments_come_back"));
    let server = home.server("data");
    let mut agent = home.agent();
    agent.until("base");
    let writer = Writer::start(&server);
    let seconds = counts::of(3, 120) as u64;
    for _ in 0..seconds {
        thread::sleep(Duration::from_millis(900));
        // The whole process stands still, as it does when its disk does.
        server.signal(Signal::Stop);
        thread::sleep(Duration::from_millis(random.below(100) as u64));
        server.signal(Signal::Continue);
    }
    let stamps = writer.end();
    let (first, last) = (stamps[0].answered_ms, stamps[stamps.len() - 1].sent_ms);
    home.until_restorable(last);
    for _ in 0..counts::of(4, 20) {
        let at = first + random.below((last - first) as usize) as u64;
        check(home.counter_at(&["--time", &moment(at)]), at, &stamps);
    }
    // A moment that nobody knows of yet, and one before all.
    for outside in [now_ms() + 3_600_000, 1_000_000_000_000] {
        let done = home.restore(&["--time", &moment(outside)], &home.path("outside"));
        done.expect(14).saying(&["what can be"]);
    }
    home.restore(&["--time", "10:15:04"], &home.path("outside")).expect(2);
    let planned =
        home.restore(&["--time", &moment(last - 5), "--dry-run"], &home.path("outside")).expect(0).json();
    assert!(planned["objects"].as_u64() > Some(0) && planned["bytes"].as_u64() > Some(0), "{planned}");
    assert!(!home.path("outside").exists(), "nothing is written by a plan or a refusal");
    assert_eq!(agent.stop(), 0);
    home.tool(Tool::backup()).arg("verify").run().expect(0);
    // All of it, to the last commit.
    assert_eq!(home.counter_at(&["--latest"]), stamps[stamps.len() - 1].counter);
}

#[test]
fn moments_come_back_from_a_directory() {
    moments_come_back(None);
}

#[test]
fn moments_come_back_from_minio() {
    moments_come_back(Some(&Minio::start()));
}

/// Point 2: whatever is killed, every point that could be restored still can be, and what the agent says is archived is.
#[test]
fn kills_leave_every_point_restorable() {
    let mut minio = Minio::start();
    let home = Home::new(Some(&minio));
    let mut random = Random::new(random::seed("kills_leave_every_point_restorable"));
    let mut server = home.server("data");
    let mut agent = home.agent();
    agent.until("base");
    let mut stamps: Vec<Stamp> = Vec::new();
    for round in 0..counts::of(4, 30) {
        let writer = Writer::start(&server);
        let wanted = 20 + random.below(counts::of(40, 200));
        await_some(LIMIT, || (writer.written() >= wanted).then_some(())).expect("the writer writes");
        if round % 3 == 2 {
            server.bgsave();
        }
        // All of them at least once in four rounds.
        let kinds = if round % 4 == 3 { 7 } else { 1 << (round % 4) };
        if kinds & 4 != 0 {
            minio.kill();
        }
        if kinds & 2 != 0 {
            agent.running.kill();
        }
        let killed_ms = now_ms();
        if kinds & 1 != 0 {
            server.kill();
            stamps.extend(writer.end());
            // Before the server is back: what is in the archive is all that a lost machine leaves.
            if kinds & 4 != 0 {
                minio.again();
            }
            let left = home.counter_at(&["--latest"]);
            let needed =
                stamps.iter().filter(|stamp| stamp.answered_ms + MISSING_MAX.as_millis() as u64 <= killed_ms);
            let needed = needed.map(|stamp| stamp.counter).max().unwrap_or(0);
            assert!(left >= needed, "{left} is left of {needed}");
            server = home.server("data");
        } else {
            thread::sleep(Duration::from_millis(300));
            stamps.extend(writer.end());
            if kinds & 4 != 0 {
                minio.again();
            }
        }
        if kinds & 2 != 0 {
            agent = home.agent();
            agent.until("following");
        }
        let last = stamps[stamps.len() - 1];
        // The server has seen another effect than the last one by then.
        assert!(!server.connect().ask("SET other 1").is_error());
        home.until_restorable(last.answered_ms);
        if let Some(lsn) = agent.archived_lsn() {
            home.restore(&["--lsn", &lsn.to_string(), "--dry-run"], &home.path("planned")).expect(0);
        }
        for _ in 0..counts::of(1, 3) {
            let first = stamps[0].answered_ms;
            let at = first + random.below((last.sent_ms - first).max(1) as usize) as u64;
            check(home.counter_at(&["--time", &moment(at)]), at, &stamps);
        }
    }
    assert_eq!(agent.stop(), 0);
    home.tool(Tool::backup()).arg("verify").run().expect(0);
    server.stop();
}

/// Two agents, on two directories, and one repository: the second is refused and hears why, until the first is gone.
#[test]
fn a_second_agent_is_refused_until_the_first_is_gone() {
    let home = Home::new(None);
    let _server = home.server("data");
    let mut agent = home.agent();
    agent.until("base");
    let _other = home.server("other");
    let second = |lease: &str| {
        let tool = home.tool(Tool::backup()).arg("run").option("--dir", home.path("other"));
        tool.option("--lease", lease)
    };
    second("4s").run().expect(11).saying(&["lease", "until", "data"]);
    // One that is killed holds it until it runs out, and on the same directory its successor need not wait.
    agent.running.kill();
    let mut agent = home.agent();
    agent.until("following");
    agent.running.kill();
    let taken = await_some(LIMIT, || {
        let mut command = Command::new(programs::cairn("cairn-backup"));
        command.args(["run", "--json", "--lease", "4s", "--repo", &home.url]);
        command.arg("--dir").arg(home.path("other")).arg("--encryption-key-file").arg(&home.keyring);
        let mut second = Agent { running: Running::spawn(&mut command, &home.path("second.log")) };
        let begun = await_some(LIMIT, || {
            let ended = second.running.ended().map(programs::exit_code);
            ended.or_else(|| (!second.events("following").is_empty()).then_some(0))
        });
        match begun.expect("it begins or is refused") {
            0 => Some(second),
            code => {
                assert_eq!(code, 11, "{}", second.running.log());
                None
            }
        }
    });
    assert_eq!(taken.expect("the lease runs out").stop(), 0);
}
