//! MODULE: there are none, and none can be loaded.

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

use super::help;

const NONE: Categories = Categories::NONE;
const ADMIN: Flags = Flags::ADMIN.no_script();
const LOADING: Flags = ADMIN.no_async_loading();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("module"),
    CommandSpec { name: "module|list",   arity: exactly(2),  flags: ADMIN,   keys: Keys::None, acl: NONE, handler: list },
    CommandSpec { name: "module|load",   arity: at_least(3), flags: LOADING, keys: Keys::None, acl: NONE, handler: refuse },
    CommandSpec { name: "module|loadex", arity: at_least(3), flags: LOADING, keys: Keys::None, acl: NONE, handler: refuse },
    CommandSpec { name: "module|unload", arity: exactly(3),  flags: LOADING, keys: Keys::None, acl: NONE, handler: refuse },
    help::row("module|help", NONE),
];

fn list(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.array(0);
    Ok(())
}

fn refuse(_: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    Err(CommandError::other("ERR MODULE command not allowed. This server has no modules and loads none."))
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn no_module_is_there_and_none_is_loaded() {
        Engine::new().check(
            "MODULE LIST -> *0
             MODULE LOAD /tmp/x.so -> -ERR MODULE command not allowed. This server has no modules and loads none.
             MODULE UNLOAD x -> -ERR MODULE command not allowed. This server has no modules and loads none.",
        );
    }
}
