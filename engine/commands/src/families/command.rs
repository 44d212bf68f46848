//! COMMAND: what the table says of itself. <https://redis.io/docs/latest/commands/command/>

use cairn_resp::Reply;

use super::docs::{arguments_of, syntax};
use super::help;
use crate::args::is;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::glob::glob_matches;
use crate::keys::{Access, Begin, Find, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use crate::table::{self, Command};

const CONNECTION: Categories = Categories::CONNECTION;
const FLAGS: Flags = Flags::NONE.loading().stale();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "command",                 arity: at_least(1), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: command },
    CommandSpec { name: "command|count",           arity: exactly(2),  flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: count },
    CommandSpec { name: "command|list",            arity: at_least(2), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: list },
    CommandSpec { name: "command|info",            arity: at_least(2), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: info },
    CommandSpec { name: "command|docs",            arity: at_least(2), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: docs },
    CommandSpec { name: "command|getkeys",         arity: at_least(4), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: getkeys },
    CommandSpec { name: "command|getkeysandflags", arity: at_least(4), flags: FLAGS, keys: Keys::None, acl: CONNECTION, handler: getkeysandflags },
    help::row("command|help", CONNECTION),
];

fn command(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.array(table::all().len());
    table::all().iter().for_each(|command| describe(&mut ctx.reply, command));
    Ok(())
}

fn count(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.integer(table::all().len() as i64);
    Ok(())
}

/// Which commands COMMAND LIST is asked for.
enum Filter<'a> {
    /// Those of a module; there are no modules.
    Module,
    /// Those of a category, where there is one of that name.
    Category(Option<Categories>),
    Pattern(&'a [u8]),
}

impl Filter<'_> {
    fn allows(&self, command: &Command) -> bool {
        match self {
            Filter::Module => false,
            Filter::Category(category) => category.is_some_and(|category| command.categories().has(category)),
            Filter::Pattern(pattern) => glob_matches(&pattern.to_ascii_lowercase(), command.name.as_bytes()),
        }
    }
}

/// Groups are listed with their subcommands.
fn list(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let filter = match &args[2..] {
        [] => None,
        [word, kind, _] if is(word, "filterby") && is(kind, "module") => Some(Filter::Module),
        [word, kind, name] if is(word, "filterby") && is(kind, "aclcat") => {
            Some(Filter::Category(Categories::named(name)))
        }
        [word, kind, pattern] if is(word, "filterby") && is(kind, "pattern") => {
            Some(Filter::Pattern(pattern))
        }
        _ => return Err(CommandError::Syntax),
    };
    let listed = |command: &Command| filter.as_ref().is_none_or(|filter| filter.allows(command));
    let commands = table::numbered().iter().filter(|command| listed(command));
    let names: Vec<&str> = commands.map(|command| command.name).collect();
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Ok(())
}

fn info(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if args.len() == 2 {
        return command(ctx, args);
    }
    ctx.reply.array(args.len() - 2);
    for name in &args[2..] {
        match table::lookup_full(name) {
            Some(command) => describe(&mut ctx.reply, command),
            None => ctx.reply.null_array(),
        }
    }
    Ok(())
}

fn describe(reply: &mut Reply<'_>, command: &'static Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.shown());
    simple_set(reply, command.flags.shown());
    let ((first, last, step), _) = command.keys.shown();
    [first, last, step].iter().for_each(|n| reply.integer(*n));
    simple_set(reply, command.categories().shown().map(|name| format!("@{name}")));
    let tips = command.doc().map_or(&[][..], |(_, doc)| doc.tips);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    let mut specs = Vec::new();
    command.keys.each_spec(|spec| specs.push(spec));
    let notes = command.doc().map_or(&[][..], |(_, doc)| doc.notes);
    reply.set(specs.len());
    for (number, spec) in specs.iter().enumerate() {
        let note = notes.iter().find(|(of, _)| *of == number).map(|(_, note)| *note);
        describe_keys(reply, spec, spec.access.or(command.key_access()), note);
    }
    reply.set(command.subcommands().len());
    command.subcommands().iter().for_each(|subcommand| describe(reply, subcommand));
}

fn simple_set<T: AsRef<str>>(reply: &mut Reply<'_>, words: impl Iterator<Item = T>) {
    let words: Vec<T> = words.collect();
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word.as_ref()));
}

