//! The data a template sees: JSON, with the order of an object's members kept.

use std::fmt;

use bulkhead_types::GuestText;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A JSON value as Go would hold it: integers stay integers, members keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`; prints as `<nil>`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Map(Vec<(String, Value)>),
    /// A Go map, where [`Value::Map`] is a Go struct: a key that it does not have is no error. `None` is the nil map.
    Dict(Option<Vec<(String, Value)>>),
    /// A slice that is nil: `[]` in text, `null` in JSON.
    NilList,
    /// What a map has for a key that it does not have.
    Missing,
    /// A method of one argument that looks a key up, as `{{.Label "key"}}`; not part of the JSON form.
    Lookup(Vec<(String, String)>),
    /// A member that a template can name and that the JSON form leaves out, as Go's `omitempty` does.
    Omitted(Box<Value>),
}

impl Value {
    /// The value that `data` serialises to.
    ///
    /// # Errors
    /// What serde reports; types made for JSON never fail.
    pub fn of<T: Serialize + ?Sized>(data: &T) -> Result<Self, serde_json::Error> {
        // Through text: serde_json's own value would sort the members of an object.
        serde_json::from_str(&serde_json::to_string(data)?)
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let members = match self {
            Self::Map(members) | Self::Dict(Some(members)) => members,
            _ => return None,
        };
        let (_, value) = members.iter().find(|(key, _)| key == name)?;
        Some(match value {
            Self::Omitted(value) => value,
            value => value,
        })
    }

    /// The members that the JSON form has; `None` for what has no members.
    pub fn members(&self) -> Option<Vec<&(String, Value)>> {
        match self {
            Self::Map(members) | Self::Dict(Some(members)) => {
                let visible = members
                    .iter()
                    .filter(|(_, value)| !matches!(value, Self::Omitted(_) | Self::Lookup(_)));
                Some(visible.collect())
            }
            Self::Dict(None) => Some(Vec::new()),
            _ => None,
        }
    }

    /// The same with every text in it fit for a cell of a table: no control characters, and all on one line.
    pub fn cells(&self) -> Self {
        match self {
            Self::String(text) => Self::String(GuestText::cell(text)),
            Self::List(list) => Self::List(list.iter().map(Self::cells).collect()),
            Self::Map(members) => {
                let clean = |(key, value): &(String, Self)| (GuestText::cell(key), value.cells());
                Self::Map(members.iter().map(clean).collect())
            }
            Self::Lookup(members) => {
                // The key is what the user asks for.
                let clean = |(key, text): &(String, String)| (key.clone(), GuestText::cell(text));
                Self::Lookup(members.iter().map(clean).collect())
            }
            other => other.clone(),
        }
    }

    /// Go's truth: not zero, not empty, not nil.
    pub fn truth(&self) -> bool {
        match self {
            Self::Null | Self::NilList | Self::Missing => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(value) => !value.is_empty(),
            Self::List(value) => !value.is_empty(),
            Self::Map(_) | Self::Dict(_) => self.members().is_some_and(|all| !all.is_empty()),
            Self::Lookup(_) => true,
            Self::Omitted(value) => value.truth(),
        }
    }

    /// Go's name of the type, for messages and `%T`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null | Self::Missing => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) | Self::NilList => "[]interface {}",
            Self::Map(_) | Self::Dict(_) => "map[string]interface {}",
            Self::Lookup(_) => "func(string) string",
            Self::Omitted(value) => value.type_name(),
        }
    }

    /// Compact JSON as Go writes it, with `<`, `>` and `&` escaped.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_else(|_| "null".to_owned());
        escape_html(&text)
    }

    /// JSON with an indent of four spaces, as `docker inspect` prints it.
    pub fn to_json_pretty(&self) -> String {
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
        match self.serialize(&mut serializer) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => "null".to_owned(),
        }
    }
}

/// In JSON these three can only stand inside strings.
fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

impl fmt::Display for Value {
    /// Go's `%v`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<nil>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&super::printf::float_general(*value)),
            Self::String(value) => f.write_str(value),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Self::NilList => f.write_str("[]"),
            Self::Missing => f.write_str("<no value>"),
            Self::Omitted(value) => value.fmt(f),
            Self::Map(_) | Self::Dict(_) => {
                let mut sorted = self.members().unwrap_or_default();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                f.write_str("map[")?;
                for (index, (key, value)) in sorted.into_iter().enumerate() {
                    write!(f, "{}{key}:{value}", if index == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Self::Lookup(_) => f.write_str("func"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null | Self::NilList | Self::Missing | Self::Dict(None) | Self::Lookup(_) => {
                serializer.serialize_unit()
            }
            Self::Omitted(value) => value.serialize(serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_unit(),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(_) | Self::Dict(Some(_)) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in self.members().unwrap_or_default() {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Value::Map(members))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}
