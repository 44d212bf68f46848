//! The committed lists: failures that are known, and what is left out. Both are tables in Markdown, so that a person reads
//! what the program reads.

use crate::settings::Mode;
use cairn_tests::programs;

/// Failures that fail nothing, each with its reason.
pub(crate) const EXCEPTIONS: &str = "tests/redis-suite-exceptions.md";
/// Files, tests and directives that do not run, each with its reason.
pub(crate) const LEFT_OUT: &str = "tests/redis-suite-left-out.md";

/// A row: `| mode | file | test | reason |`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// `external`, `own` or `both`.
    mode: String,
    /// As in `unit/type/list`; `directive` where `test` is a directive that the wrapper takes out.
    pub(crate) file: String,
    /// The test's name, `*` for the whole file, or a line outside any test, behind `line: `.
    pub(crate) test: String,
}

impl Row {
    /// The line that it takes out of the file, in place of a test.
    pub(crate) fn line(&self) -> Option<&str> {
        self.test.strip_prefix("line: ")
    }

    /// Whether it speaks of this mode.
    pub(crate) fn is_for(&self, mode: Mode) -> bool {
        self.mode == "both" || self.mode == mode.name()
    }
}

/// The rows of a list.
pub(crate) fn read(list: &str) -> Result<Vec<Row>, String> {
    let path = programs::repository().join(list);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{list}: {error}"))?;
    parse(&text).map_err(|(line, why)| format!("{list}:{line}: {why}"))
}

fn parse(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fault = |why: String| (index + 1, why);
        let Some(inner) = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
            continue;
        };
        // A bar inside a test's name is written `\|`, as Markdown asks.
        let joined = inner.replace("\\|", "\u{0}");
        let cells: Vec<String> =
            joined.split('|').map(|cell| cell.trim().trim_matches('`').replace('\u{0}', "|")).collect();
        let [mode, file, test, reason] = cells.as_slice() else {
            return Err(fault(format!("four cells were expected, not {}", cells.len())));
        };
        if mode == "mode" || mode.starts_with("--") {
            continue;
        }
        if !["external", "own", "both"].contains(&mode.as_str()) {
            return Err(fault(format!("there is no mode {mode:?}")));
        }
        if file.is_empty() || test.is_empty() || reason.is_empty() {
            return Err(fault("a row names file, test and reason".to_owned()));
        }
        rows.push(Row { mode: mode.clone(), file: file.clone(), test: test.clone() });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_among_the_prose() {
        let text = "# Title\n\nWords | more words\n\n| mode | file | test | reason |\n|---|---|---|---|\n\
                    | own | `unit/acl` | `A \\| B` | no `|` here |\n";
        assert_eq!(parse(text), Err((7, "four cells were expected, not 5".to_owned())));
        let text = text.replace("no `|` here", "because");
        let rows = parse(&text).expect("a good list");
        assert_eq!(rows, [Row { mode: "own".into(), file: "unit/acl".into(), test: "A | B".into() }]);
        assert!(rows[0].is_for(Mode::Own) && !rows[0].is_for(Mode::External));
        assert_eq!(
            parse("| own | unit/acl | | x |"),
            Err((1, "a row names file, test and reason".to_owned()))
        );
    }

    #[test]
    fn the_committed_lists_can_be_read() {
        let exceptions = read(EXCEPTIONS).expect("the exceptions");
        assert!(exceptions.len() <= 15, "{} exceptions are too many", exceptions.len());
        assert!(!read(LEFT_OUT).expect("what is left out").is_empty());
    }
}
