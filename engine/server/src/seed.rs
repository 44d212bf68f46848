//! `seed-from`: a data directory that holds nothing is filled by `cairn-restore` before the engine opens it.
//!
//! It fails closed: a server that was told where its data comes from starts without any only where the repository provably
//! does not exist and that was said to be fine.

use crate::Failure;
use crate::child::{self, Said};
use crate::config::Settings;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// The program that restores.
const RESTORE: &str = "cairn-restore";
/// It ends with this where the store answered that there is no repository.
const NO_REPOSITORY: i32 = 10;
/// A program that was interrupted ends with this.
const INTERRUPTED: u8 = 130;

/// Fills the data directory where `seed-from` says so and it holds nothing; until `interrupted` resolves.
pub(crate) async fn fill(
    settings: &Settings,
    interrupted: impl Future<Output = &'static str>,
) -> Result<(), Failure> {
    if settings.seed.from.is_empty() {
        return Ok(());
    }
    let dir = Path::new(&settings.dir);
    if cairn_engine::holds_data(dir).map_err(|error| Failure::new(1, error))? {
        tracing::info!("the data directory holds data, so seed-from is not followed");
        return Ok(());
    }
    tracing::info!(
        from = settings.seed.from,
        time = settings.seed_time,
        "the data directory is empty and is being filled"
    );
    let mut restore = restore(settings);
    let mut child = restore.spawn().map_err(|error| {
        let why = format!("seed-from: {RESTORE} cannot be started: {error}; it is looked for beside cairn-server and in PATH");
        Failure::new(1, why)
    })?;
    let mut said = Said::default();
    let stderr = child.stderr.take();
    let ended = async {
        if let Some(stderr) = stderr {
            said.hear(RESTORE, stderr).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        status = ended => status.map_err(|error| Failure::new(1, format!("seed-from: {RESTORE}: {error}")))?,
        // The child is killed as it is dropped; what it has made, the next one clears away.
        signal = interrupted => {
            return Err(Failure::new(INTERRUPTED, format!("{signal} while the data directory was being filled; the next start begins anew")));
        }
    };
    judge(settings, status, &said)
}

fn restore(settings: &Settings) -> Command {
    let mut command = child::command(RESTORE, settings);
    let from = settings.seed.from.as_str();
    if is_repository(from) {
        command.args(["--repo", from]);
        match settings.seed_time.as_str() {
            "" => command.arg("--latest"),
            time => command.args(["--time", time]),
        };
    } else {
        command.args(["--from", from]);
        if !settings.seed_time.is_empty() {
            // It says itself why that makes no sense.
            command.args(["--time", &settings.seed_time]);
        }
    }
    command.args(["--dir", &settings.dir]).stdin(Stdio::null());
    command
}

/// A URL is a repository, unless it names a file of Redis's.
fn is_repository(from: &str) -> bool {
    from.contains("://") && !from.ends_with(".rdb")
}

fn judge(settings: &Settings, status: std::process::ExitStatus, said: &Said) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(NO_REPOSITORY) && settings.seed.or_empty {
        tracing::warn!(
            "seed-from: there is no repository, and or-empty says that this is fine: starting without data"
        );
        return Ok(());
    }
    let hint = if status.code() == Some(NO_REPOSITORY) {
        "; where it is right that there is none yet, say `seed-from URL or-empty`"
    } else {
        ""
    };
    let why = child::ending(status, said);
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::new(
        code,
        format!("seed-from {}: {why}{hint}; the server does not start empty", settings.seed.from),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(from: &str, time: &str) -> String {
        let mut settings = Settings::defaults();
        settings.dir = "/data".into();
        settings.seed.from = from.into();
        settings.seed_time = time.into();
        let command = restore(&settings);
        let args: Vec<&str> = command.as_std().get_args().filter_map(|arg| arg.to_str()).collect();
        args.join(" ")
    }

    #[test]
    fn what_is_restored_follows_from_what_is_named() {
        assert_eq!(args("s3://b/p", ""), "--repo s3://b/p --latest --dir /data");
        let time = "2026-11-23T10:15:04Z";
        assert_eq!(args("file:///r", time), format!("--repo file:///r --time {time} --dir /data"));
        assert_eq!(args("s3://b/dump.rdb", ""), "--from s3://b/dump.rdb --dir /data");
        assert_eq!(args("/old/appendonlydir", ""), "--from /old/appendonlydir --dir /data");
    }
}
