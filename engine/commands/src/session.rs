//! What the server remembers of one client between its commands.

use std::sync::Arc;

use cairn_resp::Protocol;

use crate::acl::User;
use crate::hub::{Inbox, Subscriptions, Tracking};

/// One client's state.
pub struct Session {
    /// Unique for the life of the process.
    pub id: u64,
    /// Set by CLIENT SETNAME.
    pub name: Vec<u8>,
    /// Library name and version, set by CLIENT SETINFO.
    pub library: (Vec<u8>, Vec<u8>),
    /// The selected database.
    pub db: u16,
    /// Set by HELLO.
    pub protocol: Protocol,
    /// Whether commands other than AUTH, HELLO, QUIT and RESET are allowed.
    pub authenticated: bool,
    /// Who it is; `None` for who may do everything and is nobody: a replay, a test.
    pub user: Option<Arc<User>>,
    /// The transaction that MULTI opened.
    pub transaction: Option<Transaction>,
    /// Keys that WATCH named, each with the version it had.
    pub watches: Vec<Watch>,
    /// Set by QUIT: the connection ends behind the reply.
    pub closing: bool,
    /// A reply became longer than may wait for the client: the connection ends, and none of it is sent.
    pub reply_given_up: bool,
    /// Where others put messages for this client.
    pub inbox: Arc<Inbox>,
    /// What it has subscribed to, if anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// Set by CLIENT TRACKING ON.
    pub tracking: Option<Box<Tracking>>,
    /// Set by MONITOR.
    pub is_monitor: bool,
    /// A script's command found more memory in use than may be when it began; what the script may call depends on that.
    pub began_out_of_memory: bool,
    /// Set by CLIENT REPLY.
    pub replies: Replies,
    /// The name of the command that ran last, with that of its subcommand.
    pub last_command: &'static str,
    /// Where in the journal the last of its effects ends, while nobody learns of a change before it is durable.
    pub written_until: u64,
    /// Set by CLIENT NO-EVICT: the client is not disconnected to save memory.
    pub no_evict: bool,
    /// Set by CLIENT NO-TOUCH: what the client reads does not count as used.
    pub no_touch: bool,
}

/// Which replies a client gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that of this command and of the next.
    SkipNext,
    /// All but that of this command.
    Skip,
}

/// Commands queued since MULTI.
#[derive(Default)]
pub struct Transaction {
    /// Each command's arguments.
    pub queue: Vec<Vec<Vec<u8>>>,
    /// How many bytes all these arguments have.
    pub queued_bytes: usize,
    /// A command could not be queued, so EXEC will refuse.
    pub broken: bool,
    /// When EXEC came, memory was short for one of the commands, so it will refuse.
    pub out_of_memory: bool,
}

/// A watched key.
pub struct Watch {
    /// Its database.
    pub db: u16,
    /// Its name.
    pub key: Vec<u8>,
    /// The version it had when the watch began.
    pub version: u64,
}

impl Session {
    /// A client that has just connected.
    #[must_use]
    pub fn new(id: u64, authenticated: bool) -> Self {
        Self {
            id,
            name: Vec::new(),
            library: (Vec::new(), Vec::new()),
            db: 0,
            protocol: Protocol::Resp2,
            authenticated,
            user: None,
            transaction: None,
            watches: Vec::new(),
            closing: false,
            reply_given_up: false,
            inbox: Arc::new(Inbox::new(id)),
            subscriptions: None,
            tracking: None,
            is_monitor: false,
            began_out_of_memory: false,
            replies: Replies::On,
            last_command: "NULL",
            written_until: 0,
            no_evict: false,
            no_touch: false,
        }
    }

    /// Speaks another version of the protocol from now on; messages of others do so too.
    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.inbox.set_protocol(protocol);
    }

    /// Whether only few commands are allowed: version 2 cannot tell messages from replies.
    #[inline]
    pub(crate) fn is_in_subscriber_mode(&self) -> bool {
        self.subscriptions.is_some() && self.protocol == Protocol::Resp2
    }

    /// Whether there may be something in the way of replies, or messages among them.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.replies == Replies::On && !self.inbox.is_filled()
    }
}
