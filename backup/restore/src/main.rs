//! `cairn-restore`: brings a data directory back, from a repository or from a single snapshot.
//!
//! The work itself is `cairn-jobs`; this program reads its command line and shows results. It must never know the engine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cairn_jobs::cli::{CommonOptions, Session, human_bytes};
use cairn_jobs::{JobError, RealDisk, Repository, RestoreOptions, Restored};
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Restores a Cairn data directory. Everything is downloaded and checked before any of it is named in the target.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 10 no repository, 11 locked, 12 wrong key, 13 damaged, 130 interrupted.
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
    /// Restore the newest backup, which is also done when none is named
    #[arg(long, env = "CAIRN_LATEST", value_parser = FalseyValueParser::new())]
    latest: bool,
    /// Restore this snapshot container (.cairn) instead
    #[arg(long, value_name = "FILE", env = "CAIRN_FROM")]
    from: Option<PathBuf>,
    /// The directory to restore into; it is made if it is missing
    #[arg(long, value_name = "DIR", env = "CAIRN_DIR")]
    dir: Option<PathBuf>,
    /// Replace the data in a directory that is not empty
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

/// Takes one source of the three. One on the command line wins over those in the environment; two there are an error.
fn parse(matches: &ArgMatches) -> Result<Cli, clap::Error> {
    let mut cli = Cli::from_arg_matches(matches)?;
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let here: Vec<&str> = ["backup", "latest", "from"].into_iter().filter(|id| given(id)).collect();
    if let [first, second, ..] = here[..] {
        let why = format!("--{first} and --{second} exclude each other");
        return Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why));
    }
    if here.contains(&"from") && given("repo") {
        let why = "--from reads a file, so --repo means nothing beside it";
        return Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why));
    }
    match here.first() {
        Some(&"backup") => (cli.latest, cli.from) = (false, None),
        Some(&"latest") => (cli.backup, cli.from) = (None, None),
        Some(_) => (cli.backup, cli.latest) = (None, false),
        None if usize::from(cli.backup.is_some())
            + usize::from(cli.latest)
            + usize::from(cli.from.is_some())
            > 1 =>
        {
            let why = "CAIRN_BACKUP, CAIRN_LATEST and CAIRN_FROM exclude each other";
            return Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why));
        }
        None => {}
    }
    Ok(cli)
}

async fn restore(session: Arc<Session>, cli: Cli) -> Result<u8, JobError> {
    let started = Instant::now();
    let dir =
        cli.dir.clone().ok_or_else(|| JobError::Usage("--dir DIR (or CAIRN_DIR) is needed".to_owned()))?;
    if cli.force && !cli.yes && !cli.dry_run {
        let question = format!("Replace the data in {}?", dir.display());
        if !session.confirm(&question) {
            return Err(JobError::Interrupted);
        }
    }
    let keyring = session.keyring(&cli.common).await?;
    let options = RestoreOptions { dir, disk: Arc::new(RealDisk), keyring, force: cli.force };
    let restored = match &cli.from {
        Some(path) => cairn_jobs::restore_file(path, options, cli.dry_run, session.progress()).await?,
        None => from_repository(&session, &cli, options).await?,
    };
    let mut document = serde_json::to_value(&restored).map_err(JobError::Json)?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("result".to_owned(), "ok".into());
        fields.insert("dry_run".to_owned(), cli.dry_run.into());
        // One that is not ends with an error.
        fields.insert("whole".to_owned(), true.into());
        fields.insert("created".to_owned(), cairn_jobs::rfc3339(restored.created_unix_ms).into());
        fields.insert("seconds".to_owned(), seconds.into());
    }
    session.result(&document, || text(&restored, cli.dry_run, seconds))?;
    Ok(0)
}

async fn from_repository(
    session: &Session,
    cli: &Cli,
    options: RestoreOptions,
) -> Result<Restored, JobError> {
    if cli.common.repo.is_none() {
        return Err(JobError::Usage("--repo URL (or CAIRN_REPO) or --from FILE is needed".to_owned()));
    }
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let id = cli.backup.as_deref();
    if cli.dry_run {
        return cairn_jobs::plan(&repository, id, &options, &std::env::temp_dir(), session.progress()).await;
    }
    cairn_jobs::restore(&repository, id, options, session.progress()).await
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
        for bad in [
            &["--latest", "--backup", "x", "--dir", "d"][..],
            &["--from", "f", "--backup", "x", "--dir", "d"],
            &["--time", "T"],
            &["--keys", "a*"],
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
