//! `cairn-backup`: makes, lists and proves backups.
//!
//! The work itself is `cairn-jobs`; this program reads its command line, asks a running server for a snapshot, and shows
//! results. It reads a data directory only through the library; where keys are looked at, to export them, with the engine's
//! own code.

mod export;
mod keys;
mod options;
mod run;
mod server;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use options::{Cli, Verb};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let mut cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = options::refuse_meaningless(&matches, &cli.verb) {
        error.exit();
    }
    options::choose_what_to_rewrap(&matches, &mut cli);
    if let Verb::Completions { shell } = cli.verb {
        clap_complete::generate(shell, &mut Cli::command(), "cairn-backup", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    cairn_jobs::cli::run("cairn-backup", &cli.common.clone(), |session| verbs::run(session, cli))
}
