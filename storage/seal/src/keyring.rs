//! The keyring: named master keys, the newest last.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_format::FileId;
use cairn_format::header::{KEY_NAME_BYTES_MAX, KeySlot};
use zeroize::Zeroizing;

use crate::{SealError, fill_random, random};

/// The longest text of a keyring, in bytes; a longer one is a mistake (some 600 keys).
pub(crate) const TEXT_BYTES_MAX: usize = 65_536;

/// The longest line of a keyring that Cairn writes, in bytes.
const LINE_BYTES_MAX: usize = KEY_NAME_BYTES_MAX + 1 + 64 + 1;

/// A named 256-bit key that wraps data keys; zeroized on drop.
#[derive(Clone)]
pub struct MasterKey {
    name: String,
    bytes: Box<Zeroizing<[u8; 32]>>,
}

impl MasterKey {
    /// The key's name, as files bear it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    fn generate() -> Result<MasterKey, SealError> {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        fill_random(bytes.as_mut_slice())?;
        let suffix = u32::from_le_bytes(random()?);
        Ok(MasterKey { name: format!("k-{}-{suffix:08x}", today()), bytes })
    }

    /// Whether it is the same key, and not only one of the same name.
    fn is(&self, other: &MasterKey) -> bool {
        self.name == other.name && self.bytes() == other.bytes()
    }

    /// Its line in a keyring.
    pub(crate) fn line(&self) -> Zeroizing<String> {
        // Room for all at once: growing would leave copies of the key behind.
        let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES_MAX));
        line.push_str(&self.name);
        line.push(' ');
        for byte in self.bytes() {
            line.extend(
                [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')),
            );
        }
        line.push('\n');
        line
    }
}

/// Named master keys; the last is active: new files are wrapped under it.
#[derive(Clone)]
pub struct Keyring {
    /// All but the active key, in order.
    older: Vec<MasterKey>,
    active: MasterKey,
    exposed: bool,
    /// Wrapped keys of files that stand beside them, and not only in their headers.
    slots: Arc<BTreeMap<FileId, KeySlot>>,
}

