//! Requests as no client library would send them: Cairn must answer byte for byte as Redis does, close the connection
//! where Redis closes it, and disturb no other.

use cairn_tests::random::{self, Random};
use cairn_tests::resp::{Client, Value, encode};
use cairn_tests::server::{Server, Setup};
use std::io;

/// Both servers, started once for a test.
struct Both {
    cairn: Server,
    redis: Server,
    _home: tempfile::TempDir,
}

impl Both {
    fn start() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl Fn(Setup) -> Setup) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let cairn = change(Setup::cairn(&home.path().join("cairn")).with("appendonly", "no")).start();
        let redis = change(Setup::redis(&home.path().join("redis"))).start();
        Self { cairn, redis, _home: home }
    }

    /// Sends `bytes`, then says that nothing more will come; both must answer with the same bytes.
    #[track_caller]
    fn same(&self, bytes: &[u8]) -> Vec<u8> {
        self.same_in_pieces(&[bytes])
    }

    #[track_caller]
    fn same_in_pieces(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let (ours, theirs) = (converse(&self.cairn, pieces), converse(&self.redis, pieces));
        if ours != theirs {
            let differ = ours
                .iter()
                .zip(&theirs)
                .position(|(left, right)| left != right)
                .unwrap_or(ours.len().min(theirs.len()));
            let around = |bytes: &[u8]| {
                bytes[differ.saturating_sub(60)..bytes.len().min(differ + 120)].escape_ascii().to_string()
            };
            let request = pieces.concat();
            panic!(
                "after {}… the answers differ at byte {differ}\n Cairn: …{}\n Redis: …{}",
                request[..request.len().min(200)].escape_ascii(),
                around(&ours),
                around(&theirs)
            );
        }
        theirs
    }
}

