//! Master keys, as a person has to do with them: a new one while clients write, older files brought under it, a key removed too
//! early, encryption switched on, a repository that opens with the new key alone.

use cairn_tests::files;
use cairn_tests::process::await_some;
use cairn_tests::programs::{self, Done, Tool};
use cairn_tests::resp::Value;
use cairn_tests::server::{Server, Setup};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const SECRET: &str = "a-value-that-nobody-shall-read";

fn rotate(keyring: &Path) -> Done {
    Tool::backup().arg("key").arg("rotate").option("--encryption-key-file", keyring).run().expect(0)
}

fn rewrap(keyring: &Path, option: &str, value: impl AsRef<std::ffi::OsStr>) -> Tool {
    Tool::backup().option(option, value).option("--encryption-key-file", keyring).arg("rewrap").arg("--json")
}

/// The lines of a keyring that are keys.
fn lines(keyring: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(keyring).expect("the keyring");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// A keyring of one of another's keys, by its place.
fn keyring_of(home: &Path, keyring: &Path, place: usize) -> PathBuf {
    let path = home.join(format!("only-{place}"));
    std::fs::write(&path, &lines(keyring)[place]).expect("a keyring");
    path
}

fn name(keyring: &Path, place: usize) -> String {
    lines(keyring)[place].split(' ').next().expect("a name").to_owned()
}

/// A reply that is a map, flat or not, by name.
fn map(reply: Value) -> BTreeMap<String, String> {
    let items = reply.items();
    let text = |value: &Value| match value {
        Value::Integer(number) => number.to_string(),
        other => other.clone().text(),
    };
    items.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// How many files each key is needed for, by name.
fn uses(server: &Server) -> BTreeMap<String, i64> {
    let list = server.connect().ask("CAIRN KEY LIST");
    assert!(!list.is_error(), "{list:?}");
    let keys = list.items().into_iter().map(map);
    keys.map(|key| (key["name"].clone(), key["files"].parse().expect("a number"))).collect()
}

/// What is refused, in its words.
#[track_caller]
fn refused(server: &Server, command: &str) -> String {
    match server.connect().ask(command) {
        Value::Error(text) => String::from_utf8(text).expect("errors are text"),
        other => panic!("{command} should be refused, not answered with {other:?}"),
    }
}

fn await_rewrapped(server: &Server) {
    assert_eq!(server.connect().ask("CAIRN KEY REWRAP"), Value::Simple(b"Rewrapping started".to_vec()));
    let ended = await_some(LIMIT, || match server.info("cairn_key_rewrap").as_deref() {
        Some("running") => None,
        other => other.map(str::to_owned),
    });
    assert_eq!(ended.as_deref(), Some("done"), "{}", server.log());
}

fn fill(server: &Server) {
    let mut client = server.connect();
    for n in 0..200 {
        assert_eq!(client.ask(&format!("SET key:{n} {SECRET}")), Value::ok());
    }
    server.bgsave();
    for n in 0..200 {
        assert_eq!(
            client.ask(&format!("APPEND key:{n} {n}")).integer(),
            (SECRET.len() + n.to_string().len()) as i64
        );
    }
}

#[test]
fn a_new_key_takes_over_while_clients_write() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (dir, keyring) = (home.path().join("data"), home.path().join("keyring"));
    programs::generate_keyring(&keyring);
    let setup = Setup::cairn(&dir).journal("always").key(&keyring);
    let server = setup.start();
    fill(&server);
    let told = rotate(&keyring).saying(&["CAIRN KEY RELOAD", "CAIRN KEY REWRAP", "rewrap", "copy"]);
    let (old, new) = (name(&keyring, 0), name(&keyring, 1));
    assert!(told.stdout.contains(&new));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&keyring).expect("the keyring").permissions().mode() & 0o777, 0o600);

    // Clients go on all the while.
    let address = server.address();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut client = cairn_tests::resp::Client::connect(address).expect("a connection");
        let mut written = 0_i64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert_eq!(client.ask("INCR counter").integer(), written + 1);
            written += 1;
        }
        written
    });
    // Who may do that is said as of any other command.
    for category in ["admin", "dangerous"] {
        let commands = server.connect().ask(&format!("ACL CAT {category}")).items();
        assert!(commands.contains(&Value::bulk("cairn|key")), "{category}");
    }
    assert_eq!(server.connect().ask("COMMAND DOCS cairn").items()[0], Value::bulk("cairn"));
    assert!(refused(&server, "CAIRN KEY DROP").contains("REWRAP"));
    assert_eq!(server.connect().ask("CAIRN KEY RELOAD"), Value::ok());
    let before = uses(&server);
    assert!(before[&old] >= 2 && before[&new] >= 2, "manifest and the segment being written: {before:?}");
    await_rewrapped(&server);
    let after = uses(&server);
    assert_eq!(after[&old], 0, "{after:?}");
    let status = map(server.connect().ask("CAIRN KEY STATUS"));
    let shown = |field: &str| status[field].as_str();
    assert_eq!((shown("encryption"), shown("active"), shown("rewrap")), ("on", new.as_str(), "done"));
    assert_eq!((shown("files-under-older-keys"), shown("last-error")), ("0", ""));
    assert_eq!(shown("files-done"), shown("files-total"));
    server.bgsave();
    stop.send(()).expect("the writer runs");
    let written = writer.join().expect("no write failed");
    let digest = server.digest();
    server.kill();
    // Nobody needs the old key any more.
    let alone = setup.clone().key(&keyring_of(home.path(), &keyring, 1));
    let server = alone.start();
    assert_eq!(server.digest(), digest);
    assert_eq!(server.connect().ask("GET counter").text(), written.to_string());
    server.stop();
    let refused =
        setup.key(&keyring_of(home.path(), &keyring, 0)).try_start().expect_err("the old key alone");
    refused.expect(12, &[&new, "manifest"]);
}

