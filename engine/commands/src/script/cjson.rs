//! The library `cjson`: <https://www.kyne.com.au/~mark/software/lua-cjson-manual.html>

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::json_decode;
use super::number::push_general;
use super::raise::{argument_error, text_error, type_name};

/// What a script may change of how it encodes and decodes; every script begins with the default.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth_max: i64,
    pub(super) decode_depth_max: i64,
    precision: i64,
    keep_buffer: bool,
    encode_invalid: Invalid,
    pub(super) decode_invalid: bool,
}

/// What becomes of a number that JSON has no form for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Invalid {
    Refused,
    Written,
    Null,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1_000,
            decode_depth_max: 1_000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refused,
            decode_invalid: true,
        }
    }
}

/// More nesting than this is refused whatever a script sets: it would use up the thread's stack.
pub(super) const DEPTH_LIMIT: i64 = 2_000;

pub(super) fn library(lua: &Lua, settings: &Rc<Cell<Settings>>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let shared = settings.clone();
    let encode = lua.create_function(move |lua, args: MultiValue| {
        let [value] = one(lua, args, "encode")?;
        let mut encoder = Encoder { lua, settings: shared.get(), out: Vec::new() };
        encoder.value(&value, 0)?;
        lua.create_string(&encoder.out)
    })?;
    library.set("encode", encode)?;
    let shared = settings.clone();
    let decode = lua.create_function(move |lua, args: MultiValue| {
        let [value] = one(lua, args, "decode")?;
        let text = lua.coerce_string(value.clone())?.ok_or_else(|| {
            argument_error(lua, 1, "decode", &format!("string expected, got {}", type_name(&value)))
        })?;
        json_decode::decode(lua, &shared.get(), &text.as_bytes())
    })?;
    library.set("decode", decode)?;
    add_settings(lua, &library, settings)?;
    library.set("null", Value::NULL)?;
    library.set("_NAME", "cjson")?;
    library.set("_VERSION", "2.1.0")?;
    let new = settings.clone();
    library.set(
        "new",
        lua.create_function(move |lua, ()| self::library(lua, &Rc::new(Cell::new(new.get()))))?,
    )?;
    Ok(library)
}

fn one(lua: &Lua, args: MultiValue, function: &str) -> mlua::Result<[Value; 1]> {
    let args: Vec<Value> = args.into_iter().collect();
    args.try_into().map_err(|_| argument_error(lua, 1, function, "expected 1 argument"))
}

/// A function that sets something where it is given an argument, and returns what is set.
fn setting<R: mlua::IntoLuaMulti + 'static>(
    lua: &Lua,
    library: &Table,
    settings: &Rc<Cell<Settings>>,
    name: &'static str,
    apply: impl Fn(&Lua, &mut Settings, &MultiValue) -> mlua::Result<R> + 'static,
) -> mlua::Result<()> {
    let shared = settings.clone();
    let function = lua.create_function(move |lua, args: MultiValue| {
        let mut settings = shared.get();
        let result = apply(lua, &mut settings, &args)?;
        shared.set(settings);
        Ok(result)
    })?;
    library.set(name, function)
}

/// An integer argument, where there is one.
fn integer(
    lua: &Lua,
    args: &MultiValue,
    index: usize,
    range: std::ops::RangeInclusive<i64>,
    function: &str,
) -> mlua::Result<Option<i64>> {
    let Some(value) = args.get(index - 1).filter(|value| !value.is_nil()) else { return Ok(None) };
    let number = lua.coerce_number(value.clone())?.map(|number| number as i64);
    let number = number.ok_or_else(|| {
        argument_error(lua, index, function, &format!("number expected, got {}", type_name(value)))
    })?;
    if !range.contains(&number) {
        let text = format!("expected integer between {} and {}", range.start(), range.end());
        return Err(argument_error(lua, index, function, &text));
    }
    Ok(Some(number))
}

/// A boolean argument, where there is one; `null` beside them where `with_null`.
fn choice(lua: &Lua, args: &MultiValue, with_null: bool, function: &str) -> mlua::Result<Option<Invalid>> {
    match args.front() {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Boolean(true)) => Ok(Some(Invalid::Written)),
        Some(Value::Boolean(false)) => Ok(Some(Invalid::Refused)),
        Some(Value::String(text)) => match &text.as_bytes()[..] {
            b"on" => Ok(Some(Invalid::Written)),
            b"off" => Ok(Some(Invalid::Refused)),
            b"null" if with_null => Ok(Some(Invalid::Null)),
            other => {
                let text = format!("invalid option '{}'", String::from_utf8_lossy(other));
                Err(argument_error(lua, 1, function, &text))
            }
        },
        Some(other) => {
            Err(argument_error(lua, 1, function, &format!("string expected, got {}", type_name(other))))
        }
    }
}

