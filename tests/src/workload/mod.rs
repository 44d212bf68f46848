//! Random commands whose outcome does not depend on chance or on the clock, so that two servers can be compared.
//!
//! Every family of commands has a file with its templates; [`words`] draws what stands for something random in them. Left out
//! are commands whose reply or effect is drawn by lot (RANDOMKEY) or comes from the clock (`XADD *`); where a count as large
//! as the collection takes the chance away (SPOP, SCAN) it is asked for.

mod bitmaps;
mod compare;
mod hashes;
mod hyperloglogs;
mod keys;
mod lists;
mod others;
mod places;
mod scripts;
mod sets;
mod sorted_sets;
mod sorting;
mod streams;
mod strings;
mod words;

pub use compare::{agree, normal};

use crate::random::Random;
use crate::resp::{Client, Value};
use std::collections::BTreeSet;
use words::Source;

/// A command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// How the replies of two servers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Equal as they stand.
    Exact,
    /// Equal once the items are sorted: sets promise no order.
    Items,
    /// Equal once the pairs are sorted: hashes promise no order.
    Pairs,
    /// A cursor, and items that are compared as [`Order::Items`].
    Scan,
    /// A cursor, and items that are compared as [`Order::Pairs`].
    ScanPairs,
    /// Equal, but for how a string is held: Redis shows `raw` or `embstr` for what was changed in place and another name
    /// after a restart, so the difference says nothing about the value. And but for the form of a sorted set, which in Redis
    /// is the large one after SORT, even after SORT_RO. And but for how often an object is shared.
    Encoding,
    /// Members with their distances, the nearest or the farthest of them: which of several equally far ones a count takes
    /// is not said.
    Nearest,
    /// Remaining times, which may differ by the moment between two calls.
    Time,
    /// The entries of a group that are not acknowledged: how long they have been idle is the third of each.
    Pending,
    /// What XINFO tells, without moments, durations and the shape of a tree that is Redis's own.
    Stream,
}

/// A command's words, and how its reply is compared.
#[derive(Clone, Copy, Debug)]
struct Template {
    words: &'static str,
    order: Order,
}

const fn exact(words: &'static str) -> Template {
    Template { words, order: Order::Exact }
}

const fn items(words: &'static str) -> Template {
    Template { words, order: Order::Items }
}

const fn pairs(words: &'static str) -> Template {
    Template { words, order: Order::Pairs }
}

const fn scan(words: &'static str) -> Template {
    Template { words, order: Order::Scan }
}

const fn scanpairs(words: &'static str) -> Template {
    Template { words, order: Order::ScanPairs }
}

const fn encoding(words: &'static str) -> Template {
    Template { words, order: Order::Encoding }
}

const fn nearest(words: &'static str) -> Template {
    Template { words, order: Order::Nearest }
}

const fn time(words: &'static str) -> Template {
    Template { words, order: Order::Time }
}

const fn pending(words: &'static str) -> Template {
    Template { words, order: Order::Pending }
}

const fn stream(words: &'static str) -> Template {
    Template { words, order: Order::Stream }
}

impl Template {
    fn name(&self) -> &'static str {
        self.words.split(' ').next().unwrap_or_default()
    }

    /// Whether it may be sent broken, too. What may wait must not be given another time to wait, without its count some
    /// commands choose by lot, and where members are ordered by name no score may be another.
    fn may_be_damaged(&self) -> bool {
        let name = self.name();
        let waits = ["BL", "BR", "BZ"].iter().any(|start| name.starts_with(start));
        self.order == Order::Exact
            && !waits
            && !self.words.contains(" e ")
            && !["SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER"].contains(&name)
    }
}

/// A family: what its keys begin with, and its templates.
type Family = (&'static str, &'static [Template]);

const FAMILIES: &[Family] = &[
    ("string", strings::TEMPLATES),
    ("keys", keys::TEMPLATES),
    ("list", lists::TEMPLATES),
    ("set", sets::TEMPLATES),
    ("hash", hashes::TEMPLATES),
    ("zset", sorted_sets::TEMPLATES),
    ("stream", streams::TEMPLATES),
    ("bits", bitmaps::TEMPLATES),
    ("hll", hyperloglogs::TEMPLATES),
    ("geo", places::TEMPLATES),
    ("sort", sorting::TEMPLATES),
    ("script", scripts::TEMPLATES),
    ("any", others::TEMPLATES),
];

/// What the keys of the families begin with.
const KEYED: [&str; 12] =
    ["string", "list", "set", "hash", "zset", "stream", "bits", "hll", "geo", "sort", "script", "any"];

/// Names among the templates that no server knows, and that are sent all the same.
const UNKNOWN: &str = "NOSUCHCOMMAND";

