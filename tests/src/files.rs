//! Directories as values: copied, compared, searched and spoiled.

use std::collections::BTreeMap;
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

/// The files of a data directory that hold data: all but the lock.
pub fn data(directory: &Path) -> Vec<PathBuf> {
    all(directory).into_iter().filter(|path| path.file_name().is_some_and(|name| name != "lock")).collect()
}

/// The files directly in `directory` whose name starts with `prefix`, sorted by name.
pub fn named(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let starts =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    all(directory).into_iter().filter(|path| path.parent() == Some(directory) && starts(path)).collect()
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

static ZEROS: [u8; 4_096] = [0; 4_096];

fn is_zero(data: &[u8]) -> bool {
    *data == ZEROS[..data.len()]
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names, lengths and contents of the data files: what a refused start must leave as it was.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, (usize, Vec<u8>)> {
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
