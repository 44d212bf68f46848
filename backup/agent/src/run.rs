//! `cairn-backup run`: the agent, alone or as a server's child.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use cairn_jobs::archive::{Event, RateLimit, RunOptions, Schedule};
use cairn_jobs::cli::Session;
use cairn_jobs::{JobError, RealDisk, Repository};

use crate::options::{Cli, RunArgs};

pub(crate) async fn run(session: &Arc<Session>, cli: &Cli, args: &RunArgs) -> Result<u8, JobError> {
    let dir =
        cli.dir.clone().ok_or_else(|| JobError::Usage("run needs --dir DATA (or CAIRN_DIR)".to_owned()))?;
    let schedule = Schedule::parse(&args.schedule)?;
    let keyring = session.keyring(&cli.common).await?;
    let stop = session.stopping();
    end_with_parent(session)?;
    let repository = Repository::init(session.store(&cli.common).await?).await?;
    let listener = Arc::clone(session);
    let told = move |event: &Event| {
        // An event is made of plain data, so it can be written.
        let _ = listener.line(event);
    };
    let options = RunOptions {
        dir,
        disk: Arc::new(RealDisk),
        keyring,
        interval: args.interval,
        schedule,
        snapshot_after_bytes: args.snapshot_after,
        rate: args.rate_limit.map(RateLimit::new),
        lease: args.lease,
        grace: args.grace,
        stop,
        told: Arc::new(told),
    };
    cairn_jobs::archive::run(repository, options).await?;
    Ok(0)
}

/// A server that starts this program holds the other end of a pipe, which closes when it ends, however it ends. A standard
/// input of another kind (a terminal, `/dev/null`) says nothing of a parent.
fn end_with_parent(session: &Arc<Session>) -> Result<(), JobError> {
    let kind = std::fs::metadata("/dev/stdin").map(|metadata| metadata.file_type());
    if !kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket()) {
        return Ok(());
    }
    let session = Arc::clone(session);
    let wait = move || {
        let mut unread = [0; 64];
        while std::io::stdin().read(&mut unread).is_ok_and(|count| count > 0) {}
        session.stop();
    };
    let started = std::thread::Builder::new().name("cairn-parent".to_owned()).spawn(wait);
    started.map(drop).map_err(|error| JobError::Task(error.to_string()))
}
