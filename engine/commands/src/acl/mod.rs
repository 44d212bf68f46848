//! Users and what they may do: <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>
//!
//! A user's rules never change: a changed user is another one of the same name, and the one before is marked as superseded.
//! So a session keeps a user without a lock, and one flag of it says whether anything is to be looked at before a command
//! runs.

mod check;
mod describe;
mod file;
mod log;
mod selector;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use parking_lot::{Mutex, RwLock};

pub use check::{Place, permit, reads_every_key};
pub(crate) use check::{current_user, denial_of, note};
pub use file::{UserLine, UserLineError};
use log::Log;
pub(crate) use log::{Entry, Reason};
pub(crate) use selector::has_spaces;
pub(crate) use user::Rules;
pub use user::{RuleError, User};

use crate::session::Session;

/// The user that a client is before it authenticates.
pub(crate) const DEFAULT: &[u8] = b"default";

/// How many refusals are remembered unless the configuration says otherwise.
const LOG_LENGTH: usize = 128;

/// All users, and what was refused to them.
pub struct Acl {
    users: RwLock<Users>,
    /// Whether a client has to authenticate before it is the default user.
    authentication_required: AtomicBool,
    /// Whether a new user may use every channel.
    all_channels: AtomicBool,
    log: Mutex<Log>,
    denied: Denied,
}

struct Users {
    by_name: BTreeMap<Vec<u8>, Arc<User>>,
    /// Of the user that is made next, so that a name that is used again is another user.
    next_identity: u64,
}

/// How often something was refused, as INFO shows it.
#[derive(Default)]
struct Denied {
    commands: AtomicU64,
    keys: AtomicU64,
    channels: AtomicU64,
    authentications: AtomicU64,
}

impl Default for Acl {
    fn default() -> Self {
        let default = Rules::of_default_user();
        let users = Users { by_name: BTreeMap::new(), next_identity: 1 };
        let acl = Self {
            users: RwLock::new(users),
            authentication_required: AtomicBool::new(false),
            all_channels: AtomicBool::new(false),
            log: Mutex::new(Log::new(LOG_LENGTH)),
            denied: Denied::default(),
        };
        acl.put(&mut acl.users.write(), DEFAULT, default);
        acl
    }
}

impl Acl {
    /// Whether a client that has just connected has to authenticate.
    #[inline]
    #[must_use]
    pub fn authentication_required(&self) -> bool {
        self.authentication_required.load(Acquire)
    }

    /// Whether a client has yet to say who it is. One that connected while it had to need not any more once nobody has to.
    #[inline]
    #[must_use]
    pub fn is_stranger(&self, session: &Session) -> bool {
        !session.authenticated && self.authentication_required()
    }

