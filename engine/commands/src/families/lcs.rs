//! LCS, the longest common subsequence of two strings: <https://redis.io/docs/latest/commands/lcs/>

use cairn_keyspace::Entry;
use cairn_resp::Reply;

use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "lcs", arity: at_least(3), flags: Flags::READ, keys: Keys::every(1, 2, 1), acl: Categories::STRING, handler: lcs },
];

#[derive(Default)]
struct Options {
    len: bool,
    indexes: bool,
    with_match_len: bool,
    match_len_min: usize,
}

impl Options {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            match word {
                word if is(word, "len") => options.len = true,
                word if is(word, "idx") => options.indexes = true,
                word if is(word, "withmatchlen") => options.with_match_len = true,
                word if is(word, "minmatchlen") => {
                    let least = integer(rest.next().ok_or(CommandError::Syntax)?)?;
                    options.match_len_min = usize::try_from(least).unwrap_or(0);
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        if options.len && options.indexes {
            return Err(CommandError::other(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

fn lcs(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    for key in &args[1..3] {
        ctx.data
            .get_str(key)
            .map_err(|_| CommandError::other("ERR The specified keys must contain string values"))?;
    }
    let options = Options::parse(&args[3..])?;
    let value = |key| ctx.data.settled(key).and_then(Entry::as_str).unwrap_or_default();
    let (a, b) = (value(args[1]), value(args[2]));
    let cells = (a.len() as u64 + 1).saturating_mul(b.len() as u64 + 1);
    if cells.saturating_mul(size_of::<u32>() as u64) > ctx.data.limits.string_bytes as u64 {
        return Err(CommandError::other(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let table = Table::new(a, b);
    match options {
        Options { len: true, .. } => ctx.reply.integer(table.len().into()),
        Options { indexes: true, .. } => table.reply_matches(&options, &mut ctx.reply),
        _ => ctx.reply.bulk(&table.subsequence()),
    }
    Ok(())
}

/// The length of the subsequence of every two beginnings of the strings.
struct Table<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Row by row, one more of them than bytes in `a`, each one longer than `b`.
    lengths: Vec<u32>,
}

/// Bytes that match one for one: where they begin in either string, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

impl<'a> Table<'a> {
    fn new(a: &'a [u8], b: &'a [u8]) -> Self {
        let width = b.len() + 1;
        let mut lengths = vec![0; (a.len() + 1) * width];
        for (row, byte) in a.iter().enumerate() {
            let (above, below) = lengths[row * width..(row + 2) * width].split_at_mut(width);
            for (column, other) in b.iter().enumerate() {
                below[column + 1] =
                    if byte == other { above[column] + 1 } else { above[column + 1].max(below[column]) };
            }
        }
        Self { a, b, lengths }
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.lengths[row * (self.b.len() + 1) + column]
    }

    fn len(&self) -> u32 {
        self.at(self.a.len(), self.b.len())
    }

    /// The matches from the last to the first.
    fn matches(&self) -> impl Iterator<Item = Match> {
        let (mut row, mut column) = (self.a.len(), self.b.len());
        std::iter::from_fn(move || {
            let mut len = 0;
            while row > 0 && column > 0 {
                if self.a[row - 1] == self.b[column - 1] {
                    (row, column, len) = (row - 1, column - 1, len + 1);
                } else if len > 0 {
                    break;
                } else if self.at(row - 1, column) > self.at(row, column - 1) {
                    row -= 1;
                } else {
                    column -= 1;
                }
            }
            (len > 0).then_some(Match { a: row, b: column, len })
        })
    }

    fn subsequence(&self) -> Vec<u8> {
        let mut parts: Vec<&[u8]> =
            self.matches().map(|matched| &self.a[matched.a..matched.a + matched.len]).collect();
        parts.reverse();
        parts.concat()
    }

    fn reply_matches(&self, options: &Options, reply: &mut Reply<'_>) {
        reply.map(2);
        reply.bulk(b"matches");
        let long_enough = |matched: &Match| matched.len >= options.match_len_min;
        let matches: Vec<Match> = self.matches().filter(long_enough).collect();
        reply.array(matches.len());
        for matched in matches {
            reply.array(if options.with_match_len { 3 } else { 2 });
            for first in [matched.a, matched.b] {
                reply.array(2);
                reply.integer(first as i64);
                reply.integer((first + matched.len - 1) as i64);
            }
            if options.with_match_len {
                reply.integer(matched.len as i64);
            }
        }
        reply.bulk(b"len");
        reply.integer(self.len().into());
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn replies_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "MSET a ohmytext b mynewtext -> +OK
             LCS a b -> $6 mytext
             LCS a b LEN -> :6
             LCS a b IDX -> *4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6
             LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN -> *4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6
             LCS a b IDX MINMATCHLEN -4 -> *4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6
             LCS a no -> $0
             LCS a no IDX -> *4 $7 matches *0 $3 len :0
             LCS a b IDX LEN -> -ERR If you want both the length and indexes, please just use IDX.
             LCS a b MINMATCHLEN -> -ERR syntax error
             LCS a b MINMATCHLEN x -> -ERR value is not an integer or out of range
             LPUSH l x -> :1
             LCS a l -> -ERR The specified keys must contain string values",
        );
        engine.limits.string_bytes = 300;
        engine.check(
            "LCS a b -> -ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        );
    }
}
