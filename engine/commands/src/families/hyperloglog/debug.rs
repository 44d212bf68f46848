//! PFDEBUG: the insides of a sketch. Redis documents it for its own tests only.

use super::sketch::{HEADER, Sketch, is_dense};
use super::{check, corrupted, dense, sparse, store};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};

pub(super) fn pfdebug(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (word, key) = (args[1], args[2]);
    let entry = ctx.data.peek(key).ok_or(CommandError::other("ERR The specified key does not exist"))?;
    let value = check(entry.as_str().ok_or(CommandError::WrongType)?)?;
    let was_dense = is_dense(value);
    match &word.to_ascii_lowercase()[..] {
        b"encoding" => ctx.reply.simple(if was_dense { "dense" } else { "sparse" }),
        b"decode" if was_dense => return Err(CommandError::other("ERR HLL encoding is not sparse")),
        b"decode" => ctx.reply.bulk(sparse::describe(&value[HEADER..]).as_bytes()),
        word @ (b"todense" | b"getreg") => {
            let mut sketch = Sketch::of(value);
            sketch.make_dense().map_err(|_| corrupted())?;
            if word == b"todense" {
                ctx.reply.integer(i64::from(!was_dense));
            } else {
                ctx.reply.array(dense::REGISTERS);
                dense::ranks(&sketch.as_bytes()[HEADER..])
                    .for_each(|rank| ctx.reply.integer(i64::from(rank)));
            }
            // Even who only looks at the registers leaves the sketch dense.
            if !was_dense {
                store(&mut ctx.data, key, &sketch, true);
            }
        }
        _ => {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::other(format!("ERR Unknown PFDEBUG subcommand '{word}'")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn a_sketch_is_shown_and_made_dense() {
        let mut engine = Engine::new();
        engine.check(
            "PFDEBUG encoding h -> -ERR The specified key does not exist
             PFADD h a b -> :1
             PFDEBUG ENCODING h -> +sparse
             PFDEBUG DECODE h -> $32 Z:12711 v:2,1 Z:3068 v:1,1 Z:603
             PFDEBUG toDense h -> :1
             PFDEBUG toDense h -> :0
             PFDEBUG DECODE h -> -ERR HLL encoding is not sparse
             PFDEBUG encoding h -> +dense
             PFCOUNT h -> :2
             PFDEBUG other h -> -ERR Unknown PFDEBUG subcommand 'other'
             SET s x -> +OK
             PFDEBUG GETREG s -> -WRONGTYPE Key is not a valid HyperLogLog string value.",
        );
        assert_eq!(engine.say("PFDEBUG GETREG h").matches(":0").count(), 16_382);
        assert_eq!(engine.replayed().digest(), engine.digest());
    }
}
