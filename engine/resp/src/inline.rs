//! Lines split into arguments by Redis's quoting rules, for inline commands and for configuration files.

/// A quote is not closed, or is followed by something other than a blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes")]
pub struct UnbalancedQuotes;

/// Splits `line` into its arguments: blanks separate; `"…"` understands `\n \r \t \b \a \xHH` and `\` before any
/// other byte; `'…'` only `\'`.
pub fn split_args(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
    let (mut text, mut spans) = (Vec::new(), Vec::new());
    split_into(line, &mut text, &mut spans)?;
    Ok(spans.iter().map(|&(start, end)| text.get(start..end).unwrap_or_default().to_vec()).collect())
}

/// As [`split_args`], the arguments one behind the other in `text`, their places in `spans`.
pub(crate) fn split_into(
    line: &[u8],
    text: &mut Vec<u8>,
    spans: &mut Vec<(usize, usize)>,
) -> Result<(), UnbalancedQuotes> {
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes.next_if(|&b| is_blank(b)).is_some() {}
        if bytes.peek().is_none() {
            return Ok(());
        }
        let start = text.len();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => double_quoted(&mut bytes, text)?,
                b'\'' => single_quoted(&mut bytes, text)?,
                _ if is_blank(byte) => break,
                _ => {
                    text.push(byte);
                    continue;
                }
            }
            match bytes.next() {
                Some(after) if !is_blank(after) => return Err(UnbalancedQuotes),
                _ => break,
            }
        }
        spans.push((start, text.len()));
    }
}

type Bytes<'a> = std::iter::Peekable<std::iter::Copied<std::slice::Iter<'a, u8>>>;

fn double_quoted(bytes: &mut Bytes<'_>, text: &mut Vec<u8>) -> Result<(), UnbalancedQuotes> {
    loop {
        match bytes.next().ok_or(UnbalancedQuotes)? {
            b'"' => return Ok(()),
            b'\\' => text.push(escaped(bytes)?),
            byte => text.push(byte),
        }
    }
}

fn escaped(bytes: &mut Bytes<'_>) -> Result<u8, UnbalancedQuotes> {
    Ok(match bytes.next().ok_or(UnbalancedQuotes)? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        b'x' => {
            let mut ahead = bytes.clone();
            match (ahead.next().and_then(hex), ahead.next().and_then(hex)) {
                (Some(high), Some(low)) => {
                    *bytes = ahead;
                    high * 16 + low
                }
                _ => b'x',
            }
        }
        byte => byte,
    })
}

fn single_quoted(bytes: &mut Bytes<'_>, text: &mut Vec<u8>) -> Result<(), UnbalancedQuotes> {
    loop {
        match bytes.next().ok_or(UnbalancedQuotes)? {
            b'\'' => return Ok(()),
            b'\\' if bytes.next_if_eq(&b'\'').is_some() => text.push(b'\''),
            byte => text.push(byte),
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Compared with redis-server 7.0.15.
    #[test]
    fn quotes_as_redis_reads_them() {
        let ok = |line: &str, expected: &[&[u8]]| {
            assert_eq!(split_args(line.as_bytes()).unwrap(), expected, "{line}")
        };
        ok("", &[]);
        ok("  \t ", &[]);
        ok("SET a\tb", &[b"SET", b"a", b"b"]);
        ok(r#"PING "a\x41\n""#, &[b"PING", b"aA\n"]);
        ok(r"PING 'a\'b'", &[b"PING", b"a'b"]);
        ok(r"PING 'a\nb'", &[b"PING", br"a\nb"]);
        ok(r#"PING "\xg1""#, &[b"PING", b"xg1"]);
        ok(r#"PING a"b""#, &[b"PING", b"ab"]);
        ok(r#""" x"#, &[b"", b"x"]);
        for bad in [r#"PING "abc"#, r#"PING "a"b"#, "PING 'a''b'", r#"PING "\"#, "'"] {
            assert_eq!(split_args(bad.as_bytes()), Err(UnbalancedQuotes), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(line: Vec<u8>) {
            let _ = split_args(&line);
        }

        #[test]
        fn quoted_bytes_survive(words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 0..5)) {
            let mut line = String::new();
            for word in &words {
                line.push('"');
                for byte in word {
                    line.push_str(&format!("\\x{byte:02x}"));
                }
                line.push_str("\" ");
            }
            prop_assert_eq!(split_args(line.as_bytes()).unwrap(), words);
        }
    }
}
