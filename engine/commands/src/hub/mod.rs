//! Where what one client does reaches others: channels, keyspace events, invalidated keys, MONITOR.
//!
//! A command collects its news while it runs ([`news`]). When it is committed, and still under its locks, they are told
//! ([`Hub::tell`]): each goes, encoded for whoever gets it, into that client's [`Inbox`] together with the position of the
//! journal that must be durable before it is seen. So the order of two changes of a key is the order of the news of them.
//! The hub's lock comes after those of shards and nothing is done under it but moving bytes.

mod channels;
mod inbox;
mod news;
mod tracking;

pub use channels::{Kind, Subscriptions};
pub use inbox::{Inbox, OutputLimit, OutputLimits};
pub use news::Interest;
pub(crate) use news::News;
pub use tracking::Tracking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cairn_resp::{Protocol, Reply};
use parking_lot::Mutex;

use channels::Channels;
use news::Item;
use tracking::{Forgotten, Table, Tracker};

/// The channel that stands for invalidations where the client speaks version 2.
const INVALIDATE: &[u8] = b"__redis__:invalidate";

/// Everything that reaches other clients than the one who caused it.
pub struct Hub {
    /// What anybody listens for; read by every command.
    interest: AtomicU32,
    state: Mutex<State>,
}

struct State {
    channels: Channels,
    tracking: Table,
    monitors: BTreeMap<u64, Arc<Inbox>>,
    /// `notify-keyspace-events`.
    classes: Interest,
    limits: OutputLimits,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Channels with subscribers.
    pub channels: usize,
    /// Patterns with subscribers.
    pub patterns: usize,
    /// Shard channels with subscribers.
    pub shard_channels: usize,
    /// Clients that track keys.
    pub trackers: usize,
    /// Keys whose readers are remembered.
    pub tracked_keys: usize,
    /// Those readers, of all keys.
    pub tracked_items: usize,
    /// Prefixes that are broadcast.
    pub tracked_prefixes: usize,
}

impl Default for Hub {
    fn default() -> Self {
        let state = State {
            channels: Channels::default(),
            tracking: Table::new(),
            monitors: BTreeMap::new(),
            classes: Interest::NONE,
            limits: OutputLimits::default(),
        };
        Self { interest: AtomicU32::new(0), state: Mutex::new(state) }
    }
}

impl Hub {
    /// What anybody listens for. To be read under the locks of the keys that a command changes: who began to listen while
    /// holding one of them is then seen.
    #[inline]
    #[must_use]
    pub fn interest(&self) -> Interest {
        Interest(self.interest.load(Relaxed))
    }

