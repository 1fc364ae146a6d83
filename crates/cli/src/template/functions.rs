//! Functions of Go's `text/template` and those that Docker adds.

use std::cmp::Ordering;

use super::printf;
use super::value::Value;

/// Which meaning Docker's functions have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// Of values.
    Data,
    /// Of column headings: those that reshape text leave it as it is.
    Header,
}

/// Why a call failed.
pub enum CallError {
    /// The function says why.
    Failed(String),
    /// Too few or too many arguments.
    Count { want: String, got: usize },
    /// An argument of the wrong type.
    Argument {
        index: usize,
        expected: &'static str,
    },
}

const NAMES: [&str; 27] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js",
    "urlquery", "eq", "ne", "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower",
    "upper", "pad", "truncate", "call",
];

/// Whether templates may use this name.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function with evaluated arguments.
pub fn call(name: &str, arguments: &[Value], functions: Functions) -> Result<Value, CallError> {
    let header = functions == Functions::Header;
    match name {
        "and" | "or" => Err(at_least_one(arguments)),
        "not" => exactly(arguments, 1).map(|()| Value::Bool(!arguments.iter().any(Value::truth))),
        "len" => len(arguments),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::String(printf::print(arguments))),
        "println" => Ok(Value::String(printf::println(arguments))),
        "printf" => {
            let (format, rest) = arguments
                .split_first()
                .ok_or_else(|| at_least_one(arguments))?;
            let Value::String(format) = format else {
                return Err(CallError::Argument {
                    index: 0,
                    expected: "string",
                });
            };
            Ok(Value::String(printf::printf(format, rest)))
        }
        "html" => Ok(Value::String(escape_html(&printf::print(arguments)))),
        "js" => Ok(Value::String(escape_js(&printf::print(arguments)))),
        "urlquery" => Ok(Value::String(escape_query(&printf::print(arguments)))),
        "eq" => equal_any(arguments).map(Value::Bool),
        "ne" => {
            exactly(arguments, 2)?;
            equal_any(arguments).map(|equal| Value::Bool(!equal))
        }
        "lt" => compare(arguments).map(|o| Value::Bool(o == Ordering::Less)),
        "le" => compare(arguments).map(|o| Value::Bool(o != Ordering::Greater)),
        "gt" => compare(arguments).map(|o| Value::Bool(o == Ordering::Greater)),
        "ge" => compare(arguments).map(|o| Value::Bool(o != Ordering::Less)),
        "json" | "title" | "lower" | "upper" if header => {
            exactly(arguments, 1)?;
            text(arguments, 0).map(Value::from)
        }
        "truncate" if header => {
            exactly(arguments, 2)?;
            text(arguments, 0).map(Value::from)
        }
        "json" => {
            exactly(arguments, 1)?;
            Ok(Value::String(
                arguments.iter().map(Value::to_json).collect(),
            ))
        }
        "title" => one_text(arguments, title),
        "lower" => one_text(arguments, str::to_lowercase),
        "upper" => one_text(arguments, str::to_uppercase),
        "split" => {
            exactly(arguments, 2)?;
            Ok(split(text(arguments, 0)?, text(arguments, 1)?))
        }
        "join" => join(arguments),
        "pad" => {
            exactly(arguments, 3)?;
            let (body, before, after) = (
                text(arguments, 0)?,
                count(arguments, 1)?,
                count(arguments, 2)?,
            );
            let padded = format!("{}{body}{}", " ".repeat(before), " ".repeat(after));
            Ok(Value::String(if body.is_empty() {
                String::new()
            } else {
                padded
            }))
        }
        "truncate" => {
            exactly(arguments, 2)?;
            let (body, length) = (text(arguments, 0)?, count(arguments, 1)?);
            Ok(Value::String(body.chars().take(length).collect()))
        }
        // `call` takes a function value, and JSON has none.
        _ => Err(CallError::Failed("call of nil".to_owned())),
    }
}