#[test]
fn a_key_that_is_removed_too_early_is_named_with_a_file_that_needs_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (dir, keyring) = (home.path().join("data"), home.path().join("keyring"));
    programs::generate_keyring(&keyring);
    let setup = Setup::cairn(&dir).journal("always").key(&keyring);
    let server = setup.start();
    fill(&server);
    let whole = std::fs::read(&keyring).expect("the keyring");
    rotate(&keyring);
    let both = std::fs::read(&keyring).expect("the keyring");
    let (old, new) = (name(&keyring, 0), name(&keyring, 1));
    let only_new = lines(&keyring)[1].clone();
    assert_eq!(server.connect().ask("CAIRN KEY RELOAD"), Value::ok());
    // Live: refused, and everything goes on.
    std::fs::write(&keyring, &only_new).expect("the keyring");
    let told = refused(&server, "CAIRN KEY RELOAD");
    assert!(told.contains(&old) && told.contains("snapshot-"), "{told}");
    std::fs::write(&keyring, &whole).expect("the keyring");
    let told = refused(&server, "CAIRN KEY RELOAD");
    assert!(told.contains(&new) && told.contains("stays in force"), "{told}");
    std::fs::write(&keyring, "no keyring").expect("the keyring");
    let told = refused(&server, "CAIRN KEY RELOAD");
    assert!(told.contains("keyring") && told.contains("line 1"), "{told}");
    let set = refused(&server, "CONFIG SET encryption-key-file ''");
    assert!(set.contains("cannot be switched off"), "{set}");
    let set = refused(&server, "CONFIG SET encryption-key-command true");
    assert!(set.contains("immutable"), "clients must not have commands run: {set}");
    assert_eq!(server.connect().ask("SET still here"), Value::ok());
    let digest = server.digest();
    server.stop();
    // At a start: the file and the key.
    std::fs::write(&keyring, &only_new).expect("the keyring");
    setup
        .try_start()
        .expect_err("files are under the old key")
        .expect(12, &[&old, "snapshot-", "put the line"]);
    std::fs::write(&keyring, &both).expect("the keyring");
    let server = setup.start();
    assert_eq!(server.digest(), digest);
    server.stop();
}

