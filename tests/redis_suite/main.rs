//! Runs Redis's own test suite against `cairn-server` and counts; `make redis-suite` prepares its sources and calls it.
//!
//! In external mode every file of `unit/` and `unit/type/` meets a fresh server that we start. In own mode the suite starts
//! its servers itself, with its configuration, through a wrapper that stands in redis-server's place. The suite stays as
//! Debian ships it; every file runs in a copy of its own, so that runs beside each other share nothing.

mod files;
mod lists;
mod report;
mod run;
mod settings;
mod transcript;

use report::{FileReport, Report};
use settings::Settings;
use std::process::ExitCode;
use std::sync::Mutex;

fn main() -> ExitCode {
    match suite() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Whether all passed but for the exceptions.
fn suite() -> Result<bool, String> {
    let settings = Settings::from_environment()?;
    let exceptions = lists::read(lists::EXCEPTIONS)?;
    let left_out = lists::read(lists::LEFT_OUT)?;
    let units = files::to_run(&settings, &left_out)?;
    let waiting = Mutex::new(units.into_iter());
    let done: Mutex<Vec<FileReport>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs {
            scope.spawn(|| {
                loop {
                    // A statement of its own: the lock must not be held while the file runs.
                    let unit = waiting.lock().expect("no job panics while it takes a file").next();
                    let Some(unit) = unit else { break };
                    let mut file = run::file(&settings, &unit, &left_out);
                    if settings.peer.is_none() {
                        file.mark_listed(&exceptions, settings.mode);
                    }
                    println!("{}", file.line());
                    done.lock().expect("no job panics while it adds a report").push(file);
                }
            });
        }
    });
    let mut files = done.into_inner().expect("the jobs have ended");
    files.sort_by(|left, right| left.file.cmp(&right.file));
    let report = Report { mode: settings.mode.name().to_owned(), server: settings.server_name(), files };
    report.write(&settings.directory)?;
    print!("{}", report.summary());
    for unused in report.unused(&exceptions, settings.mode, settings.peer.is_some()) {
        println!("warning: {} lists {unused}, which passed", lists::EXCEPTIONS);
    }
    Ok(report.is_clean())
}
