//! A value of every type in each of its encodings, with what stands beside values: expiries, groups of streams, databases,
//! functions. And all that two servers can be asked about them.

use crate::resp::{Client, Value};
use std::collections::BTreeMap;

/// How the names of collections begin that [`fill`] makes; a word follows, where the random commands of others have a number.
const FILLED: [&str; 4] = ["list:", "set:", "hash:", "zset:"];

/// Long enough for no flat encoding.
fn long(of: &str) -> String {
    of.repeat(3_000)
}

/// Fills a server, which is empty, with a value of every type and encoding in databases 0, 3 and 9.
pub fn fill(client: &mut Client) {
    client.ask("SELECT 0");
    for line in [
        "SET text hello",
        "SET empty \"\"",
        "SET number -123456",
        "SET long:number 9223372036854775807",
        "SET expiring value PXAT 4102444800123",
        "RPUSH list:small a 1 -5 70000 b",
        "SADD set:integers:16 1 2 -3",
        "SADD set:integers:64 1 9223372036854775807",
        "SADD set:words a b 12 c",
        "HSET hash:small a 1 b two c 3.5",
        "ZADD zset:small 1 a 1.5 b -inf c inf d 3 7",
        "PEXPIREAT zset:small 4102444800456",
        "PFADD hyperloglog a b c",
        "SETBIT bits 100 1",
        "GEOADD places 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
        "XADD stream 1-1 a 1 b 2",
        "XADD stream 1-2 a 3 b 4",
        "XADD stream 2-0 other field",
        "XADD stream 5-5 a 1 b x",
        "XDEL stream 1-2",
        "XGROUP CREATE stream readers 0",
        "XGROUP CREATE stream idle $",
        "XREADGROUP GROUP readers ann COUNT 1 STREAMS stream >",
        "XREADGROUP GROUP readers bob COUNT 1 STREAMS stream >",
        "XACK stream readers 2-0",
        "XGROUP CREATECONSUMER stream readers lazy",
        "XADD stream:empty 7-7 a b",
        "XTRIM stream:empty MAXLEN 0",
        "XSETID stream:empty 9-9",
    ] {
        let reply = client.ask(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    let mut commands = vec![words(&["SET", "compressible", &long("abc")])];
    commands.push([b"SET".to_vec(), b"binary".to_vec(), (0..=255).collect()].to_vec());
    for number in 0..1_200 {
        let (name, value) = (format!("member:{number}"), format!("value:{number}"));
        commands.push(words(&["RPUSH", "list:large", &value]));
        commands.push(words(&["SADD", "set:large", &name]));
        commands.push(words(&["SADD", "set:integers:large", &(number * 3).to_string()]));
        commands.push(words(&["HSET", "hash:large", &name, &value]));
        commands.push(words(&["ZADD", "zset:large", &format!("{number}.25"), &name]));
        commands.push(words(&[
            "XADD",
            "stream:large",
            &format!("{}-{}", number / 7 + 1, number % 7),
            "n",
            &name,
        ]));
    }
    commands.push(words(&["RPUSH", "list:plain", "short", &long("x"), &"y".repeat(20_000), "short"]));
    commands.push(words(&["HSET", "hash:long", "field", &long("z")]));
    commands.push(words(&["ZADD", "zset:long", "1", &long("w")]));
    commands.push(words(&["SADD", "set:long", &long("v")]));
    commands.push(words(&["SELECT", "3"]));
    commands.push(words(&["SET", "elsewhere", "three"]));
    commands.push(words(&["SET", "text", "another"]));
    commands.push(words(&["SELECT", "9"]));
    commands.push(words(&["RPUSH", "far", "away"]));
    commands.push(words(&["SELECT", "0"]));
    let library = "#!lua name=shapes\nredis.register_function('area', function(keys, args) return args[1] * args[2] end)";
    commands.push(words(&["FUNCTION", "LOAD", library]));
    for reply in client.pipeline(&commands).expect("the server takes them") {
        assert!(!reply.is_error(), "{reply:?}");
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// All that is asked of each key of a database: its type, encoding and expiry, and of a stream what its groups know.
pub fn describe(client: &mut Client, database: u16) -> BTreeMap<String, Vec<String>> {
    client.ask(&format!("SELECT {database}"));
    let keys = client.ask("KEYS *").items();
    let mut found = BTreeMap::new();
    for key in keys {
        let name = key.text();
        let kind = client.args(&["TYPE", &name]).text();
        let mut said = vec![kind.clone()];
        // Of what was changed in place, and of sets that shrank, Redis shows another encoding before a restart than after it.
        let is_filled =
            |start: &&str| name.strip_prefix(*start).is_some_and(|rest| rest.parse::<u64>().is_err());
        if FILLED.iter().any(is_filled) {
            said.push(client.args(&["OBJECT", "ENCODING", &name]).text());
        }
        said.push(format!("{:?}", client.args(&["PEXPIRETIME", &name])));
        said.push(client.args(&["DEBUG", "DIGEST-VALUE", &name]).items().remove(0).text());
        if kind == "stream" {
            said.extend(stream(client, &name));
        }
        found.insert(name, said);
    }
    found
}

/// What XINFO and XPENDING tell, without the shape of a tree and without durations.
fn stream(client: &mut Client, name: &str) -> Vec<String> {
    let full = client.args(&["XINFO", "STREAM", name]).items();
    let told = |field: &str| {
        let at = full.iter().position(|item| *item == Value::bulk(field));
        at.and_then(|at| full.get(at + 1)).map(|value| format!("{field} {value:?}"))
    };
    let fields =
        ["length", "last-generated-id", "max-deleted-entry-id", "entries-added", "recorded-first-entry-id"];
    let mut said: Vec<_> = fields.iter().filter_map(|field| told(field)).collect();
    said.push(format!("{:?}", client.args(&["XINFO", "GROUPS", name])));
    for group in client.args(&["XINFO", "GROUPS", name]).items() {
        let group = group.items().remove(1).text();
        said.push(format!("{:?}", client.args(&["XPENDING", name, &group])));
        for pending in client.args(&["XPENDING", name, &group, "-", "+", "100"]).items() {
            let mut pending = pending.items();
            pending.remove(2);
            said.push(format!("{pending:?}"));
        }
        for consumer in client.args(&["XINFO", "CONSUMERS", name, &group]).items() {
            said.push(format!("{:?}", &consumer.items()[..4]));
        }
    }
    said
}

/// The sources of the function libraries.
pub fn libraries(client: &mut Client) -> Vec<String> {
    let mut sources = Vec::new();
    for library in client.ask("FUNCTION LIST WITHCODE").items() {
        let fields = library.items();
        let at = fields.iter().position(|field| *field == Value::bulk("library_code")).expect("its source");
        sources.push(fields[at + 1].text());
    }
    sources.sort();
    sources
}
