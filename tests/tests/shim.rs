//! The shim itself: a power cut keeps what was synced, and nothing else; a full disk refuses what would need room.
//! A crash test is worth what its crash is worth, so each rule is tried with a program of a few lines.

use cairn_tests::programs::{self, Tool};
use cairn_tests::shim::Shim;
use std::fs;
use std::path::PathBuf;

struct Trial {
    _home: tempfile::TempDir,
    data: PathBuf,
    shim: Shim,
}

impl Trial {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let data = home.path().join("data");
        let shim = Shim::new(&data);
        Self { _home: home, data, shim }
    }

    /// Runs `program` (Python, which calls the C library as a server does) and cuts the power when it has ended.
    fn run(&self, env: Vec<(&'static str, String)>, program: &str) {
        let prelude = "
import os, mmap, sys
from os import *
chdir(environ['CAIRN_SHIM_DIR'])
W = O_RDWR | O_CREAT
here = os.open('.', O_RDONLY)
def new(name, data=b''):
    fd = os.open(name, W, 0o600)
    assert write(fd, data) == len(data)
    return fd
";
        // Not a wrapper that starts the interpreter: the shim leaves what its program starts alone.
        let python = programs::repository().join(".deps/venv/bin/python");
        Tool::new(python).arg("-c").arg(format!("{prelude}{program}")).env(env).run().expect(0);
    }

    fn cut(&self, program: &str) {
        self.run(self.shim.power_cut(0, 1), program);
        self.shim.cut();
    }

    #[track_caller]
    fn holds(&self, name: &str, expected: Option<&[u8]>) {
        let found = fs::read(self.data.join(name)).ok();
        let show = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| bytes.escape_ascii().take(80).map(char::from).collect::<String>())
        };
        assert!(
            found.as_deref() == expected,
            "{name} is {:?} instead of {:?}",
            show(found.as_deref()),
            show(expected)
        );
    }
}

#[test]
fn only_what_was_synced_is_left() {
    let trial = Trial::new();
    trial.cut(
        "
a = new('a', b'synced'); fsync(a); fsync(here)
pwrite(a, b'LOST', 0); assert pread(a, 9, 0) == b'LOSTed'
b = new('b', b'x' * 5000); fdatasync(b); fsync(here); pwrite(b, b'y' * 100, 1000); fdatasync(b); pwrite(b, b'z' * 100, 2000)
c = new('c', b'its name was never synced'); fsync(c)
",
    );
    trial.holds("a", Some(b"synced"));
    let mut b = vec![b'x'; 5_000];
    b[1_000..1_100].fill(b'y');
    trial.holds("b", Some(&b));
    trial.holds("c", None);
    // The next start goes on from there.
    trial.cut("a = os.open('a', O_RDWR); assert read(a, 9) == b'synced'; ftruncate(a, 3); fsync(a); ftruncate(a, 1)");
    trial.holds("a", Some(b"syn"));
}

#[test]
fn names_come_and_go_with_the_directorys_sync() {
    let trial = Trial::new();
    trial.cut(
        "
for name in ('keep', 'remove', 'old'):
    close_me = new(name, name.encode()); fsync(close_me); close(close_me)
fsync(here)
t = new('new.tmp', b'new'); fsync(t); rename('new.tmp', 'old')
unlink('remove')
empty = new('empty', b'never synced')
",
    );
    trial.holds("old", Some(b"old"));
    trial.holds("remove", Some(b"remove"));
    trial.holds("new.tmp", None);
    trial.cut(
        "
t = new('new.tmp', b'new'); fsync(t); rename('new.tmp', 'old'); unlink('remove')
empty = new('empty', b'never synced'); fsync(here)
# The number of a removed file is often given to the next one.
unlink('keep'); again = new('again', b'content'); fsync(again)
",
    );
    trial.holds("old", Some(b"new"));
    trial.holds("remove", None);
    trial.holds("empty", Some(b""));
    trial.holds("keep", Some(b"keep"));
    trial.holds("again", None);
}