fn add_settings(lua: &Lua, library: &Table, settings: &Rc<Cell<Settings>>) -> mlua::Result<()> {
    const INT_MAX: i64 = i32::MAX as i64;
    setting(lua, library, settings, "encode_sparse_array", |lua, settings, args| {
        const NAME: &str = "encode_sparse_array";
        if let Some(convert) = choice(lua, args, false, NAME)? {
            settings.sparse_convert = convert == Invalid::Written;
        }
        settings.sparse_ratio = integer(lua, args, 2, 0..=INT_MAX, NAME)?.unwrap_or(settings.sparse_ratio);
        settings.sparse_safe = integer(lua, args, 3, 0..=INT_MAX, NAME)?.unwrap_or(settings.sparse_safe);
        Ok((settings.sparse_convert, settings.sparse_ratio, settings.sparse_safe))
    })?;
    setting(lua, library, settings, "encode_max_depth", |lua, settings, args| {
        let given = integer(lua, args, 1, 1..=INT_MAX, "encode_max_depth")?;
        settings.encode_depth_max = given.unwrap_or(settings.encode_depth_max);
        Ok(settings.encode_depth_max)
    })?;
    setting(lua, library, settings, "decode_max_depth", |lua, settings, args| {
        let given = integer(lua, args, 1, 1..=INT_MAX, "decode_max_depth")?;
        settings.decode_depth_max = given.unwrap_or(settings.decode_depth_max);
        Ok(settings.decode_depth_max)
    })?;
    setting(lua, library, settings, "encode_number_precision", |lua, settings, args| {
        let given = integer(lua, args, 1, 1..=14, "encode_number_precision")?;
        settings.precision = given.unwrap_or(settings.precision);
        Ok(settings.precision)
    })?;
    // A buffer of each call is as quick as one that is kept, so this only tells what was said.
    setting(lua, library, settings, "encode_keep_buffer", |lua, settings, args| {
        let given = choice(lua, args, false, "encode_keep_buffer")?;
        settings.keep_buffer = given.map_or(settings.keep_buffer, |given| given == Invalid::Written);
        Ok(settings.keep_buffer)
    })?;
    setting(lua, library, settings, "encode_invalid_numbers", |lua, settings, args| {
        let given = choice(lua, args, true, "encode_invalid_numbers")?;
        settings.encode_invalid = given.unwrap_or(settings.encode_invalid);
        Ok(match settings.encode_invalid {
            Invalid::Refused => Value::Boolean(false),
            Invalid::Written => Value::Boolean(true),
            Invalid::Null => Value::String(lua.create_string("null")?),
        })
    })?;
    setting(lua, library, settings, "decode_invalid_numbers", |lua, settings, args| {
        let given = choice(lua, args, false, "decode_invalid_numbers")?;
        settings.decode_invalid = given.map_or(settings.decode_invalid, |given| given == Invalid::Written);
        Ok(settings.decode_invalid)
    })
}

struct Encoder<'l> {
    lua: &'l Lua,
    settings: Settings,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: i64) -> mlua::Result<()> {
        match value {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(number) => self.number(*number as f64)?,
            Value::Number(number) => self.number(*number)?,
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            value if *value == Value::NULL => self.out.extend_from_slice(b"null"),
            Value::Table(table) => self.table(table, depth + 1)?,
            other => {
                let text = format!("Cannot serialise {}: type not supported", type_name(other));
                return Err(text_error(self.lua, &text));
            }
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: i64) -> mlua::Result<()> {
        if depth > self.settings.encode_depth_max.min(DEPTH_LIMIT) {
            return Err(text_error(self.lua, &format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_length(table)? {
            Some(length) if length > 0 => {
                self.out.push(b'[');
                for index in 1..=length {
                    if index > 1 {
                        self.out.push(b',');
                    }
                    self.value(&table.raw_get(index)?, depth)?;
                }
                self.out.push(b']');
            }
            _ => self.object(table, depth)?,
        }
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: i64) -> mlua::Result<()> {
        self.out.push(b'{');
        for (index, pair) in table.pairs::<Value, Value>().enumerate() {
            let (key, value) = pair?;
            if index > 0 {
                self.out.push(b',');
            }
            match &key {
                Value::String(text) => self.string(&text.as_bytes()),
                Value::Integer(number) => self.key(*number as f64)?,
                Value::Number(number) => self.key(*number)?,
                _ => {
                    return Err(text_error(
                        self.lua,
                        &format!(
                            "Cannot serialise {}: table key must be a number or string",
                            type_name(&key)
                        ),
                    ));
                }
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn key(&mut self, number: f64) -> mlua::Result<()> {
        self.out.push(b'"');
        self.number(number)?;
        self.out.push(b'"');
        Ok(())
    }

    /// How long the array is that a table is; `None` where it is none.
    fn array_length(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut most, mut items) = (0_i64, 0_i64);
        for pair in table.pairs::<Value, Value>() {
            let index = match pair?.0 {
                Value::Integer(index) => index,
                Value::Number(index) if index.fract() == 0.0 && index < 9e18 => index as i64,
                _ => return Ok(None),
            };
            if index < 1 {
                return Ok(None);
            }
            most = most.max(index);
            items += 1;
        }
        let Settings { sparse_convert, sparse_ratio, sparse_safe, .. } = self.settings;
        if sparse_ratio > 0 && most > items.saturating_mul(sparse_ratio) && most > sparse_safe {
            if !sparse_convert {
                return Err(text_error(self.lua, "Cannot serialise table: excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(most))
    }

    fn number(&mut self, number: f64) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                Invalid::Refused => {
                    return Err(text_error(self.lua, "Cannot serialise number: must not be NaN or Inf"));
                }
                Invalid::Null => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::Written => {}
            }
        }
        push_general(&mut self.out, number, self.settings.precision as usize);
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for byte in text {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                8 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(*byte),
            }
        }
        self.out.push(b'"');
    }
}
