//! BITOP.

use cairn_keyspace::{Entry, Object};

use crate::args::is;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// What becomes of a bit, given those of the sources. Where one is only set against the others, it is the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
    /// Set in the first and in none of the others.
    Diff,
    /// Set in some of the others and not in the first.
    Diff1,
    /// Set in the first and in some of the others.
    AndOr,
    /// Set in exactly one.
    One,
}

use Operation::{And, AndOr, Diff, Diff1, Not, One, Or, Xor};

impl Operation {
    fn parse(name: &[u8], sources: usize) -> Result<Self, CommandError> {
        const NAMES: [(&str, Operation); 8] = [
            ("AND", And),
            ("OR", Or),
            ("XOR", Xor),
            ("NOT", Not),
            ("DIFF", Diff),
            ("DIFF1", Diff1),
            ("ANDOR", AndOr),
            ("ONE", One),
        ];
        let known = NAMES.into_iter().find(|(word, _)| is(name, word));
        match known.ok_or(CommandError::Syntax)? {
            (_, Not) if sources != 1 => {
                Err(CommandError::other("ERR BITOP NOT must be called with a single source key."))
            }
            (word, Diff | Diff1 | AndOr) if sources < 2 => Err(CommandError::other(format!(
                "ERR BITOP {word} must be called with at least two source keys."
            ))),
            (_, operation) => Ok(operation),
        }
    }

    /// The result, as long as the longest source; the shorter ones go on in zeros.
    fn apply(self, sources: &[&[u8]], len: usize) -> Vec<u8> {
        let Some((first, others)) = sources.split_first() else { return Vec::new() };
        let padded = |source: &[u8]| {
            let mut bytes = Vec::with_capacity(len);
            bytes.extend_from_slice(source);
            bytes.resize(len, 0);
            bytes
        };
        let mut result = padded(first);
        match self {
            Not => result.iter_mut().for_each(|byte| *byte = !*byte),
            And => {
                for other in others {
                    combine(&mut result, other, |byte, other| byte & other);
                    result[other.len()..].fill(0);
                }
            }
            Or => others.iter().for_each(|other| combine(&mut result, other, |byte, other| byte | other)),
            Xor => others.iter().for_each(|other| combine(&mut result, other, |byte, other| byte ^ other)),
            Diff | Diff1 | AndOr => {
                let mut any = vec![0; len];
                others.iter().for_each(|other| combine(&mut any, other, |byte, other| byte | other));
                match self {
                    Diff => combine(&mut result, &any, |first, any| first & !any),
                    Diff1 => combine(&mut result, &any, |first, any| !first & any),
                    _ => combine(&mut result, &any, |first, any| first & any),
                }
            }
            One => {
                let mut several = vec![0; len];
                for other in others {
                    for ((several, once), other) in several.iter_mut().zip(&mut result).zip(*other) {
                        *several |= *once & other;
                        *once |= other;
                    }
                }
                combine(&mut result, &several, |once, several| once & !several);
            }
        }
        result
    }
}

/// Simple enough for the compiler to do with whole registers.
fn combine(bytes: &mut [u8], others: &[u8], with: impl Fn(u8, u8) -> u8) {
    bytes.iter_mut().zip(others).for_each(|(byte, other)| *byte = with(*byte, *other));
}

pub(super) fn bitop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (destination, keys) = (args[2], &args[3..]);
    let operation = Operation::parse(args[1], keys.len())?;
    let mut len = 0;
    for key in keys {
        len = len.max(ctx.data.get_str(key)?.map_or(0, <[u8]>::len));
    }
    if len == 0 {
        if ctx.data.remove(destination).is_some() {
            ctx.data.notify(Interest::GENERIC, "del", destination);
        }
    } else {
        let source = |key| ctx.data.settled(key).and_then(Entry::as_str).unwrap_or_default();
        let sources: Vec<&[u8]> = keys.iter().map(|key| source(key)).collect();
        let result = operation.apply(&sources, len);
        ctx.data.insert(destination, Object::Str(result), None);
        ctx.data.notify(Interest::STRING, "set", destination);
    }
    ctx.reply.integer(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Engine;

    #[test]
    fn every_operation_does_what_it_says_bit_by_bit() {
        let sources: [&[u8]; 3] = [&[0b1100_1010, 0xff], &[0b1010_0110], &[0b0110_0011, 0x0f, 0x81]];
        let bit = |source: &[u8], at: usize| source.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        for operation in [And, Or, Xor, Not, Diff, Diff1, AndOr, One] {
            let sources = if operation == Not { &sources[2..] } else { &sources[..] };
            let result = operation.apply(sources, 3);
            for at in 0..24 {
                let first = bit(sources[0], at);
                let set = sources.iter().filter(|source| bit(source, at)).count();
                let others = set - usize::from(first);
                let expected = match operation {
                    And => set == 3,
                    Or => set > 0,
                    Xor => set % 2 == 1,
                    Not => !first,
                    Diff => first && others == 0,
                    Diff1 => !first && others > 0,
                    AndOr => first && others > 0,
                    One => set == 1,
                };
                assert_eq!(bit(&result, at), expected, "{operation:?} of bit {at}");
            }
        }
    }

    #[test]
    fn replies_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "SET a foobar -> +OK
             SET b abcdef -> +OK
             BITOP AND dest a b -> :6
             GET dest -> $6 `bc`ab
             EXPIRE dest 100 -> :1
             BITOP or dest a no -> :6
             TTL dest -> :-1
             BITOP NOT dest a b -> -ERR BITOP NOT must be called with a single source key.
             BITOP DIFF dest a -> -ERR BITOP DIFF must be called with at least two source keys.
             BITOP NAND dest a -> -ERR syntax error
             BITOP AND dest no -> :0
             EXISTS dest -> :0
             LPUSH l x -> :1
             BITOP AND dest a l -> -WRONGTYPE Operation against a key holding the wrong kind of value
             BITOP AND l a -> :6
             GET l -> $6 foobar",
        );
    }
}
