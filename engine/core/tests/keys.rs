//! Master keys over a disk in memory: the power goes at every single call that changes it, and whatever was acknowledged is
//! there afterwards, under keys that are there.

use std::path::Path;
use std::sync::Arc;

use cairn_disk::{Disk, FaultyDisk, Survival};
use cairn_engine::{
    Embedded, Engine, Fsync, JobDone, KeyError, OpenError, Options, Outcome, Protocol, Reply, check,
};
use cairn_seal::Keyring;

const DIR: &str = "/data";
const SECRET: &[u8] = b"a value that nobody shall read";

fn options(disk: &FaultyDisk, keyring: Option<&Keyring>) -> Options {
    let mut options = Options::new(DIR);
    options.disk = Arc::new(disk.clone());
    options.fsync = Fsync::Always;
    options.segment_bytes = 128 << 10;
    options.keyring = keyring.cloned().map(Arc::new);
    options.threads = 1;
    options
}

/// Runs a request and waits until its reply may be sent.
fn ask(engine: &Engine, args: &[&[u8]]) -> String {
    let (mut session, mut out) = (engine.session(), Vec::new());
    loop {
        let outcome =
            engine.execute(&mut session, &Embedded, args, &mut Reply::new(&mut out, Protocol::Resp2));
        match outcome {
            Outcome::Done { hold } | Outcome::Close { hold } => {
                engine.block_until_durable(hold).expect("durable");
                break;
            }
            Outcome::Wait(wait) => wait.block(),
            Outcome::Blocking(job) => {
                let done = engine.run_job(&job, &Embedded, &mut Reply::new(&mut out, Protocol::Resp2));
                assert_eq!(done, JobDone::Replied);
                break;
            }
            Outcome::Contended | Outcome::Blocked(_) => unreachable!("nobody else is here"),
        }
    }
    String::from_utf8(out).expect("replies are text")
}

/// A directory with a snapshot, a segment behind it and one that is being written.
fn filled(keyring: Option<&Keyring>) -> (FaultyDisk, Engine) {
    let disk = FaultyDisk::new();
    let engine = Engine::open(options(&disk, keyring)).expect("an empty directory");
    assert_eq!(ask(&engine, &[b"SET", b"first", SECRET]), "+OK\r\n");
    // A forked child has memory of its own, and a disk in it: this writes a snapshot without one.
    assert_eq!(ask(&engine, &[b"DEBUG", b"RELOAD"]), "+OK\r\n");
    assert_eq!(ask(&engine, &[b"SET", b"second", SECRET]), "+OK\r\n");
    engine.shutdown(Some(false)).expect("shutdown");
    drop(engine);
    let engine = Engine::open(options(&disk, keyring)).expect("what was written");
    assert_eq!(ask(&engine, &[b"SET", b"third", SECRET]), "+OK\r\n");
    (disk, engine)
}

fn digest(disk: &FaultyDisk, keyring: Option<&Keyring>) -> Result<String, OpenError> {
    check(&options(disk, keyring), true).map(|checked| checked.digest.expect("a digest"))
}

fn newest_alone(keyring: &Keyring) -> Keyring {
    let text = keyring.encode();
    Keyring::parse(text.lines().last().expect("a key").as_bytes()).expect("a keyring")
}

fn survivals() -> impl Iterator<Item = Survival> {
    (0..3).map(Survival::Sectors).chain([Survival::Nothing, Survival::Everything])
}

/// Files that show the secret.
fn legible(disk: &FaultyDisk) -> Vec<String> {
    let shows = |name: &String| {
        let map = disk.map(&Path::new(DIR).join(name)).expect("a file");
        map.bytes().windows(SECRET.len()).any(|bytes| bytes == SECRET)
    };
    disk.list(Path::new(DIR))
        .expect("a directory")
        .into_iter()
        .map(|entry| entry.name)
        .filter(shows)
        .collect()
}

#[test]
fn a_new_key_takes_effect_and_older_files_come_under_it_wherever_the_power_goes() {
    let old = Keyring::generate().expect("a keyring");
    let both = old.rotated().expect("a new key");
    let mut finished = false;
    for operations in 0..400 {
        let (disk, engine) = filled(Some(&old));
        let expected = digest(&disk.crash(Survival::Everything), Some(&old)).expect("whole");
        disk.power_off_after(operations);
        let done = engine.set_keyring(both.clone()).and_then(|()| engine.rewrap());
        for survival in survivals() {
            let image = disk.crash(survival);
            let found = digest(&image, Some(&both));
            let found = found.unwrap_or_else(|error| panic!("{operations} {survival:?}: {error}"));
            assert_eq!(found, expected, "{operations} {survival:?}");
            if done.is_ok() {
                let alone = digest(&image, Some(&newest_alone(&both)));
                assert_eq!(alone.expect("the new key is enough"), expected, "{operations} {survival:?}");
                let refused = digest(&image, Some(&old)).expect_err("no file is under the old key");
                assert_eq!(refused.exit_code(), 12);
            }
        }
        if done.is_ok() {
            finished = true;
            break;
        }
        // The next start goes on where this one was ended.
        let image = disk.crash(Survival::Sectors(operations));
        drop(engine);
        let engine = Engine::open(options(&image, Some(&both))).expect("the next start");
        engine.rewrap().expect("all of it");
        drop(engine);
        assert_eq!(digest(&image, Some(&newest_alone(&both))).expect("the new key is enough"), expected);
    }
    assert!(finished, "it never got through");
}

