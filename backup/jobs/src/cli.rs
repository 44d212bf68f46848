//! What both programs share at the terminal: common options, output, progress, signals, exit codes.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_seal::Keyring;
use cairn_store::{ObjectStore, RetryPolicy};
use clap::builder::FalseyValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::{JobError, Phase, Progress};

/// The options every verb of both programs takes.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonOptions {
    /// The repository: file:///path or s3://bucket/prefix
    #[arg(long, global = true, value_name = "URL", env = "CAIRN_REPO")]
    pub repo: Option<String>,
    /// A file with the master keys
    #[arg(long, global = true, value_name = "FILE", env = "CAIRN_ENCRYPTION_KEY_FILE")]
    pub encryption_key_file: Option<PathBuf>,
    /// A command that prints the master keys, run by sh
    #[arg(long, global = true, value_name = "COMMAND", env = "CAIRN_ENCRYPTION_KEY_COMMAND")]
    pub encryption_key_command: Option<String>,
    /// Print JSON documents, one a line, the result last
    #[arg(long, global = true, env = "CAIRN_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// How long a request to the store is tried again, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "CAIRN_RETRY_SECONDS", default_value_t = 30)]
    pub retry_seconds: u64,
    /// What is logged to standard error: error, warn, info, debug, or a filter such as cairn_store=debug
    #[arg(long, global = true, value_name = "FILTER", env = "CAIRN_LOG", default_value = "warn")]
    pub log: String,
}

/// One run of a program.
pub struct Session {
    json: bool,
    /// Set by work that ends by itself when it is told to stop.
    stop: watch::Sender<bool>,
    ends_itself: AtomicBool,
    stores: Mutex<Vec<Arc<dyn ObjectStore>>>,
    reporter: Arc<Reporter>,
}

/// Runs `work` until it ends or the program is told to stop, and says what the program ends with. What `work` was doing is
/// dropped then, and cleared away, before this returns.
pub fn run<F>(program: &str, common: &CommonOptions, work: impl FnOnce(Arc<Session>) -> F) -> ExitCode
where
    F: Future<Output = Result<u8, JobError>>,
{
    let failed = |error: &JobError| {
        let _ = writeln!(std::io::stderr(), "{program}: {error}");
        error.exit_code()
    };
    if let Err(error) = log_to_stderr(&common.log) {
        return failed(&error).into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&JobError::Task(error.to_string())).into(),
    };
    let session = Arc::new(Session {
        json: common.json,
        stop: watch::Sender::new(false),
        ends_itself: AtomicBool::new(false),
        stores: Mutex::default(),
        reporter: Arc::new(Reporter::new(common.json)),
    });
    let ended = runtime.block_on(async {
        let ended = tokio::select! {
            ended = work(Arc::clone(&session)) => ended,
            stopped = session.interrupted() => stopped.and(Err(JobError::Interrupted)),
        };
        session.reporter.clear();
        let stores = std::mem::take(&mut *session.stores.lock().unwrap_or_else(PoisonError::into_inner));
        for store in stores {
            store.settle().await;
        }
        ended
    });
    // File work under way ends its step, so that nothing appears after the clearing.
    runtime.shutdown_timeout(Duration::from_secs(5));
    match ended {
        Ok(code) => code.into(),
        Err(error) => failed(&error).into(),
    }
}

async fn told_to_stop() -> Result<(), JobError> {
    let failed = |error: std::io::Error| JobError::Task(error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn log_to_stderr(filter: &str) -> Result<(), JobError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| JobError::Usage(format!("--log {filter:?}: {error}")))?;
    // A second call, as tests make, keeps the first subscriber.
    let ansi = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .try_init();
    Ok(())
}

