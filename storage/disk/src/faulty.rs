//! A disk in memory that fails as told and forgets, at a crash, what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{DirEntry, Disk, File, LockGuard, Mapping, parent};

/// The unit that reaches the disk whole or not at all.
const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk.
///
/// It keeps apart what programs see and what would survive a power cut: bytes survive a successful sync of their file,
/// names a successful sync of their directory. After a failed sync the bytes it should have saved are seen, but no later
/// sync saves them, as Linux has it. [`FaultyDisk::crash`] gives the disk that the next start would find.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

/// What of the unsynced bytes and names is there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it, as after SIGKILL.
    Everything,
    /// Sectors of 512 bytes at random, by this seed, and the changes of names up to some one of them.
    Sectors(u64),
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    /// The changes of names since `names_durable`, in order.
    names_pending: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    files: Vec<Contents>,
    locked: BTreeSet<PathBuf>,
    faults: Faults,
    writes: u64,
    syncs: u64,
    operations: u64,
}

#[derive(Clone)]
struct NameChange {
    path: PathBuf,
    /// `None` for a name that goes.
    file: Option<usize>,
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Default)]
struct Faults {
    write: Option<Fault>,
    sync: Option<Fault>,
    power_off_after: Option<u64>,
    space_bytes: Option<u64>,
}

struct Fault {
    /// The first operation of its kind that fails, counted from 0 over the life of the disk.
    first: u64,
    /// How many fail.
    count: u64,
}

impl Fault {
    fn hits(fault: &Option<Fault>, number: u64) -> bool {
        fault.as_ref().is_some_and(|fault| number >= fault.first && number - fault.first < fault.count)
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Lets `count` writes fail with EIO, after `skip` more that succeed. Half of a failing write's bytes are written.
    pub fn fail_writes(&self, skip: u64, count: u64) {
        let mut state = self.lock_state();
        state.faults.write = Some(Fault { first: state.writes + skip, count });
    }

    /// Lets `count` syncs (of files or directories) fail with EIO, after `skip` more that succeed.
    pub fn fail_syncs(&self, skip: u64, count: u64) {
        let mut state = self.lock_state();
        state.faults.sync = Some(Fault { first: state.syncs + skip, count });
    }

    /// Gives the disk room for `bytes` more, or for all there are with `None`; what exceeds it fails with ENOSPC.
    pub fn limit_space(&self, bytes: Option<u64>) {
        let mut state = self.lock_state();
        let used = state.used_bytes();
        state.faults.space_bytes = bytes.map(|bytes| used + bytes);
    }

    /// Lets everything that changes the disk fail after `operations` more such calls: as if the power went then.
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.lock_state();
        state.faults.power_off_after = Some(state.operations + operations);
    }

    /// How many calls have tried to change the disk so far: writes, allocations, syncs, changes of names.
    pub fn operations(&self) -> u64 {
        self.lock_state().operations
    }

    /// How many syncs of files or directories were asked for so far.
    pub fn syncs(&self) -> u64 {
        self.lock_state().syncs
    }

