//! CLIENT: <https://redis.io/docs/latest/commands/client/>

use super::connection::{checked_name, set_name};
use super::help;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::host::{ClientClass, ClientFilter, Pause};
use crate::hub::Tracking;
use crate::session::Replies;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const CONNECTION: Categories = Categories::CONNECTION;
const CLIENT: Flags = Flags::NONE.no_script().loading().stale();
const ADMIN: Flags = CLIENT.admin();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("client"),
    CommandSpec { name: "client|caching",      arity: exactly(3),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: caching },
    CommandSpec { name: "client|getname",      arity: exactly(2),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: getname },
    CommandSpec { name: "client|getredir",     arity: exactly(2),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: getredir },
    CommandSpec { name: "client|id",           arity: exactly(2),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: id },
    CommandSpec { name: "client|info",         arity: exactly(2),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: info },
    CommandSpec { name: "client|kill",         arity: at_least(3), flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: kill },
    CommandSpec { name: "client|list",         arity: at_least(2), flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: list },
    CommandSpec { name: "client|no-evict",     arity: exactly(3),  flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: no_evict },
    CommandSpec { name: "client|no-touch",     arity: exactly(3),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: no_touch },
    CommandSpec { name: "client|pause",        arity: at_least(3), flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: pause },
    CommandSpec { name: "client|reply",        arity: exactly(3),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: replies },
    CommandSpec { name: "client|setinfo",      arity: exactly(4),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: setinfo },
    CommandSpec { name: "client|setname",      arity: exactly(3),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: setname },
    CommandSpec { name: "client|tracking",     arity: at_least(3), flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: track },
    CommandSpec { name: "client|trackinginfo", arity: exactly(2),  flags: CLIENT, keys: Keys::None, acl: CONNECTION, handler: tracking_info },
    CommandSpec { name: "client|unblock",      arity: at_least(3), flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: unblock },
    CommandSpec { name: "client|unpause",      arity: exactly(2),  flags: ADMIN,  keys: Keys::None, acl: CONNECTION, handler: unpause },
    help::row("client|help", CONNECTION),
];

fn id(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.integer(ctx.session.id as i64);
    Ok(())
}

fn getname(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    match &ctx.session.name[..] {
        b"" => ctx.reply.null(),
        name => ctx.reply.bulk(name),
    }
    Ok(())
}

fn setname(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let name = checked_name(args[2])?;
    set_name(ctx, name);
    ctx.reply.ok();
    Ok(())
}

fn no_evict(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    ctx.session.no_evict = on_or_off(args[2])?;
    ctx.reply.ok();
    Ok(())
}

fn no_touch(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    ctx.session.no_touch = on_or_off(args[2])?;
    ctx.reply.ok();
    Ok(())
}

