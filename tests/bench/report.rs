//! All figures of a run, on the terminal and in `target/bench/figures.json`.

use crate::table::{self, Row, Wide};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Where and with what it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// The peer's name and version.
    pub(crate) peer: String,
    pub(crate) cairn: String,
}

impl Machine {
    /// One line for a caption.
    pub(crate) fn caption(&self) -> String {
        let Self { cpu, cores, kernel, peer, cairn } = self;
        format!("{cores} cores of {cpu}, Linux {kernel}; {cairn}, encrypted, beside {peer}, in clear")
    }
}

/// Latencies over time of one server while a snapshot ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) ours: bool,
    /// Requests a second.
    pub(crate) rate: usize,
    /// The length of a slice of time, in seconds.
    pub(crate) slice: f64,
    /// The longest request that was due in each slice, in milliseconds.
    pub(crate) longest_ms: Vec<f64>,
    /// When the snapshot began and ended, in seconds.
    pub(crate) snapshot: (f64, f64),
}

/// All that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) tables: Vec<Wide>,
    pub(crate) series: Vec<Series>,
    /// Seconds each group took.
    pub(crate) seconds: Vec<(String, f64)>,
}

impl Report {
    pub(crate) fn row(&mut self, row: Row) {
        let ratio = row.ratio.map_or_else(|| "–".to_owned(), |ratio| table::digits(ratio.median));
        println!(
            "   {}: {:.3?} / {:.3?} {} → {ratio} {}",
            row.work, row.samples.theirs, row.samples.ours, row.unit, row.note
        );
        self.rows.push(row);
    }

    /// The name of the peer without its version.
    pub(crate) fn peer(&self) -> &str {
        self.machine.peer.split_whitespace().next().unwrap_or("peer")
    }

    pub(crate) fn print(&self) {
        let peer = self.peer();
        println!("\n{}\n", self.machine.caption());
        println!("16-byte keys, 100-byte values, 50 connections; medians, ratios of rounds side by side.\n");
        println!("{}", table::markdown(self.rows.iter().filter(|row| row.target.is_some()), peer));
        println!("\nBeside the targets:\n");
        println!("{}", table::markdown(self.rows.iter().filter(|row| row.target.is_none()), peer));
        for table in &self.tables {
            println!("\n{}", table.markdown());
        }
        let total: f64 = self.seconds.iter().map(|(_, seconds)| seconds).sum();
        let each: Vec<String> =
            self.seconds.iter().map(|(group, seconds)| format!("{group} {seconds:.0}")).collect();
        println!("\nmeasured in {total:.0} s: {}", each.join(", "));
    }

    /// With the figures that an earlier run left of the groups that did not run now, so that a part can be measured again;
    /// all in the order of `groups`.
    pub(crate) fn with_others(&self, before: &Report, ran: &[&str], groups: &[&str]) -> Self {
        let mut all = self.clone();
        let other = |group: &str| !ran.contains(&group);
        all.rows.extend(before.rows.iter().filter(|row| other(&row.group)).cloned());
        all.tables.extend(before.tables.iter().filter(|table| other(&table.group)).cloned());
        all.seconds.extend(before.seconds.iter().filter(|(group, _)| other(group)).cloned());
        if other("stall") {
            all.series.extend(before.series.iter().cloned());
        }
        let place = |group: &str| groups.iter().position(|name| *name == group);
        all.rows.sort_by_key(|row| place(&row.group));
        all.tables.sort_by_key(|table| place(&table.group));
        all.seconds.sort_by_key(|(group, _)| place(group));
        all
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(crate) fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).expect("figures are plain data");
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// `target/bench`, where results go and servers have their directories: a disk that a journal would lie on, which the
/// system's temporary directory may not be.
pub(crate) fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || cairn_tests::programs::repository().join("target"),
        |target| cairn_tests::programs::repository().join(target),
    );
    let directory = target.join("bench");
    fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    directory
}
