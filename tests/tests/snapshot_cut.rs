//! Point 3: a snapshot taken under load is exactly one cut through the order of commits.

use cairn_tests::counts;
use cairn_tests::files;
use cairn_tests::programs::{self, Tool};
use cairn_tests::random::{self, Random};
use cairn_tests::server::{Server, Setup};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const PAIRS: u64 = 64;
const RUNGS: u64 = 16;

/// Four kinds of load, each with its own sign of a torn cut.
fn load(server: &Server, seed: u64, stop: &AtomicBool, steps: &AtomicU64) {
    let url = format!("redis://{}/", server.address());
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let url = url.clone();
            scope.spawn(move || {
                let client = redis::Client::open(url).expect("a URL");
                let mut connection = client.get_connection().expect("the server listens");
                let mut random = Random::new(seed + worker);
                let mut step: u64 = 0;
                while !stop.load(Ordering::Relaxed) {
                    step += 1;
                    steps.fetch_add(1, Ordering::Relaxed);
                    let pair = random.next_u64() % PAIRS;
                    let result: redis::RedisResult<()> = match worker {
                        // Two counters moved in one MULTI.
                        0 | 1 => redis::pipe()
                            .atomic()
                            .cmd("INCR")
                            .arg(format!("multi:left:{pair}"))
                            .ignore()
                            .cmd("INCR")
                            .arg(format!("multi:right:{pair}"))
                            .ignore()
                            .query(&mut connection),
                        // Two keys written by one MSET.
                        2 => redis::cmd("MSET")
                            .arg(format!("mset:left:{pair}"))
                            .arg(step)
                            .arg(format!("mset:right:{pair}"))
                            .arg(step)
                            .query(&mut connection),
                        // One rung after the other: each is acknowledged before the next is written.
                        _ => redis::cmd("SET")
                            .arg(format!("rung:{}", step % RUNGS))
                            .arg(step)
                            .query(&mut connection),
                    };
                    result.expect("the load is served");
                }
            });
        }
    });
}

fn number(server: &Server, key: &str) -> u64 {
    let value = server.connect().args(&["GET", key]);
    if value == cairn_tests::resp::Value::Null { 0 } else { value.text().parse().expect("a number") }
}

/// No pair is torn, and the ladder is a prefix of what was written.
fn judge(server: &Server, cut: usize) {
    for pair in 0..PAIRS {
        for kind in ["multi", "mset"] {
            let (left, right) = (
                number(server, &format!("{kind}:left:{pair}")),
                number(server, &format!("{kind}:right:{pair}")),
            );
            assert_eq!(left, right, "cut {cut}: {kind} pair {pair} is torn");
        }
    }
    let rungs: Vec<u64> = (0..RUNGS).map(|rung| number(server, &format!("rung:{rung}"))).collect();
    let newest = *rungs.iter().max().expect("there are rungs");
    for (rung, value) in rungs.iter().enumerate() {
        let expected = (newest.saturating_sub(RUNGS - 1)..=newest)
            .rev()
            .find(|step| step % RUNGS == rung as u64 && *step > 0);
        assert_eq!(
            *value,
            expected.unwrap_or(0),
            "cut {cut}: rung {rung} does not belong to the cut at {newest}: {rungs:?}"
        );
    }
}

fn restore(snapshot: &Path, keyring: &Path, to: &Path) -> Setup {
    Tool::restore()
        .option("--from", snapshot)
        .option("--dir", to)
        .option("--encryption-key-file", keyring)
        .run()
        .expect(0);
    Setup::cairn(to).journal("always").key(keyring)
}

#[test]
fn a_snapshot_under_load_is_one_cut() {
    let seed = random::seed("a_snapshot_under_load_is_one_cut");
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let data = home.path().join("data");
    let server = Setup::cairn(&data).journal("everysec").key(&keyring).start();
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let kept = home.path().join("kept");
    std::fs::create_dir(&kept).expect("a directory can be made");
    let cuts = counts::of(4, 40);
    thread::scope(|scope| {
        scope.spawn(|| load(&server, seed, &stop, &steps));
        // The load ends with this guard, whatever fails in between.
        let guard = Stop(&stop);
        for cut in 0..cuts {
            let mark = steps.load(Ordering::Relaxed) + 500;
            while steps.load(Ordering::Relaxed) < mark {
                thread::yield_now();
            }
            server.bgsave();
            let newest = files::named(&data, "snapshot-").pop().expect("BGSAVE leaves a snapshot");
            std::fs::copy(newest, kept.join(format!("{cut}.cairn"))).expect("a snapshot can be copied");
        }
        drop(guard);
    });
    for cut in 0..cuts {
        let restored = home.path().join(format!("restored-{cut}"));
        let server = restore(&kept.join(format!("{cut}.cairn")), &keyring, &restored).start();
        judge(&server, cut);
        server.stop();
    }
    // The journal after the last cut leads on to the end.
    server.kill();
    let server = Setup::cairn(&data).journal("everysec").key(&keyring).start();
    judge(&server, cuts);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
