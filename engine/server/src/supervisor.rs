//! Looks after the backup: keeps its agent running, trims the journal, and tells somebody when it fails.

use crate::backup::{self, Status};
use crate::child::{self, Said};
use crate::config::Settings;
use crate::server::Server;
use serde_json::json;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The program that follows the data.
const AGENT: &str = "cairn-backup";

/// After an agent ended, the next one is started so much later; twice as long after each further one.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(60);
/// One that has run for so long was no false start.
const RAN_WELL: Duration = Duration::from_secs(120);

/// How often the journal is trimmed and the backup looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// While the backup fails, `backup-on-failure` runs again so often.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// And may take so long.
const TELL_LIMIT: Duration = Duration::from_secs(60);

/// Begins to look after the backup, on the current runtime. The handle is that of the agent's supervision, which ends after
/// [`Server::end_backup`].
pub(crate) fn start(server: &Arc<Server>) -> JoinHandle<()> {
    tokio::spawn(watch(Arc::clone(server)));
    tokio::spawn(supervise(Arc::clone(server)))
}

/// The agent's command line: what to follow and where to, but no secrets.
fn agent(settings: &Settings) -> Command {
    let mut command = child::command(AGENT, settings);
    command.args(["run", "--repo", &settings.backup_url, "--dir", &settings.dir]);
    command.args(["--interval", &settings.backup_interval.argument()]);
    if !settings.backup_schedule.is_empty() {
        command.args(["--schedule", &settings.backup_schedule]);
    }
    // It ends when this ends: as when the server is gone.
    command.stdin(Stdio::piped());
    command
}

/// Whether an agent has to be started anew for these settings.
pub(crate) fn is_other_agent(before: &Settings, after: &Settings) -> bool {
    let of = |settings: &Settings| {
        let keyring = settings.encryption_key_file.clone();
        let schedule = settings.backup_schedule.clone();
        (settings.backup_url.clone(), settings.backup_interval, schedule, keyring)
    };
    of(before) != of(after)
}

/// Why an agent is waited for no longer.
enum Ended {
    /// By itself.
    Alone(String),
    /// It was asked to, for other settings or because the server ends.
    Asked,
}

async fn supervise(server: Arc<Server>) {
    let mut ending = server.backup.ending.subscribe();
    let (mut failures, mut said) = (0, Said::default());
    while !*ending.borrow() {
        let settings = server.config.read().clone();
        if settings.backup_url.is_empty() {
            return;
        }
        let started = Instant::now();
        let ended = match agent(&settings).spawn() {
            Ok(agent) => run(&server, agent, &settings, &mut said).await,
            Err(error) => Ended::Alone(format!(
                "{AGENT} cannot be started: {error}; it is looked for beside cairn-server and in PATH"
            )),
        };
        let Ended::Alone(why) = ended else {
            server.backup.agent_ended(None);
            failures = 0;
            continue;
        };
        failures = if started.elapsed() >= RAN_WELL { 1 } else { failures + 1 };
        let wait = restart_after(failures);
        tracing::error!(restart_in_seconds = wait.as_secs(), "the backup's agent ended: {why}");
        server.backup.agent_ended(Some(why));
        tokio::select! {
            () = sleep(wait) => {}
            () = server.backup.changed.notified() => {}
            _ = ending.changed() => {}
        }
    }
}

/// Lets an agent run until it ends, other settings are set, or the server ends.
async fn run(server: &Server, mut agent: Child, settings: &Settings, said: &mut Said) -> Ended {
    let mut ending = server.backup.ending.subscribe();
    server.backup.agent_started(agent.id());
    tracing::info!(pid = agent.id(), url = settings.backup_url, "the backup's agent runs");
    // Waiting for a child closes its standard input if that is still its own.
    let stdin = agent.stdin.take();
    let hearing = hear(agent.stderr.take(), said);
    let status = tokio::select! {
        status = agent.wait() => Some(status),
        () = server.backup.changed.notified() => None,
        _ = ending.wait_for(|is_ending| *is_ending) => None,
    };
    let ended = match status {
        None => {
            drop(stdin);
            end_gently(server, &mut agent).await;
            None
        }
        Some(status) => Some(status),
    };
    // Whoever inherited its standard error may keep it open.
    *said = timeout(Duration::from_secs(1), hearing).await.ok().and_then(Result::ok).unwrap_or_default();
    ended.map_or(Ended::Asked, |status| Ended::Alone(how_it_ended(status, said)))
}

/// Hears what an agent writes, and remembers what those before it wrote.
fn hear(stderr: Option<ChildStderr>, said: &mut Said) -> JoinHandle<Said> {
    let mut said = std::mem::take(said);
    said.begin_anew();
    tokio::spawn(async move {
        if let Some(stderr) = stderr {
            said.hear(AGENT, stderr).await;
        }
        said
    })
}

