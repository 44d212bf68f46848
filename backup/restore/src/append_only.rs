//! Append-only directories of Redis 7: a manifest, a base (`.rdb`, or commands) and files of commands that follow it
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/>).

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use cairn_engine::{Dataset, Entry, Piece, Replayer, Usage};
use cairn_jobs::{JobError, Phase};
use cairn_resp::{Args, Limits, Parsed, Parser, split_args};

use crate::error::RestoreError;
use crate::source::{Left, Reading, Records, open, read_rdb};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The folder that Redis keeps its files in, in its working directory.
const FOLDER: &str = "appendonlydir";

/// The files of an append-only directory, in the order they are read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AppendOnly {
    files: Vec<PathBuf>,
}

/// The append-only directory at `dir`, or below it; none where there is no manifest of one.
pub(crate) fn find(dir: &Path) -> Result<Option<AppendOnly>, RestoreError> {
    for dir in [dir.to_owned(), dir.join(FOLDER)] {
        if !dir.is_dir() {
            continue;
        }
        let io = |source| JobError::Io { path: dir.clone(), operation: "list", source };
        let mut manifests = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|ending| ending == "manifest") {
                manifests.push(path);
            }
        }
        match &manifests[..] {
            [] => {}
            [manifest] => return AppendOnly::of_manifest(&dir, manifest).map(Some),
            _ => {
                let why = "it holds several manifests of append-only files; give a directory with one";
                return Err(RestoreError::AppendOnly { path: dir, why: why.to_owned() });
            }
        }
    }
    Ok(None)
}

impl AppendOnly {
    fn of_manifest(dir: &Path, path: &Path) -> Result<Self, RestoreError> {
        let io = |source| JobError::Io { path: path.to_owned(), operation: "read", source };
        let text = fs::read(path).map_err(io)?;
        let failed = |why: String| RestoreError::AppendOnly { path: path.to_owned(), why };
        let (mut base, mut incremental) = (None, Vec::new());
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (name, sequence, kind) =
                parse(line).ok_or_else(|| failed(format!("line {} is no line of a manifest", number + 1)))?;
            match kind {
                b'b' if base.is_some() => return Err(failed("it names two bases".to_owned())),
                b'b' => base = Some(dir.join(name)),
                b'i' => incremental.push((sequence, dir.join(name))),
                // What an earlier rewrite left behind.
                _ => {}
            }
        }
        if !incremental.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(failed("its files are not in order".to_owned()));
        }
        let incremental = incremental.into_iter().map(|(_, path)| path);
        let files: Vec<_> = base.into_iter().chain(incremental).collect();
        if files.is_empty() {
            return Err(failed("it names no file".to_owned()));
        }
        Ok(Self { files })
    }

    /// Reads the files into memory: the base, and the commands that follow it.
    pub(crate) fn read(&self, reading: &Reading) -> Result<(Dataset, Left), RestoreError> {
        let mut lengths = Vec::new();
        for path in &self.files {
            let io = |source| JobError::Io { path: path.clone(), operation: "read", source };
            lengths.push(fs::metadata(path).map_err(io)?.len());
        }
        reading.progress.begin(Phase::Import, lengths.iter().sum());
        let (dataset, mut left) = (Dataset::new(reading.databases), Left::default());
        for (index, path) in self.files.iter().enumerate() {
            let mut file = open(path)?;
            let mut head = [0; 5];
            let io = |source| JobError::Io { path: path.clone(), operation: "read", source };
            let is_rdb = file.read(&mut head).map_err(io)? == head.len() && head == *b"REDIS";
            file.rewind().map_err(io)?;
            if is_rdb {
                let place = path.display().to_string();
                read_rdb(file, &place, reading, &mut left, &mut Into { dataset: &dataset, reading })?;
                continue;
            }
            let commands = Commands { path, reading, is_last: index + 1 == self.files.len() };
            left.torn_bytes = dataset.replay(|replayer| commands.replay(file, replayer))?;
        }
        reading.progress.end();
        Ok((dataset, left))
    }
}

