//! Replays the seeds of each fuzz target: as they are, cut at every byte, and mutated. Runs with a stable compiler and
//! takes seconds, so it goes where cargo-fuzz is not; it finds what a change broke, not what hides deep.
//!
//! The mutations are the same in each run. `CAIRN_FUZZ_SEED=<number>` asks for others, `CAIRN_FUZZ_MUTATIONS=<number>` for
//! more in each target, and `CAIRN_FUZZ_SECONDS=<number>` for rounds of them with seeds of their own until so long has passed; an
//! input that panics is left in `fuzz/artifacts/<target>`, where cargo-fuzz leaves its own.

use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Mutations of all seeds of a target together: of one that reads some bytes, and of one that reads whole files.
const MANY: u64 = 40_000;
const FEW: u64 = 8_000;

#[test]
fn resp() {
    smoke("resp", MANY, cairn_fuzz::resp);
}

#[test]
fn journal_frame() {
    smoke("journal_frame", FEW, cairn_fuzz::journal_frame);
}

#[test]
fn snapshot_container() {
    smoke("snapshot_container", FEW, cairn_fuzz::snapshot_container);
}

#[test]
fn sealed_chunk() {
    smoke("sealed_chunk", MANY, cairn_fuzz::sealed_chunk);
}

#[test]
fn manifest() {
    smoke("manifest", MANY, cairn_fuzz::manifest);
}

#[test]
fn rdb_file() {
    smoke("rdb_file", MANY, cairn_fuzz::rdb_file);
}

#[test]
fn rdb_value() {
    smoke("rdb_value", MANY, cairn_fuzz::rdb_value);
}

#[test]
fn commands() {
    smoke("commands", FEW, cairn_fuzz::commands);
}

#[test]
fn restore() {
    smoke("restore", FEW, cairn_fuzz::restore);
}

#[test]
fn script_libraries() {
    smoke("script_libraries", FEW, cairn_fuzz::script_libraries);
}

thread_local! {
    /// The target of this thread, and what it is trying.
    static TRIED: RefCell<(String, Vec<u8>)> = const { RefCell::new((String::new(), Vec::new())) };
}

/// Keeps the input of whatever panics, even where that ends the process, as it does within an engine's command.
fn keep_what_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let (target, input) = TRIED.take();
            if !input.is_empty() {
                eprintln!("{target}: the input is in {}", keep(&target, &input).display());
            }
            before(info);
        }));
    });
}

fn smoke(target: &str, mutations: u64, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "fuzz/seeds/{target} is empty");
    keep_what_panics();
    let try_one = |input: &[u8], what: &dyn Fn() -> String| {
        TRIED.with_borrow_mut(|tried| {
            target.clone_into(&mut tried.0);
            input.clone_into(&mut tried.1);
        });
        assert!(catch_unwind(AssertUnwindSafe(|| run(input))).is_ok(), "{target} panicked on {}", what());
    };
    for (name, seed) in &seeds {
        try_one(seed, &|| format!("the seed {name}"));
        for length in 0..seed.len() {
            try_one(&seed[..length], &|| format!("the first {length} bytes of {name}"));
        }
    }
    let first = number_from("CAIRN_FUZZ_SEED", 1);
    let each = number_from("CAIRN_FUZZ_MUTATIONS", mutations).div_ceil(seeds.len() as u64);
    let until = Instant::now() + Duration::from_secs(number_from("CAIRN_FUZZ_SECONDS", 0));
    let mut rounds = 0;
    loop {
        let begin = first.wrapping_add(rounds);
        round(&seeds, begin, each, &mut |input, what| {
            try_one(input, &|| format!("{what}, CAIRN_FUZZ_SEED={begin}"));
        });
        rounds += 1;
        if Instant::now() >= until {
            break;
        }
    }
    let inputs = rounds * each * seeds.len() as u64;
    println!("{target}: {inputs} mutations of {} seeds, CAIRN_FUZZ_SEED={first} and up", seeds.len());
}

/// Mutations of every seed, by one number.
fn round(seeds: &[(String, Vec<u8>)], begin: u64, each: u64, try_one: &mut dyn FnMut(&[u8], &str)) {
    let mut input = Vec::new();
    for (index, (name, seed)) in seeds.iter().enumerate() {
        for number in 0..each {
            let mut random = Random(begin ^ number << 16 ^ (index as u64) << 48);
            let other = &seeds[(index + 1 + random.below(seeds.len())) % seeds.len()].1;
            input.clone_from(seed);
            for _ in 0..=random.below(4) {
                mutate(&mut input, other, &mut random);
            }
            try_one(&input, &format!("mutation {number} of {name}"));
        }
    }
}

/// The seeds of a target by name, so that mutations do not depend on the file system.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("a directory entry");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

/// Changes bytes where they are, or how many there are, or puts a piece of another seed in.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = 1 + random.below(8);
    let end = (at + length).min(input.len());
    match random.below(9) {
        0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
        2 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
        3 => {
            const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, u64::MAX >> 1, u64::MAX];
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = (1 << random.below(4)).min(input.len() - at);
            input[at..at + width].copy_from_slice(&edge[..width]);
        }
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        6 => input.splice(at..at, (0..length).map(|_| random.next().to_le_bytes()[0])).for_each(drop),
        7 if !other.is_empty() => {
            let from = random.below(other.len());
            let to = (from + random.below(64)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied()).for_each(drop);
        }
        _ if at < input.len() => {
            let to = random.below(input.len());
            input.swap(at, to);
        }
        _ => input.push(random.next().to_le_bytes()[0]),
    }
}

fn keep(target: &str, input: &[u8]) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target);
    let file = dir.join(format!("smoke-{:016x}", fingerprint(input)));
    let kept = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, input));
    kept.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    file
}

/// FNV-1a: tells inputs apart by name.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn number_from(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

/// SplitMix64: the same numbers for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
