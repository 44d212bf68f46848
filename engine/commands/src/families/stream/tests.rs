//! Replies as redis-server 7.0.15 gave them, and effects.

use cairn_resp::Protocol;

use crate::context::next_random;
use crate::testing::{Engine, random_command};

const NOW: &str = "1700000000000";

/// A stream `s` of five entries, 1-0 to 5-0, and its group `g`, which was given none.
fn with_group() -> Engine {
    let mut engine = Engine::new();
    (1..=5).for_each(|ms| drop(engine.say(&format!("XADD s {ms} f v{ms}"))));
    engine.check("XGROUP CREATE s g 0 -> +OK");
    engine.effects();
    engine
}

/// What replaying all of the journal gives is the same in all that XINFO tells.
fn check_replay(engine: &mut Engine, keys: &[&str], after: &str) {
    let mut replayed = engine.replayed();
    for key in keys {
        let words = format!("XINFO STREAM {key} FULL COUNT 0");
        assert_eq!(replayed.say(&words), engine.say(&words), "{after}");
    }
}

#[test]
fn an_id_is_the_clock_s_unless_it_is_given() {
    let mut engine = Engine::new();
    engine.check(
        "XADD s NOMKSTREAM * f v -> $-1
         XADD s * f v -> $15 1700000000000-0
         XADD s * f v -> $15 1700000000000-1
         XADD s 1700000000000-* f v -> $15 1700000000000-2
         XADD s NOMKSTREAM 1700000000007 f v -> $15 1700000000007-0
         XADD s * f v -> $15 1700000000007-1
         XADD s 5 f v -> -ERR The ID specified in XADD is equal or smaller than the target stream top item
         XADD s 5-* f v -> -ERR The ID specified in XADD is equal or smaller than the target stream top item
         XADD new 0-0 f v -> -ERR The ID specified in XADD must be greater than 0-0
         XADD new 0-* f v -> $3 0-1
         XADD new 1-x f v -> -ERR Invalid stream ID specified as stream command argument
         XADD new * f -> -ERR wrong number of arguments for 'xadd' command
         XADD new 18446744073709551615-18446744073709551615 f v -> $41 18446744073709551615-18446744073709551615
         XADD new * f v -> -ERR The stream has exhausted the last possible ID, unable to add more items",
    );
    let expected = "XADD s 1700000000000-0 f v
XADD s 1700000000000-1 f v
XADD s 1700000000000-2 f v
XADD s 1700000000007-0 f v
XADD s 1700000000007-1 f v
XADD new 0-1 f v
XADD new 18446744073709551615-18446744073709551615 f v";
    assert_eq!(engine.effects(), expected);
}

#[test]
fn what_was_trimmed_about_is_journaled_exactly() {
    let mut engine = Engine::new();
    engine.limits.stream_node_entries = 10;
    (1..=35).for_each(|ms| drop(engine.say(&format!("XADD s {ms} f v"))));
    engine.effects();
    engine.check(
        "XADD s MAXLEN ~ 30 36 f v -> $4 36-0
         XADD s MAXLEN ~ 20 37 f v -> $4 37-0
         XADD s MINID ~ 25 38 f v -> $4 38-0
         XTRIM s MINID ~ 35 LIMIT 5 -> :0
         XTRIM s MINID 23 -> :2
         XTRIM s MAXLEN 15 -> :1
         XTRIM s MAXLEN = 15 -> :0
         XTRIM absent MAXLEN 1 -> :0
         XTRIM s MAXLEN ~ 3 -> :7
         XLEN s -> :8",
    );
    let expected = "XADD s 36-0 f v
XADD s MAXLEN = 27 37-0 f v
XADD s MINID = 21-0 38-0 f v
XTRIM s MINID = 23-0
XTRIM s MAXLEN = 15
XTRIM s MAXLEN = 8";
    assert_eq!(engine.effects(), expected);
    engine.check(
        "XTRIM s MAXLEN 5 LIMIT 3 -> -ERR syntax error, LIMIT cannot be used without the special ~ option
         XTRIM s LIMIT 3 -> -ERR syntax error, LIMIT cannot be used without specifying a trimming strategy
         XTRIM s LIMIT 0 -> -ERR syntax error, XTRIM must be called with a trimming strategy",
    );
}

