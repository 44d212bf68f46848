//! BITFIELD: integers of 1 to 64 bits at any place of a string.

use cairn_resp::Reply;

use super::{bit_offset, with_room};
use crate::args::{integer, is};
use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;

/// What BITFIELD does with its key: it reads where all it is told to is GET.
pub(super) const ACCESS: Access = Access::RW.access().update().variable(access);

fn access(args: &[&[u8]]) -> Access {
    let writes = args.iter().skip(2).any(|arg| is(arg, "set") || is(arg, "incrby"));
    if writes { Access::RW.access().update() } else { Access::RO.access() }
}

/// The type of a field: `i` or `u` and its width.
#[derive(Clone, Copy, Debug)]
struct Kind {
    signed: bool,
    bits: u32,
}

impl Kind {
    fn parse(arg: &[u8]) -> Result<Self, CommandError> {
        const INVALID: &str = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
        let (signed, width) = match arg.split_first() {
            Some((b'i', width)) => (true, width),
            Some((b'u', width)) => (false, width),
            _ => return Err(CommandError::other(INVALID)),
        };
        let width_max = if signed { 64 } else { 63 };
        match integer(width) {
            Ok(bits) if (1..=width_max).contains(&bits) => Ok(Self { signed, bits: bits as u32 }),
            _ => Err(CommandError::other(INVALID)),
        }
    }

    /// The least and the greatest number a field holds.
    fn range(self) -> (i128, i128) {
        if self.signed {
            let half = 1 << (self.bits - 1);
            (-half, half - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// The number that a field's bits, the lowest of `raw`, stand for.
    fn number(self, raw: u64) -> i64 {
        let unused = u64::BITS - self.bits;
        if self.signed { (raw << unused).cast_signed() >> unused } else { raw.cast_signed() }
    }
}

/// What becomes of a number that a field does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word {
            word if is(word, "wrap") => Ok(Self::Wrap),
            word if is(word, "sat") => Ok(Self::Saturate),
            word if is(word, "fail") => Ok(Self::Fail),
            _ => Err(CommandError::other("ERR Invalid OVERFLOW type specified")),
        }
    }

    /// The number to store; `None` where there is none.
    fn fit(self, number: i128, kind: Kind) -> Option<i64> {
        let (least, greatest) = kind.range();
        if (least..=greatest).contains(&number) {
            return Some(number as i64);
        }
        match self {
            Self::Wrap => Some(kind.number(number as u64 & (u64::MAX >> (u64::BITS - kind.bits)))),
            Self::Saturate => Some(number.clamp(least, greatest) as i64),
            Self::Fail => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set(i64),
    Increment(i64),
}

/// One of the subcommands.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    /// Of its first bit.
    offset: usize,
    action: Action,
    overflow: Overflow,
}

impl Step {
    /// Reads all subcommands.
    fn parse_all(data: &Data<'_, '_>, args: &[&[u8]]) -> Result<Vec<Self>, CommandError> {
        let (mut steps, mut overflow, mut rest) = (Vec::new(), Overflow::Wrap, args);
        while let Some((word, behind)) = rest.split_first() {
            rest = match behind {
                [kind, offset, behind @ ..] if is(word, "get") => {
                    steps.push(Self::parse(data, kind, offset, overflow)?);
                    behind
                }
                [kind, offset, number, behind @ ..] if is(word, "set") || is(word, "incrby") => {
                    let step = Self::parse(data, kind, offset, overflow)?;
                    let number = integer(number)?;
                    let action =
                        if is(word, "set") { Action::Set(number) } else { Action::Increment(number) };
                    steps.push(Self { action, ..step });
                    behind
                }
                [word_of_overflow, behind @ ..] if is(word, "overflow") => {
                    overflow = Overflow::parse(word_of_overflow)?;
                    behind
                }
                _ => return Err(CommandError::Syntax),
            };
        }
        Ok(steps)
    }

