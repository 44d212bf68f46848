//! Writing a container on several threads.
//!
//! Each thread takes partitions of the source, gathers their entries into blocks, compresses, seals and writes each block
//! at a place it reserves by an atomic addition: no thread waits for another. One more thread syncs the file every 32 MiB
//! so that the kernel never gathers more unwritten bytes than the journal's own syncs can bear.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use cairn_disk::{Disk, File, parent};
use cairn_format::container::{BLOCK_HEADER_BYTES, BlockHeader, FOOTER_BYTES, Footer, Index, IndexEntry};
use cairn_format::header::{Body, Identity, KeySlot, encode_header};
use cairn_format::{HEADER_BYTES, Lsn};
use cairn_seal::{DataKey, Sealer, TAG_BYTES};

use crate::progress::Counters;
use crate::reader::{Container, Depth};
use crate::{BLOCK_RAW_BYTES, Progress, STACK_BYTES, SnapshotError, Summary};

/// The file is synced whenever this much more was written.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

/// Buffers that one long entry made longer than this are let go.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// The zstd level for entries that hardly compress: on them it is twice as quick as level 1 and as good.
const LEVEL_HURRIED: i32 = -5;

/// After a block that hardly compressed, this many are hurried before the stated level is tried again.
const HURRIED_BLOCKS: u32 = 15;

/// Progress is told this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Who has the entries. In a forked child nothing behind it may take a lock or touch the runtime of the parent.
pub trait Source: Sync {
    /// Into how many parts the entries are divided; each is encoded by one thread, one after another. A part of some ten
    /// thousand entries is good; let parts that follow each other be of the same database where that is possible, since
    /// a block holds entries of one.
    fn partitions(&self) -> usize;

    /// Encodes the entries of one part.
    ///
    /// # Errors
    /// Those of [`BlockWriter::entry`], which end the snapshot.
    fn encode(&self, partition: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError>;
}

/// What to write and where. All that is random is drawn beforehand, so that a forked child draws nothing.
pub struct WriteParams {
    /// The name while it is written, in the directory of `path_final`; a leftover of that name is removed.
    pub path_tmp: PathBuf,
    /// The name once it is verified; must not be taken.
    pub path_final: PathBuf,
    /// Page 0 of the container, of a snapshot.
    pub identity: Identity,
    /// The data key and its wrapping, when `identity` says encrypted, and only then.
    pub key: Option<(DataKey, KeySlot)>,
    /// How many threads encode, compress and seal; at least one does.
    pub threads: usize,
    /// The zstd level: [`crate::LEVEL_DEFAULT`]. Entries that hardly compress are hurried through at a lower one.
    pub level: i32,
}

/// Writes a container: header, blocks, index, footer; syncs it, reads it back and verifies it, gives it its name and
/// syncs the directory. `progress` is called on this thread ten times a second until the end.
///
/// # Errors
/// Those of the disk, and of the verification. The temporary file is removed then.
///
/// # Panics
/// When `params` contradict themselves (the kind of file, a key without encryption): a mistake of the caller.
pub fn write_container(
    disk: &dyn Disk,
    params: &WriteParams,
    source: &dyn Source,
    progress: &dyn Fn(Progress),
) -> Result<Summary, SnapshotError> {
    assert_eq!(
        params.identity.encrypted,
        params.key.is_some(),
        "an encrypted container, and no other, has a key"
    );
    let counters = Counters::default();
    let result = thread::scope(|scope| {
        // The sender is dropped when the work ends, in whatever way: that wakes this thread at once.
        let (working, finished) = mpsc::channel::<()>();
        let counters = &counters;
        let work = spawn(scope, move || {
            let _working = working;
            write_verify_and_name(disk, params, source, counters)
        })?;
        while finished.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
            progress(counters.read());
        }
        join(work, params)
    });
    progress(counters.read());
    if result.is_err() {
        // The error that counts is the first; a start removes leftovers anyway.
        let _ = disk.remove(&params.path_tmp);
    }
    result
}