#[test]
fn what_a_consumer_was_given_is_its_own_until_it_acknowledges() {
    let mut engine = with_group();
    engine.check(
        "XREADGROUP GROUP g a COUNT 2 STREAMS s > -> *1 *2 $1 s *2 *2 $3 1-0 *2 $1 f $2 v1 *2 $3 2-0 *2 $1 f $2 v2
         XREADGROUP GROUP g b COUNT 1 NOACK STREAMS s > -> *1 *2 $1 s *1 *2 $3 3-0 *2 $1 f $2 v3",
    );
    let expected = format!(
        "MULTI
XCLAIM s g a 0 1-0 2-0 TIME {NOW} RETRYCOUNT 1 FORCE JUSTID
XGROUP SETID s g 2-0 ENTRIESREAD 2
EXEC
MULTI
XCLAIM s g b 0 TIME {NOW}
XGROUP SETID s g 3-0 ENTRIESREAD 3
EXEC"
    );
    assert_eq!(engine.effects(), expected);
    engine.check(
        "XPENDING s g -> *4 :2 $3 1-0 $3 2-0 *1 *2 $1 a $1 2
         XACK s g 1-0 1-0 9-0 -> :1
         XDEL s 2-0 -> :1
         XREADGROUP GROUP g a STREAMS s 0 -> *1 *2 $1 s *1 *2 $3 2-0 *-1
         XREADGROUP GROUP g b STREAMS s 0 -> *1 *2 $1 s *0
         XINFO GROUPS s -> *1 *12 $4 name $1 g $9 consumers :2 $7 pending :1 $17 last-delivered-id $3 3-0 $12 entries-read :3 $3 lag :2",
    );
    engine.now_ms += 250;
    engine.check(
        "XPENDING s g IDLE 250 - + 10 a -> *1 *4 $3 2-0 $1 a :250 :1
         XPENDING s g IDLE 251 - + 10 a -> *0
         XINFO CONSUMERS s g -> *2 *6 $4 name $1 a $7 pending :1 $4 idle :250 *6 $4 name $1 b $7 pending :0 $4 idle :250",
    );
    let expected = format!(
        "XACK s g 1-0 1-0 9-0
XDEL s 2-0
XCLAIM s g a 0 TIME {NOW}
XCLAIM s g b 0 TIME {NOW}"
    );
    assert_eq!(engine.effects(), expected);
}

#[test]
fn history_counts_as_another_delivery() {
    let mut engine = with_group();
    engine.say("XREADGROUP GROUP g a COUNT 3 STREAMS s >");
    engine.say("XCLAIM s g a 0 2-0 RETRYCOUNT 7 JUSTID");
    engine.effects();
    engine.now_ms += 1;
    engine.say("XREADGROUP GROUP g a STREAMS s 0");
    let expected = "MULTI
XCLAIM s g a 0 1-0 TIME 1700000000001 RETRYCOUNT 2 FORCE JUSTID
XCLAIM s g a 0 2-0 TIME 1700000000001 RETRYCOUNT 8 FORCE JUSTID
XCLAIM s g a 0 3-0 TIME 1700000000001 RETRYCOUNT 2 FORCE JUSTID
EXEC";
    assert_eq!(engine.effects(), expected);
}

#[test]
fn pending_entries_change_hands() {
    let mut engine = with_group();
    engine.say("XREADGROUP GROUP g a STREAMS s >");
    engine.now_ms += 100;
    engine.say("XDEL s 3-0");
    engine.effects();
    engine.check(
        "XCLAIM s g b 101 1-0 -> *0
         XCLAIM s g b 100 1-0 2-0 JUSTID -> *2 $3 1-0 $3 2-0
         XCLAIM s g c 0 1-0 IDLE 40 -> *1 *2 $3 1-0 *2 $1 f $2 v1
         XAUTOCLAIM s g d 100 - COUNT 2 -> *3 $3 5-0 *1 *2 $3 4-0 *2 $1 f $2 v4 *1 $3 3-0
         XPENDING s g - + 10 -> *4 *4 $3 1-0 $1 c :40 :2 *4 $3 2-0 $1 b :0 :1 *4 $3 4-0 $1 d :0 :2 *4 $3 5-0 $1 a :100 :1
         XCLAIM s g b 0 9-0 FORCE -> *0
         XCLAIM s g b 0 1-0 ODD -> -ERR Unrecognized XCLAIM option 'ODD'
         XCLAIM s none b 0 1-0 -> -NOGROUP No such key 's' or consumer group 'none'
         XAUTOCLAIM s g b 0 - COUNT 0 -> -ERR COUNT must be > 0",
    );
    let expected = "XCLAIM s g b 0 1-0 2-0 TIME 1700000000100 RETRYCOUNT 1 FORCE JUSTID
MULTI
XCLAIM s g c 0 1-0 TIME 1700000000060 RETRYCOUNT 2 FORCE JUSTID
XCLAIM s g c 0 TIME 1700000000100
EXEC
MULTI
XACK s g 3-0
XCLAIM s g d 0 4-0 TIME 1700000000100 RETRYCOUNT 2 FORCE JUSTID
EXEC";
    assert_eq!(engine.effects(), expected);
}

