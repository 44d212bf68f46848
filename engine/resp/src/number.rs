//! Numbers as the protocol writes them.

use std::io::Write;

/// Reads a decimal as strictly as Redis does: an optional `-`, no `+`, no blanks, no leading zeros, no `-0`.
/// None also when it does not fit an `i64`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    match digits.first()? {
        b'1'..=b'9' => {}
        b'0' if digits.len() == 1 && !negative => return Some(0),
        _ => return None,
    }
    let mut value: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Appends `value` in decimal.
#[inline]
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_unsigned(out, value.unsigned_abs());
}

/// Appends `value` in decimal.
#[inline]
pub(crate) fn push_unsigned(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        out.push(digit(value));
        return;
    }
    let mut text = [0_u8; 20];
    let mut used = 0;
    for slot in text.iter_mut().rev() {
        *slot = digit(value);
        used += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let (_, digits) = text.split_at(text.len() - used);
    out.extend_from_slice(digits);
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // a remainder of ten fits a byte
pub(crate) fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// Appends a double as Redis 7.0 replies it: C's `%.17g`, and `inf`, `-inf`, `nan`.
///
/// ```
/// let mut out = Vec::new();
/// cairn_resp::format_double(0.1, &mut out);
/// assert_eq!(out, b"0.10000000000000001");
/// ```
pub fn format_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
        return;
    }
    if let Some(whole) = whole_number(value) {
        push_integer(out, whole);
        return;
    }
    // Seventeen significant digits, rounded once, as d.dddddddddddddddde±x; %g then only moves the point.
    let mut text = [0_u8; 40];
    let mut left = text.as_mut_slice();
    if write!(left, "{value:.16e}").is_err() {
        return;
    }
    let unused = left.len();
    let (text, _) = text.split_at(text.len() - unused);
    push_general(text, out);
}

/// The integer `value` is, where `%.17g` would write it with all its digits. Minus zero is none: it keeps its sign.
fn whole_number(value: f64) -> Option<i64> {
    if value.abs() >= 1e17 || (value == 0.0 && value.is_sign_negative()) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // checked by converting back
    let whole = value as i64;
    #[allow(clippy::cast_precision_loss)]
    (whole as f64 == value).then_some(whole)
}

/// Rewrites scientific notation with 17 digits by the rules of `%g`: trailing zeros go, and the exponent stays
/// only below -4 and from 17 on.
fn push_general(scientific: &[u8], out: &mut Vec<u8>) {
    let (sign, rest) = match scientific.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, scientific),
    };
    let mut halves = rest.split(|&b| b == b'e');
    let mantissa = halves.next().unwrap_or_default();
    let exponent = halves.next().and_then(parse_integer).unwrap_or(0);
    let mut digits = [b'0'; 17];
    for (slot, &byte) in digits.iter_mut().zip(mantissa.iter().filter(|b| b.is_ascii_digit())) {
        *slot = byte;
    }
    let significant = digits.iter().rposition(|&b| b != b'0').map_or(1, |last| last + 1);
    let digits = digits.get(..significant).unwrap_or_default();
    if sign {
        out.push(b'-');
    }
    if (-4..17).contains(&exponent) {
        push_fixed(digits, exponent, out);
    } else {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.unsigned_abs() < 10 {
            out.push(b'0');
        }
        push_unsigned(out, exponent.unsigned_abs());
    }
}

fn push_fixed(digits: &[u8], exponent: i64, out: &mut Vec<u8>) {
    let Ok(point) = usize::try_from(exponent) else {
        out.extend_from_slice(b"0.");
        out.extend((1..exponent.unsigned_abs()).map(|_| b'0'));
        out.extend_from_slice(digits);
        return;
    };
    let whole = point + 1;
    if digits.len() <= whole {
        out.extend_from_slice(digits);
        out.extend((digits.len()..whole).map(|_| b'0'));
    } else {
        let (before, after) = digits.split_at(whole);
        out.extend_from_slice(before);
        out.push(b'.');
        out.extend_from_slice(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        format_double(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Taken from redis-server 7.0.15 by ZSCORE.
    #[test]
    fn doubles_read_as_redis_writes_them() {
        for (value, text) in [
            (3.0, "3"),
            (3.5, "3.5"),
            (1e20, "1e+20"),
            (1e17, "1e+17"),
            (123_456_789_012_345_678.0, "1.2345678901234568e+17"),
            (1e21, "1e+21"),
            (0.1, "0.10000000000000001"),
            (1e-5, "1.0000000000000001e-05"),
            (0.000_012_34, "1.234e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (1_234_567.891, "1234567.8910000001"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
            (100.0, "100"),
            (1e-7, "9.9999999999999995e-08"),
            (123_456_789_012_345_680_000.0, "1.2345678901234568e+20"),
            (3.0e15, "3000000000000000"),
            (1e16, "10000000000000000"),
            (12_345_678_901_234_567.0, "12345678901234568"),
            (-2.25, "-2.25"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (-0.000_123, "-0.00012300000000000001"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn integers_are_read_strictly() {
        assert_eq!(parse_integer(b"0"), Some(0));
        assert_eq!(parse_integer(b"-1"), Some(-1));
        assert_eq!(parse_integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
        for bad in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            " 1",
            "1 ",
            "9223372036854775808",
            "-9223372036854775809",
            "1a",
            "--1",
        ] {
            assert_eq!(parse_integer(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_survive(value: i64) {
            let mut out = Vec::new();
            push_integer(&mut out, value);
            prop_assert_eq!(out.clone(), value.to_string().into_bytes());
            prop_assert_eq!(parse_integer(&out), Some(value));
        }

        #[test]
        fn doubles_survive(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(double(value).parse::<f64>().unwrap(), value);
        }
    }
}
