//! Our command table beside that of redis-server 7.0: every row, every field. What may differ is listed here, with why.

use cairn_tests::resp::{Client, Value};
use cairn_tests::server::{Server, Setup};
use std::collections::{BTreeMap, BTreeSet};

/// Commands of Redis 7.0 that one node has no use for.
const NOT_PROVIDED: &[(&str, &str)] =
    &[("restore-asking", "slots of a cluster are moved with it, and there is no cluster")];

/// Commands of ours that Redis 7.0 does not have, and who has them first.
const LATER: &[(&str, &str)] = &[
    ("cairn", "Cairn alone"),
    ("cairn|help", "Cairn alone"),
    ("cairn|ready", "Cairn alone"),
    ("cairn|key", "Cairn alone"),
    ("client|no-touch", "Redis 7.2"),
    ("client|setinfo", "Redis 7.2"),
    ("delex", "Redis 8.4"),
    ("delifeq", "Valkey 9.0"),
    ("digest", "Redis 8.4"),
    ("hexpire", "Redis 7.4"),
    ("hexpireat", "Redis 7.4"),
    ("hexpiretime", "Redis 7.4"),
    ("hgetdel", "Redis 8.0"),
    ("hgetex", "Redis 8.0"),
    ("hpersist", "Redis 7.4"),
    ("hpexpire", "Redis 7.4"),
    ("hpexpireat", "Redis 7.4"),
    ("hpexpiretime", "Redis 7.4"),
    ("hpttl", "Redis 7.4"),
    ("hsetex", "Redis 8.0"),
    ("httl", "Redis 7.4"),
    ("waitaof", "Redis 7.2"),
];

/// Fields of a row that may differ: command, field, reason.
const DIFFERENCES: &[(&str, &str, &str)] =
    &[("acl|load", "flags", FILES), ("acl|save", "flags", FILES), ("config|rewrite", "flags", FILES)];
/// Why these are no_multi.
const FILES: &str = "a transaction holds its keys, and a disk that hangs would hold them for ever";

/// Both servers, with a connection in RESP3 to each.
struct Both {
    cairn: Client,
    redis: Client,
    _servers: [Server; 2],
    _home: tempfile::TempDir,
}

impl Both {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let cairn = Setup::cairn(&home.path().join("cairn")).with("appendonly", "no").start();
        let redis = Setup::redis(&home.path().join("redis")).start();
        let (mut ours, mut theirs) = (cairn.connect(), redis.connect());
        for client in [&mut ours, &mut theirs] {
            assert!(!client.ask("HELLO 3").is_error());
        }
        Self { cairn: ours, redis: theirs, _servers: [cairn, redis], _home: home }
    }

    fn ask(&mut self, line: &str) -> (Value, Value) {
        (self.cairn.ask(line), self.redis.ask(line))
    }
}

/// A row of COMMAND, by field; sets in order.
type Row = BTreeMap<&'static str, String>;

const FIELDS: &[&str] =
    &["name", "arity", "flags", "first", "last", "step", "categories", "tips", "keys", "subcommands"];

/// The rows of COMMAND by name, those of subcommands among them.
fn rows(reply: Value, into: &mut BTreeMap<String, Row>) -> Vec<String> {
    let mut names = Vec::new();
    for row in reply.items() {
        let fields = row.items();
        assert_eq!(fields.len(), FIELDS.len());
        let name = fields[0].text();
        let mut row = Row::new();
        for (field, value) in FIELDS.iter().zip(fields) {
            let shown = match *field {
                "keys" => {
                    value.items().into_iter().map(|spec| key_spec(&spec)).collect::<Vec<_>>().join("; ")
                }
                // The names here, the rows beside the others.
                "subcommands" => rows(value, into).join(" "),
                "flags" | "categories" | "tips" => sorted(value).join(" "),
                _ => format!("{value:?}"),
            };
            row.insert(field, shown);
        }
        into.insert(name.clone(), row);
        names.push(name);
    }
    names.sort();
    names
}