#[test]
fn a_journal_tells_all_that_groups_know() {
    let mut engine = Engine::new();
    for command in [
        "XGROUP CREATE s g $ MKSTREAM",
        "XGROUP CREATE t h 0 MKSTREAM ENTRIESREAD 0",
        "XADD s 1 a b c d",
        "XADD s 2 a b",
        "XADD t 1-1 a b",
        "XREADGROUP GROUP g one COUNT 1 STREAMS s >",
        "XREADGROUP GROUP g two STREAMS s >",
        "XREADGROUP GROUP h one NOACK STREAMS t >",
        "XGROUP CREATECONSUMER t h three",
        "XCLAIM s g two 0 1 IDLE 1000",
        "XCLAIM s g four 0 2 TIME 5 RETRYCOUNT 9 LASTID 7",
        "XCLAIM s g five 0 99 LASTID 8",
        "XREADGROUP GROUP g two STREAMS s 0",
        "XDEL s 1",
        "XAUTOCLAIM s g six 0 -",
        "XGROUP DELCONSUMER s g one",
        "XSETID t 9 ENTRIESADDED 12 MAXDELETEDID 3",
    ] {
        engine.now_ms += 17;
        assert!(!engine.say(command).starts_with('-'), "{command}");
        check_replay(&mut engine, &["s", "t"], command);
    }
}

#[test]
fn a_journal_of_random_commands_tells_all_that_groups_know() {
    for seed in 1..=20u64 {
        let (mut engine, mut state) = (Engine::new(), seed);
        for _ in 0..2_000 {
            engine.now_ms += (next_random(&mut state) % 20) as i64;
            let command = random_command(&mut state);
            if command.starts_with('X') {
                engine.say(&command);
            }
        }
        check_replay(&mut engine, &["r0", "r1", "r2"], &format!("seed {seed}"));
    }
}

#[test]
fn what_changes_nothing_leaves_no_effect() {
    let mut engine = with_group();
    engine.check(
        "XREADGROUP GROUP g a STREAMS none > -> -NOGROUP No such key 'none' or consumer group 'g' in XREADGROUP with GROUP option
         XREAD BLOCK 10 STREAMS s $ -> *-1
         XREAD BLOCK -1 STREAMS s $ -> -ERR timeout is negative
         XREAD BLOCK x STREAMS s $ -> -ERR timeout is not an integer or out of range
         XREAD STREAMS s t 0 -> -ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.
         XREAD STREAMS s > -> -ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.
         XDEL s 9-9 -> :0
         XACK s g 1-0 -> :0
         XACK s none 1-0 -> :0
         XGROUP DELCONSUMER s g a -> :0
         XGROUP CREATE s g 0 -> -BUSYGROUP Consumer Group name already exists
         XGROUP DESTROY s none -> :0
         XGROUP SETID s none 0 -> -NOGROUP No such consumer group 'none' for key name 's'
         XGROUP CREATECONSUMER s g a TIME 5 -> -ERR wrong number of arguments for 'xgroup|createconsumer' command
         XSETID s 4-9 -> -ERR The ID specified in XSETID is smaller than the target stream top item
         XSETID none 4-9 -> -ERR no such key
         XAUTOCLAIM s g a 0 - -> *3 $3 0-0 *0 *0",
    );
    assert_eq!(engine.effects(), "");
}

#[test]
fn an_empty_stream_stays_until_it_is_deleted() {
    let mut engine = Engine::new();
    engine.check(
        "XADD s 1 f v -> $3 1-0
         XTRIM s MAXLEN 0 -> :1
         EXISTS s -> :1
         TYPE s -> +stream
         OBJECT ENCODING s -> $6 stream
         XADD s 1 f v -> -ERR The ID specified in XADD is equal or smaller than the target stream top item
         COPY s t -> :1
         RENAME s u -> +OK
         XINFO STREAM u -> *20 $6 length :0 $15 radix-tree-keys :0 $16 radix-tree-nodes :1 $17 last-generated-id $3 1-0 $20 max-deleted-entry-id $3 0-0 $13 entries-added :1 $23 recorded-first-entry-id $3 0-0 $6 groups :0 $11 first-entry $-1 $10 last-entry $-1
         SET text x -> +OK
         XADD text * f v -> -WRONGTYPE Operation against a key holding the wrong kind of value
         XREAD STREAMS text 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value",
    );
}

#[test]
fn version_three_has_maps() {
    let mut engine = with_group();
    engine.speak(Protocol::Resp3);
    engine.check(
        "XREAD COUNT 1 STREAMS s none 4 0 -> %1 $1 s *1 *2 $3 5-0 *2 $1 f $2 v5
         XREAD STREAMS s $ -> _
         XRANGE s (2 3 -> *1 *2 $3 3-0 *2 $1 f $2 v3
         XREVRANGE s + - COUNT 1 -> *1 *2 $3 5-0 *2 $1 f $2 v5
         XRANGE s - + COUNT 0 -> _
         XINFO GROUPS s -> *1 %6 $4 name $1 g $9 consumers :0 $7 pending :0 $17 last-delivered-id $3 0-0 $12 entries-read _ $3 lag :5",
    );
}
