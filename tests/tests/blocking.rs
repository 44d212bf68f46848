//! Clients that wait for a key: who is served, with what, in which order, and what becomes of those who go.

use cairn_tests::counts;
use cairn_tests::process::await_some;
use cairn_tests::random::{self, Random};
use cairn_tests::resp::{Client, Value, encode};
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

struct Home {
    server: Server,
    _dir: tempfile::TempDir,
}

fn start(fsync: &str) -> Home {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&dir.path().join("data")).journal(fsync).start();
    Home { server, _dir: dir }
}

impl Home {
    /// Waits until so many clients wait.
    #[track_caller]
    fn await_blocked(&self, count: usize) {
        let mut client = self.server.connect();
        let blocked = await_some(LIMIT, || {
            let info = client.ask("INFO clients").text();
            info.contains(&format!("blocked_clients:{count}\r\n")).then_some(())
        });
        assert!(blocked.is_some(), "there should be {count} blocked clients");
    }

    /// A client that waits for the reply to `line`; `count` clients wait then.
    #[track_caller]
    fn blocked(&self, line: &str, count: usize) -> Client {
        let mut client = self.server.connect();
        send(&mut client, line);
        self.await_blocked(count);
        client
    }
}

fn send(client: &mut Client, line: &str) {
    let mut request = Vec::new();
    encode(&mut request, &line.split_whitespace().collect::<Vec<_>>());
    client.send(&request).expect("the server takes requests");
}

#[track_caller]
fn strings(value: Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}

#[test]
fn who_came_first_is_served_first() {
    let home = start("everysec");
    let mut waiting: Vec<Client> = (1..=5).map(|n| home.blocked("BLPOP k 0", n)).collect();
    let mut feeder = home.server.connect();
    assert_eq!(feeder.ask("RPUSH k 0 1 2").integer(), 3, "the push counts what it pushed");
    for (n, client) in waiting.iter_mut().enumerate().take(3) {
        assert_eq!(strings(client.reply().expect("a reply")), ["k".to_owned(), n.to_string()]);
    }
    home.await_blocked(2);
    feeder.ask("RPUSH k 3 4 5");
    for (n, client) in waiting.iter_mut().enumerate().skip(3) {
        assert_eq!(strings(client.reply().expect("a reply")), ["k".to_owned(), n.to_string()]);
    }
    assert_eq!(strings(feeder.ask("LRANGE k 0 -1")), ["5"]);
    home.await_blocked(0);
}

/// An element that is moved on feeds who waits there in the same step, wherever the keys lie.
#[test]
fn a_chain_of_moves_is_one_step() {
    const LINKS: usize = 20;
    let home = start("everysec");
    let mut links: Vec<Client> = (0..LINKS)
        .map(|n| home.blocked(&format!("BLMOVE chain{n} chain{} RIGHT LEFT 0", n + 1), n + 1))
        .collect();
    let mut last = home.blocked(&format!("BRPOP chain{LINKS} 0"), LINKS + 1);
    let mut feeder = home.server.connect();
    // All that a transaction sees of it is over when it ends.
    let requests = ["MULTI", "LPUSH chain0 x", "EXISTS chain1", "EXEC", "EXISTS chain0 chain1 chain20"];
    let replies: Vec<Value> = requests.iter().map(|line| feeder.ask(line)).collect();
    assert_eq!(replies[3], Value::Array(vec![Value::Integer(1), Value::Integer(0)]));
    assert_eq!(replies[4], Value::Integer(0));
    for link in &mut links {
        assert_eq!(link.reply().expect("a reply"), Value::bulk("x"));
    }
    assert_eq!(strings(last.reply().expect("a reply")), [format!("chain{LINKS}"), "x".to_owned()]);
}