    /// Changes who listens, and then what anybody listens for.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let mut interest = Interest::NONE;
        let somewhere = Interest::KEYSPACE.and(Interest::KEYEVENT);
        if state.channels.has_listeners() && state.classes.touches(somewhere) {
            interest = interest.and(state.classes);
        }
        if state.tracking.has_trackers() {
            interest = interest.and(Interest::TRACKING);
        }
        if !state.monitors.is_empty() {
            interest = interest.and(Interest::MONITOR);
        }
        self.interest.store(interest.0, Relaxed);
        result
    }

    /// Which keyspace events are told, and where.
    pub fn set_classes(&self, classes: Interest) {
        self.change(|state| state.classes = classes);
    }

    /// How much may wait for a client.
    pub fn set_output_limits(&self, limits: OutputLimits) {
        self.state.lock().limits = limits;
    }

    /// How much may wait for a client.
    #[must_use]
    pub fn output_limits(&self) -> OutputLimits {
        self.state.lock().limits
    }

    /// How many keys tracking remembers. Where there are more, those who read them are told as if they had changed.
    pub fn set_tracked_keys_max(&self, keys_max: usize) {
        let mut state = self.state.lock();
        let evicted = state.tracking.set_keys_max(keys_max);
        state.tell_forgotten(evicted);
    }

    /// Figures for INFO.
    #[must_use]
    pub fn counts(&self) -> HubCounts {
        let state = self.state.lock();
        let names = |kind| state.channels.of(kind).len();
        let [trackers, tracked_keys, tracked_items, tracked_prefixes] = state.tracking.counts();
        HubCounts {
            channels: names(Kind::Channel),
            patterns: names(Kind::Pattern),
            shard_channels: names(Kind::Shard),
            trackers,
            tracked_keys,
            tracked_items,
            tracked_prefixes,
        }
    }

    pub(crate) fn subscribe(&self, kind: Kind, names: &[&[u8]], inbox: &Arc<Inbox>) {
        self.change(|state| names.iter().for_each(|name| state.channels.subscribe(kind, name, inbox)));
    }

    pub(crate) fn unsubscribe<'n>(&self, kind: Kind, names: impl Iterator<Item = &'n [u8]>, id: u64) {
        self.change(|state| names.for_each(|name| state.channels.unsubscribe(kind, name, id)));
    }

    /// How often a message on this channel would be received.
    pub(crate) fn receivers(&self, kind: Kind, channel: &[u8]) -> usize {
        let state = self.state.lock();
        state.channels.receivers(kind, channel).map(|(_, subscribers)| subscribers.len()).sum()
    }

    /// How many have subscribed to this very name.
    pub(crate) fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.state.lock().channels.of(kind).get(name).map_or(0, BTreeMap::len)
    }

    /// The names that somebody has subscribed to.
    pub(crate) fn names(&self, kind: Kind, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let state = self.state.lock();
        state.channels.of(kind).keys().filter(|name| wanted(name)).cloned().collect()
    }

    /// The clients that listen to something for which `may`, told the name and whether it is a pattern, says no.
    #[must_use]
    pub fn listeners_beyond(&self, may: &dyn Fn(&[u8], bool) -> bool) -> BTreeSet<u64> {
        let state = self.state.lock();
        let kinds = [Kind::Channel, Kind::Shard, Kind::Pattern];
        let all = kinds.iter().flat_map(|kind| state.channels.of(*kind).iter().map(move |of| (kind, of)));
        let beyond = all.filter(|(kind, (name, _))| !may(name, **kind == Kind::Pattern));
        beyond.flat_map(|(_, (_, subscribers))| subscribers.keys().copied()).collect()
    }

    pub(crate) fn monitor(&self, inbox: &Arc<Inbox>) {
        self.change(|state| state.monitors.insert(inbox.id(), Arc::clone(inbox)));
    }

    pub(crate) fn unmonitor(&self, id: u64) {
        self.change(|state| state.monitors.remove(&id));
    }

    pub(crate) fn track(&self, inbox: &Arc<Inbox>, redirect: Option<Arc<Inbox>>, tracking: &Tracking) {
        self.change(|state| state.tracking.enable(inbox, redirect, tracking));
    }

    pub(crate) fn untrack(&self, id: u64) {
        self.change(|state| state.tracking.disable(id));
    }

    /// Whether the one who was to get this client's invalidations is gone.
    #[must_use]
    pub fn is_redirect_broken(&self, id: u64) -> bool {
        self.state.lock().tracking.tracker(id).is_some_and(|tracker| tracker.is_broken)
    }

    /// Tells the news of a command that client `origin` ran, to be seen once the journal is durable up to `after`. Under the
    /// locks of the command, so that no key that was read changes before it is remembered.
    pub(crate) fn tell(&self, news: &mut News, origin: u64, after: u64) {
        if news.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let changed: Vec<Vec<u8>> =
            news.items.drain(..).filter_map(|item| state.tell(item, origin, after)).collect();
        if !changed.is_empty() {
            state.broadcast(changed, origin, after);
        }
    }
}

impl State {
    /// Tells one item; returns the key whose change is still to be broadcast.
    fn tell(&mut self, item: Item, origin: u64, after: u64) -> Option<Vec<u8>> {
        match item {
            Item::Message { kind, channel, text } => self.publish(kind, &channel, &text, after),
            Item::Event { name, db, key } => self.event(name, db, &key, after),
            Item::Line(line) => {
                self.monitors.values().for_each(|monitor| monitor.push(&line, after, &self.limits));
            }
            Item::Flushed => {
                self.tracking.forget_all();
                let mut message = invalidation(None);
                for (id, tracker) in self.tracking.trackers_mut() {
                    invalidate(tracker, id, &mut message, after, &self.limits);
                }
            }
            Item::Read { keys, id } => keys.iter().for_each(|key| self.remember(key, id)),
            Item::Changed { key } => {
                self.tell_readers(&key, origin, after);
                return (!self.tracking.broadcasts().is_empty()).then_some(key);
            }
        }
        None
    }

    /// Tells those who have read a key that it changed.
    fn tell_readers(&mut self, key: &[u8], origin: u64, after: u64) {
        let readers = self.tracking.forget(key);
        let keys = [key];
        let mut message = invalidation(Some(&keys));
        for id in readers {
            if let Some(tracker) = self.tracking.tracker_mut(id)
                && !(tracker.no_loop && id == origin)
            {
                invalidate(tracker, id, &mut message, after, &self.limits);
            }
        }
    }

    /// Remembers that a client has read a key.
    fn remember(&mut self, key: &[u8], id: u64) {
        let evicted = self.tracking.remember(key, id);
        self.tell_forgotten(evicted);
    }

