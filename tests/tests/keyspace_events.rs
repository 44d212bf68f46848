//! Keyspace events of every family are those of redis-server, command by command, and those of later commands as Redis 8
//! documents them: <https://redis.io/docs/latest/develop/use/keyspace-notifications/>

use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};

const COMMANDS: &[&str] = &[
    // Streams.
    "XADD s 1-1 a b",
    "XADD s 1-2 a b",
    "XADD s MAXLEN 1 1-3 a b",
    "XADD s 1-4 a b",
    "XTRIM s MAXLEN 5",
    "XTRIM s MAXLEN 1",
    "XADD s 1-5 a b",
    "XDEL s 9-9",
    "XDEL s 1-5",
    "XSETID s 1-9",
    "XGROUP CREATE s g 0",
    "XGROUP CREATE s g 0",
    "XGROUP CREATE t g 0 MKSTREAM",
    "XGROUP SETID s g 0",
    "XGROUP CREATECONSUMER s g c",
    "XGROUP CREATECONSUMER s g c",
    "XREADGROUP GROUP g d STREAMS s >",
    "XREADGROUP GROUP g e STREAMS s >",
    "XREADGROUP GROUP g f STREAMS s 0",
    "XCLAIM s g h 0 1-4",
    "XCLAIM s g j 0 9-9",
    "XAUTOCLAIM s g i 0 0",
    "XACK s g 1-4",
    "XGROUP DELCONSUMER s g c",
    "XGROUP DELCONSUMER s g nobody",
    "XGROUP DESTROY s g",
    "XGROUP DESTROY s g",
    // Lists, sorted or not.
    "RPUSH l 3 1 2",
    "SORT l STORE d",
    "SORT absent STORE d",
    "SORT absent STORE d",
    "LINSERT l BEFORE 1 7",
    "LSET l 0 9",
    "LREM l 0 9",
    "LMOVE l l2 LEFT RIGHT",
    "LMPOP 2 l l2 RIGHT",
    "LTRIM l 5 6",
    "RPOPLPUSH l2 l",
    // What is looked for in vain.
    "GET absent",
    "EXISTS absent",
    "TTL absent",
    "DUMP absent",
    "OBJECT ENCODING absent",
    "MEMORY USAGE absent",
    // Strings and keys.
    "SET x 1",
    "SET x 10 EX 100",
    "GETEX x PX 100000",
    "GETEX x PERSIST",
    "COPY x y",
    "COPY x y REPLACE",
    "RENAME y z",
    "APPEND x a",
    "SETRANGE x 1 a",
    "MSET m1 1 m2 2",
    "MSETNX m3 1 m4 2",
    "GETDEL m1",
    "INCR m2",
    "INCRBYFLOAT m2 1.5",
    "EXPIRE m3 100",
    "PERSIST m3",
    "EXPIRE m3 -1",
    "MOVE m4 1",
    "UNLINK m2",
    "SETBIT b 1 1",
    "BITOP OR b2 b",
    "BITOP OR b2 absent",
    "BITFIELD b SET u8 0 9",
    "PFADD p a",
    "PFMERGE q p",
    // Sets, sorted sets, hashes.
    "SADD s1 a b",
    "SMOVE s1 s2 a",
    "SPOP s1",
    "SUNIONSTORE s3 s2",
    "SDIFFSTORE s3 absent",
    "ZADD z1 1 a 2 b",
    "ZADD z1 1 a",
    "ZINCRBY z1 1 a",
    "ZRANGESTORE z2 z1 0 -1",
    "ZRANGESTORE z2 z1 8 9",
    "ZPOPMIN z1",
    "ZREMRANGEBYRANK z1 0 -1",
    "GEOADD ge 13 38 a",
    "GEOSEARCHSTORE near ge FROMMEMBER a BYRADIUS 1 km",
    "ZMPOP 1 ge MIN",
    "HSET h a 1",
    "HINCRBY h a 1",
    "HSETNX h a 1",
    "HDEL h a b",
    "FLUSHALL",
];

/// A client that works, and one that listens to every class of events.
struct Listened {
    worker: Client,
    listener: Client,
}

