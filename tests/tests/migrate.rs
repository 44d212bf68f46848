//! MIGRATE: keys go to another server, and are in one of the two whatever happens on the way.

use cairn_tests::resp::{Client, Value, encode};
use cairn_tests::server::{Server, Setup, free_port};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

struct Home {
    setup: Setup,
    server: Server,
    dir: tempfile::TempDir,
}

fn start(fsync: &str) -> Home {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&dir.path().join("data")).journal(fsync);
    Home { server: setup.start(), setup, dir }
}

impl Home {
    fn redis(&self, name: &str) -> Server {
        Setup::redis(&self.dir.path().join(name)).start()
    }
}

fn migrate(to: SocketAddr, rest: &str) -> String {
    format!("MIGRATE {} {} {rest}", to.ip(), to.port())
}

fn send(client: &mut Client, line: &str) {
    let mut request = Vec::new();
    encode(&mut request, &line.split_whitespace().collect::<Vec<_>>());
    client.send(&request).expect("the server takes requests");
}

fn fill(client: &mut Client) {
    for line in [
        "SET string value",
        "RPUSH list a b c 4",
        "SADD set 1 2 three",
        "HSET hash f v g 17",
        "ZADD zset 1 one 2.5 two",
        "XADD stream 1-1 f v",
        "XGROUP CREATE stream group 0",
        "SETBIT bits 100000 1",
        "PFADD log a b c",
        "SET expires soon PX 600000",
    ] {
        assert!(!client.ask(line).is_error(), "{line}");
    }
}

const NAMES: &str = "string list set hash zset stream bits log expires";

/// What is sent is what RESTORE takes, so the same digests come out at the other end; and a restart finds the keys gone.
#[test]
fn values_of_every_type_arrive_and_are_gone_after_a_restart() {
    let mut home = start("always");
    let redis = home.redis("redis");
    let (mut ours, mut theirs) = (home.server.connect(), redis.connect());
    fill(&mut ours);
    let question = format!("DEBUG DIGEST-VALUE {NAMES}");
    let before = ours.ask(&question);
    // "" cannot be written in a line of words, so the request is put together.
    let words = |rest: &str| {
        let (host, port) = (redis.address().ip().to_string(), redis.address().port().to_string());
        let head = ["MIGRATE", &host, &port, "", "0", "5000"];
        let words = head.into_iter().chain(rest.split(' ')).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    assert_eq!(ours.args(&words(&format!("COPY KEYS {NAMES}"))), Value::ok());
    assert_eq!(ours.ask("DBSIZE").integer(), 9, "COPY leaves them here");
    assert_eq!(theirs.ask(&question), before);
    let left = theirs.ask("PTTL expires").integer();
    assert!((1..=600_000).contains(&left), "{left}");
    assert_eq!(ours.args(&words(&format!("REPLACE KEYS {NAMES} absent"))), Value::ok());
    assert_eq!(ours.ask("DBSIZE").integer(), 0);
    assert_eq!(theirs.ask(&question), before);
    assert_eq!(ours.args(&words(&format!("KEYS {NAMES}"))), Value::Simple("NOKEY".into()));
    drop(ours);
    home.server.kill();
    home.server = home.setup.start();
    assert_eq!(home.server.connect().ask("DBSIZE").integer(), 0, "deleted keys came back");
}

/// Two keys are there already: they stay here, and all others go.
#[test]
fn what_the_other_server_refuses_stays() {
    let home = start("everysec");
    let redis = home.redis("redis");
    let (mut ours, mut theirs) = (home.server.connect(), redis.connect());
    ours.ask("DEBUG POPULATE 1000");
    theirs.ask("MSET key:3 theirs key:700 theirs");
    let (host, port) = (redis.address().ip().to_string(), redis.address().port().to_string());
    let keys: Vec<String> = (0..1000).map(|number| format!("key:{number}")).collect();
    let head = ["MIGRATE", &host, &port, "", "0", "5000", "KEYS"].map(str::to_owned);
    let told = ours.args(&[&head[..], &keys[..]].concat());
    let busy = "ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(told, Value::Error(busy.into()));
    assert_eq!(ours.ask("DBSIZE").integer(), 2);
    assert_eq!(ours.ask("EXISTS key:3 key:700").integer(), 2);
    assert_eq!(theirs.ask("DBSIZE").integer(), 1000);
    assert_eq!(theirs.ask("GET key:3").text(), "theirs");
}

/// The password is asked for each time, and a connection that one client has authenticated serves nobody without one.
#[test]
fn passwords_are_given_and_not_lent() {
    let home = start("everysec");
    let redis = Setup::redis(&home.dir.path().join("redis")).with("requirepass", "secret").start();
    let mut ours = home.server.connect();
    let refused = |told: Value, word: &str| {
        let Value::Error(text) = told else { panic!("refused, not {told:?}") };
        let text = String::from_utf8_lossy(&text);
        assert!(
            text.starts_with("ERR Target instance replied with error: ") && text.contains(word),
            "{text}"
        );
    };
    ours.ask("MSET a 1 b 2");
    refused(ours.ask(&migrate(redis.address(), "a 0 5000")), "NOAUTH");
    refused(ours.ask(&migrate(redis.address(), "a 0 5000 AUTH wrong")), "WRONGPASS");
    assert_eq!(ours.ask(&migrate(redis.address(), "a 0 5000 AUTH secret")), Value::ok());
    refused(ours.ask(&migrate(redis.address(), "b 0 5000")), "NOAUTH");
    refused(ours.ask(&migrate(redis.address(), "b 99 5000 AUTH2 default secret")), "DB index");
    assert_eq!(ours.ask("GET b").text(), "2");
    assert_eq!(ours.ask(&migrate(redis.address(), "b 3 5000 AUTH2 default secret")), Value::ok());
    let mut theirs = redis.connect();
    theirs.ask("AUTH secret");
    theirs.ask("SELECT 3");
    assert_eq!(theirs.ask("GET b").text(), "2");
    assert_eq!(theirs.ask("DBSIZE").integer(), 1, "nothing goes to a database that was not asked for");
    let log = ours.ask("SLOWLOG GET 100");
    assert!(!format!("{log:?}").contains("secret"), "{log:?}");
}

/// A server that takes requests and answers none of them; it says when it has got one.
fn silent() -> (SocketAddr, mpsc::Receiver<()>, thread::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (tell, told) = mpsc::channel();
    let serve = move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
            // Nobody may be listening any more.
            let _ = tell.send(());
        }
    };
    (address, told, thread::spawn(serve))
}

