//! CAIRN READY: whether clients should be sent to this server. Asked by whoever spreads requests over servers, so it is
//! answered at any time: while the data is being loaded, and while a script keeps everybody else waiting.

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::Flags;

pub(super) const FLAGS: Flags = Flags::NONE.loading().stale().allow_busy().fast();

/// `+OK`, or an error that begins with `NOTREADY` and says why, since when and what to do.
pub(super) fn ready(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    match ctx.host.readiness() {
        Ok(()) => {
            ctx.reply.ok();
            Ok(())
        }
        Err(why) => Err(CommandError::other(format!("NOTREADY {}", why.replace(['\r', '\n'], " ")))),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn who_has_nothing_to_say_against_it_is_ready() {
        Engine::new().check(
            "CAIRN READY -> +OK
             CAIRN READY now -> -ERR wrong number of arguments for 'cairn|ready' command
             CAIRN HELP -> *7 +CAIRN <subcommand> [<arg> [value] [opt] ...]. Subcommands are: +KEY +    Manages master keys: LIST, RELOAD, REWRAP, STATUS. +READY +    Tells whether clients should be sent to this server, or why not. +HELP +    Prints this help.",
        );
    }
}