fn exactly(arguments: &[Value], want: usize) -> Result<(), CallError> {
    if arguments.len() == want {
        Ok(())
    } else {
        Err(CallError::Count {
            want: want.to_string(),
            got: arguments.len(),
        })
    }
}

fn at_least_one(arguments: &[Value]) -> CallError {
    CallError::Count {
        want: "at least 1".to_owned(),
        got: arguments.len(),
    }
}

fn text(arguments: &[Value], index: usize) -> Result<&str, CallError> {
    match arguments.get(index) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(CallError::Argument {
            index,
            expected: "string",
        }),
    }
}

/// A length; bounded, so that a template cannot ask for all memory.
fn count(arguments: &[Value], index: usize) -> Result<usize, CallError> {
    match arguments.get(index) {
        Some(Value::Int(n)) => Ok(usize::try_from((*n).clamp(0, 65_536)).unwrap_or(0)),
        _ => Err(CallError::Argument {
            index,
            expected: "integer",
        }),
    }
}

fn one_text(arguments: &[Value], f: impl Fn(&str) -> String) -> Result<Value, CallError> {
    exactly(arguments, 1)?;
    text(arguments, 0).map(|text| Value::String(f(text)))
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn split(body: &str, separator: &str) -> Value {
    let owned = |part: &str| Value::String(part.to_owned());
    Value::List(if separator.is_empty() {
        body.chars().map(|c| Value::String(c.to_string())).collect()
    } else {
        body.split(separator).map(owned).collect()
    })
}

fn join(arguments: &[Value]) -> Result<Value, CallError> {
    exactly(arguments, 2)?;
    let separator = text(arguments, 1)?;
    match arguments.first() {
        Some(Value::List(items)) => {
            let parts: Vec<String> = items.iter().map(ToString::to_string).collect();
            Ok(Value::String(parts.join(separator)))
        }
        Some(Value::Null | Value::NilList) => Ok(Value::String(String::new())),
        other => {
            let got = other.map_or("nil", Value::type_name);
            Err(CallError::Failed(format!("expected slice, got {got}")))
        }
    }
}

fn len(arguments: &[Value]) -> Result<Value, CallError> {
    exactly(arguments, 1)?;
    let length = match arguments.first() {
        Some(Value::String(text)) => text.len(),
        Some(Value::List(items)) => items.len(),
        Some(value @ (Value::Map(_) | Value::Dict(_))) => {
            value.members().map_or(0, |all| all.len())
        }
        Some(Value::Null | Value::NilList) => 0,
        other => {
            let got = other.map_or("nil", Value::type_name);
            return Err(CallError::Failed(format!("len of type {got}")));
        }
    };
    Ok(Value::Int(i128::try_from(length).unwrap_or(i128::MAX)))
}

fn index(arguments: &[Value]) -> Result<Value, CallError> {
    let (first, keys) = arguments
        .split_first()
        .ok_or_else(|| at_least_one(arguments))?;
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Int(_)) => items
                .get(position(key, items.len().saturating_sub(1))?)
                .cloned()
                .ok_or_else(|| out_of(key))?,
            (Value::String(body), Value::Int(_)) => {
                let byte = body
                    .as_bytes()
                    .get(position(key, body.len().saturating_sub(1))?);
                Value::Int((*byte.ok_or_else(|| out_of(key))?).into())
            }
            (Value::NilList, Value::Int(_)) => return Err(out_of(key)),
            (Value::Map(_) | Value::Dict(_), Value::String(name)) => {
                let found = value.get(name).cloned();
                // The zero value of the element's type: "" in a map of strings, such as labels.
                let strings = value
                    .members()
                    .unwrap_or_default()
                    .into_iter()
                    .all(|(_, value)| matches!(value, Value::String(_)));
                found.unwrap_or(if strings {
                    Value::from("")
                } else {
                    Value::Null
                })
            }
            (Value::Null, _) => return Err(CallError::Failed("index of untyped nil".to_owned())),
            (Value::List(_) | Value::NilList | Value::String(_), other) => {
                let got = other.type_name();
                return Err(CallError::Failed(format!(
                    "cannot index slice/array with type {got}"
                )));
            }
            (Value::Map(_) | Value::Dict(_), other) => {
                let got = other.type_name();
                return Err(CallError::Failed(format!(
                    "value has type {got}; should be string"
                )));
            }
            (other, _) => {
                return Err(CallError::Failed(format!(
                    "can't index item of type {}",
                    other.type_name()
                )));
            }
        };
    }
    Ok(value)
}

