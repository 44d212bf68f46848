//! Every byte of every file: turned over one at a time, or the first that is gone. Each is refused and explained, or changes
//! nothing of what was acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_disk::{Disk, FaultyDisk, Survival};

use super::script::{DIR, Keys, Script, options};
use super::time::Time;
use crate::check::{Checked, check};
use crate::error::OpenError;

/// A data directory that a server left when it was killed, and what is in it.
struct Whole {
    disk: FaultyDisk,
    keys: Keys,
    digest: String,
    /// Its files with their lengths, and how much of each is not zeros that nobody has written to yet.
    files: Vec<(PathBuf, usize, usize)>,
}

impl Whole {
    fn build() -> Whole {
        let (time, _own_time) = Time::begin();
        let keys = Keys::draw();
        let mut script = Script::new(FaultyDisk::new(), time, &keys);
        let engine = script.run().expect("nothing fails");
        let disk = script.disk.crash(Survival::Everything);
        drop(engine);
        let (found, files) = (look(&disk, &keys).expect("it is whole"), files(&disk));
        Whole { digest: found.digest.expect("it was asked for"), disk, files, keys }
    }

    /// A disk of one's own to spoil.
    fn copy(&self) -> FaultyDisk {
        self.disk.crash(Survival::Everything)
    }

    /// Whether what was spoiled is refused; it may be served only whole.
    fn is_refused(&self, disk: &FaultyDisk, path: &Path, what: &dyn Fn() -> String) -> bool {
        match look(disk, &self.keys) {
            Ok(found) => {
                assert_eq!(found.digest.as_ref(), Some(&self.digest), "{}: served otherwise", what());
                false
            }
            Err(error) => {
                let (text, name) =
                    (error.to_string(), path.file_name().unwrap_or_default().to_string_lossy());
                assert!(
                    matches!(error.exit_code(), 12 | 13),
                    "{}: exit {}: {text}",
                    what(),
                    error.exit_code()
                );
                assert!(text.contains(&*name), "{}: does not name the file: {text}", what());
                assert!(text.contains("offset"), "{}: does not say where: {text}", what());
                true
            }
        }
    }
}

fn look(disk: &FaultyDisk, keys: &Keys) -> Result<Checked, OpenError> {
    check(&options(disk, Some(&keys.rotated), None), true)
}

fn files(disk: &FaultyDisk) -> Vec<(PathBuf, usize, usize)> {
    let entries = disk.list(Path::new(DIR)).expect("it can be listed");
    let named = entries.into_iter().filter(|entry| entry.len > 0);
    named
        .map(|entry| {
            let path = Path::new(DIR).join(entry.name);
            let map = disk.map(&path).expect("it can be read");
            let written = map.bytes().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (path, map.bytes().len(), written)
        })
        .collect()
}

/// Places in a file worth trying: all where something is written, and of the zeros behind every so many; all of those too
/// where it is to be proven.
fn places(length: usize, written: usize) -> Vec<usize> {
    const WRITTEN_STEP: usize = 13;
    const ZEROS_STEP: usize = 509;
    if super::is_to_be_proven() {
        return (0..length).collect();
    }
    // Of what is long, the beginning of each page and the ends are looked at closely.
    let close = |at: usize| at < 320 || at % 4_096 < 96 || written.saturating_sub(at) <= 96;
    let in_written = (0..written).filter(|at| written < 1_024 || close(*at) || at % WRITTEN_STEP == 0);
    in_written.chain((written..length).step_by(ZEROS_STEP)).chain(length.checked_sub(1)).collect()
}

/// Spoils a disk at a place of a file; what it gives undoes that.
type Spoil<'a> = &'a (dyn Fn(&FaultyDisk, &Path, usize) -> Box<dyn FnOnce(&FaultyDisk)> + Sync);

/// Tries all places of all files on all cores. Gives for each file how many were tried and how many refused.
fn try_all(whole: &Whole, what: &str, spoil: Spoil<'_>) -> Vec<(usize, usize)> {
    let mut counts = Vec::new();
    for (path, length, written) in &whole.files {
        let places = places(*length, *written);
        let (next, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            let disk = whole.copy();
            while let Some(at) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                let undo = spoil(&disk, path, *at);
                let what = || format!("{} {what} {at}", path.display());
                refused.fetch_add(usize::from(whole.is_refused(&disk, path, &what)), Ordering::Relaxed);
                undo(&disk);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let refused = refused.into_inner();
        println!(
            "{} {what}: {} places, {refused} refused, the others harmless",
            path.display(),
            places.len()
        );
        counts.push((places.len(), refused));
    }
    counts
}

#[test]
fn every_flipped_byte_is_refused_or_harmless() {
    let whole = Whole::build();
    let counts = try_all(&whole, "flipped at", &|disk, path, at| {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 0x40;
        let path = path.to_owned();
        disk.damage(&path, flip);
        Box::new(move |disk| disk.damage(&path, |bytes| bytes[at] ^= 0x40))
    });
    for ((path, _, written), (places, refused)) in whole.files.iter().zip(counts) {
        // What has no name yet is not needed.
        let is_needed = !path.to_string_lossy().ends_with(".tmp");
        assert!(
            !is_needed || refused > places.min(*written) / 2,
            "hardly a flip in {} is noticed",
            path.display()
        );
    }
}

#[test]
fn every_cut_is_refused_or_harmless() {
    let whole = Whole::build();
    try_all(&whole, "cut at", &|disk, path, at| {
        let (path, mut rest) = (path.to_owned(), Vec::new());
        disk.damage(&path, |bytes| rest = bytes.split_off(at));
        Box::new(move |disk| disk.damage(&path, |bytes| bytes.extend_from_slice(&rest)))
    });
}
