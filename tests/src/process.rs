//! Child processes: started with their output in a file, awaited with a limit, killed by id when their owner goes.

use crate::signal::{self, Signal};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at again while it is awaited.
const POLL: Duration = Duration::from_millis(2);

/// Awaits `condition` for at most `limit`; what it gives, or `None` when the time is over.
pub fn await_some<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// A running child. Dropping it kills the process with SIGKILL and waits for it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
}

impl Running {
    /// Starts `command` with its standard output and error appended to the file `log`.
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log_start = fs::metadata(log).map_or(0, |metadata| metadata.len());
        let open = || -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap_or_else(|error| panic!("{}: {error}", log.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name, child, log: log.to_owned(), log_start }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        signal::send(self.pid(), signal);
    }

    /// SIGKILL, then waits until the process is gone.
    pub fn kill(&mut self) {
        // An error here means that it ended by itself before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the process has ended by itself; fails with its log when it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        match await_some(limit, || self.ended()) {
            Some(status) => status,
            None => panic!("{} still runs after {limit:?}:\n{}", self.name, self.log()),
        }
    }

    /// What this process has written so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
