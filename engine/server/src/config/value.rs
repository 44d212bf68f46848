//! The kinds of value a directive can have: how each is read, shown and written to a file.

use super::Settings;
use std::ops::RangeInclusive;

/// Where a directive's value lies.
pub(crate) struct Field<T: 'static> {
    pub(crate) get: fn(&Settings) -> &T,
    pub(crate) get_mut: fn(&mut Settings) -> &mut T,
}

/// What a directive's value is.
pub(crate) enum Kind {
    /// `yes` or `no`.
    Flag(Field<bool>),
    /// A whole number.
    Integer(Field<i64>, RangeInclusive<i64>),
    /// A number of bytes, with units.
    Bytes(Field<u64>, RangeInclusive<u64>),
    /// Permission bits, in octal.
    Mode(Field<u32>),
    /// One word or quoted text.
    Text(Field<String>),
    /// Any number of words.
    Words(Field<Vec<String>>),
    /// Pairs of seconds and changes; a repeated directive adds to those before.
    SavePoints(Field<Vec<(u64, u64)>>),
    /// Any number of percentiles, from 0 to 100.
    Percentiles(Field<Vec<String>>),
    /// Words that are read and shown in a way of their own; a repeated directive adds to those before.
    Custom { set: fn(&mut Settings, &[&str]) -> Result<(), String>, show: fn(&Settings) -> String },
    /// One of some names.
    Choice { names: &'static [&'static str], get: fn(&Settings) -> usize, set: fn(&mut Settings, usize) },
    /// Known, checked, kept and shown; but what it would change is not there, or goes another way.
    Kept { name: &'static str, check: Check, why: &'static str },
    /// Known, but only this value is what the server does; `usual` is one that files of other servers carry, harmless to
    /// accept with a warning.
    Fixed { value: &'static str, usual: Option<&'static str>, why: &'static str },
}

/// What a value must be that is only kept.
pub(crate) enum Check {
    /// `yes` or `no`.
    Flag,
    /// A whole number.
    Integer(RangeInclusive<i64>),
    /// A number of bytes, with units; kept without them.
    Bytes,
    /// Anything.
    Text,
}

impl Check {
    /// The value as it is shown.
    fn normal(&self, word: &str) -> Result<String, String> {
        match self {
            Check::Flag => Ok(if flag(word)? { "yes" } else { "no" }.to_owned()),
            Check::Integer(range) => Ok(within(integer(word)?, range)?.to_string()),
            Check::Bytes => Ok(bytes(word)?.to_string()),
            Check::Text => Ok(word.to_owned()),
        }
    }
}

fn flag(word: &str) -> Result<bool, String> {
    match word.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("argument must be 'yes' or 'no'".into()),
    }
}

fn integer(word: &str) -> Result<i64, String> {
    word.parse().map_err(|_| "argument couldn't be parsed into an integer".into())
}

fn bytes(word: &str) -> Result<u64, String> {
    parse_bytes(word).ok_or_else(|| "argument must be a memory value".into())
}

impl Kind {
    /// Sets the value to what a file's or the command line's words say.
    pub(crate) fn set(&self, settings: &mut Settings, words: &[&str]) -> Result<(), String> {
        match self {
            Kind::Words(field) => {
                *(field.get_mut)(settings) =
                    words.iter().filter(|w| !w.is_empty()).map(|&w| w.to_owned()).collect();
                Ok(())
            }
            Kind::Custom { set, .. } => set(settings, words),
            Kind::SavePoints(field) => {
                let points = save_points(words)?;
                *(field.get_mut)(settings) = points;
                Ok(())
            }
            Kind::Percentiles(field) => {
                let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
                // As the shortest text of the number: `50.0` is shown as `50`.
                let percent = |word: &&str| {
                    let percent = word.parse().ok().filter(|percent: &f64| (0.0..=100.0).contains(percent));
                    percent.map(|percent| percent.to_string())
                };
                let shown: Option<Vec<String>> = words.iter().map(percent).collect();
                *(field.get_mut)(settings) = shown
                    .ok_or("latency-tracking-info-percentiles should consist of numbers from 0 to 100")?;
                Ok(())
            }
            // Some of them are several words.
            Kind::Kept { .. } | Kind::Fixed { .. } => self.set_word(settings, &words.join(" ")),
            _ => match words {
                [word] => self.set_word(settings, word),
                _ => Err("wrong number of arguments".into()),
            },
        }
    }

    /// Sets the value to the one text CONFIG SET gives, which may be several words.
    pub(crate) fn set_one(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match self {
            Kind::Words(_) | Kind::SavePoints(_) | Kind::Percentiles(_) | Kind::Custom { .. } => {
                let words: Vec<&str> = text.split_whitespace().collect();
                self.set(settings, if words.is_empty() { &[""] } else { &words })
            }
            _ => self.set_word(settings, text),
        }
    }

