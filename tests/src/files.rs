//! Directories as values: copied, compared, searched and spoiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Every regular file below `directory`, sorted.
pub fn all(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let entry = entry.expect("a directory entry can be read");
            let kind = entry.file_type().expect("an entry has a type");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The files of a data directory that hold data: neither the lock nor a temporary file, which a start removes.
pub fn data(directory: &Path) -> Vec<PathBuf> {
    let is_data = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name != "lock" && !name.ends_with(".tmp")
    };
    all(directory).into_iter().filter(is_data).collect()
}

/// The number in the name of a segment or snapshot.
pub fn lsn(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digits = name.split(['-', '.']).nth(1).unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{name} has no LSN"))
}

/// The journal segments that hold effects after the newest snapshot, in order: all that recovery cannot do without.
pub fn needed_segments(directory: &Path) -> Vec<PathBuf> {
    let from = named(directory, "snapshot-").last().map_or(0, |path| lsn(path));
    let segments = named(directory, "journal-");
    let end = |at: usize| segments.get(at + 1).map_or(u64::MAX, |next| lsn(next));
    (0..segments.len())
        .filter(|at| end(*at) > from.max(lsn(&segments[*at])))
        .map(|at| segments[at].clone())
        .collect()
}

/// The data files directly in `directory` whose name starts with `prefix`, sorted by name.
pub fn named(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let starts =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    data(directory).into_iter().filter(|path| path.parent() == Some(directory) && starts(path)).collect()
}

/// Copies the tree `from` to the directory `to`. Pages of zeros become holes: journal segments are mostly preallocated.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for path in all(from) {
        let target = to.join(path.strip_prefix(from).expect("a file of the tree"));
        fs::create_dir_all(target.parent().expect("a file has a directory"))
            .expect("a directory can be made");
        let bytes = read(&path);
        let file = fs::File::create(&target).unwrap_or_else(|error| panic!("{}: {error}", target.display()));
        for (page, data) in bytes.chunks(ZEROS.len()).enumerate().filter(|(_, data)| !is_zero(data)) {
            file.write_all_at(data, (page * ZEROS.len()) as u64).expect("the copy can be written");
        }
        file.set_len(bytes.len() as u64).expect("the copy can be resized");
    }
}

/// The files that differ between two [`contents`], named for a message.
pub fn changed(before: &Contents, after: &Contents) -> Vec<String> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differs = |path: &&&PathBuf| before.get(**path) != after.get(**path);
    let shown = |path: &PathBuf| match (before.get(path), after.get(path)) {
        (None, _) => format!("{} is new", path.display()),
        (_, None) => format!("{} is gone", path.display()),
        _ => format!("{} has other bytes", path.display()),
    };
    names.iter().filter(differs).map(|path| shown(path)).collect()
}

static ZEROS: [u8; 4_096] = [0; 4_096];

fn is_zero(data: &[u8]) -> bool {
    *data == ZEROS[..data.len()]
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What [`contents`] gives: for each file its length and its bytes up to the last that is not zero.
pub type Contents = BTreeMap<PathBuf, (usize, Vec<u8>)>;

/// Names, lengths and contents of the data files: what a refused start must leave as it was.
pub fn contents(directory: &Path) -> Contents {
    data(directory)
        .into_iter()
        .map(|path| {
            let mut bytes = read(&path);
            let length = bytes.len();
            // The zeros at the end are told by the length.
            bytes.truncate(written(&bytes));
            bytes.shrink_to_fit();
            (path, (length, bytes))
        })
        .collect()
}

/// Turns all bits of the byte at `offset`; done twice, the file is as it was.
pub fn flip(path: &Path, offset: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("the file can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).expect("the byte can be read");
    file.write_all_at(&[!byte[0]], offset as u64).expect("the byte can be written");
}

/// The length without the zeros at the end: a preallocated file is mostly those.
pub fn written_length(path: &Path) -> usize {
    written(&read(path))
}

fn written(bytes: &[u8]) -> usize {
    let pages = bytes.chunks(ZEROS.len()).rposition(|page| !is_zero(page)).map_or(0, |last| last + 1);
    let end = bytes.len().min(pages * ZEROS.len());
    bytes[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
