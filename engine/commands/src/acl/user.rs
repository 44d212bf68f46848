//! One user: passwords, whether it may log in, and the selectors that say what it may do.

use std::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::file::split_selector;
use super::selector::Selector;

/// What a rule is wrong in, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No such command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// Not a rule.
    #[error("Syntax error")]
    Syntax,
    /// A pattern of keys where all keys are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    KeysAfterAll,
    /// A pattern of channels where all channels are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    ChannelsAfterAll,
    /// A password to remove that is not there.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// Not a SHA-256 digest.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    NotADigest,
    /// `+config|get|x`.
    #[error("Allowing first-arg of a subcommand is not supported")]
    ArgumentOfSubcommand,
}

/// A SHA-256 digest in lower-case hexadecimal: what is kept of a password.
type Password = [u8; 64];

fn digest(password: &[u8]) -> Password {
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(Sha256::digest(password)) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

fn parse_digest(text: &[u8]) -> Result<Password, RuleError> {
    let is_digit = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    Password::try_from(text).ok().filter(|text| text.iter().all(is_digit)).ok_or(RuleError::NotADigest)
}

/// What a user's rules come to.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) enabled: bool,
    pub(crate) no_password: bool,
    /// Whether what RESTORE is given is looked through, where a rule says so.
    sanitize_payload: Option<bool>,
    pub(crate) passwords: Vec<Password>,
    /// What the rules outside parentheses allow.
    pub(crate) root: Selector,
    /// What the rules in parentheses allow, each for itself.
    pub(crate) selectors: Vec<Selector>,
}

impl Rules {
    /// A user that may do nothing, but for every channel where users begin with that.
    pub(crate) fn new(all_channels: bool) -> Self {
        Self {
            enabled: false,
            no_password: false,
            sanitize_payload: None,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
        }
    }

    /// What a user is after `reset`.
    pub(super) fn reset(all_channels: bool) -> Self {
        Self { sanitize_payload: Some(true), ..Self::new(all_channels) }
    }

    /// A user that needs no password and may do everything.
    pub(super) fn of_default_user() -> Self {
        Self { enabled: true, no_password: true, root: Selector::everything(), ..Self::new(true) }
    }

    /// Takes a rule; where it is an error, nothing has changed. `all_channels` is what new selectors begin with.
    pub(crate) fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"skip-sanitize-payload" => self.sanitize_payload = Some(false),
            b"sanitize-payload" => self.sanitize_payload = Some(true),
            b"nopass" => {
                self.no_password = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.no_password = false;
                self.passwords.clear();
            }
            b"clearselectors" => self.selectors.clear(),
            b"reset" => *self = Self::reset(all_channels),
            _ => return self.apply_other(rule, all_channels),
        }
        Ok(())
    }

    fn apply_other(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule {
            [b'>', password @ ..] => self.add_password(digest(password)),
            [b'#', text @ ..] => self.add_password(parse_digest(text)?),
            [b'<', password @ ..] => self.remove_password(&digest(password))?,
            [b'!', text @ ..] => self.remove_password(&parse_digest(text)?)?,
            [b'(', inner @ .., b')'] => {
                let mut selector = Selector::new(all_channels);
                for word in split_selector(inner)? {
                    selector.apply(&word)?;
                }
                self.selectors.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn add_password(&mut self, password: Password) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.no_password = false;
    }

    fn remove_password(&mut self, password: &Password) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| known == password);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// One password, or with an empty one none.
    pub(super) fn set_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.no_password = password.is_empty();
        if !password.is_empty() {
            self.passwords.push(digest(password));
        }
    }

    /// Whether the user may log in with this password. Every password is compared to its end, whichever is right.
    pub(super) fn lets_in(&self, password: &[u8]) -> bool {
        if !self.enabled || self.no_password {
            return self.enabled;
        }
        let given = digest(password);
        let equal = self.passwords.iter().map(|known| known.ct_eq(&given));
        equal.fold(Choice::from(0), |any, equal| any | equal).into()
    }

    pub(crate) fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// The names of the user's own flags.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            (self.enabled, "on"),
            (!self.enabled, "off"),
            (self.no_password, "nopass"),
            (self.sanitize_payload == Some(false), "skip-sanitize-payload"),
            (self.sanitize_payload == Some(true), "sanitize-payload"),
        ];
        flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name)
    }
}

/// Something is to be looked at before a command of this user runs.
const RESTRICTED: u8 = 1;
/// There is a newer user of this name, or none any more.
const SUPERSEDED: u8 = 2;

/// A user as its sessions hold it. Its rules never change.
#[derive(Debug)]
pub struct User {
    state: AtomicU8,
    name: Vec<u8>,
    identity: u64,
    rules: Rules,
}

impl User {
    pub(super) fn new(name: &[u8], identity: u64, rules: Rules) -> Self {
        let free = rules.all_selectors().any(Selector::allows_everything);
        let state = AtomicU8::new(if free { 0 } else { RESTRICTED });
        Self { state, name: name.to_vec(), identity, rules }
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Stays the same when the user is changed, and is another when it is removed and made anew.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// Whether it may do everything, and is the newest of its name.
    #[inline]
    pub(crate) fn needs_no_check(&self) -> bool {
        self.state.load(Acquire) == 0
    }

    /// Whether it may listen to a channel, or to the channels that match a pattern.
    pub(crate) fn may_listen(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.rules.all_selectors().any(|selector| selector.allows_channel(channel, is_pattern))
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.state.load(Acquire) & SUPERSEDED != 0
    }

    pub(super) fn supersede(&self) {
        self.state.fetch_or(SUPERSEDED, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[&str]) -> Result<Rules, RuleError> {
        let mut rules = Rules::new(false);
        words.iter().try_for_each(|word| rules.apply(word.as_bytes(), false))?;
        Ok(rules)
    }

    #[test]
    fn passwords_are_kept_as_digests_and_taken_where_they_match() {
        let user = rules(&["on", ">secret", ">other", "<other"]).expect("rules");
        assert!(user.lets_in(b"secret"));
        assert!(!user.lets_in(b"other") && !user.lets_in(b""));
        let known = b"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(user.passwords, [*known]);
        assert!(!rules(&[">secret"]).expect("rules").lets_in(b"secret"), "it is off");
        assert!(rules(&["on", ">secret", "nopass"]).expect("rules").lets_in(b"anything"));
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        for (words, error) in [
            (&["!abc"][..], RuleError::NotADigest),
            (&["<abc"], RuleError::NoSuchPassword),
            (&["+nope"], RuleError::Unknown),
            (&["+@nope"], RuleError::Unknown),
            (&["+config|nope"], RuleError::Unknown),
            (&["+get|a|b"], RuleError::Unknown),
            (&["+config|get|x"], RuleError::ArgumentOfSubcommand),
            (&["+debug|"], RuleError::Syntax),
            (&["nonsense"], RuleError::Syntax),
            (&["%~x"], RuleError::Syntax),
            (&["%RR~x"], RuleError::Syntax),
            (&["~a b"], RuleError::Syntax),
            (&["~*", "~x"], RuleError::KeysAfterAll),
            (&["(&* &x)"], RuleError::ChannelsAfterAll),
        ] {
            assert_eq!(rules(words).map(drop), Err(error), "{words:?}");
        }
    }
}
