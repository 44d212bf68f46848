//! CONFIG REWRITE: the running settings, written back to the file they came from.

use super::{Settings, table};
use crate::replace::replace;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which directives a rewritten file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Those that were there, and those that differ from their defaults.
    Needed,
    /// All.
    All,
}

/// Rewrites the file so that a start from it gives `settings`: lines of directives that differ are replaced where they
/// stand, others keep their place, comments stay, and what is missing comes at the end, then the `users`, a line each.
pub(crate) fn rewrite(path: &Path, settings: &Settings, what: Written, users: &[String]) -> io::Result<()> {
    let old = fs::read_to_string(path)?;
    let new = rewritten(&old, settings, what, users);
    // It may hold a password, so it keeps its permissions.
    let mode = fs::metadata(path)?.mode() & 0o777;
    replace(path, new.as_bytes(), mode)
}

fn rewritten(old: &str, settings: &Settings, what: Written, users: &[String]) -> String {
    let mut wanted = match what {
        Written::Needed => settings.lines_differing_from(&Settings::defaults()),
        Written::All => settings.lines(),
    };
    let mut lines: Vec<String> = Vec::new();
    let mut written: Vec<&str> = Vec::new();
    for line in old.lines() {
        let name = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if name == "user" {
            continue;
        }
        let Some(directive) = table::find(&name) else {
            lines.push(line.to_owned());
            continue;
        };
        if written.contains(&directive.name) {
            continue;
        }
        written.push(directive.name);
        match wanted.iter().position(|(wanted, _)| *wanted == directive.name) {
            Some(at) => lines.push(wanted.remove(at).1),
            // It said something else, or the default; the default is now what it should be.
            None => lines.push(format!("{} {}", directive.name, directive.kind.line(settings))),
        }
    }
    lines.extend(wanted.into_iter().map(|(_, line)| line));
    lines.extend_from_slice(users);
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_starts_the_same_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cairn.conf");
        fs::write(&path, "# ours\nport 7000\nsave 60 1\nsave 5 2\ntimeout 4 # not a comment for Redis\n")
            .unwrap();
        assert!(super::super::load(&[path.to_str().unwrap().to_owned()]).is_err());
        fs::write(&path, "# ours\nport 7000\nsave 60 1\nsave 5 2\ntimeout 4\n").unwrap();
        let load = || super::super::load(&[path.to_str().unwrap().to_owned()]).unwrap().0;
        let changed =
            load().with(&[(b"timeout", b"0"), (b"requirepass", b"a 'b\\"), (b"save", b"9 9 8 8")]).unwrap();
        rewrite(&path, &changed, Written::Needed, &[]).unwrap();
        let everything: &[&[u8]] = &[b"*"];
        assert_eq!(load().matching(everything), changed.matching(everything));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ours\nport 7000\nsave 9 9 8 8\ntimeout 0\n"), "{text}");
        assert!(!text.contains("appendfsync"), "{text}");
        rewrite(&path, &changed, Written::All, &[]).unwrap();
        assert_eq!(load().matching(everything), changed.matching(everything));
        assert!(fs::read_to_string(&path).unwrap().contains("\nappendfsync everysec\n"));
    }
}
