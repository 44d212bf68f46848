//! Random commands whose outcome does not depend on chance or on the clock, so that two servers can be compared.

use crate::random::Random;
use crate::resp::Value;

/// A command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// How the replies of two servers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Equal as they stand.
    Exact,
    /// Equal once the items are sorted: sets promise no order.
    Items,
    /// Equal once the pairs are sorted: hashes promise no order.
    Pairs,
    /// Equal, but for how a string is held: Redis shows `raw` or `embstr` for what was changed in place and another name
    /// after a restart, so the difference says nothing about the value.
    Encoding,
    /// Remaining times, which may differ by the moment between two calls.
    Time,
}

const KEYS: usize = 24;

/// Few keys, so that commands meet each other's values and wrong types.
fn key(random: &mut Random) -> Vec<u8> {
    format!("key:{}", random.below(KEYS)).into_bytes()
}

fn field(random: &mut Random) -> Vec<u8> {
    format!("f{}", random.below(16)).into_bytes()
}

/// Values of every encoding: numbers, short and long text, and any bytes.
fn value(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0..=2 => random.between(-100, 100).to_string().into_bytes(),
        3 => random
            .pick(&["9223372036854775807", "-9223372036854775808", "007", "1.5", " 1", "", "+1"])
            .as_bytes()
            .to_vec(),
        4 => {
            let length = random.below(3_000);
            random.hex(length)
        }
        5 => {
            let length = random.below(40);
            random.bytes(length)
        }
        _ => {
            let length = random.below(24);
            random.hex(length)
        }
    }
}

fn member(random: &mut Random) -> Vec<u8> {
    if random.once_in(3) { random.between(-20, 20).to_string().into_bytes() } else { field(random) }
}

fn index(random: &mut Random) -> Vec<u8> {
    random.between(-8, 8).to_string().into_bytes()
}

fn number(random: &mut Random) -> Vec<u8> {
    random.between(-50, 50).to_string().into_bytes()
}

fn score(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => random
            .pick(&["inf", "-inf", "+inf", "1e20", "3.0e-5", "0.1", "-0", "not-a-score"])
            .as_bytes()
            .to_vec(),
        1 | 2 => format!("{}.{}", random.between(-30, 30), random.below(1000)).into_bytes(),
        _ => number(random),
    }
}

fn score_bound(random: &mut Random) -> Vec<u8> {
    let open = if random.once_in(4) { "(" } else { "" };
    match random.below(5) {
        0 => b"-inf".to_vec(),
        1 => b"+inf".to_vec(),
        _ => format!("{open}{}", random.between(-40, 40)).into_bytes(),
    }
}

fn lex_bound(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => b"-".to_vec(),
        1 => b"+".to_vec(),
        2 => format!("(f{}", random.below(16)).into_bytes(),
        _ => format!("[f{}", random.below(16)).into_bytes(),
    }
}

/// The pieces of a template are words, where these stand for something random:
/// `k` a key, `x` a key that only ever holds a small decimal number, `e` a sorted set of equal scores, `v` a value, `f` a field, `m` a member, `i` an index, `n` a number, `s` a score, `b` a score bound, `l` a
/// lexicographic bound, `t` seconds far ahead, `T` milliseconds far ahead, `U` unix seconds far ahead; `…*` one to five of it.
fn word(random: &mut Random, template: &str, out: &mut Command) {
    if let Some(repeated) = template.strip_suffix('*') {
        for _ in 0..=random.below(5) {
            for piece in repeated.split(',') {
                word(random, piece, out);
            }
        }
        return;
    }
    out.push(match template {
        "k" => key(random),
        "x" => format!("decimal:{}", random.below(3)).into_bytes(),
        "e" => format!("equal:{}", random.below(3)).into_bytes(),
        "v" => value(random),
        "f" => field(random),
        "m" => member(random),
        "i" => index(random),
        "n" => number(random),
        "s" => score(random),
        "b" => score_bound(random),
        "l" => lex_bound(random),
        "t" => random.between(5_000, 90_000).to_string().into_bytes(),
        "T" => random.between(5_000_000, 90_000_000).to_string().into_bytes(),
        "U" => random.between(4_000_000_000, 4_100_000_000).to_string().into_bytes(),
        word => word.as_bytes().to_vec(),
    });
}

