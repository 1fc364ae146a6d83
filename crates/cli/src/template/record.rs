//! The fields that one of Docker's structs has, whether or not JSON shows them.

use super::value::Value;

/// A Go struct by the zero values of its fields. Templates may name each of them; what JSON leaves out has its zero value.
#[derive(Debug)]
pub struct Record {
    /// Empty text.
    pub text: &'static [&'static str],
    /// 0.
    pub number: &'static [&'static str],
    /// `false`.
    pub flag: &'static [&'static str],
    /// A nil slice, printed as `[]`.
    pub list: &'static [&'static str],
    /// A nil map, printed as `map[]`. Such a map takes any key.
    pub dict: &'static [&'static str],
    /// A nil pointer, printed as `<nil>`.
    pub pointer: &'static [&'static str],
    /// A fixed pair of numbers.
    pub pair: &'static [&'static str],
    /// A struct within.
    pub parts: &'static [(&'static str, &'static Record)],
    /// A slice of structs.
    pub lists_of: &'static [(&'static str, &'static Record)],
    /// A field whose Go name is not its name in JSON: Go's, then JSON's. Docker's templates take both.
    pub named: &'static [(&'static str, &'static str)],
}

impl Record {
    /// A struct without fields, to be filled in.
    pub const EMPTY: Self = Self {
        text: &[],
        number: &[],
        flag: &[],
        list: &[],
        dict: &[],
        pointer: &[],
        pair: &[],
        parts: &[],
        lists_of: &[],
        named: &[],
    };

    /// `value` with every field of the struct. Its JSON form stays as it is.
    pub fn complete(&self, value: Value) -> Value {
        let Value::Map(mut members) = value else {
            return value;
        };
        let nil_list = |value| match value {
            Value::Null => Value::NilList,
            other => other,
        };
        let nil_dict = |value| match value {
            Value::Null => Value::Dict(None),
            Value::Map(members) => Value::Dict(Some(members)),
            other => other,
        };
        let pair = Value::List(vec![Value::Int(0), Value::Int(0)]);
        fields(&mut members, self.text, &Value::from(""), |value| value);
        fields(&mut members, self.number, &Value::Int(0), |value| value);
        fields(&mut members, self.flag, &Value::Bool(false), |value| value);
        fields(&mut members, self.pointer, &Value::Null, |value| value);
        fields(&mut members, self.pair, &pair, |value| value);
        fields(&mut members, self.list, &Value::NilList, nil_list);
        fields(&mut members, self.dict, &Value::Dict(None), nil_dict);
        for (name, record) in self.parts {
            let zero = record.complete(Value::Map(Vec::new()));
            fields(&mut members, &[name], &zero, |value| record.complete(value));
        }
        for (name, record) in self.lists_of {
            fields(
                &mut members,
                &[name],
                &Value::NilList,
                |value| match value {
                    Value::List(items) => {
                        let items = items.into_iter().map(|item| record.complete(item));
                        Value::List(items.collect())
                    }
                    other => nil_list(other),
                },
            );
        }
        for (go, json) in self.named {
            let found = members.iter().find(|(known, _)| known == json);
            if let Some((_, value)) = found {
                members.push(((*go).to_owned(), omitted(value.clone())));
            }
        }
        Value::Map(members)
    }
}

/// Brings each of `names` into `members`: as `typed` makes it of what is there, else as `zero`.
fn fields(
    members: &mut Vec<(String, Value)>,
    names: &[&str],
    zero: &Value,
    typed: impl Fn(Value) -> Value,
) {
    for name in names {
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = typed(std::mem::replace(value, Value::Null)),
            None => members.push(((*name).to_owned(), omitted(zero.clone()))),
        }
    }
}

fn omitted(value: Value) -> Value {
    match value {
        Value::Omitted(_) => value,
        value => Value::Omitted(Box::new(value)),
    }
}
