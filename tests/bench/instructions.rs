//! Counts instructions per operation under callgrind and lays them beside the committed baseline; `make instructions` runs it.
//!
//! Unlike times they are nearly the same on every run, so a change that costs 5 % is seen on the noisiest machine.
//! Nothing fails because of a count: it is printed. `UPDATE=1` makes the counts of now the baseline.

use cairn_tests::programs::{self, Tool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Worse by more than this is marked.
const TOLERANCE: f64 = 0.05;
/// Every work is counted with both, and the difference is what so many more operations take.
const FEW: usize = 4_000;
const MANY: usize = 40_000;

/// `tests/bench/instructions.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Another compiler makes other code.
    rustc: String,
    /// Works and their instructions per operation.
    counts: BTreeMap<String, f64>,
}

struct Counter {
    example: PathBuf,
    home: tempfile::TempDir,
    next: usize,
}

impl Counter {
    /// Instructions of one call under callgrind, a forked child's included. A child's counter starts with what its parent had
    /// counted up to the fork; who forks has to know.
    fn count(&mut self, args: &[&str]) -> f64 {
        self.next += 1;
        let prefix = format!("callgrind-{}.", self.next);
        let output = self.home.path().join(format!("{prefix}%p"));
        let tool = Tool::new(programs::system("valgrind"))
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(&self.example);
        args.iter().fold(tool, |tool, arg| tool.arg(arg)).run().expect(0);
        let files = cairn_tests::files::named(self.home.path(), &prefix);
        assert!(!files.is_empty(), "callgrind wrote nothing for {args:?}");
        files.iter().map(|path| total(path)).sum()
    }

    /// Does work that is not counted.
    fn prepare(&self, args: &[&str]) {
        let tool = Tool::new(self.example.clone());
        args.iter().fold(tool, |tool, arg| tool.arg(arg)).run().expect(0);
    }

    /// A directory for a work and a count; empty at first.
    fn directory(&self, name: &str, count: usize) -> String {
        self.home.path().join(format!("{name}-{count}")).display().to_string()
    }

    /// GETs or SETs, by keys that are there.
    fn commands(&mut self, work: &str, count: usize) -> f64 {
        let directory = self.directory(work, count);
        self.count(&[work, &directory, &count.to_string()])
    }

    fn replay(&mut self, count: usize) -> f64 {
        let directory = self.directory("replay", count);
        self.prepare(&["fill", &directory, &count.to_string()]);
        self.count(&["open", &directory])
    }

    /// Loading a snapshot, and taking one.
    fn snapshot(&mut self, count: usize) -> (f64, f64) {
        let directory = self.directory("snapshot", count);
        self.prepare(&["fill-snapshot", &directory, &count.to_string()]);
        let load = self.count(&["open", &directory]);
        // Counted are the parent, which loads first, and the child, whose counter starts with that.
        let taken = self.count(&["snapshot", &directory]) - 2.0 * load;
        (load, taken)
    }
}

/// The number behind `totals:` in a file of callgrind's.
fn total(path: &Path) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals:"));
    totals
        .and_then(|words| words.trim().parse().ok())
        .unwrap_or_else(|| panic!("{} has no totals", path.display()))
}

fn measure(example: PathBuf) -> BTreeMap<String, f64> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut counter = Counter { example, home, next: 0 };
    let each = |few: f64, many: f64| ((many - few) / (MANY - FEW) as f64).round();
    let mut counts = BTreeMap::new();
    for (work, name) in [("get", "GET"), ("set", "SET, journaled and sealed")] {
        let few = counter.commands(work, FEW);
        let many = counter.commands(work, MANY);
        counts.insert(name.to_owned(), each(few, many));
    }
    let (few_load, few_taken) = counter.snapshot(FEW);
    let (many_load, many_taken) = counter.snapshot(MANY);
    counts.insert("load from a snapshot, a key".to_owned(), each(few_load, many_load));
    counts.insert("snapshot, a key".to_owned(), each(few_taken, many_taken));
    let (few, many) = (counter.replay(FEW), counter.replay(MANY));
    counts.insert("replay of a journal, an effect".to_owned(), each(few, many));
    counts
}

fn print(now: &Baseline, before: &Baseline) {
    println!("instructions per operation (callgrind):");
    println!("{:<34} {:>9} {:>9} {:>8}", "work", "now", "baseline", "change");
    for (work, count) in &now.counts {
        let Some(baseline) = before.counts.get(work) else {
            println!("{work:<34} {count:>9.0} {:>9}", "new");
            continue;
        };
        let change = count / baseline - 1.0;
        let mark = if change > TOLERANCE { "  <-- WORSE by over 5 %" } else { "" };
        println!("{work:<34} {count:>9.0} {baseline:>9.0} {:>+7.1} %{mark}", change * 100.0);
    }
    if now.rustc != before.rustc && !before.rustc.is_empty() {
        println!("(baseline by {}, now {}: part of a change may be the compiler's)", before.rustc, now.rustc);
    }
}

fn main() -> ExitCode {
    let Some(example) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("cairn-instructions EXAMPLE: call it by `make instructions`, which builds the example");
        return ExitCode::from(2);
    };
    let path = programs::repository().join("tests/bench/instructions.json");
    let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let rustc = Tool::new(programs::system("rustc")).arg("--version").run().stdout.trim().to_owned();
    let now = Baseline { rustc, counts: measure(example) };
    print(&now, &before);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&now).expect("counts are plain data") + "\n";
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("written: {}", path.display());
    }
    ExitCode::SUCCESS
}