    /// The disk as the next start would find it: without faults and locks, and with what survives.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> FaultyDisk {
        let state = self.lock_state();
        let mut random = Random(match survival {
            Survival::Sectors(seed) => seed,
            Survival::Nothing | Survival::Everything => 0,
        });
        let kept_changes = match survival {
            Survival::Nothing => 0,
            Survival::Everything => state.names_pending.len(),
            Survival::Sectors(_) => random.below(state.names_pending.len() + 1),
        };
        let mut names = state.names_durable.clone();
        for change in state.names_pending.iter().take(kept_changes) {
            change.apply(&mut names);
        }
        let files = state.files.iter().map(|file| {
            let bytes = file.after_crash(survival, &mut random);
            Contents { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
        });
        let after = State {
            names: names.clone(),
            names_durable: names,
            directories: state.directories.clone(),
            files: files.collect(),
            ..State::default()
        };
        FaultyDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Changes a file in place, durably and without faults: to damage it.
    ///
    /// # Panics
    /// When there is no such file: a mistake of the test.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock_state();
        let id = *state.names.get(path).unwrap_or_else(|| panic!("{} is not there", path.display()));
        let file = &mut state.files[id];
        change(&mut file.seen);
        file.durable = file.seen.clone();
        file.pending.clear();
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = self.lock_state().find(path)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), id }))
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named.iter().map(|id| self.files[*id].seen.len() as u64).sum()
    }

    /// Counts a call that changes the disk; an error once the power is off.
    fn operate(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.faults.power_off_after {
            Some(first) if number >= first => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, path: &Path, file: Option<usize>) {
        let change = NameChange { path: path.to_owned(), file };
        change.apply(&mut self.names);
        self.names_pending.push(change);
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.operate()?;
        let number = self.syncs;
        self.syncs += 1;
        if Fault::hits(&self.faults.sync, number) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// Whether the file may become `len` bytes long.
    fn check_room(&self, id: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.files[id].seen.len()) as u64;
        match self.faults.space_bytes {
            Some(space) if more > 0 && self.used_bytes() + more > space => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            _ => Ok(()),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self.file {
            Some(file) => names.insert(self.path.clone(), file),
            None => names.remove(&self.path),
        };
    }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn after_crash(&self, survival: Survival, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match survival {
            Survival::Nothing => {}
            // A write that a failed sync gave up is still seen after SIGKILL.
            Survival::Everything => bytes.clone_from(&self.seen),
            Survival::Sectors(_) => {
                for change in &self.pending {
                    change.apply_sectors(&mut bytes, random);
                }
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => overwrite(contents, *offset, bytes),
            Change::Length(len) => contents.resize(*len, 0),
        }
    }

    fn apply_sectors(&self, contents: &mut Vec<u8>, random: &mut Random) {
        match self {
            Change::Length(_) => {
                if random.below(2) == 0 {
                    self.apply(contents);
                }
            }
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let start = offset + at;
                    let end = (start / SECTOR + 1) * SECTOR;
                    let count = (end - start).min(bytes.len() - at);
                    if random.below(2) == 0 {
                        overwrite(contents, start, &bytes[at..at + count]);
                    }
                    at += count;
                }
            }
        }
    }
}

fn overwrite(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

/// SplitMix64: enough to draw which sectors survive, the same for the same seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % bound as u64).unwrap_or(0)
    }
}