#[test]
fn a_directory_at_rest_is_rewrapped_and_one_in_use_is_not() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (dir, keyring) = (home.path().join("data"), home.path().join("keyring"));
    programs::generate_keyring(&keyring);
    let setup = Setup::cairn(&dir).journal("always").key(&keyring);
    let server = setup.start();
    fill(&server);
    rotate(&keyring);
    rewrap(&keyring, "--dir", &dir).run().expect(11).saying(&["CAIRN KEY REWRAP", "stop it"]);
    let digest = server.digest();
    server.stop();
    let before = files::contents(&dir);
    let shown = rewrap(&keyring, "--dir", &dir).arg("--dry-run").run().expect(0).json();
    let files = shown["files"].as_u64().expect("a number");
    assert!(files >= 3 && shown["rewrapped"] == files, "{shown}");
    assert!(files::changed(&before, &files::contents(&dir)).is_empty(), "a dry run changes nothing");
    let lone = keyring_of(home.path(), &keyring, 1);
    rewrap(&lone, "--dir", &dir).run().expect(12).saying(&[&name(&keyring, 0), "manifest"]);
    let done = rewrap(&keyring, "--dir", &dir).run().expect(0).json();
    assert_eq!((done["rewrapped"].as_u64(), done["key"].as_str()), (Some(files), Some(&*name(&keyring, 1))));
    assert_eq!(
        rewrap(&keyring, "--dir", &dir).run().expect(0).json()["rewrapped"],
        0,
        "nothing is left to do"
    );
    let server = setup.key(&lone).start();
    assert_eq!(server.digest(), digest);
    server.stop();
    rewrap(&keyring, "--dir", home.path().join("nothing")).run().expect(1).saying(&["no manifest"]);
}

/// Whether any file of a directory shows the secret.
fn is_legible(dir: &Path) -> bool {
    let shows = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    };
    files::all(dir).into_iter().any(shows)
}

fn await_no_file_in_clear(server: &Server) {
    let ended =
        await_some(LIMIT, || (server.info("cairn_files_in_clear").as_deref() == Some("0")).then_some(()));
    assert!(ended.is_some(), "{}", server.log());
}

#[test]
fn encryption_is_switched_on_while_the_server_runs() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (dir, keyring) = (home.path().join("data"), home.path().join("keyring"));
    programs::generate_keyring(&keyring);
    let plain = Setup::cairn(&dir).journal("always");
    let sealed = plain.clone().key(&keyring);
    let switch = format!("CONFIG SET encryption-key-file {}", keyring.display());
    for is_killed in [true, false] {
        let server = plain.start();
        fill(&server);
        assert!(is_legible(&dir), "the search finds what is there");
        let off = map(server.connect().ask("CAIRN KEY STATUS"));
        assert_eq!(off["encryption"], "off");
        assert!(refused(&server, "CAIRN KEY REWRAP").contains("encryption is off"));
        let absent = refused(&server, "CONFIG SET encryption-key-file /nowhere/keyring");
        assert!(absent.contains("/nowhere/keyring"), "{absent}");
        // A snapshot that was begun in clear is named after the switch, and must not pass for a sealed one.
        assert_eq!(server.connect().ask("CONFIG SET rdb-key-save-delay 5000"), Value::ok());
        assert!(!server.connect().ask("BGSAVE").is_error());
        assert_eq!(server.connect().ask(&switch), Value::ok());
        assert_eq!(server.info("rdb_bgsave_in_progress").as_deref(), Some("1"), "it is long enough");
        assert_eq!(server.connect().ask("CONFIG SET rdb-key-save-delay 0"), Value::ok());
        assert_eq!(server.connect().ask("SET written after"), Value::ok());
        let digest = server.digest();
        let server = if is_killed {
            // Wherever that is: the next start, which has the key, ends it.
            server.kill();
            sealed.start()
        } else {
            server
        };
        await_no_file_in_clear(&server);
        assert_eq!(map(server.connect().ask("CAIRN KEY STATUS"))["encryption"], "on");
        assert_eq!(server.digest(), digest);
        server.stop();
        assert!(!is_legible(&dir), "nothing in clear stays");
        plain.try_start().expect_err("the key is needed from now on").expect(12, &["key"]);
        let server = sealed.start();
        assert_eq!(server.digest(), digest);
        server.stop();
        std::fs::remove_dir_all(&dir).expect("the directory can be removed");
    }
}