/// What Redis says of a subcommand whose arguments are too many in a way that its row does not tell.
fn wrong_arguments(subcommand: &[u8]) -> CommandError {
    let word = String::from_utf8_lossy(subcommand);
    CommandError::other(format!(
        "ERR unknown subcommand or wrong number of arguments for '{word}'. Try CLIENT HELP."
    ))
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        word if is(word, "on") => Ok(true),
        word if is(word, "off") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn setinfo(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (attribute, value) = (args[2], args[3]);
    let library = &mut ctx.session.library;
    let (place, name) = if is(attribute, "lib-name") {
        (&mut library.0, "lib-name")
    } else if is(attribute, "lib-ver") {
        (&mut library.1, "lib-ver")
    } else {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(CommandError::other(format!("ERR Unrecognized option '{attribute}'")));
    };
    checked_name(value).map_err(|_| {
        CommandError::other(format!("ERR {name} cannot contain spaces, newlines or special characters."))
    })?;
    *place = value.to_vec();
    ctx.reply.ok();
    Ok(())
}

fn info(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let filter = ClientFilter { ids: Some(vec![ctx.session.id]), ..ClientFilter::default() };
    reply_list(ctx, "client|info", &filter);
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let filter = list_filter(&args[2..])?;
    reply_list(ctx, "client|list", &filter);
    Ok(())
}

fn reply_list(ctx: &mut Context<'_, '_>, command: &'static str, filter: &ClientFilter) {
    ctx.session.last_command = command;
    let text = ctx.host.clients(filter, ctx.session);
    ctx.reply.verbatim("txt", text.as_bytes());
}

fn list_filter(options: &[&[u8]]) -> Result<ClientFilter, CommandError> {
    let mut filter = ClientFilter::default();
    match options {
        [] => {}
        [word, class_name] if is(word, "type") => filter.class = Some(class(class_name)?),
        [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
            let invalid = |_| CommandError::other("ERR Invalid client ID");
            let ids = ids.iter().map(|id| integer(id).map_err(invalid));
            filter.ids =
                Some(ids.map(|id| id.map(|id| u64::try_from(id).unwrap_or(0))).collect::<Result<_, _>>()?);
        }
        _ => return Err(CommandError::Syntax),
    }
    Ok(filter)
}

fn class(name: &[u8]) -> Result<ClientClass, CommandError> {
    match &name.to_ascii_lowercase()[..] {
        b"normal" => Ok(ClientClass::Normal),
        b"master" => Ok(ClientClass::Primary),
        b"slave" | b"replica" => Ok(ClientClass::Replica),
        b"pubsub" => Ok(ClientClass::Pubsub),
        _ => {
            let name = String::from_utf8_lossy(name);
            Err(CommandError::other(format!("ERR Unknown client type '{name}'")))
        }
    }
}

fn kill(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let text = |arg: &[u8]| Some(String::from_utf8_lossy(arg).into_owned());
    if let [_, _, address] = args {
        // The old form: one address, and an error when nobody is there.
        let filter = ClientFilter { address: text(address), ..ClientFilter::default() };
        if ctx.host.kill_clients(&filter) == 0 {
            return Err(CommandError::other("ERR No such client"));
        }
        ctx.reply.ok();
        return Ok(());
    }
    let mut filter = ClientFilter { except: Some(ctx.session.id), ..ClientFilter::default() };
    for pair in args[2..].chunks(2) {
        let [word, value] = pair else { return Err(CommandError::Syntax) };
        if is(word, "id") {
            filter.ids = Some(vec![positive(value, "ERR client-id should be greater than 0")?]);
        } else if is(word, "maxage") {
            filter.age_seconds_min = Some(positive(value, "ERR maxage should be greater than 0")?);
        } else if is(word, "type") {
            filter.class = Some(class(value)?);
        } else if is(word, "addr") {
            filter.address = text(value);
        } else if is(word, "laddr") {
            filter.local_address = text(value);
        } else if is(word, "user") {
            if !ctx.host.acl().has_user(value) {
                let user = String::from_utf8_lossy(value);
                return Err(CommandError::other(format!("ERR No such user '{user}'")));
            }
            filter.user = Some(value.to_vec());
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

fn positive(arg: &[u8], refusal: &'static str) -> Result<u64, CommandError> {
    let number = integer(arg).ok().and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or(CommandError::other(refusal))
}

fn pause_mode(word: &[u8]) -> Result<Pause, CommandError> {
    match word {
        word if is(word, "all") => Ok(Pause::All),
        word if is(word, "write") => Ok(Pause::Write),
        _ => Err(CommandError::other("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    }
}

fn pause(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let what = match args {
        [_, _, _] => Pause::All,
        [_, _, _, mode] => pause_mode(mode)?,
        _ => return Err(wrong_arguments(args[1])),
    };
    let timeout =
        integer(args[2]).map_err(|_| CommandError::other("ERR timeout is not an integer or out of range"))?;
    let Ok(milliseconds) = u64::try_from(timeout) else {
        return Err(CommandError::other("ERR timeout is negative"));
    };
    ctx.host.pause_clients(milliseconds, what);
    ctx.reply.ok();
    Ok(())
}

fn unblock(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let with_error = match args {
        [_, _, _] => false,
        [_, _, _, word] if is(word, "timeout") => false,
        [_, _, _, word] if is(word, "error") => true,
        [_, _, _, _] => {
            return Err(CommandError::other("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => return Err(wrong_arguments(args[1])),
    };
    let woken = u64::try_from(integer(args[2])?).is_ok_and(|id| ctx.host.unblock_client(id, with_error));
    ctx.reply.integer(i64::from(woken));
    Ok(())
}

fn unpause(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.host.unpause_clients();
    ctx.reply.ok();
    Ok(())
}

fn replies(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mode = args[2];
    if is(mode, "on") {
        ctx.session.replies = Replies::On;
        ctx.reply.ok();
    } else if is(mode, "off") {
        ctx.session.replies = Replies::Off;
    } else if is(mode, "skip") {
        if ctx.session.replies != Replies::Off {
            ctx.session.replies = Replies::SkipNext;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(())
}

/// Reads the options of CLIENT TRACKING.
fn tracking_options(
    ctx: &Context<'_, '_>,
    options: &[&[u8]],
) -> Result<(Tracking, Vec<Vec<u8>>), CommandError> {
    let (mut tracking, mut prefixes) = (Tracking::default(), Vec::new());
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if is(option, "bcast") {
            tracking.broadcast = true;
        } else if is(option, "optin") {
            tracking.opt_in = true;
        } else if is(option, "optout") {
            tracking.opt_out = true;
        } else if is(option, "noloop") {
            tracking.no_loop = true;
        } else if is(option, "prefix")
            && let Some(prefix) = rest.next()
        {
            prefixes.push(prefix.to_vec());
        } else if is(option, "redirect")
            && let Some(id) = rest.next()
        {
            if tracking.redirect != 0 {
                return Err(CommandError::other("ERR A client can only redirect to a single other client"));
            }
            tracking.redirect = u64::try_from(integer(id)?).unwrap_or(0);
            if ctx.host.inbox(tracking.redirect).is_none() {
                return Err(CommandError::other("ERR The client ID you want redirect to does not exist"));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((tracking, prefixes))
}

fn track(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (mut tracking, prefixes) = tracking_options(ctx, &args[3..])?;
    if !on_or_off(args[2])? {
        if ctx.session.tracking.take().is_some() {
            ctx.host.hub().untrack(ctx.session.id);
        }
        ctx.reply.ok();
        return Ok(());
    }
    check_modes(&tracking, &prefixes, ctx.session.tracking.as_deref())?;
    if tracking.broadcast {
        let before = ctx.session.tracking.take().map(|before| before.prefixes).unwrap_or_default();
        tracking.prefixes = before;
        tracking.prefixes.extend(if prefixes.is_empty() { vec![Vec::new()] } else { prefixes });
    }
    let redirect = ctx.host.inbox(tracking.redirect).filter(|_| tracking.redirect != 0);
    ctx.host.hub().track(&ctx.session.inbox, redirect, &tracking);
    ctx.session.tracking = Some(Box::new(tracking));
    ctx.reply.ok();
    Ok(())
}

fn check_modes(tracking: &Tracking, prefixes: &[Vec<u8>], before: Option<&Tracking>) -> CommandResult {
    let refuse = |text: &'static str| Err(CommandError::other(text));
    if !tracking.broadcast && !prefixes.is_empty() {
        return refuse("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if before.is_some_and(|before| before.broadcast != tracking.broadcast) {
        return refuse(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
        );
    }
    if tracking.broadcast && (tracking.opt_in || tracking.opt_out) {
        return refuse("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if tracking.opt_in && tracking.opt_out {
        return refuse("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if before.is_some_and(|before| tracking.opt_in && before.opt_out || tracking.opt_out && before.opt_in) {
        return refuse(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
        );
    }
    if tracking.broadcast { check_prefixes(prefixes, before) } else { Ok(()) }
}

/// No key may be below two prefixes of one client.
fn check_prefixes(prefixes: &[Vec<u8>], before: Option<&Tracking>) -> CommandResult {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refuse = |one: &[u8], which: &str, other: &[u8]| {
        let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
        Err(CommandError::other(format!(
            "ERR Prefix '{one}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
        )))
    };
    for (at, one) in prefixes.iter().enumerate() {
        let existing = before.into_iter().flat_map(|before| &before.prefixes);
        if let Some(other) = existing.into_iter().find(|other| overlap(one, other)) {
            return refuse(one, "an existing", other);
        }
        if let Some(other) = prefixes[at + 1..].iter().find(|other| overlap(one, other)) {
            return refuse(one, "another provided", other);
        }
    }
    Ok(())
}

fn caching(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mode = args[2];
    let Some(tracking) = &mut ctx.session.tracking else {
        return Err(CommandError::other(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    let refusal = if is(mode, "yes") {
        (!tracking.opt_in)
            .then_some("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
    } else if is(mode, "no") {
        (!tracking.opt_out)
            .then_some("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
    } else {
        return Err(CommandError::Syntax);
    };
    if let Some(refusal) = refusal {
        return Err(CommandError::other(refusal));
    }
    tracking.caching = true;
    ctx.reply.ok();
    Ok(())
}

/// The client that gets this one's invalidations: 0 where it is itself, -1 where it does not track.
fn redirect(ctx: &Context<'_, '_>) -> i64 {
    ctx.session.tracking.as_ref().map_or(-1, |tracking| tracking.redirect as i64)
}

fn getredir(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let redirect = redirect(ctx);
    ctx.reply.integer(redirect);
    Ok(())
}

fn tracking_info(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let mut flags = Vec::new();
    match &ctx.session.tracking {
        None => flags.push("off"),
        Some(tracking) => {
            flags.push("on");
            let mode = |set, name| if set { Some(name) } else { None };
            flags.extend(mode(tracking.broadcast, "bcast"));
            flags.extend(mode(tracking.opt_in, "optin"));
            flags.extend(mode(tracking.opt_in && tracking.caching, "caching-yes"));
            flags.extend(mode(tracking.opt_out, "optout"));
            flags.extend(mode(tracking.opt_out && tracking.caching, "caching-no"));
            flags.extend(mode(tracking.no_loop, "noloop"));
            flags.extend(mode(ctx.host.hub().is_redirect_broken(ctx.session.id), "broken_redirect"));
        }
    }
    let redirect = redirect(ctx);
    let reply = &mut ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    let prefixes = ctx.session.tracking.as_ref().map(|tracking| &tracking.prefixes);
    reply.array(prefixes.map_or(0, |prefixes| prefixes.len()));
    prefixes.into_iter().flatten().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    #[test]
    fn tracking_replies_are_those_of_redis() {
        Engine::new().check(
            "CLIENT GETREDIR -> :-1
             CLIENT TRACKINGINFO -> *6 $5 flags *1 $3 off $8 redirect :-1 $8 prefixes *0
             CLIENT CACHING YES -> -ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled
             CLIENT TRACKING ON PREFIX a -> -ERR PREFIX option requires BCAST mode to be enabled
             CLIENT TRACKING ON BCAST OPTIN -> -ERR OPTIN and OPTOUT are not compatible with BCAST
             CLIENT TRACKING ON OPTIN OPTOUT -> -ERR You can't specify both OPTIN mode and OPTOUT mode
             CLIENT TRACKING ON REDIRECT 99 -> -ERR The client ID you want redirect to does not exist
             CLIENT TRACKING MAYBE -> -ERR syntax error
             CLIENT TRACKING ON OPTIN NOLOOP -> +OK
             CLIENT CACHING NO -> -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
             CLIENT CACHING YES -> +OK
             CLIENT TRACKINGINFO -> *6 $5 flags *4 $2 on $5 optin $11 caching-yes $6 noloop $8 redirect :0 $8 prefixes *0
             CLIENT TRACKING ON BCAST -> -ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.
             CLIENT TRACKING OFF -> +OK
             CLIENT TRACKING ON BCAST PREFIX ab PREFIX a -> -ERR Prefix 'ab' overlaps with another provided prefix 'a'. Prefixes for a single client must not overlap.
             CLIENT TRACKING ON BCAST PREFIX a PREFIX b -> +OK
             CLIENT TRACKING ON BCAST PREFIX bc -> -ERR Prefix 'bc' overlaps with an existing prefix 'b'. Prefixes for a single client must not overlap.
             CLIENT TRACKINGINFO -> *6 $5 flags *2 $2 on $5 bcast $8 redirect :0 $8 prefixes *2 $1 a $1 b",
        );
    }

    #[test]
    fn what_was_read_is_invalidated_once_by_whatever_changes_it() {
        let mut engine = Engine::new();
        engine.check("HELLO 3 -> %7 $6 server $5 redis $7 version $6 7.0.15 $5 proto :3 $2 id :1 $4 mode $10 standalone $4 role $6 master $7 modules *0");
        engine.check("CLIENT TRACKING ON -> +OK\nMGET a b -> *2 _ _\nSET a 1 -> +OK\nSET a 2 -> +OK");
        assert_eq!(engine.messages(), ">2 $10 invalidate *1 $1 a");
        engine.check("SET b 1 PX 5 -> +OK\nGET b -> $1 1");
        engine.messages();
        engine.now_ms += 10;
        engine.check("GET b -> _");
        assert_eq!(engine.messages(), ">2 $10 invalidate *1 $1 b");
        engine.check("GET a -> $1 2\nMULTI -> +OK\nGET c -> +QUEUED\nFLUSHALL -> +QUEUED\nEXEC -> *2 _ +OK\nSET c 1 -> +OK");
        assert_eq!(engine.messages(), ">2 $10 invalidate _");
        engine.check("CLIENT TRACKING OFF -> +OK\nCLIENT TRACKING ON OPTIN NOLOOP -> +OK\nGET a -> _\nCLIENT CACHING YES -> +OK\nGET c -> $1 1");
        assert_eq!(engine.hub.counts().tracked_keys, 1);
        engine.check("DEL c -> :1");
        assert_eq!((engine.messages(), engine.hub.counts().tracked_keys), (String::new(), 0));
    }

    #[test]
    fn a_broadcast_names_all_keys_of_a_command_below_the_prefix() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.session.inbox.set_protocol(Protocol::Resp3);
        engine.check(
            "CLIENT TRACKING ON BCAST PREFIX u: -> +OK\nMSET u:2 x other x u:1 x -> +OK\nDEL other -> :1",
        );
        assert_eq!(engine.messages(), ">2 $10 invalidate *2 $3 u:1 $3 u:2");
    }
}
