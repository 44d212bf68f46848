//! Whether a key costs the same however many there are, and whether growing ever makes a command wait.

use crate::bench::{Bench, Persist};
use crate::generator::Run;
use crate::load::{self, KEY_BYTES, VALUE_BYTES};
use crate::process::{FIRST, LAST, prefer, resident_bytes};
use crate::snapshots::{bgsave, restart};
use crate::table::{Row, Samples, Wide, digits, median};
use cairn_tests::random::Random;
use cairn_tests::resp::encode;
use cairn_tests::server::{Kind, Server};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

const GROUP: &str = "growth";
/// Short runs, but the least of a few: what else runs on the machine only ever adds.
const RUNS: usize = 3;
/// Commands sent together while the probe looks: so few that waiting behind them is no stall.
const SMALL_BATCH: usize = 16;
const COSTS: [&str; 5] = [
    "CPU per SET µs",
    "CPU per GET µs",
    "bytes beyond key and value",
    "snapshot µs a key",
    "restart from it µs a key",
];

/// What a key costs at one number of keys: CPU of a SET and of a GET, bytes, time of a snapshot and of a restart.
struct Cost {
    kind: Kind,
    keys: usize,
    figures: [f64; 5],
}

pub(crate) fn growth(bench: &mut Bench) {
    let most = bench.settings.growth;
    let ours = [300_000, 1_000_000, 3_000_000, 10_000_000].map(|keys| (Kind::Cairn, keys));
    let wanted = ours.into_iter().chain([1_000_000, 3_000_000].map(|keys| (Kind::Redis, keys)));
    let costs: Vec<Cost> =
        wanted.filter(|(_, keys)| *keys <= most).map(|(kind, keys)| cost(bench, kind, keys)).collect();
    let peer = bench.report.peer();
    let line = |cost: &Cost| {
        let server = if cost.kind == Kind::Cairn { "Cairn" } else { peer };
        let mut line = vec![format!("{server}, {:.1} M", cost.keys as f64 / 1e6)];
        line.extend(cost.figures.map(digits));
        line
    };
    let title =
        "The cost of a key at growing numbers of keys (pipeline 16, everysec; the least of a few runs)";
    let header = ["keys"].into_iter().chain(COSTS).map(str::to_owned).collect();
    let lines = costs.iter().map(line).collect();
    bench.report.tables.push(Wide { group: GROUP.to_owned(), title: title.to_owned(), header, lines });
    for (at, name) in COSTS.iter().enumerate() {
        let ours = || costs.iter().filter(|cost| cost.kind == Kind::Cairn);
        let Some(highest) = ours().max_by(|a, b| a.figures[at].total_cmp(&b.figures[at])) else { continue };
        let all: Vec<f64> = ours().map(|cost| cost.figures[at]).collect();
        let above = (highest.figures[at] / median(&all) - 1.0) * 100.0;
        let million = most as f64 / 1e6;
        let work =
            format!("growth to {million:.0} M keys, {name}: the highest above the median of the sizes");
        let note = format!("at {:.1} M keys", highest.keys as f64 / 1e6);
        bench.report.row(Row::new(GROUP, work, "%", Samples::ours([above])).note(note));
    }
    stalls(bench, most);
}

