//! CAIRN KEY: the master keys of a running server. The law: `storage/docs/seal.md`.

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::host::{Job, KeyJob};
use crate::spec::Flags;

pub(super) const FLAGS: Flags = Flags::ADMIN.no_script().no_multi();

/// `CAIRN KEY LIST`: an array of maps, a master key each, the active one last: `name`, `active` (0 or 1), `files` (how many
/// files of the data directory it is needed for). `CAIRN KEY RELOAD`: reads the keyring again; its newest key takes effect
/// for new files at once. `CAIRN KEY REWRAP`: begins to bring all other files under it. `CAIRN KEY STATUS`: a map, how far
/// that is.
pub(super) fn key(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let verbs = [
        ("list", KeyJob::List),
        ("reload", KeyJob::Reload),
        ("rewrap", KeyJob::Rewrap),
        ("status", KeyJob::Status),
    ];
    let named = verbs.into_iter().find(|(name, _)| args[2].eq_ignore_ascii_case(name.as_bytes()));
    let (_, job) = named.ok_or_else(|| {
        let given = String::from_utf8_lossy(args[2]);
        CommandError::other(format!("ERR unknown CAIRN KEY '{given}'. Try LIST, RELOAD, REWRAP or STATUS."))
    })?;
    ctx.job = Some(Job::Keys(job));
    Ok(())
}