    fn set_word(&self, settings: &mut Settings, word: &str) -> Result<(), String> {
        match self {
            Kind::Flag(field) => {
                *(field.get_mut)(settings) = flag(word)?;
            }
            Kind::Integer(field, range) => {
                *(field.get_mut)(settings) = within(integer(word)?, range)?;
            }
            Kind::Bytes(field, range) => {
                *(field.get_mut)(settings) = within(bytes(word)?, range)?;
            }
            Kind::Mode(field) => {
                let mode = u32::from_str_radix(word, 8).ok().filter(|&m| m <= 0o777);
                *(field.get_mut)(settings) = mode.ok_or("argument must be an octal number up to 777")?;
            }
            Kind::Text(field) => word.clone_into((field.get_mut)(settings)),
            Kind::Choice { names, set, .. } => {
                let chosen = names.iter().position(|name| name.eq_ignore_ascii_case(word));
                let none = || format!("argument(s) must be one of the following: {}", names.join(", "));
                set(settings, chosen.ok_or_else(none)?);
            }
            Kind::Kept { name, check, .. } => {
                settings.kept.insert(name, check.normal(word)?);
            }
            Kind::Fixed { value, usual, why } => {
                if !word.eq_ignore_ascii_case(value)
                    && usual.is_none_or(|usual| !word.eq_ignore_ascii_case(usual))
                {
                    return Err(format!("only '{value}' is provided: {why}"));
                }
            }
            Kind::Words(_) | Kind::SavePoints(_) | Kind::Percentiles(_) | Kind::Custom { .. } => {
                return self.set(settings, &[word]);
            }
        }
        Ok(())
    }

    /// The value as CONFIG GET shows it.
    pub(crate) fn show(&self, settings: &Settings) -> String {
        match self {
            Kind::Flag(field) => if *(field.get)(settings) { "yes" } else { "no" }.to_owned(),
            Kind::Integer(field, _) => (field.get)(settings).to_string(),
            Kind::Bytes(field, _) => (field.get)(settings).to_string(),
            Kind::Mode(field) => format!("{:o}", (field.get)(settings)),
            Kind::Text(field) => (field.get)(settings).clone(),
            Kind::Words(field) | Kind::Percentiles(field) => (field.get)(settings).join(" "),
            Kind::SavePoints(field) => {
                let points = (field.get)(settings).iter();
                points.map(|(seconds, changes)| format!("{seconds} {changes}")).collect::<Vec<_>>().join(" ")
            }
            Kind::Custom { show, .. } => show(settings),
            Kind::Choice { names, get, .. } => names[get(settings)].to_owned(),
            Kind::Kept { name, .. } => settings.kept.get(name).cloned().unwrap_or_default(),
            Kind::Fixed { value, .. } => (*value).to_owned(),
        }
    }

    /// The value as a configuration file holds it.
    pub(crate) fn line(&self, settings: &Settings) -> String {
        let shown = self.show(settings);
        match self {
            Kind::Words(_) | Kind::SavePoints(_) | Kind::Percentiles(_) | Kind::Custom { .. }
                if !shown.is_empty() =>
            {
                shown
            }
            _ if !shown.is_empty()
                && shown.bytes().all(|b| b.is_ascii_graphic() && !b"\"'#\\".contains(&b)) =>
            {
                shown
            }
            _ => quoted(&shown),
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(
    value: T,
    range: &RangeInclusive<T>,
) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()))
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out + "\""
}

/// Reads a number of bytes: `k m g` are powers of 1000, `kb mb gb` of 1024, in any case.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn save_points(words: &[&str]) -> Result<Vec<(u64, u64)>, String> {
    // Quoted, they come as one word.
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let invalid = || "Invalid save parameters".to_owned();
    let mut points = Vec::new();
    for pair in words.chunks(2) {
        let [seconds, changes] = pair else { return Err(invalid()) };
        match (seconds.parse::<u64>(), changes.parse::<u64>()) {
            (Ok(seconds), Ok(changes)) if seconds > 0 => points.push((seconds, changes)),
            _ => return Err(invalid()),
        }
    }
    Ok(points)
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$default:meta])* $variant:ident = $text:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) enum $name { $($(#[$default])* $variant),* }

        impl $name {
            pub(crate) const NAMES: &[&str] = &[$($text),*];
            pub(crate) const ALL: &[$name] = &[$($name::$variant),*];
        }
    )*};
}

choices! {
    /// `appendfsync`.
    Fsync { Always = "always", #[default] EverySecond = "everysec", No = "no" }
    /// `loglevel`.
    LogLevel { Debug = "debug", Verbose = "verbose", #[default] Notice = "notice", Warning = "warning", Nothing = "nothing" }
    /// `maxmemory-policy`.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru", VolatileLfu = "volatile-lfu", VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl", AllKeysLru = "allkeys-lru", AllKeysLfu = "allkeys-lfu",
        AllKeysRandom = "allkeys-random", #[default] NoEviction = "noeviction"
    }
    /// `log-format`.
    LogFormat { #[default] Text = "text", Json = "json" }
    /// `enable-debug-command`.
    DebugCommand { #[default] No = "no", Yes = "yes", Local = "local" }
    /// `acl-pubsub-default`.
    PubsubDefault { All = "allchannels", #[default] None = "resetchannels" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_redis() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("10b", Some(10)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("2m", Some(2_000_000)),
            ("2Mb", Some(2 << 20)),
            ("1g", Some(1_000_000_000)),
            ("1gb", Some(1 << 30)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("1 mb", None),
            ("1tb", None),
            ("99999999999999999999", None),
            ("18446744073709551615gb", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn save_points_come_in_pairs() {
        assert_eq!(save_points(&["60", "1", "5", "2"]), Ok(vec![(60, 1), (5, 2)]));
        assert_eq!(save_points(&["60 1", "5 2"]), Ok(vec![(60, 1), (5, 2)]));
        assert_eq!(save_points(&[""]), Ok(vec![]));
        for bad in [&["60"][..], &["0", "1"], &["x", "1"], &["60", "-1"], &["60", "1", "2"]] {
            assert!(save_points(bad).is_err(), "{bad:?}");
        }
    }
}
