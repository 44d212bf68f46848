//! Point 6: what cannot be right is refused, with the code and the words that tell why; nothing starts empty, nothing is
//! overwritten. A flipped byte may be served only if every acknowledged write is served with it. The program is shown some of
//! them here; every byte is turned over in the engine's own tests (`engine/core/src/simulation/bytes.rs`).

use cairn_tests::counts;
use cairn_tests::files;
use cairn_tests::programs::{self, Tool};
use cairn_tests::random::{self, Random};
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use cairn_tests::shim::Shim;
use cairn_tests::workload;
use std::path::{Path, PathBuf};
use std::time::Duration;

const WRONG_KEY: i32 = 12;
const DAMAGED: i32 = 13;

/// A data directory with a snapshot and several journal segments, its server killed, and the digest of all that was
/// acknowledged. Tests work on copies.
struct Whole {
    home: tempfile::TempDir,
    keyring: PathBuf,
    digest: String,
    copies: std::cell::Cell<usize>,
}

impl Whole {
    fn build() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let keyring = home.path().join("keyring");
        programs::generate_keyring(&keyring);
        let setup = Setup::cairn(&home.path().join("whole")).journal("always").key(&keyring);
        let parts: Vec<_> = workload::dataset(21, 1_200).chunks(400).map(<[_]>::to_vec).collect();
        let mut digest = String::new();
        for (part, commands) in parts.iter().enumerate() {
            // Each start begins a segment; the first part also lies in a snapshot.
            let server = setup.start();
            server.connect().pipeline(commands).expect("the dataset is taken");
            if part == 0 {
                server.bgsave();
                server.connect().ask("SET after:snapshot 1");
            }
            digest = server.digest();
            server.kill();
        }
        Self { home, keyring, digest, copies: std::cell::Cell::new(0) }
    }

    /// A fresh copy with its setup.
    fn copy(&self) -> Setup {
        self.copies.set(self.copies.get() + 1);
        let to = self.home.path().join(format!("copy-{}", self.copies.get()));
        files::copy(&self.home.path().join("whole"), &to);
        Setup::cairn(&to).journal("always").key(&self.keyring)
    }

    fn discard(setup: &Setup) {
        std::fs::remove_dir_all(setup.dir()).expect("a copy can be removed");
    }
}

#[track_caller]
fn unchanged(setup: &Setup, before: &files::Contents) {
    let changed = files::changed(before, &files::contents(setup.dir()));
    assert!(changed.is_empty(), "a refused start changed the directory: {changed:?}");
}

/// Starts on a spoiled directory: it must be refused with `code` and `words` and leave every file as it was.
#[track_caller]
fn refused(setup: &Setup, code: i32, words: &[&str]) {
    let before = files::contents(setup.dir());
    match setup.try_start() {
        Ok(server) => panic!("served instead of refusing:\n{}", server.log()),
        Err(refusal) => refusal.expect(code, words),
    }
    unchanged(setup, &before);
}