impl Listened {
    fn to(server: &Server) -> Self {
        let (mut worker, mut listener) = (server.connect(), server.connect());
        assert_eq!(worker.ask("CONFIG SET notify-keyspace-events EAmn"), Value::ok());
        listener.ask("PSUBSCRIBE __keyevent@*");
        Self { worker, listener }
    }

    /// The events of one command, as `event key`.
    fn events_of<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Vec<String> {
        self.worker.args(command);
        // What one client does is told in order, so that this comes behind the events.
        self.worker.ask("PUBLISH __keyevent@end: end");
        let mut events = Vec::new();
        loop {
            let message = self.listener.reply().expect("a message").items();
            let [_, _, channel, key] = &message[..] else { panic!("no message: {message:?}") };
            let (channel, key) = (channel.clone().text(), key.clone().text());
            match channel.split_once(':') {
                Some((_, "")) => return events,
                Some((_, event)) => events.push(format!("{event} {key}")),
                None => panic!("a channel without an event: {channel}"),
            }
        }
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn events_are_those_of_redis() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let cairn = Setup::cairn(homes[0].path()).with("appendonly", "no").start();
    let redis = Setup::redis(homes[1].path()).start();
    let (mut ours, mut theirs) = (Listened::to(&cairn), Listened::to(&redis));
    let mut count = 0;
    for line in COMMANDS {
        let expected = theirs.events_of(&words(line));
        assert_eq!(ours.events_of(&words(line)), expected, "{line}");
        count += expected.len();
    }
    assert!(count > 80, "only {count} events were compared");
    theirs.events_of(&words("SET value text"));
    let Value::Bulk(dump) = theirs.worker.ask("DUMP value") else { panic!("nothing was dumped") };
    for (to, ttl, options) in
        [("copy", "0", &[][..]), ("copy", "0", &["REPLACE"]), ("copy", "1", &["REPLACE", "ABSTTL"])]
    {
        let mut command = words(&format!("RESTORE {to} {ttl}"));
        command.push(dump.clone());
        command.extend(options.iter().map(|word| word.as_bytes().to_vec()));
        assert_eq!(ours.events_of(&command), theirs.events_of(&command), "{options:?}");
    }
    cairn.stop();
    redis.stop();
}

#[test]
fn fields_that_expire_are_told() {
    let home = tempfile::tempdir().unwrap();
    let server = Setup::cairn(home.path()).with("appendonly", "no").start();
    let mut ours = Listened::to(&server);
    for (line, expected) in [
        ("HSETEX h EX 100 FIELDS 2 a 1 b 2", &["new h", "hset h", "hexpire h"][..]),
        ("HEXPIRE h 10 FIELDS 1 a", &["hexpire h"]),
        ("HEXPIRE h 10 FIELDS 1 absent", &[]),
        ("HPERSIST h FIELDS 1 a", &["hpersist h"]),
        ("HPERSIST h FIELDS 1 a", &[]),
        ("HGETEX h EX 100 FIELDS 1 a", &["hexpire h"]),
        ("HGETEX h PERSIST FIELDS 1 a", &["hpersist h"]),
        ("HGETDEL h FIELDS 2 a absent", &["hdel h"]),
        ("HEXPIREAT h 1 FIELDS 1 b", &["hdel h", "del h"]),
        ("HSETEX h FIELDS 1 b 1", &["new h", "hset h"]),
        ("HSETEX h PXAT 1 FIELDS 1 b 1", &["hdel h", "del h"]),
    ] {
        assert_eq!(ours.events_of(&words(line)), expected, "{line}");
    }
    ours.worker.ask("HSET h a 1");
    ours.worker.ask("HPEXPIRE h 1 FIELDS 1 a");
    let next = |client: &mut Client| client.reply().expect("a message").items()[2].text();
    let told: Vec<String> = (0..5).map(|_| next(&mut ours.listener)).collect();
    let of = |event: &str| format!("__keyevent@0__:{event}");
    assert_eq!(told, ["new", "hset", "hexpire", "hexpired", "del"].map(of));
    server.stop();
}
