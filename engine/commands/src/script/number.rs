//! Numbers as C's `%.*g` writes them, which is how the language and its libraries do.

use std::fmt::Write;

/// Appends `value` with so many significant digits, trailing zeros left out.
pub(super) fn push_general(out: &mut Vec<u8>, value: f64, digits: usize) {
    if value.is_nan() {
        out.extend_from_slice(if value.is_sign_negative() { b"-nan" } else { b"nan" });
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-inf" } else { b"inf" });
        return;
    }
    if value.fract() == 0.0 && value.abs() < 1e14 && (value != 0.0 || value.is_sign_positive()) {
        cairn_resp::push_integer(out, value as i64);
        return;
    }
    let digits = digits.max(1);
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut text = String::new();
    if exponent < -4 || exponent >= digits as i32 {
        text.push_str(without_zeros(mantissa));
        // Writing to a string cannot fail.
        let _ = write!(text, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    } else {
        let fixed = format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize);
        text.push_str(without_zeros(&fixed));
    }
    out.extend_from_slice(text.as_bytes());
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn general(value: f64, digits: usize) -> String {
        let mut out = Vec::new();
        push_general(&mut out, value, digits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_look_as_c_writes_them() {
        assert_eq!(general(9007199254740991.0, 17), "9007199254740991");
        assert_eq!(general(0.1, 17), "0.10000000000000001");
        assert_eq!(general(1e17, 17), "1e+17");
        assert_eq!(general(1e-5, 17), "1.0000000000000001e-05");
        assert_eq!(general(0.0001, 14), "0.0001");
        assert_eq!(general(1e100, 14), "1e+100");
        assert_eq!(general(123456789012345.0, 14), "1.2345678901234e+14");
        assert_eq!(general(-2.5, 14), "-2.5");
        assert_eq!(general(-0.0, 17), "-0");
        assert_eq!(general(f64::NEG_INFINITY, 17), "-inf");
    }
}
