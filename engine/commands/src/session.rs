//! What the server remembers of one client between its commands.

use std::sync::Arc;

use cairn_resp::Protocol;

use crate::acl::User;

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
}

/// Commands queued since MULTI.
#[derive(Default)]
pub struct Transaction {
    /// Each command's arguments.
    pub queue: Vec<Vec<Vec<u8>>>,
    /// A command could not be queued, so EXEC will refuse.
    pub broken: bool,
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
        }
    }
}