/// While the other server is silent the key can neither be read nor written, and everything else goes on: other keys, and
/// on one thread too.
#[test]
fn a_silent_target_holds_up_its_key_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&dir.path().join("data")).journal("everysec").with("server-threads", "1");
    let server = setup.start();
    let (mut asks, mut other) = (server.connect(), server.connect());
    other.ask("MSET moving 1 other 2");
    let mut writes = server.connect();
    let (address, sent, silent) = silent();
    let began = Instant::now();
    send(&mut asks, &migrate(address, "moving 0 1500"));
    sent.recv_timeout(LIMIT).expect("something is sent");
    send(&mut writes, "SET moving changed");
    for _ in 0..50 {
        assert_eq!(other.ask("GET other").text(), "2");
    }
    assert!(began.elapsed() < Duration::from_millis(1400), "others had to wait: {:?}", began.elapsed());
    assert!(writes.is_silent(Duration::from_millis(50)), "the key is held while it is on its way");
    let told = asks.reply().expect("a reply");
    assert_eq!(told, Value::Error("IOERR error or timeout reading to target instance".into()));
    assert!(began.elapsed() >= Duration::from_millis(1450));
    assert_eq!(writes.reply().expect("a reply"), Value::ok());
    assert_eq!(other.ask("GET moving").text(), "changed");
    silent.join().expect("the silent server ends");
}

/// A server that says yes to so many requests of each connection, then closes.
fn says_yes(times: usize, connections: usize) -> (SocketAddr, thread::JoinHandle<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let serve = move || {
        let mut answered = 0;
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut left = times;
            while left > 0 && request(&mut stream) {
                stream.write_all(b"+OK\r\n").expect("the reply is taken");
                (left, answered) = (left - 1, answered + 1);
            }
            // Closing while bytes are unread would destroy the replies.
            stream.shutdown(Shutdown::Write).expect("the end is sent");
            stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out can be set");
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        }
        answered
    };
    (address, thread::spawn(serve))
}

/// Reads one request, byte by byte; false at the end.
fn request(stream: &mut TcpStream) -> bool {
    let Some(words) = number(stream) else { return false };
    (0..words).all(|_| {
        let length = number(stream).expect("each word has a length");
        stream.read_exact(&mut vec![0; length + 2]).is_ok()
    })
}

