//! What commands ask of the process around the keyspace.

use std::sync::{Arc, LazyLock};

use cairn_keyspace::Locked;

use crate::acl::{Acl, User};
use crate::hub::{Hub, Inbox};
use crate::memory::Memory;
use crate::migration::{Delivery, DeliveryFailure, Destination, Parcel};
use crate::observed::Observed;
use crate::script::Scripts;
use crate::session::Session;

/// What commands that need a process answer where there is none.
const NO_PROCESS: &str = "ERR there is no server around this engine";

/// The engine and the process around it, as commands see them. Nothing here blocks, but for [`Host::step_aside`],
/// [`Host::deliver`], and what says so, which is for commands that hold no key: long work is a [`Job`].
///
/// What is not overridden answers for a process that has no clients, no configuration and no users.
pub trait Host {
    /// The users, and what they may do.
    fn acl(&self) -> &Acl {
        static OPEN: LazyLock<Acl> = LazyLock::new(Acl::default);
        &OPEN
    }
    /// Takes the users from their file, blocking: those whose clients have to go, or the error; `None` where there is no file.
    fn load_users(&self) -> Option<Result<Vec<Vec<u8>>, String>> {
        None
    }
    /// Writes the users to their file, blocking; an error is in the log. `None` where there is no file.
    fn save_users(&self) -> Option<Result<(), ()>> {
        None
    }
    /// The directives that match one of the glob patterns, with their values as CONFIG GET shows them.
    fn config_get(&self, _patterns: &[&[u8]]) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Sets all directives, or none; the error says which was refused and why.
    fn config_set(&self, _pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        Err(NO_PROCESS.to_owned())
    }
    /// Writes the configuration back to the file it came from, blocking.
    fn config_rewrite(&self) -> Result<(), String> {
        Err(NO_PROCESS.to_owned())
    }
    /// What is noted of commands that ran, where anything is.
    fn observed(&self) -> Option<&Observed> {
        None
    }
    /// Sets the counters of INFO back to zero.
    fn reset_statistics(&self) {}
    /// INFO's text for these sections (lower case); all shards are held.
    fn info(&self, _sections: &[&str], _keyspace: &Locked<'_>) -> String {
        String::new()
    }
    /// What memory is used for; all shards are held.
    fn memory(&self, _keyspace: &Locked<'_>) -> Memory {
        Memory::default()
    }
    /// What the allocator tells of itself, for its experts.
    fn allocator_report(&self) -> String {
        NO_PROCESS.to_owned()
    }
    /// A number that the allocator tells by this name; the error is the reply.
    fn allocator_number(&self, _name: &[u8]) -> Result<i64, String> {
        Err(NO_PROCESS.to_owned())
    }
    /// A text that the allocator tells by this name; the error is the reply.
    fn allocator_text(&self, _name: &[u8]) -> Result<String, String> {
        Err(NO_PROCESS.to_owned())
    }
    /// Lets the allocator do what this name stands for; the error is the reply.
    fn allocator_action(&self, _name: &[u8]) -> Result<(), String> {
        Err(NO_PROCESS.to_owned())
    }
    /// Gives memory that is free back to the system; the error is the reply.
    fn release_memory(&self) -> Result<(), String> {
        Err(NO_PROCESS.to_owned())
    }
    /// The position of the last change.
    fn journal_end(&self) -> u64 {
        0
    }
    /// When the last snapshot was completed, in seconds since the Unix epoch.
    fn last_save_unixtime(&self) -> i64 {
        0
    }
    /// Whether clients should be sent here; the error says in one line why not, since when, and what to do.
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
    /// Starts a snapshot in the background; the error is the reply.
    fn start_snapshot(&self, _why: SnapshotReason) -> Result<&'static str, String> {
        Err(NO_PROCESS.to_owned())
    }
    /// Frees memory where more is in use than may be, as far as the policy lets it; whether that was not enough. It takes
    /// locks of shards, so it is asked before a command takes its own.
    fn is_out_of_memory(&self) -> bool {
        false
    }
    /// Where what a command does reaches other clients.
    fn hub(&self) -> &Hub {
        static NOBODY: LazyLock<Hub> = LazyLock::new(Hub::default);
        &NOBODY
    }
    /// The connected clients, a line each, as CLIENT LIST shows them; `asking` is the one who wants to know.
    fn clients(&self, _filter: &ClientFilter, _asking: &Session) -> String {
        String::new()
    }
    /// Ends connections; returns how many.
    fn kill_clients(&self, _filter: &ClientFilter) -> usize {
        0
    }
    /// Ends the connections of a user, but for that of client `except`.
    fn disconnect_user(&self, _user: &[u8], _except: u64) {}
    /// Ends the connections of a user that listen to something they may not: `may` says so of channels, and of patterns.
    fn disconnect_subscribers(&self, _user: &[u8], _may: &dyn Fn(&[u8], bool) -> bool) {}
    /// Tells the process which user a client is now.
    fn client_authenticated(&self, _id: u64, _user: &[u8]) {}
    /// Tells the process about a new name of a client.
    fn client_named(&self, _id: u64, _name: &[u8]) {}
    /// Wakes a client that waits for a key, for replicas or for the journal: as if its time were over, or with an error.
    /// Whether it waited.
    fn unblock_client(&self, _id: u64, _with_error: bool) -> bool {
        false
    }
    /// The user of a client that waits.
    fn waiting_user(&self, _id: u64) -> Option<Arc<User>> {
        None
    }
    /// Whether all that has been written to the journal is durable; `None` without a journal.
    fn is_durable(&self) -> Option<bool> {
        None
    }
    /// Whether nobody learns of a change before it is durable.
    fn awaits_durability(&self) -> bool {
        false
    }
    /// The inbox of another client.
    fn inbox(&self, _client: u64) -> Option<Arc<Inbox>> {
        None
    }
    /// Where a client is connected from, as MONITOR shows it.
    fn client_address(&self, _client: u64) -> String {
        String::new()
    }
    /// Lets commands, or those that write, wait for so many milliseconds.
    fn pause_clients(&self, _milliseconds: u64, _what: Pause) {}
    /// Lets those who wait go on.
    fn unpause_clients(&self) {}
    /// The scripts that are known and those that run.
    fn scripts(&self) -> &Scripts {
        // Where there is no engine, no script runs: not in a replay, and not for who serves those that wait.
        static NONE: LazyLock<Scripts> = LazyLock::new(Scripts::default);
        &NONE
    }
    /// What runs has kept this thread for some milliseconds and may for longer, or will: what else the thread would do is
    /// to be done by another.
    fn step_aside(&self) {}
    /// Sends keys to another server, and blocks until it has answered for each; after [`Host::step_aside`].
    fn deliver(&self, _to: &Destination<'_>, _parcels: &[Parcel<'_>]) -> Delivery {
        Delivery::failed(DeliveryFailure::NoProcess)
    }
    /// A line that a script logs; the level is 0 (debug) to 3 (warning).
    fn script_log(&self, _level: u8, _text: &str) {}
    /// Writes the configuration back with all directives, those that have their defaults too.
    fn config_rewrite_all(&self) -> Result<(), String> {
        Err(NO_PROCESS.to_owned())
    }
    /// Whether keys are removed as they expire, and not only when they are looked at.
    fn set_active_expire(&self, _on: bool) {}
    /// Whether the housekeeping runs.
    fn set_housekeeping(&self, _on: bool) {}
    /// A line that DEBUG LOG puts into the log.
    fn debug_log(&self, _text: &str) {}
    /// Whether DEBUG may run for this client.
    fn debug_allowed(&self, _session: u64) -> bool {
        false
    }
}

