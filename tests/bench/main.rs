//! Figures of Cairn beside redis-server's, from one run on one machine; `make bench` runs it.
//!
//! Machines are noisy, so only the ratios within one run count, and CPU per operation is the steadiest figure. Nothing
//! here judges: a figure is printed and never fails.

use cairn_tests::programs::{self, Tool};
use cairn_tests::random::Random;
use cairn_tests::resp::{Client, Value, encode};
use cairn_tests::server::{Kind, Server, Setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Linux counts CPU time for user space in hundredths of a second on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;
const VALUE_BYTES: usize = 100;
const CLIENTS: &str = "50";

/// One line of the table.
struct Row {
    work: String,
    redis: f64,
    cairn: f64,
    unit: &'static str,
}

struct Bench {
    home: tempfile::TempDir,
    keyring: PathBuf,
    keys: usize,
    operations: usize,
    rounds: usize,
    rows: Vec<Row>,
}

fn setting(name: &str, otherwise: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => otherwise,
    }
}

fn main() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let mut bench = Bench {
        home,
        keyring,
        keys: setting("CAIRN_BENCH_KEYS", 1_000_000),
        operations: setting("CAIRN_BENCH_OPERATIONS", 1_000_000),
        rounds: setting("CAIRN_BENCH_ROUNDS", 3).max(1),
        rows: Vec::new(),
    };
    machine();
    bench.dataset();
    bench.commands("everysec");
    bench.commands("always");
    bench.print();
}

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let redis = Tool::new(programs::system("redis-server")).arg("--version").run().stdout;
    println!("{cores} cores{model}\n{}", redis.trim());
}

/// CPU seconds of a process and of its children that have ended.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the numbers follow it. utime is the 12th of them.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        numbers.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

