//! `cairn-restore`: brings data back, from a repository or from a file, into a directory, a `.rdb` file or a server.
//!
//! Copying files is the work of `cairn-jobs`. Where keys are looked at (files of Redis, a choice of keys, another kind of
//! target), this program reads them with the engine's own code and gives them on one by one.

mod append_only;
mod error;
mod live;
mod select;
mod sink;
mod source;
mod transfer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::rdb_file::RdbTarget;
use cairn_jobs::archive::{self, Point, PointOptions};
use cairn_jobs::cli::{CommonOptions, Session, human_bytes};
use cairn_jobs::{Input, JobError, RealDisk, Repository, RestoreOptions, Restored, RetryPolicy};
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use live::Address;
use select::Selection;
use source::{Reading, Source};
use transfer::{Target, Transfer};

/// Restores a Cairn data directory, or some of its keys. Everything is downloaded and checked before any of it is named in
/// the target.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 partly done (a server kept keys of its own), 10 no repository, 11 locked, 12 wrong
/// key, 13 damaged, 14 not restorable, 130 interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "cairn-restore",
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    common: CommonOptions,
    /// The backup to restore
    #[arg(long, value_name = "ID", env = "CAIRN_BACKUP")]
    backup: Option<String>,
    /// Restore the state of this moment, such as 2026-11-23T10:15:04.250Z: all that was written at or before it
    #[arg(long, value_name = "TIME", env = "CAIRN_TIME")]
    time: Option<String>,
    /// Restore the state at this LSN: all that was committed at or below it
    #[arg(long, value_name = "LSN", env = "CAIRN_LSN")]
    lsn: Option<u64>,
    /// The history to restore from, where more than one has such a moment or LSN
    #[arg(long, value_name = "ID", env = "CAIRN_LINEAGE")]
    lineage: Option<String>,
    /// Restore the newest state there is, which is also done when none is named
    #[arg(long, env = "CAIRN_LATEST", value_parser = FalseyValueParser::new())]
    latest: bool,
    /// Restore this instead: a snapshot container (.cairn) or a .rdb file, of this machine or s3://bucket/name, or an
    /// append-only directory of Redis 7
    #[arg(long, value_name = "FILE|DIR|URL", env = "CAIRN_FROM")]
    from: Option<String>,
    /// The directory to restore into; it is made if it is missing
    #[arg(long, value_name = "DIR", env = "CAIRN_DIR")]
    dir: Option<PathBuf>,
    /// The running server to restore into, a Cairn or a Redis: HOST:PORT, redis://[USER@]HOST[:PORT] or unix:///path; its
    /// password is taken from CAIRN_TO_PASSWORD. Keys it has stay as they are unless --force is given
    #[arg(long, value_name = "SERVER", env = "CAIRN_TO")]
    to: Option<String>,
    /// The .rdb file to write; it is not encrypted
    #[arg(long, value_name = "FILE", env = "CAIRN_TO_RDB")]
    to_rdb: Option<PathBuf>,
    /// The oldest Redis that is to read the .rdb file; fields of hashes expire since 7.4
    #[arg(long, value_name = "VERSION", env = "CAIRN_REDIS_VERSION", default_value = "7.0")]
    redis_version: RedisVersion,
    /// Restore only keys that this pattern fits, as KEYS takes it; may be given several times (in the environment one a line)
    #[arg(long, value_name = "GLOB", env = "CAIRN_KEYS", value_delimiter = '\n')]
    keys: Vec<String>,
    /// Restore only keys of this database
    #[arg(long, value_name = "N", env = "CAIRN_DB")]
    db: Option<u16>,
    /// Restore keys that begin with OLD under names that begin with NEW instead; may be given several times (in the
    /// environment one a line), of which the first that fits counts
    #[arg(long, value_name = "OLD=NEW", env = "CAIRN_RENAME_PREFIX", value_delimiter = '\n')]
    rename_prefix: Vec<String>,
    /// Leave out what only a module of Redis can read, instead of refusing the file
    #[arg(long, env = "CAIRN_SKIP_MODULE_DATA", value_parser = FalseyValueParser::new())]
    skip_module_data: bool,
    /// Accept an append-only directory whose last file ends within a command or a transaction, and leave that out
    #[arg(long, env = "CAIRN_LOAD_TRUNCATED", value_parser = FalseyValueParser::new())]
    load_truncated: bool,
    /// How many databases the server of an append-only directory had
    #[arg(long, value_name = "N", env = "CAIRN_DATABASES", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=16384))]
    databases: u16,
    /// Where a backup is put while keys are chosen from it [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", env = "CAIRN_SCRATCH")]
    scratch: Option<PathBuf>,
    /// Replace the data in a directory that is not empty, a file, or keys of a server
    #[arg(long, env = "CAIRN_FORCE", value_parser = FalseyValueParser::new())]
    force: bool,
    /// Read all of it, say whether it is whole and what would be restored, and change nothing
    #[arg(long, env = "CAIRN_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    /// Ask nothing
    #[arg(short = 'y', long, env = "CAIRN_YES", value_parser = FalseyValueParser::new())]
    yes: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Versions of Redis that read different `.rdb` files.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RedisVersion {
    #[value(name = "7.0")]
    V7_0,
    #[value(name = "7.4")]
    V7_4,
}

