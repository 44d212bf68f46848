//! Replies of commands as values of the language, and its values as replies.

use cairn_resp::{Protocol, Reply};
use mlua::{Lua, Table, Value};

use super::raise::error_table;

/// What a command replied.
pub(super) enum Returned {
    /// A value.
    Value(Value),
    /// An error, as the table that stands for it.
    Error(Table),
}

/// How deep a value that a script returns may be: such a one may contain itself.
const DEPTH_MAX: usize = 1_000;

/// Reads the one reply that `bytes` are.
pub(super) fn read(lua: &Lua, bytes: &[u8]) -> mlua::Result<Returned> {
    let mut reader = Reader { lua, rest: bytes };
    match bytes.first() {
        Some(b'-') => {
            let text = reader.line();
            Ok(Returned::Error(error_table(lua, &with_code(text))?))
        }
        _ => Ok(Returned::Value(reader.value()?)),
    }
}

/// An error's text as `err` holds it: one without a blank is no code, so it is given one.
pub(super) fn with_code(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() + 4);
    if !text.contains(&b' ') {
        out.extend_from_slice(b"ERR ");
    }
    out.extend_from_slice(text);
    out
}

/// Reads what a handler wrote: it is well formed, and where it is not, what is missing is nil.
struct Reader<'l, 'b> {
    lua: &'l Lua,
    rest: &'b [u8],
}

impl<'b> Reader<'_, 'b> {
    /// The rest of a line; its end is passed over.
    fn line(&mut self) -> &'b [u8] {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n").unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(2..).unwrap_or_default();
        line
    }

    fn number(&mut self) -> i64 {
        cairn_resp::parse_integer(self.line().get(1..).unwrap_or_default()).unwrap_or(-1)
    }

    fn bulk(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()).ok()?;
        let (text, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest.get(2..).unwrap_or_default();
        Some(text)
    }

    fn string(&self, text: &[u8]) -> mlua::Result<Value> {
        Ok(Value::String(self.lua.create_string(text)?))
    }

    fn field(&self, name: &str, value: Value) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    }

    fn value(&mut self) -> mlua::Result<Value> {
        match self.rest.first() {
            Some(b':') => Ok(Value::Number(self.number() as f64)),
            Some(b'$') => self.bulk().map_or(Ok(Value::Boolean(false)), |text| self.string(text)),
            Some(b'+') => {
                let text = self.line().get(1..).unwrap_or_default();
                self.field("ok", self.string(text)?)
            }
            Some(b'-') => {
                let text = self.line();
                Ok(Value::Table(error_table(self.lua, &with_code(text))?))
            }
            Some(b'*' | b'>') => self.array(),
            Some(b'%') => self.map(),
            Some(b'~') => self.set(),
            Some(b'#') => Ok(Value::Boolean(self.line().get(1) == Some(&b't'))),
            Some(b',') => {
                let text = std::str::from_utf8(self.line().get(1..).unwrap_or_default()).unwrap_or_default();
                self.field("double", Value::Number(text.parse().unwrap_or(f64::NAN)))
            }
            Some(b'(') => {
                let digits = self.line().get(1..).unwrap_or_default();
                self.field("big_number", self.string(digits)?)
            }
            Some(b'=') => self.verbatim(),
            Some(b'|') => {
                for _ in 0..self.number().max(0) * 2 {
                    self.value()?;
                }
                self.value()
            }
            _ => {
                self.line();
                Ok(Value::Nil)
            }
        }
    }

    fn array(&mut self) -> mlua::Result<Value> {
        let Ok(count) = usize::try_from(self.number()) else { return Ok(Value::Boolean(false)) };
        // Announced lengths are those of a handler, but no more is taken on trust than what is there could fill.
        let table = self.lua.create_table_with_capacity(count.min(self.rest.len()), 0)?;
        for index in 1..=count {
            table.raw_set(index, self.value()?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self) -> mlua::Result<Value> {
        let pairs = self.lua.create_table()?;
        for _ in 0..self.number().max(0) {
            let key = self.value()?;
            pairs.raw_set(key, self.value()?)?;
        }
        self.field("map", Value::Table(pairs))
    }

    fn set(&mut self) -> mlua::Result<Value> {
        let members = self.lua.create_table()?;
        for _ in 0..self.number().max(0) {
            members.raw_set(self.value()?, true)?;
        }
        self.field("set", Value::Table(members))
    }

    fn verbatim(&mut self) -> mlua::Result<Value> {
        let whole = self.bulk().unwrap_or_default();
        let table = self.lua.create_table_with_capacity(0, 2)?;
        table.raw_set("string", self.string(whole.get(4..).unwrap_or_default())?)?;
        table.raw_set("format", self.string(whole.get(..3).unwrap_or_default())?)?;
        self.field("verbatim_string", Value::Table(table))
    }
}

/// Writes what a script returned; `protocol` is the one it chose for its own calls.
pub(super) fn write(reply: &mut Reply<'_>, protocol: Protocol, value: &Value) {
    write_within(reply, protocol, value, 0);
}

fn write_within(reply: &mut Reply<'_>, protocol: Protocol, value: &Value, depth: usize) {
    match value {
        _ if depth > DEPTH_MAX => reply.error("ERR reached lua stack limit"),
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Integer(number) => reply.integer(*number),
        Value::Number(number) => reply.integer(truncated(*number)),
        Value::Boolean(truth) if protocol == Protocol::Resp3 => reply.boolean(*truth),
        Value::Boolean(true) => reply.integer(1),
        Value::Table(table) => write_table(reply, protocol, table, depth),
        _ => reply.null(),
    }
}

/// As C converts: what does not fit becomes the smallest.
fn truncated(number: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&number) { number as i64 } else { i64::MIN }
}

