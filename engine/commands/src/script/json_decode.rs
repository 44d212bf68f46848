//! Reading JSON as `cjson.decode` does: a little more than the standard allows, its errors with the place.

use mlua::{Lua, Value};

use super::cjson::{DEPTH_LIMIT, Settings};
use super::raise::text_error;

/// Reads one value, and nothing behind it.
pub(super) fn decode(lua: &Lua, settings: &Settings, text: &[u8]) -> mlua::Result<Value> {
    if let [first, second, ..] = text
        && (*first == 0 || *second == 0)
    {
        return Err(text_error(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut parser = Parser { lua, settings, text, at: 0, depth: 0 };
    let token = parser.next();
    let value = parser.value(token)?;
    let end = parser.next();
    match end.kind {
        Kind::End => Ok(value),
        _ => Err(parser.unexpected("the end", &end)),
    }
}

struct Token {
    kind: Kind,
    at: usize,
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Kind {
    fn shown(&self) -> &'static str {
        match self {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::String(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Error(what) => what,
        }
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    text: &'a [u8],
    at: usize,
    depth: i64,
}

impl Parser<'_> {
    fn unexpected(&self, wanted: &str, token: &Token) -> mlua::Error {
        let text =
            format!("Expected {wanted} but found {} at character {}", token.kind.shown(), token.at + 1);
        text_error(self.lua, &text)
    }

    fn value(&mut self, token: Token) -> mlua::Result<Value> {
        match token.kind {
            Kind::String(text) => Ok(Value::String(self.lua.create_string(text)?)),
            Kind::Number(number) => Ok(Value::Number(number)),
            Kind::Boolean(truth) => Ok(Value::Boolean(truth)),
            Kind::Null => Ok(Value::NULL),
            Kind::ObjectBegin => self.nested(Self::object),
            Kind::ArrayBegin => self.nested(Self::array),
            _ => Err(self.unexpected("value", &token)),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> mlua::Result<Value>) -> mlua::Result<Value> {
        self.depth += 1;
        if self.depth > self.settings.decode_depth_max.min(DEPTH_LIMIT) {
            let text =
                format!("Found too many nested data structures ({}) at character {}", self.depth, self.at);
            return Err(text_error(self.lua, &text));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ObjectEnd) {
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::String(key) = token.kind else {
                return Err(self.unexpected("object key string", &token));
            };
            let colon = self.next();
            if !matches!(colon.kind, Kind::Colon) {
                return Err(self.unexpected("colon", &colon));
            }
            let value = self.next();
            let value = self.value(value)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            let next = self.next();
            match next.kind {
                Kind::ObjectEnd => return Ok(Value::Table(table)),
                Kind::Comma => token = self.next(),
                _ => return Err(self.unexpected("comma or object end", &next)),
            }
        }
    }

    fn array(&mut self) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ArrayEnd) {
            return Ok(Value::Table(table));
        }
        for index in 1_i64.. {
            let value = self.value(token)?;
            table.raw_set(index, value)?;
            let next = self.next();
            match next.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(self.unexpected("comma or array end", &next)),
            }
        }
        Ok(Value::Table(table))
    }

    fn next(&mut self) -> Token {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let rest = &self.text[at..];
        let (kind, length) = match rest.first() {
            None => (Kind::End, 0),
            Some(b'{') => (Kind::ObjectBegin, 1),
            Some(b'}') => (Kind::ObjectEnd, 1),
            Some(b'[') => (Kind::ArrayBegin, 1),
            Some(b']') => (Kind::ArrayEnd, 1),
            Some(b',') => (Kind::Comma, 1),
            Some(b':') => (Kind::Colon, 1),
            Some(b'"') => return self.string(),
            Some(b'-' | b'+' | b'0'..=b'9') => match self.number(rest) {
                Some((number, length)) => (Kind::Number(number), length),
                None => (Kind::Error("invalid number"), 0),
            },
            Some(_) if rest.starts_with(b"true") => (Kind::Boolean(true), 4),
            Some(_) if rest.starts_with(b"false") => (Kind::Boolean(false), 5),
            Some(_) if rest.starts_with(b"null") => (Kind::Null, 4),
            Some(b'i' | b'I' | b'n' | b'N') if self.settings.decode_invalid => match prefix_number(rest) {
                Some((number, length)) => (Kind::Number(number), length),
                None => (Kind::Error("invalid token"), 0),
            },
            Some(_) => (Kind::Error("invalid token"), 0),
        };
        self.at += length;
        Token { kind, at }
    }

    fn number(&self, rest: &[u8]) -> Option<(f64, usize)> {
        if !self.settings.decode_invalid {
            let digits = rest.strip_prefix(b"-").unwrap_or(rest);
            let is_invalid = match digits {
                [b'0', b'0'..=b'9' | b'x' | b'X', ..] => true,
                [b'0'..=b'9', ..] => false,
                _ => true,
            };
            if is_invalid {
                return None;
            }
        }
        prefix_number(rest)
    }

    fn string(&mut self) -> Token {
        let begin = self.at;
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let at = self.at;
            match self.text.get(at) {
                None => return Token { kind: Kind::Error("unexpected end of string"), at },
                Some(b'"') => {
                    self.at += 1;
                    return Token { kind: Kind::String(out), at: begin };
                }
                Some(b'\\') => match self.text.get(at + 1) {
                    Some(b'u') => match self.unicode(&mut out) {
                        true => {}
                        false => return Token { kind: Kind::Error("invalid unicode escape code"), at },
                    },
                    Some(escape) => {
                        let byte = match escape {
                            b'b' => 8,
                            b't' => b'\t',
                            b'n' => b'\n',
                            b'f' => 12,
                            b'r' => b'\r',
                            b'"' | b'\\' | b'/' => *escape,
                            _ => return Token { kind: Kind::Error("invalid escape code"), at },
                        };
                        out.push(byte);
                        self.at += 2;
                    }
                    None => return Token { kind: Kind::Error("invalid escape code"), at },
                },
                Some(byte) => {
                    out.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    fn hex_unit(&self, at: usize) -> Option<u32> {
        let escape = self.text.get(at..at + 6)?;
        let digits = escape.strip_prefix(b"\\u").filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    /// Reads an escaped character, or two that stand for one.
    fn unicode(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(first) = self.hex_unit(self.at) else { return false };
        self.at += 6;
        let code = match first {
            0xdc00..=0xdfff => return false,
            0xd800..=0xdbff => match self.hex_unit(self.at) {
                Some(second @ 0xdc00..=0xdfff) => {
                    self.at += 6;
                    0x1_0000 + ((first & 0x3ff) << 10 | second & 0x3ff)
                }
                _ => return false,
            },
            code => code,
        };
        let Some(character) = char::from_u32(code) else { return false };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        true
    }
}

/// The longest prefix that C reads as a number, and its length.
fn prefix_number(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let unsigned = &text[sign..];
    let negate = |number: f64| if text.first() == Some(&b'-') { -number } else { number };
    for (word, number) in [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if unsigned.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes())) {
            return Some((negate(number), sign + word.len()));
        }
    }
    if let [b'0', b'x' | b'X', digits @ ..] = unsigned {
        let length = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if length > 0 {
            let number = digits[..length]
                .iter()
                .fold(0.0, |sum, byte| sum * 16.0 + f64::from(char::from(*byte).to_digit(16).unwrap_or(0)));
            return Some((negate(number), sign + 2 + length));
        }
    }
    let digits = |from: usize| unsigned[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    let mut end = whole;
    if unsigned.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if end == 0 {
        return None;
    }
    if matches!(unsigned.get(end), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(unsigned.get(end + 1), Some(b'-' | b'+')));
        let from = end + 1 + signed;
        if from < unsigned.len() && digits(from) > 0 {
            end = from + digits(from);
        }
    }
    let number = std::str::from_utf8(&unsigned[..end]).ok()?.parse().ok()?;
    Some((negate(number), sign + end))
}