/// Every command of the comparison with the order of its reply. Left out are those whose reply or effect is drawn by
/// lot (SPOP, SRANDMEMBER, RANDOMKEY) or depends on the table's layout (SCAN).
const TEMPLATES: &[(&str, Order)] = &[
    // Strings
    ("SET k v", Order::Exact),
    ("SET k v NX", Order::Exact),
    ("SET k v XX", Order::Exact),
    ("SET k v GET", Order::Exact),
    ("SET k v EX t", Order::Exact),
    ("SET k v PX T", Order::Exact),
    ("SET k v KEEPTTL", Order::Exact),
    ("SET k v NX XX", Order::Exact),
    ("SET k v EX 0", Order::Exact),
    ("GET k", Order::Exact),
    ("GETSET k v", Order::Exact),
    ("GETDEL k", Order::Exact),
    ("GETEX k EX t", Order::Exact),
    ("GETEX k PERSIST", Order::Exact),
    ("SETNX k v", Order::Exact),
    ("SETEX k t v", Order::Exact),
    ("SETEX k 0 v", Order::Exact),
    ("PSETEX k T v", Order::Exact),
    ("MSET k,v*", Order::Exact),
    ("MSET k v k", Order::Exact),
    ("MSETNX k v k v", Order::Exact),
    ("MGET k*", Order::Exact),
    ("INCR k", Order::Exact),
    ("DECR k", Order::Exact),
    ("INCRBY k n", Order::Exact),
    ("DECRBY k n", Order::Exact),
    ("INCRBY k v", Order::Exact),
    ("INCRBYFLOAT x 0.25", Order::Exact),
    ("INCRBYFLOAT x n", Order::Exact),
    ("GET x", Order::Exact),
    ("INCRBYFLOAT k not-a-number", Order::Exact),
    ("APPEND k v", Order::Exact),
    ("STRLEN k", Order::Exact),
    ("GETRANGE k i i", Order::Exact),
    ("SETRANGE k 3 v", Order::Exact),
    ("SETRANGE k -1 v", Order::Exact),
    // Keys and expiry
    ("DEL k*", Order::Exact),
    ("UNLINK k", Order::Exact),
    ("EXISTS k*", Order::Exact),
    ("TYPE k", Order::Exact),
    ("OBJECT ENCODING k", Order::Encoding),
    ("RENAME k k", Order::Exact),
    ("RENAMENX k k", Order::Exact),
    ("COPY k k", Order::Exact),
    ("COPY k k REPLACE", Order::Exact),
    ("KEYS key:1*", Order::Items),
    ("KEYS *", Order::Items),
    ("DBSIZE", Order::Exact),
    ("EXPIRE k t", Order::Exact),
    ("EXPIRE k -1", Order::Exact),
    ("EXPIRE k t NX", Order::Exact),
    ("EXPIRE k t XX", Order::Exact),
    ("PEXPIRE k T", Order::Exact),
    ("EXPIREAT k U", Order::Exact),
    ("EXPIRETIME k", Order::Time),
    ("PERSIST k", Order::Exact),
    ("TTL k", Order::Time),
    ("PTTL k", Order::Time),
    ("TOUCH k*", Order::Exact),
    ("MOVE k 1", Order::Exact),
    // Lists
    ("LPUSH k v*", Order::Exact),
    ("RPUSH k v*", Order::Exact),
    ("LPUSHX k v", Order::Exact),
    ("RPUSHX k v", Order::Exact),
    ("LPOP k", Order::Exact),
    ("RPOP k", Order::Exact),
    ("LPOP k 2", Order::Exact),
    ("RPOP k 0", Order::Exact),
    ("LLEN k", Order::Exact),
    ("LRANGE k i i", Order::Exact),
    ("LRANGE k 0 -1", Order::Exact),
    ("LINDEX k i", Order::Exact),
    ("LSET k i v", Order::Exact),
    ("LINSERT k BEFORE v v", Order::Exact),
    ("LREM k i v", Order::Exact),
    ("LTRIM k i i", Order::Exact),
    ("LMOVE k k LEFT RIGHT", Order::Exact),
    ("RPOPLPUSH k k", Order::Exact),
    ("LPOS k v", Order::Exact),
    // Sets
    ("SADD k m*", Order::Exact),
    ("SREM k m*", Order::Exact),
    ("SMEMBERS k", Order::Items),
    ("SISMEMBER k m", Order::Exact),
    ("SMISMEMBER k m*", Order::Exact),
    ("SCARD k", Order::Exact),
    ("SMOVE k k m", Order::Exact),
    ("SINTER k k", Order::Items),
    ("SUNION k*", Order::Items),
    ("SDIFF k k", Order::Items),
    ("SINTERSTORE k k k", Order::Exact),
    ("SUNIONSTORE k k k", Order::Exact),
    ("SDIFFSTORE k k k", Order::Exact),
    // Hashes
    ("HSET k f,v*", Order::Exact),
    ("HSET k f", Order::Exact),
    ("HMSET k f,v*", Order::Exact),
    ("HSETNX k f v", Order::Exact),
    ("HGET k f", Order::Exact),
    ("HMGET k f*", Order::Exact),
    ("HGETALL k", Order::Pairs),
    ("HDEL k f*", Order::Exact),
    ("HEXISTS k f", Order::Exact),
    ("HLEN k", Order::Exact),
    ("HKEYS k", Order::Items),
    ("HVALS k", Order::Items),
    ("HSTRLEN k f", Order::Exact),
    ("HINCRBY k f n", Order::Exact),
    ("HINCRBYFLOAT k f 1.5", Order::Exact),
    // Sorted sets
    ("ZADD k s,m*", Order::Exact),
    ("ZADD k NX s m", Order::Exact),
    ("ZADD k XX CH s m", Order::Exact),
    ("ZADD k GT CH s m", Order::Exact),
    ("ZADD k LT s m", Order::Exact),
    ("ZADD k INCR s m", Order::Exact),
    ("ZADD k NX XX s m", Order::Exact),
    ("ZINCRBY k n m", Order::Exact),
    ("ZREM k m*", Order::Exact),
    ("ZSCORE k m", Order::Exact),
    ("ZMSCORE k m*", Order::Exact),
    ("ZCARD k", Order::Exact),
    ("ZCOUNT k b b", Order::Exact),
    ("ZRANK k m", Order::Exact),
    ("ZREVRANK k m", Order::Exact),
    ("ZRANGE k i i", Order::Exact),
    ("ZRANGE k 0 -1 WITHSCORES", Order::Exact),
    ("ZREVRANGE k i i WITHSCORES", Order::Exact),
    ("ZRANGEBYSCORE k b b WITHSCORES", Order::Exact),
    ("ZRANGEBYSCORE k b b LIMIT 1 2", Order::Exact),
    ("ZREVRANGEBYSCORE k b b", Order::Exact),
    ("ZPOPMIN k", Order::Exact),
    ("ZPOPMAX k 2", Order::Exact),
    ("ZREMRANGEBYRANK k i i", Order::Exact),
    ("ZREMRANGEBYSCORE k b b", Order::Exact),
    // Order by member is defined only where all scores are equal.
    ("ZADD e 0 m", Order::Exact),
    ("ZADD e 0 f", Order::Exact),
    ("ZREM e m", Order::Exact),
    ("ZLEXCOUNT e l l", Order::Exact),
    ("ZRANGEBYLEX e l l", Order::Exact),
    ("ZREVRANGEBYLEX e l l", Order::Exact),
    ("ZREMRANGEBYLEX e l l", Order::Exact),
    // Wrong calls
    ("GET", Order::Exact),
    ("GET k k", Order::Exact),
    ("NOSUCHCOMMAND k", Order::Exact),
    ("OBJECT NOSUCH k", Order::Exact),
    ("EXPIRE k x", Order::Exact),
    ("ZADD k x m", Order::Exact),
    ("LRANGE k a b", Order::Exact),
];

