//! The words of a command: what stands for something random in a template, and how it is drawn.

use super::Command;
use crate::random::Random;

/// Keys of a family, and those that all families share.
const KEYS: usize = 8;

/// What words are drawn from: random numbers, and what must only ever grow.
#[derive(Debug)]
pub(super) struct Source {
    /// Where everything random comes from.
    pub(super) random: Random,
    /// The last stream ID given out, in milliseconds.
    stream_ms: u64,
}

impl Source {
    /// A source that starts from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), stream_ms: 0 }
    }

    /// Appends what `piece` of a template of `family` stands for. A piece is a word as it is, but for these:
    ///
    /// - keys: `k` mostly one of the family, now and then one that others use too; `x` a key that only ever holds a small
    ///   decimal number; `e` a sorted set of equal scores
    /// - `v` a value, `f` a field, `m` a member, `i` an index, `n` a number, `s` a score, `b` a bound of scores, `l` a
    ///   lexicographic bound
    /// - `t` seconds far ahead, `T` milliseconds far ahead, `U` unix seconds far ahead
    /// - streams: `I` an ID greater than those before, `J` one that may exist, `g` a group, `c` a consumer
    /// - bits: `o` an offset, `B` the type of a bit field
    /// - places: `X,Y` a longitude and a latitude, `p` a place, `r` a radius
    /// - `w` one of many words, `$n` a script
    /// - `…*` one to five of it and `…+` some hundred, where `,` separates what is repeated together
    pub(super) fn word(&mut self, family: &str, piece: &str, out: &mut Command) {
        if let Some((repeated, times)) = self.repetition(piece) {
            for _ in 0..times {
                for piece in repeated.split(',') {
                    self.word(family, piece, out);
                }
            }
            return;
        }
        let random = &mut self.random;
        out.push(match piece {
            "k" => key(random, family),
            "x" => format!("decimal:{}", random.below(3)).into_bytes(),
            "e" => format!("equal:{}", random.below(3)).into_bytes(),
            "v" => value(random),
            "f" => field(random),
            "m" => member(random),
            "i" => random.between(-8, 8).to_string().into_bytes(),
            "n" => number(random),
            "s" => score(random),
            "b" => score_bound(random),
            "l" => lex_bound(random),
            "t" => random.between(5_000, 90_000).to_string().into_bytes(),
            "T" => random.between(5_000_000, 90_000_000).to_string().into_bytes(),
            "U" => random.between(4_000_000_000, 4_100_000_000).to_string().into_bytes(),
            "I" => self.next_id(),
            "J" => self.some_id(),
            "g" => format!("group:{}", random.below(2)).into_bytes(),
            "c" => format!("consumer:{}", random.below(3)).into_bytes(),
            "o" => offset(random),
            "B" => format!("{}{}", random.pick(&["i", "u"]), 1 + random.below(64)).into_bytes(),
            "X" => decimal(random, 180),
            "Y" => decimal(random, 85),
            "p" => format!("place:{}", random.below(20)).into_bytes(),
            "r" => random.between(1, 9_000).to_string().into_bytes(),
            "w" => format!("word:{}", random.below(700)).into_bytes(),
            word => match word.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => super::scripts::SCRIPTS[number].as_bytes().to_vec(),
                None => word.as_bytes().to_vec(),
            },
        });
    }

    /// What is repeated, and how often. A pattern such as `weight:*` is meant as it stands.
    fn repetition<'p>(&mut self, piece: &'p str) -> Option<(&'p str, usize)> {
        let (repeated, times): (_, fn(&mut Random) -> usize) = match piece.strip_suffix('*') {
            Some(repeated) => (repeated, |random| 1 + random.below(5)),
            None => (piece.strip_suffix('+')?, |random| 50 + random.below(150)),
        };
        repeated.split(',').all(|piece| piece.len() == 1).then(|| (repeated, times(&mut self.random)))
    }

    fn next_id(&mut self) -> Vec<u8> {
        self.stream_ms += self.random.below(3) as u64 + 1;
        match self.random.below(3) {
            0 => format!("{}", self.stream_ms),
            1 => format!("{}-*", self.stream_ms),
            _ => format!("{}-{}", self.stream_ms, self.random.below(4)),
        }
        .into_bytes()
    }

    fn some_id(&mut self) -> Vec<u8> {
        let ms = self.stream_ms.saturating_sub(self.random.below(60) as u64);
        match self.random.below(4) {
            0 => format!("{ms}-{}", self.random.below(4)),
            1 => "0-0".to_owned(),
            _ => ms.to_string(),
        }
        .into_bytes()
    }
}

/// Few keys, so that commands meet each other's values; a few of them are of any type.
pub(super) fn key(random: &mut Random, family: &str) -> Vec<u8> {
    let of = match random.below(8) {
        0 => "any",
        // The commands that know no type take anybody's.
        _ if family == "keys" => random.pick(&super::KEYED),
        _ => family,
    };
    // A group must be made before much else can be done with it, so there are fewer streams.
    let keys = if of == "stream" { 3 } else { KEYS };
    format!("{of}:{}", random.below(keys)).into_bytes()
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
            no_power(random.hex(length))
        }
        5 => {
            let length = random.below(40);
            random.bytes(length)
        }
        _ => {
            let length = random.below(24);
            no_power(random.hex(length))
        }
    }
}

/// Text that does not happen to read as a number with an exponent, such as 08796e28: Redis adds to that with 80 bits.
fn no_power(mut text: Vec<u8>) -> Vec<u8> {
    let is_number = std::str::from_utf8(&text).is_ok_and(|text| text.parse::<f64>().is_ok());
    if is_number && text.contains(&b'e') {
        text[0] = b'x';
    }
    text
}

fn member(random: &mut Random) -> Vec<u8> {
    if random.once_in(3) { random.between(-20, 20).to_string().into_bytes() } else { field(random) }
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

/// Offsets of bits: mostly near the beginning, now and then far, rarely impossible.
fn offset(random: &mut Random) -> Vec<u8> {
    match random.below(40) {
        0 => b"-1".to_vec(),
        1 => b"4294967296".to_vec(),
        2..=5 => random.below(20_000).to_string().into_bytes(),
        _ => random.below(100).to_string().into_bytes(),
    }
}

fn decimal(random: &mut Random, limit: i64) -> Vec<u8> {
    format!("{}.{:06}", random.between(1 - limit, limit - 1), random.below(1_000_000)).into_bytes()
}