fn write_verify_and_name(
    disk: &dyn Disk,
    params: &WriteParams,
    source: &dyn Source,
    counters: &Counters,
) -> Result<Summary, SnapshotError> {
    let (tmp, path) = (&params.path_tmp, &params.path_final);
    if disk.exists(path).map_err(SnapshotError::io(path))? {
        // The manifest may name the one that is there.
        return Err(SnapshotError::io(path)(io::ErrorKind::AlreadyExists.into()));
    }
    if disk.exists(tmp).map_err(SnapshotError::io(tmp))? {
        disk.remove(tmp).map_err(SnapshotError::io(tmp))?;
    }
    let file = disk.create_new(tmp).map_err(SnapshotError::io(tmp))?;
    let page0 = params.identity.encode();
    let header = encode_header(&params.identity, params.key.as_ref().map(|(_, slot)| slot));
    file.write_at(&header, 0).map_err(SnapshotError::io(tmp))?;

    let sealer = params.key.as_ref().map(|(key, _)| Sealer::new(key, params.identity.file_id));
    let work = Work::new(file, params, sealer, source, counters);
    let blocks = work.write_blocks()?;
    let Work { file, sealer, next_offset, .. } = work;
    let index =
        Index { lsn: lsn(&params.identity), created_unix_ms: params.identity.created_unix_ms, blocks };
    let index_offset = next_offset.into_inner();
    let bytes = write_end(&*file, params, sealer.as_ref(), &page0, &index, index_offset)?;
    file.sync_all().map_err(SnapshotError::io(tmp))?;
    counters.step();

    let container = Container::open_with_sealer(disk, tmp, sealer)?;
    check_read_back(&container, &index, params)?;
    container.verify(params.threads, Depth::Checksums, &|_| counters.step())?;
    drop(container);
    disk.rename(tmp, path).map_err(SnapshotError::io(tmp))?;
    disk.sync_dir(parent(path)).map_err(SnapshotError::io(path))?;
    Ok(Summary {
        bytes,
        entries: index.entries(),
        raw_bytes: index.raw_bytes(),
        blocks: index.blocks.len() as u64,
    })
}

/// Writes index and footer; gives the length of the file.
fn write_end(
    file: &dyn File,
    params: &WriteParams,
    sealer: Option<&Sealer>,
    page0: &[u8],
    index: &Index,
    index_offset: u64,
) -> Result<u64, SnapshotError> {
    let blocks = index.blocks.len() as u64;
    let mut end = index.encode();
    if let Some(sealer) = sealer {
        // Page 0 is its clear part, so that the key vouches for what the header says too.
        let tag = sealer.seal_in_place(blocks, true, page0, &mut end);
        end.extend_from_slice(&tag);
    }
    let footer =
        Footer { file_id: params.identity.file_id, index_offset, index_bytes: end.len() as u64, blocks };
    cairn_format::wire::push_crc(&mut end);
    end.extend_from_slice(&footer.encode());
    file.write_at(&end, index_offset).map_err(SnapshotError::io(&params.path_tmp))?;
    Ok(index_offset.saturating_add(footer.index_bytes).saturating_add(4 + FOOTER_BYTES as u64))
}

fn check_read_back(container: &Container, index: &Index, params: &WriteParams) -> Result<(), SnapshotError> {
    if container.index() == index && *container.identity() == params.identity {
        return Ok(());
    }
    Err(SnapshotError::Damaged {
        file: params.path_tmp.clone(),
        offset: 0,
        what: "header and index read back",
        expected: "what was written".to_owned(),
        found: "other values".to_owned(),
    })
}

fn lsn(identity: &Identity) -> Lsn {
    match &identity.body {
        Body::Snapshot(body) => body.lsn,
        Body::Journal(_) => panic!("a container has the identity of a snapshot"),
    }
}

/// What the writing threads share.
struct Work<'a> {
    file: Arc<dyn File>,
    params: &'a WriteParams,
    sealer: Option<Sealer>,
    source: &'a dyn Source,
    counters: &'a Counters,
    next_partition: AtomicUsize,
    next_block: AtomicU64,
    next_offset: AtomicU64,
    /// Some thread failed: the others need not go on.
    failed: AtomicBool,
}

