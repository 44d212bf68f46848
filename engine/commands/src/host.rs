//! What commands ask of the process around the keyspace.

use cairn_keyspace::Locked;

/// The engine and the process around it, as commands see them. Nothing here blocks: long work is a [`Job`].
pub trait Host {
    /// Whether clients have to authenticate.
    fn password_required(&self) -> bool;
    /// Whether this is the password of this user; compares in constant time.
    fn check_password(&self, user: &[u8], password: &[u8]) -> bool;
    /// The directives that match one of the glob patterns, with their values as CONFIG GET shows them.
    fn config_get(&self, patterns: &[&[u8]]) -> Vec<(String, String)>;
    /// Sets all directives, or none; the error says which was refused and why.
    fn config_set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String>;
    /// Writes the configuration back to the file it came from.
    fn config_rewrite(&self) -> Result<(), String>;
    /// Sets the counters of INFO back to zero.
    fn reset_statistics(&self);
    /// INFO's text for these sections (lower case); all shards are held.
    fn info(&self, sections: &[&str], keyspace: &Locked<'_>) -> String;
    /// When the last snapshot was completed, in seconds since the Unix epoch.
    fn last_save_unixtime(&self) -> i64;
    /// Starts a snapshot in the background; the error is the reply.
    fn start_snapshot(&self, why: SnapshotReason) -> Result<&'static str, String>;
    /// The connected clients, a line each, as CLIENT LIST shows them; with `only`, just those.
    fn clients(&self, only: Option<&[u64]>) -> String;
    /// Ends connections; returns how many.
    fn kill_clients(&self, filter: &ClientFilter) -> usize;
    /// Tells the process about a new name of a client.
    fn client_named(&self, id: u64, name: &[u8]);
    /// Whether DEBUG may run for this client.
    fn debug_allowed(&self, session: u64) -> bool;
    /// Memory in use by the allocator, in bytes.
    fn memory_bytes(&self) -> u64;
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

/// Which clients CLIENT KILL means.
#[derive(Default, Debug)]
pub struct ClientFilter {
    /// By id.
    pub id: Option<u64>,
    /// By remote address.
    pub address: Option<String>,
    /// By local address.
    pub local_address: Option<String>,
    /// Do not end the caller's own connection.
    pub except: Option<u64>,
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
    Reload,
    /// DEBUG SLEEP, in seconds: all shards are held meanwhile, as one thread would be.
    Sleep(f64),
}
