//! The connection: <https://redis.io/docs/latest/commands/?group=connection>

use std::ops::Range;

use cairn_resp::Protocol;

use super::acl::{authenticate, become_default};
use super::generic::database;
use super::pubsub::{end_messages, take_messages};
use super::transactions::end_watches;
use crate::acl::DEFAULT;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::session::Replies;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const CONNECTION: Categories = Categories::CONNECTION;
const ALWAYS: Flags = Flags::NONE.no_script().loading().stale().fast().no_auth().allow_busy();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "ping",   arity: at_least(1), flags: Flags::NONE.fast(),                   keys: Keys::None, acl: CONNECTION, handler: ping },
    CommandSpec { name: "echo",   arity: exactly(2),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None, acl: CONNECTION, handler: echo },
    CommandSpec { name: "select", arity: exactly(2),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None, acl: CONNECTION, handler: select },
    CommandSpec { name: "auth",   arity: at_least(2), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: auth },
    CommandSpec { name: "hello",  arity: at_least(1), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: hello },
    CommandSpec { name: "quit",   arity: at_least(1), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: quit },
    CommandSpec { name: "reset",  arity: exactly(1),  flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: reset },
];

fn ping(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let text = match args {
        [_] => None,
        [_, text] => Some(*text),
        _ => return Err(CommandError::WrongArity("ping".into())),
    };
    match text {
        _ if ctx.session.is_in_subscriber_mode() => {
            // Among messages the answer is one of them.
            ctx.reply.array(2);
            ctx.reply.bulk(b"pong");
            ctx.reply.bulk(text.unwrap_or_default());
        }
        None => ctx.reply.simple("PONG"),
        Some(text) => ctx.reply.bulk(text),
    }
    Ok(())
}

fn echo(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    ctx.reply.bulk(args[1]);
    Ok(())
}

fn select(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let db = database(ctx, args[1])?;
    ctx.session.db = db;
    ctx.data.db = db;
    ctx.reply.ok();
    Ok(())
}

fn auth(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match args {
        [_, _] if ctx.host.acl().is_open() => {
            return Err(CommandError::other(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            ));
        }
        [command, password] => authenticate(ctx, command, DEFAULT, password)?,
        [command, user, password] => authenticate(ctx, command, user, password)?,
        _ => return Err(CommandError::Syntax),
    }
    ctx.reply.ok();
    Ok(())
}

fn hello(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut protocol = ctx.reply.protocol();
    let mut options = args[1..].iter();
    if let Some(version) = options.next() {
        protocol = match integer(version) {
            Ok(2) => Protocol::Resp2,
            Ok(3) => Protocol::Resp3,
            Ok(_) => return Err(CommandError::other("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(CommandError::other("ERR Protocol version is not an integer or out of range"));
            }
        };
    }
    let (mut credentials, mut name) = (None, None);
    while let Some(option) = options.next() {
        if is(option, "auth")
            && let (Some(user), Some(password)) = (options.next(), options.next())
        {
            credentials = Some((*user, *password));
        } else if is(option, "setname")
            && let Some(text) = options.next()
        {
            name = Some(checked_name(text)?);
        } else {
            return Err(CommandError::other(format!(
                "ERR Syntax error in HELLO option '{}'",
                String::from_utf8_lossy(option)
            )));
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(ctx, args[0], user, password)?;
    }
    if !ctx.session.authenticated && ctx.host.acl().authentication_required() {
        return Err(CommandError::other(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        set_name(ctx, name);
    }
    ctx.session.set_protocol(protocol);
    ctx.reply.set_protocol(protocol);
    let id = ctx.session.id as i64;
    let reply = &mut ctx.reply;
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// Where HELLO has the name and the password, from the first to the last.
pub(crate) fn hello_credentials(args: &[&[u8]]) -> Range<usize> {
    let mut found = 0..0;
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let count = if is(option, "auth") { 2 } else { usize::from(is(option, "setname")) };
        if count == 2 {
            let start = if found.is_empty() { at + 1 } else { found.start };
            found = start..(at + 1 + count).min(args.len());
        }
        at += 1 + count;
    }
    found
}

/// The version of Redis whose commands and replies this server follows; clients choose their dialect by it.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

fn quit(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.session.closing = true;
    ctx.reply.ok();
    Ok(())
}

fn reset(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.session.transaction = None;
    end_watches(ctx);
    ctx.session.db = 0;
    ctx.data.db = 0;
    set_name(ctx, b"");
    become_default(ctx);
    end_messages(ctx.session, ctx.host.hub());
    take_messages(ctx);
    ctx.session.replies = Replies::On;
    (ctx.session.no_evict, ctx.session.no_touch) = (false, false);
    ctx.session.set_protocol(Protocol::Resp2);
    ctx.reply.set_protocol(Protocol::Resp2);
    ctx.reply.simple("RESET");
    Ok(())
}

pub(super) fn checked_name(name: &[u8]) -> Result<&[u8], CommandError> {
    if name.iter().all(|c| (b'!'..=b'~').contains(c)) {
        return Ok(name);
    }
    Err(CommandError::other("ERR Client names cannot contain spaces, newlines or special characters."))
}

pub(super) fn set_name(ctx: &mut Context<'_, '_>, name: &[u8]) {
    ctx.session.name = name.to_vec();
    ctx.host.client_named(ctx.session.id, name);
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn reset_ends_what_client_no_evict_and_no_touch_began() {
        let mut engine = Engine::new();
        engine.check("CLIENT NO-EVICT ON -> +OK\nCLIENT NO-TOUCH ON -> +OK\nRESET -> +RESET");
        assert!(!engine.session.no_evict && !engine.session.no_touch);
    }
}