/// A line of a manifest: words in pairs, of which the first of each says what the second is.
fn parse(line: &[u8]) -> Option<(PathBuf, u64, u8)> {
    let words = split_args(line).ok()?;
    let (mut name, mut sequence, mut kind) = (None, None, None);
    for pair in words.chunks(2) {
        let [what, value] = pair else { return None };
        let value = std::str::from_utf8(value).ok()?;
        match what.as_slice() {
            // A name beside the manifest, never a path.
            b"file" => name = Some(value).filter(|name| !name.contains('/') && *name != ".."),
            b"seq" => sequence = value.parse().ok(),
            b"type" => kind = value.bytes().next().filter(|kind| value.len() == 1 && b"bih".contains(kind)),
            // Others that a newer server may write.
            _ => {}
        }
    }
    Some((PathBuf::from(name?), sequence?, kind?))
}

/// Puts what a base in `.rdb` form holds into memory.
struct Into<'a> {
    dataset: &'a Dataset,
    reading: &'a Reading,
}

impl Records for Into<'_> {
    fn entry(
        &mut self,
        place: &str,
        database: u16,
        entry: Entry,
        usage: Option<Usage>,
    ) -> Result<(), RestoreError> {
        if database >= self.reading.databases {
            let why = too_many(usize::from(database));
            return Err(RestoreError::AppendOnly { path: place.into(), why });
        }
        if self.dataset.insert(database, entry, usage) {
            return Ok(());
        }
        Err(RestoreError::Duplicate { place: place.to_owned(), database })
    }

    fn library(&mut self, place: &str, source: &[u8]) -> Result<(), RestoreError> {
        let added = self.dataset.add_library(source);
        added.map_err(|why| RestoreError::Library { place: place.to_owned(), why })
    }
}

fn too_many(database: usize) -> String {
    format!("it uses database {database}; say with --databases how many its server had")
}

/// A file of commands.
struct Commands<'a> {
    path: &'a Path,
    reading: &'a Reading,
    is_last: bool,
}

/// How far a file of commands was read.
#[derive(Default)]
struct Place {
    /// What was read and not parsed yet, and where in the file it begins.
    buffer: Vec<u8>,
    offset: u64,
    /// Commands of a transaction that has not ended, and where it began; commands that can be replayed otherwise.
    held: Vec<u8>,
    transaction_from: Option<u64>,
    /// The database selected, and the one selected where `held` begins.
    database: u16,
    held_database: u16,
    piece: Piece,
}

