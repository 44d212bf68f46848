//! From a source to a target, key by key: what a plain copy of files does not do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Instant;

use cairn_engine::rdb_file::RdbTarget;
use cairn_jobs::cli::{Session, human_bytes};
use cairn_jobs::{CancelOnDrop, ImportFacts, JobError, Output, RestoreOptions, Restored};
use serde::Serialize;

use crate::error::RestoreError;
use crate::live::{Address, Counts, Live};
use crate::select::{Chosen, Selection};
use crate::sink::{Nowhere, RdbFile, Sink};
use crate::source::{Left, Reading, Source, blocking};

/// Where keys go.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Directory(PathBuf),
    Rdb { path: PathBuf, version: RdbTarget },
    Server(Address),
}

impl Target {
    /// What a person is asked before what is there is replaced.
    pub(crate) fn question(&self) -> String {
        match self {
            Self::Directory(dir) => format!("Replace the data in {}?", dir.display()),
            Self::Rdb { path, .. } => format!("Replace {}?", path.display()),
            Self::Server(_) => "Replace keys that the server has already?".to_owned(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Directory(path) | Self::Rdb { path, .. } => path.display().to_string(),
            Self::Server(address) => address.to_string(),
        }
    }
}

/// How keys are transferred.
pub(crate) struct Transfer {
    pub(crate) selection: Selection,
    pub(crate) target: Target,
    /// Of a target that is a directory.
    pub(crate) options: RestoreOptions,
    pub(crate) dry_run: bool,
    pub(crate) reading: Reading,
}

/// What came of it.
#[derive(Debug, Default)]
struct Done {
    entries: u64,
    left_out: u64,
    libraries: u64,
    left: Left,
    /// Of a directory.
    restored: Option<Restored>,
    /// Of a file, its length.
    bytes: Option<u64>,
    /// Of a server.
    counts: Option<Counts>,
}

/// The result as JSON shows it.
#[derive(Serialize)]
struct Shown<'a> {
    result: &'a str,
    dry_run: bool,
    from: &'a str,
    target: &'a str,
    entries: u64,
    left_out: u64,
    libraries: u64,
    module_values: u64,
    modules: &'a [String],
    torn_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    same: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    different: Option<u64>,
    seconds: f64,
}

impl Transfer {
    /// Refuses what cannot be the target before anything is read.
    pub(crate) fn check_target(&self) -> Result<(), JobError> {
        match &self.target {
            Target::Directory(dir) => cairn_jobs::refuse_filled(&*self.options.disk, dir, self.options.force),
            Target::Rdb { path, .. } => Output::refuse_taken(path, self.options.force),
            Target::Server(_) => Ok(()),
        }
    }

    /// Transfers what is chosen, shows the result and gives the exit code: 3 where a server kept keys of its own.
    pub(crate) async fn run(
        self,
        session: &Session,
        source: Source,
        started: Instant,
    ) -> Result<u8, JobError> {
        let (from, target, dry_run) = (source.place.clone(), self.target.name(), self.dry_run);
        let done = self.transfer(source).await?;
        let different = done.counts.map_or(0, |counts| counts.different);
        let restored = done.restored.as_ref();
        let shown = Shown {
            result: if different > 0 { "partly done" } else { "ok" },
            dry_run,
            from: &from,
            target: &target,
            entries: done.entries,
            left_out: done.left_out,
            libraries: done.libraries,
            module_values: done.left.module_values,
            modules: &done.left.modules,
            torn_bytes: done.left.torn_bytes,
            lineage: restored.and_then(|restored| restored.lineage.as_deref()),
            to_lsn: restored.map(|restored| restored.to_lsn),
            bytes: done.bytes.or(restored.map(|restored| restored.bytes)),
            written: done.counts.map(|counts| counts.written),
            same: done.counts.map(|counts| counts.same),
            different: done.counts.map(|counts| counts.different),
            seconds: started.elapsed().as_secs_f64(),
        };
        session.result(&shown, || text(&shown))?;
        Ok(if different > 0 { 3 } else { 0 })
    }

    async fn transfer(self, source: Source) -> Result<Done, JobError> {
        let Self { selection, target, options, dry_run, reading } = self;
        let guard = CancelOnDrop::default();
        let cancelled = guard.flag();
        match target {
            Target::Directory(_) => {
                let facts =
                    ImportFacts { from: source.place.clone(), lsn: source.lsn, databases: source.databases };
                let (tell, told) = mpsc::channel();
                let restored = cairn_jobs::import(facts, options, dry_run, move |sink| {
                    let done = pass(source, &reading, &selection, sink, cancelled)?;
                    // Nobody is gone: the receiver is held by who waits for this.
                    let _ = tell.send(done);
                    Ok(())
                })
                .await?;
                let done = told.try_recv().unwrap_or_default();
                Ok(Done { restored: Some(restored), ..done })
            }
            target => {
                let force = options.force;
                let work = move || other(target, source, &reading, &selection, force, dry_run, cancelled);
                Ok(blocking(work).await?)
            }
        }
    }
}

/// A target that is no directory.
fn other(
    target: Target,
    source: Source,
    reading: &Reading,
    selection: &Selection,
    force: bool,
    dry_run: bool,
    cancelled: Arc<AtomicBool>,
) -> Result<Done, RestoreError> {
    match target {
        Target::Rdb { path, version } if !dry_run => {
            let mut file = RdbFile::create(&path, version, force)?;
            let done = pass(source, reading, selection, &mut file, cancelled)?;
            Ok(Done { bytes: Some(file.finish()?), ..done })
        }
        Target::Server(address) => {
            let password = std::env::var("CAIRN_TO_PASSWORD").ok().filter(|password| !password.is_empty());
            let mut live = Live::connect(&address, password.as_deref(), force)?;
            if dry_run {
                return pass(source, reading, selection, &mut Nowhere, cancelled);
            }
            let done = pass(source, reading, selection, &mut live, cancelled)?;
            live.flush()?;
            Ok(Done { counts: Some(live.counts), ..done })
        }
        Target::Rdb { .. } | Target::Directory(_) => {
            pass(source, reading, selection, &mut Nowhere, cancelled)
        }
    }
}

fn pass(
    source: Source,
    reading: &Reading,
    selection: &Selection,
    sink: &mut dyn Sink,
    cancelled: Arc<AtomicBool>,
) -> Result<Done, RestoreError> {
    let twice = source.twice();
    let mut chosen = Chosen::new(selection, sink, twice, cancelled);
    let left = source.read(reading, &mut chosen)?;
    let Chosen { entries, left_out, libraries, .. } = chosen;
    Ok(Done { entries, left_out, libraries, left, ..Done::default() })
}

fn text(shown: &Shown<'_>) -> String {
    let verb = if shown.dry_run { "would restore" } else { "restored" };
    let mut text = format!("{verb} {} keys of {} into {}", shown.entries, shown.from, shown.target);
    let mut more = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    };
    more(shown.libraries, "function libraries");
    more(shown.left_out, "keys not chosen");
    more(shown.same.unwrap_or(0), "were there already");
    more(
        shown.different.unwrap_or(0),
        "left as they are: the server has others of their names (--force replaces them)",
    );
    more(shown.module_values, "left out, since only a module can read them");
    more(shown.torn_bytes, "bytes left out behind the last whole command");
    if !shown.modules.is_empty() {
        text.push_str(&format!(", nothing of the modules {}", shown.modules.join(", ")));
    }
    if let Some(bytes) = shown.bytes.filter(|_| !shown.dry_run) {
        text.push_str(&format!(", {}", human_bytes(bytes)));
    }
    format!("{text}, {:.1} s", shown.seconds)
}
