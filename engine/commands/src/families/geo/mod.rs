//! Positions, which are members of sorted sets: <https://redis.io/docs/latest/commands/?group=geo>

mod cell;
mod search;
mod shape;

use cairn_keyspace::types::Zset;
use cairn_resp::{Protocol, Reply};

use super::zset::zadd;
use crate::args::{float, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::keys::{Access, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};
use cell::{Position, WORLD, position_of, score_of, text_of};
use search::{georadius, georadius_ro, georadiusbymember, georadiusbymember_ro, geosearch, geosearchstore};
use shape::distance_m;

const GEO: Categories = Categories::GEO;
const STORE: Flags = Flags::WRITE.deny_oom();
const DESTINATION_AND_SOURCE: Keys =
    Keys::specs(&[KeySpec::one(1, Access::OW.update()), KeySpec::one(2, Access::RO.access())]);
const RADIUS: Keys = Keys::found(
    &[
        KeySpec::one(1, Access::RO.access()),
        KeySpec::behind("STORE", 6, Access::OW.update()),
        KeySpec::behind("STOREDIST", 6, Access::OW.update()),
    ],
    |args| source_and_store(args, 6),
);
const RADIUS_BY_MEMBER: Keys = Keys::found(
    &[
        KeySpec::one(1, Access::RO.access()),
        KeySpec::behind("STORE", 5, Access::OW.update()),
        KeySpec::behind("STOREDIST", 5, Access::OW.update()),
    ],
    |args| source_and_store(args, 5),
);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "geoadd",               arity: at_least(5), flags: Flags::WRITE.deny_oom(), keys: Keys::one(1).access(Access::RW.update()), acl: GEO, handler: geoadd },
    CommandSpec { name: "geodist",              arity: at_least(4), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: geodist },
    CommandSpec { name: "geohash",              arity: at_least(2), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: geohash },
    CommandSpec { name: "geopos",               arity: at_least(2), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: geopos },
    CommandSpec { name: "geosearch",            arity: at_least(7), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: geosearch },
    CommandSpec { name: "geosearchstore",       arity: at_least(8), flags: Flags::WRITE.deny_oom(), keys: DESTINATION_AND_SOURCE, acl: GEO, handler: geosearchstore },
    CommandSpec { name: "georadius",            arity: at_least(6), flags: STORE,                   keys: RADIUS, acl: GEO, handler: georadius },
    CommandSpec { name: "georadius_ro",         arity: at_least(6), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: georadius_ro },
    CommandSpec { name: "georadiusbymember",    arity: at_least(5), flags: STORE,                   keys: RADIUS_BY_MEMBER, acl: GEO, handler: georadiusbymember },
    CommandSpec { name: "georadiusbymember_ro", arity: at_least(5), flags: Flags::READ,             keys: Keys::one(1),           acl: GEO, handler: georadiusbymember_ro },
];

/// The key that is searched, the first ones behind STORE and STOREDIST, as Redis tells them, and the one that is written:
/// the last of the options from `options` on, read as the command itself reads them.
fn source_and_store(args: &[&[u8]], options: usize) -> Vec<(usize, Access)> {
    let behind = |word: &str| (options..args.len()).find(|at| is(args[*at], word)).map(|at| at + 1);
    let (mut at, mut destination) = (options, None);
    while let Some(word) = args.get(at) {
        if is(word, "store") || is(word, "storedist") {
            destination = Some(at + 1);
        }
        at += if is(word, "store") || is(word, "storedist") || is(word, "count") { 2 } else { 1 };
    }
    let mut stores: Vec<usize> = [behind("store"), behind("storedist")].into_iter().flatten().collect();
    stores.extend(destination.filter(|at| !stores.contains(at)));
    let source = std::iter::once((1, Access::RO.access()));
    let stores = stores.into_iter().map(|at| (at, Access::OW.update()));
    source.chain(stores).filter(|(at, _)| *at < args.len()).collect()
}