fn describe_keys(reply: &mut Reply<'_>, spec: &KeySpec, access: Access, note: Option<&str>) {
    reply.map(3 + usize::from(note.is_some()));
    if let Some(note) = note {
        text_pair(reply, "notes", note);
    }
    reply.bulk(b"flags");
    simple_set(reply, access.shown());
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(at) => numbers(reply, "index", &[("index", at as i64)]),
        Begin::Keyword(word, from) => {
            reply.map(2);
            text_pair(reply, "type", "keyword");
            reply.bulk(b"spec");
            reply.map(2);
            text_pair(reply, "keyword", word);
            reply.bulk(b"startfrom");
            reply.integer(i64::from(from));
        }
        Begin::Unknown => numbers(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let spec = [("lastkey", i64::from(last)), ("keystep", step as i64), ("limit", limit as i64)];
            numbers(reply, "range", &spec);
        }
        Find::Counted => numbers(reply, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]),
        Find::Unknown => numbers(reply, "unknown", &[]),
    }
}

fn text_pair(reply: &mut Reply<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn numbers(reply: &mut Reply<'_>, kind: &str, spec: &[(&str, i64)]) {
    reply.map(2);
    text_pair(reply, "type", kind);
    reply.bulk(b"spec");
    reply.map(spec.len());
    for (name, value) in spec {
        reply.bulk(name.as_bytes());
        reply.integer(*value);
    }
}

/// Names that are not there are left out; subcommands are told of with their group.
fn docs(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let found: Vec<_> = match &args[2..] {
        [] => table::all().to_vec(),
        names => names.iter().filter_map(|name| table::lookup_full(name)).collect(),
    };
    ctx.reply.map(found.len());
    found.into_iter().for_each(|command| document(&mut ctx.reply, command));
    Ok(())
}

fn document(reply: &mut Reply<'_>, command: &'static Command) {
    reply.bulk(command.name.as_bytes());
    let mut lines: Vec<(&str, &str)> = Vec::new();
    let (mut flags, mut deprecated) = (Vec::new(), None);
    if let Some((group, doc)) = command.doc() {
        lines.extend([("summary", doc.summary), ("since", doc.since), ("group", group)]);
        lines.extend((!doc.complexity.is_empty()).then_some(("complexity", doc.complexity)));
        flags.extend(doc.deprecated.map(|_| "deprecated"));
        flags.extend(doc.system.then_some("syscmd"));
        deprecated = doc.deprecated;
    } else {
        lines.push(("group", "generic"));
    }
    let subcommands = command.subcommands();
    let mut specifications = 0;
    command.keys.each_spec(|_| specifications += 1);
    let arguments = syntax::arguments(arguments_of(command.name), specifications);
    let optional = usize::from(!flags.is_empty())
        + usize::from(!arguments.is_empty())
        + 2 * usize::from(deprecated.is_some())
        + usize::from(!subcommands.is_empty());
    reply.map(lines.len() + optional);
    lines.iter().for_each(|(name, value)| text_pair(reply, name, value));
    if !flags.is_empty() {
        reply.bulk(b"doc_flags");
        simple_set(reply, flags.iter());
    }
    if let Some((since, replaced_by)) = deprecated {
        text_pair(reply, "deprecated_since", since);
        text_pair(reply, "replaced_by", replaced_by);
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        syntax::reply_arguments(reply, &arguments);
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.iter().for_each(|subcommand| document(reply, subcommand));
    }
}

fn getkeys(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let keys = keys_of(&args[2..])?;
    ctx.reply.array(keys.len());
    keys.iter().for_each(|(key, _)| ctx.reply.bulk(key));
    Ok(())
}

fn getkeysandflags(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let keys = keys_of(&args[2..])?;
    ctx.reply.array(keys.len());
    for (key, access) in keys {
        ctx.reply.array(2);
        ctx.reply.bulk(key);
        simple_set(&mut ctx.reply, access.shown());
    }
    Ok(())
}

fn keys_of<'a>(request: &[&'a [u8]]) -> Result<Vec<(&'a [u8], Access)>, CommandError> {
    let unknown = CommandError::other("ERR Invalid command specified");
    let command = table::resolve(request).ok_or(unknown.clone())?;
    if command.flags.has(Flags::GROUP) && request.len() > 1 {
        return Err(unknown);
    }
    if !command.keys.has_keys() {
        return Err(CommandError::other("ERR The command has no key arguments"));
    }
    if !command.arity.allows(request.len()) {
        return Err(CommandError::other("ERR Invalid number of arguments specified for command"));
    }
    let keys = command.keys.find(request, command.key_access()).unwrap_or_default();
    if keys.is_empty() && !command.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::other("ERR Invalid arguments specified for command"));
    }
    Ok(keys.into_iter().map(|(at, access)| (request[at], access)).collect())
}
