//! Users as text: the lines of the configuration and of the users' file.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::selector::has_spaces;
use super::user::{RuleError, Rules};
use super::{Acl, DEFAULT};

/// A `user` line of the configuration: the name and the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLine {
    /// The user's name.
    pub name: Vec<u8>,
    /// Its rules, in order.
    pub rules: Vec<Vec<u8>>,
}

/// Why a `user` line of the configuration is refused. It holds no rule: that may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserLineError {
    /// A name with spaces.
    #[error("Spaces not allowed in ACL usernames")]
    Name,
    /// A second line for the same user.
    #[error("Duplicate user found. A user can only be defined once in config files")]
    Duplicate,
    /// A parenthesis that is not closed.
    #[error("Unmatched parenthesis in selector definition")]
    Parenthesis,
    /// A wrong rule.
    #[error("rule {number}: {error}")]
    Rule {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        error: RuleError,
    },
}

impl UserLine {
    fn build(&self, all_channels: bool) -> Result<Rules, UserLineError> {
        if has_spaces(&self.name) {
            return Err(UserLineError::Name);
        }
        let words: Vec<&[u8]> = self.rules.iter().map(Vec::as_slice).collect();
        let words = merge_selectors(&words).map_err(|_| UserLineError::Parenthesis)?;
        // The default user was there already, and begins anew.
        let is_there = self.name == DEFAULT;
        let mut rules = if is_there { Rules::reset(all_channels) } else { Rules::new(all_channels) };
        for (at, word) in words.iter().enumerate() {
            rules.apply(word, all_channels).map_err(|error| UserLineError::Rule { number: at + 1, error })?;
        }
        Ok(rules)
    }
}

impl Acl {
    /// Takes the users of the configuration, at the start; the error names the line by its place among `lines`.
    ///
    /// # Errors
    /// [`UserLineError`].
    pub fn configure(&self, lines: &[UserLine]) -> Result<(), (usize, UserLineError)> {
        let all_channels = self.all_channels.load(Relaxed);
        let mut seen = BTreeSet::new();
        for (at, line) in lines.iter().enumerate() {
            if !seen.insert(&line.name) {
                return Err((at, UserLineError::Duplicate));
            }
            let rules = line.build(all_channels).map_err(|error| (at, error))?;
            self.put(&mut self.users.write(), &line.name, rules);
        }
        Ok(())
    }

    /// Replaces all users by those of a file's text, whose errors name the file `path`; all or nothing. Returns the users
    /// whose clients have to go.
    ///
    /// # Errors
    /// All that is wrong, in one line.
    pub fn load(&self, path: &str, text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let all_channels = self.all_channels.load(Relaxed);
        let (mut users, mut errors) = (Vec::<(Vec<u8>, Rules)>::new(), String::new());
        for (at, line) in text.split(|c| *c == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match parse_line(line, all_channels, &format!("{path}:{}", at + 1)) {
                Ok((name, _)) if users.iter().any(|(known, _)| *known == name) => {
                    let name = String::from_utf8_lossy(&name);
                    errors += &format!("WARNING: Duplicate user '{name}' found on line {}. ", at + 1);
                }
                Ok(user) => users.push(user),
                Err(error) => errors += &error,
            }
        }
        if !errors.is_empty() {
            return Err(errors
                + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
        }
        Ok(self.replace(users))
    }
}

/// A line of the users' file; `place` names it in errors, where no rule but an unknown command is quoted.
fn parse_line(line: &[u8], all_channels: bool, place: &str) -> Result<(Vec<u8>, Rules), String> {
    let words: Vec<&[u8]> = line.split(|c| *c == b' ').collect();
    let [b"user", name, rest @ ..] = &words[..] else {
        return Err(format!("{place} should start with user keyword followed by the username. "));
    };
    if has_spaces(name) {
        let name = String::from_utf8_lossy(name);
        return Err(format!("'{place}: username '{name}' contains invalid characters. "));
    }
    let Ok(rest) = merge_selectors(rest) else {
        return Err(format!("{place}: Unmatched parenthesis in selector definition."));
    };
    let (mut rules, mut errors, mut told) = (Rules::new(all_channels), String::new(), false);
    for word in rest {
        let word = word.trim_ascii();
        match rules.apply(word, all_channels) {
            Ok(()) => {}
            Err(error @ RuleError::Unknown) => {
                let word = String::from_utf8_lossy(word);
                errors += &format!("{place}: Error in applying operation '{word}': {error}. ");
            }
            // The first is enough, since others may follow from it.
            Err(error) if !told => {
                errors += &format!("{place}: {error}. ");
                told = true;
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok((name.to_vec(), rules)) } else { Err(errors) }
}

/// Puts words together that one pair of parentheses spans; the error is the word that opens one without an end.
pub(super) fn merge_selectors<'a>(words: &[&'a [u8]]) -> Result<Vec<Vec<u8>>, &'a [u8]> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for word in words {
        match &mut open {
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
            }
            None if word.starts_with(b"(") && !word.ends_with(b")") => {
                open = Some((word, word.to_vec()));
                continue;
            }
            None => {
                merged.push(word.to_vec());
                continue;
            }
        }
        if word.ends_with(b")") {
            merged.extend(open.take().map(|(_, selector)| selector));
        }
    }
    match open {
        Some((start, _)) => Err(start),
        None => Ok(merged),
    }
}

/// The rules between parentheses.
pub(super) fn split_selector(text: &[u8]) -> Result<Vec<Vec<u8>>, RuleError> {
    cairn_resp::split_args(text).map_err(|_| RuleError::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_whole_or_not_at_all() {
        let acl = Acl::default();
        acl.load("users.acl", b"user alice on nopass ~* +@all\n\nuser bob off (+get ~a* ) ( ~b)\n")
            .expect("a file");
        assert_eq!(acl.names(), [&b"alice"[..], b"bob", b"default"]);
        let error = acl
            .load(
                "users.acl",
                b"user carol on\nuser carol off\nnobody\nuser dave +nope ~a ~*~ >x\n user eve\n",
            )
            .unwrap_err();
        assert_eq!(
            error,
            "WARNING: Duplicate user 'carol' found on line 2. users.acl:3 should start with user keyword followed by \
             the username. users.acl:4: Error in applying operation '+nope': Unknown command or category name in ACL. \
             WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
        );
        assert_eq!(acl.names(), [&b"alice"[..], b"bob", b"default"]);
    }

    #[test]
    fn lines_that_were_written_make_the_same_users() {
        let acl = Acl::default();
        acl.set_user(b"alice", &[b"on", b">x", b"~a", b"%R~b", b"&c", b"+@read", b"(+set", b"~d)"])
            .expect("rules");
        let text = acl.lines().join(&b'\n');
        let other = Acl::default();
        other.load("x", &text).expect("a file");
        assert_eq!(other.lines(), acl.lines());
    }

    #[test]
    fn configured_users_are_named_by_their_line() {
        let line = |name: &str, rules: &[&str]| UserLine {
            name: name.as_bytes().to_vec(),
            rules: rules.iter().map(|rule| rule.as_bytes().to_vec()).collect(),
        };
        let acl = Acl::default();
        assert_eq!(acl.configure(&[line("a", &["on"]), line("a", &[])]), Err((1, UserLineError::Duplicate)));
        let wrong = UserLineError::Rule { number: 2, error: RuleError::Syntax };
        assert_eq!(acl.configure(&[line("b", &["on", "secret"])]), Err((0, wrong)));
        assert_eq!(acl.configure(&[line("default", &["on", ">x"])]), Ok(()));
        assert!(acl.authentication_required());
    }
}
