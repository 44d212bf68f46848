//! The log: lines of text or JSON, on standard output or in a file. No key and no value is ever in it.

use crate::config::{LogFormat, LogLevel, Settings};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Changes the level of a running log.
pub(crate) struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// From the next line on.
    pub(crate) fn set(&self, level: LogLevel) {
        // The only error is that there is no log any more.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts the log. The error is that the log file cannot be opened.
pub(crate) fn start(settings: &Settings) -> io::Result<LevelHandle> {
    let writer = match settings.logfile.as_str() {
        "" => Destination::Stdout,
        path => {
            // Relative to where the server was started, also when that changes.
            let path = std::path::absolute(path)?;
            open(&path)?;
            Destination::File(path)
        }
    };
    let (level, handle) = reload::Layer::new(filter(settings.loglevel));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(matches!(writer, Destination::Stdout) && io::stdout().is_terminal())
        .with_target(false)
        .with_writer(writer);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second log in one process, as tests may start it, leaves the first in place.
    let _ = tracing_subscriber::registry().with(level).with(lines).try_init();
    Ok(LevelHandle(handle))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

/// Where lines go. A file is opened for each line, so that it may be rotated at any time.
enum Destination {
    Stdout,
    File(PathBuf),
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl<'a> MakeWriter<'a> for Destination {
    type Writer = Box<dyn Write>;

    fn make_writer(&'a self) -> Box<dyn Write> {
        match self {
            Destination::Stdout => Box::new(io::stdout()),
            Destination::File(path) => match open(path) {
                Ok(file) => Box::new(file),
                Err(_) => Box::new(io::stderr()),
            },
        }
    }
}
