//! Where the users come from and where they are kept: `user` lines of the configuration, or the `aclfile`.

use crate::config::{ConfigError, PubsubDefault, Settings};
use crate::replace::replace;
use cairn_engine::{Acl, UserLine};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why the server does not start with these users.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error(transparent)]
    Line(ConfigError),
    #[error("aclfile: {0}")]
    File(String),
}

/// The users' file, where one is configured.
pub(crate) fn file(settings: &Settings) -> Option<PathBuf> {
    (!settings.aclfile.is_empty()).then(|| Path::new(&settings.dir).join(&settings.aclfile))
}

/// Lets settings take effect that concern users from now on.
pub(crate) fn apply(acl: &Acl, settings: &Settings) {
    acl.set_all_channels(settings.acl_pubsub_default == PubsubDefault::All);
    acl.set_log_length(usize::try_from(settings.acl_log_length).unwrap_or(0));
}

/// The users a server starts with.
pub(crate) fn begin(acl: &Acl, settings: &Settings) -> Result<(), UsersError> {
    apply(acl, settings);
    acl.set_default_password(settings.requirepass.as_bytes());
    let lines: Vec<UserLine> = settings.users.iter().map(|(_, line)| line.clone()).collect();
    acl.configure(&lines).map_err(|(at, error)| {
        let place = settings.users[at].0.clone();
        UsersError::Line(ConfigError::Directive { place, directive: "user".into(), why: error.to_string() })
    })?;
    load(acl, settings).map_or(Ok(()), |loaded| loaded.map(drop).map_err(UsersError::File))
}

/// Replaces the users by those of the file, where there is one: those whose clients have to go.
pub(crate) fn load(acl: &Acl, settings: &Settings) -> Option<Result<Vec<Vec<u8>>, String>> {
    let (path, shown) = (file(settings)?, &settings.aclfile);
    let text = fs::read(path)
        .map_err(|error| format!("Error loading ACLs, opening file '{shown}': {}", without_code(&error)));
    Some(text.and_then(|text| acl.load(shown, &text)))
}

/// The system's words for an error, without its number.
fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Writes the users to the file, whole or not at all. It holds digests of passwords, so it is for its owner only.
pub(crate) fn save(acl: &Acl, path: &Path) -> io::Result<()> {
    let mut text = acl.lines().join(&b'\n');
    text.push(b'\n');
    replace(path, &text, 0o600)
}

/// The lines that CONFIG REWRITE keeps the users in: none where they have a file.
pub(crate) fn lines_to_keep(acl: &Acl, settings: &Settings) -> Vec<String> {
    if !settings.aclfile.is_empty() {
        return Vec::new();
    }
    acl.lines().iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}
