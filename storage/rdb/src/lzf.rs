//! LZF, the small compressor of RDB strings. Read everywhere, written nowhere by default: snapshots are compressed
//! as a whole, which is both smaller and faster.

/// Decompresses `input` to exactly `length` bytes. `None` when the input is damaged or gives another length.
/// Allocates only as the output really grows, so a lying `length` costs nothing.
pub fn decompress(input: &[u8], length: usize) -> Option<Vec<u8>> {
    // A control byte and two more give at most 264 bytes.
    if length > input.len().saturating_mul(264) {
        return None;
    }
    let mut output: Vec<u8> = Vec::with_capacity(length);
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if control < 32 {
            let (literal, after) = rest.split_at_checked(usize::from(control) + 1)?;
            if output.len() + literal.len() > length {
                return None;
            }
            output.extend_from_slice(literal);
            rest = after;
            continue;
        }
        let mut count = usize::from(control >> 5);
        if count == 7 {
            let (&more, after) = rest.split_first()?;
            count += usize::from(more);
            rest = after;
        }
        let (&low, after) = rest.split_first()?;
        rest = after;
        let distance = (usize::from(control & 0x1f) << 8) + usize::from(low) + 1;
        copy_back(&mut output, distance, count + 2, length)?;
    }
    (output.len() == length).then_some(output)
}

/// Appends `count` bytes that begin `distance` bytes before the end; they may overlap what is being written.
fn copy_back(output: &mut Vec<u8>, distance: usize, count: usize, limit: usize) -> Option<()> {
    let start = output.len().checked_sub(distance)?;
    if output.len() + count > limit {
        return None;
    }
    let mut copied = 0;
    while copied < count {
        let step = (count - copied).min(distance);
        output.extend_from_within(start + copied..start + copied + step);
        copied += step;
    }
    Some(())
}

/// Compresses `input`, or `None` where that would not make it smaller.
pub fn compress(input: &[u8]) -> Option<Vec<u8>> {
    const HASH_BITS: u32 = 13;
    let mut heads = vec![0u32; 1 << HASH_BITS];
    let mut output = Vec::with_capacity(input.len());
    let mut literal_start = 0usize;
    let mut at = 0usize;
    while let Some(&[a, b, c]) = input.get(at..at + 3) {
        let word = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
        let slot = (word.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize;
        let head = heads.get_mut(slot)?;
        // Positions are kept plus one, so that 0 means none.
        let candidate = (*head as usize).checked_sub(1);
        *head = u32::try_from(at + 1).ok()?;
        let reach = candidate.filter(|&from| at - from <= 0x2000).map_or(0, |from| common(input, from, at));
        if reach < 3 {
            at += 1;
            continue;
        }
        flush_literals(&mut output, input.get(literal_start..at)?);
        let distance = at - candidate? - 1;
        let count = reach - 2;
        let high = u8::try_from(distance >> 8).ok()?;
        if count < 7 {
            output.push(u8::try_from(count).ok()? << 5 | high);
        } else {
            output.push(7 << 5 | high);
            output.push(u8::try_from(count - 7).ok()?);
        }
        output.push(u8::try_from(distance & 0xff).ok()?);
        at += reach;
        literal_start = at;
        if output.len() >= input.len() {
            return None;
        }
    }
    flush_literals(&mut output, input.get(literal_start..)?);
    (output.len() < input.len()).then_some(output)
}

/// How many bytes agree at both places, at most what one back reference can say.
fn common(input: &[u8], from: usize, at: usize) -> usize {
    let earlier = input.get(from..).unwrap_or_default();
    let later = input.get(at..).unwrap_or_default();
    earlier.iter().zip(later).take(264).take_while(|(one, other)| one == other).count()
}

fn flush_literals(output: &mut Vec<u8>, literals: &[u8]) {
    for chunk in literals.chunks(32) {
        output.push(u8::try_from(chunk.len() - 1).unwrap_or(31));
        output.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let mut text = b"hello hello hello hello ".repeat(40);
        text.extend((0..200u8).map(|byte| byte.wrapping_mul(37)));
        let packed = compress(&text).expect("repetitive text shrinks");
        assert!(packed.len() < text.len() / 2);
        assert_eq!(decompress(&packed, text.len()), Some(text.clone()));
        assert_eq!(decompress(&packed, text.len() - 1), None);
        assert_eq!(decompress(&packed, text.len() + 1), None);
        let zeros = vec![0u8; 10_000];
        assert_eq!(decompress(&compress(&zeros).expect("zeros shrink"), 10_000), Some(zeros));
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(decompress(&[0x20, 0x05], 3), None);
        assert_eq!(decompress(&[0x05, 1, 2], 6), None);
        assert_eq!(decompress(&[0xe0], 9), None);
        assert_eq!(decompress(&[], usize::MAX), None);
        assert_eq!(compress(b"abc"), None);
    }
}
