//! Whether a user may run a command, and what is said and noted where it may not.

use std::borrow::Cow;
use std::sync::Arc;

use super::log::{Entry, Reason};
use super::selector::Selector;
use super::user::User;
use crate::error::CommandError;
use crate::host::{ClientFilter, Host};
use crate::keys::Access;
use crate::session::Session;
use crate::spec::Flags;
use crate::table::Command;

/// Where a command was to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// As the client sent it, or as it was queued.
    Top,
    /// In EXEC.
    Exec,
    /// In a script.
    Script,
}

/// What a user lacks: leave for the command, or for the key or channel that is argument `at`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Denial {
    Command,
    Key { at: usize },
    Channel { at: usize },
}

impl Denial {
    fn reason(self) -> Reason {
        match self {
            Denial::Command => Reason::Command,
            Denial::Key { .. } => Reason::Key,
            Denial::Channel { .. } => Reason::Channel,
        }
    }

    /// The error that the client, or its script, sees.
    fn error(self, place: Place, command: &Command) -> CommandError {
        let text: Cow<'static, str> = match (place, self) {
            (Place::Top, Denial::Command) => {
                format!("NOPERM this user has no permissions to run the '{}' command", command.name).into()
            }
            (Place::Top, Denial::Key { .. }) => {
                "NOPERM this user has no permissions to access one of the keys used as arguments".into()
            }
            (Place::Top, Denial::Channel { .. }) => {
                "NOPERM this user has no permissions to access one of the channels used as arguments".into()
            }
            (Place::Exec, denial) => {
                let why = match denial {
                    Denial::Command => "no permission to execute the command or subcommand",
                    Denial::Key { .. } => "no permission to touch the specified keys",
                    Denial::Channel { .. } => "no permission to access one of the channels used as arguments",
                };
                format!(
                    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. \
                     This command is no longer allowed for the following reason: {why}"
                )
                .into()
            }
            (Place::Script, denial) => {
                let why = match denial {
                    Denial::Command => "can't run this command or subcommand",
                    Denial::Key { .. } => {
                        "can't access at least one of the keys mentioned in the command arguments"
                    }
                    Denial::Channel { .. } => "can't publish to the channel mentioned in the command",
                };
                format!("ERR The user executing the script {why}").into()
            }
        };
        CommandError::other(text)
    }

    /// What ACL DRYRUN says.
    pub(crate) fn dry_run(self, command: &Command, args: &[&[u8]]) -> String {
        let (at, what) = match self {
            Denial::Command => {
                return format!("This user has no permissions to run the '{}' command", command.name);
            }
            Denial::Key { at } => (at, "key"),
            Denial::Channel { at } => (at, "channel"),
        };
        format!("This user has no permissions to access the '{}' {what}", String::from_utf8_lossy(args[at]))
    }
}

/// Checks that the session's user may run this; where it may not, notes it in ACL LOG. One flag is all there is to look
/// at for a user who may do everything.
///
/// # Errors
/// What the client or its script is told, in the words for this place.
#[inline]
pub fn permit(
    session: &mut Session,
    host: &dyn Host,
    command: &'static Command,
    args: &[&[u8]],
    place: Place,
) -> Result<(), CommandError> {
    match &session.user {
        None => Ok(()),
        Some(user) if user.needs_no_check() => Ok(()),
        Some(_) => permit_restricted(session, host, command, args, place),
    }
}

#[cold]
fn permit_restricted(
    session: &mut Session,
    host: &dyn Host,
    command: &'static Command,
    args: &[&[u8]],
    place: Place,
) -> Result<(), CommandError> {
    let Some(user) = current_user(session, host) else {
        // Removed while the client was about to say something.
        (session.closing, session.authenticated) = (true, false);
        return Err(CommandError::other("NOAUTH Authentication required."));
    };
    let Some(denial) = denial_of(&user, command, args) else { return Ok(()) };
    let object = match denial {
        Denial::Command => command.name.as_bytes(),
        Denial::Key { at } | Denial::Channel { at } => args[at],
    };
    let shown = match place {
        Place::Top if session.transaction.is_none() => "toplevel",
        Place::Top | Place::Exec => "multi",
        Place::Script => "lua",
    };
    note(session, host, denial.reason(), shown, object, user.name());
    Err(denial.error(place, command))
}

