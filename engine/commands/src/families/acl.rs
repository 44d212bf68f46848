//! ACL: users and what they may do. <https://redis.io/docs/latest/commands/?group=server>

use super::help;
use crate::acl::{DEFAULT, Rules, User, denial_of};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use crate::table;

const NONE: Categories = Categories::NONE;
const OWN: Flags = Flags::NONE.no_script().loading().stale();
const ADMIN: Flags = OWN.admin();
/// Those that read or write the users' file: no key is to be held meanwhile, since the disk may hang.
const FILES: Flags = ADMIN.no_multi();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("acl"),
    CommandSpec { name: "acl|cat",     arity: at_least(2), flags: OWN,   keys: Keys::None, acl: NONE, handler: cat },
    CommandSpec { name: "acl|deluser", arity: at_least(3), flags: ADMIN, keys: Keys::None, acl: NONE, handler: deluser },
    CommandSpec { name: "acl|dryrun",  arity: at_least(4), flags: ADMIN, keys: Keys::None, acl: NONE, handler: dryrun },
    CommandSpec { name: "acl|genpass", arity: at_least(2), flags: OWN,   keys: Keys::None, acl: NONE, handler: genpass },
    CommandSpec { name: "acl|getuser", arity: exactly(3),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: getuser },
    CommandSpec { name: "acl|list",    arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: list },
    CommandSpec { name: "acl|load",    arity: exactly(2),  flags: FILES, keys: Keys::None, acl: NONE, handler: load },
    CommandSpec { name: "acl|log",     arity: at_least(2), flags: ADMIN, keys: Keys::None, acl: NONE, handler: log },
    CommandSpec { name: "acl|save",    arity: exactly(2),  flags: FILES, keys: Keys::None, acl: NONE, handler: save },
    CommandSpec { name: "acl|setuser", arity: at_least(3), flags: ADMIN, keys: Keys::None, acl: NONE, handler: setuser },
    CommandSpec { name: "acl|users",   arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: users },
    CommandSpec { name: "acl|whoami",  arity: exactly(2),  flags: OWN,   keys: Keys::None, acl: NONE, handler: whoami },
    help::row("acl|help", NONE),
];

fn wrong_form(word: &[u8]) -> CommandError {
    let word = String::from_utf8_lossy(word);
    CommandError::other(format!(
        "ERR unknown subcommand or wrong number of arguments for '{word}'. Try ACL HELP."
    ))
}

fn cat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let names: Vec<&str> = match &args[2..] {
        [] => Categories::ALL.iter().map(|(_, name)| *name).collect(),
        [name] => {
            let category = Categories::named(name).ok_or_else(|| {
                let shown = String::from_utf8_lossy(&name[..name.len().min(128)]);
                CommandError::other(format!("ERR Unknown category '{shown}'"))
            })?;
            let members = table::numbered().iter().filter(|command| command.categories().has(category));
            members.map(|command| command.name).collect()
        }
        _ => return Err(wrong_form(args[1])),
    };
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Ok(())
}

fn setuser(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let name = args[2];
    if crate::acl::has_spaces(name) {
        return Err(CommandError::other("ERR Usernames can't contain spaces or null characters"));
    }
    let (before, now) = ctx
        .host
        .acl()
        .set_user(name, &args[3..])
        .map_err(|error| CommandError::other(format!("ERR {error}")))?;
    if before.is_some_and(|before| loses_channels(before.rules(), now.rules())) {
        ctx.host.disconnect_subscribers(name, &|channel, is_pattern| now.may_listen(channel, is_pattern));
    }
    ctx.reply.ok();
    Ok(())
}

/// Whether the user had a channel's pattern that it has no more.
fn loses_channels(before: &Rules, now: &Rules) -> bool {
    let patterns = |rules: &Rules| -> Vec<Vec<u8>> {
        rules.all_selectors().flat_map(|selector| selector.channels.clone()).collect()
    };
    let has_all = |rules: &Rules| rules.all_selectors().any(|selector| selector.all_channels);
    let kept = patterns(now);
    !has_all(now) && (has_all(before) || patterns(before).iter().any(|pattern| !kept.contains(pattern)))
}