    /// Whether the default user lets in whoever connects.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.default_user().rules().no_password
    }

    /// Whether users made from now on may use every channel, unless their rules say otherwise.
    pub fn set_all_channels(&self, all: bool) {
        self.all_channels.store(all, Relaxed);
    }

    /// How many refusals are remembered.
    pub fn set_log_length(&self, length: usize) {
        self.log.lock().set_length(length);
    }

    /// Gives the default user one password; an empty one lets everybody in.
    pub fn set_default_password(&self, password: &[u8]) {
        let mut users = self.users.write();
        let mut rules = users.by_name[DEFAULT].rules().clone();
        rules.set_password(password);
        self.put(&mut users, DEFAULT, rules);
    }

    /// Names and numbers of INFO: how often what was refused.
    #[must_use]
    pub fn denied(&self) -> [(&'static str, u64); 4] {
        let Denied { commands, keys, channels, authentications } = &self.denied;
        [
            ("acl_access_denied_auth", authentications.load(Relaxed)),
            ("acl_access_denied_cmd", commands.load(Relaxed)),
            ("acl_access_denied_key", keys.load(Relaxed)),
            ("acl_access_denied_channel", channels.load(Relaxed)),
        ]
    }

    /// Sets the numbers of INFO back to zero.
    pub fn reset_denied(&self) {
        let Denied { commands, keys, channels, authentications } = &self.denied;
        [commands, keys, channels, authentications].iter().for_each(|count| count.store(0, Relaxed));
    }

    /// A line for each user, as the configuration and the users' file hold them.
    #[must_use]
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.users.read().by_name.values().map(|user| user.line()).collect()
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn has_user(&self, name: &[u8]) -> bool {
        self.users.read().by_name.contains_key(name)
    }

    pub(crate) fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().by_name.get(name).cloned()
    }

    /// The user that a client is before it authenticates.
    #[must_use]
    pub fn default_user(&self) -> Arc<User> {
        Arc::clone(&self.users.read().by_name[DEFAULT])
    }

    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        self.users.read().by_name.keys().cloned().collect()
    }

    /// The user of this name, if it may log in with this password.
    pub(crate) fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        self.user(name).filter(|user| user.rules().lets_in(password))
    }

    /// Creates or changes a user: all rules are taken, or none. Returns the user before and the user now.
    pub(crate) fn set_user(
        &self,
        name: &[u8],
        rules: &[&[u8]],
    ) -> Result<(Option<Arc<User>>, Arc<User>), String> {
        let words = file::merge_selectors(rules).map_err(|start| {
            format!("Unmatched parenthesis in acl selector starting at '{}'.", String::from_utf8_lossy(start))
        })?;
        let all_channels = self.all_channels.load(Relaxed);
        let mut users = self.users.write();
        let before = users.by_name.get(name).cloned();
        let mut changed =
            before.as_ref().map_or_else(|| Rules::new(all_channels), |user| user.rules().clone());
        for word in &words {
            changed.apply(word, all_channels).map_err(|error| {
                format!("Error in ACL SETUSER modifier '{}': {error}", String::from_utf8_lossy(word))
            })?;
        }
        let now = self.put(&mut users, name, changed);
        Ok((before, now))
    }

    /// Removes a user; whether there was one.
    pub(crate) fn remove_user(&self, name: &[u8]) -> bool {
        let removed = self.users.write().by_name.remove(name);
        removed.inspect(|user| user.supersede()).is_some()
    }

    /// Replaces all users by those of lines; the names of those whose clients have to go. Where no line
    /// tells of the default user, it is what it is at first.
    pub(crate) fn replace(&self, lines: Vec<(Vec<u8>, Rules)>) -> Vec<Vec<u8>> {
        let mut users = self.users.write();
        let gone: Vec<_> = users.by_name.keys().filter(|name| *name != DEFAULT).cloned().collect();
        users.by_name.retain(|name, user| {
            if name != DEFAULT {
                user.supersede();
            }
            name == DEFAULT
        });
        if !lines.iter().any(|(name, _)| name == DEFAULT) {
            self.put(&mut users, DEFAULT, Rules::of_default_user());
        }
        for (name, rules) in lines {
            self.put(&mut users, &name, rules);
        }
        gone
    }

    /// Puts a user in the place of the one before, whose sessions go on with the new one.
    fn put(&self, users: &mut Users, name: &[u8], rules: Rules) -> Arc<User> {
        let before = users.by_name.get(name);
        let identity = before.map_or(users.next_identity, |before| before.identity());
        let user = Arc::new(User::new(name, identity, rules));
        users.next_identity += 1;
        if name == DEFAULT {
            let required = !user.rules().no_password || !user.rules().enabled;
            self.authentication_required.store(required, Release);
        }
        if let Some(before) = users.by_name.insert(name.to_vec(), Arc::clone(&user)) {
            before.supersede();
        }
        user
    }

    pub(crate) fn note(&self, entry: Entry) {
        let count = match entry.reason {
            Reason::Command => &self.denied.commands,
            Reason::Key => &self.denied.keys,
            Reason::Channel => &self.denied.channels,
            Reason::Authentication => &self.denied.authentications,
        };
        count.fetch_add(1, Relaxed);
        self.log.lock().add(entry);
    }

    pub(crate) fn log_entries(&self, most: usize) -> Vec<Entry> {
        self.log.lock().newest(most)
    }

    pub(crate) fn reset_log(&self) {
        self.log.lock().clear();
    }
}
