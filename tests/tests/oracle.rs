//! Cairn and Redis are sent the same random commands; replies and digests must agree, and a restart changes nothing.

use cairn_tests::counts;
use cairn_tests::process::await_some;
use cairn_tests::programs;
use cairn_tests::random::{self, Random};
use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use cairn_tests::workload::{self, Command, Order};
use std::collections::BTreeSet;
use std::time::Duration;

/// Both servers and what was sent to them.
struct Pair {
    cairn: Client,
    redis: Client,
    sent: usize,
}

impl Pair {
    fn connect(cairn: &Server, redis: &Server) -> Self {
        Self { cairn: cairn.connect(), redis: redis.connect(), sent: 0 }
    }

    /// Sends one command to both; fails when they do not agree.
    #[track_caller]
    fn send(&mut self, command: &Command, order: Order) -> Value {
        let (ours, theirs) = (self.cairn.args(command), self.redis.args(command));
        self.sent += 1;
        assert!(
            workload::agree(&ours, &theirs, order),
            "command {}: {}\n Cairn: {ours:?}\n Redis: {theirs:?}",
            self.sent,
            shown(command)
        );
        theirs
    }

    /// A few commands in MULTI; the replies of EXEC are compared one by one.
    fn transaction(&mut self, random: &mut Random) {
        let exact = Order::Exact;
        let commands: Vec<_> = (0..1 + random.below(5)).map(|_| workload::command(random)).collect();
        if random.once_in(3) {
            self.send(&words("WATCH key:1 key:2"), exact);
            if random.once_in(2) {
                // A watched key is touched by the same client, which dirties the transaction.
                self.send(&words("SET key:1 touched"), exact);
            }
        }
        self.send(&words("MULTI"), exact);
        for (command, _) in &commands {
            self.send(command, exact);
        }
        if random.once_in(8) {
            self.send(&words("DISCARD"), exact);
            return;
        }
        let (ours, theirs) = (self.cairn.ask("EXEC"), self.redis.ask("EXEC"));
        match (&ours, &theirs) {
            (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
                for (((command, order), ours), theirs) in commands.iter().zip(ours).zip(theirs) {
                    let agree = workload::agree(ours, theirs, *order);
                    assert!(agree, "in EXEC: {}\n Cairn: {ours:?}\n Redis: {theirs:?}", shown(command));
                }
            }
            _ => assert_eq!(ours, theirs, "EXEC"),
        }
    }

    /// Equal digests; otherwise the keys that differ are named.
    #[track_caller]
    fn compare(&mut self, when: &str) {
        let digest = words("DEBUG DIGEST");
        if self.cairn.args(&digest) == self.redis.args(&digest) {
            return;
        }
        let mut different = Vec::new();
        for database in ["0", "1"] {
            for client in [&mut self.cairn, &mut self.redis] {
                assert_eq!(client.args(&["SELECT", database]), Value::ok());
            }
            let theirs = workload::normal(self.redis.ask("KEYS *"), Order::Items).items();
            let ours = workload::normal(self.cairn.ask("KEYS *"), Order::Items).items();
            let keys: BTreeSet<_> = ours.iter().chain(&theirs).map(Value::text).collect();
            for key in keys {
                let digest = ["DEBUG", "DIGEST-VALUE", &key];
                if self.cairn.args(&digest) != self.redis.args(&digest) {
                    different.push(format!("{database}/{key}"));
                }
            }
        }
        panic!("{when}: DEBUG DIGEST differs; keys that differ, by database: {different:?}");
    }
}

fn words(line: &str) -> Command {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn shown(command: &Command) -> String {
    command.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// Every few hundred commands the digests are compared; then come a crash, a snapshot and a clean restart.
fn compare_servers(name: &str, seed: u64, count: usize, encrypted: bool) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut setup = Setup::cairn(&home.path().join("cairn")).journal("always");
    if encrypted {
        let keyring = home.path().join("keyring");
        programs::generate_keyring(&keyring);
        setup = setup.key(&keyring);
    }
    let redis = Setup::redis(&home.path().join("redis")).start();
    let mut random = Random::new(seed);
    let mut cairn = setup.start();
    for (round, ending) in ["a crash", "a snapshot and a crash", "a clean restart"].iter().enumerate() {
        let mut pair = Pair::connect(&cairn, &redis);
        if round == 1 {
            pair.send(&words("FLUSHALL"), Order::Exact);
        }
        for step in 0..count {
            if random.once_in(12) {
                pair.transaction(&mut random);
            } else {
                let (command, order) = workload::command(&mut random);
                pair.send(&command, order);
            }
            if step % 500 == 499 {
                pair.compare(&format!("{name}, round {round}, step {step}"));
            }
        }
        pair.compare(&format!("{name}, round {round}"));
        match round {
            0 => cairn.kill(),
            1 => {
                cairn.bgsave();
                cairn.kill();
            }
            _ => cairn.stop(),
        }
        cairn = setup.start();
        Pair::connect(&cairn, &redis).compare(&format!("{name}, after {ending}"));
    }
}

#[test]
fn random_commands_agree() {
    let seed = random::seed("random_commands_agree");
    for round in 0..counts::of(1, 20) as u64 {
        compare_servers(
            &format!("seed {}", seed + round),
            seed + round,
            counts::of(4_000, 20_000),
            round % 2 == 0,
        );
    }
}

/// A fixed seed, so that every change meets the same commands as the last one did.
#[test]
fn the_same_commands_every_time_agree() {
    compare_servers("the fixed seed", 7, counts::of(2_000, 20_000), true);
}

/// Keys whose time comes are gone from both, whether somebody looks at them or not.
#[test]
fn expiry_agrees() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("cairn")).journal("always");
    let (cairn, redis) = (setup.start(), Setup::redis(&home.path().join("redis")).start());
    let mut pair = Pair::connect(&cairn, &redis);
    for n in 0..200 {
        pair.send(&words(&format!("SET short:{n} x PX {}", 1 + n)), Order::Exact);
        pair.send(&words(&format!("RPUSH list:{n} a b")), Order::Exact);
        pair.send(&words(&format!("PEXPIRE list:{n} {}", 1 + n)), Order::Exact);
        pair.send(&words(&format!("SET long:{n} x EX 5000")), Order::Exact);
    }
    // Nobody reads them: DBSIZE falls by active expiry alone.
    let gone = await_some(Duration::from_secs(30), || {
        let size = words("DBSIZE");
        (pair.cairn.args(&size).integer() == 200 && pair.redis.args(&size).integer() == 200).then_some(())
    });
    assert!(gone.is_some(), "expired keys stay: {:?}", pair.cairn.ask("DBSIZE"));
    pair.compare("after expiry");
    drop(pair);
    cairn.kill();
    Pair::connect(&setup.start(), &redis).compare("after expiry and a crash");
}

/// DEBUG RELOAD goes through a snapshot and comes back equal.
#[test]
fn reload_changes_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("cairn")).journal("everysec");
    let server = setup.start();
    let mut client = server.connect();
    for command in workload::dataset(11, 3_000) {
        client.args(&command);
    }
    let before = server.digest();
    assert_eq!(client.ask("DEBUG RELOAD"), Value::ok());
    assert_eq!(server.digest(), before);
}