impl Keyring {
    /// A keyring of one new key named `k-<yyyymmdd>-<8 hexadecimal digits>`.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn generate() -> Result<Keyring, SealError> {
        Ok(Keyring::of(Vec::new(), MasterKey::generate()?))
    }

    fn of(older: Vec<MasterKey>, active: MasterKey) -> Keyring {
        Keyring { older, active, exposed: false, slots: Arc::default() }
    }

    /// This keyring, knowing wrapped keys that stand beside their files: [`unwrap`](crate::unwrap) prefers them to those in the
    /// headers, which may be under keys that nobody has any more.
    #[must_use]
    pub fn with_slots(&self, slots: BTreeMap<FileId, KeySlot>) -> Keyring {
        Keyring { slots: Arc::new(slots), ..self.clone() }
    }

    /// The wrapped key that stands beside the file of this id, where one is known.
    pub fn slot_of(&self, file_id: FileId) -> Option<&KeySlot> {
        self.slots.get(&file_id)
    }

    /// This keyring and one new key, which is active.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn rotated(&self) -> Result<Keyring, SealError> {
        let older = self.older.iter().chain([&self.active]).cloned().collect();
        Ok(Keyring { older, active: MasterKey::generate()?, ..self.clone() })
    }

    /// Reads the text of a keyring: a line for each key, its name, white space and 64 hexadecimal digits, the active key
    /// last; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`SealError::BadKeyring`], which never quotes the text.
    pub fn parse(text: &[u8]) -> Result<Keyring, SealError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bad = |why| SealError::BadKeyring { line: index.saturating_add(1), why };
            let key = parse_line(line).map_err(bad)?;
            if keys.iter().any(|other| other.name == key.name) {
                return Err(bad("the name is there twice"));
            }
            keys.push(key);
        }
        let active = keys.pop().ok_or(SealError::BadKeyring { line: 0, why: "there is no key in it" })?;
        Ok(Keyring::of(keys, active))
    }

    /// Reads a keyring file; [`Keyring::is_exposed`] tells then whether others may read it.
    ///
    /// # Errors
    /// [`SealError::Io`] and [`SealError::BadKeyring`].
    pub fn load_file(path: &Path) -> Result<Keyring, SealError> {
        let failed = |source| SealError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let exposed = file.metadata().map_err(failed)?.mode() & 0o077 != 0;
        let text = read_text(file).map_err(failed)?;
        Ok(Keyring { exposed, ..Keyring::parse(&text)? })
    }

    /// Runs a command by `sh -c` and reads the keyring from its standard output; its standard error is ours.
    ///
    /// # Errors
    /// [`SealError::Io`] when there is no shell, [`SealError::CommandFailed`], [`SealError::BadKeyring`].
    pub fn load_command(command: &str) -> Result<Keyring, SealError> {
        let failed = |source| SealError::Io { path: PathBuf::from("sh"), source };
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let text = child.stdout.take().map_or(Ok(Zeroizing::new(Vec::new())), read_text);
        // Its end is awaited in any case, so that nothing is left behind.
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            return Err(SealError::CommandFailed { command: command.to_owned(), status });
        }
        Keyring::parse(&text.map_err(failed)?)
    }

    /// Writes the keyring to a new file of mode 0600 and syncs it.
    ///
    /// # Errors
    /// [`SealError::Io`]; `AlreadyExists` when the name is taken: a keyring is never overwritten.
    pub fn write_new_file(&self, path: &Path) -> Result<(), SealError> {
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.encode().as_bytes())?;
            file.sync_all()?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
        })();
        written.map_err(|source| SealError::Io { path: path.to_owned(), source })
    }

    /// The text of the keyring, as [`Keyring::parse`] reads it.
    pub fn encode(&self) -> Zeroizing<String> {
        const HEAD: &str = "# Cairn keyring: without it nothing can be read. Keep a copy elsewhere. The last key is active.\n";
        // Room for all at once, as for a line.
        let mut text =
            Zeroizing::new(String::with_capacity(HEAD.len() + LINE_BYTES_MAX * (self.older.len() + 1)));
        text.push_str(HEAD);
        self.older.iter().chain([&self.active]).for_each(|key| text.push_str(&key.line()));
        text
    }

    /// The key new files are wrapped under: the last.
    pub fn active(&self) -> &MasterKey {
        &self.active
    }

    /// The key of this name.
    pub fn get(&self, name: &str) -> Option<&MasterKey> {
        self.older.iter().chain([&self.active]).find(|key| key.name == name)
    }

    /// The names of all keys, the active one last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.older.iter().chain([&self.active]).map(MasterKey::name)
    }

    /// Whether a key is among them, and not only another one of its name.
    pub fn holds(&self, key: &MasterKey) -> bool {
        self.get(&key.name).is_some_and(|found| found.is(key))
    }

    /// Whether the file this came from can be read by other users of the machine: worth a warning.
    pub fn is_exposed(&self) -> bool {
        self.exposed
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("names", &self.names().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

fn parse_line(line: &[u8]) -> Result<MasterKey, &'static str> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (Some(name), Some(digits), None) = (words.next(), words.next(), words.next()) else {
        return Err("it does not have two words");
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
    if name.len() > KEY_NAME_BYTES_MAX || !name.iter().all(is_plain) {
        return Err("the name has more than 64 characters, or others than letters, digits and -_.:/");
    }
    let mut bytes = Box::new(Zeroizing::new([0; 32]));
    if digits.len() != 64 {
        return Err("the key does not have 64 digits");
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            *byte = (*byte << 4) | value.ok_or("the key has a digit that is not hexadecimal")?;
        }
    }
    Ok(MasterKey { name: String::from_utf8_lossy(name).into_owned(), bytes })
}

