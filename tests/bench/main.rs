//! Figures of Cairn beside those of redis-server or of another peer, from one run on one machine; `make bench` runs it.
//!
//! Machines are noisy, so only the ratios within one run count, and CPU per operation is the steadiest figure. Nothing
//! here judges: a figure is printed and never fails, and a group that cannot run says so in its row.

mod bench;
mod commands;
mod generator;
mod growth;
mod load;
mod memory;
mod pace;
mod plot;
mod process;
mod report;
mod settings;
mod snapshots;
mod stall;
mod table;
mod transfer;

use bench::Bench;
use cairn_tests::programs::{self, Tool};
use report::{Machine, Report};
use settings::Settings;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use table::{Row, Samples};

/// Measures one group and puts its figures into the report.
type Group = fn(&mut Bench);

/// The groups in the order they run.
const GROUPS: &[(&str, Group)] = &[
    ("commands", commands::targets),
    ("memory", memory::memory),
    ("snapshot", snapshots::snapshot),
    ("replay", snapshots::replay),
    ("stall", stall::stall),
    ("backup", transfer::backup),
    ("growth", growth::growth),
    ("forks", stall::forks),
    ("product", commands::product),
];

fn main() {
    let settings = Settings::from_environment();
    let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = settings.unknown(&known) {
        eprintln!("CAIRN_BENCH_ONLY: there is no group {unknown:?}; there are {}", known.join(", "));
        std::process::exit(2);
    }
    let file = report::directory().join("figures.json");
    let report = Report { machine: machine(), ..Report::default() };
    println!("{}", report.machine.caption());
    let before = Report::read(&file).unwrap_or_default();
    let mut bench = Bench::new(settings, report);
    let mut ran = Vec::new();
    let mut all = before.clone();
    for (name, group) in GROUPS {
        if bench.settings.wants(name) {
            run(&mut bench, name, *group);
            ran.push(*name);
            // Written after each group, so that a run that is ended early keeps what it has.
            all = bench.report.with_others(&before, &ran, &known);
            all.write(&file);
        }
    }
    bench.report.print();
    println!("\nwritten: {}", file.display());
    plots(&all);
}

/// Draws what there are figures for beside this file, where the README shows it.
fn plots(report: &Report) {
    let drawings = [("ratios.svg", plot::ratios(report)), ("latency.svg", plot::latency(report))];
    for (name, drawing) in drawings {
        let path = programs::repository().join("tests/bench").join(name);
        if let Some(text) = drawing {
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            println!("written: {}", path.display());
        }
    }
}

/// Runs a group; what stops it is told in a row instead of stopping the others.
fn run(bench: &mut Bench, name: &str, group: Group) {
    println!("== {name}");
    let start = Instant::now();
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| group(bench))) {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        let first = text.lines().next().unwrap_or_default();
        let row =
            Row::new(name, name, "", Samples::default()).note(format!("could not be measured: {first}"));
        bench.report.row(row);
    }
    bench.report.seconds.push((name.to_owned(), start.elapsed().as_secs_f64()));
}

fn machine() -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": an unknown CPU");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        cpu: model.trim_start_matches(['\t', ' ', ':']).trim().to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: kernel.trim().to_owned(),
        peer: peer_version(),
        cairn: Tool::new(programs::cairn("cairn-server")).arg("--version").run().stdout.trim().to_owned(),
    }
}

/// `Redis 7.0.15` from `Redis server v=7.0.15 sha=…`; the name is that of the product, whatever the file is called.
fn peer_version() -> String {
    let text = Tool::new(programs::peer()).arg("--version").run().stdout;
    let name = text.split_whitespace().next().unwrap_or("peer");
    let version =
        text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("of unknown version");
    format!("{name} {version}")
}
