//! The directives about backups: where they go, when, and what happens when they do not; and about where data comes from
//! that is not there.

use super::Settings;
use std::time::Duration;

/// How long something may take, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) ms: u64,
}

impl Span {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }

    /// For another program: in seconds, or in milliseconds where those need a fraction.
    pub(crate) fn argument(self) -> String {
        if self.ms.is_multiple_of(1000) { format!("{}s", self.ms / 1000) } else { format!("{}ms", self.ms) }
    }

    /// A number with a unit; without one it is seconds.
    fn parse(word: &str) -> Option<Span> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = word.split_at(digits);
        let unit = if unit.is_empty() { "s" } else { unit };
        let (_, factor) = Self::UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
        // Far from where sums of such numbers overflow.
        let ms = number.parse::<u64>().ok()?.checked_mul(*factor).filter(|ms| *ms <= 1 << 50)?;
        Some(Span { ms })
    }
}

/// In the greatest unit that needs no fraction.
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit =
            Self::UNITS.iter().rev().find(|(_, factor)| self.ms > 0 && self.ms.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.ms / factor),
            None => f.write_str("0"),
        }
    }
}

/// Where a data directory without data gets some from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seed {
    /// A repository, or a file or directory of another kind; empty: nowhere.
    pub(crate) from: String,
    /// A repository that does not exist is no error.
    pub(crate) or_empty: bool,
}

/// What makes no sense together: the directive that is in the way, and why.
pub(crate) fn contradiction(settings: &Settings) -> Option<(&'static str, &'static str)> {
    let has_backup = !settings.backup_url.is_empty();
    let need_backup = [
        ("backup-schedule", !settings.backup_schedule.is_empty()),
        ("backup-max-lag", settings.backup_max_lag.ms > 0),
        ("backup-on-failure", !settings.backup_on_failure.is_empty()),
    ];
    if let Some((directive, _)) = need_backup.into_iter().find(|(_, is_given)| *is_given && !has_backup) {
        return Some((directive, "it needs a backup-url: without one there is no backup"));
    }
    if has_backup && !settings.appendonly {
        return Some(("appendonly", NO_JOURNAL));
    }
    let is_lost = !settings.seed_time.is_empty() && settings.seed.from.is_empty();
    is_lost.then_some(("seed-time", "it needs a seed-from, which says where the data comes from"))
}

const NO_JOURNAL: &str =
    "a backup follows the journal, so it needs appendonly yes; without a journal there is nothing to follow";

fn one<'a>(words: &[&'a str]) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err("wrong number of arguments".into()),
    }
}

/// Reads where backups go. Whoever reads the configuration may see it, so no credentials belong in it.
pub(super) fn set_url(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let url = one(words)?;
    refuse_credentials(url)?;
    if !url.is_empty() && !url.contains("://") {
        return Err("argument must be the URL of a repository, file:///path or s3://bucket/prefix".into());
    }
    url.clone_into(&mut settings.backup_url);
    Ok(())
}

pub(super) fn show_url(settings: &Settings) -> String {
    settings.backup_url.clone()
}

fn refuse_credentials(url: &str) -> Result<(), String> {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.contains('@') {
        return Err(
            "credentials do not belong in a URL; set them in the environment, AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY for S3"
                .into(),
        );
    }
    Ok(())
}

pub(super) fn set_interval(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let span = Span::parse(one(words)?).ok_or(NO_SPAN)?;
    if !(100..=86_400_000).contains(&span.ms) {
        return Err("argument must be between 100ms and 1d".into());
    }
    settings.backup_interval = span;
    Ok(())
}

pub(super) fn show_interval(settings: &Settings) -> String {
    settings.backup_interval.to_string()
}

/// Reads how far the backup may be behind; 0: as far as it likes.
pub(super) fn set_max_lag(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    settings.backup_max_lag = Span::parse(one(words)?).ok_or(NO_SPAN)?;
    Ok(())
}