fn cost(bench: &Bench, kind: Kind, keys: usize) -> Cost {
    bench.remove(GROUP);
    let setup = bench.setup(kind, GROUP, Persist::EverySec);
    let server = setup.start();
    let mut client = server.connect();
    load::warm(&mut client);
    let empty = resident_bytes(server.pid());
    load::strings(&mut client, 0..keys, VALUE_BYTES, 1);
    let bytes = (resident_bytes(server.pid()) - empty) / keys as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
    let operations = bench.settings.operations / 3;
    let least = |test| {
        let run = Run { test, pipeline: 16, operations, keys };
        (0..RUNS).map(|_| run.against(&server).cpu_us).fold(f64::INFINITY, f64::min)
    };
    let (set_us, get_us) = (least("set"), least("get"));
    let per_key = 1e6 / keys as f64;
    let snapshot_us = (0..2).map(|_| bgsave(&server)).fold(f64::INFINITY, f64::min) * per_key;
    server.kill();
    // The peer would replay its append-only file first; a restart without one is to load what BGSAVE has left.
    let setup = if kind == Kind::Redis { setup.with("appendonly", "no") } else { setup };
    let started = || {
        let (server, seconds) = restart(&setup, keys);
        server.kill();
        seconds
    };
    let restart_us = (0..2).map(|_| started()).fold(f64::INFINITY, f64::min) * per_key;
    bench.remove(GROUP);
    let figures = [set_us, get_us, bytes, snapshot_us, restart_us];
    println!("   growth: {kind:?} {keys} keys: {figures:.2?} ({})", COSTS.join(", "));
    Cost { kind, keys, figures }
}

/// The key of a number.
type Name = fn(usize) -> String;

/// What a client that sends one command at a time met while others grew the keyspace.
struct Probe {
    longest_ms: f64,
    over_a_millisecond: usize,
    commands: usize,
}

fn stalls(bench: &mut Bench, most: usize) {
    let names: [(&str, Name); 2] =
        [("keys", load::key), ("keys of one hash tag", |number| format!("{{tag}}:{number:010}"))];
    let mut lines = Vec::new();
    for (what, name) in names {
        let setup = bench.setup(Kind::Cairn, GROUP, Persist::Nothing);
        let server = setup.start();
        let growing = probe(&server, most, name);
        // The same load once more changes no table: what it meets is the machine, not growth.
        let again = probe(&server, most / 3, name);
        server.kill();
        bench.remove(GROUP);
        for (phase, probe) in [("growing from 0", &growing), ("overwriting a third of them", &again)] {
            let line = [
                format!("{:.0} M {what}, {phase}", most as f64 / 1e6),
                digits(probe.longest_ms),
                probe.over_a_millisecond.to_string(),
                probe.commands.to_string(),
            ];
            println!("   growth: {}", line.join(" | "));
            lines.push(line.to_vec());
        }
        let work = format!("growing to {:.0} M {what}: longest single command", most as f64 / 1e6);
        let note = format!("without growth: {} ms", digits(again.longest_ms));
        bench.report.row(Row::new(GROUP, work, "ms", Samples::ours([growing.longest_ms])).note(note));
    }
    let header = ["load", "longest command ms", "commands over 1 ms", "commands"];
    bench.report.tables.push(Wide {
        group: GROUP.to_owned(),
        title: "Cairn: a client that sends one SET at a time while another loads".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        lines,
    });
}

/// SETs `count` keys over one connection, and times single SETs over another meanwhile.
fn probe(server: &Server, count: usize, name: Name) -> Probe {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            prefer(FIRST);
            let mut client = server.connect();
            let mut probe = Probe { longest_ms: 0.0, over_a_millisecond: 0, commands: 0 };
            while !done.load(Ordering::Acquire) {
                let key = name(count + probe.commands);
                let start = Instant::now();
                let reply = client.args(&["SET", &key, "x"]);
                let latency_ms = start.elapsed().as_secs_f64() * 1e3;
                assert!(!reply.is_error(), "{reply:?}");
                probe.longest_ms = probe.longest_ms.max(latency_ms);
                probe.over_a_millisecond += usize::from(latency_ms > 1.0);
                probe.commands += 1;
            }
            probe
        });
        let load = scope.spawn(|| {
            prefer(LAST);
            let (mut random, mut value) = (Random::new(8), [0; VALUE_BYTES]);
            load::pipelined(&mut server.connect(), 0..count, SMALL_BATCH, 1, |out, number| {
                load::hex(&mut random, &mut value);
                encode(out, &[b"SET", name(number).as_bytes(), &value]);
            });
        });
        let loaded = load.join();
        done.store(true, Ordering::Release);
        loaded.expect("the load ran to its end");
        watch.join().expect("the probe ran to its end")
    })
}
