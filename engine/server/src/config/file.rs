//! Configuration from files and from the command line.

use super::value::Kind;
use super::{ConfigError, Place, Settings, table};
use cairn_engine::UserLine;
use std::path::{Path, PathBuf};

/// How deep files may include each other.
const INCLUDE_DEPTH: usize = 16;

/// Reads `[FILE] [--directive value...]...`; the file's path is made absolute, as CONFIG REWRITE needs it later.
pub(crate) fn load(args: &[String]) -> Result<(Settings, Option<PathBuf>), ConfigError> {
    let mut loader = Loader { settings: Settings::defaults(), save_seen: false };
    let (file, options) = match args.split_first() {
        Some((first, rest)) if !first.starts_with("--") => (Some(PathBuf::from(first)), rest),
        _ => (None, args),
    };
    let file = match file {
        Some(path) => {
            loader.file(&path, 0)?;
            Some(std::path::absolute(&path).map_err(|source| ConfigError::Read { path, source })?)
        }
        None => None,
    };
    loader.options(options)?;
    loader.check()?;
    // As Redis shows it: the same directory wherever the reader of CONFIG GET is.
    if let Ok(dir) = std::path::absolute(&loader.settings.dir) {
        loader.settings.dir = dir.display().to_string();
    }
    Ok((loader.settings, file))
}

struct Loader {
    settings: Settings,
    /// The first `save` replaces the default, later ones add to it.
    save_seen: bool,
}