/// Starts on a spoiled directory: refused as damaged with the file's name, or served whole. True when it was refused.
#[track_caller]
fn refused_or_whole(whole: &Whole, setup: &Setup, what: &str, file: &str) -> bool {
    let before = files::contents(setup.dir());
    match setup.try_start() {
        Ok(server) => {
            assert_eq!(server.digest(), whole.digest, "{what}: served, but not every acknowledged write");
            server.kill();
            false
        }
        Err(refusal) => {
            assert_eq!(refusal.code, DAMAGED, "{what}:\n{}", refusal.log);
            assert!(refusal.log.contains(file), "{what}: the message names no {file}:\n{}", refusal.log);
            unchanged(setup, &before);
            true
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file has a name").to_string_lossy().into_owned()
}

#[test]
fn the_untouched_copy_starts() {
    let whole = Whole::build();
    let setup = whole.copy();
    assert_eq!(setup.start().digest(), whole.digest);
    assert!(files::named(setup.dir(), "journal-").len() >= 2, "the directory has several segments");
}

#[test]
fn a_wrong_or_missing_key_is_refused() {
    let whole = Whole::build();
    let other = whole.home.path().join("other-keyring");
    programs::generate_keyring(&other);
    let setup = whole.copy();
    refused(&setup.clone().key(&other), WRONG_KEY, &["key"]);
    refused(&setup.clone().without("encryption-key-file"), WRONG_KEY, &["encrypt"]);
    let absent = whole.home.path().join("no-such-keyring");
    let refusal =
        setup.clone().key(&absent).try_start().expect_err("a keyring that is not there cannot be used");
    assert!(refusal.code != 0 && refusal.log.contains("no-such-keyring"), "{refusal:?}");
    // With the right key nothing has been lost by the attempts.
    assert_eq!(setup.start().digest(), whole.digest);
}

/// Offsets worth a flip: the edges of the header's pages, the last bytes written, and random ones between.
fn offsets(path: &Path, random: &mut Random, count: usize) -> Vec<usize> {
    let length = std::fs::metadata(path).expect("the file is there").len() as usize;
    let written = files::written_length(path);
    let mut offsets =
        vec![0, 8, 12, 13, 29, 4_095, 4_096, 4_110, 8_191, 8_192, 8_210, 12_287, 12_288, 12_300];
    offsets.extend((1..=64).step_by(9).map(|back| written.saturating_sub(back)));
    offsets.extend([written, length.saturating_sub(1)]);
    offsets.extend((0..count).map(|_| random.below(written.max(1))));
    offsets.retain(|offset| *offset < length);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

#[test]
fn a_flipped_byte_is_refused_or_harmless() {
    let whole = Whole::build();
    let mut random = Random::new(random::seed("a_flipped_byte_is_refused_or_harmless"));
    let paths: Vec<_> = files::data(&whole.home.path().join("whole")).iter().map(|path| name(path)).collect();
    assert!(paths.len() >= 4, "manifest, snapshot and segments: {paths:?}");
    let mut noticed = Vec::new();
    for file in &paths {
        let offsets = offsets(&whole.home.path().join("whole").join(file), &mut random, counts::of(6, 50));
        let mut refusals = 0;
        let mut setup = whole.copy();
        for offset in &offsets {
            files::flip(&setup.dir().join(file), *offset);
            if refused_or_whole(&whole, &setup, &format!("{file} flipped at {offset}"), file) {
                refusals += 1;
                // A refused start changes nothing, so turning the byte back makes the copy whole again.
                files::flip(&setup.dir().join(file), *offset);
            } else {
                Whole::discard(&setup);
                setup = whole.copy();
            }
        }
        Whole::discard(&setup);
        println!("{file}: {} flips, {refusals} refused, the others harmless", offsets.len());
        noticed.extend((refusals > 0).then_some(file.clone()));
    }
    // A segment that the snapshot has made superfluous may change as it likes; the others may not.
    let origin = whole.home.path().join("whole");
    let mut needed = files::needed_segments(&origin);
    assert!(needed.len() >= 3, "one segment a start: {needed:?}");
    needed.extend(files::named(&origin, "snapshot-").pop());
    needed.extend(files::named(&origin, "manifest"));
    for path in needed {
        assert!(noticed.contains(&name(&path)), "no flip in {} is noticed", path.display());
    }
}

/// The last durable frame: its bytes are below D once an empty frame has followed it, so a flip there is damage and not a
/// torn tail to be cut off.
#[test]
fn the_last_durable_frame_is_not_cut_off() {
    let whole = Whole::build();
    let setup = whole.copy();
    let server = setup.start();
    let mut client = server.connect();
    // Two acknowledged writes: when the second is acknowledged, a frame on disk says that the first is durable.
    assert_eq!(client.ask("SET last:one 1"), Value::ok());
    assert_eq!(client.ask("SET last:two 2"), Value::ok());
    let digest = server.digest();
    server.kill();
    let newest = files::named(setup.dir(), "journal-").pop().expect("there is a segment");
    let written = files::written_length(&newest);
    let base = whole.home.path().join("base");
    files::copy(setup.dir(), &base);
    let step = counts::of(97, 31);
    for offset in (12_288..written).rev().step_by(step).take(counts::of(24, 200)) {
        let copy = whole.home.path().join("last");
        files::copy(&base, &copy);
        files::flip(&copy.join(name(&newest)), offset);
        let setup = Setup::cairn(&copy).journal("always").key(&whole.keyring);
        match setup.try_start() {
            Ok(server) => {
                assert_eq!(
                    server.digest(),
                    digest,
                    "a flip at {offset} of {written} loses an acknowledged write"
                );
                server.kill();
            }
            Err(refusal) => refusal.expect(DAMAGED, &[&name(&newest), "offset"]),
        }
        std::fs::remove_dir_all(&copy).expect("a copy can be removed");
    }
}

#[test]
fn a_deleted_file_is_refused() {
    let whole = Whole::build();
    let origin = whole.home.path().join("whole");
    let mut refusals = 0;
    for path in files::data(&origin) {
        let setup = whole.copy();
        std::fs::remove_file(setup.dir().join(name(&path))).expect("a file can be removed");
        // A segment that was only preallocated holds nothing and may go; all else is missed.
        refusals += usize::from(refused_or_whole(&whole, &setup, &format!("{} deleted", name(&path)), ""));
        Whole::discard(&setup);
    }
    for prefix in ["snapshot-", "manifest"] {
        let path = files::named(&origin, prefix).pop().expect("it is there");
        let setup = whole.copy();
        std::fs::remove_file(setup.dir().join(name(&path))).expect("a file can be removed");
        refused(&setup, DAMAGED, &[&name(&path)]);
    }
    assert!(refusals >= 3, "only {refusals} deletions were noticed");
    // Each of these holds acknowledged writes.
    for path in &files::needed_segments(&origin) {
        let setup = whole.copy();
        std::fs::remove_file(setup.dir().join(name(path))).expect("a file can be removed");
        refused(&setup, DAMAGED, &["journal"]);
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = Whole::build();
    let origin = whole.home.path().join("whole");
    let snapshot = files::named(&origin, "snapshot-").pop().expect("there is a snapshot");
    let length = std::fs::metadata(&snapshot).expect("it is there").len();
    for keep in [0, 100, 4_096, 12_288, length / 2, length - 4_096, length - 1] {
        let setup = whole.copy();
        let path = setup.dir().join(name(&snapshot));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("it can be opened");
        file.set_len(keep.min(length - 1)).expect("it can be cut");
        refused(&setup, DAMAGED, &[&name(&snapshot)]);
        // The tools say the same of the same file.
        Tool::restore()
            .option("--from", &path)
            .option("--dir", whole.home.path().join("never"))
            .option("--encryption-key-file", &whole.keyring)
            .run()
            .expect(DAMAGED);
        assert!(files::data(&whole.home.path().join("never")).is_empty(), "a damaged file was restored");
        Whole::discard(&setup);
    }
    // A segment cut short loses what was acknowledged, so it is no tail.
    for path in &files::needed_segments(&origin) {
        let setup = whole.copy();
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(setup.dir().join(name(path)))
            .expect("it can be opened");
        file.set_len(12_288 + 512).expect("it can be cut");
        refused_or_whole(&whole, &setup, &format!("{} cut", name(path)), &name(path));
    }
}

/// A data directory that lost everything but one file is no empty one.
#[test]
fn nothing_starts_empty_where_something_was() {
    let whole = Whole::build();
    let origin = whole.home.path().join("whole");
    for path in files::data(&origin) {
        let setup = Setup::cairn(&whole.home.path().join("rest")).journal("always").key(&whole.keyring);
        std::fs::create_dir_all(setup.dir()).expect("a directory can be made");
        std::fs::copy(&path, setup.dir().join(name(&path))).expect("a file can be copied");
        match setup.try_start() {
            Ok(server) => {
                panic!("with only {} left it serves {:?} keys", name(&path), server.connect().ask("DBSIZE"))
            }
            Err(refusal) => refusal.expect(DAMAGED, &[]),
        }
        Whole::discard(&setup);
    }
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let setup = Setup::cairn(&home.path().join("data")).journal("always");
    let _first = setup.start();
    let refusal = setup.try_start().expect_err("the directory is in use");
    refusal.expect(11, &["lock"]);
}

fn repository(whole: &Whole, server: Option<&Server>, setup: &Setup) -> (String, PathBuf) {
    let path = whole.home.path().join("repository");
    let url = format!("file://{}", path.display());
    let mut create = Tool::backup().option("--repo", &url).arg("create").option("--dir", setup.dir());
    if let Some(server) = server {
        create = create.option("--server", server.address().to_string());
    }
    create.option("--encryption-key-file", &whole.keyring).run().expect(0);
    (url, path)
}

#[test]
fn a_spoiled_repository_is_refused() {
    let whole = Whole::build();
    let setup = whole.copy();
    let server = setup.start();
    let (url, path) = repository(&whole, Some(&server), &setup);
    server.kill();
    let verify =
        Tool::backup().option("--repo", &url).arg("verify").option("--encryption-key-file", &whole.keyring);
    let to = whole.home.path().join("restored");
    let restore = Tool::restore().option("--repo", &url).option("--dir", &to);
    let right = restore.clone().option("--encryption-key-file", &whole.keyring);
    verify.run().expect(0);

    let other = whole.home.path().join("other-keyring");
    programs::generate_keyring(&other);
    restore.clone().option("--encryption-key-file", &other).run().expect(WRONG_KEY).saying(&["key"]);
    restore.run().expect(WRONG_KEY).saying(&["key"]);
    assert!(files::data(&to).is_empty(), "nothing is restored with a wrong key");

    let mut random = Random::new(random::seed("a_spoiled_repository_is_refused"));
    for object in files::all(&path) {
        let original = std::fs::read(&object).expect("an object can be read");
        let shown = object.strip_prefix(&path).expect("an object of the repository").display().to_string();
        for _ in 0..counts::of(4, 100) {
            let offset = random.below(original.len().max(1));
            let mut spoiled = original.clone();
            spoiled[offset] ^= 0xff;
            std::fs::write(&object, &spoiled).expect("an object can be spoiled");
            let done = right.run();
            if done.code == 0 {
                let server = Setup::cairn(&to).journal("always").key(&whole.keyring).start();
                assert_eq!(
                    server.digest(),
                    whole.digest,
                    "{shown} flipped at {offset}: restored something else"
                );
                server.kill();
                std::fs::remove_dir_all(&to).expect("the target can be removed");
            } else {
                assert_eq!(done.code, DAMAGED, "{shown} flipped at {offset}:\n{}", done.output());
                assert!(files::data(&to).is_empty(), "{shown} flipped at {offset}: something was restored");
                verify.run().expect(DAMAGED);
            }
        }
        std::fs::write(&object, original.split_at(original.len() / 2).0).expect("an object can be cut");
        right.run().expect(DAMAGED);
        std::fs::remove_file(&object).expect("an object can be removed");
        let done = right.run();
        assert_ne!(done.code, 0, "{shown} removed, and the restore went well");
        assert!(files::data(&to).is_empty(), "{shown} removed: something was restored");
        std::fs::write(&object, &original).expect("the object can be put back");
    }
    right.run().expect(0);
    assert_eq!(Setup::cairn(&to).journal("always").key(&whole.keyring).start().digest(), whole.digest);
}

#[test]
fn a_restore_never_overwrites_data() {
    let whole = Whole::build();
    let setup = whole.copy();
    let (url, _) = repository(&whole, Some(&setup.start()), &setup);
    let target = whole.copy();
    let before = files::contents(target.dir());
    let restore = Tool::restore().option("--repo", &url).option("--dir", target.dir());
    let done = restore.option("--encryption-key-file", &whole.keyring).run().expect(1).saying(&["--force"]);
    assert!(
        files::contents(target.dir()) == before,
        "a refused restore changed the target:\n{}",
        done.output()
    );
}

/// The target's disk fills while a restore writes.
#[test]
fn a_full_target_is_an_error() {
    let whole = Whole::build();
    let setup = whole.copy();
    let (url, path) = repository(&whole, Some(&setup.start()), &setup);
    let target = whole.home.path().join("full").join("data");
    let shim = Shim::new(target.parent().expect("a parent"));
    for bytes in [0, 8_192, 20_000] {
        let restore = Tool::restore().option("--repo", &url).option("--dir", &target);
        let restore =
            restore.option("--encryption-key-file", &whole.keyring).env(shim.full_disk(Some(bytes)));
        restore.run().expect(1).saying(&["space"]);
        let named = files::named(&target, "manifest");
        assert!(named.is_empty(), "after {bytes} bytes the target names a restore that failed");
    }
    // The same for the repository's own disk.
    std::fs::remove_dir_all(&path).expect("the repository can be removed");
    let shim = Shim::new(&path);
    let create = Tool::backup().option("--repo", &url).arg("create").option("--dir", setup.dir());
    let create = create.option("--encryption-key-file", &whole.keyring);
    create.clone().env(shim.full_disk(Some(10_000))).run().expect(1).saying(&["space"]);
    let list = Tool::backup().option("--repo", &url).arg("list").arg("--json").run();
    assert!(
        list.code == 10 || !list.stdout.contains("\"id\""),
        "a backup that failed is listed: {}",
        list.stdout
    );
    create.run().expect(0);
}

/// The data disk fills under a running server: writes are refused before they are applied, reads go on, and when there is
/// space again writes do too. Nothing acknowledged is lost, nothing refused appears.
#[test]
fn a_full_data_disk_refuses_writes_and_recovers() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let setup = Setup::cairn(&data).journal("always");
    let server = setup.clone().env(shim.full_disk(None)).start();
    let mut client = server.connect();
    assert_eq!(client.ask("SET first 1"), Value::ok());
    shim.mark("disk-full");
    let value = vec![b'v'; 1 << 20];
    let (mut stored, mut refusal) = (0, None);
    // What is preallocated still takes writes; the limit is far above any segment.
    for n in 0..4_096 {
        match client.args(&[&b"SET"[..], format!("fill:{n}").as_bytes(), &value]) {
            Value::Error(text) => {
                refusal = Some((n, String::from_utf8_lossy(&text).into_owned()));
                break;
            }
            reply => assert_eq!(reply, Value::ok()),
        }
        stored += 1;
    }
    let (refused, text) = refusal.expect("a full disk refuses writes in the end");
    println!("after {stored} MiB: {text}");
    let lower = text.to_lowercase();
    assert!(
        lower.contains("space") || lower.contains("disk") || lower.contains("full"),
        "the error tells why: {text}"
    );
    assert_eq!(
        client.args(&[&b"GET"[..], format!("fill:{refused}").as_bytes()]),
        Value::Null,
        "a refused write was applied"
    );
    assert_eq!(client.ask("GET first").text(), "1", "reads go on");
    assert_eq!(client.ask("PING").text(), "PONG");
    // A snapshot has no room either; it says so and harms nothing.
    client.ask("BGSAVE");
    assert_eq!(client.ask("EXISTS first").integer(), 1);

    shim.unmark("disk-full");
    let again = cairn_tests::process::await_some(Duration::from_secs(60), || {
        (client.args(&[&b"SET"[..], b"again", b"1"]) == Value::ok()).then_some(())
    });
    assert!(again.is_some(), "writes go on when there is space again:\n{}", server.log());
    let digest = server.digest();
    server.kill();
    let server = setup.start();
    assert_eq!(server.digest(), digest);
    assert_eq!(server.connect().ask("DBSIZE").integer(), stored + 2);
}

/// As in Redis, a snapshot that save points ask for and that fails stops writes, until one is written or it is told not to.
#[test]
fn a_failed_snapshot_stops_writes() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let setup = Setup::cairn(&data).journal("always").with("save", "3600 1000");
    let server = setup.env(shim.full_disk(None)).start();
    let mut client = server.connect();
    assert_eq!(client.ask("SET first 1"), Value::ok());
    shim.mark("disk-full");
    client.ask("BGSAVE");
    let status = || server.info("rdb_last_bgsave_status").filter(|status| status == "err");
    assert!(cairn_tests::process::await_some(Duration::from_secs(60), status).is_some(), "{}", server.log());
    let Value::Error(refused) = client.ask("SET second 2") else { panic!("the write was taken") };
    let refused = String::from_utf8_lossy(&refused);
    assert!(refused.starts_with("MISCONF the last snapshot could not be written"), "{refused}");
    assert_eq!(client.ask("MULTI"), Value::ok());
    client.ask("SET second 2");
    let exec = client.ask("EXEC");
    assert!(
        matches!(&exec, Value::Error(text) if text.starts_with(b"EXECABORT")),
        "{exec:?} is no way around it"
    );
    assert_eq!(client.ask("EXISTS second").integer(), 0);
    assert_eq!(client.ask("CONFIG SET stop-writes-on-bgsave-error no"), Value::ok());
    assert_eq!(client.ask("SET second 2"), Value::ok());
    assert_eq!(client.ask("CONFIG SET stop-writes-on-bgsave-error yes"), Value::ok());
    shim.unmark("disk-full");
    server.bgsave();
    assert_eq!(client.ask("SET third 3"), Value::ok());
}

/// A disk that is full from the start is no reason to start without a journal.
#[test]
fn a_disk_full_from_the_start_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let shim = Shim::new(&data);
    let setup = Setup::cairn(&data).journal("always").env(shim.full_disk(Some(1_000)));
    match setup.try_start() {
        Err(refusal) => refusal.expect(1, &["space"]),
        Ok(server) => {
            let reply = server.connect().ask("SET a b");
            assert!(reply.is_error(), "a write was acknowledged with {reply:?} on a full disk");
        }
    }
    // With space the same directory starts.
    let server = Setup::cairn(&data).journal("always").start();
    assert_eq!(server.connect().ask("SET a b"), Value::ok());
}

/// A wrong call is told apart from a failure, by code 2.
#[test]
fn wrong_calls_are_usage_errors() {
    Tool::backup().arg("list").run().expect(2);
    Tool::backup().arg("no-such-verb").run().expect(2);
    Tool::restore().run().expect(2);
    Tool::restore().option("--repo", "ftp://nowhere/x").option("--dir", "/nonexistent/x").run().expect(2);
    Tool::new(programs::cairn("cairn-server"))
        .option("--no-such-directive", "1")
        .run()
        .expect(2)
        .saying(&["no-such-directive"]);
    Tool::new(programs::cairn("cairn-server")).option("--port", "many").run().expect(2).saying(&["port"]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let keyring = home.path().join("keyring");
    programs::generate_keyring(&keyring);
    let before = std::fs::read(&keyring).expect("the keyring can be read");
    let again = Tool::backup().arg("key").arg("generate").option("--out", &keyring).run();
    assert_ne!(again.code, 0, "a keyring was overwritten");
    assert_eq!(std::fs::read(&keyring).expect("it is still there"), before);
}
