//! The command line. Every option may stand before or after the verb, and has an environment variable.

use std::path::PathBuf;

use cairn_jobs::cli::CommonOptions;
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser, Subcommand};

/// Backups of a Cairn data directory, in a local directory or on S3.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 10 no repository, 11 locked, 12 wrong key, 13 damaged, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "cairn-backup", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonOptions,
    /// The data directory to back up
    #[arg(long, global = true, value_name = "DATA", env = "CAIRN_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The server that runs on it: asked for a new snapshot first; its password is taken from CAIRN_SERVER_PASSWORD
    #[arg(long, global = true, value_name = "HOST:PORT", env = "CAIRN_SERVER")]
    pub(crate) server: Option<String>,
    /// The backup to verify, instead of all
    #[arg(long, global = true, value_name = "ID", env = "CAIRN_BACKUP")]
    pub(crate) backup: Option<String>,
    /// Where objects of a remote repository are put while they are verified [default: the system's temporary directory]
    #[arg(long, global = true, value_name = "DIR", env = "CAIRN_SCRATCH")]
    pub(crate) scratch: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long, global = true, env = "CAIRN_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub(crate) dry_run: bool,
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
            &["run"],
            &["key", "rotate", "--repo", "file:///r"],
            &["rewrap", "--server", "h:1"],
            &["key", "generate"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }
}