    fn parse(
        data: &Data<'_, '_>,
        kind: &[u8],
        offset: &[u8],
        overflow: Overflow,
    ) -> Result<Self, CommandError> {
        let kind = Kind::parse(kind)?;
        let offset = bit_offset(data, offset, Some(kind.bits))?;
        Ok(Self { kind, offset, action: Action::Get, overflow })
    }

    fn writes(&self) -> bool {
        !matches!(self.action, Action::Get)
    }

    /// How long the string must be for the field to lie in it.
    fn bytes_needed(&self) -> usize {
        (self.offset + self.kind.bits as usize).div_ceil(8)
    }

    /// The field in a string that goes on in zeros.
    fn read(&self, bitmap: &[u8]) -> i64 {
        let (first, shift) = (self.offset / 8, self.offset % 8);
        let mut window = [0; 16];
        let there = bitmap.get(first..).unwrap_or_default();
        let len = there.len().min(9);
        window[..len].copy_from_slice(&there[..len]);
        let raw = u128::from_be_bytes(window) << shift >> (u128::BITS - self.kind.bits);
        self.kind.number(raw as u64)
    }

    /// Puts a number that fits into the field, which lies within the string.
    fn write(&self, bitmap: &mut [u8], number: i64) {
        let (first, shift) = (self.offset / 8, self.offset % 8);
        let len = self.bytes_needed() - first;
        let mut window = [0; 16];
        window[..len].copy_from_slice(&bitmap[first..first + len]);
        let place = u128::BITS - self.kind.bits - shift as u32;
        let mask = u128::from(u64::MAX >> (u64::BITS - self.kind.bits)) << place;
        let field = u128::from(number.cast_unsigned()) << place & mask;
        let window = (u128::from_be_bytes(window) & !mask | field).to_be_bytes();
        bitmap[first..first + len].copy_from_slice(&window[..len]);
    }