impl Session {
    /// Opens the store of `--repo`.
    ///
    /// # Errors
    /// [`JobError::Usage`] without one; a bad address.
    pub async fn store(&self, common: &CommonOptions) -> Result<Arc<dyn ObjectStore>, JobError> {
        let url = common.repo.as_deref().ok_or_else(|| {
            JobError::Usage(
                "--repo URL (or CAIRN_REPO) is needed: file:///path or s3://bucket/prefix".to_owned(),
            )
        })?;
        let policy = RetryPolicy::within(Duration::from_secs(common.retry_seconds));
        let store = cairn_store::open(url, policy).await?;
        self.stores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&store));
        Ok(store)
    }

    /// Loads the keyring that the options name, if they name one.
    ///
    /// # Errors
    /// [`JobError::Usage`] for two of them; those of the keyring.
    pub async fn keyring(&self, common: &CommonOptions) -> Result<Option<Arc<Keyring>>, JobError> {
        let (file, command) = (common.encryption_key_file.clone(), common.encryption_key_command.clone());
        if file.is_some() && command.is_some() {
            let why = "--encryption-key-file and --encryption-key-command exclude each other";
            return Err(JobError::Usage(why.to_owned()));
        }
        let shown = file.clone();
        let loaded = crate::restore::blocking(move || {
            let loaded = match (&file, &command) {
                (Some(file), _) => Keyring::load_file(file).map(Some),
                (None, Some(command)) => Keyring::load_command(command).map(Some),
                (None, None) => Ok(None),
            };
            let place = file.map_or("the keyring".to_owned(), |file| file.display().to_string());
            loaded.map_err(|source| JobError::NoKeyring { place, source })
        })
        .await?;
        if let Some(file) = shown.filter(|_| loaded.as_ref().is_some_and(Keyring::is_exposed)) {
            tracing::warn!(file = %file.display(), "others can read the keyring; chmod 600 it");
        }
        Ok(loaded.map(Arc::new))
    }

    /// Becomes true when the program is told to stop. Whoever asks for it ends by itself then; told a second time, it is dropped
    /// like other work.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.ends_itself.store(true, Ordering::Relaxed);
        self.stop.subscribe()
    }

    /// Tells work that ends by itself to do so.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns when what is done is to be dropped.
    async fn interrupted(&self) -> Result<(), JobError> {
        told_to_stop().await?;
        if self.ends_itself.load(Ordering::Relaxed) {
            self.stop();
            told_to_stop().await?;
        }
        Ok(())
    }

    /// Prints a document on a line of its own, where JSON was asked for.
    ///
    /// # Errors
    /// A mistake of the document's type.
    pub fn line(&self, document: &impl Serialize) -> Result<(), JobError> {
        if self.json {
            print_line(&serde_json::to_string(document).map_err(JobError::Json)?);
        }
        Ok(())
    }

    /// Whether JSON was asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Where progress is shown.
    pub fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.reporter) as Arc<dyn Progress>
    }

    /// Prints the result: the document with `--json`, else the text.
    ///
    /// # Errors
    /// A mistake of the document's type.
    pub fn result(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), JobError> {
        self.reporter.clear();
        let text = if self.json { serde_json::to_string(document).map_err(JobError::Json)? } else { text() };
        print_line(&text);
        Ok(())
    }

    /// Asks a person for leave; `true` where no person is there to be asked.
    pub fn confirm(&self, question: &str) -> bool {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return true;
        }
        let _ = write!(std::io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }
}

/// Prints to standard output; a reader that went away is no failure of ours.
fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Bytes as a person reads them.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Shows progress: a bar on a terminal, JSON lines once a second where JSON was asked for, otherwise nothing.
struct Reporter {
    kind: Kind,
    state: Mutex<Option<Running>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bar,
    Lines,
    Silent,
}

struct Running {
    phase: Phase,
    bytes: u64,
    bytes_total: u64,
    started: Instant,
    printed: Instant,
    bar: ProgressBar,
}

impl Reporter {
    fn new(json: bool) -> Self {
        let kind = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Lines,
            (false, true) => Kind::Bar,
            (false, false) => Kind::Silent,
        };
        Self { kind, state: Mutex::new(None) }
    }

    fn clear(&self) {
        if let Some(running) = self.state.lock().unwrap_or_else(PoisonError::into_inner).take() {
            running.bar.finish_and_clear();
        }
    }
}

impl Running {
    fn print(&mut self) {
        let (phase, unit, seconds) =
            (self.phase.name(), self.phase.unit(), self.started.elapsed().as_secs_f64());
        let line = json!({
            "progress": phase, unit: self.bytes, format!("{unit}_total"): self.bytes_total, "seconds": seconds,
        });
        print_line(&line.to_string());
        self.printed = Instant::now();
    }
}

impl Progress for Reporter {
    fn begin(&self, phase: Phase, bytes_total: u64) {
        self.clear();
        let bar = if self.kind == Kind::Bar { ProgressBar::new(bytes_total) } else { ProgressBar::hidden() };
        let template = if phase.unit() == "bytes" {
            "{msg:9} [{bar:32}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left"
        } else {
            "{msg:9} [{bar:32}] {human_pos}/{human_len}  {per_sec}  {eta} left"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(phase.name());
        let now = Instant::now();
        let running = Running { phase, bytes: 0, bytes_total, started: now, printed: now, bar };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = state.as_mut() else { return };
        running.bytes += bytes;
        running.bar.inc(bytes);
        if self.kind == Kind::Lines && running.printed.elapsed() >= Duration::from_secs(1) {
            running.print();
        }
    }

    fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut running) = state.take() else { return };
        running.bar.finish_and_clear();
        if self.kind == Kind::Lines {
            running.print();
        }
    }
}