/// A position that has a score.
fn position(longitude: &[u8], latitude: &[u8]) -> Result<Position, CommandError> {
    let position = Position { longitude: float(longitude)?, latitude: float(latitude)? };
    if WORLD.contains(position) {
        return Ok(position);
    }
    let Position { longitude, latitude } = position;
    Err(CommandError::other(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}")))
}

/// Metres in a unit.
fn unit(name: &[u8]) -> Result<f64, CommandError> {
    [("m", 1.0), ("km", 1_000.0), ("ft", 0.3048), ("mi", 1_609.34)]
        .into_iter()
        .find(|(word, _)| is(name, word))
        .map(|(_, metres)| metres)
        .ok_or(CommandError::other("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// A distance, with four digits behind the point.
fn reply_distance(reply: &mut Reply<'_>, distance: f64) {
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    reply.bulk(format!("{}.{:04}", scaled / 10_000, scaled % 10_000).as_bytes());
}

fn reply_position(reply: &mut Reply<'_>, position: Position) {
    reply.array(2);
    for degrees in [position.longitude, position.latitude] {
        let digits = format!("{degrees:.17}");
        let digits = match digits.trim_end_matches('0').trim_end_matches('.') {
            "-0" => "0",
            digits => digits,
        };
        match reply.protocol() {
            Protocol::Resp2 => reply.bulk(digits.as_bytes()),
            Protocol::Resp3 => reply.raw(format!(",{digits}\r\n").as_bytes()),
        }
    }
}

/// Is ZADD with the positions' scores.
fn geoadd(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let is_option = |arg: &&&[u8]| ["nx", "xx", "ch"].iter().any(|word| is(arg, word));
    let (options, places) = args[2..].split_at(args[2..].iter().take_while(is_option).count());
    let given = |word: &str| options.iter().any(|option| is(option, word));
    if !places.len().is_multiple_of(3) || (given("nx") && given("xx")) {
        return Err(CommandError::Syntax);
    }
    let scores: Vec<String> = places
        .chunks_exact(3)
        .map(|place| position(place[0], place[1]).map(|position| score_of(position).to_string()))
        .collect::<Result<_, _>>()?;
    let mut words: Vec<&[u8]> = vec![b"zadd", args[1]];
    words.extend_from_slice(options);
    for (score, place) in scores.iter().zip(places.chunks_exact(3)) {
        words.extend([score.as_bytes(), place[2]]);
    }
    zadd(ctx, &words)
}

fn geodist(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let unit_m = match args {
        [_, _, _, _] => 1.0,
        [.., name] if args.len() == 5 => unit(name)?,
        _ => return Err(CommandError::Syntax),
    };
    let zset = ctx.data.read::<Zset>(args[1])?;
    let position = |member: &[u8]| zset.and_then(|zset| zset.score(member)).map(position_of);
    match position(args[2]).zip(position(args[3])) {
        Some((a, b)) => reply_distance(&mut ctx.reply, distance_m(a, b) / unit_m),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn geohash(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let zset = ctx.data.read::<Zset>(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => ctx.reply.bulk(&text_of(position_of(score))),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

fn geopos(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let zset = ctx.data.read::<Zset>(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => reply_position(&mut ctx.reply, position_of(score)),
            None => ctx.reply.null_array(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    fn sicily() -> Engine {
        let mut engine = Engine::new();
        engine.check(
            "GEOADD Sicily 13.361389 38.115556 Palermo 15.087269 37.502669 Catania -> :2
             GEOADD Sicily 12.758489 38.788135 edge1 17.241510 38.788135 edge2 -> :2",
        );
        engine
    }

    #[test]
    fn replies_are_those_of_redis() {
        let mut engine = sicily();
        engine.check(
            "ZSCORE Sicily Palermo -> $16 3479099956230698
             GEODIST Sicily Palermo Catania -> $11 166274.1516
             GEODIST Sicily Palermo Catania km -> $8 166.2742
             GEODIST Sicily Palermo Catania mi -> $8 103.3182
             GEODIST Sicily Palermo Palermo -> $6 0.0000
             GEODIST Sicily Palermo nowhere -> $-1
             GEODIST Sicily Palermo Catania parsec -> -ERR unsupported unit provided. please use M, KM, FT, MI
             GEODIST Sicily Palermo Catania m m -> -ERR syntax error
             GEOHASH Sicily Palermo Catania no -> *3 $11 sqc8b49rny0 $11 sqdtr74hyu0 $-1
             GEOPOS Sicily Palermo no -> *2 *2 $20 13.36138933897018433 $20 38.11555639549629859 *-1
             GEOPOS no Palermo -> *1 *-1
             GEORADIUS Sicily 15 37 200 km WITHDIST ASC -> *2 *2 $7 Catania $7 56.4413 *2 $7 Palermo $8 190.4424
             GEORADIUS Sicily 15 37 200 km COUNT 1 WITHHASH -> *1 *2 $7 Catania :3479447370796909
             GEORADIUSBYMEMBER Sicily Palermo 200 km DESC -> *3 $7 Catania $5 edge1 $7 Palermo
             GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX 400 400 km ASC -> *4 $7 Catania $7 Palermo $5 edge2 $5 edge1
             GEOSEARCH Sicily FROMMEMBER Catania BYRADIUS 10 m WITHCOORD -> *1 *2 $7 Catania *2 $20 15.08726745843887329 $20 37.50266842333162032
             GEOSEARCH no FROMMEMBER Catania BYRADIUS 10 m -> *0
             GEOADD Sicily NX CH 1 2 Catania -> :0
             GEOADD Sicily XX CH 1 2 Catania -> :1",
        );
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_redis() {
        sicily().check(
            "GEOADD Sicily 200 100 x -> -ERR invalid longitude,latitude pair 200.000000,100.000000
             GEOADD Sicily NX XX 1 2 x -> -ERR syntax error
             GEOADD Sicily 1 2 x 3 -> -ERR syntax error
             GEOADD Sicily a 2 x -> -ERR value is not a valid float
             GEOSEARCH Sicily FROMLONLAT 15 37 FROMMEMBER x BYRADIUS 1 m -> -ERR syntax error
             GEOSEARCH Sicily BYRADIUS 1 m ASC DESC -> -ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GEOSEARCH
             GEOSEARCH Sicily FROMLONLAT 15 37 ASC DESC -> -ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH
             GEOSEARCH Sicily FROMMEMBER x BYRADIUS 1 m -> -ERR could not decode requested zset member
             GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 1 m ANY -> -ERR the ANY argument requires COUNT argument
             GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 1 m COUNT 0 -> -ERR COUNT must be > 0
             GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS -1 m -> -ERR radius cannot be negative
             GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX 1 x m -> -ERR need numeric height
             GEOSEARCHSTORE d Sicily FROMLONLAT 15 37 BYRADIUS 1 m WITHDIST -> -ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options
             GEORADIUS Sicily 15 37 200 km STORE d WITHDIST -> -ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options
             GEORADIUS_RO Sicily 15 37 200 km STORE d -> -ERR syntax error
             GEORADIUSBYMEMBER Sicily x 200 km -> -ERR could not decode requested zset member
             GEORADIUSBYMEMBER no x y z -> *0
             SET s x -> +OK
             GEODIST s a b -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn what_is_stored_is_journaled_member_by_member() {
        let mut engine = sicily();
        engine.effects();
        engine.check(
            "SET d x EX 100 -> +OK
             GEORADIUS Sicily 15 37 100 km STOREDIST d -> :1
             TTL d -> :-1
             GEOSEARCHSTORE d Sicily FROMLONLAT 15 37 BYRADIUS 100 km -> :1
             GEORADIUS Sicily 15 37 1 m STORE d -> :0
             GEORADIUS no 15 37 1 m STORE d -> :0
             EXISTS d -> :0",
        );
        assert_eq!(
            engine.effects(),
            "SET d x PXAT 1700000100000\n\
             MULTI\nDEL d\nZADD d 56.441257870158204 Catania\nEXEC\n\
             MULTI\nDEL d\nZADD d 3479447370796909 Catania\nEXEC\n\
             DEL d"
        );
    }

    #[test]
    fn a_destination_is_found_where_the_command_finds_it() {
        let found = |words: &str| {
            let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            super::source_and_store(&args, 6).into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(found("georadius k 1 2 3 m asc STORE a storedist b"), [1, 8, 10]);
        assert_eq!(found("georadius k 1 2 3 m store store asc"), [1, 7]);
        assert_eq!(found("georadius k 1 2 3 m count store a store b"), [1, 8, 10]);
        assert_eq!(found("georadius k 1 2 3 m store"), [1]);
        sicily().check("GEORADIUS Sicily 15 37 100 km STORE STORE ASC -> :1");
    }

    #[test]
    fn shapes_of_version_3() {
        let mut engine = sicily();
        engine.speak(Protocol::Resp3);
        engine.check(
            "GEOPOS Sicily Palermo no -> *2 *2 ,13.36138933897018433 ,38.11555639549629859 _
             GEODIST Sicily Palermo no -> _",
        );
    }
}
