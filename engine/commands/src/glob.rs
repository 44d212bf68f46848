//! Patterns as KEYS, SCAN MATCH and CONFIG GET take them.

/// A pattern with more stars than this, those at its end aside, matches nothing: so it is in Redis, for whose way to match
/// they are levels of a recursion.
const STARS_MAX: usize = 1000;

/// Whether `text` matches `pattern`: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a character that stands for itself.
///
/// Takes time in proportion to the product of the lengths at worst: only the last `*` is ever tried again.
#[must_use]
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let (mut retry, mut stars): (Option<(usize, usize)>, usize) = (None, 0);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += pattern[p..].iter().take_while(|byte| **byte == b'*').count();
            stars += usize::from(p < pattern.len());
            if stars > STARS_MAX {
                return false;
            }
            retry = Some((p, t));
            continue;
        }
        match pattern.get(p).and_then(|_| one(pattern, p, text[t])) {
            Some(next) => (p, t) = (next, t + 1),
            None => match retry {
                Some((star, at)) => {
                    (p, t) = (star, at + 1);
                    retry = Some((star, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Where the pattern goes on if the element at `p` matches `c`.
fn one(pattern: &[u8], p: usize, c: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, c),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == c).then_some(p + 2),
        literal => (literal == c).then_some(p + 1),
    }
}

fn class(pattern: &[u8], mut p: usize, c: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match pattern.get(p) {
            // A class that is not closed ends with the pattern.
            None => break,
            Some(b']') => {
                p += 1;
                break;
            }
            Some(b'\\') if p + 1 < pattern.len() => {
                found |= pattern[p + 1] == c;
                p += 2;
            }
            Some(&low) if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let high = pattern[p + 2];
                found |= (low.min(high)..=low.max(high)).contains(&c);
                p += 3;
            }
            Some(&literal) => {
                found |= literal == c;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("[a", "a", true),
            ("user:*", "user:1", true),
        ] {
            assert_eq!(
                glob_matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} against {text}"
            );
        }
    }

    #[test]
    fn too_many_stars_match_nothing() {
        assert!(glob_matches("*?".repeat(1_000).as_bytes(), &[b'a'; 5_000]));
        assert!(!glob_matches("*?".repeat(1_001).as_bytes(), &[b'a'; 5_000]));
        assert!(glob_matches(&[b'*'; 5_000], b"a"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!glob_matches("a*".repeat(50).as_bytes(), &[b'b'; 5_000]));
        assert!(!glob_matches(format!("{}b", "*a".repeat(50)).as_bytes(), &[b'a'; 5_000]));
    }
}