    fn tell_forgotten(&mut self, evicted: Vec<Forgotten>) {
        for (key, readers) in evicted {
            let keys = [&key[..]];
            let mut message = invalidation(Some(&keys));
            for reader in readers {
                if let Some(tracker) = self.tracking.tracker_mut(reader) {
                    invalidate(tracker, reader, &mut message, 0, &self.limits);
                }
            }
        }
    }

    fn event(&self, name: &str, db: u16, key: &[u8], after: u64) {
        if self.classes.has(Interest::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(Kind::Channel, &channel, name.as_bytes(), after);
        }
        if self.classes.has(Interest::KEYEVENT) {
            let channel = format!("__keyevent@{db}__:{name}");
            self.publish(Kind::Channel, channel.as_bytes(), key, after);
        }
    }

    fn publish(&self, kind: Kind, channel: &[u8], text: &[u8], after: u64) {
        for (pattern, subscribers) in self.channels.receivers(kind, channel) {
            let mut encoded = Encoded::new(|reply| {
                match pattern {
                    Some(pattern) => {
                        reply.push(4);
                        reply.bulk(b"pmessage");
                        reply.bulk(pattern);
                    }
                    None => {
                        reply.push(3);
                        reply.bulk(if kind == Kind::Shard { b"smessage" } else { b"message" });
                    }
                }
                reply.bulk(channel);
                reply.bulk(text);
            });
            for inbox in subscribers.values() {
                inbox.push(encoded.of(inbox.protocol()), after, &self.limits);
            }
        }
    }

    /// Tells of changed keys below each prefix, in one message a client.
    fn broadcast(&mut self, mut changed: Vec<Vec<u8>>, origin: u64, after: u64) {
        changed.sort_unstable();
        changed.dedup();
        let told: Vec<(u64, Vec<&[u8]>)> = self
            .tracking
            .broadcasts()
            .iter()
            .flat_map(|(prefix, ids)| {
                let below: Vec<&[u8]> =
                    changed.iter().filter(|key| key.starts_with(prefix)).map(Vec::as_slice).collect();
                ids.iter().filter(|_| !below.is_empty()).map(|id| (*id, below.clone())).collect::<Vec<_>>()
            })
            .collect();
        for (id, below) in told {
            if let Some(tracker) = self.tracking.tracker_mut(id)
                && !(tracker.no_loop && id == origin)
            {
                invalidate(tracker, id, &mut invalidation(Some(&below)), after, &self.limits);
            }
        }
    }
}

/// A message in both versions of the protocol, each made when somebody needs it.
struct Encoded<F> {
    write: F,
    forms: [Option<Arc<[u8]>>; 2],
}

impl<F: Fn(&mut Reply<'_>)> Encoded<F> {
    fn new(write: F) -> Self {
        Self { write, forms: [None, None] }
    }

    fn of(&mut self, protocol: Protocol) -> &Arc<[u8]> {
        self.forms[usize::from(protocol == Protocol::Resp3)].get_or_insert_with(|| {
            let mut out = Vec::new();
            (self.write)(&mut Reply::new(&mut out, protocol));
            Arc::from(out)
        })
    }
}

/// The message that keys changed; `None` says all. Made once for all who get it: memory that is short would become shorter
/// with each of many who are told of an evicted key.
fn invalidation(keys: Option<&[&[u8]]>) -> Encoded<impl Fn(&mut Reply<'_>)> {
    Encoded::new(move |reply: &mut Reply<'_>| {
        if reply.protocol() == Protocol::Resp3 {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else {
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(INVALIDATE);
        }
        match keys {
            Some(keys) => {
                reply.array(keys.len());
                keys.iter().for_each(|key| reply.bulk(key));
            }
            None => reply.null(),
        }
    })
}

/// Sends that message to a client, or to the one it redirects to.
fn invalidate<F: Fn(&mut Reply<'_>)>(
    tracker: &mut Tracker,
    id: u64,
    message: &mut Encoded<F>,
    after: u64,
    limits: &OutputLimits,
) {
    let receiver = match &tracker.redirect {
        Some(redirect) if redirect.is_closed() => {
            tracker.is_broken = true;
            if tracker.inbox.protocol() == Protocol::Resp3 {
                let redirect = redirect.id() as i64;
                let mut message = Encoded::new(|reply: &mut Reply<'_>| {
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.integer(redirect);
                });
                tracker.inbox.push(message.of(Protocol::Resp3), after, limits);
            }
            return;
        }
        Some(redirect) => redirect,
        None => &tracker.inbox,
    };
    let protocol = receiver.protocol();
    // Version 2 knows no messages but those of channels, and those only where the client waits for some.
    if protocol == Protocol::Resp2 && (receiver.id() == id || !receiver.is_subscribed()) {
        return;
    }
    receiver.push(message.of(protocol), after, limits);
}
