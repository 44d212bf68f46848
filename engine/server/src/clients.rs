//! The connected clients.

use crate::client_memory::ClientMemory;
use cairn_engine::{ClientClass, ClientFilter, Hub, Inbox, OutputLimits, Protocol, Session};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// What a connection's buffer of replies is counted as.
const BUFFER: usize = 16 << 10;
/// What a name that a client watches, tracks or listens to is counted as.
const NAME_BYTES: usize = 128;

/// One connection, as others see it.
pub(crate) struct Client {
    pub(crate) id: u64,
    /// `address:port`, or `path:0` of a Unix socket.
    pub(crate) address: String,
    pub(crate) local_address: String,
    pub(crate) fd: i32,
    /// By loopback or by a Unix socket.
    pub(crate) is_local: bool,
    /// Seconds since the start of the server.
    connected_at: u64,
    /// Seconds since the start of the server at which it last sent something.
    pub(crate) active_at: AtomicU64,
    /// Bytes of requests that have arrived and not run, and room for more.
    pub(crate) query_bytes: AtomicUsize,
    /// Bytes of the arguments, and of what announces them, of a request that has not arrived whole.
    pub(crate) argument_bytes: AtomicUsize,
    pub(crate) query_room: AtomicUsize,
    pub(crate) inbox: Arc<Inbox>,
    shown: Mutex<Shown>,
    /// Bytes that its session takes beyond the buffers: what is queued, watched, and listened to.
    session_bytes: AtomicUsize,
    /// What it was last counted with towards `maxmemory-clients`.
    pub(crate) counted_bytes: AtomicUsize,
    name: Mutex<Vec<u8>>,
    user: Mutex<Vec<u8>>,
    library: Mutex<(Vec<u8>, Vec<u8>)>,
    /// Ends behind the replies it is writing.
    pub(crate) is_doomed: AtomicBool,
    /// Is running commands or waiting to reply to them.
    pub(crate) is_busy: AtomicBool,
    /// Busy, but only waiting for the disk or for a script: nothing that ends it now is lost by that.
    pub(crate) is_held_up: AtomicBool,
    /// Waits for a key, for replicas or for the journal.
    pub(crate) is_blocked: AtomicBool,
    task: OnceLock<AbortHandle>,
}

/// All connections, and the gate before which they wait while the server ends.
pub(crate) struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    count: AtomicUsize,
    gate: watch::Sender<bool>,
    is_gate_closed: AtomicBool,
    became_idle: Notify,
    pub(crate) memory: ClientMemory,
}

/// What CLIENT LIST tells of a client's session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    db: u16,
    speaks_resp3: bool,
    /// Commands queued since MULTI, and their bytes.
    queued: Option<(usize, usize)>,
    /// Channels, patterns, shard channels.
    subscriptions: [usize; 3],
    /// Who gets the invalidations, and whether they are broadcast.
    tracking: Option<(u64, bool)>,
    /// Keys watched, and prefixes tracked.
    watched: usize,
    prefixes: usize,
    is_monitor: bool,
    no_evict: bool,
    no_touch: bool,
    command: &'static str,
}

impl Shown {
    pub(crate) fn of(session: &Session) -> Shown {
        let subscriptions = session.subscriptions.as_ref();
        Shown {
            db: session.db,
            speaks_resp3: session.protocol == Protocol::Resp3,
            queued: session.transaction.as_ref().map(|queued| (queued.queue.len(), queued.queued_bytes)),
            subscriptions: subscriptions
                .map_or([0; 3], |s| [s.channels.len(), s.patterns.len(), s.shard_channels.len()]),
            tracking: session.tracking.as_ref().map(|tracking| (tracking.redirect, tracking.broadcast)),
            watched: session.watches.len(),
            prefixes: session.tracking.as_ref().map_or(0, |tracking| tracking.prefixes.len()),
            is_monitor: session.is_monitor,
            no_evict: session.no_evict,
            no_touch: session.no_touch,
            command: session.last_command,
        }
    }

    /// About how many bytes the session takes beyond the buffers.
    fn bytes(&self) -> usize {
        let names = self.watched + self.prefixes + self.subscriptions.iter().sum::<usize>();
        names * NAME_BYTES + self.queued.map_or(0, |(_, bytes)| bytes)
    }
}

