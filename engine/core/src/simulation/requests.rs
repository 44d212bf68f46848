//! Random requests of all families whose outcome depends on nothing but the data and the simulated time.

use super::random::Random;

/// A request: its name and arguments.
pub(super) type Request = Vec<Vec<u8>>;

/// Words that begin with `$` stand for something random: `$s0` a key of the strings, `$v` a value, and so on; see [`word`].
const WRITES: &[&str] = &[
    "SET $str $v",
    "SET $str $v",
    "SET $str $v PX $ms",
    "SET $str $v NX",
    "SET $str $V",
    "SETEX $str 1 $v",
    "GETSET $str $v",
    "GETDEL $str",
    "GETEX $str PX $ms",
    "APPEND $str $v",
    "APPEND $str $V",
    "SETRANGE $str $i $v",
    "INCR $num",
    "INCRBY $num $i",
    "INCRBYFLOAT $num 0.5",
    "DECR $num",
    "MSET $str $v $str $v $num $i",
    "MSETNX $str $v $num $i",
    "HSET $hash $f $v $f $v",
    "HSET $hash $f $V",
    "HDEL $hash $f $f",
    "HINCRBY $hash count $i",
    "HPEXPIRE $hash $ms FIELDS 1 $f",
    "LPUSH $list $v $v",
    "RPUSH $list $v",
    "LPOP $list",
    "RPOP $list 2",
    "LTRIM $list 0 5",
    "LREM $list 0 $f",
    "LINSERT $list BEFORE $f $v",
    "LMOVE $list $list LEFT RIGHT",
    "SADD $set $f $f $v",
    "SADD $set $i $i",
    "SREM $set $f $f",
    "SPOP $set 1000",
    "SMOVE $set $set $f",
    "SUNIONSTORE $set $set $set",
    "ZADD $zset $i $f $i $f",
    "ZINCRBY $zset $i $f",
    "ZREM $zset $f $f",
    "ZPOPMIN $zset",
    "ZREMRANGEBYRANK $zset 0 1",
    "ZUNIONSTORE $zset 2 $zset $zset",
    "XADD $stream * $f $v",
    "XADD $stream MAXLEN 3 * $f $v",
    "XGROUP CREATE $stream group 0 MKSTREAM",
    "XREADGROUP GROUP group me COUNT 1 STREAMS $stream >",
    "XTRIM $stream MAXLEN 2",
    "SETBIT $bits $i 1",
    "BITOP XOR $bits $bits $bits",
    "BITFIELD $bits INCRBY u8 $i $i",
    "PFADD $hll $f $v",
    "PFMERGE $hll $hll $hll",
    "GEOADD $geo 13.361389 38.115556 $f",
    "DEL $any $any",
    "UNLINK $any",
    "RENAME $any $any",
    "COPY $any $any REPLACE",
    "PEXPIRE $any $ms",
    "PEXPIRE $any $ms",
    "PERSIST $any",
    "MOVE $any 1",
    "SORT $list ALPHA STORE $list",
    "FLUSHDB",
    "SWAPDB 0 1",
    "EVAL $double 2 $str $list $v",
    "EVAL $many 1 $hash $n",
    "EVAL $pop 1 $set",
    "FUNCTION LOAD REPLACE $library",
    "FUNCTION DELETE library",
];

/// Requests that write nothing, unless they find that a key has expired.
const READS: &[&str] = &[
    "GET $str",
    "GET $str",
    "GET $num",
    "STRLEN $str",
    "HGETALL $hash",
    "LRANGE $list 0 -1",
    "SMEMBERS $set",
    "ZRANGE $zset 0 -1",
    "XRANGE $stream - +",
    "PFCOUNT $hll",
    "EXISTS $any",
    "TYPE $any",
    "PTTL $any",
    "DBSIZE",
];

/// Requests that wait where there is nothing.
const WAITING: &[&str] =
    &["BLPOP $list $list 0", "BRPOP $list 0", "BLMOVE $list $list LEFT LEFT 0", "BZPOPMIN $zset 0"];

const DOUBLE: &str = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[1], 'x') return redis.call('LLEN', KEYS[2])";
const MANY: &str = "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], 'field' .. i % 7, i) end";
const POP: &str = "while redis.call('SCARD', KEYS[1]) > 1 do redis.call('SPOP', KEYS[1], 1000) end";

