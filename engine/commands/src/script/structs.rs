//! The library `struct`: <https://www.inf.puc-rio.br/~roberto/struct/>

use mlua::{Lua, MultiValue, Table, Value};

use super::raise::{argument_error, text_error, type_error};

/// Bytes of the longest integer.
const INTEGER_MAX: usize = 32;
/// What `!` aligns to when it names nothing.
const NATIVE_ALIGNMENT: usize = 8;
/// A length that a format may name.
const LENGTH_MAX: usize = i32::MAX as usize;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.set("pack", lua.create_function(pack)?)?;
    library.set("unpack", lua.create_function(unpack)?)?;
    library.set("size", lua.create_function(size)?)?;
    Ok(library)
}

/// A format, read option by option.
struct Format<'l> {
    lua: &'l Lua,
    function: &'static str,
    text: Vec<u8>,
    at: usize,
    is_big_endian: bool,
    alignment: usize,
}

impl<'l> Format<'l> {
    fn new(lua: &'l Lua, args: &MultiValue, function: &'static str) -> mlua::Result<Self> {
        let text = string(lua, args, 1, function)?;
        // As a text of C, it ends with its first zero byte.
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text = text[..end].to_vec();
        Ok(Self { lua, function, text, at: 0, is_big_endian: false, alignment: 1 })
    }

    fn error(&self, text: &str) -> mlua::Error {
        text_error(self.lua, text)
    }

    fn number(&mut self, default: usize) -> mlua::Result<usize> {
        let mut number = None;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at).copied() {
            let next = number.unwrap_or(0_usize) * 10 + usize::from(digit - b'0');
            if next > LENGTH_MAX {
                return Err(self.error("integral size overflow"));
            }
            number = Some(next);
            self.at += 1;
        }
        Ok(number.unwrap_or(default))
    }

    /// The next option and the bytes it takes, as far as the format tells.
    fn next(&mut self) -> mlua::Result<Option<(u8, usize)>> {
        let Some(option) = self.text.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_MAX {
                    return Err(
                        self.error(&format!("integral size {size} is larger than limit of {INTEGER_MAX}"))
                    );
                }
                size
            }
            _ => 0,
        };
        Ok(Some((option, size)))
    }

    /// Zero bytes before an element that stands at `position`.
    fn padding(&self, position: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.alignment);
        size.wrapping_sub(position & size.wrapping_sub(1)) & size.wrapping_sub(1)
    }

    /// An option that takes no bytes.
    fn control(&mut self, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.is_big_endian = true,
            b'<' => self.is_big_endian = false,
            b'!' => {
                let alignment = self.number(NATIVE_ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return Err(self.error(&format!("alignment {alignment} is not a power of 2")));
                }
                self.alignment = alignment;
            }
            other => {
                let text = format!("invalid format option '{}'", char::from(other));
                return Err(argument_error(self.lua, 1, self.function, &text));
            }
        }
        Ok(())
    }

    /// The bytes in the order that the format wants, or as they are in memory; it is the same either way.
    fn ordered<const N: usize>(&self, mut little_endian: [u8; N]) -> [u8; N] {
        if self.is_big_endian {
            little_endian.reverse();
        }
        little_endian
    }
}

fn string(lua: &Lua, args: &MultiValue, index: usize, function: &str) -> mlua::Result<Vec<u8>> {
    let value = args.get(index - 1);
    let text = value.map(|value| lua.coerce_string(value.clone())).transpose()?.flatten();
    let text = text.ok_or_else(|| type_error(lua, index, function, "string", value))?;
    Ok(text.as_bytes().to_vec())
}

fn float(lua: &Lua, args: &MultiValue, index: usize, function: &str) -> mlua::Result<f64> {
    let value = args.get(index - 1);
    let number = value.map(|value| lua.coerce_number(value.clone())).transpose()?.flatten();
    number.ok_or_else(|| type_error(lua, index, function, "number", value.or(Some(&Value::Nil))))
}

