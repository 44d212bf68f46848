//! Ziplists and zipmaps: the flat forms of servers before Redis 7.0, read only.

use crate::error::RdbError;
use crate::integer::Digits;

fn malformed(structure: &'static str, reason: &'static str) -> RdbError {
    RdbError::malformed(0, structure, reason)
}

/// Takes `N` bytes from the front.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// Calls `visit` with the elements of a ziplist in order.
///
/// Layout: total bytes u32, offset of the last entry u32, count u16, entries, 0xFF. An entry is the length of the one before
/// (one byte, or 0xFE and four), an encoding, its data.
pub fn read(bytes: &[u8], mut visit: impl FnMut(&[u8])) -> Result<(), RdbError> {
    let bad = |reason| malformed("ziplist", reason);
    let mut rest = bytes;
    let header = take::<10>(&mut rest).ok_or_else(|| bad("shorter than its header"))?;
    let [a, b, c, d, _, _, _, _, low, high] = header;
    if u32::from_le_bytes([*a, *b, *c, *d]) as usize != bytes.len() {
        return Err(bad("its total length is not that of the bytes"));
    }
    let stated = u16::from_le_bytes([*low, *high]);
    let mut count = 0usize;
    loop {
        match rest.split_first() {
            None => return Err(bad("no end mark")),
            Some((0xff, [])) => break,
            Some((0xff, _)) => return Err(bad("an end mark before the end")),
            Some((0xfe, _)) => take::<5>(&mut rest).map(|_| ()),
            Some(_) => take::<1>(&mut rest).map(|_| ()),
        }
        .ok_or_else(|| bad("an entry that runs past the end"))?;
        entry(&mut rest, &mut visit)
            .ok_or_else(|| bad("an entry that runs past the end or has no known encoding"))?;
        count += 1;
    }
    if stated != u16::MAX && usize::from(stated) != count {
        return Err(bad("its element count is not that of the entries"));
    }
    Ok(())
}

fn entry(rest: &mut &[u8], visit: &mut impl FnMut(&[u8])) -> Option<()> {
    let [first] = *take::<1>(rest)?;
    let integer = match first {
        0x00..=0x3f => {
            visit(take_slice(rest, usize::from(first))?);
            return Some(());
        }
        0x40..=0x7f => {
            let [low] = *take::<1>(rest)?;
            visit(take_slice(rest, usize::from(first & 0x3f) << 8 | usize::from(low))?);
            return Some(());
        }
        0x80..=0xbf => {
            let len = u32::from_be_bytes(*take(rest)?);
            visit(take_slice(rest, usize::try_from(len).ok()?)?);
            return Some(());
        }
        0xc0 => i64::from(i16::from_le_bytes(*take(rest)?)),
        0xd0 => i64::from(i32::from_le_bytes(*take(rest)?)),
        0xe0 => i64::from_le_bytes(*take(rest)?),
        0xf0 => {
            let [a, b, c] = *take(rest)?;
            i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
        }
        0xfe => i64::from(take::<1>(rest)?.first()?.cast_signed()),
        0xf1..=0xfd => i64::from(first & 0x0f) - 1,
        _ => return None,
    };
    visit(&Digits::new(integer));
    Some(())
}

/// Calls `visit` with the fields and values of a zipmap in order.
///
/// Layout: count u8 (254 or more: unknown), then length, field, length, count of unused bytes u8, value, unused bytes; 0xFF.
pub fn read_zipmap(bytes: &[u8], mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), RdbError> {
    let bad = |reason| malformed("zipmap", reason);
    let mut rest = bytes;
    take::<1>(&mut rest).ok_or_else(|| bad("shorter than its header"))?;
    loop {
        match rest {
            [] => return Err(bad("no end mark")),
            [0xff] => return Ok(()),
            [0xff, ..] => return Err(bad("an end mark before the end")),
            _ => pair(&mut rest, &mut visit).ok_or_else(|| bad("an entry that runs past the end"))?,
        }
    }
}

fn pair(rest: &mut &[u8], visit: &mut impl FnMut(&[u8], &[u8])) -> Option<()> {
    let field_len = zipmap_len(rest)?;
    let field = take_slice(rest, field_len)?;
    let value_len = zipmap_len(rest)?;
    let [unused] = *take::<1>(rest)?;
    let value = take_slice(rest, value_len)?;
    take_slice(rest, usize::from(unused))?;
    visit(field, value);
    Some(())
}

fn zipmap_len(rest: &mut &[u8]) -> Option<usize> {
    match *take::<1>(rest)? {
        [len @ 0..=253] => Some(usize::from(len)),
        [254] => usize::try_from(u32::from_le_bytes(*take(rest)?)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_encoding() {
        let entries: &[&[u8]] = &[
            &[0, 0x02, b'h', b'i'],
            &[4, 0xf1],
            &[2, 0xfd],
            &[2, 0xfe, 0xff],
            &[3, 0xc0, 0x00, 0x80],
            &[4, 0xf0, 0xff, 0xff, 0x7f],
            &[5, 0xd0, 0, 0, 0, 0x80],
            &[6, 0xe0, 255, 255, 255, 255, 255, 255, 255, 127],
            &[0xfe, 10, 0, 0, 0, 0x40, 0x03, b'a', b'b', b'c'],
        ];
        let body: Vec<u8> = entries.concat();
        let mut bytes = (body.len() as u32 + 11).to_le_bytes().to_vec();
        bytes.extend([0, 0, 0, 0, entries.len() as u8, 0]);
        bytes.extend(&body);
        bytes.push(0xff);
        let mut found = Vec::new();
        read(&bytes, |element| found.push(String::from_utf8(element.to_vec()).expect("ASCII")))
            .expect("well formed");
        let expected =
            ["hi", "0", "12", "-1", "-32768", "8388607", "-2147483648", "9223372036854775807", "abc"];
        assert_eq!(found, expected);
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], |_| ()).is_err());
        }
    }

    #[test]
    fn reads_a_zipmap() {
        let bytes = b"\x02\x01a\x02\x00bc\x01k\x01\x03vxxx\xff";
        let mut found = Vec::new();
        read_zipmap(bytes, |field, value| found.push((field.to_vec(), value.to_vec()))).expect("well formed");
        assert_eq!(found, [(b"a".to_vec(), b"bc".to_vec()), (b"k".to_vec(), b"v".to_vec())]);
        for cut in 0..bytes.len() {
            assert!(read_zipmap(&bytes[..cut], |_, _| ()).is_err());
        }
    }
}