impl RedisVersion {
    fn target(self) -> RdbTarget {
        match self {
            Self::V7_0 => RdbTarget::Redis70,
            Self::V7_4 => RdbTarget::Redis74,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = parse(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    if let Some(Verb::Completions { shell }) = cli.verb {
        clap_complete::generate(shell, &mut Cli::command(), "cairn-restore", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    cairn_jobs::cli::run("cairn-restore", &cli.common.clone(), |session| restore(session, cli))
}

/// Takes one source, and one target of the three. One on the command line wins over those in the environment;
/// two there are an error.
fn parse(matches: &ArgMatches) -> Result<Cli, clap::Error> {
    let mut cli = Cli::from_arg_matches(matches)?;
    let conflict = |why: String| Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why);
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let source = one_of(matches, &["backup", "time", "lsn", "latest", "from"]).map_err(conflict)?;
    if given("from") && given("repo") {
        return Err(conflict("--from reads a file, so --repo means nothing beside it".to_owned()));
    }
    if source.is_some() {
        cli.backup = cli.backup.filter(|_| source == Some("backup"));
        cli.latest &= source == Some("latest");
        cli.time = cli.time.filter(|_| source == Some("time"));
        cli.lsn = cli.lsn.filter(|_| source == Some("lsn"));
        cli.from = cli.from.filter(|_| source == Some("from"));
    }
    if given("lineage") && matches!(source, Some("backup" | "from")) {
        return Err(conflict("--lineage goes with --time, --lsn or --latest".to_owned()));
    }
    let target = one_of(matches, &["dir", "to", "to_rdb"]).map_err(conflict)?;
    if target.is_some() {
        cli.dir = cli.dir.filter(|_| target == Some("dir"));
        cli.to = cli.to.filter(|_| target == Some("to"));
        cli.to_rdb = cli.to_rdb.filter(|_| target == Some("to_rdb"));
    }
    Ok(cli)
}

/// The one of these options that counts, if any is given.
fn one_of<'i>(matches: &ArgMatches, ids: &[&'i str]) -> Result<Option<&'i str>, String> {
    for (place, name) in [
        (ValueSource::CommandLine, (|id| format!("--{}", id.replace('_', "-"))) as fn(&str) -> String),
        (ValueSource::EnvVariable, |id| format!("CAIRN_{}", id.to_uppercase())),
    ] {
        let is_given = |id: &&&str| matches.value_source(id) == Some(place) && is_meant(matches, id);
        let found: Vec<&str> = ids.iter().filter(is_given).copied().collect();
        match found[..] {
            [] => {}
            [one] => return Ok(Some(one)),
            [first, second, ..] => {
                return Err(format!("{} and {} exclude each other", name(first), name(second)));
            }
        }
    }
    Ok(None)
}

/// A switch that is set to "no" in the environment is not given.
fn is_meant(matches: &ArgMatches, id: &str) -> bool {
    matches.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(true)
}

async fn restore(session: Arc<Session>, cli: Cli) -> Result<u8, JobError> {
    let started = Instant::now();
    let target = target(&cli)?;
    if cli.force && !cli.yes && !cli.dry_run && !session.confirm(&target.question()) {
        return Err(JobError::Interrupted);
    }
    let keyring = session.keyring(&cli.common).await?;
    let selection = Selection::new(&cli.keys, cli.db, &cli.rename_prefix)?;
    let dir = cli.dir.clone().unwrap_or_default();
    let options = RestoreOptions { dir, disk: Arc::new(RealDisk), keyring, force: cli.force };
    let is_copy = matches!(target, Target::Directory(_)) && selection.is_everything();
    if is_copy && let Some(restored) = copy(&session, &cli, &options).await? {
        return show(&session, &cli, &restored, started);
    }
    let reading = Reading {
        keyring: options.keyring.clone(),
        skip_module_data: cli.skip_module_data,
        load_truncated: cli.load_truncated,
        databases: cli.databases,
        scratch: cli.scratch.clone().unwrap_or_else(std::env::temp_dir),
        progress: session.progress(),
    };
    let transfer = Transfer { selection, target, options, dry_run: cli.dry_run, reading: reading.clone() };
    transfer.check_target()?;
    let source = match &cli.from {
        Some(from) => {
            let policy = RetryPolicy::within(Duration::from_secs(cli.common.retry_seconds));
            Source::open(from, policy, reading).await?
        }
        None => backup(&session, &cli, reading).await?,
    };
    transfer.run(&session, source, started).await
}

fn target(cli: &Cli) -> Result<Target, JobError> {
    match (&cli.dir, &cli.to, &cli.to_rdb) {
        (Some(dir), _, _) => Ok(Target::Directory(dir.clone())),
        (_, Some(to), _) => Ok(Target::Server(Address::parse(to)?)),
        (_, _, Some(path)) => Ok(Target::Rdb { path: path.clone(), version: cli.redis_version.target() }),
        (None, None, None) => {
            let why = "--dir DIR (or CAIRN_DIR), --to SERVER or --to-rdb FILE is needed";
            Err(JobError::Usage(why.to_owned()))
        }
    }
}

/// Restores by copying files, where the source consists of files of our own; none where its keys have to be read.
async fn copy(session: &Session, cli: &Cli, options: &RestoreOptions) -> Result<Option<Restored>, JobError> {
    match &cli.from {
        None => from_repository(session, cli, options.clone(), cli.dry_run).await.map(Some),
        Some(from) if !Input::is_url(from) && cairn_jobs::is_container(Path::new(from))? => {
            let (path, progress) = (Path::new(from), session.progress());
            cairn_jobs::restore_file(path, options.clone(), cli.dry_run, progress).await.map(Some)
        }
        Some(_) => Ok(None),
    }
}

/// Brings a backup into a directory of its own and reads it from there.
async fn backup(session: &Session, cli: &Cli, reading: Reading) -> Result<Source, JobError> {
    let failed =
        |source| JobError::Io { path: reading.scratch.clone(), operation: "create a directory in", source };
    let scratch =
        tempfile::Builder::new().prefix("cairn-restore-").tempdir_in(&reading.scratch).map_err(failed)?;
    let dir = scratch.path().join("data");
    let keyring = reading.keyring.clone();
    let options = RestoreOptions { dir: dir.clone(), disk: Arc::new(RealDisk), keyring, force: false };
    let restored = from_repository(session, cli, options, false).await?;
    Ok(source::blocking(move || Source::of_directory(restored.from, &dir, &reading)).await?)
}

fn show(session: &Session, cli: &Cli, restored: &Restored, started: Instant) -> Result<u8, JobError> {
    let mut document = serde_json::to_value(restored).map_err(JobError::Json)?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("result".to_owned(), "ok".into());
        fields.insert("dry_run".to_owned(), cli.dry_run.into());
        // One that is not ends with an error.
        fields.insert("whole".to_owned(), true.into());
        fields.insert("created".to_owned(), cairn_jobs::rfc3339(restored.created_unix_ms).into());
        fields.insert("seconds".to_owned(), seconds.into());
    }
    session.result(&document, || text(restored, cli.dry_run, seconds))?;
    Ok(0)
}