fn how_it_ended(status: std::io::Result<ExitStatus>, said: &Said) -> String {
    match status {
        Ok(status) if status.success() => "it ended although nobody had asked it to".to_owned(),
        Ok(status) => child::ending(status, said),
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}

/// Lets an agent whose standard input has ended ship what is durable and give its lease up, for as long as a shutdown may take.
async fn end_gently(server: &Server, agent: &mut Child) {
    let patience = u64::try_from(server.config.read().shutdown_timeout_seconds).unwrap_or(0);
    match timeout(Duration::from_secs(patience), agent.wait()).await {
        Ok(Ok(status)) if status.success() => {
            tracing::info!("the backup's agent has shipped what is durable and ended")
        }
        Ok(Ok(status)) => tracing::error!(%status, "the backup's agent was to end, and failed"),
        Ok(Err(error)) => tracing::error!(%error, "the backup's agent cannot be waited for"),
        Err(_) => {
            tracing::error!(
                seconds = patience,
                "the backup's agent did not end in time and is killed: what it had not shipped yet, the next one ships"
            );
            // One that cannot be killed is gone already.
            let _ = agent.kill().await;
        }
    }
}

fn restart_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (RESTART_AFTER * (1 << doublings)).min(RESTART_AFTER_MAX)
}

impl Server {
    /// Tells the agent that the server ends: all that there will ever be is durable.
    pub(crate) fn end_backup(&self) {
        self.backup.ending.send_replace(true);
    }
}

/// Trims the journal, looks how the backup is, and tells whoever wants to know.
async fn watch(server: Arc<Server>) {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut teller = Teller::default();
    let mut failed_trim = None;
    loop {
        ticks.tick().await;
        let engine = server.engine.clone();
        let trimmed = tokio::task::spawn_blocking(move || engine.trim()).await;
        let error = trimmed
            .map_err(|error| error.to_string())
            .and_then(|result| result.map_err(|error| error.to_string()));
        if let Err(error) = &error
            && failed_trim.as_ref() != Some(error)
        {
            tracing::error!(
                error,
                "journal that is not needed any more could not be let go of; it is tried again"
            );
        }
        failed_trim = error.err();
        let status = server.backup_status();
        if let Some(failure) = teller.judge(&server, status) {
            let hook = server.config.read().backup_on_failure.clone();
            if !hook.is_empty() {
                tokio::spawn(tell(hook, failure));
            }
        }
    }
}

/// Decides when a failure is worth telling.
#[derive(Default)]
struct Teller {
    told: Option<Instant>,
}

impl Teller {
    /// The document to tell, on the change to failing and once an hour while that lasts.
    fn judge(&mut self, server: &Server, status: Status) -> Option<serde_json::Value> {
        let since = server.backup.note_trouble(status.trouble.is_some());
        let Some((error, since)) = status.trouble.clone().zip(since) else {
            if self.told.take().is_some() {
                tracing::info!("the backup goes well again");
            }
            return None;
        };
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        let lag = status.lag.unwrap_or_default();
        tracing::error!(lag_seconds = lag.age.as_secs(), lag_bytes = lag.bytes, "the backup fails: {error}");
        Some(failure(&server.config.read().dir, &status, &error, since))
    }
}

/// What `backup-on-failure` is told.
fn failure(dir: &str, status: &Status, error: &str, since_unix_ms: u64) -> serde_json::Value {
    json!({
        "event": "backup-failing",
        "error": error,
        "since_unix_ms": since_unix_ms,
        "now_unix_ms": backup::unix_ms(),
        "dir": dir,
        "url": status.url,
        "lag_seconds": status.lag.map(|lag| lag.age.as_secs_f64()),
        "lag_bytes": status.lag.map(|lag| lag.bytes),
        "last_success_unix_ms": status.report.last_success_unix_ms,
        "last_verified_unix_ms": status.report.last_verified_unix_ms,
        "writes_refused": status.are_writes_refused,
    })
}

/// Runs the command, with the document on its standard input and the error in its environment.
async fn tell(hook: String, failure: serde_json::Value) {
    let run = async {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&hook).process_group(0).kill_on_drop(true);
        command.env("CAIRN_BACKUP_ERROR", failure["error"].as_str().unwrap_or_default());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read it is as good.
            let _ = stdin.write_all(format!("{failure}\n").as_bytes()).await;
        }
        child.wait().await
    };
    match timeout(TELL_LIMIT, run).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => {
            tracing::error!(%status, "backup-on-failure failed, so nobody may have heard that the backup fails")
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "backup-on-failure could not be run, so nobody has heard that the backup fails")
        }
        Err(_) => tracing::error!(
            seconds = TELL_LIMIT.as_secs(),
            "backup-on-failure did not end in time and was killed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_keeps_ending_is_started_less_and_less_often() {
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, u32::MAX].map(|n| restart_after(n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60]);
    }

    #[test]
    fn an_agents_arguments_hold_no_secrets() {
        let mut settings = Settings::defaults();
        settings.backup_url = "s3://bucket/prefix".into();
        settings.dir = "/data".into();
        settings.backup_schedule = "0 3 * * *".into();
        settings.encryption_key_command = "cat secret".into();
        let command = agent(&settings);
        let args: Vec<&str> = command.as_std().get_args().filter_map(|arg| arg.to_str()).collect();
        let expected = "run --repo s3://bucket/prefix --dir /data --interval 1s --schedule";
        assert_eq!(args[..args.len() - 1].join(" "), expected);
        assert_eq!(args[args.len() - 1], "0 3 * * *");
        let env: Vec<_> = command.as_std().get_envs().filter(|(_, value)| value.is_some()).collect();
        assert_eq!(env.len(), 1);
        assert_eq!(env[0].0, "CAIRN_ENCRYPTION_KEY_COMMAND");
    }
}
