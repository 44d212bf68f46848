//! `export`: a backup, or the data in a directory, as a `.rdb` file that Redis reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cairn_engine::rdb_file::{RdbTarget, RdbWriteError, RdbWriter};
use cairn_engine::{Dataset, DatasetFacts, OpenError};
use cairn_jobs::cli::{Session, human_bytes};
use cairn_jobs::{
    CancelOnDrop, CreateOptions, JobError, Keyring, Output, Phase, Prepared, RealDisk, Repository,
    RestoreOptions, Silent, open_store,
};
use serde_json::json;
use tempfile::TempDir;

use crate::options::{Cli, ExportOptions, RedisVersion};

impl RedisVersion {
    fn target(self) -> RdbTarget {
        match self {
            Self::V7_0 => RdbTarget::Redis70,
            Self::V7_4 => RdbTarget::Redis74,
        }
    }
}

/// What was written.
struct Exported {
    keys: u64,
    libraries: usize,
    bytes: u64,
}

pub(crate) async fn export(
    session: &Arc<Session>,
    cli: &Cli,
    options: &ExportOptions,
) -> Result<u8, JobError> {
    let started = Instant::now();
    Output::refuse_taken(&options.rdb, options.force)?;
    if options.force
        && options.rdb.exists()
        && !(cli.yes || cli.dry_run)
        && !session.confirm(&format!("Replace {}?", options.rdb.display()))
    {
        return Err(JobError::Interrupted);
    }
    let keyring = session.keyring(&cli.common).await?;
    let (dataset, facts, from) = read(session, cli, keyring).await?;
    if facts.encrypted {
        tracing::warn!(
            file = %options.rdb.display(),
            "the data is encrypted, and the .rdb file is not: whoever can read the file can read the data"
        );
    }
    let (path, target, force, dry_run) =
        (options.rdb.clone(), options.redis_version.target(), options.force, cli.dry_run);
    let (guard, progress) = (CancelOnDrop::default(), session.progress());
    let cancelled = guard.flag();
    let exported = blocking(move || {
        let total = (0..dataset.databases()).map(|db| dataset.keys(db).0).sum();
        progress.begin(Phase::Export, total);
        let entry = |done| {
            progress.advance(done);
            cancelled.load(std::sync::atomic::Ordering::Relaxed)
        };
        let exported = if dry_run {
            write(&dataset, &path, target, std::io::sink(), entry).map(|(_, exported)| exported)
        } else {
            let output = Output::create(&path, force)?;
            let (output, exported) = write(&dataset, &path, target, output, entry)?;
            Ok(Exported { bytes: output.finish()?, ..exported })
        };
        progress.end();
        exported
    })
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    let document = json!({
        "result": "ok", "dry_run": dry_run, "from": from, "file": options.rdb, "entries": exported.keys,
        "libraries": exported.libraries, "bytes": exported.bytes, "encrypted": facts.encrypted,
        "to_lsn": facts.end.0, "rdb_version": target.version(), "seconds": seconds,
    });
    session.result(&document, || {
        let verb = if dry_run { "would write" } else { "wrote" };
        let (file, bytes) = (options.rdb.display(), human_bytes(exported.bytes));
        let Exported { keys, libraries, .. } = exported;
        let size = if dry_run { String::new() } else { format!(", {bytes}") };
        format!(
            "{verb} {keys} keys and {libraries} function libraries of {from} to {file}{size}, {seconds:.1} s"
        )
    })?;
    Ok(0)
}

/// Reads what is exported into memory, and says what a person calls it.
async fn read(
    session: &Session,
    cli: &Cli,
    keyring: Option<Arc<Keyring>>,
) -> Result<(Dataset, DatasetFacts, String), JobError> {
    if let Some(dir) = cli.dir.clone().filter(|_| cli.backup.is_none()) {
        let from = dir.display().to_string();
        let (found, keys) = (dir.clone(), keyring.clone());
        let opened = blocking(move || Ok(Dataset::open(&found, keys))).await?;
        return match opened {
            Ok((dataset, facts)) => Ok((dataset, facts, from)),
            // A server runs on it: what is durable of it is copied, and read from there.
            Err(OpenError::Locked { .. }) => {
                let (dataset, facts) = read_copy(cli, &dir, keyring).await?;
                Ok((dataset, facts, from))
            }
            Err(error) => Err(failed(error)),
        };
    }
    if cli.common.repo.is_none() {
        return Err(JobError::Usage("--dir DATA (or CAIRN_DIR) or --repo URL is needed".to_owned()));
    }
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let scratch = scratch(cli)?;
    let options = restore_options(&scratch, keyring.clone());
    let dir = options.dir.clone();
    let progress = session.progress();
    let restored = cairn_jobs::restore(&repository, cli.backup.as_deref(), options, progress).await?;
    let (dataset, facts) = open(dir, keyring).await?;
    Ok((dataset, facts, restored.from))
}

