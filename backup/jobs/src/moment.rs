//! Moments as text: UTC, to the millisecond.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-23T10:15:04.250Z`
pub fn rfc3339(unix_ms: u64) -> String {
    let (year, month, day, [h, m, s, ms]) = civil(unix_ms);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// `20261123T101504250Z`: the same without punctuation, for names; it sorts as the moments do.
pub(crate) fn compact(unix_ms: u64) -> String {
    let (year, month, day, [h, m, s, ms]) = civil(unix_ms);
    format!("{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}{ms:03}Z")
}

/// Year, month, day and the time of day, by counting 400-year cycles of 146,097 days that begin on 1 March.
fn civil(unix_ms: u64) -> (u64, u64, u64, [u64; 4]) {
    let (days, rest) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let since_march_0000 = days + 719_468;
    let (cycle, day_of_cycle) = (since_march_0000 / 146_097, since_march_0000 % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day, [rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(compact(1_795_428_904_250), "20261123T101504250Z");
        assert_eq!(rfc3339(1_798_761_599_000), "2026-12-31T23:59:59.000Z");
    }
}
