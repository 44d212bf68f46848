//! The command table as dispatch reads it: the rows of all families, each with its number, its subcommands and its
//! documentation.

use std::ops::Deref;
use std::sync::LazyLock;

use crate::families;
use crate::families::docs::{self, Doc};
use crate::keys::Access;
use crate::spec::{CommandSpec, Flags};

/// Into how many drawers the names are sorted: enough that most hold one.
const DRAWERS: usize = 1024;

/// A command or subcommand: its row, and what follows from its place in the table.
pub struct Command {
    row: CommandSpec,
    number: usize,
    subcommands: Vec<&'static Command>,
    doc: Option<(&'static str, &'static Doc)>,
}

impl Deref for Command {
    type Target = CommandSpec;

    #[inline]
    fn deref(&self) -> &CommandSpec {
        &self.row
    }
}

impl Command {
    /// Its place among all commands and subcommands, from 0; the same for as long as the process lives.
    #[inline]
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// What stands behind its name, where that is only the name of a group.
    #[must_use]
    pub fn subcommands(&'static self) -> &'static [&'static Command] {
        &self.subcommands
    }

    /// The subcommand of this name, in any case.
    #[must_use]
    pub fn subcommand(&'static self, name: &[u8]) -> Option<&'static Command> {
        let own = |command: &&&'static Command| command.own_name().as_bytes().eq_ignore_ascii_case(name);
        self.subcommands.iter().find(own).copied()
    }

    /// Its name, without that of its group.
    #[must_use]
    pub fn own_name(&self) -> &'static str {
        self.row.name.split_once('|').map_or(self.row.name, |(_, own)| own)
    }

    /// Itself, or the subcommand that the arguments name. A group whose subcommand is not there stays a group, which
    /// cannot run.
    #[inline]
    #[must_use]
    pub fn resolve<A: AsRef<[u8]>>(&'static self, args: &[A]) -> &'static Command {
        if !self.flags.has(Flags::GROUP) {
            return self;
        }
        args.get(1).and_then(|word| self.subcommand(word.as_ref())).unwrap_or(self)
    }

    /// What it does to a key where its row does not say.
    #[must_use]
    pub fn key_access(&self) -> Access {
        if self.flags.has(Flags::WRITE) { Access::RW.access().update() } else { Access::RO.access() }
    }

    /// The group of its documentation, and the documentation.
    pub(crate) fn doc(&self) -> Option<(&'static str, &'static Doc)> {
        self.doc
    }
}

struct Index {
    commands: Vec<&'static Command>,
    numbered: Vec<&'static Command>,
    by_name: Vec<Vec<&'static Command>>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let rows = || families::TABLES.iter().copied().flatten();
    let mut index = Index { commands: Vec::new(), numbered: Vec::new(), by_name: vec![Vec::new(); DRAWERS] };
    for row in rows().filter(|row| !row.name.contains('|')) {
        let own: Vec<CommandSpec> = rows()
            .filter(|other| other.name.split_once('|').is_some_and(|(group, _)| group == row.name))
            .copied()
            .collect();
        let subcommands: Vec<_> = own.into_iter().map(|row| index.add(row, Vec::new())).collect();
        let command = index.add(*row, subcommands);
        index.commands.push(command);
        index.by_name[drawer(row.name.as_bytes())].push(command);
    }
    index
});

impl Index {
    /// Gives a row its number; it stays for as long as the process.
    fn add(&mut self, mut row: CommandSpec, subcommands: Vec<&'static Command>) -> &'static Command {
        if row.keys.shown().1 {
            row.flags = row.flags.movable_keys();
        }
        if !subcommands.is_empty() {
            row.flags = row.flags.group();
        }
        let (number, doc) = (self.numbered.len(), docs::of(row.name));
        let command: &'static Command = Box::leak(Box::new(Command { row, number, subcommands, doc }));
        self.numbered.push(command);
        command
    }
}

/// Where a name lies, in any case: a few of its letters tell names apart well enough, and cost less than to hash them all.
#[inline]
fn drawer(name: &[u8]) -> usize {
    let letter = |at: usize| usize::from(name.get(at).copied().unwrap_or_default() | 0x20);
    let len = name.len();
    (len + letter(0) * 31 + letter(len / 2) * 7 + letter(len.wrapping_sub(1)) * 131) % DRAWERS
}

/// Every command, in the order of the families; subcommands are with their groups.
#[must_use]
pub fn all() -> &'static [&'static Command] {
    &INDEX.commands
}

/// Every command and subcommand, by number.
#[must_use]
pub fn numbered() -> &'static [&'static Command] {
    &INDEX.numbered
}

/// The command of this name, in any case.
#[inline]
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let known = &INDEX.by_name[drawer(name)];
    known.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name)).copied()
}

/// The command of this name; a subcommand's name stands behind that of its group and a `|`.
#[must_use]
pub fn lookup_full(name: &[u8]) -> Option<&'static Command> {
    let mut words = name.splitn(2, |c| *c == b'|');
    let command = lookup(words.next()?)?;
    match words.next() {
        None => Some(command),
        Some(own) => command.subcommand(own),
    }
}

/// The command or subcommand that a request names.
#[must_use]
pub fn resolve<A: AsRef<[u8]>>(args: &[A]) -> Option<&'static Command> {
    Some(lookup(args.first()?.as_ref())?.resolve(args))
}