/// Reads a directory that a server writes to, by way of a backup into a directory of our own.
async fn read_copy(
    cli: &Cli,
    dir: &Path,
    keyring: Option<Arc<Keyring>>,
) -> Result<(Dataset, DatasetFacts), JobError> {
    let scratch = scratch(cli)?;
    let place = std::path::absolute(scratch.path().join("copy"));
    let place = place.map_err(|source| io(scratch.path(), "find", source))?;
    let policy = cairn_jobs::RetryPolicy::within(std::time::Duration::ZERO);
    let store = open_store(&format!("file://{}", place.display()), policy).await?;
    let repository = Repository::init(store).await?;
    let options = CreateOptions {
        dir: dir.to_owned(),
        disk: Arc::new(RealDisk),
        keyring: keyring.clone(),
        durable_lsn: None,
    };
    Prepared::new(options).await?.upload(&repository, Arc::new(Silent)).await?;
    let options = restore_options(&scratch, keyring.clone());
    let dir = options.dir.clone();
    cairn_jobs::restore(&repository, None, options, Arc::new(Silent)).await?;
    open(dir, keyring).await
}

fn scratch(cli: &Cli) -> Result<TempDir, JobError> {
    let parent = cli.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new().prefix("cairn-export-").tempdir_in(&parent);
    made.map_err(|source| io(&parent, "create a directory in", source))
}

fn restore_options(scratch: &TempDir, keyring: Option<Arc<Keyring>>) -> RestoreOptions {
    RestoreOptions { dir: scratch.path().join("data"), disk: Arc::new(RealDisk), keyring, force: false }
}

async fn open(dir: PathBuf, keyring: Option<Arc<Keyring>>) -> Result<(Dataset, DatasetFacts), JobError> {
    blocking(move || Dataset::open(&dir, keyring).map_err(failed)).await
}

/// Writes all keys. `entry` is told of each some keys, and says whether nobody wants the file any more.
fn write<W: std::io::Write>(
    dataset: &Dataset,
    path: &Path,
    target: RdbTarget,
    output: W,
    entry: impl Fn(u64) -> bool,
) -> Result<(W, Exported), JobError> {
    let rdb = |error: RdbWriteError| write_error(path, error);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut writer = RdbWriter::new(output, target, now.as_secs()).map_err(|error| rdb(error.into()))?;
    let libraries = dataset.libraries();
    for source in &libraries {
        writer.library(source).map_err(|error| rdb(error.into()))?;
    }
    let mut keys = 0;
    for database in 0..dataset.databases() {
        let (count, expiring) = dataset.keys(database);
        if count == 0 {
            continue;
        }
        writer.database(database, count, expiring).map_err(|error| rdb(error.into()))?;
        dataset.try_each(database, |key, usage| {
            keys += 1;
            writer.entry(database, key, usage).map_err(rdb)?;
            if entry(1) { Err(JobError::Interrupted) } else { Ok(()) }
        })?;
    }
    let output = writer.finish().map_err(|error| rdb(error.into()))?;
    Ok((output, Exported { keys, libraries: libraries.len(), bytes: 0 }))
}

fn write_error(path: &Path, error: RdbWriteError) -> JobError {
    match error {
        RdbWriteError::FieldExpiry => {
            let why = format!(
                "{}: a hash has fields that expire, which Redis knows since 7.4; write the file with --redis-version 7.4",
                path.display()
            );
            JobError::Program { error: why.into(), exit_code: 1 }
        }
        RdbWriteError::Rdb(error) => error.into_io().map_or_else(
            |error| JobError::Program { error: Box::new(error), exit_code: 1 },
            |source| Output::error(path, source),
        ),
    }
}

fn io(path: &Path, operation: &'static str, source: std::io::Error) -> JobError {
    JobError::Io { path: path.to_owned(), operation, source }
}

fn failed(error: OpenError) -> JobError {
    let exit_code = u8::try_from(error.exit_code()).unwrap_or(1);
    JobError::Program { error: Box::new(error), exit_code }
}

/// Runs work that blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| JobError::Task(error.to_string()))?
}
