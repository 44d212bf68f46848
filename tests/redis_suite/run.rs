//! One file of the suite, run to its end whatever happens in it.

use crate::files;
use crate::lists::Row;
use crate::report::{Failure, FileReport};
use crate::settings::{Mode, Settings};
use crate::transcript::{self, Event};
use cairn_tests::process::{Running, await_some};
use cairn_tests::programs;
use cairn_tests::resp::Client;
use cairn_tests::server::{Server, Setup};
use cairn_tests::signal;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A file is begun again without the test that hung, at most this often.
const ATTEMPTS: usize = 12;
/// However much progress it makes, no file runs longer.
const FILE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How many ports a run of the suite has for its servers.
const RANGE: u16 = 200;
/// The runner's own port lies this far below them at most.
const BELOW: u16 = 32;

/// Runs `unit` against a fresh server. A test that hangs counts as failed, and the file is run again without it, so that
/// one missing command does not hide all that follows.
pub(crate) fn file(settings: &Settings, unit: &str, left_out: &[Row]) -> FileReport {
    let began = Instant::now();
    let mut report = FileReport { file: unit.to_owned(), ..FileReport::default() };
    let mut skipped: Vec<String> = left_out
        .iter()
        .filter(|row| {
            row.is_for(settings.mode) && row.file == unit && row.test != "*" && row.line().is_none()
        })
        .map(|row| row.test.clone())
        .collect();
    let mut hanging = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let events = match attempt_file(settings, unit, left_out, &skipped) {
            Ok(events) => events,
            Err(why) => vec![Event::Broken(why)],
        };
        let hung = events.iter().find_map(|event| match event {
            Event::Hung(Some(test)) => Some(test.clone()),
            _ => None,
        });
        match hung {
            Some(test) if attempt < ATTEMPTS => {
                println!("{unit}: {test:?} hangs; the file is run again without it");
                let why = format!("nothing was heard of it for {} s", settings.patience.as_secs());
                hanging.push(Failure { test: test.clone(), why, listed: false });
                skipped.push(test);
            }
            _ => {
                report.take(events);
                break;
            }
        }
    }
    report.failed.extend(hanging);
    report.seconds = began.elapsed().as_secs();
    report
}

/// One attempt, in a directory that goes with it.
fn attempt_file(
    settings: &Settings,
    unit: &str,
    left_out: &[Row],
    skipped: &[String],
) -> Result<Vec<Event>, String> {
    let home = tempfile::Builder::new()
        .prefix("cairn-suite-")
        .tempdir()
        .map_err(|error| format!("no temporary directory: {error}"))?;
    files::lay_out(settings, left_out, home.path())
        .map_err(|error| format!("{}: {error}", home.path().display()))?;
    let server = match settings.mode {
        Mode::External => Some(start(settings, home.path())?),
        Mode::Own => None,
    };
    let log = home.path().join("transcript");
    let mut command = runner(settings, unit, home.path(), server.as_ref(), skipped);
    let mut runner = Running::spawn(&mut command, &log);
    let ended = await_some(FILE_LIMIT, || {
        std::thread::sleep(Duration::from_millis(20));
        runner.ended()
    });
    // Servers that the suite has started belong to the runner's group.
    signal::kill_group(runner.pid());
    let text = runner.log();
    let mut events = transcript::read(&text, unit);
    if ended.is_none() {
        events.push(Event::Broken(format!("it still ran after {} s", FILE_LIMIT.as_secs())));
    } else if !events.iter().any(|event| matches!(event, Event::Done | Event::Hung(_) | Event::Broken(_))) {
        events.push(Event::Broken(last_lines(&text)));
    }
    let mut kept = text;
    if let Some(server) = server {
        if Client::connect(server.address()).is_err() {
            events.push(Event::Broken(format!("the server is gone: {}", last_lines(&server.log()))));
        }
        kept.push_str("\n== the server's log\n");
        kept.push_str(&server.log());
    }
    keep(settings, unit, &kept)?;
    Ok(events)
}

fn start(settings: &Settings, home: &Path) -> Result<Server, String> {
    let dir = home.join("data");
    let setup = match &settings.peer {
        // Tests send by one connection after the other, without waiting, and expect to be served in that order.
        None => Setup::cairn(&dir).journal("everysec").with("server-threads", "1"),
        Some(peer) => Setup::redis(&dir).program(peer.clone()),
    };
    setup.try_start().map_err(|refusal| format!("the server does not start: {}", refusal.log))
}

/// The suite's own program for `unit` alone.
fn runner(
    settings: &Settings,
    unit: &str,
    home: &Path,
    server: Option<&Server>,
    skipped: &[String],
) -> Command {
    let mut command = Command::new(programs::system("tclsh"));
    command.current_dir(home).env("TERM", "dumb").process_group(0);
    command.args(["tests/test_helper.tcl", "--single", unit, "--clients", "1", "--durable", "--dont-clean"]);
    command.args(["--timeout", &settings.patience.as_secs().to_string(), "--tags", &settings.tags()]);
    // It keeps to ports of its own: others may run beside it.
    command.args(["--baseport", &free_range().to_string(), "--portcount", &RANGE.to_string()]);
    if let Some(server) = server {
        command.args(["--host", "127.0.0.1", "--port", &server.address().port().to_string()]);
    }
    if let Some(test) = &settings.test {
        command.args(["--only", test]);
    }
    for test in skipped {
        command.args(["--skiptest", test]);
    }
    command
}

/// The first of [`RANGE`] ports below those the kernel hands out, which neither another run nor anybody else seems to use.
fn free_range() -> u16 {
    const FIRST: u16 = 11_000;
    const RANGES: u16 = 80;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(RANGES)) as u16 * 37;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..RANGES {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % RANGES;
        let base = FIRST + (start % RANGES + step) % RANGES * (RANGE + BELOW) + BELOW;
        if (base - BELOW..base + 8).all(is_free) {
            return base;
        }
    }
    panic!("no free range of ports on 127.0.0.1 from {FIRST}");
}

/// The transcript stays where a person can read it.
fn keep(settings: &Settings, unit: &str, text: &str) -> Result<(), String> {
    let path = settings.directory.join(format!("{}.log", unit.replace('/', ".")));
    fs::create_dir_all(&settings.directory)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