impl Commands<'_> {
    /// Replays the file; how many bytes at its end belong to no whole command.
    fn replay(&self, mut file: fs::File, replayer: &mut Replayer<'_>) -> Result<u64, RestoreError> {
        let (mut place, mut parser, mut args) = (Place::default(), new_parser(), Args::new());
        loop {
            let length = place.buffer.len();
            let io = |source| JobError::Io { path: self.path.to_owned(), operation: "read", source };
            // As much again as there is of a long command, so that it is not moved time after time.
            let more = CHUNK_BYTES.max(length) as u64;
            file.by_ref().take(more).read_to_end(&mut place.buffer).map_err(io)?;
            if place.buffer.len() == length {
                break;
            }
            self.reading.progress.advance((place.buffer.len() - length) as u64);
            self.parse(&mut place, &mut parser, &mut args, replayer)?;
        }
        self.feed(&mut place, replayer)?;
        self.ended(replayer.finish())?;
        self.end(&place)
    }

    /// Takes all whole commands out of the buffer.
    fn parse(
        &self,
        place: &mut Place,
        parser: &mut Parser,
        args: &mut Args,
        replayer: &mut Replayer<'_>,
    ) -> Result<(), RestoreError> {
        let mut buffer = std::mem::take(&mut place.buffer);
        let mut rest = &buffer[..];
        while let Some(first) = rest.first() {
            let consumed = match first {
                b'#' => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
                    // Positions of what follows count from here again.
                    if place.transaction_from.is_none() {
                        self.feed(place, replayer)?;
                    }
                    end + 1
                }
                b'*' => match parser.parse(rest, args) {
                    Ok(Parsed::Request { consumed }) => {
                        let words = args.slices(rest);
                        self.command(place, &words, rest.get(..consumed).unwrap_or_default(), replayer)?;
                        consumed
                    }
                    Ok(Parsed::Incomplete { .. }) => break,
                    Err(error) => return Err(self.damaged(place.offset, error.to_string())),
                },
                other => {
                    let why = format!("a command begins with '*', not with {:?}", char::from(*other));
                    return Err(self.damaged(place.offset, why));
                }
            };
            place.offset += consumed as u64;
            rest = rest.get(consumed..).unwrap_or_default();
        }
        let parsed = buffer.len() - rest.len();
        buffer.drain(..parsed);
        place.buffer = buffer;
        Ok(())
    }

    /// Takes one command; it is replayed at once, or with the transaction it is part of.
    fn command(
        &self,
        place: &mut Place,
        words: &[&[u8]],
        bytes: &[u8],
        replayer: &mut Replayer<'_>,
    ) -> Result<(), RestoreError> {
        let is = |name: &str| words.first().is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()));
        if place.held.is_empty() {
            place.held_database = place.database;
        }
        place.held.extend_from_slice(bytes);
        if is("select") {
            let number = words.get(1).and_then(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok());
            let number =
                number.ok_or_else(|| self.damaged(place.offset, "SELECT of no number".to_owned()))?;
            let database = u16::try_from(number).ok().filter(|number| *number < self.reading.databases);
            place.database = database.ok_or_else(|| RestoreError::AppendOnly {
                path: self.path.to_owned(),
                why: too_many(number),
            })?;
        } else if is("multi") {
            place.transaction_from = Some(place.offset);
        } else if is("exec") {
            place.transaction_from = None;
        }
        if place.transaction_from.is_none() {
            let first = (place.offset + bytes.len() as u64).saturating_sub(place.held.len() as u64);
            place.piece.push(&place.held, first, place.held_database);
            place.held.clear();
            if place.piece.is_full() {
                self.feed(place, replayer)?;
            }
        }
        Ok(())
    }

    fn feed(&self, place: &mut Place, replayer: &mut Replayer<'_>) -> Result<(), RestoreError> {
        let piece = std::mem::take(&mut place.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.ended(replayer.feed(piece))
    }

    fn ended(&self, replayed: Result<(), cairn_engine::ReplayError>) -> Result<(), RestoreError> {
        replayed.map_err(|error| self.damaged(error.position, error.why))
    }

    /// Says what is to be thought of what is left at the end.
    fn end(&self, place: &Place) -> Result<u64, RestoreError> {
        let (offset, within) = match place.transaction_from {
            Some(from) => (from, "transaction"),
            None => (place.offset, "command"),
        };
        let bytes = place.offset + place.buffer.len() as u64 - offset;
        if bytes == 0 {
            return Ok(0);
        }
        let path = self.path.to_owned();
        match (self.is_last, self.reading.load_truncated) {
            (true, true) => {
                tracing::warn!(file = %path.display(), offset, bytes, "the file ends within a {within}, which is left out");
                Ok(bytes)
            }
            (true, false) => Err(RestoreError::Torn { path, offset, bytes, within }),
            // Only the last file can have been written to when the server died.
            (false, _) => {
                Err(self.damaged(offset, format!("it ends within a {within} and is not the last file")))
            }
        }
    }

    fn damaged(&self, offset: u64, why: String) -> RestoreError {
        RestoreError::Commands { path: self.path.to_owned(), offset, why }
    }
}

fn new_parser() -> Parser {
    // What was accepted from a client, whatever its server's limits were, was accepted.
    let mut parser = Parser::new(Limits::default());
    parser.set_authenticated(true);
    parser.set_max_bulk(1 << 40);
    parser
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Result<Vec<String>, RestoreError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FOLDER)).unwrap();
        fs::write(dir.path().join(FOLDER).join("appendonly.aof.manifest"), text).unwrap();
        let found = find(dir.path())?.expect("a manifest");
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(found.files.iter().map(name).collect())
    }

    #[test]
    fn a_manifest_names_files_in_their_order() {
        let text = "# comment\nfile a.1.base.rdb seq 1 type b\nfile a.0.incr.aof seq 1 type h\n\
                    file a.1.incr.aof seq 1 type i\nseq 2 type i file \"a b.aof\" startoffset 7\r\n";
        assert_eq!(manifest(text).unwrap(), ["a.1.base.rdb", "a.1.incr.aof", "a b.aof"]);
        assert!(find(tempfile::tempdir().unwrap().path()).unwrap().is_none());
        for bad in [
            "",
            "file a seq 1",
            "file a seq x type i",
            "file a seq 1 type z",
            "file ../a seq 1 type b",
            "file a seq 1 type b\nfile b seq 2 type b",
            "file a seq 2 type i\nfile b seq 1 type i",
            "file a seq 1 type b odd",
        ] {
            assert_eq!(manifest(bad).unwrap_err().exit_code(), 13, "{bad:?}");
        }
    }
}
