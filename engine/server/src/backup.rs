//! The backup of this server: what its agent tells of it.

use crate::control::Report;

/// What is known of the backup.
#[derive(Default)]
pub(crate) struct Backup {
    /// As the agent told last.
    pub(crate) report: Report,
}