/// Moves in both directions between the same keys, and pushes to both, must never wait for each other.
#[test]
fn moves_that_cross_do_not_stand_in_each_others_way() {
    let home = start("everysec");
    let rounds = counts::of(300, 5_000);
    thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "a"), ("c", "a"), ("b", "c")] {
            let mut client = home.server.connect();
            scope.spawn(move || {
                for _ in 0..rounds {
                    let moved = client.ask(&format!("BLMOVE {from} {to} LEFT RIGHT 0.02"));
                    assert!(matches!(moved, Value::Bulk(_) | Value::Null), "{moved:?}");
                }
            });
        }
        for key in ["a", "b", "c"] {
            let mut client = home.server.connect();
            scope.spawn(move || (0..rounds).for_each(|n| drop(client.ask(&format!("RPUSH {key} {n}")))));
        }
    });
    let mut client = home.server.connect();
    let left: i64 = ["a", "b", "c"].iter().map(|key| client.ask(&format!("LLEN {key}")).integer()).sum();
    assert_eq!(left, 3 * rounds as i64, "moves keep every element");
}

#[test]
fn time_is_over_when_it_is_over_and_not_before() {
    let home = start("everysec");
    let mut client = home.server.connect();
    let began = Instant::now();
    assert_eq!(client.ask("BLPOP k 0.2"), Value::Null);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(client.ask("WAIT 1 50"), Value::Integer(0));
    assert_eq!(client.ask("BZPOPMIN k 0.01"), Value::Null);
    assert_eq!(client.ask("RPUSH k x"), Value::Integer(1), "nobody waits any more");
    assert_eq!(client.ask("LLEN k"), Value::Integer(1));
    let mut forever = home.blocked("BLPOP other 0", 1);
    thread::sleep(Duration::from_millis(300));
    home.await_blocked(1);
    client.ask("RPUSH other y");
    assert_eq!(strings(forever.reply().expect("a reply")), ["other", "y"]);
}

#[test]
fn a_client_can_be_woken_by_another() {
    let home = start("everysec");
    let mut other = home.server.connect();
    let mut client = home.server.connect();
    let id = client.ask("CLIENT ID").integer();
    let waiting = |client: &mut Client, line: &str| {
        send(client, line);
        home.await_blocked(1);
    };
    assert_eq!(other.ask(&format!("CLIENT UNBLOCK {id}")), Value::Integer(0), "it does not wait");
    waiting(&mut client, "BLPOP k 0");
    assert!(
        other
            .ask("CLIENT LIST")
            .text()
            .lines()
            .any(|line| { line.starts_with(&format!("id={id} ")) && line.contains(" flags=b ") })
    );
    assert_eq!(other.ask(&format!("CLIENT UNBLOCK {id}")), Value::Integer(1));
    assert_eq!(client.reply().expect("a reply"), Value::Null);
    waiting(&mut client, "BRPOPLPUSH k l 0");
    assert_eq!(other.ask(&format!("CLIENT UNBLOCK {id} ERROR")), Value::Integer(1));
    assert_eq!(client.reply().expect("a reply"), error("UNBLOCKED client unblocked via CLIENT UNBLOCK"));
    waiting(&mut client, "WAIT 3 0");
    assert_eq!(other.ask(&format!("CLIENT UNBLOCK {id} TIMEOUT")), Value::Integer(1));
    assert_eq!(client.reply().expect("a reply"), Value::Integer(0));
    home.await_blocked(0);
    assert_eq!(client.ask("PING"), Value::Simple(b"PONG".to_vec()));
}

