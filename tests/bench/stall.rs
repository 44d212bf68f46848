//! What a snapshot does to the requests that come while it is taken, and how long a fork stands still.

use crate::bench::{Bench, Persist, info_number};
use crate::load::{self, VALUE_BYTES};
use crate::pace::{self, Pace, Request, under_load};
use crate::report::Series;
use crate::snapshots::bgsave;
use crate::table::{Row, Samples, Target, Wide, digits};
use cairn_tests::server::{Kind, Server};
use std::thread;
use std::time::{Duration, Instant};

const GROUP: &str = "stall";
/// The time each snapshot has, and the time without one before the first: equal for both servers, so that what follows a
/// snapshot counts as well as the snapshot itself, and counts can be compared.
const SLOT: f64 = 6.0;
/// Snapshots of each server; the figures are those of the third and later.
const SNAPSHOTS: usize = 4;
const SETTLED: usize = 2;
/// The first second of a load is warming up.
const WARM_UP: f64 = 1.0;
/// The length of a slice of time in the plot, in seconds.
const SLICE: f64 = 0.02;
const A_QUARTER: Target = Target::RatioAtMost(0.25);

/// One snapshot under load.
struct Taken {
    begin: f64,
    end: f64,
    fork_ms: f64,
    copied_mb: f64,
}

/// All of one server: its snapshots and every request.
struct Observed {
    taken: Vec<Taken>,
    requests: Vec<Request>,
}

impl Observed {
    fn slot(&self, number: usize) -> Vec<Request> {
        let begin = self.taken[number].begin;
        pace::between(&self.requests, begin, begin + SLOT)
    }

    fn while_it_ran(&self, number: usize) -> Vec<Request> {
        pace::between(&self.requests, self.taken[number].begin, self.taken[number].end)
    }

    fn idle(&self) -> Vec<Request> {
        pace::between(&self.requests, WARM_UP, WARM_UP + SLOT)
    }

    fn series(&self, kind: Kind, rate: usize) -> Series {
        let taken = &self.taken[SETTLED];
        let from = taken.begin - 1.0;
        let mut longest_ms = vec![0.0_f64; ((SLOT + 1.0) / SLICE) as usize];
        for request in pace::between(&self.requests, from, from + SLOT + 1.0) {
            let at = ((f64::from(request.due) - from) / SLICE) as usize;
            if let Some(slice) = longest_ms.get_mut(at) {
                *slice = slice.max(f64::from(request.latency_ms));
            }
        }
        let snapshot = (1.0, taken.end - from);
        Series { ours: kind == Kind::Cairn, rate, slice: SLICE, longest_ms, snapshot }
    }
}

pub(crate) fn stall(bench: &mut Bench) {
    let observed = [Kind::Redis, Kind::Cairn].map(|kind| (kind, observe(bench, kind)));
    let mut rows: [Samples; 7] = Default::default();
    for (kind, observed) in &observed {
        let idle_over = over_a_millisecond(&observed.idle());
        for number in SETTLED..SNAPSHOTS {
            let (slot, taken) = (observed.slot(number), &observed.taken[number]);
            let figures = [
                pace::percentile(&slot, 0.999),
                (over_a_millisecond(&slot) - idle_over).max(0.0),
                pace::longest(&slot),
                pace::percentile(&observed.while_it_ran(number), 0.999),
                taken.fork_ms,
                taken.copied_mb,
                taken.end - taken.begin,
            ];
            rows.iter_mut().zip(figures).for_each(|(samples, figure)| samples.add(*kind, figure));
        }
        bench.report.series.push(observed.series(*kind, bench.settings.rate));
    }
    let rate = bench.settings.rate / 1_000;
    let load = format!(
        "{rate} k/s of GET and SET, third snapshot and later of {:.1} M keys",
        bench.settings.stall_keys as f64 / 1e6
    );
    let idle = |kind| {
        let (_, observed) = observed.iter().find(|(found, _)| *found == kind).expect("both were observed");
        let idle = observed.idle();
        let (p999, longest) = (pace::percentile(&idle, 0.999), pace::longest(&idle));
        format!("{}, {} over 1 ms, longest {}", digits(p999), over_a_millisecond(&idle), digits(longest))
    };
    let note = format!("without a snapshot: p99.9 {} ms / {} ms", idle(Kind::Redis), idle(Kind::Cairn));
    let [p999, over, longest, running, fork, copied, time] = rows;
    let row = |name: &str, unit, samples| Row::new(GROUP, format!("{load}: {name}"), unit, samples);
    bench.report.row(row("p99.9", "ms", p999).target(A_QUARTER).note(note));
    bench
        .report
        .row(row("requests over 1 ms in 6 s, beyond those without a snapshot", "", over).target(A_QUARTER));
    bench.report.row(row("longest request", "ms", longest));
    bench.report.row(row("p99.9 from its begin to its end only", "ms", running));
    bench.report.row(row("fork", "ms", fork));
    bench.report.row(row("copied on write", "MB", copied));
    bench.report.row(row("time it took", "s", time));
}