pub(super) fn show_max_lag(settings: &Settings) -> String {
    settings.backup_max_lag.to_string()
}

const NO_SPAN: &str = "argument must be a time such as 500ms, 90s, 5m, 2h or 7d";

/// Reads when snapshots are made, in cron's five fields. What they mean is checked by the agent.
pub(super) fn set_schedule(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let is_field = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"*/,-?".contains(&b));
    let is_name = |word: &str| word.starts_with('@');
    match words.as_slice() {
        [] => {}
        [name] if is_name(name) => {}
        fields if fields.len() == 5 && fields.iter().all(is_field) => {}
        _ => return Err("argument must be the five fields of cron, such as 0 3 * * *".into()),
    }
    settings.backup_schedule = words.join(" ");
    Ok(())
}

pub(super) fn show_schedule(settings: &Settings) -> String {
    settings.backup_schedule.clone()
}

/// Reads where data comes from; `or-empty` behind it may be part of the same word, as quotes make it.
pub(super) fn set_seed(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let text = match words {
        [text] => (*text).to_owned(),
        [from, word] => format!("{from} {word}"),
        _ => return Err("argument must be a URL or a path, and may be followed by or-empty".into()),
    };
    let (from, or_empty) = match text.strip_suffix(" or-empty") {
        Some(from) => (from, true),
        None if words.len() == 1 => (text.as_str(), false),
        None => return Err("only or-empty may follow the URL or the path".into()),
    };
    refuse_credentials(from)?;
    settings.seed = Seed { from: from.trim().to_owned(), or_empty };
    Ok(())
}

pub(super) fn show_seed(settings: &Settings) -> String {
    let Seed { from, or_empty } = &settings.seed;
    if *or_empty { format!("{from} or-empty") } else { from.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units_and_are_shown_in_the_greatest_that_fits() {
        for (text, ms, shown) in [
            ("0", 0, "0"),
            ("1", 1000, "1s"),
            ("500ms", 500, "500ms"),
            ("90S", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("48h", 172_800_000, "2d"),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!((span.ms, span.to_string().as_str()), (ms, shown), "{text}");
            assert_eq!(Span::parse(&span.argument()), Some(span));
        }
        for wrong in ["", "s", "-1", "1.5s", "1w", "1 s", "99999999999999999999", "18446744073709551d"] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_an_agent_is_started_with_it() {
        let settings = Settings::defaults();
        let set = |set: fn(&mut Settings, &[&str]) -> Result<(), String>, words: &[&str]| {
            let mut changed = settings.clone();
            set(&mut changed, words).map(|()| changed)
        };
        assert_eq!(set(set_url, &["s3://bucket/prefix"]).unwrap().backup_url, "s3://bucket/prefix");
        assert!(set(set_url, &["s3://key:secret@bucket/prefix"]).unwrap_err().contains("environment"));
        assert!(!set(set_url, &["s3://key:secret@bucket/prefix"]).unwrap_err().contains("secret@"));
        assert!(set(set_url, &["/some/path"]).is_err());
        assert_eq!(set(set_schedule, &["0 3 * * *"]).unwrap().backup_schedule, "0 3 * * *");
        assert_eq!(set(set_schedule, &["0", "3", "*", "*", "1-5"]).unwrap().backup_schedule, "0 3 * * 1-5");
        assert_eq!(set(set_schedule, &["@daily"]).unwrap().backup_schedule, "@daily");
        assert!(set(set_schedule, &["0 3 * *"]).is_err() && set(set_schedule, &["0 3 * * $(x)"]).is_err());
        assert_eq!(show_seed(&set(set_seed, &["s3://b/p", "or-empty"]).unwrap()), "s3://b/p or-empty");
        assert_eq!(show_seed(&set(set_seed, &["/a b or-empty"]).unwrap()), "/a b or-empty");
        assert!(set(set_seed, &["s3://b/p", "or-else"]).is_err());
        assert!(set(set_interval, &["0"]).is_err() && set(set_interval, &["99ms"]).is_err());
    }
}