/// Reads a line of one letter and a number.
fn number(stream: &mut TcpStream) -> Option<usize> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line[1..line.len() - 2]).parse().ok()
}

/// A connection that is kept may have been closed by the other end since: that is no error, a new one is made. But what
/// was sent on one that was lost in between is not sent twice, and is not deleted.
#[test]
fn a_connection_that_was_closed_is_made_again_and_only_what_was_acknowledged_is_deleted() {
    let home = start("everysec");
    let mut ours = home.server.connect();
    ours.ask("MSET a 1 b 2 c 3 d 4 e 5");
    // SELECT and one key, on each of two connections.
    let (address, target) = says_yes(2, 2);
    assert_eq!(ours.ask(&migrate(address, "a 0 5000")), Value::ok());
    assert_eq!(home.server.info("migrate_cached_sockets").as_deref(), Some("1"));
    assert_eq!(ours.ask(&migrate(address, "b 0 5000")), Value::ok());
    assert_eq!(target.join().expect("the target ends"), 4);
    // SELECT and two keys of three.
    let (address, target) = says_yes(3, 1);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let told = ours.args(&["MIGRATE", &host, &port, "", "0", "5000", "KEYS", "c", "d", "e"]);
    assert_eq!(told, Value::Error("IOERR error or timeout reading to target instance".into()));
    assert_eq!(target.join().expect("the target ends"), 3);
    assert_eq!(ours.ask("EXISTS c d").integer(), 0);
    assert_eq!(ours.ask("EXISTS e").integer(), 1);
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let told = ours.ask(&migrate(nobody, "e 0 500"));
    assert_eq!(told, Value::Error("IOERR error or timeout connecting to the client".into()));
}

/// A counter is increased by many while it goes to and fro between two servers: nothing that was acknowledged is lost,
/// which it would be if a key could change between being read and being deleted.
#[test]
fn nothing_is_lost_of_a_key_that_is_written_while_it_moves() {
    let (one, other) = (start("everysec"), start("everysec"));
    let addresses = [one.server.address(), other.server.address()];
    one.server.connect().ask("SET counter 0");
    let mover = thread::spawn(move || {
        let mut moved = 0;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            for at in [0, 1] {
                let mut client = Client::connect(addresses[at]).expect("a connection");
                assert_eq!(client.ask(&migrate(addresses[1 - at], "counter 0 5000")), Value::ok());
                moved += 1;
            }
        }
        moved
    });
    let writers: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::connect(addresses[number % 2]).expect("a connection");
                let mut written = 0;
                // Only where it is: a key that INCRBY made anew would be in the way of the one that comes back.
                let script = "if redis.call('exists', KEYS[1]) == 1 then return redis.call('incr', KEYS[1]) end return 0";
                let until = Instant::now() + Duration::from_secs(2);
                while Instant::now() < until {
                    written += i64::from(client.args(&["EVAL", script, "1", "counter"]).integer() > 0);
                }
                written
            })
        })
        .collect();
    let moved = mover.join().expect("the mover ends");
    let written: i64 = writers.into_iter().map(|writer| writer.join().expect("a writer ends")).sum();
    let found = one.server.connect().ask("GET counter").text();
    assert_eq!(found, written.to_string(), "after {moved} moves");
    assert!(written > 0 && moved > 1);
}

/// In a transaction and in a script too, where others may not see what is between.
#[test]
fn transactions_and_scripts_may_move_keys() {
    let home = start("everysec");
    let redis = home.redis("redis");
    let mut ours = home.server.connect();
    ours.ask("MULTI");
    ours.ask("SET k v");
    ours.ask(&migrate(redis.address(), "k 0 5000"));
    ours.ask("EXISTS k");
    assert_eq!(ours.ask("EXEC"), Value::Array(vec![Value::ok(), Value::ok(), Value::Integer(0)]));
    assert_eq!(redis.connect().ask("GET k").text(), "v");
    ours.ask("SET l w");
    let (host, port) = (redis.address().ip().to_string(), redis.address().port().to_string());
    let script = "return redis.call('migrate', ARGV[1], ARGV[2], KEYS[1], 0, 5000)";
    assert_eq!(ours.args(&["EVAL", script, "1", "l", &host, &port]), Value::ok());
    assert_eq!(redis.connect().ask("GET l").text(), "w");
    assert_eq!(ours.ask("EXISTS l").integer(), 0);
}
