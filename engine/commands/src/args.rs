//! Arguments read as numbers, times and words.

use cairn_resp::parse_integer;

use crate::error::CommandError;

/// A signed integer, written as Redis writes one: no sign but '-', no space, no leading zero.
///
/// # Errors
/// [`CommandError::NotInteger`].
pub fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_integer(arg).ok_or(CommandError::NotInteger)
}

/// A floating point number; infinity is one, not-a-number is not.
///
/// # Errors
/// [`CommandError::NotFloat`].
pub fn float(arg: &[u8]) -> Result<f64, CommandError> {
    parse_float(arg).ok_or(CommandError::NotFloat)
}

/// As [`float`], without an error of its own.
#[must_use]
pub fn parse_float(arg: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(arg).ok()?;
    let value: f64 = text.parse().ok()?;
    // Digits that leave the range of doubles are refused rather than rounded to infinity or zero.
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let overflow = value.is_infinite() && text.contains(|c: char| c.is_ascii_digit());
    let underflow = value == 0.0 && mantissa.contains(|c| matches!(c, '1'..='9'));
    (!value.is_nan() && !overflow && !underflow).then_some(value)
}

/// A number that is not negative, such as a count; anything else is refused with `refusal`.
///
/// # Errors
/// [`CommandError::Other`].
pub fn natural(arg: &[u8], refusal: &'static str) -> Result<usize, CommandError> {
    let number = integer(arg).ok().and_then(|number| usize::try_from(number).ok());
    number.ok_or(CommandError::other(refusal))
}

/// As [`natural`], and not zero.
///
/// # Errors
/// [`CommandError::Other`].
pub fn positive(arg: &[u8], refusal: &'static str) -> Result<usize, CommandError> {
    natural(arg, refusal).ok().filter(|number| *number > 0).ok_or(CommandError::other(refusal))
}

