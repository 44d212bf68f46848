//! Channels: <https://redis.io/docs/latest/commands/?group=pubsub>

use super::help;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::glob::glob_matches;
use crate::hub::{Hub, Kind};
use crate::keys::{Access, KeySpec};
use crate::session::Session;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const PUBSUB: Categories = Categories::PUBSUB;
const SUBSCRIBING: Flags = Flags::PUBSUB.no_script().loading().stale();
const PUBLISHING: Flags = Flags::PUBSUB.loading().stale().fast().may_replicate();
const ASKING: Flags = Flags::PUBSUB.loading().stale();
const ADMIN: Flags = Flags::ADMIN.no_script().loading().stale();

/// Names that are routed like keys.
const SHARD_CHANNELS: Keys = Keys::specs(&[KeySpec::range(1, -1, Access::NOT_KEY)]);
const SHARD_CHANNEL: Keys = Keys::specs(&[KeySpec::one(1, Access::NOT_KEY)]);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "subscribe",    arity: at_least(2), flags: SUBSCRIBING, keys: Keys::None, acl: PUBSUB, handler: subscribe },
    CommandSpec { name: "unsubscribe",  arity: at_least(1), flags: SUBSCRIBING, keys: Keys::None, acl: PUBSUB, handler: unsubscribe },
    CommandSpec { name: "psubscribe",   arity: at_least(2), flags: SUBSCRIBING, keys: Keys::None, acl: PUBSUB, handler: psubscribe },
    CommandSpec { name: "punsubscribe", arity: at_least(1), flags: SUBSCRIBING, keys: Keys::None, acl: PUBSUB, handler: punsubscribe },
    CommandSpec { name: "ssubscribe",   arity: at_least(2), flags: SUBSCRIBING, keys: SHARD_CHANNELS, acl: PUBSUB, handler: ssubscribe },
    CommandSpec { name: "sunsubscribe", arity: at_least(1), flags: SUBSCRIBING, keys: SHARD_CHANNELS, acl: PUBSUB, handler: sunsubscribe },
    CommandSpec { name: "publish",      arity: exactly(3),  flags: PUBLISHING,  keys: Keys::None, acl: PUBSUB, handler: publish },
    CommandSpec { name: "spublish",     arity: exactly(3),  flags: PUBLISHING,  keys: SHARD_CHANNEL, acl: PUBSUB, handler: spublish },
    help::group_row("pubsub"),
    CommandSpec { name: "pubsub|channels",      arity: at_least(2), flags: ASKING, keys: Keys::None, acl: PUBSUB, handler: pubsub_channels },
    CommandSpec { name: "pubsub|numpat",        arity: exactly(2),  flags: ASKING, keys: Keys::None, acl: PUBSUB, handler: pubsub_numpat },
    CommandSpec { name: "pubsub|numsub",        arity: at_least(2), flags: ASKING, keys: Keys::None, acl: PUBSUB, handler: pubsub_numsub },
    CommandSpec { name: "pubsub|shardchannels", arity: at_least(2), flags: ASKING, keys: Keys::None, acl: PUBSUB, handler: pubsub_shardchannels },
    CommandSpec { name: "pubsub|shardnumsub",   arity: at_least(2), flags: ASKING, keys: Keys::None, acl: PUBSUB, handler: pubsub_shardnumsub },
    help::row("pubsub|help", Categories::NONE),
    CommandSpec { name: "monitor",      arity: exactly(1),  flags: ADMIN,       keys: Keys::None, acl: Categories::NONE, handler: monitor },
];

fn subscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    begin(ctx, &args[1..], Kind::Channel, b"subscribe");
    Ok(())
}

fn unsubscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    end(ctx, &args[1..], Kind::Channel, b"unsubscribe");
    Ok(())
}

fn psubscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    begin(ctx, &args[1..], Kind::Pattern, b"psubscribe");
    Ok(())
}

fn punsubscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    end(ctx, &args[1..], Kind::Pattern, b"punsubscribe");
    Ok(())
}

fn ssubscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    deny_in_transaction(ctx, "SSUBSCRIBE isn't allowed for a DENY BLOCKING client")?;
    begin(ctx, &args[1..], Kind::Shard, b"ssubscribe");
    Ok(())
}

