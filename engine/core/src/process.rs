//! What the engine asks of the process it runs in.

use std::sync::Arc;

use cairn_commands::hub::Inbox;
use cairn_commands::memory::Memory;
use cairn_commands::{ClientFilter, Delivery, DeliveryFailure, Destination, Parcel, Pause, Session};
use cairn_seal::Keyring;

/// What commands that need a server answer where there is none.
const NO_SERVER: &str = "ERR this engine is embedded: there is no server around it";

/// The process around the engine: its configuration, its clients, its figures. The server implements all of it; what is
/// not overridden answers for a process without clients and configuration, as [`Embedded`] is.
pub trait Process: Send + Sync {
    /// Takes the users from their file, by [`crate::Engine::acl`]: those whose clients have to go, or the error; `None`
    /// where there is no file.
    fn load_users(&self) -> Option<Result<Vec<Vec<u8>>, String>> {
        None
    }
    /// Writes the users to their file; an error is in the log. `None` where there is no file.
    fn save_users(&self) -> Option<Result<(), ()>> {
        None
    }
    /// The directives that match one of the glob patterns, with their values as CONFIG GET shows them.
    fn config_get(&self, _patterns: &[&[u8]]) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Sets all directives, or none; the error is the reply and says which was refused and why.
    fn config_set(&self, _pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    /// Writes the configuration back to the file it came from; the error is the reply.
    fn config_rewrite(&self) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    /// As [`Process::config_rewrite`], with all directives, those that have their defaults too.
    fn config_rewrite_all(&self) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    /// Reads the keyring that is configured; `None` where none is. The error says why it cannot be had.
    fn load_keyring(&self) -> Result<Option<Keyring>, String> {
        Err(NO_SERVER.to_owned())
    }
    /// Another keyring has taken effect: whoever else reads the data directory needs it too.
    fn keyring_changed(&self) {}
    /// Sets the counters of INFO back to zero.
    fn reset_statistics(&self) {}
    /// Lines of an INFO section (`server`, `clients`, `memory`, `backup`, `stats`, `cpu`), before those of the engine.
    fn info(&self, _section: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// What the process knows of its memory: what is in use, and how much the allocator and the system hold.
    fn memory(&self) -> Memory {
        Memory::default()
    }
    /// What the allocator tells of itself, for its experts.
    fn allocator_report(&self) -> String {
        NO_SERVER.to_owned()
    }
    /// A number that the allocator tells by this name; the error is the reply.
    fn allocator_number(&self, _name: &[u8]) -> Result<i64, String> {
        Err(NO_SERVER.to_owned())
    }
    /// A text that the allocator tells by this name; the error is the reply.
    fn allocator_text(&self, _name: &[u8]) -> Result<String, String> {
        Err(NO_SERVER.to_owned())
    }
    /// Lets the allocator do what this name stands for; the error is the reply.
    fn allocator_action(&self, _name: &[u8]) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    /// Gives memory that is free back to the system; the error is the reply.
    fn release_memory(&self) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    /// The percentiles that INFO latencystats shows.
    fn latency_percentiles(&self) -> Vec<f64> {
        vec![50.0, 99.0, 99.9]
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
    /// A client is another user now.
    fn client_authenticated(&self, _id: u64, _user: &[u8]) {}
    /// A client has another name now.
    fn client_named(&self, _id: u64, _name: &[u8]) {}
    /// The inbox of a client.
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
    /// A script has kept this thread for some milliseconds and may for longer: the process may have another thread do
    /// what else this one would.
    fn step_aside(&self) {}
    /// Sends keys to another server, and blocks until it has answered for each; after [`Process::step_aside`].
    fn deliver(&self, _to: &Destination<'_>, _parcels: &[Parcel<'_>]) -> Delivery {
        Delivery::failed(DeliveryFailure::NoProcess)
    }
    /// Whether DEBUG may run for this client. Who embeds the engine may do as they like.
    fn debug_allowed(&self, _session: u64) -> bool {
        true
    }
}

/// A process without clients and configuration: for programs that embed the engine.
#[derive(Debug, Default, Clone, Copy)]
pub struct Embedded;

impl Process for Embedded {}