#[test]
fn a_repository_opens_with_the_new_key_alone_and_no_object_is_written_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (dir, keyring) = (home.path().join("data"), home.path().join("keyring"));
    programs::generate_keyring(&keyring);
    let repository = home.path().join("repository");
    let url = format!("file://{}", repository.display());
    let server = Setup::cairn(&dir).journal("always").key(&keyring).start();
    let create = || {
        let tool = Tool::backup().option("--repo", &url).option("--dir", &dir).arg("create");
        tool.option("--encryption-key-file", &keyring).run().expect(0);
    };
    fill(&server);
    create();
    server.connect().ask("SET between backups");
    create();
    let digest = server.digest();
    rotate(&keyring);
    assert_eq!(server.connect().ask("CAIRN KEY RELOAD"), Value::ok());
    create();
    let (old, lone) = (keyring_of(home.path(), &keyring, 0), keyring_of(home.path(), &keyring, 1));
    let restore = |to: &str, keyring: &Path| {
        let tool = Tool::restore().option("--repo", &url).option("--dir", home.path().join(to));
        tool.option("--encryption-key-file", keyring).run()
    };
    restore("early", &lone).expect(12).saying(&[&name(&keyring, 0)]);

    let before = files::contents(&repository);
    let shown = rewrap(&keyring, "--repo", &url).arg("--dry-run").run().expect(0).json();
    assert!(files::changed(&before, &files::contents(&repository)).is_empty(), "a dry run changes nothing");
    rewrap(&lone, "--repo", &url).run().expect(12).saying(&[&name(&keyring, 0)]);
    // The directory that the environment names for other verbs is not what was typed.
    let elsewhere = [("CAIRN_DIR", dir.display().to_string())];
    let done = rewrap(&keyring, "--repo", &url).env(elsewhere).run().expect(0).json();
    assert_eq!(done["rewrapped"], shown["rewrapped"]);
    assert!(done["rewrapped"].as_u64() >= Some(2), "{done}");
    let changed = files::changed(&before, &files::contents(&repository));
    assert!(changed.len() == 1 && changed[0].contains("keys-000001.json"), "{changed:?}");
    assert_eq!(rewrap(&keyring, "--repo", &url).run().expect(0).json()["rewrapped"], 0);

    let list = Tool::backup().option("--repo", &url).arg("list").run().expect(0);
    assert!(
        !list.stdout.contains(&name(&keyring, 0)) && list.stdout.contains(&name(&keyring, 1)),
        "{}",
        list.stdout
    );
    let verify = Tool::backup().option("--repo", &url).arg("verify").arg("--json");
    let verdict = verify.option("--encryption-key-file", &lone).run().expect(0).json();
    let tiers = verdict["backups"].as_array().expect("backups").iter().map(|backup| &backup["tier"]);
    assert!(tiers.clone().count() == 3 && tiers.clone().all(|tier| tier == "contents"), "{verdict}");
    restore("restored", &lone).expect(0);
    let restored = Setup::cairn(&home.path().join("restored")).journal("always").key(&lone).start();
    assert_eq!(restored.digest(), digest);
    restored.stop();
    server.stop();

    // The next rotation replaces the document; a damaged one is passed over, and the objects' own wrapping is there still.
    rotate(&keyring);
    rewrap(&keyring, "--repo", &url).run().expect(0);
    let documents =
        || files::all(&repository).into_iter().filter(|path| path.to_string_lossy().contains("/keys-"));
    let newest: Vec<PathBuf> = documents().collect();
    assert!(newest.len() == 1 && newest[0].ends_with("keys-000002.json"), "{newest:?}");
    let newest_alone = keyring_of(home.path(), &keyring, 2);
    restore("twice", &newest_alone).expect(0);
    files::flip(&newest[0], 200);
    let verdict =
        Tool::backup().option("--repo", &url).arg("verify").option("--encryption-key-file", &keyring);
    verdict.run().expect(13).saying(&["keys-000002.json", "damaged"]);
    restore("damaged", &newest_alone).expect(12);
    let first_two = home.path().join("first-two");
    std::fs::write(&first_two, lines(&keyring)[..2].join("\n")).expect("a keyring");
    restore("headers", &first_two).expect(0);
    restore("headers-too", &old).expect(12);
    rewrap(&keyring, "--repo", &url).run().expect(0);
    restore("mended", &newest_alone).expect(0);
}
