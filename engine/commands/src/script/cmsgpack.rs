//! The library `cmsgpack`: <https://github.com/antirez/lua-cmsgpack>, <https://github.com/msgpack/msgpack/blob/master/spec.md>

use mlua::{Lua, MultiValue, Table, Value};

use super::raise::{argument_error, text_error, type_name};

/// Tables within tables beyond this are packed as nil.
const NESTING_MAX: usize = 16;

/// Deeper input is refused: it would use up the thread's stack.
const UNPACK_DEPTH_MAX: usize = 1_000;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.set("pack", lua.create_function(pack)?)?;
    let unpack = |lua: &Lua, args: MultiValue| {
        let text = text_argument(lua, &args, "unpack")?;
        unpack_some(lua, &text, Window { limit: 0, offset: 0, with_offset: false })
    };
    library.set("unpack", lua.create_function(unpack)?)?;
    let unpack_one = |lua: &Lua, args: MultiValue| {
        let text = text_argument(lua, &args, "unpack_one")?;
        let offset = optional_integer(lua, &args, 2, "unpack_one")?.unwrap_or(0);
        unpack_some(lua, &text, Window { limit: 1, offset, with_offset: true })
    };
    library.set("unpack_one", lua.create_function(unpack_one)?)?;
    let unpack_limit = |lua: &Lua, args: MultiValue| {
        let text = text_argument(lua, &args, "unpack_limit")?;
        let limit = optional_integer(lua, &args, 2, "unpack_limit")?
            .ok_or_else(|| argument_error(lua, 2, "unpack_limit", "number expected, got no value"))?;
        let offset = optional_integer(lua, &args, 3, "unpack_limit")?.unwrap_or(0);
        unpack_some(lua, &text, Window { limit, offset, with_offset: true })
    };
    library.set("unpack_limit", lua.create_function(unpack_limit)?)?;
    library.set("_NAME", "cmsgpack")?;
    library.set("_VERSION", "lua-cmsgpack 0.4.0")?;
    library.set("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd.")?;
    library.set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(library)
}

fn text_argument(lua: &Lua, args: &MultiValue, function: &str) -> mlua::Result<Vec<u8>> {
    let value = args.front();
    let text = value.map(|value| lua.coerce_string(value.clone())).transpose()?.flatten();
    let text = text.ok_or_else(|| {
        let got = value.map_or("no value", type_name);
        argument_error(lua, 1, function, &format!("string expected, got {got}"))
    })?;
    Ok(text.as_bytes().to_vec())
}

fn optional_integer(lua: &Lua, args: &MultiValue, index: usize, function: &str) -> mlua::Result<Option<i64>> {
    let Some(value) = args.get(index - 1).filter(|value| !value.is_nil()) else { return Ok(None) };
    let number = lua.coerce_number(value.clone())?.ok_or_else(|| {
        argument_error(lua, index, function, &format!("number expected, got {}", type_name(value)))
    })?;
    Ok(Some(number as i64))
}