#[test]
fn encryption_is_switched_on_and_leaves_nothing_legible_wherever_the_power_goes() {
    let keyring = Keyring::generate().expect("a keyring");
    let mut finished = false;
    for operations in 0..400 {
        let (disk, engine) = filled(None);
        let expected = digest(&disk.crash(Survival::Everything), None).expect("whole");
        assert!(!legible(&disk).is_empty(), "the search finds what is there");
        disk.power_off_after(operations);
        let done = engine.set_keyring(keyring.clone()).is_ok();
        let done = done && ask(&engine, &[b"DEBUG", b"RELOAD"]) == "+OK\r\n";
        let done = done && engine.files_in_clear() == 0;
        for survival in survivals() {
            let image = disk.crash(survival);
            let found = digest(&image, Some(&keyring));
            let found = found.unwrap_or_else(|error| panic!("{operations} {survival:?}: {error}"));
            assert_eq!(found, expected, "{operations} {survival:?}");
            if done {
                assert_eq!(digest(&image, None).expect_err("it is sealed").exit_code(), 12);
            }
        }
        if done {
            // What is not named any more and could not be removed goes with the next start.
            let image = disk.crash(Survival::Everything);
            drop(Engine::open(options(&image, Some(&keyring))).expect("the next start"));
            assert_eq!(legible(&image), Vec::<String>::new());
            assert!(check(&options(&image, Some(&keyring)), false).is_ok_and(|checked| checked.encrypted));
            finished = true;
            break;
        }
    }
    assert!(finished, "it never got through");
}

/// A segment or snapshot that was begun in clear, and is named only after the switch, keeps the manifest in clear.
#[test]
fn what_was_begun_in_clear_never_passes_for_sealed() {
    let (disk, engine) = filled(None);
    let keyring = Keyring::generate().expect("a keyring");
    engine.set_keyring(keyring.clone()).expect("switched on");
    assert!(engine.position().expect("it is loaded").is_encrypted);
    assert!(engine.files_in_clear() > 0);
    assert_eq!(ask(&engine, &[b"SET", b"fourth", SECRET]), "+OK\r\n");
    let found = check(&options(&disk.crash(Survival::Everything), Some(&keyring)), false).expect("whole");
    assert!(!found.encrypted, "a sealed manifest says that everything is");
    assert_eq!(ask(&engine, &[b"DEBUG", b"RELOAD"]), "+OK\r\n");
    assert_eq!(engine.files_in_clear(), 0);
    let keys = engine.keys().expect("headers");
    assert_eq!(keys.len(), 1);
    assert!(keys[0].active && keys[0].files >= 3, "{keys:?}");
}

#[test]
fn a_keyring_that_lacks_a_key_still_needed_is_refused_with_file_and_key() {
    let old = Keyring::generate().expect("a keyring");
    let both = old.rotated().expect("a new key");
    let (disk, engine) = filled(Some(&old));
    let other = Keyring::generate().expect("a keyring");
    let refused = engine.set_keyring(other).expect_err("what is written is under the old key");
    assert!(matches!(&refused, KeyError::Needed { key, .. } if key == old.active().name()), "{refused}");
    engine.set_keyring(both.clone()).expect("both");
    let refused = engine.set_keyring(newest_alone(&both)).expect_err("files are under the old key");
    let text = refused.to_string();
    let KeyError::Needed { path, key } = refused else { panic!("{text}") };
    assert!(path.starts_with(DIR) && path != Path::new(DIR), "{text}");
    assert!(key == old.active().name() && text.contains("CAIRN KEY REWRAP"), "{text}");
    assert_eq!(ask(&engine, &[b"SET", b"goes", b"on"]), "+OK\r\n");
    engine.rewrap().expect("all of it");
    engine.set_keyring(newest_alone(&both)).expect("nobody needs the old one");
    assert_eq!(ask(&engine, &[b"SET", b"goes", b"on still"]), "+OK\r\n");
    drop(engine);
    assert!(digest(&disk, Some(&newest_alone(&both))).is_ok());
}

#[test]
fn a_file_that_cannot_be_rewrapped_is_named_and_the_others_are() {
    let old = Keyring::generate().expect("a keyring");
    let both = old.rotated().expect("a new key");
    let (disk, engine) = filled(Some(&old));
    engine.set_keyring(both.clone()).expect("both");
    let snapshot = disk.list(Path::new(DIR)).expect("a directory").into_iter().map(|entry| entry.name);
    let snapshot = snapshot.into_iter().find(|name| name.ends_with(".cairn")).expect("a snapshot");
    let path = Path::new(DIR).join(&snapshot);
    disk.damage(&path, |bytes| bytes[20] ^= 1);
    let refused = engine.rewrap().expect_err("its header is damaged").to_string();
    assert!(refused.contains(&snapshot), "{refused}");
    disk.damage(&path, |bytes| bytes[20] ^= 1);
    let files = |name: &str| {
        let keys = engine.keys().expect("headers");
        keys.into_iter().find(|key| key.name == name).expect("the key").files
    };
    assert_eq!(files(old.active().name()), 1, "the others are under the new key");
    engine.rewrap().expect("all of it");
    assert_eq!(files(old.active().name()), 0);
}