/// The session's user as it is now; `None` where it was removed. A session without a user may do everything, and is none
/// to ask for.
pub(crate) fn current_user(session: &mut Session, host: &dyn Host) -> Option<Arc<User>> {
    let user = session.user.as_ref()?;
    if user.is_superseded() {
        let newest = host.acl().user(user.name()).filter(|newest| newest.identity() == user.identity());
        session.user = Some(newest?);
    }
    session.user.clone()
}

/// Notes a refusal in ACL LOG.
pub(crate) fn note(
    session: &Session,
    host: &dyn Host,
    reason: Reason,
    place: &'static str,
    object: &[u8],
    user: &[u8],
) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let itself = ClientFilter { ids: Some(vec![session.id]), ..ClientFilter::default() };
    host.acl().note(Entry {
        count: 1,
        reason,
        place,
        object: object.to_vec(),
        user: user.to_vec(),
        at_ms: now.as_millis() as i64,
        client: host.clients(&itself, session).trim_end().to_owned(),
    });
}

/// What the user lacks to run this. Any one selector may allow it; where none does, the denial that got furthest counts.
pub(crate) fn denial_of(user: &User, command: &'static Command, args: &[&[u8]]) -> Option<Denial> {
    let mut keys = None;
    let mut furthest = Denial::Command;
    for selector in user.rules().all_selectors() {
        furthest = furthest.max(denial_by(selector, command, args, &mut keys)?);
    }
    Some(furthest)
}

/// Whether one selector lets the session's user run this and read any key besides: for what reads keys that its arguments
/// do not name.
#[must_use]
pub fn reads_every_key(
    session: &mut Session,
    host: &dyn Host,
    command: &'static Command,
    args: &[&[u8]],
) -> bool {
    if session.user.is_none() {
        return true;
    }
    let Some(user) = current_user(session, host) else { return false };
    let mut keys = None;
    let mut selectors = user.rules().all_selectors();
    selectors.any(|selector| {
        selector.allows_every_key(Access::RO.access())
            && denial_by(selector, command, args, &mut keys).is_none()
    })
}

type Keys = Vec<(usize, Access)>;

fn denial_by(
    selector: &Selector,
    command: &'static Command,
    args: &[&[u8]],
    keys: &mut Option<Keys>,
) -> Option<Denial> {
    // Whoever has to authenticate must be able to, whatever else it may do.
    if !command.flags.has(Flags::NO_AUTH) && !selector.allows_command(command, args) {
        return Some(Denial::Command);
    }
    if !selector.needs_no_key_check() {
        let find = || command.keys.find_fitting(args, command.key_access()).0;
        let keys = keys.get_or_insert_with(find);
        if let Some((at, _)) = keys.iter().find(|(at, access)| !selector.allows_key(args[*at], *access)) {
            return Some(Denial::Key { at: *at });
        }
    }
    let (mut channels, are_patterns) = channels_of(command, args.len());
    channels.find(|at| !selector.allows_channel(args[*at], are_patterns)).map(|at| Denial::Channel { at })
}

/// Which arguments are channels that are sent to or listened to, and whether they are patterns.
fn channels_of(command: &Command, count: usize) -> (std::ops::Range<usize>, bool) {
    if !command.flags.has(Flags::PUBSUB) {
        return (0..0, false);
    }
    match command.name {
        "publish" | "spublish" => (1..2, false),
        "subscribe" | "ssubscribe" => (1..count, false),
        "psubscribe" => (1..count, true),
        _ => (0..0, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::Acl;

    #[test]
    fn keys_are_checked_although_others_are_missing() {
        let (_, user) = Acl::default().set_user(b"me", &[b"+@all", b"~mine:*"]).expect("rules");
        let denied = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            denial_of(&user, crate::resolve(&args).expect("a command"), &args)
        };
        assert_eq!(denied("pfmerge mine:a"), None);
        assert_eq!(denied("pfmerge other"), Some(Denial::Key { at: 1 }));
        assert_eq!(denied("pfmerge mine:a other"), Some(Denial::Key { at: 2 }));
    }
}
