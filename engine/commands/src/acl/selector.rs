//! What one set of rules allows: commands, keys and channels.

use std::collections::BTreeMap;

use super::user::RuleError;
use crate::glob::glob_matches;
use crate::keys::Access;
use crate::spec::Categories;
use crate::table::{self, Command};

/// The commands that are allowed, a bit each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CommandSet(Box<[u64]>);

impl CommandSet {
    fn none() -> Self {
        Self(vec![0; table::numbered().len().div_ceil(64)].into())
    }

    fn all() -> Self {
        let mut set = Self::none();
        (0..table::numbered().len()).for_each(|number| set.0[number / 64] |= 1 << (number % 64));
        set
    }

    pub(super) fn has(&self, command: &Command) -> bool {
        self.0[command.number() / 64] & 1 << (command.number() % 64) != 0
    }

    fn set(&mut self, command: &Command, allowed: bool) {
        let (word, bit) = (&mut self.0[command.number() / 64], 1 << (command.number() % 64));
        *word = if allowed { *word | bit } else { *word & !bit };
    }
}

/// A pattern of keys and what may be done with those that match.
#[derive(Clone, PartialEq, Eq, Debug)]
struct KeyPattern {
    pattern: Vec<u8>,
    reads: bool,
    writes: bool,
}

impl KeyPattern {
    fn allows(&self, access: Access) -> bool {
        (self.reads || !access.reads()) && (self.writes || !access.writes())
    }

    fn describe(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match (self.reads, self.writes) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        });
        out.extend_from_slice(&self.pattern);
    }
}

/// What one set of rules allows.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(super) commands: CommandSet,
    /// It began with all commands, so that those of later versions are allowed too.
    pub(super) later_commands: bool,
    /// Commands that are allowed with these first arguments only, by number.
    pub(super) first_arguments: BTreeMap<usize, Vec<Vec<u8>>>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    pub(crate) all_channels: bool,
    pub(crate) channels: Vec<Vec<u8>>,
}

impl Selector {
    pub(super) fn new(all_channels: bool) -> Self {
        Self {
            commands: CommandSet::none(),
            later_commands: false,
            first_arguments: BTreeMap::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
        }
    }

    pub(super) fn everything() -> Self {
        Self { commands: CommandSet::all(), later_commands: true, all_keys: true, ..Self::new(true) }
    }

    pub(super) fn allows_everything(&self) -> bool {
        self.all_keys && self.all_channels && self.commands == CommandSet::all()
    }

    /// Takes a rule; where it is an error, nothing has changed.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"allkeys" | b"~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => self.set_all_commands(true),
            b"nocommands" | b"-@all" => self.set_all_commands(false),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, true, true)?,
                [b'%', rest @ ..] => self.add_keys_with_access(rest)?,
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                    let category = Categories::named(category).ok_or(RuleError::Unknown)?;
                    self.set_category(category, *sign == b'+');
                }
                [b'+', name @ ..] => self.allow(name)?,
                [b'-', name @ ..] => {
                    self.set_command(table::lookup_full(name).ok_or(RuleError::Unknown)?, false);
                }
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn set_all_commands(&mut self, allowed: bool) {
        self.commands = if allowed { CommandSet::all() } else { CommandSet::none() };
        self.later_commands = allowed;
        self.first_arguments.clear();
    }

    /// Allows or forbids a command, and with a group all in it.
    pub(super) fn set_command(&mut self, command: &'static Command, allowed: bool) {
        self.commands.set(command, allowed);
        self.first_arguments.remove(&command.number());
        command.subcommands().iter().for_each(|subcommand| self.commands.set(subcommand, allowed));
    }

    pub(super) fn set_category(&mut self, category: Categories, allowed: bool) {
        for command in table::all() {
            let with_subcommands = std::iter::once(command).chain(command.subcommands());
            for command in with_subcommands.filter(|command| command.categories().has(category)) {
                self.set_command(command, allowed);
            }
        }
    }

    /// `+command`, `+group|subcommand` or, for a command that is no group, `+command|first-argument`.
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|c| *c == b'|') else {
            self.set_command(table::lookup_full(name).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        };
        let command = table::lookup_full(&name[..bar]).ok_or(RuleError::Unknown)?;
        let word = &name[bar + 1..];
        if command.name.contains('|') {
            return Err(RuleError::ArgumentOfSubcommand);
        }
        if word.is_empty() {
            return Err(RuleError::Syntax);
        }
        if !command.subcommands().is_empty() {
            self.set_command(command.subcommand(word).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        }
        let known = self.first_arguments.entry(command.number()).or_default();
        if !known.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            known.push(word.to_vec());
        }
        Ok(())
    }

    fn add_keys_with_access(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        // Without a pattern it is the empty one, as in Redis: the key without a name.
        let tilde = rule.iter().position(|c| *c == b'~').unwrap_or(rule.len());
        let (reads, writes) = match &rule[..tilde].to_ascii_uppercase()[..] {
            b"R" => (true, false),
            b"W" => (false, true),
            b"RW" | b"WR" => (true, true),
            _ => return Err(RuleError::Syntax),
        };
        self.add_keys(rule.get(tilde + 1..).unwrap_or_default(), reads, writes)
    }

    fn add_keys(&mut self, pattern: &[u8], reads: bool, writes: bool) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => {
                known.reads |= reads;
                known.writes |= writes;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), reads, writes }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    /// Whether the command may run, whatever its keys.
    pub(super) fn allows_command(&self, command: &Command, args: &[&[u8]]) -> bool {
        let first = || {
            let allowed = self.first_arguments.get(&command.number());
            let word = args.get(1)?;
            allowed?.iter().find(|allowed| allowed.eq_ignore_ascii_case(word))
        };
        self.commands.has(command) || first().is_some()
    }

    pub(super) fn allows_key(&self, key: &[u8], access: Access) -> bool {
        let allows = |pattern: &KeyPattern| pattern.allows(access) && glob_matches(&pattern.pattern, key);
        self.all_keys || self.keys.iter().any(allows)
    }

    pub(super) fn allows_every_key(&self, access: Access) -> bool {
        self.all_keys || self.keys.iter().any(|known| known.allows(access) && known.pattern == b"*")
    }

    pub(super) fn needs_no_key_check(&self) -> bool {
        self.all_keys
    }

    /// A pattern to listen to must be allowed word for word.
    pub(super) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let allows =
            |known: &Vec<u8>| if is_pattern { known == channel } else { glob_matches(known, channel) };
        self.all_channels || self.channels.iter().any(allows)
    }

    /// The patterns of keys, as rules.
    pub(super) fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let mut out = Vec::new();
        for pattern in &self.keys {
            if !out.is_empty() {
                out.push(b' ');
            }
            pattern.describe(&mut out);
        }
        out
    }

    /// The patterns of channels, as rules.
    pub(super) fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let patterns = self.channels.iter().map(|channel| [b"&", &channel[..]].concat());
        patterns.collect::<Vec<_>>().join(&b' ')
    }
}

/// Whether a name or pattern has what separates rules from each other.
pub(crate) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|c| matches!(c, 0 | b' ' | b'\t'..=b'\r'))
}