impl Client {
    pub(crate) fn new(
        session: &Session,
        address: String,
        local_address: String,
        fd: i32,
        is_local: bool,
        now: u64,
    ) -> Client {
        Client {
            id: session.id,
            address,
            local_address,
            fd,
            is_local,
            connected_at: now,
            active_at: AtomicU64::new(now),
            query_bytes: AtomicUsize::new(0),
            argument_bytes: AtomicUsize::new(0),
            query_room: AtomicUsize::new(0),
            inbox: Arc::clone(&session.inbox),
            shown: Mutex::new(Shown::of(session)),
            session_bytes: AtomicUsize::new(0),
            counted_bytes: AtomicUsize::new(0),
            name: Mutex::new(Vec::new()),
            user: Mutex::new(b"default".to_vec()),
            library: Mutex::default(),
            is_doomed: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            is_held_up: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            task: OnceLock::new(),
        }
    }

    /// Names the task that serves it, so that it can be ended.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        if self.is_doomed.load(SeqCst) {
            task.abort();
        }
        let _ = self.task.set(task);
    }

    /// Ends it: at once where it is idle or held up, else behind what it is doing.
    fn disconnect(&self) {
        self.is_doomed.store(true, SeqCst);
        if (!self.is_busy.load(SeqCst) || self.is_held_up.load(SeqCst))
            && let Some(task) = self.task.get()
        {
            task.abort();
        }
    }

    /// What CLIENT SETNAME called it.
    pub(crate) fn name(&self) -> Vec<u8> {
        self.name.lock().clone()
    }

    /// Ends it at once, whatever it is doing: nobody reads what it would write.
    pub(crate) fn abort(&self) {
        self.is_doomed.store(true, SeqCst);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Ends it at once to save memory: if it is busy, behind the command that runs.
    pub(crate) fn evict(&self) {
        self.is_doomed.store(true, SeqCst);
        self.inbox.close();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Whether CLIENT NO-EVICT protects it.
    pub(crate) fn may_not_be_evicted(&self) -> bool {
        self.shown.lock().no_evict
    }

    /// Bytes that it takes.
    pub(crate) fn memory(&self) -> usize {
        let received = self.query_bytes.load(Relaxed) + self.argument_bytes.load(Relaxed);
        let buffers = received + self.query_room.load(Relaxed) + self.inbox.pending_bytes();
        size_of::<Client>() + BUFFER + buffers + self.session_bytes.load(Relaxed)
    }

    /// Shows others what has changed in its session.
    pub(crate) fn show(&self, shown: Shown) {
        self.session_bytes.store(shown.bytes(), Relaxed);
        *self.shown.lock() = shown;
    }

    /// Takes over what only CLIENT LIST asks for.
    pub(crate) fn show_all(&self, session: &Session) {
        self.show(Shown::of(session));
        self.library.lock().clone_from(&session.library);
    }

    /// What the connection is used for.
    pub(crate) fn class(&self) -> ClientClass {
        if self.shown.lock().is_monitor {
            ClientClass::Replica
        } else if self.inbox.is_subscribed() {
            ClientClass::Pubsub
        } else {
            ClientClass::Normal
        }
    }

    fn is_unix(&self) -> bool {
        self.address.ends_with(":0")
    }

    /// Where it comes from, as MONITOR shows it.
    pub(crate) fn source(&self) -> String {
        match self.address.strip_suffix(":0") {
            Some(path) => format!("unix:{path}"),
            None => self.address.clone(),
        }
    }

    fn matches(&self, filter: &ClientFilter, now: u64) -> bool {
        filter.ids.as_ref().is_none_or(|ids| ids.contains(&self.id))
            && filter.class.is_none_or(|class| class == self.class())
            && filter.address.as_ref().is_none_or(|address| *address == self.address)
            && filter.local_address.as_ref().is_none_or(|address| *address == self.local_address)
            && filter.user.as_ref().is_none_or(|user| *user == *self.user.lock())
            && filter.age_seconds_min.is_none_or(|age| now.saturating_sub(self.connected_at) >= age)
            && filter.except != Some(self.id)
    }

    /// The letters of CLIENT LIST.
    fn flags(&self, shown: &Shown, is_redirect_broken: bool) -> String {
        let letters = [
            (shown.is_monitor, 'O'),
            (self.inbox.is_subscribed(), 'P'),
            (shown.queued.is_some(), 'x'),
            (self.is_blocked.load(Relaxed), 'b'),
            (shown.tracking.is_some(), 't'),
            (is_redirect_broken, 'R'),
            (shown.tracking.is_some_and(|(_, broadcast)| broadcast), 'B'),
            (self.is_doomed.load(Relaxed), 'A'),
            (self.is_unix(), 'U'),
            (shown.no_evict, 'e'),
            (shown.no_touch, 'T'),
        ];
        let flags: String = letters.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| *letter).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    fn line(&self, hub: &Hub, now: u64, out: &mut String) {
        let shown = *self.shown.lock();
        let is_redirect_broken =
            shown.tracking.is_some_and(|(redirect, _)| redirect != 0) && hub.is_redirect_broken(self.id);
        let (queued, queued_bytes) = shown.queued.map_or((-1, 0), |(count, bytes)| (count as i64, bytes));
        let (query, room) = (self.query_bytes.load(Relaxed), self.query_room.load(Relaxed));
        let arguments = self.argument_bytes.load(Relaxed);
        let pending = self.inbox.pending_bytes();
        let [channels, patterns, shard_channels] = shown.subscriptions;
        let _ = write!(
            out,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={channels} psub={patterns} \
             ssub={shard_channels} multi={queued} qbuf={query} qbuf-free={room} argv-mem={arguments} multi-mem={queued_bytes} ",
            self.id,
            self.address,
            self.local_address,
            self.fd,
            String::from_utf8_lossy(&self.name.lock()),
            now.saturating_sub(self.connected_at),
            now.saturating_sub(self.active_at.load(Relaxed)),
            self.flags(&shown, is_redirect_broken),
            shown.db,
        );
        let library = self.library.lock();
        let _ = writeln!(
            out,
            "rbs={BUFFER} rbp={BUFFER} obl=0 oll={} omem={pending} tot-mem={} events=r cmd={} user={} \
             redir={} resp={} lib-name={} lib-ver={}",
            self.inbox.pending_messages(),
            self.memory(),
            shown.command,
            String::from_utf8_lossy(&self.user.lock()),
            shown.tracking.map_or(-1, |(redirect, _)| redirect as i64),
            if shown.speaks_resp3 { 3 } else { 2 },
            String::from_utf8_lossy(&library.0),
            String::from_utf8_lossy(&library.1),
        );
    }
}

impl Clients {
    pub(crate) fn new() -> Clients {
        Clients {
            connected: Mutex::default(),
            count: AtomicUsize::new(0),
            gate: watch::Sender::new(false),
            is_gate_closed: AtomicBool::new(false),
            became_idle: Notify::new(),
            memory: ClientMemory::default(),
        }
    }

    /// How many are connected.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(crate) fn add(&self, client: &Arc<Client>) {
        self.connected.lock().insert(client.id, Arc::clone(client));
        self.count.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove(&self, id: u64) {
        if let Some(client) = self.connected.lock().remove(&id) {
            self.count.fetch_sub(1, Relaxed);
            self.uncount(&client);
        }
        self.became_idle.notify_one();
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    /// All that are connected.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    pub(crate) fn rename(&self, id: u64, name: &[u8]) {
        if let Some(client) = self.get(id) {
            name.clone_into(&mut client.name.lock());
        }
    }

    pub(crate) fn set_user(&self, id: u64, user: &[u8]) {
        if let Some(client) = self.get(id) {
            user.clone_into(&mut client.user.lock());
        }
    }

    /// CLIENT LIST's text: a line each, of those the filter names; ids in the order they are given.
    pub(crate) fn list(&self, filter: &ClientFilter, hub: &Hub, now: u64) -> String {
        let mut out = String::new();
        let connected: Vec<Arc<Client>> = match &filter.ids {
            Some(ids) => ids.iter().filter_map(|id| self.get(*id)).collect(),
            None => self.all(),
        };
        // Who is to be disconnected and does nothing any more is as good as gone.
        let is_there = |c: &Client| !c.is_doomed.load(SeqCst) || c.is_busy.load(SeqCst);
        connected
            .iter()
            .filter(|c| is_there(c) && c.matches(filter, now))
            .for_each(|c| c.line(hub, now, &mut out));
        out
    }

    /// Ends the connections the filter names; returns how many.
    pub(crate) fn disconnect(&self, filter: &ClientFilter, now: u64) -> usize {
        let chosen: Vec<_> =
            self.connected.lock().values().filter(|c| c.matches(filter, now)).cloned().collect();
        chosen.iter().for_each(|client| client.disconnect());
        chosen.len()
    }

    /// Ends those that let more wait for them than they may; also sees to those who have stopped reading for long.
    pub(crate) fn check_output(&self, limits: &OutputLimits) {
        // Collected first: an end takes the client out of the map.
        let slow: Vec<_> =
            self.connected.lock().values().filter(|c| c.inbox.pending_bytes() > 0).cloned().collect();
        slow.iter().for_each(|client| client.inbox.check(limits));
    }

    /// The longest of what waits to be read as a request, and of what waits to be written.
    pub(crate) fn largest_buffers(&self) -> (usize, usize) {
        self.connected.lock().values().fold((0, 0), |(input, output), client| {
            (input.max(client.query_bytes.load(Relaxed)), output.max(client.inbox.pending_bytes()))
        })
    }

    /// How many wait for something other than requests.
    pub(crate) fn blocked(&self) -> usize {
        self.connected.lock().values().filter(|c| c.is_blocked.load(Relaxed)).count()
    }

    /// Ends those that have sent nothing for `seconds`.
    pub(crate) fn disconnect_idle(&self, seconds: u64, now: u64) {
        let is_idle = |c: &Client| {
            now.saturating_sub(c.active_at.load(Relaxed)) > seconds
                && !c.is_busy.load(SeqCst)
                && c.class() == ClientClass::Normal
                && !c.is_blocked.load(Relaxed)
        };
        let idle: Vec<_> = self.connected.lock().values().filter(|c| is_idle(c)).cloned().collect();
        for client in idle {
            tracing::debug!(id = client.id, "closing an idle connection");
            client.disconnect();
        }
    }

    /// Marks the client busy; waits first while the gate is closed.
    #[inline]
    pub(crate) async fn enter(&self, client: &Client) {
        loop {
            // Set before the gate is looked at, and the other way round in `close_gate`: one of both sees the other.
            client.is_busy.store(true, SeqCst);
            if !self.is_gate_closed.load(SeqCst) {
                return;
            }
            self.leave(client);
            // An error would mean that the sender, part of self, is gone.
            let _ = self.gate.subscribe().wait_for(|closed| !closed).await;
        }
    }

    /// Ends what [`Clients::enter`] began.
    #[inline]
    pub(crate) fn leave(&self, client: &Client) {
        client.is_busy.store(false, SeqCst);
        if self.is_gate_closed.load(SeqCst) {
            self.became_idle.notify_one();
        }
    }

    /// Lets nobody begin anything, and waits until nobody is busy any more.
    pub(crate) async fn close_gate(&self) {
        self.is_gate_closed.store(true, SeqCst);
        self.gate.send_replace(true);
        while self.connected.lock().values().any(|client| client.is_busy.load(SeqCst)) {
            self.became_idle.notified().await;
        }
    }

    /// Whether the server is ending.
    pub(crate) fn is_gate_closed(&self) -> bool {
        self.is_gate_closed.load(SeqCst)
    }

    /// Lets everybody go on.
    pub(crate) fn open_gate(&self) {
        self.is_gate_closed.store(false, SeqCst);
        self.gate.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64) -> Arc<Client> {
        let session = Session::new(id, true);
        Arc::new(Client::new(&session, format!("127.0.0.1:{id}"), "127.0.0.1:6379".into(), 9, true, 5))
    }

    #[test]
    fn the_list_has_a_line_each() {
        let clients = Clients::new();
        clients.add(&client(3));
        clients.add(&client(4));
        clients.rename(4, b"job");
        let (hub, everybody) = (Hub::default(), ClientFilter::default());
        let list = clients.list(&everybody, &hub, 7);
        assert_eq!(list.lines().count(), 2);
        assert_eq!(
            list.lines().nth(1).unwrap().split(" qbuf-free").next().unwrap(),
            "id=4 addr=127.0.0.1:4 laddr=127.0.0.1:6379 fd=9 name=job age=2 idle=2 flags=N db=0 sub=0 psub=0 ssub=0 \
             multi=-1 qbuf=0"
        );
        let chosen = ClientFilter { ids: Some(vec![4, 9, 3]), ..ClientFilter::default() };
        let ids: Vec<String> =
            clients.list(&chosen, &hub, 7).lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(ids, ["id=4", "id=3"]);
        let old = ClientFilter { age_seconds_min: Some(3), ..ClientFilter::default() };
        assert_eq!((clients.disconnect(&old, 7), clients.disconnect(&old, 8)), (0, 2));
        let address = ClientFilter { address: Some("127.0.0.1:3".into()), ..ClientFilter::default() };
        assert_eq!(clients.disconnect(&address, 7), 1);
        clients.remove(3);
        assert_eq!(clients.count(), 1);
    }

    #[tokio::test]
    async fn the_gate_waits_for_the_busy_and_holds_the_others() {
        let (clients, one) = (Arc::new(Clients::new()), client(1));
        clients.add(&one);
        clients.enter(&one).await;
        let closing = tokio::spawn({
            let clients = Arc::clone(&clients);
            async move { clients.close_gate().await }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        clients.leave(&one);
        closing.await.unwrap();
        let entering = tokio::spawn({
            let (clients, one) = (Arc::clone(&clients), Arc::clone(&one));
            async move { clients.enter(&one).await }
        });
        tokio::task::yield_now().await;
        assert!(!entering.is_finished());
        clients.open_gate();
        entering.await.unwrap();
    }
}