/// What is pushed after somebody went is for those who still wait.
#[test]
fn who_goes_takes_nothing_along() {
    let home = start("everysec");
    let mut other = home.server.connect();
    let mut killed = home.server.connect();
    let id = killed.ask("CLIENT ID").integer();
    send(&mut killed, "BLPOP k 0");
    home.await_blocked(1);
    let gone = home.blocked("BLPOP j k 0", 2);
    let half_gone = home.blocked("BLMOVE k l LEFT LEFT 0", 3);
    let mut stays = home.blocked("BLPOP k 0", 4);
    assert_eq!(other.ask(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    drop(gone);
    let mut half_gone = half_gone;
    half_gone.finish_sending().expect("the socket is open");
    home.await_blocked(1);
    other.ask("RPUSH k x");
    assert_eq!(strings(stays.reply().expect("a reply")), ["k", "x"]);
    assert_eq!(half_gone.until_closed().expect("the end"), b"");
}

/// A pause must not keep the places of those who have gone.
#[test]
fn who_goes_during_a_pause_is_not_kept() {
    let home = start("everysec");
    let mut other = home.server.connect();
    assert_eq!(other.ask("CLIENT PAUSE 3600000 WRITE"), Value::ok());
    let mut gone = home.server.connect();
    let id = gone.ask("CLIENT ID").integer();
    send(&mut gone, "SET k v");
    let mut listed = || other.ask(&format!("CLIENT LIST ID {id}")).text();
    assert!(await_some(LIMIT, || listed().contains(" flags=b ").then_some(())).is_some(), "it waits");
    drop(gone);
    assert!(await_some(LIMIT, || listed().is_empty().then_some(())).is_some(), "it is listed still");
    assert_eq!(other.ask("CLIENT UNPAUSE"), Value::ok());
    assert_eq!(other.ask("EXISTS k"), Value::Integer(0));
}

/// What comes while a client waits is what it takes, for maxmemory-clients too.
#[test]
fn what_a_waiting_client_sends_is_counted() {
    const BYTES: usize = 8 << 20;
    let home = start("everysec");
    let mut other = home.server.connect();
    let mut client = home.server.connect();
    let id = client.ask("CLIENT ID").integer();
    send(&mut client, "BLPOP k 0");
    home.await_blocked(1);
    client.send(format!("*2\r\n$4\r\nECHO\r\n${BYTES}\r\n").as_bytes()).expect("it is taken");
    client.send(&vec![b'x'; BYTES]).expect("it is taken");
    let listed = |other: &mut Client| other.ask(&format!("CLIENT LIST ID {id}")).text();
    let counted = || {
        let list = listed(&mut other);
        let bytes = list.split(' ').find_map(|word| word.strip_prefix("qbuf=")?.parse::<usize>().ok());
        (bytes? >= BYTES).then_some(())
    };
    assert!(await_some(LIMIT, counted).is_some(), "{}", listed(&mut other));
    assert_eq!(other.ask("CONFIG SET maxmemory-clients 4mb"), Value::ok());
    assert_eq!(client.until_closed().expect("the end"), b"");
}

#[test]
fn requests_behind_one_that_waits_wait_with_it() {
    let home = start("everysec");
    let mut client = home.server.connect();
    client.send(b"PING\r\nBLPOP k 0\r\nSET x 1\r\nBLPOP k 0\r\n").expect("the server takes requests");
    assert_eq!(client.reply().expect("a reply"), Value::Simple(b"PONG".to_vec()));
    home.await_blocked(1);
    // What arrives while it waits, in pieces.
    client.send(b"APPEND x 2\r\nGE").expect("the server takes requests");
    let mut other = home.server.connect();
    assert_eq!(other.ask("EXISTS x"), Value::Integer(0));
    other.ask("RPUSH k a");
    assert_eq!(strings(client.reply().expect("a reply")), ["k", "a"]);
    assert_eq!(client.reply().expect("a reply"), Value::ok());
    home.await_blocked(1);
    other.ask("RPUSH k b");
    assert_eq!(strings(client.reply().expect("a reply")), ["k", "b"]);
    assert_eq!(client.reply().expect("a reply"), Value::Integer(2));
    client.send(b"T x\r\n").expect("the server takes requests");
    assert_eq!(client.reply().expect("a reply"), Value::bulk("12"));
}

/// A waiter sees a transaction as a whole, and its own effect is part of the same append.
#[test]
fn a_transaction_feeds_with_what_it_leaves() {
    let home = start("everysec");
    let mut waiter = home.blocked("BLPOP k j 0", 1);
    let mut feeder = home.server.connect();
    for line in ["MULTI", "RPUSH k a", "DEL k", "RPUSH j b", "RPUSH k c d", "EXEC"] {
        feeder.ask(line);
    }
    assert_eq!(strings(waiter.reply().expect("a reply")), ["k", "c"], "k was there first");
    assert_eq!(strings(feeder.ask("LRANGE j 0 -1")), ["b"]);
    // Whoever watches a key sees that a waiter emptied it.
    let mut watcher = home.server.connect();
    watcher.ask("WATCH w");
    let mut waiter = home.blocked("BLPOP w 0", 1);
    feeder.ask("RPUSH w x");
    assert_eq!(strings(waiter.reply().expect("a reply")), ["w", "x"]);
    watcher.ask("MULTI");
    watcher.ask("PING");
    assert_eq!(watcher.ask("EXEC"), Value::Null);
}

#[test]
fn replies_are_in_each_waiters_protocol_and_database() {
    let home = start("everysec");
    let mut modern = home.server.connect();
    assert!(!modern.ask("HELLO 3").is_error());
    modern.ask("SELECT 2");
    send(&mut modern, "BZPOPMIN z 0");
    home.await_blocked(1);
    let mut plain = home.blocked("BZPOPMIN z 0", 2);
    let mut feeder = home.server.connect();
    feeder.ask("ZADD src 1.5 m");
    assert_eq!(feeder.ask("COPY src z DB 2"), Value::Integer(1));
    let double = Value::Double(b"1.5".to_vec());
    let expected = Value::Array(vec![Value::bulk("z"), Value::bulk("m"), double]);
    assert_eq!(modern.reply().expect("a reply"), expected);
    assert_eq!(feeder.ask("RENAME src z"), Value::ok());
    assert_eq!(strings(plain.reply().expect("a reply")), ["z", "m", "1.5"]);
}

#[test]
fn waitaof_waits_for_the_journal() {
    let home = start("everysec");
    let mut client = home.server.connect();
    client.ask("SET x 1");
    let both = |local, replicas| Value::Array(vec![Value::Integer(local), Value::Integer(replicas)]);
    assert_eq!(client.ask("WAITAOF 1 0 0"), both(1, 0));
    assert_eq!(client.ask("WAITAOF 1 1 50"), both(1, 0));
    assert_eq!(client.ask("WAITAOF 0 0 0"), both(1, 0));
}

/// Shutting down waits for nobody who waits.
#[test]
fn a_server_ends_under_those_who_wait() {
    let Home { server, _dir } = start("everysec");
    let mut client = server.connect();
    send(&mut client, "BLPOP k 0");
    assert!(await_some(LIMIT, || (server.info("blocked_clients")? == "1").then_some(())).is_some());
    server.stop();
    assert_eq!(client.until_closed().expect("the end"), b"");
}

/// With very many who wait, each push still serves one, and all of them are served.
#[test]
fn very_many_may_wait_for_one_key() {
    let home = start("everysec");
    let count = counts::of(400, 2_000);
    let mut waiting: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = home.server.connect();
            send(&mut client, "BLPOP k 0");
            client
        })
        .collect();
    home.await_blocked(count);
    let mut feeder = home.server.connect();
    let elements: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let (some, rest) = elements.split_at(count / 2);
    let push = |elements: &[String]| format!("RPUSH k {}", elements.join(" "));
    feeder.ask(&push(some));
    rest.iter().for_each(|element| drop(feeder.ask(&format!("RPUSH k {element}"))));
    let mut got: Vec<String> =
        waiting.iter_mut().map(|client| strings(client.reply().expect("a reply")).remove(1)).collect();
    got.sort_by_key(|element| element.parse::<usize>().expect("a number"));
    assert_eq!(got, elements);
    home.await_blocked(0);
}

