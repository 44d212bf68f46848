//! Integers as text, and the rule that says when a text *is* an integer.

/// The value of `text` when it is the one canonical decimal form of an `i64`: no sign but `-`, no leading zero, no
/// space. Only such texts may be stored as integers, because only they come back byte for byte.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [first @ b'0'..=b'9', rest @ ..] => {
            if *first == b'0' {
                return rest.is_empty().then_some(0);
            }
            i64::try_from(magnitude(text)?).ok()
        }
        [b'-', digits @ ..] => {
            if !matches!(digits.first(), Some(b'1'..=b'9')) {
                return None;
            }
            let magnitude = magnitude(digits)?;
            (magnitude <= i64::MIN.unsigned_abs()).then(|| 0i64.wrapping_sub_unsigned(magnitude))
        }
        _ => None,
    }
}

/// At most nineteen digits: more never fit, and nineteen never overflow a `u64`.
#[inline]
fn magnitude(digits: &[u8]) -> Option<u64> {
    if digits.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// The decimal text of an `i64`, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    buffer: [u8; 20],
    start: u8,
}

impl Digits {
    /// The text of `value`.
    #[inline]
    pub fn new(value: i64) -> Self {
        let mut buffer = [0u8; 20];
        let mut start = 20u8;
        let mut rest = value.unsigned_abs();
        let mut sign = value < 0;
        for slot in buffer.iter_mut().rev() {
            if rest == 0 && start < 20 {
                if !std::mem::take(&mut sign) {
                    break;
                }
                *slot = b'-';
            } else {
                *slot = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            start -= 1;
        }
        Self { buffer, start }
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(usize::from(self.start)..).unwrap_or_default()
    }
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_parse_are_inverse() {
        for value in [0, 1, -1, 9, 10, -10, 127, 128, 99_999, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(Digits::new(value).as_bytes(), value.to_string().as_bytes());
            assert_eq!(parse_i64(&Digits::new(value)), Some(value));
        }
    }

    #[test]
    fn only_canonical_texts_are_integers() {
        for text in
            ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_i64(b"99999999999999999999"), None);
    }
}
