//! When snapshots are due.

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::JobError;

/// A schedule in cron's syntax, in UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads one: five fields, or a name such as `@daily`.
    ///
    /// # Errors
    /// [`JobError::Usage`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, JobError> {
        let bad = |error: &dyn std::fmt::Display| {
            JobError::Usage(format!(
                "the schedule {text:?} is not cron's syntax, such as \"0 3 * * *\" or \"@daily\": {error}"
            ))
        };
        let cron: Cron = text.parse().map_err(|error: croner::errors::CronError| bad(&error))?;
        Ok(Self(cron))
    }

    /// Whether a moment of the schedule lies after `since` and not after `now`, both in milliseconds since 1970.
    pub(crate) fn is_due(&self, since_unix_ms: u64, now_unix_ms: u64) -> bool {
        let (Some(since), Some(now)) = (moment(since_unix_ms), moment(now_unix_ms)) else { return false };
        self.0.find_next_occurrence(&since, false).is_ok_and(|next| next <= now)
    }
}

fn moment(unix_ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(unix_ms).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_is_what_lies_between() {
        // 2026-11-23T10:15:04.250Z
        let since = 1_795_428_904_250;
        let hour = 3_600_000;
        let hourly = Schedule::parse("0 * * * *").unwrap();
        assert!(!hourly.is_due(since, since + hour / 2));
        assert!(hourly.is_due(since, since + hour));
        let daily = Schedule::parse("@daily").unwrap();
        assert!(!daily.is_due(since, since + 13 * hour));
        assert!(daily.is_due(since, since + 14 * hour));
        for bad in ["", "x", "61 * * * *", "* * *"] {
            assert_eq!(Schedule::parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