async fn from_repository(
    session: &Session,
    cli: &Cli,
    options: RestoreOptions,
    dry_run: bool,
) -> Result<Restored, JobError> {
    if cli.common.repo.is_none() {
        return Err(JobError::Usage("--repo URL (or CAIRN_REPO) or --from FILE is needed".to_owned()));
    }
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let scratch = cli.scratch.clone().unwrap_or_else(std::env::temp_dir);
    if let Some(point) = point(&repository, cli).await? {
        if dry_run {
            return archive::plan_point(&repository, &point, options, &scratch, session.progress()).await;
        }
        return archive::restore_point(&repository, &point, options, session.progress()).await;
    }
    let id = cli.backup.as_deref();
    if dry_run {
        return cairn_jobs::plan(&repository, id, &options, &scratch, session.progress()).await;
    }
    cairn_jobs::restore(&repository, id, options, session.progress()).await
}

/// The point of the archive that is asked for; none where it is a backup.
async fn point(repository: &Repository, cli: &Cli) -> Result<Option<PointOptions>, JobError> {
    let point = match (&cli.time, cli.lsn) {
        (Some(time), _) => Point::parse_time(time)?,
        (None, Some(lsn)) => Point::Lsn(lsn),
        (None, None) if cli.backup.is_some() => return Ok(None),
        (None, None) if cli.lineage.is_some() => Point::Latest,
        (None, None) => return archive::latest(repository).await,
    };
    Ok(Some(PointOptions { point, lineage: cli.lineage.clone() }))
}

