//! XGROUP: groups and their consumers.

use cairn_keyspace::types::Stream;
use cairn_keyspace::types::stream::Group;

use super::effect::GroupEffects;
use super::id::{any, strict};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// The error where a subcommand is not there or has other arguments.
pub(super) fn wrong_subcommand(command: &str, word: &[u8]) -> CommandError {
    let word = String::from_utf8_lossy(&word[..word.len().min(128)]);
    CommandError::other(format!(
        "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {command} HELP."
    ))
}

/// The error where a key that is there has no such group.
pub(super) fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    CommandError::other(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

/// What CREATE and SETID take behind the id.
struct Options {
    make_stream: bool,
    entries_read: Option<u64>,
    /// What is to be said of too many options once the key was found to be right: one may stand twice, but not so often.
    refusal: Option<CommandError>,
}

impl Options {
    /// From the arguments of the whole command.
    fn parse(args: &[&[u8]], creates: bool) -> Result<Self, CommandError> {
        let (subcommand, args) = (args[1], &args[5..]);
        let refusal =
            (args.len() > if creates { 3 } else { 2 }).then(|| wrong_subcommand("XGROUP", subcommand));
        let mut options = Self { make_stream: false, entries_read: None, refusal };
        let mut rest = args;
        while !rest.is_empty() {
            rest = match rest {
                [word, rest @ ..] if creates && is(word, "mkstream") => {
                    options.make_stream = true;
                    rest
                }
                [word, read, rest @ ..] if is(word, "entriesread") => {
                    options.entries_read = match integer(read)? {
                        -1 => None,
                        read => Some(u64::try_from(read).map_err(|_| {
                            CommandError::other("ERR value for ENTRIESREAD must be positive or -1")
                        })?),
                    };
                    rest
                }
                _ => return Err(wrong_subcommand("XGROUP", subcommand)),
            };
        }
        Ok(options)
    }
}

/// The stream of a key, which must be there.
fn stream<'a>(ctx: &'a mut Context<'_, '_>, key: &[u8]) -> Result<&'a Stream, CommandError> {
    ctx.data.look::<Stream>(key)?.ok_or(CommandError::other(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The group of a stream, both of which must be there.
fn group<'a>(
    ctx: &'a mut Context<'_, '_>,
    key: &[u8],
    name: &[u8],
) -> Result<(&'a Stream, &'a Group), CommandError> {
    let stream = stream(ctx, key)?;
    Ok((stream, stream.group(name).ok_or_else(|| no_group(key, name))?))
}

pub(super) fn create(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let options = Options::parse(args, true)?;
    let (key, name, id) = (args[2], args[3], args[4]);
    let found = match options.make_stream {
        true => ctx.data.look::<Stream>(key)?,
        false => Some(stream(ctx, key)?),
    };
    if let Some(refusal) = options.refusal {
        return Err(refusal);
    }
    let last_id = match id {
        b"$" => found.map_or_else(Default::default, |stream| stream.counters().last_id),
        id => strict(id)?,
    };
    if found.is_some_and(|stream| stream.group(name).is_some()) {
        return Err(CommandError::other("BUSYGROUP Consumer Group name already exists"));
    }
    ctx.data.edit_or_create(key, |stream: &mut Stream| {
        usize::from(stream.create_group(name, last_id, options.entries_read))
    })?;
    ctx.data.notify(Interest::STREAM, "xgroup-create", key);
    ctx.reply.ok();
    Ok(())
}

pub(super) fn set_id(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let options = Options::parse(args, false)?;
    let (key, name, id) = (args[2], args[3], args[4]);
    let (stream, _) = group(ctx, key, name)?;
    if let Some(refusal) = options.refusal {
        return Err(refusal);
    }
    let last_id = if id == b"$" { stream.counters().last_id } else { any(id)? };
    edit_group(ctx, key, name, |group| {
        (group.last_id, group.entries_read) = (last_id, options.entries_read);
        1
    })?;
    ctx.data.notify(Interest::STREAM, "xgroup-setid", key);
    ctx.reply.ok();
    Ok(())
}

fn edit_group(
    ctx: &mut Context<'_, '_>,
    key: &[u8],
    name: &[u8],
    edit: impl FnOnce(&mut Group) -> usize,
) -> CommandResult {
    ctx.data.edit(key, |stream: &mut Stream| stream.group_mut(name).map_or(0, edit))?;
    Ok(())
}

pub(super) fn destroy(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name) = (args[2], args[3]);
    stream(ctx, key)?;
    let destroyed = ctx.data.edit(key, |stream: &mut Stream| usize::from(stream.destroy_group(name)))?;
    if destroyed > 0 {
        ctx.data.notify(Interest::STREAM, "xgroup-destroy", key);
    }
    ctx.reply.integer(destroyed as i64);
    Ok(())
}

pub(super) fn create_consumer(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name, consumer) = (args[2], args[3], args[4]);
    let now_ms = ctx.data.now_ms;
    let (_, found) = group(ctx, key, name)?;
    let is_new = found.find(consumer).is_none();
    if is_new {
        edit_group(ctx, key, name, |group| {
            group.see(consumer, now_ms);
            1
        })?;
        ctx.data.notify(Interest::STREAM, "xgroup-createconsumer", key);
        GroupEffects { key, group: name }.seen(&mut ctx.data, consumer, now_ms);
    }
    ctx.reply.integer(i64::from(is_new));
    Ok(())
}

pub(super) fn delete_consumer(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name, consumer) = (args[2], args[3], args[4]);
    group(ctx, key, name)?;
    let mut deleted = None;
    edit_group(ctx, key, name, |group| {
        deleted = group.delete_consumer(consumer);
        usize::from(deleted.is_some())
    })?;
    if deleted.is_some() {
        ctx.data.notify(Interest::STREAM, "xgroup-delconsumer", key);
    }
    ctx.reply.integer(deleted.unwrap_or(0) as i64);
    Ok(())
}