fn pack(lua: &Lua, args: MultiValue) -> mlua::Result<mlua::LuaString> {
    if args.is_empty() {
        return Err(argument_error(lua, 0, "pack", "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in &args {
        push(&mut out, value, 0)?;
    }
    lua.create_string(out)
}

fn push(out: &mut Vec<u8>, value: &Value, level: usize) -> mlua::Result<()> {
    match value {
        Value::String(text) => push_string(out, &text.as_bytes()),
        Value::Boolean(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => push_integer(out, *number),
        Value::Number(number) => push_number(out, *number),
        Value::Table(table) if level < NESTING_MAX => push_table(out, table, level)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..0x100 => out.extend_from_slice(&[0xd9, length as u8]),
        length => push_length(out, 0xda, length),
    }
    out.extend_from_slice(text);
}

/// A length of two bytes behind `code`, or of four behind the next code.
fn push_length(out: &mut Vec<u8>, code: u8, length: usize) {
    match u16::try_from(length) {
        Ok(short) => {
            out.push(code);
            out.extend_from_slice(&short.to_be_bytes());
        }
        Err(_) => {
            out.push(code + 1);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    let mut push = |code: u8, bytes: &[u8]| {
        out.push(code);
        out.extend_from_slice(bytes);
    };
    match number {
        -32..0x80 => out.push(number as u8),
        0x80..0x100 => push(0xcc, &[number as u8]),
        0x100..0x1_0000 => push(0xcd, &(number as u16).to_be_bytes()),
        0x1_0000..0x1_0000_0000 => push(0xce, &(number as u32).to_be_bytes()),
        0x1_0000_0000.. => push(0xcf, &number.to_be_bytes()),
        -0x80..-32 => push(0xd0, &[number as u8]),
        -0x8000..-0x80 => push(0xd1, &(number as i16).to_be_bytes()),
        -0x8000_0000..-0x8000 => push(0xd2, &(number as i32).to_be_bytes()),
        _ => push(0xd3, &number.to_be_bytes()),
    }
}

fn push_number(out: &mut Vec<u8>, number: f64) {
    if number.fract() == 0.0 && number.abs() < 9.3e18 && number as i64 as f64 == number {
        return push_integer(out, number as i64);
    }
    let short = number as f32;
    if f64::from(short) == number {
        out.push(0xca);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn push_table(out: &mut Vec<u8>, table: &Table, level: usize) -> mlua::Result<()> {
    let (mut pairs, mut most, mut is_array) = (0_usize, 0_i64, true);
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(index) if index > 0 => most = most.max(index),
            _ => is_array = false,
        }
        pairs += 1;
    }
    if is_array && most == pairs as i64 {
        match pairs {
            0..16 => out.push(0x90 | pairs as u8),
            _ => push_length(out, 0xdc, pairs),
        }
        for index in 1..=pairs {
            push(out, &table.raw_get(index)?, level + 1)?;
        }
        return Ok(());
    }
    match pairs {
        0..16 => out.push(0x80 | pairs as u8),
        _ => push_length(out, 0xde, pairs),
    }
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        push(out, &key, level + 1)?;
        push(out, &value, level + 1)?;
    }
    Ok(())
}

/// Which values of the input are wanted.
struct Window {
    /// How many; 0 for all.
    limit: i64,
    /// The first byte.
    offset: i64,
    /// Whether the offset of what is left comes before the values; -1 at the end.
    with_offset: bool,
}

fn unpack_some(lua: &Lua, text: &[u8], window: Window) -> mlua::Result<MultiValue> {
    let Window { limit, offset, with_offset } = window;
    if offset < 0 || limit < 0 {
        let text = format!("Invalid request to unpack with offset of {offset} and limit of {}.", text.len());
        return Err(text_error(lua, &text));
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| text.get(offset..)) else {
        let text = format!("Start offset {offset} greater than input length {}.", text.len());
        return Err(text_error(lua, &text));
    };
    let mut unpacker = Unpacker { lua, rest };
    let mut values = MultiValue::new();
    while !unpacker.rest.is_empty() && (limit == 0 || (values.len() as i64) < limit) {
        values.push_back(unpacker.value(0)?);
    }
    if with_offset {
        let at = text.len() - unpacker.rest.len();
        values.push_front(if unpacker.rest.is_empty() {
            Value::Integer(-1)
        } else {
            Value::Integer(at as i64)
        });
    }
    Ok(values)
}

struct Unpacker<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, length: usize) -> mlua::Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(text_error(self.lua, "Missing bytes in input."));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn unsigned(&mut self, bytes: usize) -> mlua::Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> mlua::Result<Value> {
        let unused = 64 - 8 * bytes as u32;
        Ok(Value::Integer((self.unsigned(bytes)? << unused) as i64 >> unused))
    }

    fn string(&mut self, length: u64) -> mlua::Result<Value> {
        let text = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Value::String(self.lua.create_string(text)?))
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        if depth > UNPACK_DEPTH_MAX {
            return Err(text_error(self.lua, "Bad data format in input."));
        }
        let code = self.take(1)?[0];
        match code {
            0..0x80 => Ok(Value::Integer(i64::from(code))),
            0xe0.. => Ok(Value::Integer(i64::from(code as i8))),
            0x80..0x90 => self.map(u64::from(code & 15), depth),
            0x90..0xa0 => self.array(u64::from(code & 15), depth),
            0xa0..0xc0 => self.string(u64::from(code & 31)),
            0xc0 => Ok(Value::Nil),
            0xc2 | 0xc3 => Ok(Value::Boolean(code == 0xc3)),
            0xca => Ok(Value::Number(f64::from(f32::from_bits(self.unsigned(4)? as u32)))),
            0xcb => Ok(Value::Number(f64::from_bits(self.unsigned(8)?))),
            0xcc..=0xcf => Ok(Value::Number(self.unsigned(1 << (code - 0xcc))? as f64)),
            0xd0..=0xd3 => self.signed(1 << (code - 0xd0)),
            0xc4..=0xc6 => {
                let length = self.unsigned(1 << (code - 0xc4))?;
                self.string(length)
            }
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (code - 0xd9))?;
                self.string(length)
            }
            0xdc | 0xdd => {
                let length = self.unsigned(if code == 0xdc { 2 } else { 4 })?;
                self.array(length, depth)
            }
            0xde | 0xdf => {
                let length = self.unsigned(if code == 0xde { 2 } else { 4 })?;
                self.map(length, depth)
            }
            _ => Err(text_error(self.lua, "Bad data format in input.")),
        }
    }

    fn array(&mut self, length: u64, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for index in 1..=length {
            table.raw_set(index, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, length: u64, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..length {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }
}
