//! `cairn-server`: the RESP server around the engine.
//!
//! It reads the configuration, opens the engine, and gives each connection a task. Invariants: a reply leaves only when
//! what it tells of is durable; a request that is no request ends its own connection and no other; no key and no value
//! reaches the log. It must never know how data is stored, nor where backups go: that is known to programs of their own, which it starts.

mod ahead;
mod alloc;
mod aside;
mod available;
mod backup;
mod blocked;
mod check;
mod child;
mod client_memory;
mod clients;
mod config;
mod connection;
mod control;
mod host;
mod http;
mod info;
mod links;
mod listen;
mod log;
mod metering;
mod metrics;
mod pause;
mod replace;
mod seed;
mod server;
mod signals;
mod stats;
mod supervisor;
mod sys;
mod turns;
mod users;

use cairn_engine::{Engine, Job, OpenError};
use cairn_resp::Protocol;
use cairn_seal::Keyring;
use config::Settings;
use server::Server;
use signals::Signals;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Files the process needs beside its clients.
const OTHER_FILES: u64 = 128;

const HELP: &str = "\
Usage: cairn-server [FILE] [--directive value]...
       cairn-server --check DIR [--digest] [--json] [--directive value]...

FILE holds directives as redis.conf does. A directive on the command line comes
after the file and wins. Unknown directives are refused.

    cairn-server --port 6380 --dir ./data --appendonly yes --encryption-key-file ./keyring

  --check DIR      read all that a start would read, say what is there and whether
                   it is whole, change nothing and start nothing
  --digest         with --check: the digest that DEBUG DIGEST would answer
  --json           with --check: one JSON document
  -h, --help       this text
  -v, --version    the version

Exit codes: 0 ended cleanly, 1 failed, 2 wrong configuration, 11 the data is in
use, 12 wrong key, 13 damaged data, 130 ended by a second signal; with seed-from
also those of cairn-restore.
";