impl<'a> Work<'a> {
    fn new(
        file: Arc<dyn File>,
        params: &'a WriteParams,
        sealer: Option<Sealer>,
        source: &'a dyn Source,
        counters: &'a Counters,
    ) -> Work<'a> {
        Work {
            file,
            params,
            sealer,
            source,
            counters,
            next_partition: AtomicUsize::new(0),
            next_block: AtomicU64::new(0),
            next_offset: AtomicU64::new(HEADER_BYTES as u64),
            failed: AtomicBool::new(false),
        }
    }

    /// Writes all blocks; gives them by number.
    fn write_blocks(&self) -> Result<Vec<IndexEntry>, SnapshotError> {
        let threads = self.params.threads.min(self.source.partitions()).max(1);
        let mut blocks = thread::scope(|scope| {
            let (written, to_sync) = mpsc::channel::<()>();
            let syncer = spawn(scope, move || {
                while to_sync.recv().is_ok() {
                    // One sync serves all who asked for it so far.
                    while to_sync.try_recv().is_ok() {}
                    self.file.sync_data().map_err(SnapshotError::io(&self.params.path_tmp))?;
                    self.counters.step();
                }
                Ok(())
            })?;
            let mut writers = Vec::with_capacity(threads);
            for _ in 0..threads {
                let written = written.clone();
                writers.push(spawn(scope, move || self.write_partitions(written))?);
            }
            drop(written);
            let mut blocks = Vec::new();
            let mut result = Ok(());
            for writer in writers {
                match join(writer, self.params) {
                    Ok(more) => blocks.extend(more),
                    Err(error) => result = result.and(Err(error)),
                }
            }
            result.and(join(syncer, self.params)).map(|()| blocks)
        })?;
        blocks.sort_unstable_by_key(|block| block.header.number);
        Ok(blocks)
    }

    /// One thread's work.
    fn write_partitions(&self, written: Sender<()>) -> Result<Vec<IndexEntry>, SnapshotError> {
        let result = (|| {
            let mut out = BlockWriter::new(self, written)?;
            while !self.failed.load(Ordering::Relaxed) {
                let partition = self.next_partition.fetch_add(1, Ordering::Relaxed);
                if partition >= self.source.partitions() {
                    break;
                }
                self.source.encode(partition, &mut out)?;
            }
            out.close_block()?;
            Ok(out.blocks)
        })();
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Gathers entries into blocks and writes those; one for each thread.
pub struct BlockWriter<'a> {
    work: &'a Work<'a>,
    written: Sender<()>,
    compressor: zstd::bulk::Compressor<'static>,
    /// How many of the next blocks are hurried.
    hurried: u32,
    /// The entries of the block that is open, encoded.
    raw: Vec<u8>,
    entries: u32,
    database: u32,
    /// The block as it goes to the file; its length stays, so that it is zeroed once.
    stored: Vec<u8>,
    blocks: Vec<IndexEntry>,
}

