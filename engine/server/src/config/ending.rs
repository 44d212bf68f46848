//! `shutdown-on-sigint` and `shutdown-on-sigterm`: how the server ends when it is told to by a signal.

use super::Settings;

/// What SHUTDOWN would be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// `None`: as the save points say.
    pub(crate) save: Option<bool>,
    /// There is no replica to wait for, so this is only shown.
    now: bool,
    pub(crate) force: bool,
}

impl Ending {
    fn parse(words: &[&str]) -> Result<Ending, String> {
        let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
        let mut ending = Ending::default();
        for word in &words {
            match word.to_ascii_lowercase().as_str() {
                "default" if words.len() == 1 => {}
                "save" if ending.save != Some(false) => ending.save = Some(true),
                "nosave" if ending.save != Some(true) => ending.save = Some(false),
                "now" => ending.now = true,
                "force" => ending.force = true,
                _ => return Err(NO_SUCH.into()),
            }
        }
        if words.is_empty() { Err(NO_SUCH.into()) } else { Ok(ending) }
    }

    fn show(self) -> String {
        let words = [
            (self.save == Some(true), "save"),
            (self.save == Some(false), "nosave"),
            (self.now, "now"),
            (self.force, "force"),
        ];
        let words: Vec<&str> = words.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
        if words.is_empty() { "default".to_owned() } else { words.join(" ") }
    }
}

const NO_SUCH: &str = "argument(s) must be one of the following: default, save, nosave, now, force";

pub(super) fn set_sigint(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    settings.shutdown_on_sigint = Ending::parse(words)?;
    Ok(())
}

pub(super) fn show_sigint(settings: &Settings) -> String {
    settings.shutdown_on_sigint.show()
}

pub(super) fn set_sigterm(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    settings.shutdown_on_sigterm = Ending::parse(words)?;
    Ok(())
}

pub(super) fn show_sigterm(settings: &Settings) -> String {
    settings.shutdown_on_sigterm.show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_stand_in_any_order_but_not_contradict() {
        let shown = |words: &[&str]| Ending::parse(words).map(Ending::show);
        assert_eq!(shown(&["nosave", "force", "NOW"]).unwrap(), "nosave now force");
        assert_eq!(shown(&["save force"]).unwrap(), "save force");
        assert_eq!(shown(&["default"]).unwrap(), "default");
        for wrong in [&["save", "nosave"][..], &["default", "now"], &[""], &[], &["later"]] {
            assert!(shown(wrong).is_err(), "{wrong:?}");
        }
    }
}
