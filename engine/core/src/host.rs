//! What commands ask of the engine and the process, answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_commands::acl::{Acl, User};
use cairn_commands::hub::Inbox;
use cairn_commands::memory::Memory;
use cairn_commands::observed::Observed;
use cairn_commands::script::Scripts;
use cairn_commands::{
    ClientFilter, Delivery, DeliveryFailure, Destination, Host, Hub, Parcel, Pause, Session, SnapshotReason,
};
use cairn_keyspace::Locked;

use crate::engine::Inner;
use crate::process::Process;
use crate::{info, snapshots};

/// The engine and its process as one.
pub(crate) struct EngineHost<'a> {
    pub(crate) engine: &'a Arc<Inner>,
    pub(crate) process: &'a dyn Process,
}

/// For requests that the engine itself runs, which ask nothing of a process.
pub(crate) struct EngineAlone<'a>(pub(crate) &'a Inner);

impl Host for EngineAlone<'_> {
    fn acl(&self) -> &Acl {
        &self.0.acl
    }
    fn waiting_user(&self, id: u64) -> Option<Arc<User>> {
        self.0.waiters.user(id)
    }
    fn observed(&self) -> Option<&Observed> {
        Some(&self.0.observed)
    }
}

impl Host for EngineHost<'_> {
    fn acl(&self) -> &Acl {
        &self.engine.acl
    }
    fn load_users(&self) -> Option<Result<Vec<Vec<u8>>, String>> {
        self.process.load_users()
    }
    fn save_users(&self) -> Option<Result<(), ()>> {
        self.process.save_users()
    }
    fn disconnect_user(&self, user: &[u8], except: u64) {
        self.process.disconnect_user(user, except);
    }
    fn disconnect_subscribers(&self, user: &[u8], may: &dyn Fn(&[u8], bool) -> bool) {
        self.process.disconnect_subscribers(user, may);
    }
    fn client_authenticated(&self, id: u64, user: &[u8]) {
        self.process.client_authenticated(id, user);
    }
    fn config_get(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        self.process.config_get(patterns)
    }
    fn config_set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        self.process.config_set(pairs)
    }
    fn config_rewrite(&self) -> Result<(), String> {
        self.process.config_rewrite()
    }
    fn observed(&self) -> Option<&Observed> {
        Some(&self.engine.observed)
    }
    fn reset_statistics(&self) {
        self.engine.statistics.reset();
        self.engine.observed.usage.reset();
        self.engine.observed.errors.reset();
        self.engine.acl.reset_denied();
        self.engine.eviction.reset_statistics();
        self.engine.keyspace.discards.reset_statistics();
        self.process.reset_statistics();
    }
    fn info(&self, sections: &[&str], keyspace: &Locked<'_>) -> String {
        info::render(self.engine, self.process, sections, keyspace)
    }
    fn memory(&self, keyspace: &Locked<'_>) -> Memory {
        info::figures(self.engine, self.process, keyspace)
    }
    fn allocator_report(&self) -> String {
        self.process.allocator_report()
    }
    fn allocator_number(&self, name: &[u8]) -> Result<i64, String> {
        self.process.allocator_number(name)
    }
    fn allocator_text(&self, name: &[u8]) -> Result<String, String> {
        self.process.allocator_text(name)
    }
    fn allocator_action(&self, name: &[u8]) -> Result<(), String> {
        self.process.allocator_action(name)
    }
    fn release_memory(&self) -> Result<(), String> {
        self.process.release_memory()
    }
    fn journal_end(&self) -> u64 {
        self.engine.log.end().0
    }
    fn last_save_unixtime(&self) -> i64 {
        self.engine.snapshots.last_unixtime()
    }
    fn readiness(&self) -> Result<(), String> {
        self.engine.readiness().map_err(|not_ready| not_ready.to_string())
    }
    fn start_snapshot(&self, why: SnapshotReason) -> Result<&'static str, String> {
        snapshots::start(self.engine, why)
    }
    fn is_out_of_memory(&self) -> bool {
        self.engine.is_out_of_memory()
    }
    fn hub(&self) -> &Hub {
        &self.engine.hub
    }
    fn clients(&self, filter: &ClientFilter, asking: &Session) -> String {
        self.process.clients(filter, asking)
    }
    fn kill_clients(&self, filter: &ClientFilter) -> usize {
        self.process.kill_clients(filter)
    }
    fn client_named(&self, id: u64, name: &[u8]) {
        self.process.client_named(id, name);
    }
    fn unblock_client(&self, id: u64, with_error: bool) -> bool {
        self.engine.waiters.unblock(id, with_error)
    }
    fn is_durable(&self) -> Option<bool> {
        self.engine.log.journal().map(|journal| journal.durable() >= journal.end_lsn())
    }
    fn awaits_durability(&self) -> bool {
        self.engine.settings.is_always()
    }
    fn inbox(&self, client: u64) -> Option<Arc<Inbox>> {
        self.process.inbox(client)
    }
    fn client_address(&self, client: u64) -> String {
        self.process.client_address(client)
    }
    fn pause_clients(&self, milliseconds: u64, what: Pause) {
        let milliseconds_kept = i64::try_from(milliseconds).unwrap_or(i64::MAX);
        self.engine.keyspace.hold_expiry_until(crate::engine::now_ms().saturating_add(milliseconds_kept));
        self.process.pause_clients(milliseconds, what);
    }
    fn unpause_clients(&self) {
        self.engine.keyspace.end_expiry_hold();
        self.process.unpause_clients();
    }
    fn scripts(&self) -> &Scripts {
        &self.engine.scripts
    }
    fn step_aside(&self) {
        self.process.step_aside();
    }
    fn deliver(&self, to: &Destination<'_>, parcels: &[Parcel<'_>]) -> Delivery {
        // Another server must not learn of what a power cut could undo here, as no client may.
        if !self.engine.is_safe_to_tell() {
            return Delivery::failed(DeliveryFailure::NotDurable);
        }
        self.process.deliver(to, parcels)
    }
    fn script_log(&self, level: u8, text: &str) {
        match level {
            0 => tracing::trace!(target: "script", "{text}"),
            1 => tracing::debug!(target: "script", "{text}"),
            2 => tracing::info!(target: "script", "{text}"),
            _ => tracing::warn!(target: "script", "{text}"),
        }
    }
    fn config_rewrite_all(&self) -> Result<(), String> {
        self.process.config_rewrite_all()
    }
    fn set_active_expire(&self, on: bool) {
        self.engine.active_expire.store(on, Ordering::Relaxed);
    }
    fn set_housekeeping(&self, on: bool) {
        self.engine.housekeeping.store(on, Ordering::Relaxed);
    }
    fn debug_log(&self, text: &str) {
        tracing::warn!("DEBUG LOG: {text}");
    }
    fn debug_allowed(&self, session: u64) -> bool {
        self.process.debug_allowed(session)
    }
}