fn pack(lua: &Lua, args: MultiValue) -> mlua::Result<mlua::LuaString> {
    let mut format = Format::new(lua, &args, "pack")?;
    let mut out = Vec::new();
    let mut index = 2;
    while let Some((option, size)) = format.next()? {
        let padding = format.padding(out.len(), option, size);
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = float(lua, &args, index, "pack")?;
                let value = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                let begin = out.len();
                // What is longer than a number holds zeros.
                out.extend((0..size).map(|byte| if byte < 8 { (value >> (8 * byte)) as u8 } else { 0 }));
                if format.is_big_endian {
                    out[begin..].reverse();
                }
                index += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                let number = float(lua, &args, index, "pack")? as f32;
                out.extend_from_slice(&format.ordered(number.to_le_bytes()));
                index += 1;
            }
            b'd' => {
                let number = float(lua, &args, index, "pack")?;
                out.extend_from_slice(&format.ordered(number.to_le_bytes()));
                index += 1;
            }
            b'c' | b's' => {
                let text = string(lua, &args, index, "pack")?;
                index += 1;
                let size = if size == 0 { text.len() } else { size };
                let Some(text) = text.get(..size) else {
                    return Err(argument_error(lua, index, "pack", "string too short"));
                };
                out.extend_from_slice(text);
                if option == b's' {
                    out.push(0);
                }
            }
            option => format.control(option)?,
        }
    }
    lua.create_string(out)
}

fn integer(bytes: &[u8], is_big_endian: bool, is_signed: bool) -> f64 {
    let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let value = if is_big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) };
    if !is_signed {
        return value as f64;
    }
    let unused = 64_usize.saturating_sub(8 * bytes.len());
    if unused == 64 { 0.0 } else { ((value << unused) as i64 >> unused) as f64 }
}

fn unpack(lua: &Lua, args: MultiValue) -> mlua::Result<MultiValue> {
    let mut format = Format::new(lua, &args, "unpack")?;
    let data = string(lua, &args, 2, "unpack")?;
    let position = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        Some(_) => float(lua, &args, 3, "unpack")?,
    };
    if position < 1.0 {
        return Err(argument_error(lua, 3, "unpack", "offset must be 1 or greater"));
    }
    let mut at = position as usize - 1;
    let mut values = MultiValue::new();
    let short = || argument_error(lua, 2, "unpack", "data string too short");
    while let Some((option, size)) = format.next()? {
        at += format.padding(at, option, size);
        let bytes = at.checked_add(size).and_then(|end| data.get(at..end)).ok_or_else(short)?;
        at += size;
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = integer(bytes, format.is_big_endian, option.is_ascii_lowercase());
                values.push_back(Value::Number(number));
            }
            b'x' => {}
            b'f' => {
                let bytes = format.ordered(<[u8; 4]>::try_from(bytes).map_err(|_| short())?);
                values.push_back(Value::Number(f64::from(f32::from_le_bytes(bytes))));
            }
            b'd' => {
                let bytes = format.ordered(<[u8; 8]>::try_from(bytes).map_err(|_| short())?);
                values.push_back(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' if size == 0 => {
                let Some(Value::Number(length)) = values.pop_back() else {
                    return Err(format.error("format 'c0' needs a previous size"));
                };
                let text =
                    at.checked_add(length as usize).and_then(|end| data.get(at..end)).ok_or_else(short)?;
                values.push_back(Value::String(lua.create_string(text)?));
                at += text.len();
            }
            b'c' => values.push_back(Value::String(lua.create_string(bytes)?)),
            b's' => {
                let rest = data.get(at..).unwrap_or_default();
                let length = rest.iter().position(|byte| *byte == 0);
                let length = length.ok_or_else(|| format.error("unfinished string in data"))?;
                values.push_back(Value::String(lua.create_string(&rest[..length])?));
                at += length + 1;
            }
            option => format.control(option)?,
        }
    }
    values.push_back(Value::Integer(at as i64 + 1));
    Ok(values)
}

fn size(lua: &Lua, args: MultiValue) -> mlua::Result<usize> {
    let mut format = Format::new(lua, &args, "size")?;
    let mut position = 0;
    while let Some((option, size)) = format.next()? {
        position += format.padding(position, option, size);
        match option {
            b's' => return Err(argument_error(lua, 1, "size", "option 's' has no fixed size")),
            b'c' if size == 0 => {
                return Err(argument_error(lua, 1, "size", "option 'c0' has no fixed size"));
            }
            option if !option.is_ascii_alphanumeric() => format.control(option)?,
            _ => position += size,
        }
    }
    Ok(position)
}
