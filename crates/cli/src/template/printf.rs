//! Go's `fmt.Sprint` and `fmt.Sprintf`, for the kinds of values that JSON has.

use super::value::Value;

/// Wider than any column; a template cannot ask for gigabytes of spaces.
const MAX_WIDTH: usize = 4096;

/// `fmt.Sprint`: a space between two operands when neither is a string.
pub fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut previous_text = true;
    for (index, argument) in arguments.iter().enumerate() {
        let text = matches!(argument, Value::String(_));
        if index > 0 && !text && !previous_text {
            out.push(' ');
        }
        out.push_str(&argument.to_string());
        previous_text = text;
    }
    out
}

/// `fmt.Sprintln`.
pub fn println(arguments: &[Value]) -> String {
    let parts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    parts.join(" ") + "\n"
}

#[derive(Default, Clone)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// `fmt.Sprintf`, with its notes about missing, extra and ill-typed arguments.
pub fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut rest = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        if let Some(width) = size(&mut chars, &mut rest) {
            spec.minus |= width < 0;
            spec.width = usize::try_from(width.unsigned_abs())
                .unwrap_or(MAX_WIDTH)
                .min(MAX_WIDTH);
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            let precision = size(&mut chars, &mut rest).unwrap_or(0);
            spec.precision = usize::try_from(precision).ok().map(|p| p.min(MAX_WIDTH));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match rest.next() {
                Some(value) => out.push_str(&format_value(value, verb, &spec)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> = rest.map(|v| format!("{}={v}", v.type_name())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// A width or precision: digits, or `*` for the next argument.
fn size<'a>(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    rest: &mut impl Iterator<Item = &'a Value>,
) -> Option<i64> {
    if chars.peek() == Some(&'*') {
        chars.next();
        return match rest.next() {
            Some(Value::Int(value)) => i64::try_from(*value).ok(),
            _ => None,
        };
    }
    let mut value: Option<i64> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        value = Some(
            value
                .unwrap_or(0)
                .saturating_mul(10)
                .saturating_add(digit.into()),
        );
        chars.next();
    }
    value
}

fn format_value(value: &Value, verb: char, spec: &Spec) -> String {
    if verb == 'T' {
        return pad(value.type_name().to_owned(), spec, false);
    }
    match (value, verb) {
        (Value::List(items), 's' | 'd' | 'q' | 'x' | 'X' | 'v' | 'f' | 'g' | 't') => {
            let parts: Vec<String> = items
                .iter()
                .map(|item| format_value(item, verb, spec))
                .collect();
            format!("[{}]", parts.join(" "))
        }
        (Value::NilList, _) => format_value(&Value::List(Vec::new()), verb, spec),
        (Value::Map(_) | Value::Dict(_), 's' | 'q' | 'v') => {
            let mut sorted = value.members().unwrap_or_default();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            let one = |text: &str| format_value(&Value::from(text), verb, spec);
            let parts: Vec<String> = sorted
                .into_iter()
                .map(|(key, item)| format!("{}:{}", one(key), format_value(item, verb, spec)))
                .collect();
            format!("map[{}]", parts.join(" "))
        }
        (Value::String(text), _) => format_text(text, verb, spec),
        (Value::Bool(flag), 't' | 'v') => pad(flag.to_string(), spec, false),
        (Value::Int(number), _) => format_int(*number, verb, spec),
        (Value::Float(number), _) => format_float(*number, verb, spec),
        (Value::Null | Value::Missing, 'v') => pad("<nil>".to_owned(), spec, false),
        _ => bad_verb(value, verb),
    }
}

fn bad_verb(value: &Value, verb: char) -> String {
    match value {
        Value::Null => format!("%!{verb}(<nil>)"),
        other => format!("%!{verb}({}={other})", other.type_name()),
    }
}

fn format_text(text: &str, verb: char, spec: &Spec) -> String {
    let cut: String = match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| -> String {
        cut.bytes()
            .map(|b| {
                if upper {
                    format!("{b:02X}")
                } else {
                    format!("{b:02x}")
                }
            })
            .collect()
    };
    let body = match verb {
        's' => cut,
        'v' if spec.sharp => quote(&cut),
        'v' => cut,
        'q' if spec.sharp && !cut.contains('`') => format!("`{cut}`"),
        'q' => quote(&cut),
        'x' => hex(false),
        'X' => hex(true),
        other => return bad_verb(&Value::from(text), other),
    };
    pad(body, spec, false)
}

/// `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x80 && c.is_control() => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)))
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn format_int(number: i128, verb: char, spec: &Spec) -> String {
    let magnitude = number.unsigned_abs();
    let (mut digits, prefix) = match verb {
        'd' | 'v' => (magnitude.to_string(), ""),
        'x' => (format!("{magnitude:x}"), if spec.sharp { "0x" } else { "" }),
        'X' => (format!("{magnitude:X}"), if spec.sharp { "0X" } else { "" }),
        'o' => (format!("{magnitude:o}"), if spec.sharp { "0" } else { "" }),
        'b' => (format!("{magnitude:b}"), if spec.sharp { "0b" } else { "" }),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(number)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or('\u{fffd}');
            let body = match verb {
                'c' => c.to_string(),
                'q' => format!("'{c}'"),
                _ => format!("U+{magnitude:04X}"),
            };
            return pad(body, spec, false);
        }
        other => return bad_verb(&Value::Int(number), other),
    };
    if let Some(precision) = spec.precision {
        digits = format!(
            "{}{digits}",
            "0".repeat(precision.saturating_sub(digits.len()))
        );
    }
    pad(
        sign(number < 0, spec) + prefix + &digits,
        spec,
        spec.precision.is_none(),
    )
}

fn sign(negative: bool, spec: &Spec) -> String {
    let text = if negative {
        "-"
    } else if spec.plus {
        "+"
    } else if spec.space {
        " "
    } else {
        ""
    };
    text.to_owned()
}

fn format_float(number: f64, verb: char, spec: &Spec) -> String {
    let magnitude = number.abs();
    let body = match verb {
        'f' | 'F' => format!("{magnitude:.*}", spec.precision.unwrap_or(6)),
        'e' => exponent(&format!("{magnitude:.*e}", spec.precision.unwrap_or(6))),
        'v' | 'g' => match spec.precision {
            None => float_general(magnitude),
            Some(precision) => significant(magnitude, precision.max(1)),
        },
        other => return bad_verb(&Value::Float(number), other),
    };
    pad(
        sign(number.is_sign_negative() && number != 0.0, spec) + &body,
        spec,
        true,
    )
}

/// `%v` of a float64: the shortest digits that read back the same.
pub fn float_general(number: f64) -> String {
    let scientific = format!("{number:e}");
    let power = scientific
        .rsplit('e')
        .next()
        .and_then(|e| e.parse::<i32>().ok())
        .unwrap_or(0);
    if (-4..21).contains(&power) {
        number.to_string()
    } else {
        exponent(&scientific)
    }
}

/// `%.Ng`.
fn significant(number: f64, digits: usize) -> String {
    let scientific = format!("{number:.*e}", digits - 1);
    let power = scientific
        .rsplit('e')
        .next()
        .and_then(|e| e.parse::<i32>().ok())
        .unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    let trim = |text: &str| -> String {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if power < -4 || power >= limit {
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return exponent(&format!("{}e{power}", trim(mantissa)));
    }
    let decimals = usize::try_from(limit - 1 - power).unwrap_or(0);
    trim(&format!("{number:.decimals$}"))
}

/// Rust writes `1e5` where Go writes `1e+05`.
fn exponent(text: &str) -> String {
    let Some((mantissa, power)) = text.split_once('e') else {
        return text.to_owned();
    };
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn pad(body: String, spec: &Spec, number: bool) -> String {
    let missing = spec.width.saturating_sub(body.chars().count());
    if missing == 0 {
        return body;
    }
    if spec.minus {
        return body + &" ".repeat(missing);
    }
    if spec.zero && number {
        let digits = body.trim_start_matches(['-', '+', ' ']);
        let sign = &body[..body.len() - digits.len()];
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &body
}