impl Disk for FaultyDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock_state();
        state.operate()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.directories.contains(parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = state.files.len();
        state.files.push(Contents::default());
        state.change_name(path, Some(id));
        Ok(Arc::new(FaultyFile { disk: self.clone(), id }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn map(&self, path: &Path) -> io::Result<Mapping> {
        let state = self.lock_state();
        let id = state.find(path)?;
        Ok(Mapping::of_bytes(path, state.files[id].seen.clone()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.operate()?;
        let id = state.find(from)?;
        // One change on disk: the new name first, so that a crash between the two loses neither.
        state.change_name(to, Some(id));
        state.change_name(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.operate()?;
        state.find(path)?;
        state.change_name(path, None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.count_sync()?;
        let State { names_durable, names_pending, .. } = &mut *state;
        names_pending.retain(|change| {
            let here = parent(&change.path) == dir;
            if here {
                change.apply(names_durable);
            }
            !here
        });
        Ok(())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.operate()?;
        state.directories.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.lock_state();
        if !state.directories.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = state.names.iter().filter(|(path, _)| parent(path) == dir);
        Ok(here
            .filter_map(|(path, id)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(DirEntry { name, len: state.files[*id].seen.len() as u64 })
            })
            .collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock_state();
        Ok(state.names.contains_key(path) || state.directories.contains(path))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = self.lock_state();
        Ok(state.files[state.find(path)?].seen.len() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        if !self.exists(path)? {
            self.create_new(path)?;
            // The lock file is nobody's data: it stays whatever happens, so that listings agree between starts.
            self.damage(path, |_| {});
        }
        if !self.lock_state().locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FaultyLock { disk: self.clone(), path: path.to_owned() }))
    }
}

struct FaultyLock {
    disk: FaultyDisk,
    path: PathBuf,
}

impl LockGuard for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.lock_state().locked.remove(&self.path);
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    id: usize,
}

impl File for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.operate()?;
        let offset = to_usize(offset)?;
        let number = state.writes;
        state.writes += 1;
        let fails = Fault::hits(&state.faults.write, number);
        let written = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        state.check_room(self.id, offset + written.len())?;
        state.files[self.id].change(Change::Write { offset, bytes: written.to_vec() });
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock_state();
        let seen = &state.files[self.id].seen;
        let rest = seen.get(to_usize(offset)?..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.operate()?;
        let len = to_usize(len)?;
        state.check_room(self.id, len)?;
        let file = &mut state.files[self.id];
        if file.seen.len() < len {
            file.change(Change::Length(len));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        let synced = state.count_sync();
        let file = &mut state.files[self.id];
        let pending = std::mem::take(&mut file.pending);
        if synced.is_ok() {
            for change in pending {
                change.apply(&mut file.durable);
            }
        }
        synced
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock_state().files[self.id].seen.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.operate()?;
        let len = to_usize(len)?;
        state.check_room(self.id, len)?;
        state.files[self.id].change(Change::Length(len));
        Ok(())
    }
}

fn to_usize(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_file_atomically;

    fn disk() -> FaultyDisk {
        let disk = FaultyDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk
    }

    fn contents(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
        disk.map(Path::new(path)).ok().map(|mapping| mapping.bytes().to_vec())
    }

    #[test]
    fn only_what_was_synced_survives_a_crash() {
        let disk = disk();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a"), None, "the name was not synced");
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(b"two", 0).unwrap();
        assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a").unwrap(), b"one");
        assert_eq!(contents(&disk.crash(Survival::Everything), "/d/a").unwrap(), b"two");
    }

    #[test]
    fn sectors_survive_each_for_itself_and_the_same_by_the_same_seed() {
        let disk = disk();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        file.allocate(64 * 512).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[1; 64 * 512], 0).unwrap();
        let image = contents(&disk.crash(Survival::Sectors(7)), "/d/a").unwrap();
        let whole = image.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 1)).count();
        let none = image.chunks(512).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
        assert_eq!(whole + none, 64);
        assert!(whole > 10 && none > 10, "{whole} sectors of 64 survived");
        assert_eq!(contents(&disk.crash(Survival::Sectors(7)), "/d/a").unwrap(), image);
        assert_ne!(contents(&disk.crash(Survival::Sectors(8)), "/d/a").unwrap(), image);
    }

    /// Linux reports a failed write-back once and marks the pages clean: the next sync succeeds without them.
    #[test]
    fn a_failed_sync_loses_its_bytes_although_a_later_one_succeeds() {
        let disk = disk();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.fail_syncs(0, 1);
        file.write_at(b"lost", 0).unwrap();
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
        file.write_at(b"kept", 4).unwrap();
        file.sync_data().unwrap();
        assert_eq!(contents(&disk, "/d/a").unwrap(), b"lostkept");
        assert_eq!(contents(&disk.crash(Survival::Nothing), "/d/a").unwrap(), b"\0\0\0\0kept");
    }

    #[test]
    fn writes_fail_when_told_and_leave_half() {
        let disk = disk();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        disk.fail_writes(1, 2);
        file.write_at(b"good", 0).unwrap();
        file.write_at(b"half", 4).unwrap_err();
        file.write_at(b"half", 4).unwrap_err();
        assert_eq!(contents(&disk, "/d/a").unwrap(), b"goodha");
        file.write_at(b"full", 4).unwrap();
        assert_eq!(contents(&disk, "/d/a").unwrap(), b"goodfull");
    }

    #[test]
    fn a_full_disk_refuses_growth_and_takes_it_once_there_is_room() {
        let disk = disk();
        let file = disk.create_new(Path::new("/d/a")).unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        disk.limit_space(Some(50));
        file.write_at(&[2; 100], 0).unwrap();
        file.write_at(&[2; 50], 100).unwrap();
        assert_eq!(file.write_at(&[2], 150).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.allocate(151).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.limit_space(None);
        file.allocate(151).unwrap();
        let other = disk.create_new(Path::new("/d/b")).unwrap();
        disk.limit_space(Some(0));
        other.write_at(b"x", 0).unwrap_err();
        disk.remove(Path::new("/d/a")).unwrap();
        other.write_at(b"x", 0).unwrap();
    }

    #[test]
    fn an_atomic_write_is_whole_or_not_there_wherever_the_power_goes() {
        let path = Path::new("/d/manifest");
        for survival in (0..20).map(Survival::Sectors).chain([Survival::Nothing, Survival::Everything]) {
            for operations in 0..=6 {
                let disk = disk();
                write_file_atomically(&disk, path, &[1; 2000]).unwrap();
                disk.power_off_after(operations);
                let written = write_file_atomically(&disk, path, &[2; 3000]);
                assert_eq!(written.is_ok(), operations >= 5, "{operations}");
                let found = contents(&disk.crash(survival), "/d/manifest").unwrap();
                assert!(
                    found == [2; 3000] || (found == [1; 2000] && written.is_err()),
                    "{survival:?} {operations}"
                );
            }
        }
    }
}