/// How many random members are asked for: below zero, members may repeat.
///
/// # Errors
/// [`CommandError::NotInteger`], or [`CommandError::Other`] for the one number whose absolute value is none.
pub fn sample_size(arg: &[u8]) -> Result<i64, CommandError> {
    match integer(arg)? {
        i64::MIN => Err(CommandError::other(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// What HRANDFIELD and ZRANDMEMBER may say behind their key: how many (see [`sample_size`]), and the word that asks for
/// values or scores too.
///
/// # Errors
/// As [`sample_size`], and [`CommandError::Syntax`].
pub fn sample_options(args: &[&[u8]], with: &str) -> Result<(Option<i64>, bool), CommandError> {
    let Some(count) = args.get(2) else { return Ok((None, false)) };
    let count = sample_size(count)?;
    match &args[3..] {
        [] => Ok((Some(count), false)),
        [word] if !is(word, with) => Err(CommandError::Syntax),
        [_] if count.unsigned_abs() > i64::MAX as u64 / 2 => {
            Err(CommandError::other("ERR value is out of range"))
        }
        [_] => Ok((Some(count), true)),
        _ => Err(CommandError::Syntax),
    }
}

/// Whether an argument is this word, in any case.
#[inline]
#[must_use]
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// An expiry from an option or command: `amount` in seconds or milliseconds, from now or since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeUnit {
    /// Milliseconds in one unit.
    pub ms: i64,
    /// Counted from the Unix epoch, not from now.
    pub absolute: bool,
}

impl TimeUnit {
    /// EX, PX, EXAT or PXAT.
    #[must_use]
    pub fn of_option(arg: &[u8]) -> Option<TimeUnit> {
        [("ex", 1000, false), ("px", 1, false), ("exat", 1000, true), ("pxat", 1, true)]
            .into_iter()
            .find(|(word, ..)| is(arg, word))
            .map(|(_, ms, absolute)| TimeUnit { ms, absolute })
    }

    /// The time an amount names, in milliseconds since the Unix epoch; `None` when it does not fit.
    #[must_use]
    pub fn at_ms(self, amount: i64, now_ms: i64) -> Option<i64> {
        let ms = amount.checked_mul(self.ms)?;
        if self.absolute { Some(ms) } else { ms.checked_add(now_ms) }
    }
}

/// The part of `len` elements between two indexes, both included, negative ones counted from the end; `None` when
/// nothing lies between.
#[must_use]
pub fn clamp_range(start: i64, end: i64, len: usize) -> Option<std::ops::Range<usize>> {
    let size = i64::try_from(len).ok()?;
    let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let start = from_front(start).max(0);
    let end = from_front(end).min(size - 1);
    (start <= end).then(|| start as usize..end as usize + 1)
}

/// The sum of two decimals as INCRBYFLOAT and HINCRBYFLOAT store it: exact to 17 decimal places where both are plain
/// decimals, so that 0.1 + 0.2 is 0.3; `None` when it is not finite.
#[must_use]
pub fn add_decimals(a: &[u8], b: &[u8]) -> Option<String> {
    if let (Some(a), Some(b)) = (fixed_point(a), fixed_point(b))
        && let Some(sum) = a.checked_add(b)
    {
        let (sign, sum) = (if sum < 0 { "-" } else { "" }, round_to_64_bits(sum.unsigned_abs()));
        let scale = 10u128.pow(DECIMALS);
        let text = format!("{sign}{}.{:017}", sum / scale, sum % scale);
        return Some(text.trim_end_matches('0').trim_end_matches('.').to_owned());
    }
    let sum = parse_float(a)? + parse_float(b)?;
    sum.is_finite().then(|| {
        let text = format!("{sum:.17}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    })
}

/// Decimal places kept by [`add_decimals`].
const DECIMALS: u32 = 17;

/// A large sum (in units of 10^-17) rounded, half to even, to the 64 bits of precision that Redis computes with. Smaller
/// ones have places enough in them for what is kept.
fn round_to_64_bits(sum: u128) -> u128 {
    let scale = 10u128.pow(DECIMALS);
    let Some(exponent) = (sum / scale).checked_ilog2().filter(|exponent| *exponent >= 63 - DECIMALS) else {
        return sum;
    };
    // The last bit's weight is 2^(exponent - 63), a whole number of 10^-17 from 2^-17 on.
    let step = if exponent >= 63 { scale << (exponent - 63) } else { scale >> (63 - exponent) };
    let (quotient, rest) = (sum / step, sum % step);
    let up = rest * 2 > step || (rest * 2 == step && quotient % 2 == 1);
    (quotient + u128::from(up)) * step
}

/// A plain decimal in units of 10^-17; `None` when it is written otherwise or does not fit.
fn fixed_point(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !plain(whole) || !plain(fraction) {
        return None;
    }
    // 38 digits fit an i128: 20 before the point, enough for any integer, and 17 behind it.
    let places =
        DECIMALS as i32 - fraction.len() as i32 + exponent.parse::<i32>().ok().filter(|e| e.abs() <= 32)?;
    if places < 0 || whole.len() + fraction.len() + places as usize > 20 + DECIMALS as usize {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits * 10i128.pow(places as u32);
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_decimals_are_exact() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("-2.9", "3.0e2", "297.1"),
            ("-9223372036854775808", "3.0e2", "-9223372036854775508"),
            ("15e-1", "0.1", "1.6"),
            ("1e-17", "1", "1.00000000000000001"),
            ("1e30", "1", "1000000000000000019884624838656"),
            ("-1", "1", "0"),
            ("-0.5", "0.25", "-0.25"),
            ("3", "-1.1", "1.9"),
            ("9223372036854775807", "1.5", "9223372036854775808"),
            ("4611686018427387904", "0.3", "4611686018427387904.5"),
        ] {
            assert_eq!(add_decimals(a.as_bytes(), b.as_bytes()).as_deref(), Some(sum));
        }
        assert_eq!(add_decimals(b"inf", b"1"), None);
    }

    #[test]
    fn ranges_are_clamped_to_what_is_there() {
        assert_eq!(clamp_range(0, -1, 5), Some(0..5));
        assert_eq!(clamp_range(-3, -2, 5), Some(2..4));
        assert_eq!(clamp_range(3, 1, 5), None);
        assert_eq!(clamp_range(0, 100, 5), Some(0..5));
        assert_eq!(clamp_range(i64::MIN, i64::MAX, 5), Some(0..5));
        assert_eq!(clamp_range(0, -1, 0), None);
    }
}
