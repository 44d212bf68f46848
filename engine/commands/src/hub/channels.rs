//! Who has subscribed to what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::inbox::Inbox;
use crate::glob::glob_matches;

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel.
    Channel,
    /// Every channel whose name matches a pattern.
    Pattern,
    /// A channel of the shard: in its own room, and without patterns.
    Shard,
}

/// What one client has subscribed to.
#[derive(Default, Debug)]
pub struct Subscriptions {
    /// Channels.
    pub channels: BTreeSet<Vec<u8>>,
    /// Patterns.
    pub patterns: BTreeSet<Vec<u8>>,
    /// Shard channels.
    pub shard_channels: BTreeSet<Vec<u8>>,
}

impl Subscriptions {
    /// The names of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    pub(crate) fn of_mut(&mut self, kind: Kind) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    /// The number that a confirmation tells: shard channels count for themselves.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }
}

/// The subscribers of one name, by id.
type Subscribers = BTreeMap<u64, Arc<Inbox>>;

#[derive(Default)]
pub(super) struct Channels {
    channels: HashMap<Vec<u8>, Subscribers>,
    shard_channels: HashMap<Vec<u8>, Subscribers>,
    patterns: HashMap<Vec<u8>, Subscribers>,
}

impl Channels {
    pub(super) fn of(&self, kind: Kind) -> &HashMap<Vec<u8>, Subscribers> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut HashMap<Vec<u8>, Subscribers> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    pub(super) fn subscribe(&mut self, kind: Kind, name: &[u8], inbox: &Arc<Inbox>) {
        self.of_mut(kind).entry(name.to_vec()).or_default().insert(inbox.id(), Arc::clone(inbox));
    }

    pub(super) fn unsubscribe(&mut self, kind: Kind, name: &[u8], id: u64) {
        let names = self.of_mut(kind);
        if let Some(subscribers) = names.get_mut(name) {
            subscribers.remove(&id);
            if subscribers.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Whether anybody could get a message that is not for the shard.
    pub(super) fn has_listeners(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// Those who get a message on this channel: its own subscribers, then for each pattern that matches those of the
    /// pattern. A client that both name gets it twice.
    pub(super) fn receivers<'a>(
        &'a self,
        kind: Kind,
        channel: &'a [u8],
    ) -> impl Iterator<Item = (Option<&'a [u8]>, &'a Subscribers)> {
        let named = self.of(kind).get(channel).map(|subscribers| (None, subscribers));
        let patterns = (kind == Kind::Channel).then_some(&self.patterns).into_iter().flatten();
        let matching = patterns.filter(|(pattern, _)| glob_matches(pattern, channel));
        named.into_iter().chain(matching.map(|(pattern, subscribers)| (Some(&pattern[..]), subscribers)))
    }
}