/// The whole answer to `pieces`, up to the end of the connection.
fn converse(server: &Server, pieces: &[&[u8]]) -> Vec<u8> {
    let mut client = server.connect();
    for piece in pieces {
        match client.send(piece) {
            Ok(()) => {}
            // The server may close before it has read everything.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let _ = client.finish_sending();
    client.until_closed().expect("the answer can be read")
}

#[test]
fn malformed_requests_get_rediss_error() {
    let both = Both::start();
    let cases: &[&[u8]] = &[
        b"*1\r\n$4\r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n",
        b"*x\r\nPING\r\n",
        b"*2147483648\r\n",
        b"*3000000000000000000000\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n$x\r\nPING\r\n",
        b"*1\r\n$-1\r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*2\r\n$4\r\nECHO\r\n:3\r\n",
        b"*1\r\n$4\r\nPINGxxPING\r\n",
        b"GET\r\n",
        b"PING\n",
        b"PING\r\n",
        b"\r\n\r\nPING\r\n",
        b"PING \"hello world\"\r\n",
        b"PING 'it''s'\r\n",
        b"PING \"\\x41\\n\\\"\"\r\n",
        b"PING \"unbalanced\r\n",
        b"PING 'unbalanced\r\n",
        b"SET k \"\"\r\nGET k\r\n",
        b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        b"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$4\r\nPI\r\n\r\n$1\r\nx\r\n",
        b"*2\r\n$9\r\nNOSUCH\r\n\x01\r\n$3\r\na\r\nb\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n*1\r\n$4\r\nPING\r\n",
        b"GET a\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n",
        b"HELLO 9\r\nPING\r\n",
        b"HELLO x\r\nPING\r\n",
        b"HELLO 2 SETNAME\r\nPING\r\n",
    ];
    for case in cases {
        both.same(case);
    }
}

#[test]
fn oversized_requests_get_rediss_error() {
    let both = Both::start();
    // An inline request, a count and a length that never end.
    for start in [&b""[..], b"*", b"*1\r\n$"] {
        let mut bytes = start.to_vec();
        bytes.resize(start.len() + 70_000, b'1');
        both.same(&bytes);
    }
    // 64 KiB of inline request are fine as long as the line ends in time.
    let mut line = b"ECHO ".to_vec();
    line.resize(60_000, b'a');
    line.extend_from_slice(b"\r\n");
    both.same(&line);
    // A large value is no error.
    let mut request = Vec::new();
    encode(&mut request, &[&b"SET"[..], b"large", &vec![b'v'; 3 << 20]]);
    encode(&mut request, &[&b"STRLEN"[..], b"large"]);
    assert_eq!(both.same(&request), b"+OK\r\n:3145728\r\n");
    both.same(b"CONFIG SET proto-max-bulk-len 1048576\r\n*2\r\n$4\r\nECHO\r\n$1048577\r\n");
}

/// A connection that has not authenticated may send little, and learns nothing.
#[test]
fn unauthenticated_requests_are_bounded() {
    let both = Both::with(|setup| setup.with("requirepass", "a password"));
    let cases: &[&[u8]] = &[
        b"PING\r\n",
        b"SET a b\r\n",
        b"AUTH wrong\r\nPING\r\n",
        b"AUTH 'a password'\r\nPING\r\n",
        b"AUTH default 'a password'\r\nPING\r\n",
        b"AUTH 'a password'\r\nRESET\r\n*11\r\n$4\r\nPING\r\n",
        b"AUTH somebody 'a password'\r\nPING\r\n",
        b"AUTH\r\n",
        b"AUTH a b c\r\n",
        b"HELLO 2 AUTH default wrong\r\nPING\r\n",
        b"HELLO 3\r\nPING\r\n",
        b"*11\r\n",
        b"*2\r\n$16385\r\n",
        b"*10\r\n$16384\r\n",
        b"QUIT\r\n",
        b"NOSUCHCOMMAND\r\n",
        b"MULTI\r\nEXEC\r\n",
    ];
    for case in cases {
        both.same(case);
    }
}

#[test]
fn pipelines_of_any_shape_are_answered_in_order() {
    let both = Both::start();
    let seed = random::seed("pipelines_of_any_shape");
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for n in 0..3_000 {
        let value = {
            let length = random.below(300);
            random.bytes(length)
        };
        match random.below(5) {
            0 => bytes.extend_from_slice(format!("SET k{} {n}\r\n", n % 50).as_bytes()),
            1 => encode(&mut bytes, &[&b"SET"[..], format!("k{}", n % 50).as_bytes(), &value]),
            2 => encode(&mut bytes, &[&b"GET"[..], format!("k{}", n % 50).as_bytes()]),
            3 => encode(&mut bytes, &[&b"RPUSH"[..], format!("l{}", n % 50).as_bytes(), &value]),
            _ => encode(&mut bytes, &[&b"LRANGE"[..], format!("l{}", n % 50).as_bytes(), b"-3", b"-1"]),
        }
    }
    let whole = both.same(&bytes);
    // The same bytes cut at random places give the same answer; the keys are removed first.
    let mut pieces = vec![&b"FLUSHALL\r\n"[..]];
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + random.below(4_000)).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let cut = both.same_in_pieces(&pieces);
    assert_eq!(&cut[5..], &whole[..]);
}

/// One byte at a time is slow, and that is all.
#[test]
fn requests_may_trickle_in() {
    let both = Both::start();
    let mut bytes = b"PING\r\n".to_vec();
    encode(&mut bytes, &[&b"SET"[..], b"key", b"a value\r\nof two lines"]);
    encode(&mut bytes, &[&b"GET"[..], b"key"]);
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    both.same_in_pieces(&pieces);
}

#[test]
fn resp3_replies_have_resp3_types() {
    let both = Both::start();
    // The reply to HELLO names server and version, so it is looked at and not compared.
    for server in [&both.cairn, &both.redis] {
        let mut client = server.connect();
        let Value::Map(pairs) = client.ask("HELLO 3") else { panic!("HELLO 3 gives a map") };
        let field =
            |name: &str| pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value.clone());
        assert_eq!(field("proto"), Some(Value::Integer(3)));
        assert_eq!(field("role").map(|role| role.text()), Some("master".to_owned()));
        assert!(field("version").is_some() && field("server").is_some() && field("id").is_some());
        let mut client = server.connect();
        assert!(matches!(client.ask("HELLO 2"), Value::Array(items) if items.len() == 14));
    }
    let commands = "HSET h a 1\r\nHGETALL h\r\nSADD s x\r\nSMEMBERS s\r\nZADD z 1.5 m\r\nZSCORE z m\r\nZRANGE z 0 -1 WITHSCORES\r\n\
        ZADD z INCR 1 m\r\nZPOPMIN z\r\nGET none\r\nLPOP none\r\nLPOP none 2\r\nEXEC\r\nCONFIG GET maxmemory\r\nZRANK z none\r\n\
        WATCH w\r\nSET w 1\r\nMULTI\r\nGET w\r\nEXEC\r\nMGET w none\r\nINCRBYFLOAT f 1.5\r\nHINCRBYFLOAT h a 0.5\r\nZMSCORE z a b\r\n";
    let (ours, theirs) = (typed(&both.cairn, commands), typed(&both.redis, commands));
    for ((command, ours), theirs) in commands.split("\r\n").zip(&ours).zip(&theirs) {
        assert_eq!(ours, theirs, "RESP3 reply to {command} (Cairn, then Redis)");
    }
}

/// The replies to `commands` in RESP3.
fn typed(server: &Server, commands: &str) -> Vec<Value> {
    let mut client = server.connect();
    assert!(!client.ask("HELLO 3").is_error());
    commands.split("\r\n").filter(|line| !line.is_empty()).map(|line| client.ask(line)).collect()
}

/// Garbage closes the connection that sent it, and no other.
#[test]
fn garbage_disturbs_nobody_else() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let server = Setup::cairn(&home.path().join("data")).journal("everysec").start();
    let mut random = Random::new(random::seed("garbage_disturbs_nobody_else"));
    let mut witness = server.connect();
    assert_eq!(witness.ask("SET witness 1"), Value::ok());
    for round in 0..300 {
        let mut bytes = {
            let length = 1 + random.below(400);
            random.bytes(length)
        };
        if round % 2 == 0 {
            bytes.splice(0..0, *b"*3\r\n$3\r\nSET\r\n$");
        }
        let mut client = Client::connect(server.address()).expect("the server listens");
        let _ = client.send(&bytes);
        let _ = client.finish_sending();
        let _ = client.until_closed();
        assert_eq!(witness.ask("INCR witness").integer(), round + 2);
    }
    assert_eq!(witness.ask("DBSIZE").integer(), 1, "garbage was taken for a write");
    server.stop();
}
