//! What every group needs: directories, keys, settings, and the report that takes its figures.

use crate::report::Report;
use crate::settings::Settings;
use cairn_tests::programs;
use cairn_tests::resp::Client;
use cairn_tests::server::{Kind, Setup};
use std::path::PathBuf;
use std::time::Instant;

/// What is kept of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persist {
    /// `appendonly no`.
    Nothing,
    /// A journal, synced each second.
    EverySec,
    /// A journal, synced before each reply.
    Always,
}

impl Persist {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::EverySec, Self::Always];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nopersist",
            Self::EverySec => "everysec",
            Self::Always => "always",
        }
    }
}

/// One run of the bench.
pub(crate) struct Bench {
    home: tempfile::TempDir,
    keyring: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) report: Report,
}

impl Bench {
    pub(crate) fn new(settings: Settings, report: Report) -> Self {
        let home = tempfile::tempdir_in(crate::report::directory()).expect("a temporary directory");
        let keyring = home.path().join("keyring");
        programs::generate_keyring(&keyring);
        Self { home, keyring, settings, report }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn keyring(&self) -> &std::path::Path {
        &self.keyring
    }

    /// A server of this kind, Cairn always encrypting. Neither rewrites its journal by itself: that would be CPU of a moment
    /// that the other server chooses differently.
    pub(crate) fn setup(&self, kind: Kind, name: &str, persist: Persist) -> Setup {
        let setup = match kind {
            Kind::Cairn => Setup::cairn(&self.path(&format!("cairn-{name}"))).key(&self.keyring),
            Kind::Redis => Setup::redis(&self.path(&format!("peer-{name}"))).program(programs::peer()),
        };
        let setup = setup.with("auto-aof-rewrite-percentage", "0");
        match persist {
            Persist::Nothing => setup.with("appendonly", "no"),
            other => setup.journal(other.name()),
        }
    }

    /// Removes what servers of this name have left: some gigabytes between the groups.
    pub(crate) fn remove(&self, name: &str) {
        for prefix in ["cairn", "peer"] {
            let path = self.path(&format!("{prefix}-{name}"));
            if path.exists() {
                std::fs::remove_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }
}

/// Who goes first in this round: a slow minute of the machine must not always meet the same server.
pub(crate) fn order(round: usize) -> [Kind; 2] {
    if round.is_multiple_of(2) { [Kind::Redis, Kind::Cairn] } else { [Kind::Cairn, Kind::Redis] }
}

pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A field of one section of INFO, over a connection that stays.
pub(crate) fn info(client: &mut Client, section: &str, field: &str) -> Option<String> {
    let text = client.ask(&format!("INFO {section}")).text();
    let prefix = format!("{field}:");
    text.lines().find_map(|line| line.strip_prefix(&prefix).map(|value| value.trim_end().to_owned()))
}

/// The same as a number; 0 where the server does not tell.
pub(crate) fn info_number(client: &mut Client, section: &str, field: &str) -> f64 {
    info(client, section, field).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
