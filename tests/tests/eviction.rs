//! Under `maxmemory` the keys that matter stay: hit rates beside redis-server's on the same trace, and the limit kept.

use cairn_tests::counts;
use cairn_tests::random::{self, Random};
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};

/// Bytes of a value: so many that what a key costs beyond it matters little, as it differs between the servers.
const VALUE: usize = 1_000;
/// How many of all keys find room.
const RESIDENT: usize = 2_000;
const KEYS: usize = 10_000;

/// Numbers below `KEYS`, small ones more often: the n-th in proportion to 1/n.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        Self(
            (1..=KEYS)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> usize {
        let total = self.0.last().copied().expect("there are keys");
        let drawn = random.next_u64() as f64 / u64::MAX as f64 * total;
        self.0.partition_point(|sum| *sum < drawn).min(KEYS - 1)
    }
}

fn used(server: &Server) -> u64 {
    server.info("used_memory").and_then(|bytes| bytes.parse().ok()).expect("INFO has used_memory")
}

fn set(client: &mut Client, directive: &str, value: &str) {
    assert_eq!(client.args(&["CONFIG", "SET", directive, value]), Value::ok(), "{directive} {value}");
}

/// Sends the trace as a cache does, a miss being filled; the share of hits once the cache is full.
fn hit_rate(server: &Server, policy: &str, trace: &[usize]) -> f64 {
    let mut client = server.connect();
    assert_eq!(client.args(&["FLUSHALL"]), Value::ok());
    set(&mut client, "maxmemory", "0");
    set(&mut client, "maxmemory-policy", policy);
    let value = "v".repeat(VALUE);
    let before = used(server);
    for key in 0..RESIDENT {
        assert_eq!(client.args(&["SET", &format!("key:{key}"), &value]), Value::ok());
    }
    // Room for the same number of keys, whatever one costs.
    let limit = used(server);
    assert!(limit - before > (RESIDENT * VALUE) as u64, "what is in use is not told");
    assert_eq!(client.args(&["FLUSHALL"]), Value::ok());
    set(&mut client, "maxmemory", &limit.to_string());
    let (mut hits, warm) = (0, trace.len() / 2);
    for (at, key) in trace.iter().enumerate() {
        let key = format!("key:{key}");
        if client.args(&["GET", &key]) == Value::Null {
            assert_eq!(client.args(&["SET", &key, &value]), Value::ok());
        } else if at >= warm {
            hits += 1;
        }
    }
    let keys = client.ask("DBSIZE").integer();
    assert!((RESIDENT as i64 * 7 / 10..=RESIDENT as i64 * 11 / 10).contains(&keys), "{policy}: {keys} keys");
    assert!(used(server) < limit + (256 << 10), "{policy}: {} in use, {limit} allowed", used(server));
    f64::from(hits) / (trace.len() - warm) as f64
}

/// How many hits are lost against redis-server, in points of a hundred.
fn compare(policy: &str) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let cairn = Setup::cairn(&home.path().join("cairn")).start();
    let redis = Setup::redis(&home.path().join("redis")).start();
    let (zipf, mut random) = (Zipf::new(), Random::new(random::seed(policy)));
    // Renamed at random, so that the first keys are not those asked for most.
    let mut names: Vec<usize> = (0..KEYS).collect();
    (1..KEYS).for_each(|at| names.swap(at, random.below(at + 1)));
    let trace: Vec<usize> = (0..counts::of(60_000, 600_000)).map(|_| names[zipf.draw(&mut random)]).collect();
    let (ours, theirs) = (hit_rate(&cairn, policy, &trace), hit_rate(&redis, policy, &trace));
    println!("{policy}: {:.2} % hits, redis-server {:.2} %", ours * 100.0, theirs * 100.0);
    assert!(ours > theirs - 0.03, "{policy}: {ours:.4} of requests are hits, of redis-server's {theirs:.4}");
    assert!(
        cairn.info("evicted_keys").is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0))
    );
}

#[test]
fn the_least_recently_used_go_as_in_redis() {
    compare("allkeys-lru");
}

#[test]
fn the_least_frequently_used_go_as_in_redis() {
    compare("allkeys-lfu");
}

/// A server with so little room left, its client, and the limit.
fn nearly_full(home: &tempfile::TempDir, policy: &str) -> (Server, Client, u64) {
    let server = Setup::cairn(&home.path().join("cairn")).journal("always").start();
    let mut client = server.connect();
    let limit = used(&server) + (512 << 10);
    set(&mut client, "maxmemory-policy", policy);
    set(&mut client, "maxmemory", &limit.to_string());
    (server, client, limit)
}

#[test]
fn without_anything_to_evict_commands_that_need_memory_are_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (_server, mut client, _) = nearly_full(&home, "noeviction");
    let value = "v".repeat(1_000);
    let refusal = (0..5_000)
        .map(|key| client.args(&["SET", &format!("key:{key}"), &value]))
        .find(|reply| *reply != Value::ok())
        .expect("the limit is met");
    let text = b"OOM command not allowed when used memory > 'maxmemory'.".to_vec();
    assert_eq!(refusal, Value::Error(text.clone()));
    assert_eq!(client.ask("MULTI"), Value::ok());
    assert_eq!(client.args(&["GET", "key:0"]), Value::Error(text));
    assert!(client.ask("EXEC").is_error());
    // Reading and removing go on, and what was removed makes room.
    assert_eq!(client.args(&["GET", "key:0"]).text(), value);
    for key in 0..200 {
        assert_eq!(client.args(&["DEL", &format!("key:{key}")]), Value::Integer(1));
    }
    assert_eq!(client.args(&["SET", "key:0", &value]), Value::ok());
}

#[test]
fn only_keys_that_expire_go_where_the_policy_says_so_and_a_restart_knows_it() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (server, mut client, limit) = nearly_full(&home, policy);
        let value = "v".repeat(1_000);
        for key in 0..100 {
            assert_eq!(client.args(&["SET", &format!("stays:{key}"), &value]), Value::ok());
        }
        for key in 0..3_000 {
            let (name, seconds) = (format!("goes:{key}"), (10_000 + key).to_string());
            assert_eq!(client.args(&["SETEX", &name, &seconds, &value]), Value::ok(), "{policy}");
        }
        for key in 0..100 {
            assert_eq!(client.args(&["EXISTS", &format!("stays:{key}")]), Value::Integer(1), "{policy}");
        }
        if policy == "volatile-ttl" {
            assert_eq!(client.args(&["EXISTS", "goes:0"]), Value::Integer(0));
        }
        assert!(used(&server) < limit + (256 << 10), "{policy}");
        let digest = server.digest();
        server.kill();
        let server = Setup::cairn(&home.path().join("cairn")).journal("always").start();
        assert_eq!(server.digest(), digest, "{policy}: evictions are in the journal");
    }
}
