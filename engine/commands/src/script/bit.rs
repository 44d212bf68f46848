//! The library `bit`: operations on 32-bit numbers, <https://bitop.luajit.org/api.html>.

use mlua::{Lua, MultiValue, Table, Value};

use super::raise::type_error;

/// A number's lowest 32 bits; a fraction is rounded to even.
fn bits(lua: &Lua, args: &MultiValue, index: usize, function: &str) -> mlua::Result<i32> {
    let value = args.get(index - 1);
    let number = match value {
        Some(Value::Integer(number)) => return Ok(*number as i32),
        Some(Value::Number(number)) => *number,
        Some(other) => lua
            .coerce_number(other.clone())?
            .ok_or_else(|| type_error(lua, index, function, "number", value))?,
        None => return Err(type_error(lua, index, function, "number", None)),
    };
    // Added to this, a number has its integer part in the lowest bits of its representation.
    Ok((number + 6_755_399_441_055_744.0).to_bits() as i32)
}

/// An operation and its name.
type Named<T> = (&'static str, T);
type Unary = fn(i32) -> i32;
type Fold = fn(i32, i32) -> i32;
type Shift = fn(i32, u32) -> i32;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let unary: [Named<Unary>; 3] = [("tobit", |a| a), ("bnot", |a| !a), ("bswap", i32::swap_bytes)];
    for (name, operation) in unary {
        let function = lua.create_function(move |lua, args| Ok(operation(bits(lua, &args, 1, name)?)))?;
        library.set(name, function)?;
    }
    let folds: [Named<Fold>; 3] = [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, operation) in folds {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let mut result = bits(lua, &args, 1, name)?;
            for index in 2..=args.len() {
                result = operation(result, bits(lua, &args, index, name)?);
            }
            Ok(result)
        })?;
        library.set(name, function)?;
    }
    let shifts: [Named<Shift>; 5] = [
        ("lshift", |a, n| a << n),
        ("rshift", |a, n| (a as u32 >> n) as i32),
        ("arshift", |a, n| a >> n),
        ("rol", i32::rotate_left),
        ("ror", i32::rotate_right),
    ];
    for (name, operation) in shifts {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let (value, by) = (bits(lua, &args, 1, name)?, bits(lua, &args, 2, name)?);
            Ok(operation(value, by as u32 & 31))
        })?;
        library.set(name, function)?;
    }
    library.set("tohex", lua.create_function(to_hex)?)?;
    Ok(library)
}

fn to_hex(lua: &Lua, args: MultiValue) -> mlua::Result<String> {
    let value = bits(lua, &args, 1, "tohex")?;
    let digits = if args.len() < 2 { 8 } else { bits(lua, &args, 2, "tohex")? };
    let width = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    Ok(text[8 - width..].to_owned())
}
