//! Our other programs as child processes: where they are, what they inherit, and what they say.

use crate::config::Settings;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

/// Options that our programs take from the environment: this server's own say where a child's come from.
const INHERITED_OPTIONS: [&str; 7] = [
    "CAIRN_REPO",
    "CAIRN_DIR",
    "CAIRN_SERVER",
    "CAIRN_JSON",
    "CAIRN_DRY_RUN",
    "CAIRN_ENCRYPTION_KEY_FILE",
    "CAIRN_ENCRYPTION_KEY_COMMAND",
];

/// A line that a program writes may be so long; what is longer is cut into several.
const LINE_MAX: u64 = 4096;
/// How many different lines are remembered, so that none is logged again and again.
const REMEMBERED: usize = 64;

/// A program of ours: beside this one's executable, else in PATH. It gets the keys as this server does, in its environment
/// and never in its arguments, and a process group of its own, so that a terminal's Ctrl-C reaches this server alone.
pub(crate) fn command(name: &str, settings: &Settings) -> Command {
    let mut command = Command::new(program(name));
    INHERITED_OPTIONS.iter().for_each(|option| _ = command.env_remove(option));
    if !settings.encryption_key_file.is_empty() {
        command.env("CAIRN_ENCRYPTION_KEY_FILE", &settings.encryption_key_file);
    }
    if !settings.encryption_key_command.is_empty() {
        command.env("CAIRN_ENCRYPTION_KEY_COMMAND", &settings.encryption_key_command);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

/// What a child has written to its standard error.
#[derive(Default)]
pub(crate) struct Said {
    /// The last line that says why it ends, else the last of all.
    pub(crate) last: String,
    is_reason: bool,
    seen: VecDeque<String>,
}

impl Said {
    /// Another child of the same program: what was logged of the one before is not logged again.
    pub(crate) fn begin_anew(&mut self) {
        self.last.clear();
        self.is_reason = false;
    }

    /// Logs each line once, until the child closes its end.
    pub(crate) async fn hear(&mut self, name: &str, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.note(name, &String::from_utf8_lossy(&line)),
            }
        }
    }

    fn note(&mut self, name: &str, line: &str) {
        let line = without_time(line.trim());
        if line.is_empty() {
            return;
        }
        // Behind its own name, or, where its arguments are wrong, as the parser of those tells.
        let reason = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
        let reason = reason.or_else(|| line.strip_prefix("error: "));
        if reason.is_some() || !self.is_reason {
            reason.unwrap_or(line).clone_into(&mut self.last);
            self.is_reason = reason.is_some();
        }
        if self.seen.iter().any(|seen| seen == line) {
            return;
        }
        tracing::warn!(program = name, "{line}");
        self.seen.push_back(line.to_owned());
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
    }
}

/// A line of a log without the time and the level it begins with.
fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.starts_with(|c: char| c.is_ascii_digit()) && time.ends_with('Z') => {
            let rest = rest.trim_start();
            let levels = ["ERROR ", "WARN ", "INFO ", "DEBUG "];
            levels.iter().find_map(|level| rest.strip_prefix(level)).unwrap_or(rest)
        }
        _ => line,
    }
}

/// How a child ended, for people.
pub(crate) fn ending(status: std::process::ExitStatus, said: &Said) -> String {
    let how = match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    };
    if said.last.is_empty() { how } else { format!("{} ({how})", said.last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_line_a_program_ends_with() {
        let mut said = Said::default();
        for line in [
            "2026-11-25T10:00:00.123456Z  WARN cairn_store: the store is slow",
            "cairn-backup: the repository is locked",
            "2026-11-25T10:00:01Z  WARN cairn_store: the store is slow\n",
            "",
        ] {
            said.note("cairn-backup", line);
        }
        assert_eq!(said.last, "the repository is locked");
        assert_eq!(said.seen.len(), 2, "the same line is told once, whatever its time");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut said = Said::default();
        (0..1000).for_each(|number| said.note("x", &format!("line {number}")));
        assert_eq!((said.seen.len(), said.last.as_str()), (REMEMBERED, "line 999"));
    }
}
