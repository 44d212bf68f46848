//! The arguments of a command in one line, and what COMMAND DOCS makes of it.
//!
//! A word is an argument by that name: `value` a string, `@key` a key, `#count` an integer, `~score` a double, `*pattern` a
//! pattern, `%time` a Unix time, and `WITHSCORES`, in capitals, stands for itself. `COUNT:#count` is an argument behind a
//! word. `(A|b)` is one of several, `{a b}` several together, `[a]` and `[A|B]` may be left out, `a..` may be repeated, and
//! `a...` with its word each time. Keys are numbered as the command's key specifications are; `@2key` says the number.
//! `""` is the empty word.

use cairn_resp::Reply;

/// One argument.
#[derive(Debug, PartialEq)]
pub(crate) struct Argument<'s> {
    name: &'s str,
    kind: Kind<'s>,
    /// The word in front of it, or the word that it is.
    token: Option<&'s str>,
    optional: bool,
    multiple: bool,
    multiple_token: bool,
}

#[derive(Debug, PartialEq)]
enum Kind<'s> {
    Plain(&'static str),
    /// The number of its specification.
    Key(usize),
    OneOf(Vec<Argument<'s>>),
    Block(Vec<Argument<'s>>),
}

/// The letters that say what an argument is, and what COMMAND DOCS calls it.
const TYPES: &[(u8, &str)] = &[(b'#', "integer"), (b'~', "double"), (b'*', "pattern"), (b'%', "unix-time")];

/// The arguments that a line describes, of a command with so many key specifications.
pub(crate) fn arguments(line: &str, specifications: usize) -> Vec<Argument<'_>> {
    let mut reader = Reader { line, at: 0, keys: 0, specifications };
    let arguments = reader.arguments();
    debug_assert_eq!(reader.at, line.len(), "{line}: something is left over");
    arguments
}

struct Reader<'s> {
    line: &'s str,
    at: usize,
    /// Keys found so far, and how many the command tells apart; the last stands for all further ones.
    keys: usize,
    specifications: usize,
}

impl<'s> Reader<'s> {
    fn peek(&self) -> u8 {
        self.line.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.line[self.at..].starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn word(&mut self) -> &'s str {
        let rest = &self.line[self.at..];
        let end = rest.find([' ', '|', ':', '(', ')', '[', ']', '{', '}', '.']).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// As many as follow each other, up to what closes them.
    fn arguments(&mut self) -> Vec<Argument<'s>> {
        let mut found = Vec::new();
        loop {
            while self.take(" ") {}
            if matches!(self.peek(), 0 | b')' | b']' | b'}' | b'|') {
                return found;
            }
            found.push(self.argument());
        }
    }

    /// Those that bars keep apart.
    fn choices(&mut self) -> Vec<Argument<'s>> {
        let mut found = Vec::new();
        loop {
            found.append(&mut self.arguments());
            if !self.take("|") {
                return found;
            }
        }
    }

    fn argument(&mut self) -> Argument<'s> {
        let mut argument = if self.take("[") {
            let mut inner = self.choices();
            self.take("]");
            let mut argument = match inner.len() {
                1 => inner.remove(0),
                _ => named("choice", Kind::OneOf(inner)),
            };
            argument.optional = true;
            argument
        } else if self.take("(") {
            let inner = self.choices();
            self.take(")");
            named("choice", Kind::OneOf(inner))
        } else if self.take("{") {
            let inner = self.arguments();
            self.take("}");
            named("group", Kind::Block(inner))
        } else {
            self.simple()
        };
        if self.take("...") {
            (argument.multiple, argument.multiple_token) = (true, true);
        } else if self.take("..") {
            argument.multiple = true;
        }
        argument
    }

    fn simple(&mut self) -> Argument<'s> {
        let rest = self.line.as_bytes().get(self.at..).unwrap_or_default();
        if let [b'@', number @ b'0'..=b'9', b'a'..=b'z', ..] = rest {
            self.at += 2;
            self.keys += 1;
            return named(self.word(), Kind::Key(usize::from(number - b'0')));
        }
        // A sign that stands alone is a word.
        if let [sign, b'a'..=b'z', ..] = rest {
            if *sign == b'@' {
                self.at += 1;
                self.keys += 1;
                let number = (self.keys - 1).min(self.specifications.saturating_sub(1));
                return named(self.word(), Kind::Key(number));
            }
            if let Some((_, kind)) = TYPES.iter().find(|(of, _)| of == sign) {
                self.at += 1;
                return named(self.word(), Kind::Plain(kind));
            }
        }
        let word = self.word();
        if word == "\"\"" {
            return Argument { token: Some(""), ..named("empty-string", Kind::Plain("pure-token")) };
        }
        if !is_token(word) {
            return named(word, Kind::Plain("string"));
        }
        let argument = if self.take(":") { self.argument() } else { named(word, Kind::Plain("pure-token")) };
        Argument { token: Some(word), ..argument }
    }
}

