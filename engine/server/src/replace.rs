//! Files that people keep, written anew by the server: the configuration and the users.

use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One at a time: the file that is being written bears one name.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces a file, whole or not at all: a crash leaves the one or the other. Nobody but whom `mode` lets reads any of it,
/// not even while it is written.
pub(crate) fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let _alone = WRITING.lock();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    if let Err(error) = write_new(temporary, text, mode).and_then(|()| fs::rename(temporary, path)) {
        // What is left of it is of no use; the error before says what went wrong.
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// What a crash has left under this name goes first: whoever could read that could read what is written into it.
fn write_new(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn what_was_left_behind_lets_nobody_read_more() {
        let dir = tempfile::tempdir().unwrap();
        let (path, left) = (dir.path().join("users.acl"), dir.path().join("users.acl.tmp"));
        fs::write(&left, "half of a line").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).unwrap();
        let mut reader = File::open(&left).unwrap();
        replace(&path, b"user a #digest\n", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"user a #digest\n");
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "half of a line", "it was another file");
        assert!(!left.exists());
    }

    #[test]
    fn a_failure_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.acl");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"text", 0o600).is_err(), "a directory is not replaced by a file");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