fn sunsubscribe(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    end(ctx, &args[1..], Kind::Shard, b"sunsubscribe");
    Ok(())
}

/// EXEC replies once for each command, and these reply as often as they like.
fn deny_in_transaction(ctx: &Context<'_, '_>, text: &str) -> CommandResult {
    if ctx.in_transaction { Err(CommandError::other(format!("ERR {text}"))) } else { Ok(()) }
}

fn begin(ctx: &mut Context<'_, '_>, names: &[&[u8]], kind: Kind, word: &[u8]) {
    ctx.host.hub().subscribe(kind, names, &ctx.session.inbox);
    ctx.session.inbox.set_subscribed(true);
    let subscriptions = ctx.session.subscriptions.get_or_insert_default();
    for name in names {
        subscriptions.of_mut(kind).insert(name.to_vec());
        confirm(&mut ctx.reply, word, Some(name), subscriptions.count(kind));
    }
}

fn confirm(reply: &mut cairn_resp::Reply<'_>, word: &[u8], name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count as i64);
}

/// Without names: ends all of the kind.
fn end(ctx: &mut Context<'_, '_>, names: &[&[u8]], kind: Kind, word: &[u8]) {
    let mut subscriptions = ctx.session.subscriptions.take().unwrap_or_default();
    let all: Vec<Vec<u8>> =
        if names.is_empty() { subscriptions.of(kind).iter().cloned().collect() } else { Vec::new() };
    let names: Vec<&[u8]> =
        if names.is_empty() { all.iter().map(Vec::as_slice).collect() } else { names.to_vec() };
    ctx.host.hub().unsubscribe(kind, names.iter().copied(), ctx.session.id);
    take_messages(ctx);
    if names.is_empty() {
        confirm(&mut ctx.reply, word, None, subscriptions.count(kind));
    }
    for name in names {
        subscriptions.of_mut(kind).remove(name);
        confirm(&mut ctx.reply, word, Some(name), subscriptions.count(kind));
    }
    if !subscriptions.is_empty() {
        ctx.session.subscriptions = Some(subscriptions);
    }
    ctx.session.inbox.set_subscribed(ctx.session.subscriptions.is_some());
}

/// Puts the messages that have come before what is said next: behind the word that a subscription has ended, none of it
/// may follow. Within EXEC's array nothing can stand between the replies.
pub(crate) fn take_messages(ctx: &mut Context<'_, '_>) {
    if !ctx.in_transaction {
        let mut messages = Vec::new();
        ctx.session.inbox.take(&mut messages);
        ctx.reply.raw(&messages);
    }
}

/// Ends all that makes others send messages to a client.
pub fn end_messages(session: &mut Session, hub: &Hub) {
    if let Some(subscriptions) = session.subscriptions.take() {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            hub.unsubscribe(kind, subscriptions.of(kind).iter().map(Vec::as_slice), session.id);
        }
        session.inbox.set_subscribed(false);
    }
    if session.tracking.take().is_some() {
        hub.untrack(session.id);
    }
    if std::mem::take(&mut session.is_monitor) {
        hub.unmonitor(session.id);
    }
}

fn publish(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    send(ctx, Kind::Channel, args[1], args[2])
}

fn spublish(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    send(ctx, Kind::Shard, args[1], args[2])
}

fn send(ctx: &mut Context<'_, '_>, kind: Kind, channel: &[u8], text: &[u8]) -> CommandResult {
    let receivers = ctx.host.hub().receivers(kind, channel);
    if receivers > 0 {
        ctx.data.effects().news().message(kind, channel, text);
    }
    ctx.reply.integer(receivers as i64);
    Ok(())
}

fn pubsub_channels(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    names(ctx, Kind::Channel, args)
}

fn pubsub_shardchannels(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    names(ctx, Kind::Shard, args)
}

fn pubsub_numpat(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let patterns = ctx.host.hub().counts().patterns;
    ctx.reply.integer(patterns as i64);
    Ok(())
}

fn pubsub_numsub(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    subscribers(ctx, Kind::Channel, &args[2..]);
    Ok(())
}

fn pubsub_shardnumsub(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    subscribers(ctx, Kind::Shard, &args[2..]);
    Ok(())
}

