//! The connected clients.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

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
    pub(crate) db: AtomicU16,
    pub(crate) speaks_resp3: AtomicBool,
    pub(crate) is_in_transaction: AtomicBool,
    name: Mutex<Vec<u8>>,
    user: Mutex<Vec<u8>>,
    /// Ends behind the replies it is writing.
    pub(crate) is_doomed: AtomicBool,
    /// Is running commands or waiting to reply to them.
    pub(crate) is_busy: AtomicBool,
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
}

/// Which clients to disconnect.
#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) id: Option<u64>,
    pub(crate) address: Option<&'a str>,
    pub(crate) local_address: Option<&'a str>,
    pub(crate) user: Option<&'a [u8]>,
    /// This one not.
    pub(crate) except: Option<u64>,
}

impl Filter<'_> {
    fn matches(&self, client: &Client) -> bool {
        self.id.is_none_or(|id| id == client.id)
            && self.address.is_none_or(|address| address == client.address)
            && self.local_address.is_none_or(|address| address == client.local_address)
            && self.user.is_none_or(|user| user == *client.user.lock())
            && self.except != Some(client.id)
    }
}

impl Client {
    pub(crate) fn new(
        id: u64,
        address: String,
        local_address: String,
        fd: i32,
        is_local: bool,
        now: u64,
    ) -> Client {
        Client {
            id,
            address,
            local_address,
            fd,
            is_local,
            connected_at: now,
            active_at: AtomicU64::new(now),
            db: AtomicU16::new(0),
            speaks_resp3: AtomicBool::new(false),
            is_in_transaction: AtomicBool::new(false),
            name: Mutex::new(Vec::new()),
            user: Mutex::new(b"default".to_vec()),
            is_doomed: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
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

    /// Ends it: at once where it is idle, else behind what it is doing.
    fn disconnect(&self) {
        self.is_doomed.store(true, SeqCst);
        if !self.is_busy.load(SeqCst)
            && let Some(task) = self.task.get()
        {
            task.abort();
        }
    }

    /// What CLIENT SETNAME called it.
    pub(crate) fn name(&self) -> Vec<u8> {
        self.name.lock().clone()
    }

    /// Its state as letters.
    fn flags(&self) -> &'static str {
        // Nothing waits in a transaction.
        match (self.is_blocked.load(Relaxed), self.is_in_transaction.load(Relaxed)) {
            (true, _) => "b",
            (false, true) => "x",
            (false, false) => "N",
        }
    }

    fn line(&self, now: u64, out: &mut String) {
        let _ = writeln!(
            out,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={} user={} \
             redir=-1 resp={}",
            self.id,
            self.address,
            self.local_address,
            self.fd,
            String::from_utf8_lossy(&self.name.lock()),
            now.saturating_sub(self.connected_at),
            now.saturating_sub(self.active_at.load(Relaxed)),
            self.flags(),
            self.db.load(Relaxed),
            if self.is_in_transaction.load(Relaxed) { 0 } else { -1 },
            String::from_utf8_lossy(&self.user.lock()),
            if self.speaks_resp3.load(Relaxed) { 3 } else { 2 },
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
        if self.connected.lock().remove(&id).is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
        self.became_idle.notify_one();
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
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

    /// CLIENT LIST's text: a line each, of those in `only`.
    pub(crate) fn list(&self, only: Option<&[u64]>, now: u64) -> String {
        let mut out = String::new();
        for client in self.connected.lock().values().filter(|c| only.is_none_or(|ids| ids.contains(&c.id))) {
            client.line(now, &mut out);
        }
        out
    }

    /// Ends the connections the filter names; returns how many.
    pub(crate) fn disconnect(&self, filter: &Filter<'_>) -> usize {
        let chosen: Vec<_> = self.connected.lock().values().filter(|c| filter.matches(c)).cloned().collect();
        chosen.iter().for_each(|client| client.disconnect());
        chosen.len()
    }

    /// Ends those that have sent nothing for `seconds`, unless they wait for something.
    pub(crate) fn disconnect_idle(&self, seconds: u64, now: u64) {
        let is_idle = |c: &Client| {
            let silent = now.saturating_sub(c.active_at.load(Relaxed)) > seconds;
            silent && !c.is_busy.load(SeqCst) && !c.is_blocked.load(Relaxed)
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
        Arc::new(Client::new(id, format!("127.0.0.1:{id}"), "127.0.0.1:6379".into(), 9, true, 5))
    }

    #[test]
    fn the_list_has_a_line_each() {
        let clients = Clients::new();
        clients.add(&client(3));
        clients.add(&client(4));
        clients.rename(4, b"job");
        let list = clients.list(None, 7);
        assert_eq!(list.lines().count(), 2);
        assert!(
            list.lines()
                .nth(1)
                .unwrap()
                .starts_with("id=4 addr=127.0.0.1:4 laddr=127.0.0.1:6379 fd=9 name=job age=2 idle=2")
        );
        assert_eq!(clients.list(Some(&[3]), 7).lines().count(), 1);
        assert_eq!(clients.disconnect(&Filter { address: Some("127.0.0.1:3"), ..Filter::default() }), 1);
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
