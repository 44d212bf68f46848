//! What the engine asks of the process it runs in.

use cairn_commands::ClientFilter;

/// The process around the engine: its configuration, its clients, its figures. The server implements it; an embedding
/// program may use [`Embedded`].
pub trait Process: Send + Sync {
    /// Whether clients have to authenticate.
    fn password_required(&self) -> bool;
    /// Whether this is the password of this user; compares in constant time.
    fn check_password(&self, user: &[u8], password: &[u8]) -> bool;
    /// The directives that match one of the glob patterns, with their values as CONFIG GET shows them.
    fn config_get(&self, patterns: &[&[u8]]) -> Vec<(String, String)>;
    /// Sets all directives, or none; the error is the reply and says which was refused and why.
    fn config_set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String>;
    /// Writes the configuration back to the file it came from; the error is the reply.
    fn config_rewrite(&self) -> Result<(), String>;
    /// Sets the counters of INFO back to zero.
    fn reset_statistics(&self);
    /// Lines of an INFO section (`server`, `clients`, `memory`, `stats`, `cpu`), before those of the engine.
    fn info(&self, section: &str) -> Vec<(&'static str, String)>;
    /// The connected clients, a line each, as CLIENT LIST shows them; with `only`, just those ids.
    fn clients(&self, only: Option<&[u64]>) -> String;
    /// Ends connections; returns how many.
    fn kill_clients(&self, filter: &ClientFilter) -> usize;
    /// A client has another name now.
    fn client_named(&self, id: u64, name: &[u8]);
    /// Whether DEBUG may run for this client.
    fn debug_allowed(&self, session: u64) -> bool;
    /// Memory in use by the allocator, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// A process without clients and configuration: for programs that embed the engine.
#[derive(Debug, Default, Clone, Copy)]
pub struct Embedded;

const NO_SERVER: &str = "ERR this engine is embedded: there is no server around it";

impl Process for Embedded {
    fn password_required(&self) -> bool {
        false
    }
    fn check_password(&self, _: &[u8], _: &[u8]) -> bool {
        false
    }
    fn config_get(&self, _: &[&[u8]]) -> Vec<(String, String)> {
        Vec::new()
    }
    fn config_set(&self, _: &[(&[u8], &[u8])]) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    fn config_rewrite(&self) -> Result<(), String> {
        Err(NO_SERVER.to_owned())
    }
    fn reset_statistics(&self) {}
    fn info(&self, _: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn clients(&self, _: Option<&[u64]>) -> String {
        String::new()
    }
    fn kill_clients(&self, _: &ClientFilter) -> usize {
        0
    }
    fn client_named(&self, _: u64, _: &[u8]) {}
    fn debug_allowed(&self, _: u64) -> bool {
        true
    }
    fn memory_bytes(&self) -> u64 {
        0
    }
}
