//! Patterns of `--filter reference=` and `images PATTERN`, as Go's `path.Match` has them.

/// Whether `text` fits `pattern`: `*` is any characters but `/`, `?` one of them, `[a-z]` one of a set,
/// `\` takes the next character as it is.
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: linear for each star.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if let Some(c) = text.get(t) {
            if pattern.get(p) == Some(&'*') {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            if let Some(length) = one(pattern.get(p..).unwrap_or_default(), *c) {
                p += length;
                t += 1;
                continue;
            }
        } else if pattern
            .get(p..)
            .is_some_and(|rest| rest.iter().all(|c| *c == '*'))
        {
            return true;
        }
        match retry {
            Some((after_star, from)) if text.get(from).is_some_and(|c| *c != '/') => {
                retry = Some((after_star, from + 1));
                p = after_star;
                t = from + 1;
            }
            _ => return false,
        }
    }
}

/// How much of the pattern one character uses up; `None` when it does not fit.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] if c != '/' => Some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => {
            let close = rest.iter().skip(1).position(|x| *x == ']')? + 1;
            let set = rest.get(..close)?;
            let (negated, set) = match set {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut found = false;
            let mut index = 0;
            while let Some(low) = set.get(index) {
                if let (Some('-'), Some(high)) = (set.get(index + 1), set.get(index + 2)) {
                    found |= (*low..=*high).contains(&c);
                    index += 3;
                } else {
                    found |= *low == c;
                    index += 1;
                }
            }
            (found != negated && c != '/').then_some(close + 2)
        }
        [literal, ..] if !matches!(literal, '?' | '\\') => (*literal == c).then_some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, fits) in [
            ("debian", "debian", true),
            ("debian", "debian:12", false),
            ("deb*", "debian:12", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("*:12", "debian:12", true),
            ("d?bian", "debian", true),
            ("[a-d]ebian", "debian", true),
            ("[^a-d]ebian", "debian", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        assert!(!glob(&"*a".repeat(200), &"b".repeat(2000)));
    }
}
