//! The directive about memory that a snapshot may take: `snapshot-cow-limit`.

use super::Settings;
use super::value::parse_bytes;
use cairn_engine::CopyLimit;

/// Reads bytes, or a percentage of the memory that is available when a snapshot begins.
pub(crate) fn set_copy_limit(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let [word] = words else { return Err("wrong number of arguments".into()) };
    settings.copy_limit = match word.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().map_err(|_| "argument must be a memory or percent value")?;
            if percent > 100 {
                return Err("percentage argument must be less or equal to 100".into());
            }
            CopyLimit::PercentOfAvailable(percent)
        }
        None => CopyLimit::Bytes(parse_bytes(word).ok_or("argument must be a memory or percent value")?),
    };
    Ok(())
}

/// The limit, as CONFIG GET shows it.
pub(crate) fn show_copy_limit(settings: &Settings) -> String {
    match settings.copy_limit {
        CopyLimit::Bytes(bytes) => bytes.to_string(),
        CopyLimit::PercentOfAvailable(percent) => format!("{percent}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_bytes_or_a_share_of_what_is_there() {
        let settings = Settings::defaults();
        assert_eq!(show_copy_limit(&settings), "80%");
        let shown =
            |value: &[u8]| settings.with(&[(b"snapshot-cow-limit", value)]).map(|s| show_copy_limit(&s));
        assert_eq!(shown(b"2kb").unwrap(), "2048");
        assert_eq!(shown(b"7%").unwrap(), "7%");
        assert_eq!(shown(b"0").unwrap(), "0");
        for wrong in [&b"101%"[..], b"x", b"", b"-1", b"%"] {
            assert!(shown(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