impl<'a> BlockWriter<'a> {
    fn new(work: &'a Work<'a>, written: Sender<()>) -> Result<BlockWriter<'a>, SnapshotError> {
        let compressor =
            zstd::bulk::Compressor::new(work.params.level).map_err(SnapshotError::NoResources)?;
        let raw = Vec::with_capacity(BLOCK_RAW_BYTES + BLOCK_RAW_BYTES / 4);
        let (stored, blocks) = (Vec::new(), Vec::new());
        Ok(BlockWriter {
            work,
            written,
            compressor,
            hurried: 0,
            raw,
            entries: 0,
            database: 0,
            stored,
            blocks,
        })
    }

    /// Adds one entry: `encode` appends its bytes (`0xFC` and the expiry where there is one, type, key, value) to the
    /// block that is open.
    ///
    /// # Errors
    /// Those of compressing and writing a block that became full.
    #[inline]
    pub fn entry(&mut self, database: u32, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), SnapshotError> {
        if database != self.database {
            self.close_block()?;
            self.database = database;
        }
        encode(&mut self.raw);
        self.entries = self.entries.saturating_add(1);
        if self.raw.len() >= BLOCK_RAW_BYTES {
            self.close_block()?;
        }
        Ok(())
    }

    /// Tells that the work goes on, where a source takes its time before the next entry.
    pub fn note_step(&self) {
        self.work.counters.step();
    }

    /// Compresses, seals and writes the open block, if it has entries.
    fn close_block(&mut self) -> Result<(), SnapshotError> {
        if self.entries == 0 {
            return Ok(());
        }
        let work = self.work;
        let compressed_bytes = self.compress()?;
        let tag_bytes = if work.sealer.is_some() { TAG_BYTES } else { 0 };
        let header = BlockHeader {
            number: work.next_block.fetch_add(1, Ordering::Relaxed),
            database: self.database,
            entries: self.entries,
            raw_bytes: self.raw.len() as u64,
            stored_bytes: (compressed_bytes + tag_bytes) as u64,
        };
        let block_bytes = BLOCK_HEADER_BYTES + compressed_bytes + tag_bytes;
        let block = self.stored.get_mut(..block_bytes).unwrap_or_default();
        let crc = finish_block(block, &header, work.sealer.as_ref());
        let offset = work.next_offset.fetch_add(block_bytes as u64, Ordering::Relaxed);
        work.file.write_at(block, offset).map_err(SnapshotError::io(&work.params.path_tmp))?;
        let entry = IndexEntry { offset, header, crc };
        self.blocks.push(entry);
        if offset / SYNC_EVERY_BYTES != entry.end() / SYNC_EVERY_BYTES {
            // The syncer is gone only when a sync failed, which its own result tells.
            let _ = self.written.send(());
        }
        work.counters.add(u64::from(self.entries), header.raw_bytes, block_bytes as u64);
        self.raw.clear();
        self.entries = 0;
        if self.raw.capacity() > KEPT_BUFFER_BYTES {
            self.raw.shrink_to(BLOCK_RAW_BYTES);
            self.stored = Vec::new();
        }
        Ok(())
    }

    /// Compresses the open block to its place in `stored`, leaving room for header and tag; gives the length.
    fn compress(&mut self) -> Result<usize, SnapshotError> {
        let bound = zstd::zstd_safe::compress_bound(self.raw.len());
        let needed = BLOCK_HEADER_BYTES + bound + TAG_BYTES;
        if self.stored.len() < needed {
            self.stored.resize(needed, 0);
        }
        let room = self.stored.get_mut(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + bound).unwrap_or_default();
        let length =
            self.compressor.compress_to_buffer(&self.raw, room).map_err(SnapshotError::NoResources)?;
        self.choose_level(length).map_err(SnapshotError::NoResources)?;
        Ok(length)
    }

    /// Sets the level of the next block by what came of this one.
    fn choose_level(&mut self, compressed_bytes: usize) -> io::Result<()> {
        let stated = self.work.params.level;
        if stated <= LEVEL_HURRIED {
            return Ok(());
        }
        if self.hurried > 0 {
            self.hurried -= 1;
            if self.hurried == 0 {
                self.compressor.set_compression_level(stated)?;
            }
        } else if compressed_bytes > self.raw.len() - self.raw.len() / 8 {
            self.hurried = HURRIED_BLOCKS;
            self.compressor.set_compression_level(LEVEL_HURRIED)?;
        }
        Ok(())
    }
}

/// Seals what stands after the header and puts tag and header in place; gives the CRC.
fn finish_block(block: &mut [u8], header: &BlockHeader, sealer: Option<&Sealer>) -> u32 {
    let (header_place, stored) = block.split_at_mut(BLOCK_HEADER_BYTES);
    if let Some(sealer) = sealer
        && let Some((compressed, tag_place)) = stored.split_last_chunk_mut::<TAG_BYTES>()
    {
        *tag_place = sealer.seal_in_place(header.number, false, &header.clear(), compressed);
    }
    let crc = header.crc(stored);
    header_place.copy_from_slice(&header.encode(crc));
    crc
}

/// Starts a thread of the scope with a stack of a stated size.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, SnapshotError> {
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn_scoped(scope, work)
        .map_err(SnapshotError::NoResources)
}

fn join<T>(
    thread: ScopedJoinHandle<'_, Result<T, SnapshotError>>,
    params: &WriteParams,
) -> Result<T, SnapshotError> {
    thread.join().unwrap_or_else(|payload| Err(SnapshotError::panicked(&params.path_tmp, &*payload)))
}
