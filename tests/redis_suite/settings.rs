//! What can be set from outside, all of it by environment variables.

use cairn_tests::{counts, programs};
use std::path::PathBuf;
use std::time::Duration;

/// Who starts the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// We do, one for each file.
    External,
    /// The suite does.
    Own,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Own => "own",
        }
    }
}

/// The settings of one run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `MODE`: `external` (where it is not set) or `own`.
    pub(crate) mode: Mode,
    /// `FILES`: the only files to run, as in `unit/type/list unit/scan`; all where it is not set.
    pub(crate) only: Vec<String>,
    /// `TESTS`: the only test to run, by name, or by a regular expression after a slash.
    pub(crate) test: Option<String>,
    /// `PEER`: another server, to learn what it passes.
    pub(crate) peer: Option<PathBuf>,
    /// `JOBS`: how many files run at once.
    pub(crate) jobs: usize,
    /// `PATIENCE`: seconds without a finished test after which the one that runs counts as hanging.
    pub(crate) patience: Duration,
    /// The sources of the suite, unpacked; `CAIRN_SUITE_DIR`.
    pub(crate) sources: PathBuf,
    /// Where logs and figures go.
    pub(crate) directory: PathBuf,
    /// Whether slow tests run too: `CAIRN_PROVE=1`.
    pub(crate) slow: bool,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, String> {
        let mode = match text("MODE").as_deref() {
            None | Some("external") => Mode::External,
            Some("own") => Mode::Own,
            Some(other) => return Err(format!("MODE must be external or own, not {other:?}")),
        };
        let sources = text("CAIRN_SUITE_DIR").ok_or("CAIRN_SUITE_DIR is not set; run `make redis-suite`")?;
        let peer = text("PEER").map(PathBuf::from);
        if let Some(missing) = peer.as_ref().filter(|path| !path.is_file()) {
            return Err(format!("PEER: {} is no file", missing.display()));
        }
        let only = text("FILES").unwrap_or_default();
        let base = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| programs::repository().join("target"), PathBuf::from);
        let who = if peer.is_some() { "peer-" } else { "" };
        Ok(Self {
            mode,
            only: only.split([' ', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            test: text("TESTS"),
            peer,
            jobs: number("JOBS", 1)?.max(1),
            patience: Duration::from_secs(number("PATIENCE", if counts::prove() { 300 } else { 120 })? as u64),
            sources: PathBuf::from(sources),
            directory: base.join("redis-suite").join(format!("{who}{}", mode.name())),
            slow: counts::prove(),
        })
    }

    /// The server under test.
    pub(crate) fn server(&self) -> PathBuf {
        self.peer.clone().unwrap_or_else(|| programs::cairn("cairn-server"))
    }

    /// Its name.
    pub(crate) fn server_name(&self) -> String {
        self.server().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The tags of tests that run, as the runner takes them.
    pub(crate) fn tags(&self) -> String {
        let mut tags = String::from("-needs:repl -needs:pfdebug -large-memory");
        if !self.slow {
            tags.push_str(" -slow");
        }
        tags
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn number(name: &str, otherwise: usize) -> Result<usize, String> {
    match text(name) {
        Some(text) => text.parse().map_err(|_| format!("{name} must be a number, not {text:?}")),
        None => Ok(otherwise),
    }
}
