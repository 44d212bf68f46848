//! What was counted: a line for each file, a list of failures, and the same as JSON.

use crate::lists::Row;
use crate::settings::Mode;
use crate::transcript::Event;
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Stands for a test's name where the file itself failed.
const FILE_ITSELF: &str = "(the file)";

/// A test that failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) test: String,
    pub(crate) why: String,
    /// Whether it is a known exception.
    pub(crate) listed: bool,
}

/// One file's results.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct FileReport {
    pub(crate) file: String,
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<Failure>,
    pub(crate) skipped: Vec<String>,
    pub(crate) seconds: u64,
}

impl FileReport {
    /// Counts the events of a run.
    pub(crate) fn take(&mut self, events: Vec<Event>) {
        let mut fail = |test: String, why: String| self.failed.push(Failure { test, why, listed: false });
        for event in events {
            match event {
                Event::Passed(test) => self.passed.push(test),
                Event::Skipped(test) => self.skipped.push(test),
                Event::Failed { test, why } => fail(test, why),
                Event::Broken(why) => fail(FILE_ITSELF.to_owned(), why),
                Event::Hung(test) => {
                    let test = test.unwrap_or_else(|| FILE_ITSELF.to_owned());
                    fail(test, "it hangs, and so many hung before it that the rest was not run".to_owned());
                }
                Event::Done => {}
            }
        }
    }

    /// Marks the failures that are known.
    pub(crate) fn mark_listed(&mut self, exceptions: &[Row], mode: Mode) {
        for failure in &mut self.failed {
            failure.listed = exceptions
                .iter()
                .any(|row| row.is_for(mode) && row.file == self.file && row.test == failure.test);
        }
    }

    /// One line of the table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:<32} {:>5} passed {:>4} failed {:>4} skipped {:>5} s",
            self.file,
            self.passed.len(),
            self.failed.len(),
            self.skipped.len(),
            self.seconds
        )
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: String,
    pub(crate) server: String,
    pub(crate) files: Vec<FileReport>,
}

impl Report {
    /// Writes it as JSON: `results.json`, beside the logs. Files of an earlier run that this one did not run stay in it.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), String> {
        let path = directory.join("results.json");
        let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut all = serde_json::to_value(self).map_err(|error| fault(&error))?;
        let before = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let (Some(serde_json::Value::Object(before)), Some(files)) = (before, all["files"].as_array_mut())
        {
            let earlier = before.get("files").and_then(serde_json::Value::as_array).into_iter().flatten();
            let kept: Vec<_> = earlier
                .filter(|file| self.files.iter().all(|own| file["file"] != own.file))
                .cloned()
                .collect();
            files.extend(kept);
            files.sort_by_key(|file| file["file"].to_string());
        }
        let text = serde_json::to_string_pretty(&all).map_err(|error| fault(&error))?;
        fs::create_dir_all(directory).and_then(|()| fs::write(&path, text)).map_err(|error| fault(&error))
    }

    /// The failures by name, then the counts.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            for failure in &file.failed {
                let known = if failure.listed { "known exception" } else { "failed" };
                let why = failure.why.lines().next().unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{known}: {}: {}: {why:.200}", file.file, failure.test);
            }
        }
        let count = |of: fn(&FileReport) -> usize| self.files.iter().map(of).sum::<usize>();
        let _ = writeln!(
            text,
            "redis suite, {} mode, {}: {} passed, {} failed ({} of them known), {} skipped in {} files",
            self.mode,
            self.server,
            count(|file| file.passed.len()),
            count(|file| file.failed.len()),
            count(|file| file.failed.iter().filter(|failure| failure.listed).count()),
            count(|file| file.skipped.len()),
            self.files.len()
        );
        text
    }

    /// Exceptions whose test passed: they should leave the list.
    pub(crate) fn unused(&self, exceptions: &[Row], mode: Mode, is_peer: bool) -> Vec<String> {
        let passed = |row: &&Row| {
            let file = self.files.iter().find(|file| file.file == row.file);
            file.is_some_and(|file| file.passed.contains(&row.test))
        };
        let mine = |row: &&Row| !is_peer && row.is_for(mode);
        exceptions
            .iter()
            .filter(mine)
            .filter(passed)
            .map(|row| format!("{}: {}", row.file, row.test))
            .collect()
    }

    /// Whether nothing failed but what is known.
    pub(crate) fn is_clean(&self) -> bool {
        self.files.iter().flat_map(|file| &file.failed).all(|failure| failure.listed)
    }
}