fn sorted(value: Value) -> Vec<String> {
    let mut words: Vec<_> = value.items().iter().map(Value::text).collect();
    words.sort();
    words
}

/// A key specification in one order; of a note it counts that there is one, since the words are ours.
fn key_spec(spec: &Value) -> String {
    let Value::Map(pairs) = spec else { panic!("a map was expected, not {spec:?}") };
    let shown = |(name, value): &(Value, Value)| match name.text().as_str() {
        "notes" => "noted".to_owned(),
        "flags" => sorted(value.clone()).join(" "),
        name => format!("{name} {value:?}"),
    };
    pairs.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn is_later(name: &str) -> bool {
    LATER.iter().any(|(later, _)| *later == name)
}

#[test]
fn every_row_is_that_of_redis() {
    let mut both = Both::start();
    let (ours, theirs) = both.ask("COMMAND");
    let (mut our_rows, mut their_rows) = (BTreeMap::new(), BTreeMap::new());
    rows(ours, &mut our_rows);
    rows(theirs, &mut their_rows);
    let mut found = Vec::new();
    for (name, theirs) in &their_rows {
        let refused = NOT_PROVIDED.iter().any(|(listed, _)| listed == name);
        match our_rows.get(name) {
            Some(_) if refused => found.push(format!("{name}: listed as not provided")),
            None if refused => {}
            None => found.push(format!("{name}: missing")),
            Some(ours) => found.extend(differences(name, ours, theirs, &our_rows)),
        }
    }
    let unknown = our_rows.keys().filter(|name| !their_rows.contains_key(*name) && !is_later(name));
    found.extend(unknown.map(|name| format!("{name}: not a command of Redis 7.0, and not listed as later")));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

fn differences(name: &str, ours: &Row, theirs: &Row, all: &BTreeMap<String, Row>) -> Vec<String> {
    let mut found = Vec::new();
    for field in FIELDS {
        let listed = DIFFERENCES.iter().any(|(of, which, _)| of == &name && which == field);
        let (mut left, mut right) = (ours[field].clone(), theirs[field].clone());
        if *field == "subcommands" {
            // Missing and later ones are told of one by one.
            let common = |list: &str, other: &str| -> Vec<String> {
                list.split(' ')
                    .filter(|word| other.split(' ').any(|w| w == *word))
                    .map(str::to_owned)
                    .collect()
            };
            (left, right) = (common(&left, &right).join(" "), common(&right, &ours[field]).join(" "));
            assert!(ours[field].split(' ').all(|sub| sub.is_empty() || all.contains_key(sub)));
        }
        match (left == right, listed) {
            (true, true) => found.push(format!("{name}: listed as different in {field}, but the same")),
            (false, false) => found.push(format!("{name}: {field}\n    Cairn: {left}\n    Redis: {right}")),
            _ => {}
        }
    }
    found
}

#[test]
fn command_info_knows_commands_by_name() {
    let mut both = Both::start();
    let (ours, theirs) = both
        .ask("COMMAND INFO get GET config|get CONFIG|GET nope config|nope nope|get |get get| config|get|x");
    for (ours, theirs) in ours.items().into_iter().zip(theirs.items()) {
        match (&ours, &theirs) {
            (Value::Null, Value::Null) => {}
            (Value::Array(ours), Value::Array(theirs)) => assert_eq!(ours[0], theirs[0]),
            _ => panic!("Cairn: {ours:?}\n Redis: {theirs:?}"),
        }
    }
    for line in [
        "COMMAND COUNT x",
        "COMMAND GETKEYS",
        "COMMAND GETKEYS get",
        "COMMAND LIST x",
        "COMMAND LIST FILTERBY x y",
        "COMMAND LIST FILTERBY MODULE x",
        "COMMAND LIST FILTERBY ACLCAT nope",
        "COMMAND LIST FILTERBY PATTERN",
        "COMMAND LIST FILTERBY PATTERN xyz*",
        "COMMAND NOPE",
        "CONFIG",
        "CONFIG NOPE",
        "CONFIG GET",
        "CONFIG GET|X",
        "CONFIG SET a",
        "CONFIG SET maxmemory 1 x",
        "OBJECT",
        "OBJECT NOPE",
        "OBJECT ENCODING",
        "CLIENT",
        "CLIENT NOPE",
        "CLIENT KILL",
        "CLIENT GETNAME x",
        "XNOPE a",
        "config|get maxmemory",
    ] {
        let (ours, theirs) = both.ask(line);
        assert_eq!(ours, theirs, "{line}");
    }
}

#[test]
fn filters_find_what_redis_finds() {
    let mut both = Both::start();
    let list = |value: Value| -> BTreeSet<String> { value.items().iter().map(Value::text).collect() };
    let known: BTreeSet<String> = list(both.cairn.ask("COMMAND LIST FILTERBY PATTERN *"));
    let (ours, theirs) = both.ask("COMMAND LIST");
    let (ours, theirs) = (list(ours), list(theirs));
    assert!(ours.iter().all(|name| theirs.contains(name) || is_later(name)));
    let missing: Vec<_> = theirs.iter().filter(|name| !ours.contains(*name)).collect();
    let refused: Vec<_> = NOT_PROVIDED.iter().map(|(name, _)| name).collect();
    assert_eq!(missing, refused, "COMMAND LIST");
    let commands = ours.iter().filter(|name| !name.contains('|')).count();
    assert_eq!(both.cairn.ask("COMMAND COUNT").integer() as usize, commands);
    for filter in [
        "ACLCAT keyspace",
        "ACLCAT READ",
        "ACLCAT write",
        "ACLCAT set",
        "ACLCAT sortedset",
        "ACLCAT list",
        "ACLCAT hash",
        "ACLCAT string",
        "ACLCAT bitmap",
        "ACLCAT hyperloglog",
        "ACLCAT geo",
        "ACLCAT stream",
        "ACLCAT pubsub",
        "ACLCAT admin",
        "ACLCAT fast",
        "ACLCAT slow",
        "ACLCAT blocking",
        "ACLCAT dangerous",
        "ACLCAT connection",
        "ACLCAT transaction",
        "ACLCAT scripting",
        "PATTERN *set*",
        "PATTERN CONFIG|*",
        "PATTERN [abc]*",
    ] {
        let (ours, theirs) = both.ask(&format!("COMMAND LIST FILTERBY {filter}"));
        let ours: BTreeSet<_> = list(ours).into_iter().filter(|name| !is_later(name)).collect();
        let theirs: BTreeSet<_> = list(theirs).into_iter().filter(|name| known.contains(name)).collect();
        assert_eq!(ours, theirs, "{filter}");
        let Some(category) = filter.strip_prefix("ACLCAT ") else { continue };
        let [ours_of_acl, theirs_of_acl] = {
            let (ours, theirs) = both.ask(&format!("ACL CAT {category}"));
            [list(ours), list(theirs)]
        };
        assert!(ours_of_acl.iter().filter(|name| !is_later(name)).eq(&ours), "ACL CAT {category}");
        assert!(theirs_of_acl.iter().filter(|name| known.contains(*name)).eq(&theirs), "ACL CAT {category}");
    }
    let (ours, theirs) = both.ask("ACL CAT");
    assert_eq!(ours, theirs);
}

/// Requests of which other keys are found, and why.
const OTHER_KEYS: &[(&str, &str)] = &[
    ("georadius a 0 0 1 m store d storedist e", "the command itself stores in the last destination only"),
    ("xread streams a b 0", "the command itself refuses streams without an id each"),
];

/// Requests whose keys are asked for; `_` stands for an argument that is no key.
const REQUESTS: &str = "
get a | set a _ | set a _ get | set a _ ex 10 GET | mget a b c | mset a _ b _ | mset a _ b | msetnx a _ | del a b | watch a b
rename a b | renamenx a b | copy a b db 1 | move a 1 | exists a | expire a 1 | object encoding a | object nope a | object help
lpush a _ | lmove a b left right | rpoplpush a b | lmpop 2 a b left | lmpop 0 a left | lmpop x a left | lmpop 3 a b
sadd a _ | smove a b _ | sinter a b | sinterstore a b c | sunionstore a b c | sintercard 2 a b limit 1 | sintercard 9 a
hset a f v | hdel a f | zadd a 1 m | zunion 2 a b weights 1 2 | zunionstore d 2 a b | zunionstore d 9 a b | zdiffstore d 1 a
zrangestore d a 0 -1 | zmpop 1 a min | zrange a 0 -1 | zinter 99999999999 a b | zinter -1 a b
migrate h 1 a 0 9 | migrate h 1 a 0 9 copy auth keys | migrate h 1 '' 0 9 keys a b | migrate h 1 '' 0 9 auth2 keys x keys a | migrate h 1 a 0 9 keys b c
ping a b c | nope a b | get a b | get | config get a | config nope a | dbsize x y | info a b | multi a b | ping _ _
sort a by b* get c* store d | sort a store b store c | sort a by store get x | sort_ro a by b* get c* | sort a limit store 1 store d
bitop and d a b | bitfield a get u8 0 | bitfield a get u8 0 set u8 0 1 | bitfield a | bitfield_ro a get u8 0 | getbit a 0 | pfmerge d a b | pfcount a b | pfadd a e
lcs a b len | geosearchstore d a frommember m byradius 1 m | georadius a 0 0 1 m store d | georadius a 0 0 1 m store d storedist e
georadius a 0 0 1 m | georadius a 0 0 1 m store | georadiusbymember a m 1 km storedist d | geoadd a 0 0 m
xadd a * f v | xread streams a b 0 0 | xread count 1 block 0 streams a b 0 0 | xread count 1 _ _ | xread streams a b 0
xreadgroup group g c streams a > | xreadgroup group streams streams count 1 streams a b 0 0 | xgroup create a g 0 | xinfo stream a | xinfo groups a
eval s 0 | eval s 2 a b c | eval s 3 a b | eval s x a | evalsha s 1 a | fcall f 1 a b | fcall f -1 a | eval_ro s 1 a
blpop a b 0 | blmpop 0 2 a b left | blmove a b left right 0 | bzmpop 0 1 a min | bzpopmin a b 0 | brpoplpush a b 0
memory usage a samples 1 | dump a | restore a 0 _ | publish a b | spublish a b | ssubscribe a b | subscribe a b
";

#[test]
fn keys_of_requests_are_those_redis_finds() {
    let mut both = Both::start();
    let mut found = Vec::new();
    for request in REQUESTS.split(['|', '\n']).map(str::trim).filter(|request| !request.is_empty()) {
        for verb in ["GETKEYS", "GETKEYSANDFLAGS"] {
            let (ours, theirs) = both.ask(&format!("COMMAND {verb} {request}"));
            let listed = OTHER_KEYS.iter().any(|(listed, _)| *listed == request);
            if !listed && flags_in_order(&ours) != flags_in_order(&theirs) {
                found.push(format!("{verb} {request}\n    Cairn: {ours:?}\n    Redis: {theirs:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// The flags of a key are a set.
fn flags_in_order(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(flags_in_order).collect()),
        Value::Set(items) => {
            let mut items = items.clone();
            items.sort();
            Value::Set(items)
        }
        other => other.clone(),
    }
}

/// What arguments are, without what they are called: types, words, what may be left out or repeated, and what they are
/// made of.
fn structure(arguments: &Value) -> String {
    let Value::Array(arguments) = arguments else { panic!("an array was expected, not {arguments:?}") };
    let one = |argument: &Value| {
        let Value::Map(fields) = argument else { panic!("a map was expected, not {argument:?}") };
        let field =
            |name: &str| fields.iter().find(|(field, _)| field.text() == name).map(|(_, value)| value);
        let mut text = field("type").expect("each has a type").text();
        if text == "key" {
            text += &format!("{}", field("key_spec_index").expect("a key has a specification").integer());
        }
        text += &field("token").map_or(String::new(), |token| format!(":{}", token.text()));
        text +=
            &field("flags").map_or(String::new(), |flags| format!("[{}]", sorted(flags.clone()).join(" ")));
        text + &field("arguments").map_or(String::new(), |inner| format!("({})", structure(inner)))
    };
    arguments.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Arguments that Redis describes otherwise, and why ours are as they are.
const OTHER_ARGUMENTS: &[(&str, &str)] = &[];

#[test]
fn arguments_are_described_as_redis_does() {
    let mut both = Both::start();
    let (ours, theirs) = both.ask("COMMAND DOCS");
    let (mut our_docs, mut their_docs) = (BTreeMap::new(), BTreeMap::new());
    documents(ours, &mut our_docs);
    documents(theirs, &mut their_docs);
    let mut found = Vec::new();
    for (name, doc) in &our_docs {
        let Some(theirs) = their_docs.get(name) else { continue };
        let [ours, theirs] = [doc, theirs].map(|doc| doc.get("arguments").map_or("", String::as_str));
        let listed = OTHER_ARGUMENTS.iter().any(|(of, _)| of == name);
        if (ours == theirs) == listed {
            found.push(format!("{name}\n    Cairn: {ours}\n    Redis: {theirs}"));
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_command_is_documented_in_our_own_words() {
    let mut both = Both::start();
    let (ours, theirs) = both.ask("COMMAND DOCS");
    let (mut our_docs, mut their_docs) = (BTreeMap::new(), BTreeMap::new());
    documents(ours, &mut our_docs);
    documents(theirs, &mut their_docs);
    for (name, doc) in &our_docs {
        let summary = doc.get("summary").unwrap_or_else(|| panic!("{name} has no summary"));
        assert!(summary.ends_with('.') && !summary.contains('\n'), "{name}: {summary}");
        let Some(theirs) = their_docs.get(name) else { continue };
        assert_ne!(Some(summary), theirs.get("summary"), "{name}");
        for field in ["since", "group", "doc_flags", "deprecated_since"] {
            assert_eq!(doc.get(field), theirs.get(field), "{name}: {field}");
        }
        assert_eq!(doc.contains_key("replaced_by"), theirs.contains_key("replaced_by"), "{name}");
    }
    let (ours, theirs) = both.ask("COMMAND DOCS nope");
    assert_eq!(ours, theirs);
    assert!(
        matches!(both.cairn.ask("COMMAND DOCS get config|get nope"), Value::Map(found) if found.len() == 2)
    );
}

fn documents(reply: Value, into: &mut BTreeMap<String, BTreeMap<String, String>>) {
    let Value::Map(pairs) = reply else { panic!("a map was expected, not {reply:?}") };
    for (name, doc) in pairs {
        let Value::Map(fields) = doc else { panic!("a map was expected, not {doc:?}") };
        let mut lines = BTreeMap::new();
        for (field, value) in fields {
            match field.text().as_str() {
                "subcommands" => documents(value, into),
                "arguments" => {
                    lines.insert(field.text(), structure(&value));
                }
                "history" => {}
                field => {
                    let text =
                        if let Value::Bulk(_) = value { value.text() } else { sorted(value).join(" ") };
                    lines.insert(field.to_owned(), text);
                }
            }
        }
        into.insert(name.text(), lines);
    }
}
