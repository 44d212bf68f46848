//! A file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::JobError;

/// A file being written under a temporary name, readable by its owner only; it goes with this value unless it is finished.
pub struct Output {
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
    written: u64,
}

impl Output {
    /// Begins a file.
    ///
    /// # Errors
    /// [`JobError::Exists`] where the name is taken, unless `force`; those of the file system.
    pub fn create(path: &Path, force: bool) -> Result<Self, JobError> {
        Self::refuse_taken(path, force)?;
        let temporary = cairn_disk::temporary_name(path);
        let _ = fs::remove_file(&temporary);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|source| JobError::write(&temporary, 0, source))?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { file, temporary, path: path.to_owned(), written: 0 })
    }

    /// Refuses a name that is taken, unless `force`.
    ///
    /// # Errors
    /// [`JobError::Exists`].
    pub fn refuse_taken(path: &Path, force: bool) -> Result<(), JobError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(JobError::Exists { path: path.to_owned() });
        }
        Ok(())
    }

    /// Syncs the file, gives it its name, and syncs the directory; its length in bytes.
    ///
    /// # Errors
    /// [`JobError::NoSpace`], those of the file system.
    pub fn finish(mut self) -> Result<u64, JobError> {
        let failed = |path: &Path, source| JobError::write(path, 0, source);
        let Some(file) = self.file.take() else { return Ok(0) };
        let synced =
            file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        let named = synced.and_then(|()| fs::rename(&self.temporary, &self.path));
        if let Err(source) = named {
            let _ = fs::remove_file(&self.temporary);
            return Err(failed(&self.temporary, source));
        }
        let dir = cairn_disk::parent(&self.path);
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| failed(dir, source))?;
        Ok(self.written)
    }

    /// The error of a write to it, named for what it is.
    pub fn error(path: &Path, source: io::Error) -> JobError {
        JobError::write(path, 0, source)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let length = file.write(bytes)?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What was not written out yet is not wanted any more.
            drop(file.into_parts());
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rdb");
        let mut output = Output::create(&path, false).unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut output = Output::create(&path, false).unwrap();
        output.write_all(b"whole").unwrap();
        assert!(!path.exists());
        assert_eq!(output.finish().unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Output::create(&path, false), Err(JobError::Exists { .. })));
        let mut output = Output::create(&path, true).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