fn text(restored: &Restored, dry_run: bool, seconds: f64) -> String {
    let (verb, whole) =
        if dry_run { ("would restore", "; every byte was read, and it is whole") } else { ("restored", "") };
    let (dir, bytes) = (restored.dir.display(), human_bytes(restored.bytes));
    let made = cairn_jobs::rfc3339(restored.created_unix_ms);
    let Restored { from, objects, entries, to_lsn, .. } = restored;
    format!(
        "{verb} {from} of {made} into {dir}: {objects} files, {bytes}, {entries} keys in the snapshot, LSN {to_lsn}, {seconds:.1} s{whole}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse =
            |args: &[&str]| parse(&Cli::command().try_get_matches_from([&["cairn-restore"], args].concat())?);
        assert!(parse(&["--repo", "file:///r", "--dir", "d", "--latest", "-y"]).is_ok());
        assert!(parse(&["completions", "bash"]).unwrap().verb.is_some());
        let chosen = parse(&["--from", "f", "--to", "h:1", "--keys", "a*", "--keys", "b,c"]).unwrap();
        assert_eq!(chosen.keys, ["a*", "b,c"]);
        for bad in [
            &["--latest", "--backup", "x", "--dir", "d"][..],
            &["--from", "f", "--backup", "x", "--dir", "d"],
            &["--time", "2026-11-23T10:15:04Z", "--lsn", "7", "--dir", "d"],
            &["--latest", "--time", "2026-11-23T10:15:04Z"],
            &["--backup", "x", "--lineage", "y"],
            &["--lsn", "x"],
            &["--dir", "d", "--to", "h:1"],
            &["--to", "h:1", "--to-rdb", "f"],
            &["--db", "x"],
            &["--redis-version", "6.2"],
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