/// A random command.
pub fn command(random: &mut Random) -> (Command, Order) {
    let (template, order) = TEMPLATES[random.below(TEMPLATES.len())];
    let mut command = Command::new();
    for piece in template.split(' ') {
        // A pattern such as `key:1*` is meant as it stands.
        if template.starts_with("KEYS") {
            command.push(piece.as_bytes().to_vec())
        } else {
            word(random, piece, &mut command)
        }
    }
    (command, order)
}

/// `count` random commands that write; what they reply does not matter.
pub fn dataset(seed: u64, count: usize) -> Vec<Command> {
    let mut random = Random::new(seed);
    let mut commands = Vec::with_capacity(count);
    while commands.len() < count {
        let (command, order) = command(&mut random);
        // MOVE stays: a second database belongs to a dataset.
        if order == Order::Exact {
            commands.push(command);
        }
        let n = commands.len();
        // Collections large enough to leave their small encodings.
        let more = |name: &str, args: &[String]| {
            [name, &format!("large:{name}")]
                .iter()
                .map(|s| s.as_bytes().to_vec())
                .chain(args.iter().map(|arg| arg.clone().into_bytes()))
                .collect::<Command>()
        };
        match n % 10 {
            0 => commands.push(more("RPUSH", &[format!("{}", random.next_u64())])),
            2 => commands.push(more("SADD", &[format!("{}", random.next_u64())])),
            4 => commands.push(more("HSET", &[format!("f{}", random.next_u64()), format!("{n}")])),
            6 => commands
                .push(more("ZADD", &[format!("{}", random.below(1000)), format!("m{}", random.next_u64())])),
            8 => commands.push(vec![b"SET".to_vec(), format!("plain:{n}").into_bytes(), random.hex(100)]),
            _ => {}
        }
    }
    commands
}

/// The reply in a form that two servers must agree on.
pub fn normal(value: Value, order: Order) -> Value {
    match (order, value) {
        (Order::Items, Value::Array(mut items) | Value::Set(mut items)) => {
            items.sort();
            Value::Array(items)
        }
        (Order::Pairs, Value::Array(items)) => {
            let mut pairs: Vec<_> = items.chunks(2).map(<[Value]>::to_vec).collect();
            pairs.sort();
            Value::Array(pairs.into_iter().flatten().collect())
        }
        (Order::Pairs, Value::Map(mut pairs)) => {
            pairs.sort();
            Value::Map(pairs)
        }
        (Order::Encoding, Value::Bulk(name)) if matches!(&name[..], b"raw" | b"int") => Value::bulk("embstr"),
        (_, value) => value,
    }
}

/// Whether two replies agree.
pub fn agree(left: &Value, right: &Value, order: Order) -> bool {
    match (order, left, right) {
        // A second of difference in seconds, five of them in milliseconds: two servers and a busy machine.
        (Order::Time, Value::Integer(left), Value::Integer(right)) if *left > 0 && *right > 0 => {
            let tolerance = if *left > 1_000_000 && *left < 100_000_000 { 5_000 } else { 5 };
            left.abs_diff(*right) <= tolerance
        }
        _ => normal(left.clone(), order) == normal(right.clone(), order),
    }
}