/// Words that are written as they are sent: without a small letter.
fn is_token(word: &str) -> bool {
    !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn named<'s>(name: &'s str, kind: Kind<'s>) -> Argument<'s> {
    Argument { name, kind, token: None, optional: false, multiple: false, multiple_token: false }
}

/// Writes arguments as COMMAND DOCS shows them.
pub(crate) fn reply_arguments(reply: &mut Reply<'_>, arguments: &[Argument<'_>]) {
    reply.array(arguments.len());
    for argument in arguments {
        let (kind, key, inner) = match &argument.kind {
            Kind::Plain(kind) => (*kind, None, None),
            Kind::Key(number) => ("key", Some(*number), None),
            Kind::OneOf(inner) => ("oneof", None, Some(inner)),
            Kind::Block(inner) => ("block", None, Some(inner)),
        };
        let flags: Vec<&str> = [
            (argument.optional, "optional"),
            (argument.multiple, "multiple"),
            (argument.multiple_token, "multiple_token"),
        ]
        .into_iter()
        .filter_map(|(is_so, flag)| is_so.then_some(flag))
        .collect();
        let further = [key.is_some(), argument.token.is_some(), !flags.is_empty(), inner.is_some()];
        reply.map(2 + further.into_iter().filter(|there| *there).count());
        pair(reply, "name", &argument.name.to_ascii_lowercase());
        pair(reply, "type", kind);
        if let Some(number) = key {
            reply.bulk(b"key_spec_index");
            reply.integer(number as i64);
        }
        if let Some(token) = argument.token {
            pair(reply, "token", token);
        }
        if !flags.is_empty() {
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        if let Some(inner) = inner {
            reply.bulk(b"arguments");
            reply_arguments(reply, inner);
        }
    }
}

fn pair(reply: &mut Reply<'_>, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_each_argument_is() {
        let found = arguments("@key [NX|XX] EX:#seconds {~score member}.. [GET:*pattern]...", 1);
        let plain = |name, kind| named(name, Kind::Plain(kind));
        let token = |word| Argument { token: Some(word), ..plain(word, "pure-token") };
        let group = Kind::Block(vec![plain("score", "double"), plain("member", "string")]);
        let wanted = [
            named("key", Kind::Key(0)),
            Argument { optional: true, ..named("choice", Kind::OneOf(vec![token("NX"), token("XX")])) },
            Argument { token: Some("EX"), ..plain("seconds", "integer") },
            Argument { multiple: true, ..named("group", group) },
            Argument {
                token: Some("GET"),
                optional: true,
                multiple: true,
                multiple_token: true,
                ..plain("pattern", "pattern")
            },
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn every_line_is_of_a_command_and_is_read_to_its_end() {
        for (name, line) in super::super::arguments::LINES {
            let command =
                crate::lookup_full(name.as_bytes()).unwrap_or_else(|| panic!("{name} is no command"));
            let mut specifications = 0;
            command.keys.each_spec(|_| specifications += 1);
            let mut reader = Reader { line, at: 0, keys: 0, specifications };
            assert!(!reader.arguments().is_empty() && reader.at == line.len(), "{name}: {line}");
            assert_eq!(reader.keys > 0, specifications > 0 && !line.contains("channel"), "{name}: {line}");
        }
    }
}