/// Which command asked for a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotReason {
    /// BGSAVE.
    BgSave,
    /// BGSAVE SCHEDULE: after the running one, if one runs.
    BgSaveSchedule,
    /// BGREWRITEAOF: what a rewrite of the log is for, trimming it.
    Rewrite,
}

/// Which clients CLIENT LIST and CLIENT KILL mean: those for whom all that is given holds.
#[derive(Default, Debug)]
pub struct ClientFilter {
    /// By id; listed in this order.
    pub ids: Option<Vec<u64>>,
    /// By what the connection is used for.
    pub class: Option<ClientClass>,
    /// By remote address.
    pub address: Option<String>,
    /// By local address.
    pub local_address: Option<String>,
    /// By the user it has authenticated as.
    pub user: Option<Vec<u8>>,
    /// Connected for at least so many seconds.
    pub age_seconds_min: Option<u64>,
    /// This one not.
    pub except: Option<u64>,
}

/// What a connection is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientClass {
    /// Commands.
    Normal,
    /// The source of a replica's data.
    Primary,
    /// A replica, or one who monitors.
    Replica,
    /// Messages of channels.
    Pubsub,
}

/// Which commands wait while clients are paused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pause {
    /// Those that may write.
    Write,
    /// All.
    All,
}

/// Work that takes long and holds no lock when it starts; the server runs it where blocking is allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// SAVE.
    Save,
    /// SHUTDOWN.
    Shutdown {
        /// Write a snapshot first (`None`: as the configuration says).
        save: Option<bool>,
        /// End even where the snapshot fails.
        force: bool,
    },
    /// DEBUG RELOAD: write a snapshot, empty the keyspace, load it again.
    Reload(Reload),
    /// DEBUG LOADAOF: empty the keyspace and load what a restart would find.
    LoadJournal,
    /// CAIRN KEY.
    Keys(KeyJob),
    /// DEBUG SLEEP, in seconds: all shards are held meanwhile, as one thread would be.
    Sleep(f64),
}

/// What CAIRN KEY is to do. All of it reads files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyJob {
    /// Tell which master keys there are, and how many files each is needed for.
    List,
    /// Read the keyring again and let its newest key take effect.
    Reload,
    /// Begin to bring the files under older keys under the newest one.
    Rewrap,
    /// Tell how far that is.
    Status,
}

/// What DEBUG RELOAD does beside loading a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The snapshot is written first; otherwise the last one is loaded.
    pub save: bool,
    /// The keyspace is emptied before; otherwise what is loaded is added to it.
    pub flush: bool,
    /// A key that is there already is replaced, and not an error.
    pub merge: bool,
}