/// A seeded stream of commands.
#[derive(Debug)]
pub struct Workload {
    source: Source,
    families: Vec<(&'static str, Vec<Template>)>,
}

/// A random command, and how to compare its reply.
#[derive(Clone, Debug)]
pub struct Step {
    /// The command.
    pub command: Command,
    /// How its reply is compared.
    pub order: Order,
    /// The commands that this EXEC runs, with their orders.
    pub exec: Vec<(Command, Order)>,
    /// What it was made from, the same for all that differ by chance alone.
    pub template: &'static str,
}

impl Workload {
    /// Commands of all families, those of `missing` left out.
    pub fn without(seed: u64, missing: &BTreeSet<String>) -> Self {
        let families = FAMILIES.iter().map(|(name, templates)| {
            let known = templates.iter().filter(|template| !missing.contains(template.name()));
            (*name, known.copied().collect::<Vec<_>>())
        });
        let families = families.filter(|(_, templates)| !templates.is_empty()).collect();
        Self { source: Source::new(seed), families }
    }

    /// The next command. One in many is broken on purpose: a word is missing, doubled or makes no sense.
    pub fn command(&mut self) -> Step {
        let (family, templates) = &self.families[self.source.random.below(self.families.len())];
        let template = templates[self.source.random.below(templates.len())];
        let mut command = Command::new();
        for piece in template.words.split(' ') {
            self.source.word(family, piece, &mut command);
        }
        let order = template.order;
        if template.may_be_damaged() && self.source.random.once_in(25) {
            self.damage(&mut command);
        }
        Step { command, order, exec: Vec::new(), template: template.words }
    }

    /// The next commands: mostly one, now and then a transaction, watched or not.
    pub fn steps(&mut self) -> Vec<Step> {
        if !self.source.random.once_in(20) {
            return vec![self.command()];
        }
        let mut steps = Vec::new();
        if self.source.random.once_in(3) {
            steps.push(plain("WATCH string:1 any:2"));
            if self.source.random.once_in(2) {
                // A watched key is touched by the same client, which dirties the transaction.
                steps.push(plain("SET string:1 touched"));
            }
        }
        steps.push(plain("MULTI"));
        let queued: Vec<Step> = (0..1 + self.source.random.below(5)).map(|_| self.command()).collect();
        let exec = queued.iter().map(|step| (step.command.clone(), step.order)).collect();
        steps.extend(queued.into_iter().map(|step| Step { order: Order::Exact, ..step }));
        match self.source.random.below(8) {
            0 => steps.push(plain("DISCARD")),
            _ => steps.push(Step { exec, ..plain("EXEC") }),
        }
        steps
    }

    /// Takes a word out, doubles one or replaces one by something that makes no sense.
    fn damage(&mut self, command: &mut Command) {
        let random = &mut self.source.random;
        if command.len() < 2 {
            return;
        }
        let at = 1 + random.below(command.len() - 1);
        match random.below(3) {
            0 => drop(command.remove(at)),
            1 => command.insert(at, command[at].clone()),
            _ => {
                command[at] = random.pick(&["x", "", "-1", "9223372036854775808", "1.5x"]).as_bytes().to_vec()
            }
        }
    }
}

/// A command as it stands, its reply compared as it stands.
fn plain(line: &'static str) -> Step {
    let command = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    Step { command, order: Order::Exact, exec: Vec::new(), template: line }
}

/// The names in the templates that this server does not know.
pub fn unknown_to(client: &mut Client) -> BTreeSet<String> {
    let names: BTreeSet<&str> =
        FAMILIES.iter().flat_map(|(_, templates)| *templates).map(Template::name).collect();
    let mut missing = BTreeSet::new();
    for name in names.into_iter().filter(|name| *name != UNKNOWN) {
        let info = client.args(&["COMMAND", "INFO", name]).items();
        if matches!(info.first(), None | Some(Value::Null)) {
            missing.insert(name.to_owned());
        }
    }
    missing
}

/// A key that commands of some family use.
pub fn some_key(random: &mut Random) -> String {
    String::from_utf8_lossy(&words::key(random, "keys")).into_owned()
}

/// `count` random commands that write; what they reply does not matter.
pub fn dataset(seed: u64, count: usize) -> Vec<Command> {
    let mut workload = Workload::without(seed, &BTreeSet::new());
    let mut commands = Vec::with_capacity(count);
    while commands.len() < count {
        let step = workload.command();
        // MOVE stays: a second database belongs to a dataset. Waiting for others does not.
        if step.order == Order::Exact && !step.command[0].starts_with(b"B") {
            commands.push(step.command);
        }
        let n = commands.len();
        let random = &mut workload.source.random;
        // Collections large enough to leave their small encodings.
        let more = |name: &str, args: &[String]| {
            [name, &format!("large:{name}")]
                .iter()
                .map(|s| s.as_bytes().to_vec())
                .chain(args.iter().map(|arg| arg.clone().into_bytes()))
                .collect::<Command>()
        };
        match n % 10 {
            0 => commands.push(more("RPUSH", &[format!("{}", random.next_u64())])),
            2 => commands.push(more("SADD", &[format!("{}", random.next_u64())])),
            4 => commands.push(more("HSET", &[format!("f{}", random.next_u64()), format!("{n}")])),
            6 => commands
                .push(more("ZADD", &[format!("{}", random.below(1000)), format!("m{}", random.next_u64())])),
            8 => commands.push(vec![b"SET".to_vec(), format!("plain:{n}").into_bytes(), random.hex(100)]),
            _ => {}
        }
    }
    commands
}