fn names(ctx: &mut Context<'_, '_>, kind: Kind, args: &[&[u8]]) -> CommandResult {
    let pattern = match args {
        [_, _] => None,
        [_, _, pattern] => Some(*pattern),
        _ => {
            let word = String::from_utf8_lossy(args[1]);
            return Err(CommandError::other(format!(
                "ERR unknown subcommand or wrong number of arguments for '{word}'. Try PUBSUB HELP."
            )));
        }
    };
    let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob_matches(pattern, name));
    let names = ctx.host.hub().names(kind, wanted);
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(())
}

fn subscribers(ctx: &mut Context<'_, '_>, kind: Kind, channels: &[&[u8]]) {
    ctx.reply.array(channels.len() * 2);
    for channel in channels {
        ctx.reply.bulk(channel);
        ctx.reply.integer(ctx.host.hub().subscribers(kind, channel) as i64);
    }
}

fn monitor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    deny_in_transaction(ctx, "MONITOR isn't allowed for DENY BLOCKING client")?;
    // Who monitors already gets no second reply.
    if !ctx.session.is_monitor {
        ctx.session.is_monitor = true;
        ctx.host.hub().monitor(&ctx.session.inbox);
        ctx.reply.ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::hub::Hub;
    use crate::testing::Engine;

    #[test]
    fn replies_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "PUBLISH nobody hears -> :0
             PUBSUB NUMPAT -> :0
             UNSUBSCRIBE -> *3 $11 unsubscribe $-1 :0
             PUNSUBSCRIBE p -> *3 $12 punsubscribe $1 p :0
             SUBSCRIBE a b -> *3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2
             PSUBSCRIBE a* -> *3 $10 psubscribe $2 a* :3
             SSUBSCRIBE s -> *3 $10 ssubscribe $1 s :1
             GET x -> -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
             PUBSUB NUMPAT -> -ERR Can't execute 'pubsub|numpat': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
             PING -> *2 $4 pong $0
             PING hi -> *2 $4 pong $2 hi",
        );
        engine.session.protocol = Protocol::Resp3;
        engine.check(
            "PING -> +PONG
             PUBLISH a text -> :2
             SPUBLISH a text -> :0
             SPUBLISH s text -> :1
             PUBSUB NUMSUB a c -> *4 $1 a :1 $1 c :0
             PUBSUB NUMPAT -> :1
             PUBSUB CHANNELS [b-z] -> *1 $1 b
             PUBSUB SHARDCHANNELS -> *1 $1 s
             PUBSUB SHARDNUMSUB s -> *2 $1 s :1",
        );
    }

    /// Behind the confirmation a client may send other commands, and would take a late message for a reply.
    #[test]
    fn messages_come_before_the_end_of_the_subscription() {
        let mut engine = Engine::new();
        engine.check("SUBSCRIBE a -> *3 $9 subscribe $1 a :1");
        engine.session.protocol = Protocol::Resp3;
        engine.check("PUBLISH a text -> :1");
        engine.session.protocol = Protocol::Resp2;
        engine.check("UNSUBSCRIBE -> *3 $7 message $1 a $4 text *3 $11 unsubscribe $1 a :0\nPING -> +PONG");
    }

    #[test]
    fn a_transaction_delivers_its_messages_in_order_when_it_is_over() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.check("SUBSCRIBE a b -> >3 $9 subscribe $1 a :1 >3 $9 subscribe $1 b :2");
        engine.check("MULTI -> +OK\nPUBLISH b 1 -> +QUEUED\nPUBLISH a 2 -> +QUEUED\nEXEC -> *2 :1 :1");
        assert_eq!(engine.messages(), "*3 $7 message $1 b $1 1 *3 $7 message $1 a $1 2");
    }

    #[test]
    fn nothing_is_left_of_a_client_that_goes() {
        let mut engine = Engine::new();
        engine.check("SUBSCRIBE a -> *3 $9 subscribe $1 a :1\nPSUBSCRIBE p -> *3 $10 psubscribe $1 p :2");
        engine.check("SSUBSCRIBE s -> *3 $10 ssubscribe $1 s :1\nRESET -> +RESET\nMONITOR -> +OK");
        engine.check("CLIENT TRACKING ON BCAST PREFIX x -> +OK");
        super::end_messages(&mut engine.session, &engine.hub);
        assert_eq!(engine.hub.counts(), Hub::default().counts());
        assert_eq!(engine.hub.interest(), Hub::default().interest());
    }
}