fn resident_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// `count` keys of 16 bytes with random hexadecimal values, in pipelines.
fn load(server: &Server, count: usize) {
    let mut client = server.connect();
    let mut random = Random::new(1);
    let mut sent = 0;
    while sent < count {
        let batch = (count - sent).min(1_000);
        let mut bytes = Vec::with_capacity(batch * 160);
        for n in sent..sent + batch {
            let key = format!("key:{n:012}");
            encode(&mut bytes, &[b"SET", key.as_bytes(), &random.hex(VALUE_BYTES)]);
        }
        client.send(&bytes).expect("the load is taken");
        for _ in 0..batch {
            let reply = client.reply().expect("a reply");
            assert_eq!(reply, Value::ok());
        }
        sent += batch;
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn bytes_in(directory: &Path, prefix: &str) -> f64 {
    let files = cairn_tests::files::named(directory, prefix);
    files.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len() as f64).sum()
}

impl Bench {
    fn row(&mut self, work: impl Into<String>, redis: f64, cairn: f64, unit: &'static str) {
        let row = Row { work: work.into(), redis, cairn, unit };
        println!("{}: {:.2} / {:.2} {unit}", row.work, row.redis, row.cairn);
        self.rows.push(row);
    }

    fn setup(&self, kind: Kind, name: &str) -> Setup {
        match kind {
            Kind::Cairn => Setup::cairn(&self.home.path().join(format!("cairn-{name}"))).key(&self.keyring),
            Kind::Redis => Setup::redis(&self.home.path().join(format!("redis-{name}"))),
        }
    }

    /// A dataset is loaded, saved, loaded again by a restart, and restored from a copy elsewhere.
    fn dataset(&mut self) {
        let keys = self.keys;
        let figures = [Kind::Redis, Kind::Cairn].map(|kind| self.dataset_of(kind));
        let names: [(&str, &'static str); 7] = [
            ("load in pipelines of 1,000", "s"),
            ("memory per key beyond key and value", "B"),
            ("BGSAVE", "s"),
            ("size of the snapshot", "MB"),
            ("restart from the snapshot", "s"),
            ("back up (Redis: copy of dump.rdb)", "s"),
            ("restore and start (Redis: copy and start)", "s"),
        ];
        for (at, (name, unit)) in names.into_iter().enumerate() {
            self.row(format!("{keys} keys: {name}"), figures[0][at], figures[1][at], unit);
        }
    }

    fn dataset_of(&self, kind: Kind) -> [f64; 7] {
        let setup = match kind {
            Kind::Cairn => self.setup(kind, "dataset").journal("everysec"),
            Kind::Redis => self.setup(kind, "dataset").with("appendonly", "no"),
        };
        let mut server = setup.start();
        let empty = resident_bytes(server.pid());
        let loading = seconds(|| load(&server, self.keys));
        let payload = (16 + VALUE_BYTES) as f64;
        let overhead = (resident_bytes(server.pid()) - empty) / self.keys as f64 - payload;
        let mut saves = Vec::new();
        for _ in 0..self.rounds {
            saves.push(seconds(|| server.bgsave()));
        }
        let size = match kind {
            Kind::Cairn => cairn_tests::files::named(setup.dir(), "snapshot-")
                .last()
                .map_or(0.0, |path| fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64)),
            Kind::Redis => bytes_in(setup.dir(), "dump.rdb"),
        };
        let mut restarts = Vec::new();
        for _ in 0..self.rounds {
            server.kill();
            let start = Instant::now();
            server = setup.start();
            restarts.push(start.elapsed().as_secs_f64());
            assert_eq!(server.connect().ask("DBSIZE").integer(), self.keys as i64, "{kind:?} lost keys");
        }
        let (backing_up, restoring) = match kind {
            Kind::Cairn => self.back_up_and_restore(&setup, server),
            Kind::Redis => self.copy_and_start(&setup, server),
        };
        [loading, overhead, median(saves), size / 1e6, median(restarts), backing_up, restoring]
    }

    fn back_up_and_restore(&self, setup: &Setup, server: Server) -> (f64, f64) {
        let url = format!("file://{}", self.home.path().join("repository").display());
        let create = Tool::backup().option("--repo", &url).arg("create").option("--dir", setup.dir());
        let create = create
            .option("--server", server.address().to_string())
            .option("--encryption-key-file", &self.keyring);
        let backing_up = seconds(|| {
            create.run().expect(0);
        });
        server.kill();
        let target = self.setup(Kind::Cairn, "restored").journal("everysec");
        let restore = Tool::restore().option("--repo", &url).option("--dir", target.dir());
        let restore = restore.option("--encryption-key-file", &self.keyring);
        let restoring = seconds(|| {
            restore.run().expect(0);
            let server = target.start();
            assert_eq!(server.connect().ask("DBSIZE").integer(), self.keys as i64, "the restore lost keys");
        });
        (backing_up, restoring)
    }

    fn copy_and_start(&self, setup: &Setup, server: Server) -> (f64, f64) {
        server.kill();
        let copy = self.home.path().join("dump.rdb");
        let backing_up = seconds(|| {
            fs::copy(setup.dir().join("dump.rdb"), &copy).expect("a copy");
        });
        let target = self.setup(Kind::Redis, "restored").with("appendonly", "no");
        let restoring = seconds(|| {
            fs::create_dir_all(target.dir()).expect("a directory");
            fs::copy(&copy, target.dir().join("dump.rdb")).expect("a copy");
            target.start();
        });
        (backing_up, restoring)
    }

    /// SET and GET by redis-benchmark: CPU of the server per operation, and throughput.
    fn commands(&mut self, fsync: &str) {
        let servers = [Kind::Redis, Kind::Cairn].map(|kind| self.setup(kind, fsync).journal(fsync).start());
        let works: &[(&str, &str)] = if fsync == "always" {
            &[("set", "1"), ("set", "16")]
        } else {
            &[("set", "16"), ("get", "16"), ("set", "1"), ("get", "1")]
        };
        for (command, pipeline) in works {
            let operations = if *pipeline == "1" { self.operations / 2 } else { self.operations };
            let mut figures = [const { (Vec::new(), Vec::new()) }; 2];
            // By turns, so that a slow minute of the machine meets both.
            for _ in 0..self.rounds {
                for (server, (cpu, rate)) in servers.iter().zip(&mut figures) {
                    let (one_cpu, one_rate) = measure(server, command, pipeline, operations);
                    cpu.push(one_cpu);
                    rate.push(one_rate);
                }
            }
            let [(redis_cpu, redis_rate), (cairn_cpu, cairn_rate)] = figures;
            let work = format!("{fsync}: {} pipeline {pipeline}", command.to_uppercase());
            self.row(format!("{work}, server CPU per operation"), median(redis_cpu), median(cairn_cpu), "µs");
            self.row(format!("{work}, throughput"), median(redis_rate), median(cairn_rate), "k/s");
        }
        for server in servers {
            server.stop();
        }
    }

    fn print(&self) {
        println!(
            "\n16-byte keys, {VALUE_BYTES}-byte random hexadecimal values, {CLIENTS} connections; Cairn encrypts, Redis does not.\n"
        );
        println!("| work | redis-server | Cairn | unit | Cairn ÷ Redis |\n|---|---:|---:|---|---:|");
        for row in &self.rows {
            println!(
                "| {} | {:.2} | {:.2} | {} | {:.2} |",
                row.work,
                row.redis,
                row.cairn,
                row.unit,
                row.cairn / row.redis
            );
        }
    }
}

/// Microseconds of server CPU per operation, and thousands of operations per second.
fn measure(server: &Server, command: &str, pipeline: &str, operations: usize) -> (f64, f64) {
    let before = cpu_seconds(server.pid());
    let start = Instant::now();
    let output = Command::new(programs::system("redis-benchmark"))
        .args(["-p", &server.address().port().to_string(), "-c", CLIENTS, "-P", pipeline, "-t", command])
        .args(["-d", &VALUE_BYTES.to_string(), "-r", "1000000", "-n", &operations.to_string(), "--csv"])
        .output()
        .expect("redis-benchmark starts");
    let elapsed = start.elapsed();
    assert!(output.status.success(), "redis-benchmark: {}", String::from_utf8_lossy(&output.stderr));
    settle(server);
    let cpu = cpu_seconds(server.pid()) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate =
        text.lines().last().and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse::<f64>().ok());
    let rate = rate.unwrap_or(operations as f64 / elapsed.as_secs_f64());
    (cpu * 1e6 / operations as f64, rate / 1e3)
}

/// What was written last may still be on its way to the disk; that work belongs to the operations measured.
fn settle(server: &Server) {
    let quiet = || -> Option<()> {
        let before = cpu_seconds(server.pid());
        std::thread::sleep(Duration::from_millis(200));
        (cpu_seconds(server.pid()) - before < 0.02).then_some(())
    };
    let _ = cairn_tests::process::await_some(Duration::from_secs(5), quiet);
    let _ = Client::connect(server.address()).and_then(|mut client| client.call(&["PING"]));
}
