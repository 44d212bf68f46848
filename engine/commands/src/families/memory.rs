//! What memory is used for: <https://redis.io/docs/latest/commands/memory-usage/>

use super::help;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("memory"),
    CommandSpec { name: "memory|usage", arity: at_least(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: Categories::NONE, handler: usage },
    help::row("memory|help", Categories::NONE),
];

/// How many elements are looked at where SAMPLES does not say.
const SAMPLES: usize = 5;

fn usage(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut samples = SAMPLES;
    for option in args[3..].chunks(2) {
        let [word, count] = option else { return Err(CommandError::Syntax) };
        if !is(word, "samples") {
            return Err(CommandError::Syntax);
        }
        samples = match usize::try_from(integer(count)?) {
            Ok(0) => usize::MAX,
            Ok(count) => count,
            Err(_) => return Err(CommandError::Syntax),
        };
    }
    match ctx.data.peek(args[2]) {
        Some(entry) => ctx.reply.integer(entry.memory_bytes(samples) as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    fn usage(engine: &mut Engine, key: &str) -> usize {
        engine.say(&format!("MEMORY USAGE {key}")).trim_start_matches(':').parse().expect("a number")
    }

    #[test]
    fn what_is_larger_uses_more() {
        let mut engine = Engine::new();
        engine.check("SET s x -> +OK\nMEMORY USAGE absent -> $-1");
        let short = usage(&mut engine, "s");
        assert!((20..100).contains(&short), "{short}");
        engine.say(&format!("SET s {}", "x".repeat(10_000)));
        assert!((10_000..10_200).contains(&usage(&mut engine, "s")));
        for n in 0..1_000 {
            engine.say(&format!("SADD set member:{n}"));
        }
        let set = usage(&mut engine, "set");
        assert!((15_000..100_000).contains(&set), "{set}");
        let all = engine.say("MEMORY USAGE set SAMPLES 0");
        assert!(all.starts_with(':') && all.len() >= 6, "{all}");
    }

    #[test]
    fn options_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "MEMORY USAGE k SAMPLES -> -ERR syntax error
             MEMORY USAGE k SAMPLES -1 -> -ERR syntax error
             MEMORY USAGE k SAMPLES x -> -ERR value is not an integer or out of range
             MEMORY USAGE k COUNT 5 -> -ERR syntax error
             MEMORY USAGE -> -ERR wrong number of arguments for 'memory|usage' command
             MEMORY WHAT -> -ERR unknown subcommand 'WHAT'. Try MEMORY HELP.",
        );
    }
}
