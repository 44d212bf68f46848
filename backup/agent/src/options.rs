//! The command line. Every option may stand before or after the verb, and has an environment variable.

use std::path::PathBuf;
use std::time::Duration;

use cairn_jobs::cli::CommonOptions;
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser, Subcommand, ValueEnum};

/// Backups of a Cairn data directory, in a local directory or on S3.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 10 no repository, 11 locked, 12 wrong key, 13 damaged, 14 not restorable, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "cairn-backup", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonOptions,
    /// The data directory to back up, or to export
    #[arg(long, global = true, value_name = "DATA", env = "CAIRN_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The server that runs on it: asked for a new snapshot first; its password is taken from CAIRN_SERVER_PASSWORD
    #[arg(long, global = true, value_name = "HOST:PORT", env = "CAIRN_SERVER")]
    pub(crate) server: Option<String>,
    /// The backup to verify, instead of all; the backup to export, instead of the newest
    #[arg(long, global = true, value_name = "ID", env = "CAIRN_BACKUP")]
    pub(crate) backup: Option<String>,
    /// Where the files of a backup are put while they are verified or exported [default: the system's temporary directory]
    #[arg(long, global = true, value_name = "DIR", env = "CAIRN_SCRATCH")]
    pub(crate) scratch: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long, global = true, env = "CAIRN_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub(crate) dry_run: bool,
    /// Ask nothing
    #[arg(short = 'y', long, global = true, env = "CAIRN_YES", value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Back up a data directory, of a running server or at rest
    Create,
    /// Show the backups there are
    List,
    /// Prove that backups are whole: sizes, checksums, structure and, with the key, decryption
    Verify,
    /// Bring a repository, or with --dir a data directory at rest, under the newest master key, without copying data
    Rewrap,
    /// Keep an archive of a data directory going: the journal as it grows, and snapshots
    Run(RunArgs),
    /// Write a backup, or the data in a directory, as a .rdb file for Redis
    Export(ExportOptions),
    /// Manage master keys
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What only `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// How often the journal's new end is archived, such as 1s or 500ms
    #[arg(long, value_name = "TIME", env = "CAIRN_INTERVAL", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// When snapshots are taken: cron syntax, in UTC
    #[arg(long, value_name = "CRON", env = "CAIRN_SCHEDULE", default_value = "@daily")]
    pub(crate) schedule: String,
    /// One is also taken when this much journal follows the last one, such as 4gb
    #[arg(long, value_name = "BYTES", env = "CAIRN_SNAPSHOT_AFTER", default_value = "4gb", value_parser = bytes)]
    pub(crate) snapshot_after: u64,
    /// What uploads take at most, in bytes a second, such as 20mb [default: no limit]
    #[arg(long, value_name = "BYTES", env = "CAIRN_RATE_LIMIT", value_parser = bytes)]
    pub(crate) rate_limit: Option<u64>,
    /// How long the repository is kept from other agents after this one has died
    #[arg(long, value_name = "TIME", env = "CAIRN_LEASE", default_value = "60s", value_parser = duration)]
    pub(crate) lease: Duration,
    /// How long small pieces of the journal stay after longer ones have taken their place
    #[arg(long, value_name = "TIME", env = "CAIRN_GRACE", default_value = "10m", value_parser = duration)]
    pub(crate) grace: Duration,
}

/// `500ms`, `10s`, `5m`, `2h`; a number alone counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a time is a number with ms, s, m or h".to_owned())?;
    let ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h".to_owned()),
    };
    match number.checked_mul(ms) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("a time is above zero".to_owned()),
    }
}

/// `100`, `20mb`, `4gb`: in steps of 1,024, as in the server's configuration.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a size is a number with b, kb, mb or gb".to_owned())?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => return Err("a size is a number with b, kb, mb or gb".to_owned()),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("a size is above zero".to_owned()),
    }
}

/// What only `export` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportOptions {
    /// The file to write; it is not encrypted
    #[arg(long, value_name = "FILE", env = "CAIRN_RDB")]
    pub(crate) rdb: PathBuf,
    /// Export the newest backup, which is also done when none is named
    #[arg(long, env = "CAIRN_LATEST", value_parser = FalseyValueParser::new(), conflicts_with = "backup")]
    pub(crate) latest: bool,
    /// The oldest Redis that is to read the file; fields of hashes expire since 7.4
    #[arg(long, value_name = "VERSION", env = "CAIRN_REDIS_VERSION", default_value = "7.0")]
    pub(crate) redis_version: RedisVersion,
    /// Replace the file if it is there
    #[arg(long, env = "CAIRN_FORCE", value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
}

/// Versions of Redis that read different `.rdb` files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RedisVersion {
    #[value(name = "7.0")]
    V7_0,
    #[value(name = "7.4")]
    V7_4,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Write a new keyring with one key
    Generate {
        /// The file to write; one that exists is not overwritten
        #[arg(long, value_name = "FILE", env = "CAIRN_KEY_OUT")]
        out: PathBuf,
    },
    /// Add a new key to the keyring of --encryption-key-file, and make it the active one
    Rotate,
}

impl Verb {
    /// The options, among those that stand with any verb, that mean nothing to this one.
    fn meaningless(&self) -> &'static [&'static str] {
        match self {
            Self::Create => &["backup", "scratch"],
            Self::List => &[
                "dir",
                "server",
                "backup",
                "scratch",
                "dry_run",
                "encryption_key_file",
                "encryption_key_command",
            ],
            Self::Verify => &["dir", "server", "dry_run"],
            Self::Rewrap => &["server", "backup", "scratch"],
            Self::Run(_) => &["server", "backup", "scratch", "dry_run"],
            Self::Export(_) => &["server"],
            Self::Key { verb: KeyVerb::Rotate } => {
                &["repo", "dir", "server", "backup", "scratch", "encryption_key_command"]
            }
            Self::Key { verb: KeyVerb::Generate { .. } } | Self::Completions { .. } => &[
                "repo",
                "dir",
                "server",
                "backup",
                "scratch",
                "dry_run",
                "encryption_key_file",
                "encryption_key_command",
            ],
        }
    }
}

/// An option that would be ignored is an error, unless it is only set in the environment, where it serves other verbs.
pub(crate) fn refuse_meaningless(matches: &ArgMatches, verb: &Verb) -> Result<(), clap::Error> {
    for id in verb.meaningless() {
        if given(matches, id) {
            let why = format!("--{} means nothing to this verb", id.replace('_', "-"));
            return Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why));
        }
    }
    Ok(())
}

/// Of a directory and a repository `rewrap` takes one: what was typed counts, where the other is only set in the environment.
pub(crate) fn choose_what_to_rewrap(matches: &ArgMatches, cli: &mut Cli) {
    if !matches!(cli.verb, Verb::Rewrap) {
        return;
    }
    match (given(matches, "dir"), given(matches, "repo")) {
        (true, false) => cli.common.repo = None,
        (false, true) => cli.dir = None,
        _ => {}
    }
}

fn given(matches: &ArgMatches, id: &str) -> bool {
    let here =
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, inner)| given(inner, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches_from([&["cairn-backup"], args].concat())?;
        let cli = Cli::from_arg_matches(&matches)?;
        refuse_meaningless(&matches, &cli.verb)?;
        Ok(cli)
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_verb() {
        for args in [
            ["--repo", "file:///r", "--dir", "d", "--json", "create"],
            ["create", "--repo", "file:///r", "--dir", "d", "--json"],
            ["--dir", "d", "create", "--json", "--repo", "file:///r"],
        ] {
            let cli = parse(&args).unwrap();
            assert!(cli.common.json && matches!(cli.verb, Verb::Create), "{args:?}");
            assert_eq!(
                (cli.common.repo.as_deref(), cli.dir),
                (Some("file:///r"), Some("d".into())),
                "{args:?}"
            );
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for args in [
            &["list", "--dir", "d"][..],
            &["--server", "h:1", "verify"],
            &["create", "--backup", "x"],
            &["key", "generate", "--out", "f", "--repo", "file:///r"],
            &["expire"],
            &["run", "--interval", "0s"],
            &["run", "--interval", "1x"],
            &["run", "--rate-limit", "-1"],
            &["run", "--dry-run"],
            &["key", "rotate", "--repo", "file:///r"],
            &["rewrap", "--server", "h:1"],
            &["export"],
            &["export", "--rdb", "f", "--server", "h:1"],
            &["export", "--rdb", "f", "--latest", "--backup", "x"],
            &["key", "generate"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }
}