    /// Does what the step says and replies; the field must lie within the string if it writes.
    fn run(&self, bitmap: &mut [u8], reply: &mut Reply<'_>) {
        let before = self.read(bitmap);
        let wanted = match self.action {
            Action::Get => return reply.integer(before),
            // What a field without a sign is set to counts as positive, however it is written.
            Action::Set(number) if !self.kind.signed => i128::from(number.cast_unsigned()),
            Action::Set(number) => i128::from(number),
            Action::Increment(by) => i128::from(before) + i128::from(by),
        };
        match self.overflow.fit(wanted, self.kind) {
            None => reply.null(),
            Some(after) => {
                self.write(bitmap, after);
                reply.integer(if matches!(self.action, Action::Set(_)) { before } else { after });
            }
        }
    }
}

pub(super) fn bitfield(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let steps = Step::parse_all(&ctx.data, &args[2..])?;
    let Some(len) = steps.iter().filter(|step| step.writes()).map(Step::bytes_needed).max() else {
        return read_only(ctx, args[1], &steps);
    };
    let before = match ctx.data.peek(args[1]) {
        Some(entry) => entry.as_str().ok_or(CommandError::WrongType)?,
        None => &[],
    };
    let (reply, grows) = (&mut ctx.reply, before.len() < len);
    reply.array(steps.len());
    if !grows {
        // Whether there is a change at all is known only afterwards, and watched keys must not see one that is none.
        let mut fields: Vec<(usize, Vec<u8>)> = Vec::new();
        for step in steps.iter().filter(|step| step.writes()) {
            let at = step.offset / 8;
            fields.push((at, before[at..step.bytes_needed()].to_vec()));
        }
        let Some(bitmap) = ctx.data.get_mut(args[1]).and_then(|entry| entry.as_str_mut()) else {
            return Err(CommandError::WrongType);
        };
        steps.iter().for_each(|step| step.run(bitmap, reply));
        if fields.iter().any(|(at, before)| bitmap[*at..*at + before.len()] != before[..]) {
            ctx.data.changed(args[1]);
            ctx.data.notify(Interest::STRING, "setbit", args[1]);
        }
        return Ok(());
    }
    with_room(&mut ctx.data, args[1], len, |bitmap| steps.iter().for_each(|step| step.run(bitmap, reply)));
    ctx.data.notify(Interest::STRING, "setbit", args[1]);
    Ok(())
}

pub(super) fn bitfield_ro(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let steps = Step::parse_all(&ctx.data, &args[2..])?;
    if steps.iter().any(Step::writes) {
        return Err(CommandError::other("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_only(ctx, args[1], &steps)
}

fn read_only(ctx: &mut Context<'_, '_>, key: &[u8], steps: &[Step]) -> CommandResult {
    let bitmap = ctx.data.get_str(key)?.unwrap_or_default();
    ctx.reply.array(steps.len());
    steps.iter().for_each(|step| ctx.reply.integer(step.read(bitmap)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;
    use crate::testing::Engine;

    #[test]
    fn a_field_reads_back_as_written_and_disturbs_nothing_else() {
        let mut state = 4;
        for _ in 0..4_000 {
            let mut random = || next_random(&mut state);
            let signed = random() % 2 == 0;
            let kind = Kind { signed, bits: (random() % if signed { 64 } else { 63 }) as u32 + 1 };
            let offset = (random() % 70) as usize;
            let step = Step { kind, offset, action: Action::Get, overflow: Overflow::Wrap };
            let before: Vec<u8> = (0..step.bytes_needed()).map(|_| random() as u8).collect();
            let number = Overflow::Wrap.fit(i128::from(random().cast_signed()), kind).expect("it wraps");
            let mut after = before.clone();
            step.write(&mut after, number);
            assert_eq!(step.read(&after), number, "{step:?}");
            for at in (0..before.len() * 8).filter(|at| !(offset..offset + kind.bits as usize).contains(at)) {
                assert_eq!(before[at / 8] << (at % 8) & 0x80, after[at / 8] << (at % 8) & 0x80, "{step:?}");
            }
        }
    }

    #[test]
    fn replies_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "BITFIELD b SET u8 0 255 GET u8 0 -> *2 :0 :255
             BITFIELD b SET i8 0 -100 GET i8 0 GET u8 0 -> *3 :-1 :-100 :156
             BITFIELD b INCRBY u8 0 100 -> *1 :0
             BITFIELD b OVERFLOW SAT INCRBY i8 0 127 INCRBY i8 0 10 INCRBY i8 0 -500 -> *3 :127 :127 :-128
             BITFIELD b OVERFLOW FAIL INCRBY u2 #20 5 -> *1 $-1
             STRLEN b -> :6
             BITFIELD b OVERFLOW SAT SET u8 0 -1 GET u8 0 -> *2 :128 :255
             BITFIELD b SET i64 3 -9223372036854775808 INCRBY i64 3 -1 -> *2 :-576460752303423488 :9223372036854775807
             BITFIELD b -> *0
             BITFIELD b GET u64 0 -> -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
             BITFIELD b GET i65 0 -> -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
             BITFIELD b GET u8 -> -ERR syntax error
             BITFIELD b OVERFLOW ROUND -> -ERR Invalid OVERFLOW type specified
             BITFIELD b GET u8 -1 -> -ERR bit offset is not an integer or out of range
             BITFIELD b SET u8 0 x -> -ERR value is not an integer or out of range
             BITFIELD_RO b GET u8 0 -> *1 :239
             BITFIELD_RO b SET u8 0 1 -> -ERR BITFIELD_RO only supports the GET subcommand
             BITFIELD_RO no GET u8 #100 -> *1 :0
             BITFIELD no GET u8 #100 -> *1 :0
             EXISTS no -> :0
             BITFIELD new OVERFLOW FAIL SET u1 0 2 -> *1 $-1
             STRLEN new -> :1
             LPUSH l x -> :1
             BITFIELD l SET u8 0 1 -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn what_writes_the_number_that_is_there_changes_nothing() {
        let mut engine = Engine::new();
        engine.check("BITFIELD b SET u8 0 7 -> *1 :0\nBITFIELD b SET u8 0 7 INCRBY u8 0 0 -> *2 :7 :7");
        assert_eq!(engine.effects(), "BITFIELD b SET u8 0 7");
    }
}
