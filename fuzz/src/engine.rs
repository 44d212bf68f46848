//! A whole engine, in memory: requests of clients, payloads for RESTORE, and what scripts decode. DEBUG is off, as it is where
//! nobody has switched it on.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use cairn_disk::{Disk, FaultyDisk};
use cairn_engine::{Embedded, Engine, Limits, Options, Outcome, Process, Reply, Session};
use cairn_rdb::dump;
use cairn_resp::{Args, Parsed, Parser, Value, decode};

/// Longer strings only cost memory.
const STRING_BYTES_MAX: usize = 1 << 16;
/// More requests of one input only cost time.
const REQUESTS_MAX: usize = 64;

/// A process without clients, where DEBUG is off.
struct NoDebug;

impl Process for NoDebug {
    fn debug_allowed(&self, _session: u64) -> bool {
        false
    }

    fn config_get(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        Embedded.config_get(patterns)
    }
}

thread_local! {
    /// Made once for each thread: an input begins with an empty keyspace, and making an engine takes longer than it does.
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

fn open() -> Engine {
    let disk = FaultyDisk::new();
    disk.create_dir_all(Path::new("/data")).expect("a disk in memory");
    let mut options = Options::new("/data");
    options.disk = Arc::new(disk);
    options.append_only = false;
    options.threads = 1;
    options.limits = Limits { string_bytes: STRING_BYTES_MAX, ..Limits::default() };
    Engine::open(options).expect("an empty directory")
}

/// One client of an engine that holds nothing.
struct Client {
    engine: Engine,
    session: Session,
    out: Vec<u8>,
}

impl Client {
    /// Runs `work` with a client.
    fn with(work: impl FnOnce(&mut Client)) {
        let engine = ENGINE.with_borrow_mut(|engine| engine.get_or_insert_with(open).clone());
        let session = engine.session();
        let mut client = Client { engine, session, out: Vec::new() };
        assert_eq!(client.ask(&[b"FLUSHALL"]), b"+OK\r\n");
        work(&mut client);
        let engine = client.engine.clone();
        engine.end_session(client.session);
        engine.tick(true);
    }

    /// The reply, which must be one, whatever was asked. Empty where the client would wait, or the server would work.
    fn ask(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.out.clear();
        let protocol = self.session.protocol;
        let reply = &mut Reply::new(&mut self.out, protocol);
        match self.engine.execute(&mut self.session, &NoDebug, args, reply) {
            Outcome::Done { .. } | Outcome::Close { .. } => {}
            Outcome::Blocking(_) | Outcome::Blocked(_) => return Vec::new(),
            Outcome::Wait(_) | Outcome::Contended => unreachable!("there is no journal, and nobody else"),
        }
        let reply = std::mem::take(&mut self.out);
        let mut rest = &reply[..];
        while !rest.is_empty() {
            let decoded = decode(rest).unwrap_or_else(|error| panic!("{}: {error}", reply.escape_ascii()));
            let (_, length) = decoded.unwrap_or_else(|| panic!("{}: it has no end", reply.escape_ascii()));
            rest = &rest[length..];
        }
        reply
    }

    fn is_error(&mut self, args: &[&[u8]]) -> bool {
        self.ask(args).starts_with(b"-")
    }
}

/// Commands that are left out: those that would go on for ever with some arguments, as scripts may, or make as many elements
/// as they are told, and those that leave this process (a snapshot forks).
const LEFT_OUT: &[&[u8]] = &[
    b"eval",
    b"eval_ro",
    b"evalsha",
    b"evalsha_ro",
    b"fcall",
    b"fcall_ro",
    b"function",
    b"script",
    b"bgsave",
    b"bgrewriteaof",
    b"lolwut",
];
/// Commands that make as many elements as a number says, where that is long.
const AS_MANY_AS_TOLD: &[&[u8]] = &[b"srandmember", b"hrandfield", b"zrandmember"];

fn is_left_out(args: &[&[u8]]) -> bool {
    let is_among = |names: &[&[u8]]| names.iter().any(|name| args[0].eq_ignore_ascii_case(name));
    is_among(LEFT_OUT) || (is_among(AS_MANY_AS_TOLD) && args.iter().any(|arg| arg.len() > 4))
}

/// Runs `data` as what a client sends.
pub fn commands(data: &[u8]) {
    Client::with(|client| {
        let (mut parser, mut args) = (Parser::new(cairn_resp::Limits::default()), Args::new());
        let mut rest = data;
        for _ in 0..REQUESTS_MAX {
            let Ok(Parsed::Request { consumed }) = parser.parse(rest, &mut args) else { break };
            let request: Vec<&[u8]> = args.slices(rest).iter().copied().collect();
            if !request.is_empty() && !is_left_out(&request) {
                client.ask(&request);
            }
            rest = &rest[consumed..];
            if client.session.closing {
                break;
            }
        }
        // Whatever it did can be dumped, and comes back as the same.
        client.ask(&[b"DISCARD"]);
        client.ask(&[b"RESET"]);
        let Ok(Some((Value::Array(keys), _))) = decode(&client.ask(&[b"KEYS", b"*"])) else { return };
        for key in keys {
            if let Value::Bulk(key) = key {
                comes_back(client, &key);
            }
        }
    });
}

/// What DUMP gives of a key is taken by RESTORE.
fn comes_back(client: &mut Client, key: &[u8]) {
    let Ok(Some((Value::Bulk(payload), _))) = decode(&client.ask(&[b"DUMP", key])) else { return };
    const AGAIN: &[u8] = b"comes back";
    let restored = client.ask(&[b"RESTORE", AGAIN, b"0", &payload, b"REPLACE"]);
    assert_eq!(restored, b"+OK\r\n", "{}", payload.escape_ascii());
    assert_eq!(client.ask(&[b"TYPE", key]), client.ask(&[b"TYPE", AGAIN]));
    client.ask(&[b"DEL", AGAIN]);
}

/// Gives `data` to RESTORE, as it is and with a right checksum, and looks at what it takes with every command that reads.
pub fn restore(data: &[u8]) {
    let mut finished = data.to_vec();
    dump::finish(&mut finished);
    Client::with(|client| {
        for payload in [data, &finished] {
            if client.is_error(&[b"RESTORE", b"k", b"0", payload, b"REPLACE"]) {
                continue;
            }
            for read in READS {
                client.ask(read);
            }
            comes_back(client, b"k");
            for write in WRITES {
                client.ask(write);
            }
            for read in READS {
                client.ask(read);
            }
        }
    });
}

#[rustfmt::skip]
const READS: &[&[&[u8]]] = &[
    &[b"TYPE", b"k"], &[b"OBJECT", b"ENCODING", b"k"], &[b"MEMORY", b"USAGE", b"k"], &[b"GET", b"k"],
    &[b"BITCOUNT", b"k"], &[b"PFCOUNT", b"k"], &[b"LRANGE", b"k", b"0", b"-1"], &[b"LINDEX", b"k", b"-1"],
    &[b"LPOS", b"k", b"a"], &[b"SMEMBERS", b"k"], &[b"SISMEMBER", b"k", b"a"], &[b"SSCAN", b"k", b"0"],
    &[b"HGETALL", b"k"], &[b"HSCAN", b"k", b"0"], &[b"HRANDFIELD", b"k", b"-3", b"WITHVALUES"],
    &[b"ZRANGE", b"k", b"0", b"-1", b"WITHSCORES"], &[b"ZRANK", b"k", b"a"], &[b"ZSCAN", b"k", b"0"],
    &[b"ZRANGEBYLEX", b"k", b"-", b"+"], &[b"ZRANGEBYSCORE", b"k", b"-inf", b"+inf"],
    &[b"GEOPOS", b"k", b"a"], &[b"XRANGE", b"k", b"-", b"+"], &[b"XREVRANGE", b"k", b"+", b"-"],
    &[b"XLEN", b"k"], &[b"XINFO", b"STREAM", b"k", b"FULL", b"COUNT", b"0"], &[b"XINFO", b"GROUPS", b"k"],
    &[b"SORT", b"k", b"ALPHA"], &[b"DUMP", b"k"], &[b"COPY", b"k", b"copied", b"REPLACE"],
];

#[rustfmt::skip]
const WRITES: &[&[&[u8]]] = &[
    &[b"APPEND", b"k", b"a"], &[b"SETBIT", b"k", b"77", b"1"], &[b"PFADD", b"k", b"a"], &[b"LPUSH", b"k", b"a"],
    &[b"LINSERT", b"k", b"BEFORE", b"a", b"b"], &[b"LSET", b"k", b"0", b"x"], &[b"LREM", b"k", b"0", b"a"],
    &[b"LTRIM", b"k", b"1", b"-2"], &[b"RPOP", b"k"], &[b"SADD", b"k", b"1", b"b"], &[b"SPOP", b"k"],
    &[b"HSET", b"k", b"f", b"v"], &[b"HINCRBY", b"k", b"n", b"1"], &[b"HDEL", b"k", b"f"],
    &[b"ZADD", b"k", b"1", b"a"], &[b"ZINCRBY", b"k", b"2", b"a"], &[b"ZPOPMIN", b"k"],
    &[b"ZREMRANGEBYRANK", b"k", b"0", b"0"], &[b"XADD", b"k", b"*", b"f", b"v"],
    &[b"XGROUP", b"CREATE", b"k", b"g", b"0"], &[b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"k", b">"],
    &[b"XAUTOCLAIM", b"k", b"g", b"d", b"0", b"0"], &[b"XTRIM", b"k", b"MAXLEN", b"1"],
];

/// What each library of scripts makes of bytes; what it has decoded, it writes and reads again. What gives many values is
/// called within a function: `pcall` itself, which is Lua's own, makes one value more of them than a build with assertions
/// bears, though there is always room for it.
const DECODERS: [&[u8]; 4] = [
    b"pcall(function() cjson.decode(cjson.encode(cjson.decode(ARGV[1]))) end); return 1",
    b"pcall(function() local t = {cmsgpack.unpack(ARGV[1])}; t = {cmsgpack.unpack(cmsgpack.pack(unpack(t)))} end); \
      pcall(function() local t = {cmsgpack.unpack_one(ARGV[1], 1)} end); \
      pcall(function() local t = {cmsgpack.unpack_limit(ARGV[1], 2, 0)} end); return 1",
    b"local at = string.find(ARGV[1], '\\0', 1, true) or 0; local form = string.sub(ARGV[1], 1, at - 1); \
      local bytes = string.sub(ARGV[1], at + 1); pcall(struct.size, form); \
      pcall(function() local t = {struct.unpack(form, bytes)}; struct.pack(form, unpack(t)) end); return 1",
    b"redis.sha1hex(ARGV[1]); bit.tohex(#ARGV[1], string.byte(ARGV[1]) or 0); return 1",
];

/// Gives `data` behind its first byte to the library that that byte chooses, in a script.
pub fn script_libraries(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let script = DECODERS[usize::from(choice) % DECODERS.len()];
    Client::with(|client| {
        let reply = client.ask(&[b"EVAL", script, b"0", bytes]);
        assert_eq!(reply, b":1\r\n", "{}", reply.escape_ascii());
    });
}