#[test]
fn preallocation_shrinking_and_maps_are_seen() {
    let trial = Trial::new();
    trial.cut(
        "
p = new('p'); posix_fallocate(p, 0, 8192); fsync(p); fsync(here)
pwrite(p, b'frame', 4096); fdatasync(p); pwritev(p, [b'lost', b'too'], 6000)
assert mmap.mmap(p, 8192, prot=mmap.PROT_READ)[6000:6007] == b'losttoo'
s = new('s', b'0123456789'); fsync(s); ftruncate(s, 4); ftruncate(s, 8); fsync(s); fsync(here)
d = os.open('d', W | O_DSYNC, 0o600); write(d, b'at once'); fsync(here); write(d, b', again')
",
    );
    let mut p = vec![0; 8_192];
    p[4_096..4_101].copy_from_slice(b"frame");
    trial.holds("p", Some(&p));
    trial.holds("s", Some(b"0123\0\0\0\0"));
    trial.holds("d", Some(b"at once, again"));
}

/// A snapshot is written by a forked child; whoever syncs it, it counts.
#[test]
fn a_forked_child_shares_what_is_unsynced() {
    let trial = Trial::new();
    trial.cut(
        "
parent = new('parent', b'by the parent'); child = new('child')
if fork() == 0:
    write(child, b'by the child'); fsync(parent); _exit(0)
wait(); fsync(child); fsync(here)
",
    );
    trial.holds("parent", Some(b"by the parent"));
    trial.holds("child", Some(b"by the child"));
}

#[test]
fn ignored_syncs_lose_everything_after() {
    let trial = Trial::new();
    trial.shim.mark("ignore-sync");
    trial.cut("a = new('a', b'x'); fsync(a); fsync(here)");
    trial.holds("a", None);
    trial.shim.unmark("ignore-sync");
    trial.cut("a = new('a', b'x'); fsync(a); fsync(here)");
    trial.holds("a", Some(b"x"));
}

/// With early writeback some of the blocks arrive, in whole blocks of 512 bytes.
#[test]
fn early_writeback_tears_by_blocks() {
    let trial = Trial::new();
    trial.run(
        trial.shim.power_cut(50, 9),
        "a = new('a', bytes(64 * 512)); fsync(a); fsync(here); pwrite(a, b'x' * (64 * 512), 0)",
    );
    trial.shim.cut();
    let found = fs::read(trial.data.join("a")).expect("the name was synced");
    let arrived = found.chunks(512).filter(|block| block.iter().all(|byte| *byte == b'x')).count();
    let absent = found.chunks(512).filter(|block| block.iter().all(|byte| *byte == 0)).count();
    assert_eq!(arrived + absent, 64);
    assert!(arrived > 8 && absent > 8, "{arrived} blocks arrived, {absent} did not");
}

#[test]
fn a_full_disk_refuses_growth_and_gives_room_back() {
    let trial = Trial::new();
    trial.run(
        trial.shim.full_disk(Some(10_000)),
        "
import errno
def full(call):
    try:
        call()
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return True
a = new('a', b'x' * 6000)
b = new('b'); assert write(b, b'y' * 6000) == 4000 and full(lambda: write(b, b'y'))
assert full(lambda: posix_fallocate(a, 0, 20000))
assert pwrite(a, b'z' * 6000, 0) == 6000
unlink('b'); assert write(a, b'x' * 3000) == 3000
mark = environ['CAIRN_SHIM_CONTROL'] + '/disk-full'
close(os.open(mark, W, 0o600)); assert full(lambda: write(a, b'x')) and pwrite(a, b'ok', 0) == 2
unlink(mark); assert write(a, b'x') == 1
mkdir('below'); c = new('below/c'); assert write(c, b'y' * 3000) == 999 and full(lambda: write(c, b'y'))
",
    );
}