fn write_table(reply: &mut Reply<'_>, protocol: Protocol, table: &Table, depth: usize) {
    let field = |name: &str| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
    if let Value::String(text) = field("err") {
        return reply.error_bytes(&text.as_bytes());
    }
    if let Value::String(text) = field("ok") {
        return reply.simple_bytes(&text.as_bytes());
    }
    match field("double") {
        Value::Number(number) => return reply.double(number),
        Value::Integer(number) => return reply.double(number as f64),
        _ => {}
    }
    if let Value::String(digits) = field("big_number") {
        let digits = String::from_utf8_lossy(&digits.as_bytes()).replace(['\r', '\n'], " ");
        return reply.big_number(&digits);
    }
    if let Value::Table(verbatim) = field("verbatim_string")
        && let (Ok(Value::String(format)), Ok(Value::String(text))) =
            (verbatim.raw_get::<Value>("format"), verbatim.raw_get::<Value>("string"))
    {
        let format: String =
            String::from_utf8_lossy(&format.as_bytes()).chars().filter(char::is_ascii).collect();
        let format = format.get(..3).unwrap_or("txt").to_owned();
        return reply.verbatim(&format, &text.as_bytes());
    }
    if let Value::Table(map) = field("map") {
        let header = reply.deferred();
        let mut pairs = 0;
        for (key, value) in map.pairs::<Value, Value>().flatten() {
            write_within(reply, protocol, &key, depth + 1);
            write_within(reply, protocol, &value, depth + 1);
            pairs += 1;
        }
        return reply.finish_map(header, pairs);
    }
    if let Value::Table(set) = field("set") {
        let header = reply.deferred();
        let mut members = 0;
        for (member, _) in set.pairs::<Value, Value>().flatten() {
            write_within(reply, protocol, &member, depth + 1);
            members += 1;
        }
        return reply.finish_set(header, members);
    }
    let header = reply.deferred();
    let mut count = 0;
    loop {
        match table.raw_get::<Value>(count + 1) {
            Ok(Value::Nil) | Err(_) => break,
            Ok(value) => write_within(reply, protocol, &value, depth + 1),
        }
        count += 1;
    }
    reply.finish_array(header, count);
}