fn out_of(key: &Value) -> CallError {
    CallError::Failed(format!("index out of range: {key}"))
}

/// A position from 0 to `last`, both included.
fn position(key: &Value, last: usize) -> Result<usize, CallError> {
    let Value::Int(n) = key else {
        return Err(CallError::Failed(format!(
            "cannot index slice/array with type {}",
            key.type_name()
        )));
    };
    usize::try_from(*n)
        .ok()
        .filter(|n| *n <= last)
        .ok_or_else(|| out_of(key))
}

fn slice(arguments: &[Value]) -> Result<Value, CallError> {
    let (value, bounds) = arguments
        .split_first()
        .ok_or_else(|| at_least_one(arguments))?;
    if bounds.len() > 2 {
        return Err(CallError::Failed(format!(
            "too many slice indexes: {}",
            bounds.len()
        )));
    }
    let length = match value {
        Value::List(items) => items.len(),
        Value::NilList => 0,
        Value::String(body) => body.len(),
        other => {
            return Err(CallError::Failed(format!(
                "can't slice item of type {}",
                other.type_name()
            )));
        }
    };
    let from = bounds.first().map_or(Ok(0), |key| position(key, length))?;
    let to = bounds
        .get(1)
        .map_or(Ok(length), |key| position(key, length))?;
    if from > to {
        return Err(CallError::Failed(format!(
            "invalid slice index: {from} > {to}"
        )));
    }
    Ok(match value {
        Value::List(items) => Value::List(items.get(from..to).unwrap_or_default().to_vec()),
        Value::NilList => Value::NilList,
        other => {
            let body = other.to_string();
            let bytes = body.as_bytes().get(from..to).unwrap_or_default();
            Value::String(String::from_utf8_lossy(bytes).into_owned())
        }
    })
}

fn equal_any(arguments: &[Value]) -> Result<bool, CallError> {
    let (first, others) = arguments
        .split_first()
        .ok_or_else(|| at_least_one(arguments))?;
    if others.is_empty() {
        return Err(CallError::Failed(
            "missing argument for comparison".to_owned(),
        ));
    }
    for other in others {
        let equal = match (first, other) {
            (first, other) if is_collection(first) && is_collection(other) => {
                return Err(CallError::Failed("non-comparable types".to_owned()));
            }
            (Value::Null, _) | (_, Value::Null) => first == other,
            _ if std::mem::discriminant(first) == std::mem::discriminant(other) => first == other,
            _ => {
                return Err(CallError::Failed(
                    "incompatible types for comparison".to_owned(),
                ));
            }
        };
        if equal {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_collection(value: &Value) -> bool {
    matches!(
        value,
        Value::List(_) | Value::NilList | Value::Map(_) | Value::Dict(_)
    )
}

fn compare(arguments: &[Value]) -> Result<Ordering, CallError> {
    exactly(arguments, 2)?;
    let order = match arguments {
        [Value::Int(a), Value::Int(b)] => Some(a.cmp(b)),
        [Value::Float(a), Value::Float(b)] => Some(a.total_cmp(b)),
        [Value::String(a), Value::String(b)] => Some(a.cmp(b)),
        _ => None,
    };
    order.ok_or_else(|| CallError::Failed("incompatible types for comparison".to_owned()))
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            other => out.push(other),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
