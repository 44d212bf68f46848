//! Ids of entries: read from arguments, written into replies.

use std::io::{Cursor, Write};

use cairn_keyspace::types::StreamId;
use cairn_keyspace::types::stream::Entry;
use cairn_resp::Reply;

use crate::context::bulk_item;
use crate::error::CommandError;

/// The longest argument that is looked at as an id, in bytes.
const TEXT_MAX: usize = 127;

fn invalid() -> CommandError {
    CommandError::other("ERR Invalid stream ID specified as stream command argument")
}

/// The id an entry is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// The clock's, or the one behind the last.
    Next,
    /// The next of this millisecond.
    NextOf(u64),
    /// This one.
    Given(StreamId),
}

impl NewId {
    pub(super) fn parse(arg: &[u8]) -> Result<Self, CommandError> {
        match arg {
            b"*" => Ok(Self::Next),
            [ms @ .., b'-', b'*'] if arg.len() <= TEXT_MAX && !ms.contains(&b'-') => {
                unsigned(ms).map(Self::NextOf).ok_or_else(invalid)
            }
            _ => strict(arg).map(Self::Given),
        }
    }
}

/// An id written as numbers; without the second one, that is 0.
pub(super) fn strict(arg: &[u8]) -> Result<StreamId, CommandError> {
    numbers(arg, 0).ok_or_else(invalid)
}

/// An id written as numbers, or one of the words for the least and the greatest.
pub(super) fn any(arg: &[u8]) -> Result<StreamId, CommandError> {
    bound(arg, 0)
}

/// Where a range begins: a leading parenthesis leaves the id itself out.
pub(super) fn range_start(arg: &[u8]) -> Result<StreamId, CommandError> {
    match excluded(arg) {
        Some(arg) => {
            let id = numbers(arg, 0).ok_or_else(invalid)?;
            id.next().ok_or(CommandError::other("ERR invalid start ID for the interval"))
        }
        None => bound(arg, 0),
    }
}

/// Where a range ends; without the second number, with the millisecond.
pub(super) fn range_end(arg: &[u8]) -> Result<StreamId, CommandError> {
    match excluded(arg) {
        Some(arg) => {
            let id = numbers(arg, u64::MAX).ok_or_else(invalid)?;
            id.previous().ok_or(CommandError::other("ERR invalid end ID for the interval"))
        }
        None => bound(arg, u64::MAX),
    }
}

fn excluded(arg: &[u8]) -> Option<&[u8]> {
    arg.strip_prefix(b"(").filter(|rest| !rest.is_empty())
}

fn bound(arg: &[u8], missing: u64) -> Result<StreamId, CommandError> {
    match arg {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => numbers(arg, missing).ok_or_else(invalid),
    }
}

fn numbers(arg: &[u8], missing: u64) -> Option<StreamId> {
    if arg.len() > TEXT_MAX {
        return None;
    }
    let Some(dash) = arg.iter().position(|byte| *byte == b'-') else {
        return Some(StreamId { ms: unsigned(arg)?, seq: missing });
    };
    Some(StreamId { ms: unsigned(&arg[..dash])?, seq: unsigned(&arg[dash + 1..])? })
}

/// A number as C's strtoull takes it: blanks and a plus may stand before it.
fn unsigned(text: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let text = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Calls `use_text` with the text of an id, without allocating.
pub(super) fn with_text<R>(id: StreamId, use_text: impl FnOnce(&[u8]) -> R) -> R {
    // Two numbers of twenty digits and a dash.
    let mut text = Cursor::new([0u8; 41]);
    write!(text, "{id}").expect("there is room for the longest id");
    let len = text.position() as usize;
    use_text(&text.get_ref()[..len])
}

/// Replies with an id.
pub(super) fn reply_id(reply: &mut Reply<'_>, id: StreamId) {
    with_text(id, |text| reply.bulk(text));
}

/// Replies with an entry: its id, and its fields and values in turn.
pub(super) fn reply_entry(reply: &mut Reply<'_>, entry: &Entry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    let fields = entry.fields();
    reply.array(fields.len() * 2);
    for (field, value) in fields {
        bulk_item(reply, field);
        bulk_item(reply, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    #[test]
    fn ids_are_read_as_in_redis() {
        for (text, expected) in [
            ("5-7", Some(id(5, 7))),
            ("5", Some(id(5, 0))),
            ("18446744073709551615-18446744073709551615", Some(StreamId::MAX)),
            ("18446744073709551616", None),
            (" +05-\t007", Some(id(5, 7))),
            ("", None),
            ("-", None),
            ("+", None),
            ("-1", None),
            ("1-", None),
            ("1--1", None),
            ("1-2-3", None),
            ("1-*", None),
            ("a", None),
        ] {
            assert_eq!(strict(text.as_bytes()).ok(), expected, "{text}");
        }
        assert_eq!(strict(&[b'0'; 127]).ok(), Some(StreamId::MIN));
        assert!(strict(&[b'0'; 128]).is_err());
    }

    #[test]
    fn ranges_may_leave_their_ends_out() {
        let read =
            |start: &str, end: &str| (range_start(start.as_bytes()).ok(), range_end(end.as_bytes()).ok());
        assert_eq!(read("-", "+"), (Some(StreamId::MIN), Some(StreamId::MAX)));
        assert_eq!(read("5", "5"), (Some(id(5, 0)), Some(id(5, u64::MAX))));
        assert_eq!(read("(5", "(5"), (Some(id(5, 1)), Some(id(5, u64::MAX - 1))));
        assert_eq!(read("(5-18446744073709551615", "(5-0"), (Some(id(6, 0)), Some(id(4, u64::MAX))));
        assert_eq!(read("(18446744073709551615-18446744073709551615", "(0-0"), (None, None));
        assert_eq!(read("(-", "(+"), (None, None));
        assert_eq!(read("(", "("), (None, None));
    }

    #[test]
    fn a_new_id_may_leave_its_choice_open() {
        let read = |text: &str| NewId::parse(text.as_bytes()).ok();
        assert_eq!(read("*"), Some(NewId::Next));
        assert_eq!(read("5-*"), Some(NewId::NextOf(5)));
        assert_eq!(read("5"), Some(NewId::Given(id(5, 0))));
        assert_eq!((read("-*"), read("5-1-*"), read("**")), (None, None, None));
    }
}
