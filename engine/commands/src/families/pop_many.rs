//! What LMPOP, ZMPOP and their blocking forms share: several keys, from the first of which that has anything some is taken.

use crate::args::{is, positive};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::waiting::{Awaited, KeyWait, Until, timeout_of_seconds};

/// What to take, and from where; `end` is the end to take from.
pub(super) struct PopMany<'a, E> {
    pub(super) keys: &'a [&'a [u8]],
    pub(super) end: E,
    pub(super) count: usize,
}

impl<'a, E> PopMany<'a, E> {
    /// The arguments from the number of keys on; `end` reads the word that names an end.
    pub(super) fn parse(
        args: &'a [&'a [u8]],
        end: impl Fn(&[u8]) -> Result<E, CommandError>,
    ) -> Result<Self, CommandError> {
        let keys = positive(args[0], "ERR numkeys should be greater than 0")?;
        let where_at = keys.saturating_add(1);
        let end = end(args.get(where_at).ok_or(CommandError::Syntax)?)?;
        let count = match &args[where_at + 1..] {
            [] => 1,
            // A count that is none is told before what is too much.
            [word, count, rest @ ..] if is(word, "count") => {
                let count = positive(count, "ERR count should be greater than 0")?;
                if rest.is_empty() { count } else { return Err(CommandError::Syntax) }
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Self { keys: &args[1..where_at], end, count })
    }
}

/// The handler of a blocking form: `pop` takes from the first key that has anything, and is false where none has; then the
/// client waits for any of them.
pub(super) fn pop_or_wait<E>(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    awaited: Awaited,
    end: impl Fn(&[u8]) -> Result<E, CommandError>,
    pop: impl Fn(&mut Context<'_, '_>, &PopMany<'_, E>) -> Result<bool, CommandError>,
) -> CommandResult {
    let options = PopMany::parse(&args[2..], end)?;
    let timeout_ms = timeout_of_seconds(args[1])?;
    if pop(ctx, &options)? {
        return Ok(());
    }
    let behind_keys = &args[3 + options.keys.len()..];
    let wait = |key: &&[u8]| {
        let request = [&[args[0], b"0", b"1", key], behind_keys].concat();
        KeyWait::new(key, awaited, &request)
    };
    ctx.reply.null_array();
    ctx.wait(timeout_ms, Until::Keys(options.keys.iter().map(wait).collect()));
    Ok(())
}