/// Reads a keyring's text into memory that is zeroized and never moved.
pub(crate) fn read_text(mut source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; TEXT_BYTES_MAX + 1]);
    let mut length = 0;
    while let Some(room) = text.get_mut(length..)
        && !room.is_empty()
    {
        match source.read(room) {
            Ok(0) => {
                text.truncate(length);
                return Ok(text);
            }
            Ok(count) => length = length.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, "a keyring has at most 65,536 bytes"))
}

/// The date in UTC as yyyymmdd, by the civil calendar (days counted from 1 March, so that a leap day ends its year).
fn today() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_date(since_1970.as_secs() / 86_400);
    format!("{year:04}{month:02}{day:02}")
}

fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // since 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const A: &str = "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";

    #[test]
    fn a_keyring_comes_back_as_it_went() {
        let keyring = Keyring::generate().unwrap().rotated().unwrap();
        let back = Keyring::parse(keyring.encode().as_bytes()).unwrap();
        assert_eq!(back.names().collect::<Vec<_>>(), keyring.names().collect::<Vec<_>>());
        assert_eq!(back.active().bytes(), keyring.active().bytes());
        assert_eq!(back.older[0].bytes(), keyring.older[0].bytes());
        let name = keyring.active().name();
        assert_eq!((name.len(), &name[..4], &name[10..11]), (19, "k-20", "-"));
    }

    #[test]
    fn the_last_key_is_active_and_comments_say_nothing() {
        let text = format!("# first\n\n a {A}\r\n\tb\t{A}  \n#c {A}\n");
        let keyring = Keyring::parse(text.as_bytes()).unwrap();
        assert_eq!(keyring.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(keyring.active().name(), "b");
        assert_eq!(keyring.get("a").unwrap().bytes()[..3], [0x01, 0x23, 0x45]);
        assert!(keyring.get("c").is_none());
        assert!(!format!("{keyring:?}").contains("0123"));
    }

    #[test]
    fn what_is_no_keyring_is_refused_with_its_line() {
        let long = "n".repeat(65);
        for (text, line) in [
            (String::new(), 0),
            ("# only a comment".into(), 0),
            (format!("a {A}\nb"), 2),
            (format!("a {A} more"), 1),
            (format!("a {A}0"), 1),
            (format!("a {}g", &A[1..]), 1),
            (format!("a {A}\n\na {A}"), 3),
            (format!("{long} {A}"), 1),
            (format!("na\u{e4}me {A}"), 1),
        ] {
            let refused = Keyring::parse(text.as_bytes()).unwrap_err();
            assert!(
                matches!(refused, SealError::BadKeyring { line: found, .. } if found == line),
                "{text:?}"
            );
            assert!(!refused.to_string().contains("0123"), "the error quotes the key");
        }
    }

    #[test]
    fn files_are_private_never_overwritten_and_their_exposure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let keyring = Keyring::generate().unwrap();
        keyring.write_new_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(keyring.write_new_file(&path), Err(SealError::Io { .. })));
        let loaded = Keyring::load_file(&path).unwrap();
        assert_eq!(loaded.active().bytes(), keyring.active().bytes());
        assert!(!loaded.is_exposed());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(Keyring::load_file(&path).unwrap().is_exposed());
        assert!(matches!(Keyring::load_file(&dir.path().join("none")), Err(SealError::Io { .. })));
        std::fs::write(&path, vec![b'#'; TEXT_BYTES_MAX + 1]).unwrap();
        assert!(matches!(Keyring::load_file(&path), Err(SealError::Io { .. })));
    }

    #[test]
    fn a_command_gives_a_keyring_or_its_failure() {
        let keyring = Keyring::load_command(&format!("echo first {A}; echo second {A}")).unwrap();
        assert_eq!(keyring.active().name(), "second");
        let failed = Keyring::load_command(&format!("echo a {A}; exit 3")).unwrap_err();
        assert!(matches!(&failed, SealError::CommandFailed { status, .. } if status.code() == Some(3)));
        assert!(matches!(Keyring::load_command("true"), Err(SealError::BadKeyring { line: 0, .. })));
    }

    #[test]
    fn dates_are_right_across_leap_years() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_780, (2026, 11, 23)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_date(days), date);
        }
    }
}
