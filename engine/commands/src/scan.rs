//! What SCAN, SSCAN, HSCAN and ZSCAN have in common.

use cairn_resp::Reply;

use crate::args::{integer, is};
use crate::error::CommandError;
use crate::glob::glob_matches;

/// How many elements a call visits where COUNT does not say.
const COUNT: usize = 10;

/// Where a scan goes on. As Redis reads it with the C library: empty is 0, a negative number wraps around.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    let invalid = CommandError::other("ERR invalid cursor");
    let Ok(text) = std::str::from_utf8(arg) else { return Err(invalid) };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if text.is_empty() {
        return Ok(0);
    }
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(invalid);
    }
    let cursor: u64 = digits.parse().map_err(|_| invalid)?;
    Ok(if negative { cursor.wrapping_neg() } else { cursor })
}

/// MATCH, COUNT and TYPE.
pub(crate) struct ScanOptions<'a> {
    pub(crate) count: usize,
    pattern: Option<&'a [u8]>,
    pub(crate) type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// `with_type` says whether TYPE is known, which only SCAN does.
    pub(crate) fn parse(args: &[&'a [u8]], with_type: bool) -> Result<Self, CommandError> {
        let mut options = Self { count: COUNT, pattern: None, type_name: None };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let value = *rest.next().ok_or(CommandError::Syntax)?;
            if is(option, "count") {
                let count = integer(value)?;
                options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if is(option, "match") {
                options.pattern = Some(value).filter(|pattern| *pattern != b"*");
            } else if is(option, "type") && with_type {
                options.type_name = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether MATCH lets this through.
    pub(crate) fn lets_through(&self, text: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob_matches(pattern, text))
    }
}

/// Replies with the next cursor and the elements, which `write` wrote, one after the other, returning how many.
pub(crate) fn reply_scan(reply: &mut Reply<'_>, next: u64, write: impl FnOnce(&mut Reply<'_>) -> usize) {
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    let at = reply.deferred();
    let count = write(reply);
    reply.finish_array(at, count);
}