/// Sends one request again and again until the server is gone; the elements it was told of.
fn consume(mut client: Client, line: &str) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match client.call(&line.split_whitespace().collect::<Vec<_>>()) {
            // The key, and the element or a list of one.
            Ok(Value::Array(mut items)) => told.push(match items.remove(1) {
                Value::Array(mut elements) => elements.remove(0).text(),
                element => element.text(),
            }),
            Ok(Value::Bulk(element)) => {
                told.push(String::from_utf8(element).expect("elements are text"));
            }
            Ok(Value::Null) => {}
            Ok(other) => panic!("{line}: {other:?}"),
            Err(_) => return told,
        }
    }
}

/// Pushes elements of its own until the server is gone; those that were acknowledged.
fn produce(mut client: Client, producer: usize, round: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let element = format!("{producer}-{round}-{n}");
        match client.call(&["RPUSH", ["q0", "q1", "q2"][n % 3], &element]) {
            Ok(Value::Integer(_)) => acknowledged.push(element),
            Ok(other) => panic!("RPUSH: {other:?}"),
            Err(_) => break,
        }
    }
    acknowledged
}

/// What producers and consumers knew when the server was killed.
#[derive(Default)]
struct Known {
    /// Elements that consumers were told of, and whether they were told that these were moved.
    told: BTreeMap<String, bool>,
    /// Elements that producers were told are there.
    acknowledged: Vec<String>,
}

