//! The HELP of every group of subcommands, made from their documentation.

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use crate::table;

/// The row of a group's HELP.
pub(super) const fn row(name: &'static str, acl: Categories) -> CommandSpec {
    let flags = Flags::NONE.loading().stale();
    CommandSpec { name, arity: exactly(2), flags, keys: Keys::None, acl, handler: help }
}

/// What stands behind the name of a group, whose subcommands run instead of it.
fn group(_: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    Err(CommandError::WrongArity(String::from_utf8_lossy(args[0]).to_lowercase().into()))
}

/// The row of a group that is nothing but its subcommands.
pub(super) const fn group_row(name: &'static str) -> CommandSpec {
    CommandSpec {
        name,
        arity: at_least(2),
        flags: Flags::NONE,
        keys: Keys::None,
        acl: Categories::NONE,
        handler: group,
    }
}

fn help(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let group = String::from_utf8_lossy(args[0]).to_uppercase();
    let subcommands = table::lookup(args[0]).map_or(&[][..], |group| group.subcommands());
    let mut lines = vec![format!("{group} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for subcommand in subcommands.iter().filter(|subcommand| subcommand.own_name() != "help") {
        lines.push(subcommand.own_name().to_uppercase());
        lines.extend(subcommand.doc().map(|(_, doc)| format!("    {}", doc.summary)));
    }
    lines.push("HELP".to_owned());
    lines.push("    Prints this help.".to_owned());
    ctx.reply.array(lines.len());
    lines.iter().for_each(|line| ctx.reply.simple(line));
    Ok(())
}