impl Loader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read(path).map_err(read)?;
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = Place::File { path: path.to_owned(), line: index + 1 };
            let Ok(words) = cairn_resp::split_args(line) else { return Err(ConfigError::Quotes { place }) };
            let words: Vec<String> = words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            match words.split_first() {
                Some((name, [included])) if name.eq_ignore_ascii_case("include") => {
                    if depth == INCLUDE_DEPTH {
                        return Err(ConfigError::IncludeDepth { place, depth });
                    }
                    self.file(Path::new(included), depth + 1)?;
                }
                Some((name, values)) => self.directive(name, values, place)?,
                None => {}
            }
        }
        Ok(())
    }

    /// As Redis reads them: name and values may be one argument, what stands behind a name alone is its value whatever it
    /// looks like, and the first name may lack its dashes.
    fn options(&mut self, args: &[String]) -> Result<(), ConfigError> {
        let mut rest = args;
        while let Some((option, behind)) = rest.split_first() {
            let is_first = rest.len() == args.len();
            let text = match option.strip_prefix("--") {
                None if is_first && !option.starts_with('-') => option,
                text => text.unwrap_or_default(),
            };
            let place = Place::CommandLine;
            let Ok(words) = cairn_resp::split_args(text.as_bytes()) else {
                return Err(ConfigError::Quotes { place });
            };
            let mut words: Vec<String> =
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            if words.is_empty() {
                let why = "not a directive; directives begin with --, and a file stands before them".into();
                return Err(ConfigError::Directive { place, directive: option.clone(), why });
            }
            // An empty list of save points is no value at all.
            let alone = words.len() == 1 && !words[0].eq_ignore_ascii_case("save");
            let first = usize::from(alone && !behind.is_empty());
            let more = behind[first..].iter().take_while(|word| !word.starts_with("--")).count();
            let (values, after) = behind.split_at(first + more);
            words.extend_from_slice(values);
            self.directive(&words[0], &words[1..], place)?;
            rest = after;
        }
        Ok(())
    }

    fn directive(&mut self, name: &str, values: &[String], place: Place) -> Result<(), ConfigError> {
        let name = name.to_ascii_lowercase();
        if name == "user" {
            return self.user(values, place);
        }
        let Some(directive) = table::find(&name) else {
            let why = table::why_refused(&name).into();
            return Err(ConfigError::Directive { place, directive: name, why });
        };
        let words: Vec<&str> = values.iter().map(String::as_str).collect();
        let before = if name == "save" { std::mem::take(&mut self.settings.save) } else { Vec::new() };
        if let Err(why) = directive.kind.set(&mut self.settings, &words) {
            return Err(ConfigError::Directive { place, directive: name, why });
        }
        if let Kind::Fixed { value, why, .. } = directive.kind
            && !words.join(" ").eq_ignore_ascii_case(value)
        {
            self.settings.unfollowed.push((directive.name, why));
        }
        if let Kind::Kept { why, .. } = directive.kind
            && directive.kind.show(&self.settings) != directive.default
        {
            self.settings.unfollowed.push((directive.name, why));
        }
        if name == "save" {
            if self.save_seen && !self.settings.save.is_empty() {
                let added = std::mem::replace(&mut self.settings.save, before);
                self.settings.save.extend(added);
            }
            self.save_seen = true;
        }
        Ok(())
    }

    /// A user's rules are looked at when all of the configuration is known, on which they depend.
    fn user(&mut self, values: &[String], place: Place) -> Result<(), ConfigError> {
        let mut words = values.iter().map(|word| word.as_bytes().to_vec());
        let Some(name) = words.next() else {
            let why = "wrong number of arguments".into();
            return Err(ConfigError::Directive { place, directive: "user".into(), why });
        };
        self.settings.users.push((place, UserLine { name, rules: words.collect() }));
        Ok(())
    }

    /// What no row can see alone.
    fn check(&self) -> Result<(), ConfigError> {
        let s = &self.settings;
        let refuse = |directive: &str, why: &str| {
            let why = why.to_owned();
            Err(ConfigError::Directive { place: Place::CommandLine, directive: directive.into(), why })
        };
        if !s.encryption_key_file.is_empty() && !s.encryption_key_command.is_empty() {
            return refuse(
                "encryption-key-command",
                "encryption-key-file is set too; the keyring has one source",
            );
        }
        if let Some((directive, why)) = super::backup::contradiction(s) {
            return refuse(directive, why);
        }
        if s.http_port != 0 && s.http_port == s.port {
            return refuse("http-port", "it is the same as port");
        }
        if let (false, Some((place, _))) = (s.aclfile.is_empty(), s.users.first()) {
            let why = "aclfile is set too; users come from one place".into();
            return Err(ConfigError::Directive { place: place.clone(), directive: "user".into(), why });
        }
        if s.port == 0 && s.unixsocket.is_empty() {
            return refuse("port", "0 means no TCP, and no unixsocket is set: no client could connect");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(|&w| w.to_owned()).collect()
    }

    fn error(words: &[&str]) -> String {
        load(&args(words)).unwrap_err().to_string()
    }

    #[test]
    fn arguments_are_directives() {
        let (settings, file) =
            load(&args(&["--port", "7000", "--save", "60", "1", "5", "2", "--requirepass", "a b"])).unwrap();
        assert_eq!((settings.port, settings.requirepass.as_str(), file), (7000, "a b", None));
        assert_eq!(settings.save, [(60, 1), (5, 2)]);
        let (settings, _) = load(&args(&["--requirepass", "--a b", "--save", "--timeout", "4"])).unwrap();
        assert_eq!((settings.requirepass.as_str(), settings.timeout_seconds), ("--a b", 4));
        assert!(load(&args(&["--save", ""])).unwrap().0.save.is_empty());
        assert!(load(&args(&["--save", "--appendonly", "yes"])).unwrap().0.save.is_empty());
        assert_eq!(load(&args(&["--PORT", "1"])).unwrap().0.port, 1);
        let (settings, _) =
            load(&args(&["--port 7001", "--save 60 1", "5 2", "--requirepass \"a b\""])).unwrap();
        assert_eq!((settings.port, settings.requirepass.as_str()), (7001, "a b"));
        assert_eq!(settings.save, [(60, 1), (5, 2)]);
    }

    #[test]
    fn what_is_refused_says_why() {
        assert_eq!(error(&["--nonsense", "1"]), "command line: 'nonsense': unknown directive");
        assert_eq!(
            error(&["--replicaof", "h", "1"]),
            "command line: 'replicaof': only '' is provided: there is no replication"
        );
        assert_eq!(error(&["--port", "1", "2"]), "command line: 'port': wrong number of arguments");
        assert_eq!(
            error(&["--daemonize", "yes"]),
            "command line: 'daemonize': only 'no' is provided: a service manager or a shell's & puts the server \
             into the background"
        );
        assert!(error(&["--port", "0"]).contains("no client could connect"));
        assert!(error(&["--port", "1", "--", "x"]).contains("not a directive"));
        assert!(error(&["/nonexistent/cairn.conf"]).contains("/nonexistent/cairn.conf: cannot read"));
    }

    /// What Redis's own file holds is followed, or refused, or told: never silently dropped.
    #[test]
    fn usual_values_that_are_not_followed_are_told() {
        let (settings, _) = load(&args(&["--disable-thp", "yes", "--rdbchecksum", "yes"])).unwrap();
        assert_eq!(settings.unfollowed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["disable-thp"]);
        assert!(error(&["--tls-port", "6380"]).ends_with("only '0' is provided: there is no TLS"));
        assert_eq!(settings.matching(&[b"disable-thp"]), [("disable-thp".to_owned(), "no".to_owned())]);
    }

    #[test]
    fn files_have_quotes_comments_and_includes() {
        let dir = tempfile::tempdir().unwrap();
        let (main, other) = (dir.path().join("main.conf"), dir.path().join("other.conf"));
        let text = format!(
            "# a comment\n\n  port 7001\r\nrequirepass \"a \\x41'\"\ninclude {}\nsave 60 1\nsave 5 2\nBIND * -::*\n",
            other.display()
        );
        std::fs::write(&main, text).unwrap();
        std::fs::write(&other, "appendonly yes\nauto-aof-rewrite-min-size 1mb\n").unwrap();
        let main_arg = main.to_str().unwrap();
        let (settings, file) = load(&args(&[main_arg, "--port", "7002", "--save", "9", "9"])).unwrap();
        assert_eq!((settings.port, settings.requirepass.as_str(), settings.appendonly), (7002, "a A'", true));
        assert_eq!(settings.save, [(60, 1), (5, 2), (9, 9)]);
        assert_eq!(settings.bind, ["*", "-::*"]);
        assert_eq!(file, Some(main.clone()));

        std::fs::write(&other, "\nappendonly perhaps\n").unwrap();
        let expected = format!("{}:2: 'appendonly': argument must be 'yes' or 'no'", other.display());
        assert_eq!(error(&[main_arg]), expected);
        std::fs::write(&other, "requirepass \"secret\n").unwrap();
        assert_eq!(error(&[main_arg]), format!("{}:1: unbalanced quotes", other.display()));
        std::fs::write(&other, format!("include {}\n", main.display())).unwrap();
        assert!(error(&[main_arg]).contains("do they include each other?"));
    }

    /// A wrong value may be a mistyped password: it never reaches a message.
    #[test]
    fn messages_hold_no_values() {
        assert!(!error(&["--requirepass", "hunter2", "hunter3"]).contains("hunter"));
        assert!(!error(&["--maxclients", "hunter2"]).contains("hunter"));
    }
}