/// Why the server does not run: what to say, and the exit code.
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn new(code: u8, error: impl std::fmt::Display) -> Failure {
        Failure { text: error.to_string(), code }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match args.first().map(String::as_str) {
        Some("-h" | "--help") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("-v" | "--version") => {
            println!("cairn-server {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let result =
        if args.first().is_some_and(|arg| arg == "--check") { check::run(&args[1..]) } else { run(&args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cairn-server: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &[String]) -> Result<(), Failure> {
    let (settings, config_file) = config::load(args).map_err(|error| Failure::new(2, error))?;
    let logfile = &settings.logfile;
    let log_level =
        log::start(&settings).map_err(|error| Failure::new(1, format!("logfile {logfile}: {error}")))?;
    let has_logfile = !logfile.is_empty();
    let result = start(settings, config_file, log_level);
    if let (Err(failure), true) = (&result, has_logfile) {
        tracing::error!(exit_code = failure.code, "{}", failure.text);
    }
    result
}

fn start(
    settings: Settings,
    config_file: Option<PathBuf>,
    log_level: log::LevelHandle,
) -> Result<(), Failure> {
    allow_files(&settings);
    sys::ignore_file_size_signal();
    let bound = listen::bind(&settings).map_err(|error| Failure::new(error.exit_code(), error))?;
    let http = http::bind(&settings).map_err(|error| Failure::new(error.exit_code(), error))?;
    let keyring = keyring(&settings)?;
    let is_encrypted = keyring.is_some();
    let aside = aside::start().map_err(|error| Failure::new(1, format!("cannot start a thread: {error}")))?;
    let mut signals = signals::listen().map_err(|error| Failure::new(1, error))?;
    aside.block_on(seed::fill(&settings, signals.first()))?;
    let engine = Engine::claim(host::options(&settings, keyring)).map_err(not_opened)?;
    users::begin(engine.acl(), &settings).map_err(|error| Failure::new(2, error))?;
    let kick = engine.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.worker_threads())
        .thread_name("cairn-worker")
        // A worker without ready connections is the moment to write what they have appended.
        .on_thread_park(move || kick.kick())
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("cannot start the runtime: {error}")))?;
    let server = Server::new(engine, settings, config_file, log_level);
    let result = runtime.block_on(async {
        let _unix_file = bound.serve(&server).map_err(|error| Failure::new(1, error))?;
        {
            let _aside = aside.enter();
            http.serve(&server, runtime.handle()).map_err(|error| Failure::new(1, error))?;
        }
        let _pidfile = Pidfile::write(&server.config.read().pidfile)?;
        server.start_clock().map_err(|error| Failure::new(1, format!("cannot start a thread: {error}")))?;
        tokio::select! {
            loaded = load(&server) => loaded?,
            ended = serve_until_ended(&server, &mut signals) => return ended,
        }
        let _control = control(&server, &aside)?;
        // Whoever reads that it is ready shall not be told that it loads.
        server.engine.serve();
        announce(&server, is_encrypted);
        let agent = {
            let _aside = aside.enter();
            supervisor::start(&server)
        };
        let ended = serve_until_ended(&server, &mut signals).await;
        server.end_backup();
        // It fails only where the process ends anyway.
        let _ = agent.await;
        if ended.is_ok() {
            tracing::info!("ready to exit, bye bye");
        }
        ended
    });
    // Connections wait for nothing but the end: they need not be asked.
    runtime.shutdown_background();
    result
}

fn not_opened(error: OpenError) -> Failure {
    Failure::new(u8::try_from(error.exit_code()).unwrap_or(1), error)
}

/// Loads the data on a thread of its own, so that clients are answered meanwhile.
async fn load(server: &Arc<Server>) -> Result<(), Failure> {
    let loading = Arc::clone(server);
    match tokio::task::spawn_blocking(move || loading.load()).await {
        Ok(loaded) => loaded.map_err(not_opened),
        Err(error) => Err(Failure::new(1, format!("the data could not be loaded: {error}"))),
    }
}

/// Makes the socket by which agents follow the data, which is there.
fn control(server: &Arc<Server>, aside: &tokio::runtime::Handle) -> Result<control::SocketFile, Failure> {
    let dir = server.config.read().dir.clone();
    let _aside = aside.enter();
    control::start(server, Path::new(&dir))
        .map_err(|error| Failure::new(1, format!("{dir}: cannot make the control socket: {error}")))
}

/// Makes room for as many connections as are allowed.
fn allow_files(settings: &Settings) {
    let wanted = u64::try_from(settings.maxclients).unwrap_or(0) + OTHER_FILES;
    let allowed = sys::raise_open_files(wanted);
    if allowed < wanted {
        tracing::warn!(
            maxclients = settings.maxclients,
            open_files = allowed,
            "the system allows fewer open files than maxclients needs: later clients will not be accepted"
        );
    }
}

fn keyring(settings: &Settings) -> Result<Option<Keyring>, Failure> {
    let keyring = match (settings.encryption_key_file.as_str(), settings.encryption_key_command.as_str()) {
        ("", "") => return Ok(None),
        ("", command) => Keyring::load_command(command),
        (file, _) => Keyring::load_file(Path::new(file)),
    };
    // Without its keys the data might as well be under other ones: the same exit code.
    let keyring = keyring.map_err(|error| Failure::new(12, format!("the keyring cannot be had: {error}")))?;
    if keyring.is_exposed() {
        tracing::warn!(
            "the encryption-key-file can be read by other users of this machine: set its mode to 0600"
        );
    }
    Ok(Some(keyring))
}

fn announce(server: &Server, is_encrypted: bool) {
    if !is_encrypted {
        tracing::warn!(
            "encryption at rest is off: keys and values lie readable on disk; set encryption-key-file to change that"
        );
    }
    let config = server.config.read();
    for (directive, why) in &config.unfollowed {
        tracing::warn!(directive, "a directive of the configuration is not followed: {why}");
    }
    let found = server.engine.recovery();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        dir = config.dir,
        port = config.port,
        encryption = if is_encrypted { "on" } else { "off" },
        appendonly = if config.appendonly { "yes" } else { "no" },
        began_empty = found.fresh,
        snapshot_keys = found.snapshot_entries,
        journal_effects = found.replayed,
        lsn = found.end.0,
        tail_bytes_cut = found.cut.as_ref().map_or(0, |cut| cut.bytes),
        recovery_ms = found.duration.as_millis(),
        "Ready to accept connections"
    );
}

/// Waits for a SHUTDOWN or a signal that goes through.
async fn serve_until_ended(server: &Arc<Server>, signals: &mut Signals) -> Result<(), Failure> {
    loop {
        let name = tokio::select! {
            finished = server.finished() => return ended(finished),
            name = signals.first() => name,
        };
        tracing::info!(signal = name, "ending cleanly; a second signal ends at once");
        let ending = {
            let config = server.config.read();
            if name == "SIGINT" { config.shutdown_on_sigint } else { config.shutdown_on_sigterm }
        };
        let job = Job::Shutdown { save: ending.save, force: ending.force };
        tokio::select! {
            finished = server.finished() => return ended(finished),
            _refusal = server.shut_down(job, Protocol::Resp2) => {
                signals.forget_first();
                tracing::error!("could not end cleanly, so the server goes on; the reason is above");
            }
        }
    }
}

/// What is still to say; where not everything is on disk, the exit code says so too.
fn ended(finished: Result<(), String>) -> Result<(), Failure> {
    finished.map_err(|why| Failure::new(1, format!("ended, but not cleanly: {why}")))?;
    tracing::info!("everything is on disk");
    Ok(())
}

/// The file with the number of the process, for as long as it runs.
struct Pidfile(PathBuf);

impl Pidfile {
    fn write(path: &str) -> Result<Option<Pidfile>, Failure> {
        if path.is_empty() {
            return Ok(None);
        }
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::new(1, format!("pidfile {path}: {error}")))?;
        Ok(Some(Pidfile(PathBuf::from(path))))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // It may be gone already; there is nothing to do about it either way.
        let _ = std::fs::remove_file(&self.0);
    }
}
