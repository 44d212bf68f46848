//! The connection: <https://redis.io/docs/latest/commands/?group=connection>

use cairn_resp::Protocol;

use super::acl::{authenticate, become_default};
use super::generic::database;
use super::help;
use super::transactions::end_watches;
use crate::acl::DEFAULT;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::host::ClientFilter;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const CONNECTION: Categories = Categories::CONNECTION;
const ALWAYS: Flags = Flags::NONE.no_script().loading().stale().fast().no_auth().allow_busy();
const CLIENT: Flags = Flags::NONE.no_script().loading().stale();
const CLIENT_ADMIN: Flags = CLIENT.admin();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "ping",   arity: at_least(1), flags: Flags::NONE.fast(),                   keys: Keys::None, acl: CONNECTION, handler: ping },
    CommandSpec { name: "echo",   arity: exactly(2),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None, acl: CONNECTION, handler: echo },
    CommandSpec { name: "select", arity: exactly(2),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None, acl: CONNECTION, handler: select },
    CommandSpec { name: "auth",   arity: at_least(2), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: auth },
    CommandSpec { name: "hello",  arity: at_least(1), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: hello },
    CommandSpec { name: "quit",   arity: at_least(1), flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: quit },
    CommandSpec { name: "reset",  arity: exactly(1),  flags: ALWAYS, keys: Keys::None, acl: CONNECTION, handler: reset },
    help::group_row("client"),
    CommandSpec { name: "client|id",      arity: exactly(2),  flags: CLIENT,       keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|getname", arity: exactly(2),  flags: CLIENT,       keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|setname", arity: exactly(3),  flags: CLIENT,       keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|setinfo", arity: exactly(4),  flags: CLIENT,       keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|info",    arity: exactly(2),  flags: CLIENT,       keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|list",    arity: at_least(2), flags: CLIENT_ADMIN, keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|kill",    arity: at_least(3), flags: CLIENT_ADMIN, keys: Keys::None, acl: CONNECTION, handler: client },
    CommandSpec { name: "client|unblock", arity: at_least(3), flags: CLIENT_ADMIN, keys: Keys::None, acl: CONNECTION, handler: client },
    help::row("client|help", CONNECTION),
];

fn ping(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match args {
        [_] => ctx.reply.simple("PONG"),
        [_, text] => ctx.reply.bulk(text),
        _ => return Err(CommandError::WrongArity("ping".into())),
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
    ctx.session.protocol = protocol;
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
    ctx.session.name.clear();
    become_default(ctx);
    ctx.session.protocol = Protocol::Resp2;
    ctx.reply.set_protocol(Protocol::Resp2);
    ctx.reply.simple("RESET");
    Ok(())
}

fn checked_name(name: &[u8]) -> Result<&[u8], CommandError> {
    if name.iter().all(|c| (b'!'..=b'~').contains(c)) {
        return Ok(name);
    }
    Err(CommandError::other("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn set_name(ctx: &mut Context<'_, '_>, name: &[u8]) {
    ctx.session.name = name.to_vec();
    ctx.host.client_named(ctx.session.id, name);
}

fn client(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let word = args[1].to_ascii_lowercase();
    match (&word[..], &args[2..]) {
        (b"id", []) => ctx.reply.integer(ctx.session.id as i64),
        (b"getname", []) if ctx.session.name.is_empty() => ctx.reply.null(),
        (b"getname", []) => ctx.reply.bulk(&ctx.session.name),
        (b"setname", [name]) => {
            let name = checked_name(name)?;
            set_name(ctx, name);
            ctx.reply.ok();
        }
        (b"setinfo", [attribute, value]) => {
            checked_name(value).map_err(|_| {
                CommandError::other("ERR lib-name cannot contain spaces, newlines or special characters.")
            })?;
            if is(attribute, "lib-name") {
                ctx.session.library.0 = value.to_vec();
            } else if is(attribute, "lib-ver") {
                ctx.session.library.1 = value.to_vec();
            } else {
                let attribute = String::from_utf8_lossy(attribute);
                return Err(CommandError::other(format!("ERR Unrecognized option '{attribute}'")));
            }
            ctx.reply.ok();
        }
        (b"info", []) => {
            let text = ctx.host.clients(Some(&[ctx.session.id]));
            ctx.reply.verbatim("txt", text.as_bytes());
        }
        (b"list", []) => {
            let text = ctx.host.clients(None);
            ctx.reply.verbatim("txt", text.as_bytes());
        }
        (b"list", [word, ids @ ..]) if is(word, "id") && !ids.is_empty() => {
            let invalid = |_| CommandError::other("ERR Invalid client ID");
            let ids: Vec<u64> = ids
                .iter()
                .map(|id| integer(id).map(|id| id as u64))
                .collect::<Result<_, _>>()
                .map_err(invalid)?;
            let text = ctx.host.clients(Some(&ids));
            ctx.reply.verbatim("txt", text.as_bytes());
        }
        (b"unblock", [id, reason @ ..]) if reason.len() < 2 => unblock(ctx, id, reason.first())?,
        (b"unblock", _) => {
            return Err(CommandError::other(
                "ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.",
            ));
        }
        (b"kill", filters) if !filters.is_empty() => kill(ctx, filters)?,
        _ => return Err(CommandError::Syntax),
    }
    Ok(())
}

fn unblock(ctx: &mut Context<'_, '_>, id: &[u8], reason: Option<&&[u8]>) -> CommandResult {
    let with_error = match reason {
        None => false,
        Some(word) if is(word, "timeout") => false,
        Some(word) if is(word, "error") => true,
        Some(_) => return Err(CommandError::other("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let woken = u64::try_from(integer(id)?).is_ok_and(|id| ctx.host.unblock_client(id, with_error));
    ctx.reply.integer(i64::from(woken));
    Ok(())
}

fn kill(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let text = |arg: &[u8]| Some(String::from_utf8_lossy(arg).into_owned());
    if let [address] = args {
        // The old form: one address, and an error when nobody is there.
        let filter = ClientFilter { address: text(address), ..ClientFilter::default() };
        if ctx.host.kill_clients(&filter) == 0 {
            return Err(CommandError::other("ERR No such client"));
        }
        ctx.reply.ok();
        return Ok(());
    }
    let mut filter = ClientFilter { except: Some(ctx.session.id), ..ClientFilter::default() };
    for pair in args.chunks(2) {
        let [word, value] = pair else { return Err(CommandError::Syntax) };
        if is(word, "id") {
            let id = integer(value).ok().and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
            filter.id = Some(id.ok_or(CommandError::other("ERR client-id should be greater than 0"))?);
        } else if is(word, "addr") {
            filter.address = text(value);
        } else if is(word, "laddr") {
            filter.local_address = text(value);
        } else if is(word, "skipme") && (is(value, "yes") || is(value, "no")) {
            filter.except = is(value, "yes").then_some(ctx.session.id);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let killed = ctx.host.kill_clients(&filter);
    ctx.reply.integer(killed as i64);
    Ok(())
}
