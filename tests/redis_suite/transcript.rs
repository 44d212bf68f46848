//! What the suite's runner prints, read back.

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It passed.
    Passed(String),
    /// It failed, with what was said.
    Failed {
        /// Its name.
        test: String,
        /// Why.
        why: String,
    },
    /// It, or a group of tests without a name, was not meant to run.
    Skipped(String),
    /// The runner gave up: the test that was running, if it knows.
    Hung(Option<String>),
    /// An error outside any test ended the file.
    Broken(String),
    /// The file was run to its end.
    Done,
}

/// The events of a transcript in their order.
pub(crate) fn read(text: &str, unit: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((status, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) else {
            // `sock1 => (IN PROGRESS) name`, of the report that follows a timeout.
            if let (Some(Event::Hung(test @ None)), Some((_, name))) =
                (events.last_mut(), line.split_once("=> (IN PROGRESS) "))
            {
                *test = Some(name.to_owned());
            }
            continue;
        };
        // What belongs to a failure stands in the lines after it.
        let mut more = || {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| !begins_event(line)) {
                text.push_str(line);
                text.push('\n');
            }
            text.trim_end().to_owned()
        };
        match status {
            "ok" => events.push(Event::Passed(without_time(rest).to_owned())),
            "err" => {
                let test = rest.strip_suffix(&format!(" in tests/{unit}.tcl")).unwrap_or(rest).to_owned();
                let why = more();
                // The configuration comes first, and what the server said of it last.
                events.push(match (test.as_str(), why.lines().last()) {
                    ("Can't start the Redis server", Some(said)) => Event::Broken(format!("{said}\n{why}")),
                    _ => Event::Failed { test, why: whole_message(why) },
                });
            }
            "exception" => events.push(Event::Broken(format!("{rest}\n{}", more()))),
            "TIMEOUT" => events.push(Event::Hung(None)),
            "skip" | "ignore" => events.push(Event::Skipped(rest.to_owned())),
            _ if status.ends_with("done") => events.push(Event::Done),
            _ => {}
        }
    }
    events
}

fn begins_event(line: &str) -> bool {
    const STATUSES: [&str; 7] = ["ok]", "err]", "exception]", "TIMEOUT]", "skip]", "ignore]", "testing]"];
    match line.strip_prefix('[') {
        Some(rest) => {
            STATUSES.iter().any(|status| rest.starts_with(status))
                || rest
                    .split_once(' ')
                    .is_some_and(|(counts, rest)| counts.contains('/') && rest.starts_with("done]"))
        }
        None => line.trim() == "The End" || line.starts_with("Killing still running"),
    }
}

/// Of an error that is no assertion the runner cuts the first letters off; the trace that follows has it whole.
fn whole_message(text: String) -> String {
    match text.split_once('\n') {
        Some((cut, trace)) if trace.lines().next().is_some_and(|whole| whole.ends_with(cut)) => {
            trace.to_owned()
        }
        _ => text,
    }
}

/// `name (12 ms)` without the time.
fn without_time(text: &str) -> &str {
    match text.rsplit_once(" (") {
        Some((name, time)) if time.ends_with(" ms)") => name,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_apart() {
        let text = "Testing unit/scan\n\
            [ok]: SCAN (basic) (12 ms)\n\
            [err]: SCAN TYPE in tests/unit/scan.tcl\n\
            Expected '1' to be equal to '2'\n\
            [context] more of it\n\
            [ignore]: Tag: slow denied\n\
            [ok]: last (0 ms)\n\
            [1/1 done]: unit/scan (3 seconds)\n\n                   The End\n\
            *** [err]: SCAN TYPE in tests/unit/scan.tcl\n";
        assert_eq!(
            read(text, "unit/scan"),
            [
                Event::Passed("SCAN (basic)".into()),
                Event::Failed {
                    test: "SCAN TYPE".into(),
                    why: "Expected '1' to be equal to '2'\n[context] more of it".into()
                },
                Event::Skipped("Tag: slow denied".into()),
                Event::Passed("last".into()),
                Event::Done,
            ]
        );
    }

    #[test]
    fn an_error_is_shown_whole() {
        let text = "[err]: DEL in tests/unit/keyspace.tcl\nn command 'DEL'\nERR unknown command 'DEL'\n    while executing\n";
        let why = "ERR unknown command 'DEL'\n    while executing".to_owned();
        assert_eq!(read(text, "unit/keyspace"), [Event::Failed { test: "DEL".into(), why }]);
    }

    #[test]
    fn what_hangs_is_named() {
        let text = "[ok]: first (1 ms)\n[TIMEOUT]: clients state report follows.\nsock55 => (IN PROGRESS) BLPOP waits\n";
        assert_eq!(
            read(text, "unit/type/list"),
            [Event::Passed("first".into()), Event::Hung(Some("BLPOP waits".into()))]
        );
    }
}
