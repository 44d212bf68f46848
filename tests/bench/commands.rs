//! CPU per operation, throughput and latency of single commands.

use crate::bench::{Bench, Persist, order};
use crate::generator::{Measured, Run};
use crate::load;
use crate::table::{Row, Samples, Target, Wide, digits, median};
use cairn_tests::server::{Kind, Server};

const GROUP: &str = "commands";
const PRODUCT: &str = "product";
/// Keys that redis-benchmark draws from; all of them are there before.
const KEYS: usize = 1_000_000;
/// A run without pipelining costs about five times the CPU per operation.
const UNPIPELINED_SHARE: usize = 6;

/// The rows that have a target: several rounds, each with about a second of CPU time, so that a tick of 10 ms is nothing.
pub(crate) fn targets(bench: &mut Bench) {
    let [everysec, always] = [Persist::EverySec, Persist::Always].map(|persist| {
        let name = format!("targets-{}", persist.name());
        let servers = [Kind::Redis, Kind::Cairn].map(|kind| bench.setup(kind, &name, persist).start());
        servers.iter().for_each(|server| load::standard(server, KEYS));
        servers
    });
    let at_most = |ratio| Some(Target::RatioAtMost(ratio));
    let at_least = |ratio| Some(Target::RatioAtLeast(ratio));
    for (test, pipeline, cpu) in [("set", 16, 0.6), ("get", 16, 0.6), ("set", 1, 0.9), ("get", 1, 0.9)] {
        let run = bench.run(test, pipeline);
        bench.rows(&everysec, "everysec", run, at_most(cpu), None, String::new());
    }
    for (pipeline, cpu, rate) in [(1, 0.8, 1.3), (16, 0.5, 2.0)] {
        // What the generator can do at most on this machine: a command that costs the server nearly nothing.
        let ceiling = bench.run("ping_mbulk", pipeline).against(&everysec[0]).rate;
        let note = format!("the generator's own ceiling: {} k/s (PING)", digits(ceiling));
        let run = bench.run("set", pipeline);
        bench.rows(&always, "always", run, at_most(cpu), at_least(rate), note);
    }
    for server in everysec.into_iter().chain(always) {
        server.kill();
    }
    bench.remove("targets-everysec");
    bench.remove("targets-always");
}

impl Bench {
    fn run(&self, test: &'static str, pipeline: usize) -> Run {
        let operations = match pipeline {
            1 => self.settings.operations / UNPIPELINED_SHARE,
            _ => self.settings.operations,
        };
        Run { test, pipeline, operations, keys: KEYS }
    }

    fn rows(
        &mut self,
        servers: &[Server; 2],
        persist: &str,
        run: Run,
        cpu_target: Option<Target>,
        rate_target: Option<Target>,
        ceiling: String,
    ) {
        let (mut cpu, mut rate) = (Samples::default(), Samples::default());
        for round in 0..self.settings.rounds {
            for kind in order(round) {
                let server = servers.iter().find(|server| server.kind() == kind).expect("both run");
                let measured = run.against(server);
                cpu.add(kind, measured.cpu_us);
                rate.add(kind, measured.rate);
            }
        }
        let work = match run.pipeline {
            1 => format!("{} {persist}, no pipeline", run.test.to_uppercase()),
            depth => format!("{} {persist}, pipeline {depth}", run.test.to_uppercase()),
        };
        let with = |row: Row, target| Row { target, ..row };
        let row = Row::new(GROUP, format!("{work}: server CPU per operation"), "µs", cpu);
        self.report.row(with(row, cpu_target));
        let row = Row::new(GROUP, format!("{work}: throughput"), "k/s", rate).note(ceiling);
        self.report.row(with(row, rate_target));
    }
}

/// Of the table of [`product`]; the name of the peer takes the place of `peer`.
const HEADER: [&str; 14] = [
    "command",
    "journal",
    "pipeline",
    "CPU µs: peer",
    "1 thread",
    "2 threads",
    "÷ 1",
    "÷ 2",
    "k/s: peer",
    "1 thread",
    "2 threads",
    "p50/p99/p99.9 ms: peer",
    "1 thread",
    "2 threads",
];

/// Every command at every depth and persistence, with one and with two server threads: one short round each.
pub(crate) fn product(bench: &mut Bench) {
    let mut lines = Vec::new();
    for persist in Persist::ALL {
        let name = format!("product-{}", persist.name());
        let setups = [
            bench.setup(Kind::Redis, &name, persist),
            bench.setup(Kind::Cairn, &name, persist).with("server-threads", "1"),
            bench.setup(Kind::Cairn, &format!("{name}-2"), persist).with("server-threads", "2"),
        ];
        let servers = setups.each_ref().map(|setup| setup.start());
        servers.iter().for_each(|server| load::standard(server, KEYS));
        for test in ["set", "get", "incr", "lpush", "hset", "zadd"] {
            for pipeline in [1, 16, 64] {
                let run = bench.short_run(test, pipeline);
                // By turns here too, so that no server always goes first.
                let first = lines.len() % servers.len();
                let mut measured = [None; 3];
                for step in 0..servers.len() {
                    let at = (first + step) % servers.len();
                    measured[at] = Some(run.against(&servers[at]));
                }
                let measured = measured.map(|figures| figures.expect("all three ran"));
                lines.push(bench.product_line(persist, run, measured));
            }
        }
        servers.into_iter().for_each(Server::kill);
        bench.remove(&name);
        bench.remove(&format!("{name}-2"));
    }
    let peer = bench.report.peer().to_owned();
    bench.report.tables.push(Wide {
        group: PRODUCT.to_owned(),
        title: format!(
            "Single commands: {peer}, Cairn with one and with two server threads; one short round"
        ),
        header: HEADER.iter().map(|text| text.replace("peer", &peer)).collect(),
        lines,
    });
}

impl Bench {
    fn short_run(&self, test: &'static str, pipeline: usize) -> Run {
        // About half a second of CPU time each.
        let operations = match pipeline {
            1 => self.settings.operations / 25,
            16 => self.settings.operations / 4,
            _ => self.settings.operations * 2 / 5,
        };
        Run { test, pipeline, operations: operations.max(1_000), keys: KEYS }
    }

    fn product_line(&mut self, persist: Persist, run: Run, measured: [Measured; 3]) -> Vec<String> {
        let name = format!("{} {} pipeline {}", run.test.to_uppercase(), persist.name(), run.pipeline);
        println!(
            "   {name}: {}",
            measured.map(|m| format!("{:.2} µs {:.0} k/s", m.cpu_us, m.rate)).join(" / ")
        );
        let [peer, one, two] = measured;
        let mut line = vec![run.test.to_uppercase(), persist.name().to_owned(), run.pipeline.to_string()];
        line.extend(measured.map(|m| digits(m.cpu_us)));
        line.extend([one, two].map(|m| digits(m.cpu_us / median(&[peer.cpu_us]).max(1e-9))));
        line.extend(measured.map(|m| digits(m.rate)));
        line.extend(
            measured.map(|m| format!("{}/{}/{}", digits(m.p50_ms), digits(m.p99_ms), digits(m.p999_ms))),
        );
        line
    }
}