const PRODUCERS: usize = 4;
const CONSUMERS: [&str; 5] = [
    "BLPOP q0 q1 0",
    "BRPOP q1 0",
    "BLMOVE q2 moved LEFT RIGHT 0",
    "BLMPOP 0 2 q2 q0 LEFT",
    "BLPOP q1 q2 0.01",
];

/// Feeds and drains queues for a while, then kills the server.
fn exchange_until_killed(server: Server, round: usize, random: &mut Random) -> Known {
    let mut known = Known::default();
    server.connect().ask("FLUSHALL");
    thread::scope(|scope| {
        let consumers = CONSUMERS.map(|line| {
            let client = server.connect();
            (line, scope.spawn(move || consume(client, line)))
        });
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let client = server.connect();
                scope.spawn(move || produce(client, producer, round))
            })
            .collect();
        // The kill may come at any time.
        thread::sleep(Duration::from_millis(30 + random.below(200) as u64));
        server.kill();
        for (line, consumer) in consumers {
            for element in consumer.join().expect("a consumer ends") {
                let before = known.told.insert(element.clone(), line.starts_with("BLMOVE"));
                assert_eq!(before, None, "{element} was handed out twice");
            }
        }
        for producer in producers {
            known.acknowledged.append(&mut producer.join().expect("a producer ends"));
        }
    });
    known
}

/// Judges what a restarted server holds.
fn judge(server: &Server, known: &Known) {
    let mut client = server.connect();
    let moved = strings(client.ask("LRANGE moved 0 -1"));
    let mut left = moved.clone();
    for queue in ["q0", "q1", "q2"] {
        left.extend(strings(client.ask(&format!("LRANGE {queue} 0 -1"))));
    }
    for (element, is_move) in &known.told {
        let is_moved = moved.contains(element);
        assert!(!is_move || is_moved, "{element} was told to have been moved and was not");
        assert!(*is_move || !left.contains(element), "{element} was handed out and is there again");
    }
    let is_nowhere = |element: &&String| !known.told.contains_key(*element) && !left.contains(*element);
    let missing: Vec<_> = known.acknowledged.iter().filter(is_nowhere).collect();
    // Each that takes may have been served with one element whose reply the crash cut off.
    assert!(missing.len() < CONSUMERS.len(), "acknowledged and nowhere: {missing:?}");
    left.sort_unstable();
    assert!(left.windows(2).all(|pair| pair[0] != pair[1]), "an element is there twice");
    let (acknowledged, told) = (known.acknowledged.len(), known.told.len());
    println!("{acknowledged} acknowledged, {told} told, {} left", left.len());
    assert!(acknowledged > 0 && told > 0, "nothing was exchanged");
}

/// What a consumer was told of is durable: after a crash no element is there twice, and none is missing that a producer
/// was told is there, unless one consumer had been served with it and not told yet.
#[test]
fn no_element_is_lost_or_doubled_by_a_crash() {
    let mut random = Random::new(random::seed("no_element_is_lost_or_doubled_by_a_crash"));
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    for round in 0..counts::of(4, 40) {
        let known = exchange_until_killed(setup.start(), round, &mut random);
        judge(&setup.start(), &known);
    }
}

/// The same where all is lost that was not synced: a consumer is told of nothing that is not durable.
#[test]
fn no_element_is_lost_or_doubled_by_a_power_cut() {
    let mut random = Random::new(random::seed("no_element_is_lost_or_doubled_by_a_power_cut"));
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let plain = Setup::cairn(&data).journal("always");
    for round in 0..counts::of(3, 30) {
        let writeback = [0, 50][round % 2];
        let server = plain.clone().env(shim.power_cut(writeback, random.next_u64())).start();
        let known = exchange_until_killed(server, round, &mut random);
        shim.cut();
        let server = plain.start();
        judge(&server, &known);
        server.stop();
    }
}