fn over_a_millisecond(requests: &[Request]) -> f64 {
    requests.iter().filter(|request| request.latency_ms > 1.0).count() as f64
}

/// Loads a server and takes snapshots of it under a steady load.
fn observe(bench: &Bench, kind: Kind) -> Observed {
    let keys = bench.settings.stall_keys;
    let server = bench.setup(kind, GROUP, Persist::EverySec).start();
    load::standard(&server, keys);
    let pace = Pace { rate: bench.settings.rate, keys, value_bytes: VALUE_BYTES };
    let (taken, requests) = under_load(server.address(), pace, |start| {
        sleep_until(start, WARM_UP + SLOT + 1.0);
        (0..SNAPSHOTS).map(|_| take(&server, start)).collect()
    });
    server.kill();
    bench.remove(GROUP);
    Observed { taken, requests }
}

/// Takes a snapshot and lets its slot pass.
fn take(server: &Server, start: Instant) -> Taken {
    let begin = start.elapsed().as_secs_f64();
    let end = begin + bgsave(server);
    sleep_until(start, begin.max(end - SLOT) + SLOT + 0.5);
    let mut client = server.connect();
    Taken {
        begin,
        end,
        fork_ms: info_number(&mut client, "stats", "latest_fork_usec") / 1e3,
        copied_mb: info_number(&mut client, "persistence", "rdb_last_cow_size") / 1e6,
    }
}

fn sleep_until(start: Instant, seconds: f64) {
    thread::sleep((start + Duration::from_secs_f64(seconds)).saturating_duration_since(Instant::now()));
}

/// How long the fork of 1, 2 and 4 GB stands still, at the first and at the third snapshot, with writes between them.
pub(crate) fn forks(bench: &mut Bench) {
    let mut lines = Vec::new();
    for kind in [Kind::Redis, Kind::Cairn] {
        // The peer's snapshots of more take longer than all the rest of this group.
        let most = if kind == Kind::Redis { bench.settings.fork_gb.min(1) } else { bench.settings.fork_gb };
        lines.extend(forks_of(bench, kind, most));
    }
    let header = [
        "server",
        "data",
        "first fork ms",
        "third fork ms",
        "longest request around it, first ms",
        "third ms",
    ];
    bench.report.tables.push(Wide {
        group: "forks".to_owned(),
        title: "How long a fork stands still, under the same load".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        lines,
    });
}

fn forks_of(bench: &Bench, kind: Kind, most_gb: usize) -> Vec<Vec<String>> {
    /// With the key and what an entry costs about a kilobyte.
    const VALUE: usize = 960;
    const KEYS_PER_GB: usize = 1_000_000;
    let server = bench.setup(kind, "forks", Persist::Nothing).start();
    let (mut lines, mut loaded) = (Vec::new(), 0);
    for gb in [1, 2, 4].into_iter().filter(|gb| *gb <= most_gb) {
        load::strings(&mut server.connect(), loaded..gb * KEYS_PER_GB, VALUE, 7);
        loaded = gb * KEYS_PER_GB;
        let pace = Pace { rate: bench.settings.rate, keys: loaded, value_bytes: VALUE };
        let (taken, requests) = under_load(server.address(), pace, |start| three(&server, start));
        let around = |taken: &Taken| {
            digits(pace::longest(&pace::between(&requests, taken.begin - 0.05, taken.begin + 0.25)))
        };
        let name = if kind == Kind::Cairn { "Cairn" } else { bench.report.peer() };
        let line = [
            name.to_owned(),
            format!("{gb} GB"),
            digits(taken[0].fork_ms),
            digits(taken[2].fork_ms),
            around(&taken[0]),
            around(&taken[2]),
        ];
        println!("   forks: {}", line.join(" | "));
        lines.push(line.to_vec());
    }
    server.kill();
    bench.remove("forks");
    lines
}

/// Three snapshots, a second of writes before each.
fn three(server: &Server, start: Instant) -> [Taken; 3] {
    [(); 3].map(|()| {
        sleep_until(start, start.elapsed().as_secs_f64() + 1.0);
        let begin = start.elapsed().as_secs_f64();
        let end = begin + bgsave(server);
        let fork_ms = info_number(&mut server.connect(), "stats", "latest_fork_usec") / 1e3;
        Taken { begin, end, fork_ms, copied_mb: 0.0 }
    })
}
