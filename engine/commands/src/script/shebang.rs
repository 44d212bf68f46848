//! The first line of a script or a library, where it says what it is: `#!lua name=… flags=…`.

use cairn_resp::split_args;

/// What a script says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ScriptFlags(pub(crate) u8);

impl ScriptFlags {
    /// It writes nothing.
    pub(crate) const NO_WRITES: ScriptFlags = ScriptFlags(1);
    /// It may use more memory where more is in use than may be.
    pub(crate) const ALLOW_OOM: ScriptFlags = ScriptFlags(1 << 1);
    /// It said nothing: rules are those of each command it calls.
    pub(crate) const COMPATIBLE: ScriptFlags = ScriptFlags(1 << 7);
    /// The names, in the order FUNCTION LIST shows them. Persisted nowhere: they are read from the source anew.
    const NAMES: [(u8, &'static str); 5] = [
        (1, "no-writes"),
        (1 << 1, "allow-oom"),
        (1 << 2, "allow-stale"),
        (1 << 3, "no-cluster"),
        (1 << 4, "allow-cross-slot-keys"),
    ];

    /// Whether all of `other` are set.
    pub(crate) fn has(self, other: ScriptFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of those set.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| *name)
    }

    /// Adds the flag of this name; false where there is none.
    pub(super) fn add(&mut self, name: &[u8], ignore_case: bool) -> bool {
        let is_it = |known: &str| match ignore_case {
            true => known.as_bytes().eq_ignore_ascii_case(name),
            false => known.as_bytes() == name,
        };
        let found = Self::NAMES.iter().find(|(_, known)| is_it(known));
        self.0 |= found.map_or(0, |(bit, _)| *bit);
        found.is_some()
    }
}

/// The flags in a script's first line and where its code begins; the line end stays, so that lines keep their numbers.
pub(super) fn of_script(body: &[u8]) -> Result<(ScriptFlags, usize), String> {
    if !body.starts_with(b"#!") {
        return Ok((ScriptFlags::COMPATIBLE, 0));
    }
    let end = body.iter().position(|byte| *byte == b'\n').ok_or("Invalid script shebang")?;
    let parts = words(&body[..end]).ok_or("Invalid engine in script shebang")?;
    let (engine, options) = parts.split_first().ok_or("Invalid engine in script shebang")?;
    if engine != b"#!lua" {
        return Err(format!("Unexpected engine in script shebang: {}", String::from_utf8_lossy(engine)));
    }
    let mut flags = ScriptFlags::default();
    for option in options {
        let Some(names) = option.strip_prefix(b"flags=") else {
            return Err(format!("Unknown lua shebang option: {}", String::from_utf8_lossy(option)));
        };
        for name in names.split(|byte| *byte == b',').filter(|_| !names.is_empty()) {
            if !flags.add(name, false) {
                return Err(format!("Unexpected flag in script shebang: {}", String::from_utf8_lossy(name)));
            }
        }
    }
    Ok((flags, end))
}

/// The words of a line, quotes respected.
pub(super) fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    split_args(line).ok().filter(|words| !words.is_empty())
}
