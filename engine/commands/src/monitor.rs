//! The lines of MONITOR: <https://redis.io/docs/latest/commands/monitor/>

use std::io::Write;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::families;
use crate::spec::CommandSpec;

/// What stands in the place of a password.
pub(crate) const REDACTED: &[u8] = b"(redacted)";

/// The line that shows a command: when, in which database, from where, and its arguments in quotes.
pub(crate) fn line(db: u16, source: &str, spec: &CommandSpec, args: &[&[u8]]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = format!("+{}.{:06} [{db} {source}]", now.as_secs(), now.subsec_micros()).into_bytes();
    let secrets = credentials(spec.name, args);
    for (at, arg) in args.iter().enumerate() {
        out.push(b' ');
        push_quoted(&mut out, if secrets.contains(&at) { REDACTED } else { arg });
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Which arguments are names and passwords with which a client says who it is, to this server or another.
pub(crate) fn credentials(command: &str, args: &[&[u8]]) -> Range<usize> {
    match command {
        "auth" => 1..args.len(),
        "hello" => families::connection::hello_credentials(args),
        "migrate" => families::migrate::secrets(args),
        _ => 0..0,
    }
}

fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => {
                // Writing to a Vec does not fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&[u8]]) -> String {
        let spec = crate::lookup(words[0]).unwrap();
        let line = String::from_utf8(line(3, "127.0.0.1:5", spec, words)).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn arguments_are_quoted_and_secrets_are_not_shown() {
        assert_eq!(
            shown(&[b"SET", b"k \"1\"\\", b"a\r\n\t\x07\x08\x00\xff~"]),
            "[3 127.0.0.1:5] \"SET\" \"k \\\"1\\\"\\\\\" \"a\\r\\n\\t\\a\\b\\x00\\xff~\"\r\n"
        );
        assert_eq!(
            shown(&[b"auth", b"me", b"secret"]),
            "[3 127.0.0.1:5] \"auth\" \"(redacted)\" \"(redacted)\"\r\n"
        );
        assert_eq!(
            shown(&[b"hello", b"3", b"AUTH", b"me", b"secret", b"setname", b"x"]),
            "[3 127.0.0.1:5] \"hello\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"setname\" \"x\"\r\n"
        );
        assert_eq!(
            shown(&[b"hello", b"3", b"SETNAME", b"auth", b"AUTH", b"me", b"secret"]),
            "[3 127.0.0.1:5] \"hello\" \"3\" \"SETNAME\" \"auth\" \"AUTH\" \"(redacted)\" \"(redacted)\"\r\n"
        );
        assert_eq!(
            shown(&[
                b"migrate", b"h", b"1", b"", b"0", b"9", b"COPY", b"AUTH2", b"me", b"secret", b"KEYS",
                b"auth"
            ]),
            "[3 127.0.0.1:5] \"migrate\" \"h\" \"1\" \"\" \"0\" \"9\" \"COPY\" \"AUTH2\" \"(redacted)\" \"(redacted)\" \"KEYS\" \"auth\"\r\n"
        );
    }
}
