//! The disk as a trait: every crate of `storage` does its file I/O through [`Disk`], so that tests can put
//! [`FaultyDisk`] in the place of [`RealDisk`].
//!
//! Invariants: a file made here has mode 0600 and a directory 0700; a write is whole or an error; nothing is durable
//! before `sync_data`, `sync_all` or, for names, `sync_dir` returned without error; a fault inside a mapping (the file
//! was cut or cannot be read) is an error of [`Mapping::check`], never a signal that ends the process.
//!
//! This crate must never know what the bytes mean.

mod allocate;
mod faulty;
mod map;
mod real;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use faulty::{FaultyDisk, Survival};
pub use map::{MapFault, Mapping, install_fault_handler};
pub use real::RealDisk;

/// A place for files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a file for reading and writing, mode 0600; `AlreadyExists` when the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing in place: for replacing key slots only.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Maps a whole file for reading.
    fn map(&self, path: &Path) -> io::Result<Mapping>;

    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, mode 0700; nothing when it is there.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The files and directories in a directory, by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Whether the name is taken.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The length of a file in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Locks a file, which is made when it is not there, against all other holders, until the guard is dropped or the
    /// process ends; `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;
}

/// An open file. Offsets and lengths are in bytes; all calls may be made from several threads at once.
#[allow(clippy::len_without_is_empty)] // Whether a file is empty is nobody's question.
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`; after an error some of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `buf.len()` bytes from `offset`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buf` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buf = buf.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the first `len` bytes of the file really have room on the disk; what was not written reads as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable, and the length. After an error nothing written since the last success may be
    /// trusted to ever become durable: the file must be abandoned.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`File::sync_data`], with all that is known about the file.
    fn sync_all(&self) -> io::Result<()>;

    /// The length of the file.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Holds a lock until dropped.
pub trait LockGuard: Send + Sync {}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory; names that are no UTF-8 are not listed.
    pub name: String,
    /// The length in bytes.
    pub len: u64,
}

/// Puts `bytes` under a name so that after a crash either all of them are there or what was there before: written under
/// the name with `.tmp` appended, synced, renamed, the directory synced.
///
/// # Errors
/// Those of the disk; the temporary file is removed then where that is possible.
pub fn write_file_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let written = (|| {
        let file = disk.create_new(&temporary)?;
        file.write_at(bytes, 0)?;
        file.sync_all()?;
        disk.rename(&temporary, path)
    })();
    if let Err(error) = written {
        // What made the write fail is what the caller must hear of; a start removes leftovers anyway.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_dir(parent(path))
}

/// What to do about an error of a disk, to be put behind it; nothing where that is not known.
pub fn advice(error: &io::Error) -> &'static str {
    /// As in errno.h of Linux, everywhere.
    const EIO: i32 = 5;
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space there",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free some space there",
        io::ErrorKind::FileTooLarge => "; raise the limit for the size of files (ulimit -f)",
        io::ErrorKind::OutOfMemory => {
            "; the system has no memory for it: give the machine more, or lower maxmemory"
        }
        io::ErrorKind::PermissionDenied => "; give the server's user the right to it",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: mount it for writing, and where the kernel made it so after an error, look at its log"
        }
        _ if error.raw_os_error() == Some(EIO) => {
            "; the disk fails: look at the kernel's log, and have a backup on another disk"
        }
        _ => "",
    }
}

/// The directory a path lies in: `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The path with `.tmp` appended: files of such names are removed at a start.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one suite both disks pass.
    fn suite(disk: &dyn Disk, dir: &Path) {
        let (a, b) = (dir.join("a"), dir.join("b"));
        disk.create_dir_all(dir).unwrap();
        assert!(!disk.exists(&a).unwrap());
        assert_eq!(disk.open_read(&a).err().unwrap().kind(), io::ErrorKind::NotFound);
        let file = disk.create_new(&a).unwrap();
        assert_eq!(disk.create_new(&a).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.write_at(b"hello", 3).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        let mut buf = [9; 8];
        file.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"\0\0\0hello");
        assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
        assert_eq!(file.read_exact_at(&mut buf, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.allocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        file.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"\0\0\0hello");
        file.set_len(6).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(dir).unwrap();
        let mapping = disk.map(&a).unwrap();
        assert_eq!(mapping.bytes(), b"\0\0\0hel");
        mapping.check().unwrap();
        disk.open_write(&a).unwrap().write_at(b"H", 3).unwrap();
        disk.rename(&a, &b).unwrap();
        assert_eq!(disk.list(dir).unwrap(), [DirEntry { name: "b".into(), len: 6 }]);
        assert_eq!(disk.len(&b).unwrap(), 6);
        write_file_atomically(disk, &b, b"new").unwrap();
        assert_eq!(disk.map(&b).unwrap().bytes(), b"new");
        disk.remove(&b).unwrap();
        assert_eq!(disk.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.create_new(&a).unwrap();
        assert_eq!(disk.map(&a).unwrap().bytes(), b"");
        let guard = disk.lock(&dir.join("lock")).unwrap();
        assert_eq!(disk.lock(&dir.join("lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(guard);
        drop(disk.lock(&dir.join("lock")).unwrap());
    }

    #[test]
    fn the_real_disk_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        suite(&RealDisk, &dir.path().join("data"));
    }

    #[test]
    fn the_faulty_disk_passes_the_suite() {
        suite(&FaultyDisk::new(), Path::new("/data"));
    }

    #[test]
    fn files_and_directories_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        RealDisk.create_dir_all(&data).unwrap();
        RealDisk.create_new(&data.join("file")).unwrap();
        let _guard = RealDisk.lock(&data.join("lock")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("file")), 0o600);
        assert_eq!(mode(&data.join("lock")), 0o600);
    }
}