const KINDS: &[&str] = &["str", "num", "hash", "list", "set", "zset", "stream", "bits", "hll", "geo"];
const KEYS_OF_A_KIND: usize = 4;

/// What somebody may ask next: a few requests that belong together.
pub(super) fn draw(random: &mut Random) -> Vec<Request> {
    match random.below(20) {
        0 | 1 => transaction(random),
        2 => vec![request(random, random_of(WAITING))],
        3..=6 => vec![request(random, random_of(READS))],
        _ => vec![request(random, random_of(WRITES))],
    }
}

fn transaction(random: &mut Random) -> Vec<Request> {
    let mut requests = Vec::new();
    if random.once_in(3) {
        requests.push(request(random, |_| "WATCH $any"));
    }
    requests.push(request(random, |_| "MULTI"));
    // Some are longer than a frame, and some longer than a segment.
    let count = if random.once_in(6) { 40 + random.below(200) } else { 1 + random.below(5) };
    let long = count > 6;
    for _ in 0..count {
        let template = if long { "RPUSH $list $long" } else { random.pick(WRITES) };
        requests.push(request(random, |_| template));
    }
    requests.push(request(random, |random| if random.once_in(12) { "DISCARD" } else { "EXEC" }));
    requests
}

fn random_of(templates: &'static [&'static str]) -> impl FnOnce(&mut Random) -> &'static str {
    |random| random.pick(templates)
}

fn request(random: &mut Random, template: impl FnOnce(&mut Random) -> &'static str) -> Request {
    let template = template(random);
    template
        .split(' ')
        .map(|part| part.strip_prefix('$').map_or(part.into(), |name| word(random, name)))
        .collect()
}

fn word(random: &mut Random, name: &str) -> Vec<u8> {
    match name {
        "v" => {
            let count = random.below(40);
            random.bytes(count)
        }
        // Longer than a page, at times than a frame.
        "V" => {
            let count = if random.once_in(4) { 20_000 + random.below(120_000) } else { random.below(9_000) };
            random.bytes(count)
        }
        "long" => random.bytes(1_000),
        "f" => format!("field{}", random.below(8)).into_bytes(),
        "i" => random.below(200).to_string().into_bytes(),
        "n" => (1 + random.below(60)).to_string().into_bytes(),
        "ms" => (1 + random.below(3_000)).to_string().into_bytes(),
        "double" => DOUBLE.into(),
        "many" => MANY.into(),
        "pop" => POP.into(),
        "library" => {
            let number = random.below(1_000);
            format!("#!lua name=library\nredis.register_function('number', function() return {number} end)")
                .into()
        }
        "any" => {
            let kind = random.pick(KINDS);
            key(random, kind)
        }
        kind => key(random, kind),
    }
}

fn key(random: &mut Random, kind: &str) -> Vec<u8> {
    format!("{kind}:{}", random.below(KEYS_OF_A_KIND)).into_bytes()
}

/// Whether a request writes by itself, and not only where it finds that a key has expired.
pub(super) fn is_write(request: &Request) -> bool {
    let name = &request[0][..];
    name != b"WATCH" && !READS.iter().any(|read| read.split(' ').next().map(str::as_bytes) == Some(name))
}

/// Whether a request only looks at its one key.
pub(super) fn is_read_of_one_key(request: &Request) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"GET",
        b"STRLEN",
        b"HGETALL",
        b"LRANGE",
        b"SMEMBERS",
        b"ZRANGE",
        b"XRANGE",
        b"PFCOUNT",
        b"EXISTS",
        b"TYPE",
        b"PTTL",
        b"LLEN",
    ];
    NAMES.contains(&&request[0][..])
}

/// Whether a request that changed something has changed its first key.
pub(super) fn is_write_of_one_key(request: &Request) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"SET",
        b"APPEND",
        b"SETRANGE",
        b"INCR",
        b"INCRBY",
        b"HSET",
        b"LPUSH",
        b"RPUSH",
        b"SADD",
        b"ZADD",
        b"XADD",
        b"PFADD",
    ];
    NAMES.contains(&&request[0][..])
}