fn deluser(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if args[2..].contains(&DEFAULT) {
        return Err(CommandError::other("ERR The 'default' user cannot be removed"));
    }
    let removed = args[2..].iter().filter(|name| remove(ctx, name)).count();
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn remove(ctx: &mut Context<'_, '_>, name: &[u8]) -> bool {
    let was_there = ctx.host.acl().remove_user(name);
    if was_there {
        end_clients(ctx, name);
    }
    was_there
}

/// Ends the connections of a user that is no more; the caller's own behind the reply.
fn end_clients(ctx: &mut Context<'_, '_>, name: &[u8]) {
    ctx.host.disconnect_user(name, ctx.session.id);
    if ctx.session.user.as_ref().is_some_and(|user| user.name() == name) {
        (ctx.session.closing, ctx.session.authenticated) = (true, false);
    }
}

fn getuser(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let Some(user) = ctx.host.acl().user(args[2]) else {
        ctx.reply.null();
        return Ok(());
    };
    let (reply, rules) = (&mut ctx.reply, user.rules());
    reply.map(6);
    reply.bulk(b"flags");
    let flags: Vec<_> = rules.flags().collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(rules.passwords.len());
    rules.passwords.iter().for_each(|digest| reply.bulk(digest));
    for (field, value) in rules.root.fields() {
        reply.bulk(field.as_bytes());
        reply.bulk(&value);
    }
    reply.bulk(b"selectors");
    reply.array(rules.selectors.len());
    for selector in &rules.selectors {
        let fields = selector.fields();
        reply.map(fields.len());
        for (field, value) in fields {
            reply.bulk(field.as_bytes());
            reply.bulk(&value);
        }
    }
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let lines = ctx.host.acl().lines();
    ctx.reply.array(lines.len());
    lines.iter().for_each(|line| ctx.reply.bulk(line));
    Ok(())
}

fn users(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let names = ctx.host.acl().names();
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(())
}

fn whoami(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    match &ctx.session.user {
        Some(user) => ctx.reply.bulk(user.name()),
        None => ctx.reply.null(),
    }
    Ok(())
}

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.";

/// Everybody but the default user's clients has to log in again: who they were is no more.
fn load(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let loaded = ctx.host.load_users().ok_or(CommandError::other(NO_FILE))?;
    let gone = loaded.map_err(|error| CommandError::other(format!("ERR {error}")))?;
    gone.iter().for_each(|name| end_clients(ctx, name));
    ctx.reply.ok();
    Ok(())
}

fn save(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let saved = ctx.host.save_users().ok_or(CommandError::other(NO_FILE))?;
    saved.map_err(|()| {
        CommandError::other(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        )
    })?;
    ctx.reply.ok();
    Ok(())
}

/// How many bits a password may have, and has unless another number is asked for.
const PASSWORD_BITS_MAX: usize = 4096;
const PASSWORD_BITS: usize = 256;

fn genpass(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let bits = match &args[2..] {
        [] => PASSWORD_BITS,
        [bits] => {
            let bits =
                usize::try_from(integer(bits)?).ok().filter(|bits| (1..=PASSWORD_BITS_MAX).contains(bits));
            bits.ok_or(CommandError::other(
                "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
            ))?
        }
        _ => return Err(wrong_form(args[1])),
    };
    let digits = bits.div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|_| CommandError::other("ERR the system gives no random numbers for a password"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ctx.reply.bulk(&text.as_bytes()[..digits]);
    Ok(())
}

/// How many refusals are shown unless another number is asked for.
const LOG_SHOWN: i64 = 10;

fn log(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let most = match &args[2..] {
        [] => LOG_SHOWN,
        [word] if is(word, "reset") => {
            ctx.host.acl().reset_log();
            ctx.reply.ok();
            return Ok(());
        }
        [most] => integer(most)?,
        _ => return Err(wrong_form(args[1])),
    };
    let entries = ctx.host.acl().log_entries(usize::try_from(most).unwrap_or(0));
    let now_ms = ctx.data.now_ms;
    ctx.reply.array(entries.len());
    for entry in entries {
        ctx.reply.map(7);
        ctx.reply.bulk(b"count");
        ctx.reply.integer(entry.count as i64);
        for (field, value) in [
            ("reason", entry.reason.shown().as_bytes()),
            ("context", entry.place.as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            ctx.reply.bulk(field.as_bytes());
            ctx.reply.bulk(value);
        }
        ctx.reply.bulk(b"age-seconds");
        ctx.reply.double((now_ms - entry.at_ms).max(0) as f64 / 1000.0);
        ctx.reply.bulk(b"client-info");
        ctx.reply.bulk(entry.client.as_bytes());
    }
    Ok(())
}

fn dryrun(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let missing = |what: &str, name: &[u8]| {
        CommandError::other(format!("ERR {what} '{}' not found", String::from_utf8_lossy(name)))
    };
    let user = ctx.host.acl().user(args[2]).ok_or_else(|| missing("User", args[2]))?;
    let request = &args[3..];
    let command =
        table::resolve(request).filter(|command| command.subcommands().is_empty() || request.len() == 1);
    let command = command.ok_or_else(|| missing("Command", args[3]))?;
    if !command.arity.allows(request.len()) {
        return Err(CommandError::WrongArity(command.name.into()));
    }
    match denial_of(&user, command, request) {
        None => ctx.reply.ok(),
        Some(denial) => ctx.reply.bulk(denial.dry_run(command, request).as_bytes()),
    }
    Ok(())
}

/// Makes a client the user it says it is.
pub(super) fn authenticate(
    ctx: &mut Context<'_, '_>,
    command: &[u8],
    name: &[u8],
    password: &[u8],
) -> CommandResult {
    const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
    let Some(user) = ctx.host.acl().authenticate(name, password) else {
        let place = if ctx.in_transaction { "multi" } else { "toplevel" };
        crate::acl::note(ctx.session, ctx.host, crate::acl::Reason::Authentication, place, command, name);
        return Err(CommandError::other(WRONG_PASSWORD));
    };
    become_user(ctx, user);
    ctx.session.authenticated = true;
    Ok(())
}

/// Makes a client the user that clients are at first.
pub(super) fn become_default(ctx: &mut Context<'_, '_>) {
    let user = ctx.host.acl().default_user();
    become_user(ctx, user);
    ctx.session.authenticated = !ctx.host.acl().authentication_required();
}

fn become_user(ctx: &mut Context<'_, '_>, user: std::sync::Arc<User>) {
    ctx.host.client_authenticated(ctx.session.id, user.name());
    ctx.session.user = Some(user);
}
