//! A disk in memory that fails as told and forgets, at a crash, what was not synced.

mod chance;
mod contents;
mod faults;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{DirEntry, Disk, File, LockGuard, Mapping, parent};
use chance::Chance;
use contents::{Change, Contents};
use faults::{Fault, Faults, broken, full};

/// The unit that reaches the disk whole or not at all, but for [`Survival::Torn`].
const SECTOR: usize = 512;
/// The unit in which files take room.
const BLOCK: u64 = 4096;

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
    /// As `Sectors`, and a sector that was being written is neither the old nor the new one.
    Torn(u64),
}

impl Survival {
    fn chance(self) -> Chance {
        match self {
            Survival::Nothing | Survival::Everything => Chance(0),
            Survival::Sectors(seed) | Survival::Torn(seed) => Chance(seed),
        }
    }
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
    /// Decides how much gets through where something fails.
    chance: Option<Chance>,
    reads: u64,
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

impl FaultyDisk {
    /// An empty disk without faults. Half of a write that fails is written, and nothing of a sync that does.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// An empty disk without faults, where this seed says how much of a write that fails is written, and which sectors a
    /// sync that fails has saved.
    pub fn seeded(seed: u64) -> FaultyDisk {
        let disk = FaultyDisk::new();
        disk.lock_state().chance = Some(Chance(seed));
        disk
    }

    /// Lets `count` reads (of files or of mappings as a whole) fail with EIO, after `skip` more that succeed.
    pub fn fail_reads(&self, skip: u64, count: u64) {
        let mut state = self.lock_state();
        state.faults.read = Some(Fault { first: state.reads + skip, count });
    }

    /// Lets `count` writes fail with EIO, after `skip` more that succeed. A part of a failing write's bytes is written.
    pub fn fail_writes(&self, skip: u64, count: u64) {
        let mut state = self.lock_state();
        state.faults.write = Some(Fault { first: state.writes + skip, count });
    }

    /// Lets `count` syncs (of files or directories) fail with EIO, after `skip` more that succeed.
    pub fn fail_syncs(&self, skip: u64, count: u64) {
        let mut state = self.lock_state();
        state.faults.sync = Some(Fault { first: state.syncs + skip, count });
    }

    /// Calls `wait` in each sync before it ends, so that it takes the time that takes; `None` makes syncs quick again.
    pub fn slow_syncs(&self, wait: Option<Arc<dyn Fn() + Send + Sync>>) {
        self.lock_state().faults.slowness = wait;
    }

    /// Gives the disk room for `bytes` more, or for all there are with `None`; what exceeds it fails with ENOSPC, a write
    /// after as much as there was room for. Files take room in blocks of 4 KiB.
    pub fn limit_space(&self, bytes: Option<u64>) {
        let mut state = self.lock_state();
        let used = state.used_bytes();
        state.faults.space_bytes = bytes.map(|bytes| used.saturating_add(bytes));
    }

    /// Lets everything that changes the disk fail after `operations` more such calls: as if the power went then.
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.lock_state();
        state.faults.power_off_after = Some(state.operations + operations);
    }

