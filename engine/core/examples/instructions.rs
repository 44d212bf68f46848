//! Small works of an engine, to be run under callgrind: how many instructions a GET, a SET, and a key of a snapshot take.
//!
//! `instructions WORK DIR [COUNT]`; `make instructions` calls it with two counts each and takes the difference, so that
//! start and end cancel. Everything is sealed, on one thread, and ends without giving the keyspace back.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;

use cairn_engine::{Embedded, Engine, Options, Outcome, Protocol, Reply, Session};
use cairn_seal::Keyring;

/// Keys that `get` and `set` are about.
const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"));
    match words[..] {
        ["get", dir, n] => Work::new(dir, true).filled(KEYS).each(count(n), |work, n| work.get(n)).end(),
        ["set", dir, n] => Work::new(dir, true).filled(KEYS).each(count(n), |work, n| work.set(n)).end(),
        ["fill", dir, n] => Work::new(dir, true).filled(count(n)).end(),
        ["fill-snapshot", dir, n] => Work::new(dir, true).filled(count(n)).snapshot().end(),
        // Neither needs a journal of its own; one that is there is replayed.
        ["open", dir] => Work::new(dir, false).end(),
        ["snapshot", dir] => Work::new(dir, false).snapshot().end(),
        _ => {
            eprintln!("instructions get|set|fill|fill-snapshot DIR COUNT, or open|snapshot DIR");
            exit(2);
        }
    }
}

struct Work {
    engine: Engine,
    session: Session,
    reply: Vec<u8>,
    random: u64,
}

impl Work {
    fn new(dir: &str, append_only: bool) -> Self {
        let options = Options {
            append_only,
            keyring: Some(Arc::new(keyring(Path::new(dir)))),
            threads: 1,
            ..Options::new(dir)
        };
        let engine = Engine::open(options).unwrap_or_else(|error| panic!("{error}"));
        let session = engine.session();
        Self { engine, session, reply: Vec::new(), random: 1 }
    }

    fn filled(self, keys: usize) -> Self {
        self.each(keys, |work, number| {
            let value = work.hex();
            work.execute(&[b"SET", &key(number), &value]);
        })
    }

    fn each(mut self, count: usize, mut work: impl FnMut(&mut Self, usize)) -> Self {
        (0..count).for_each(|number| work(&mut self, number));
        self
    }

    fn get(&mut self, _number: usize) {
        let key = key(self.next() as usize % KEYS);
        self.execute(&[b"GET", &key]);
        assert!(self.reply.starts_with(b"$100\r\n"));
    }

    fn set(&mut self, _number: usize) {
        let (key, value) = (key(self.next() as usize % KEYS), self.hex());
        self.execute(&[b"SET", &key, &value]);
        assert_eq!(self.reply, b"+OK\r\n");
    }

    fn execute(&mut self, request: &[&[u8]]) {
        loop {
            self.reply.clear();
            let mut reply = Reply::new(&mut self.reply, Protocol::Resp2);
            match self.engine.execute(&mut self.session, &Embedded, request, &mut reply) {
                Outcome::Done { .. } => return,
                Outcome::Wait(wait) => wait.block(),
                _ => panic!("{} neither replied nor waits", request[0].escape_ascii()),
            }
        }
    }

    fn snapshot(self) -> Self {
        self.engine.snapshot().unwrap_or_else(|error| panic!("{error}"));
        self
    }

    /// Ends the process at once: to free every key would be counted, and no server does that.
    fn end(self) {
        self.engine.shutdown(Some(false)).unwrap_or_else(|error| panic!("{error}"));
        exit(0);
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Random hexadecimal, of which half compresses away.
    fn hex(&mut self) -> [u8; VALUE_BYTES] {
        let mut value = [0; VALUE_BYTES];
        for chunk in value.chunks_mut(16) {
            let mut bits = self.next();
            for digit in chunk {
                *digit = b"0123456789abcdef"[(bits & 15) as usize];
                bits >>= 4;
            }
        }
        value
    }
}

/// The keyring beside a directory, made with it.
fn keyring(dir: &Path) -> Keyring {
    let path: PathBuf = dir.with_extension("keyring");
    if !path.exists() {
        let keyring = Keyring::generate().expect("random numbers");
        keyring.write_new_file(&path).expect("a file beside the directory");
    }
    Keyring::load_file(&path).expect("the keyring that was written")
}

/// `key:000000000123`, made with few instructions: they are counted too.
fn key(mut number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    key
}
