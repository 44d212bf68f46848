//! The backup of this server, as INFO, `/metrics` and probes show it: what its agent tells, and how the agent is.

use crate::control::Report;
use crate::server::Server;
use parking_lot::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// What is known of the backup.
pub(crate) struct Backup {
    state: Mutex<State>,
    /// Directives that the agent was started with have changed.
    pub(crate) changed: Notify,
    /// The server ends, and its agent with it.
    pub(crate) ending: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    report: Report,
    agent: Agent,
    failing_since_unix_ms: Option<u64>,
}

/// The agent that is supervised.
#[derive(Clone, Default)]
struct Agent {
    pid: Option<u32>,
    started_total: u64,
    /// How the last one ended, until another has something better to tell.
    ended: Option<String>,
}

/// A look at the backup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Whether there is to be one.
    pub(crate) is_enabled: bool,
    pub(crate) url: String,
    /// Whether it goes well, so far as is known.
    pub(crate) trouble: Option<String>,
    pub(crate) failing_since_unix_ms: Option<u64>,
    pub(crate) report: Report,
    pub(crate) agent_pid: Option<u32>,
    pub(crate) agent_restarts_total: u64,
    /// `None` where nobody follows the data.
    pub(crate) lag: Option<cairn_engine::ArchiveLag>,
    pub(crate) archived_lsn: Option<u64>,
    pub(crate) max_lag_ms: u64,
    pub(crate) are_writes_refused: bool,
}

impl Default for Backup {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), ending: watch::Sender::new(false) }
    }
}

impl Backup {
    /// Takes what an agent tells.
    pub(crate) fn report(&self, report: Report) {
        let mut state = self.state.lock();
        state.report.update(report);
        state.agent.ended = None;
    }

    /// An agent runs.
    pub(crate) fn agent_started(&self, pid: Option<u32>) {
        let agent = &mut self.state.lock().agent;
        agent.pid = pid;
        agent.started_total += 1;
    }

    /// The agent has ended; why, where nobody had asked it to.
    pub(crate) fn agent_ended(&self, why: Option<String>) {
        let agent = &mut self.state.lock().agent;
        agent.pid = None;
        if why.is_some() {
            agent.ended = why;
        }
    }

    /// Notes whether there is trouble; gives since when there has been.
    pub(crate) fn note_trouble(&self, is_trouble: bool) -> Option<u64> {
        let since = &mut self.state.lock().failing_since_unix_ms;
        *since = if is_trouble { since.or_else(|| Some(unix_ms())) } else { None };
        *since
    }
}

pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Server {
    /// How the backup is.
    pub(crate) fn backup_status(&self) -> Status {
        let (url, max_lag_ms) = {
            let config = self.config.read();
            (config.backup_url.clone(), config.backup_max_lag.ms)
        };
        let archived_lsn = self.engine.archived().map(|archived| archived.lsn.0);
        let is_followed = !url.is_empty() || archived_lsn.is_some();
        let lag = is_followed.then(|| self.engine.archive_lag());
        let are_writes_refused = self.engine.is_archive_behind();
        let state = self.backup.state.lock();
        let reported = state.agent.ended.clone().or_else(|| state.report.last_error.clone());
        let behind = || {
            let seconds = lag.map_or(0, |lag| lag.age.as_secs());
            are_writes_refused.then(|| format!("the archive is {seconds} s behind, and nothing says why"))
        };
        Status {
            is_enabled: !url.is_empty(),
            url,
            trouble: reported.or_else(behind),
            failing_since_unix_ms: state.failing_since_unix_ms,
            report: state.report.clone(),
            agent_pid: state.agent.pid,
            agent_restarts_total: state.agent.started_total.saturating_sub(1),
            lag,
            archived_lsn,
            max_lag_ms,
            are_writes_refused,
        }
    }

    /// The lines of INFO backup.
    pub(crate) fn backup_lines(&self) -> Vec<(&'static str, String)> {
        let status = self.backup_status();
        let report = &status.report;
        let seconds = |unix_ms: Option<u64>| (unix_ms.unwrap_or(0) / 1000).to_string();
        let number = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        let one_line = |text: &str| text.replace(['\r', '\n'], " ");
        let health = match (&status.trouble, status.is_enabled) {
            (Some(_), _) => "failing",
            (None, true) => "ok",
            (None, false) => "off",
        };
        let lag_seconds =
            status.lag.map_or_else(|| "-1".to_owned(), |lag| format!("{:.1}", lag.age.as_secs_f64()));
        vec![
            ("backup_status", health.to_owned()),
            ("backup_url", status.url.clone()),
            ("backup_lag_seconds", lag_seconds),
            ("backup_lag_bytes", number(status.lag.map(|lag| lag.bytes))),
            ("backup_archived_lsn", number(status.archived_lsn)),
            ("backup_last_success_unixtime", seconds(report.last_success_unix_ms)),
            ("backup_last_verified_unixtime", seconds(report.last_verified_unix_ms)),
            ("backup_last_error", one_line(status.trouble.as_deref().unwrap_or_default())),
            ("backup_failing_since_unixtime", seconds(status.failing_since_unix_ms)),
            ("backup_stored_bytes", number(report.stored_bytes)),
            ("backup_pending_bytes", number(report.pending_bytes)),
            ("backup_max_lag_seconds", (status.max_lag_ms / 1000).to_string()),
            ("backup_writes_refused", u8::from(status.are_writes_refused).to_string()),
            ("backup_agent_pid", status.agent_pid.unwrap_or(0).to_string()),
            ("backup_agent_restarts", status.agent_restarts_total.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_an_agent_ended_counts_until_the_next_one_tells() {
        let backup = Backup::default();
        backup.agent_started(Some(7));
        backup.agent_ended(Some("exit code 1".into()));
        backup.agent_started(Some(8));
        assert_eq!(backup.state.lock().agent.ended.as_deref(), Some("exit code 1"));
        backup.report(Report::default());
        assert_eq!(backup.state.lock().agent.ended, None);
        backup.agent_ended(None);
        let agent = backup.state.lock().agent.clone();
        assert_eq!((agent.pid, agent.started_total, agent.ended), (None, 2, None));
    }

    #[test]
    fn trouble_has_one_beginning() {
        let backup = Backup::default();
        assert_eq!(backup.note_trouble(false), None);
        let since = backup.note_trouble(true);
        assert!(since.is_some() && backup.note_trouble(true) == since);
        assert_eq!(backup.note_trouble(false), None);
    }
}