    /// Lets nothing more go wrong. What has gone wrong stays so.
    pub fn mend(&self) {
        self.lock_state().faults = Faults::default();
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
        let chance = survival.chance();
        let kept_changes = match survival {
            Survival::Nothing => 0,
            Survival::Everything => state.names_pending.len(),
            Survival::Sectors(_) | Survival::Torn(_) => chance.below(state.names_pending.len() + 1),
        };
        let mut names = state.names_durable.clone();
        for change in state.names_pending.iter().take(kept_changes) {
            change.apply(&mut names);
        }
        let mut untorn = matches!(survival, Survival::Torn(_));
        let mut files = Vec::with_capacity(state.files.len());
        for (id, file) in state.files.iter().enumerate().rev() {
            // A file without a name is gone, and its number stays.
            if !names.values().any(|named| *named == id) {
                files.push(Contents::default());
                continue;
            }
            let mut bytes = file.after_crash(survival, chance.of(id as u64));
            untorn = untorn && !file.tear(&mut bytes, chance.of(id as u64));
            files.push(Contents::of(bytes));
        }
        files.reverse();
        let after = State {
            names: names.clone(),
            names_durable: names,
            directories: state.directories.clone(),
            files,
            chance: state.chance.map(|chance| chance.of(state.operations)),
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
        let mut bytes = std::mem::take(&mut file.seen);
        change(&mut bytes);
        *file = Contents::of(bytes);
    }

    /// Lets a bit of one of the named files rot, by this seed; gives the file and the offset, `None` when all are empty.
    pub fn rot(&self, seed: u64) -> Option<(PathBuf, usize)> {
        let chance = Chance(seed);
        let files: Vec<(PathBuf, usize)> = {
            let state = self.lock_state();
            let lengths = state.names.iter().map(|(path, id)| (path.clone(), state.files[*id].seen.len()));
            lengths.filter(|(_, len)| *len > 0).collect()
        };
        let (path, len) = files.get(chance.of(0).below(files.len()))?;
        let offset = chance.of(1).below(*len);
        self.damage(path, |bytes| bytes[offset] ^= 1 << chance.of(2).below(8));
        Some((path.clone(), offset))
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = self.lock_state().find(path)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), id }))
    }

    /// Takes the time of a sync, without holding up others.
    fn be_slow(&self) {
        let slowness = self.lock_state().faults.slowness.clone();
        if let Some(wait) = slowness {
            wait();
        }
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named.iter().map(|id| (self.files[*id].seen.len() as u64).next_multiple_of(BLOCK)).sum()
    }

    /// Counts a call that changes the disk; an error once the power is off.
    fn operate(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.faults.power_off_after {
            Some(first) if number >= first => Err(broken()),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, path: &Path, file: Option<usize>) {
        let change = NameChange { path: path.to_owned(), file };
        change.apply(&mut self.names);
        self.names_pending.push(change);
    }

    fn count_read(&mut self) -> io::Result<()> {
        let number = self.reads;
        self.reads += 1;
        if Fault::hits(&self.faults.read, number) { Err(broken()) } else { Ok(()) }
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.operate()?;
        let number = self.syncs;
        self.syncs += 1;
        if Fault::hits(&self.faults.sync, number) { Err(broken()) } else { Ok(()) }
    }

    /// How long the file may become, up to `len` bytes.
    fn room_up_to(&self, id: usize, len: usize) -> usize {
        let seen = self.files[id].seen.len();
        let Some(space) = self.faults.space_bytes.filter(|_| len > seen) else { return len };
        let free = space.saturating_sub(self.used_bytes());
        let most = (seen as u64).next_multiple_of(BLOCK).saturating_add(free / BLOCK * BLOCK);
        len.min(usize::try_from(most).unwrap_or(usize::MAX)).max(seen)
    }

    fn check_room(&self, id: usize, len: usize) -> io::Result<()> {
        if self.room_up_to(id, len) < len { Err(full()) } else { Ok(()) }
    }

    /// How many bytes of a write that fails are written all the same. By chance that is up to the end of some sector: no
    /// system gives up in the midst of one.
    fn short(&self, offset: usize, bytes: usize) -> usize {
        let Some(chance) = self.chance else { return bytes / 2 };
        let end = (offset + chance.of(self.operations).below(bytes + 1)) / SECTOR * SECTOR;
        end.saturating_sub(offset)
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
        let mut state = self.lock_state();
        let id = state.find(path)?;
        state.count_read()?;
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
        self.be_slow();
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
        let wanted = if fails { state.short(offset, bytes.len()) } else { bytes.len() };
        let room = state.room_up_to(self.id, offset + wanted).saturating_sub(offset);
        let written = &bytes[..wanted.min(room)];
        if !written.is_empty() {
            state.files[self.id].change(Change::Write { offset, bytes: written.to_vec() });
        }
        match written.len() {
            _ if fails => Err(broken()),
            count if count < bytes.len() => Err(full()),
            _ => Ok(()),
        }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock_state();
        state.count_read()?;
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
        self.disk.be_slow();
        let mut state = self.disk.lock_state();
        let chance = state.chance.map(|chance| chance.of(state.operations));
        let synced = state.count_sync();
        let file = &mut state.files[self.id];
        match &synced {
            Ok(()) => file.sync(),
            Err(_) => file.fail_sync(chance),
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
