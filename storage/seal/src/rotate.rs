//! A new master key in a keyring file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use zeroize::Zeroizing;

use crate::keyring::{TEXT_BYTES_MAX, read_text};
use crate::{Keyring, SealError, random};

impl Keyring {
    /// Puts a new key behind those of a keyring file, which makes it the active one, and gives the keyring as it is then. What
    /// else stands in the file stays. The file is replaced as a whole, so that a crash leaves the one or the other, and has
    /// mode 0600 and the owner it had.
    ///
    /// # Errors
    /// [`SealError::Io`] and [`SealError::BadKeyring`], [`SealError::NoRandomness`]; the file is as it was then.
    pub fn rotate_file(path: &Path) -> Result<Keyring, SealError> {
        let failed = |source| SealError::Io { path: path.to_owned(), source };
        // Where it is a link, what it leads to is replaced, and not the link.
        let real = fs::canonicalize(path).map_err(failed)?;
        let file = locked(&real).map_err(failed)?;
        let owner = file.metadata().map_err(failed)?;
        let text = read_text(&file).map_err(failed)?;
        let keyring = Keyring::parse(&text)?.rotated()?;
        let line = keyring.active().line();
        // Room for all at once: growing would leave copies of the keys behind.
        let mut longer = Zeroizing::new(Vec::with_capacity(text.len() + 1 + line.len()));
        longer.extend_from_slice(&text);
        if !text.ends_with(b"\n") {
            longer.push(b'\n');
        }
        longer.extend_from_slice(line.as_bytes());
        if longer.len() > TEXT_BYTES_MAX {
            let why = "it is full: remove keys that no file and no backup needs any more";
            return Err(SealError::BadKeyring { line: 0, why });
        }
        replace(&real, &longer, (owner.uid(), owner.gid())).map_err(failed)?;
        Ok(keyring)
    }
}

/// Opens a keyring file so that nobody else adds a key to it meanwhile.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = File::open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                "somebody else is adding a key to it at this moment",
            ),
            TryLockError::Error(error) => error,
        })?;
        // Whoever had it before may have put another file in its place.
        if file.metadata()?.ino() == fs::metadata(path)?.ino() {
            return Ok(file);
        }
    }
}

fn replace(path: &Path, text: &[u8], (uid, gid): (u32, u32)) -> io::Result<()> {
    let suffix = u64::from_le_bytes(random().map_err(io::Error::other)?);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{suffix:016x}.tmp"));
    let temporary = Path::new(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (uid, gid) {
            // Rotated by root, it must stay the server's.
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(temporary, path)
    })();
    if let Err(error) = written {
        // What made it fail is what the caller has to hear of.
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_new_key_is_last_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let first = Keyring::generate().unwrap();
        // Without a newline at its end, with a comment, and readable by others.
        let text = format!("# made by hand\n{}", first.encode().trim_end());
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();

        let rotated = Keyring::rotate_file(&link).unwrap();
        let found = Keyring::load_file(&path).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(found.names().collect::<Vec<_>>(), rotated.names().collect::<Vec<_>>());
        assert_eq!(found.names().count(), 2);
        assert_eq!(found.names().next(), Some(first.active().name()));
        assert_eq!(found.active().bytes(), rotated.active().bytes());
        assert!(!found.is_exposed(), "the new file is for its owner alone");
        assert!(fs::read_to_string(&path).unwrap().starts_with(&text), "comments stay");
        assert_eq!(names(dir.path()), 2, "nothing else is left behind");
    }

    #[test]
    fn what_goes_wrong_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        assert!(matches!(Keyring::rotate_file(&path), Err(SealError::Io { .. })));
        fs::write(&path, "no keyring").unwrap();
        assert!(matches!(Keyring::rotate_file(&path), Err(SealError::BadKeyring { .. })));
        let keyring = Keyring::generate().unwrap().encode();
        let full = format!("{}#{}\n", *keyring, "x".repeat(TEXT_BYTES_MAX - keyring.len() - 2));
        fs::write(&path, &full).unwrap();
        assert!(matches!(Keyring::rotate_file(&path), Err(SealError::BadKeyring { line: 0, .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), full);
        fs::write(&path, keyring.as_bytes()).unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        assert!(matches!(Keyring::rotate_file(&path), Err(SealError::Io { .. })), "somebody has it locked");
        assert_eq!(fs::read(&path).unwrap(), keyring.as_bytes());
        assert_eq!(names(dir.path()), 1);
    }
}
