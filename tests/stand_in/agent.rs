//! Stands in for `cairn-backup run` and for `cairn-restore` where a test is about the server that starts them.
//!
//! It is run under their names. What it does stands in files of the directory `CAIRN_STAND_IN`, and what happened to it is
//! written there:
//! - `agent`: `follow` (tell that everything durable is archived), `lag` (ask, and tell nothing), `report TEXT` (follow, and
//!   tell of an error), `fail CODE TEXT` (end with that), `stay` (never end by itself). It may change at any time.
//! - `restore`: `fail CODE TEXT`, or `fill FROM` (copy the files of a directory).
//! - `starts`: a line for each start with the arguments; `environment`: what the last one was given of our options;
//!   `ended`: a line for each end that was asked for.

use cairn_tests::control::Agent;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let home = PathBuf::from(std::env::var_os("CAIRN_STAND_IN").expect("CAIRN_STAND_IN names a directory"));
    let args: Vec<String> = std::env::args().collect();
    append(&home.join("starts"), &args[1..].join(" "));
    let options = std::env::vars().filter(|(name, _)| name.starts_with("CAIRN_") || name.starts_with("AWS_"));
    let options: Vec<String> = options.map(|(name, value)| format!("{name}={value}")).collect();
    fs::write(home.join("environment"), options.join("\n")).expect("the environment can be noted");
    let after =
        |option: &str| args.iter().skip_while(|arg| *arg != option).nth(1).cloned().unwrap_or_default();
    let dir = PathBuf::from(after("--dir"));
    if args[0].ends_with("cairn-restore") { restore(&home, &dir) } else { follow(&home, &dir) }
}

fn append(path: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file can be opened");
    writeln!(file, "{line}").expect("a file can be written");
}

/// What a file of the directory tells to do: a word and the rest.
fn told(path: &Path) -> (String, String) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    (word.to_owned(), rest.to_owned())
}

/// Ends with a code and a reason, as our programs do.
fn fail(name: &str, what: &str) -> ExitCode {
    let (code, text) = what.split_once(' ').unwrap_or((what, ""));
    eprintln!("2026-11-25T10:00:00.000000Z  WARN cairn_jobs: something went before");
    eprintln!("{name}: {text}");
    ExitCode::from(code.parse::<u8>().expect("a code"))
}

fn restore(home: &Path, dir: &Path) -> ExitCode {
    match told(&home.join("restore")) {
        (word, what) if word == "fail" => fail("cairn-restore", &what),
        (word, from) if word == "fill" => {
            cairn_tests::files::copy(Path::new(&from), dir);
            ExitCode::SUCCESS
        }
        (word, _) => panic!("cairn-restore was told {word:?}"),
    }
}

fn follow(home: &Path, dir: &Path) -> ExitCode {
    let (gone, told_to_end) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        // The end of standard input is the end of the server.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(gone);
    });
    let mut agent = None;
    loop {
        let (word, what) = told(&home.join("agent"));
        if word == "fail" {
            return fail("cairn-backup", &what);
        }
        step(&mut agent, dir, &word, &what);
        match told_to_end.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Disconnected) if word != "stay" => {
                step(&mut agent, dir, &word, &what);
                append(&home.join("ended"), "asked to");
                return ExitCode::SUCCESS;
            }
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(EVERY),
            _ => {}
        }
    }
}

/// Asks where the server is, and tells what it was told to tell. A server that is gone is none to talk to.
fn step(agent: &mut Option<Agent>, dir: &Path, word: &str, what: &str) {
    if agent.is_none() {
        *agent = Agent::connect(dir).ok();
    }
    if let Some(connected) = agent
        && tell(connected, word, what).is_none()
    {
        *agent = None;
    }
}

fn tell(agent: &mut Agent, word: &str, what: &str) -> Option<()> {
    let mut ask = |request: Value| {
        agent.send(format!("{request}\n").as_bytes()).ok()?;
        agent.answer()
    };
    let status = ask(json!({ "request": "status" }))?;
    if status["ok"] != true || !["follow", "report"].contains(&word) {
        return Some(());
    }
    let unix_ms = &status["durable_unix_ms"];
    ask(json!({ "request": "archived", "lsn": status["durable_lsn"], "unix_ms": unix_ms }))?;
    let error = (word == "report").then_some(what);
    ask(json!({
        "request": "report",
        "last_success_unix_ms": unix_ms,
        "last_verified_unix_ms": 1_700_000_000_000_u64,
        "last_error": error,
        "stored_bytes": 4096,
        "pending_bytes": 0,
    }))?;
    Some(())
}
