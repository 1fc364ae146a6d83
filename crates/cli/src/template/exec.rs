//! Walks the tree over the data and writes the text.

use super::error::TemplateError;
use super::functions::{self, CallError, Functions};
use super::parse::{Branch, Command, Node, Operand, OperandKind, Pipeline};
use super::value::Value;

/// What a node asks of the `{{range}}` around it.
enum Flow {
    On,
    Break,
    Continue,
}

type Result<T> = std::result::Result<T, TemplateError>;

/// Renders `body` with `data` as dot and as `$`.
pub fn render(source: &str, body: &[Node], data: &Value, functions: Functions) -> Result<String> {
    let variables = vec![("$".to_owned(), data.clone())];
    let mut exec = Exec {
        source,
        out: String::new(),
        variables,
        functions,
    };
    exec.list(body, data)?;
    Ok(exec.out)
}

struct Exec<'a> {
    source: &'a str,
    out: String,
    variables: Vec<(String, Value)>,
    functions: Functions,
}

impl Exec<'_> {
    fn error<T>(&self, at: usize, span: (usize, usize), reason: impl Into<String>) -> Result<T> {
        let node = self.source.get(span.0..span.1).unwrap_or_default();
        Err(TemplateError::execute(self.source, at, node, reason))
    }

    fn unknown_field<T>(&self, at: usize, span: (usize, usize), name: &str) -> Result<T> {
        let reason = format!("map has no entry for key {name:?}");
        self.error(at, span, reason)
            .map_err(TemplateError::of_unknown_field)
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipe) => {
                    let value = self.pipeline(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::If(branch) | Node::With(branch) => {
                    let outer = self.variables.len();
                    let value = self.pipeline(&branch.pipe, dot)?;
                    let inner = if matches!(node, Node::With(_)) {
                        &value
                    } else {
                        dot
                    };
                    let flow = if value.truth() {
                        self.list(&branch.then, inner)?
                    } else {
                        self.list(&branch.otherwise, dot)?
                    };
                    self.variables.truncate(outer);
                    if !matches!(flow, Flow::On) {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => {
                    let outer = self.variables.len();
                    let flow = self.range(branch, dot)?;
                    self.variables.truncate(outer);
                    if !matches!(flow, Flow::On) {
                        return Ok(flow);
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow> {
        let outer = self.variables.len();
        let value = self.pipeline(&branch.pipe, dot)?;
        let scope = self.variables.len();
        let items: Vec<(Value, Value)> = match value {
            Value::List(items) => (0i128..)
                .zip(items)
                .map(|(index, item)| (Value::Int(index), item))
                .collect(),
            Value::Map(_) | Value::Dict(_) => {
                let mut members = value.members().unwrap_or_default();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                members
                    .into_iter()
                    .map(|(key, item)| (Value::String(key.clone()), item.clone()))
                    .collect()
            }
            Value::Null | Value::NilList => Vec::new(),
            Value::Int(count) => (0..count.clamp(0, 1 << 20))
                .map(|n| (Value::Int(n), Value::Int(n)))
                .collect(),
            other => {
                let command = branch.pipe.commands.first().map_or((0, 0), |c| c.span);
                return self.error(
                    command.0,
                    command,
                    format!("range can't iterate over {other}"),
                );
            }
        };
        if items.is_empty() {
            return self.list(&branch.otherwise, dot);
        }
        for (key, item) in items {
            match branch.pipe.variables.as_slice() {
                [one] => self.set_range(one, item.clone(), branch.pipe.declares, outer),
                [first, second] => {
                    self.set_range(first, key, branch.pipe.declares, outer);
                    self.set_range(second, item.clone(), branch.pipe.declares, outer);
                }
                _ => {}
            }
            let flow = self.list(&branch.then, &item)?;
            self.variables.truncate(scope);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set_range(&mut self, name: &str, value: Value, declares: bool, outer: usize) {
        let from = if declares { outer } else { 0 };
        let known = self
            .variables
            .iter_mut()
            .skip(from)
            .rev()
            .find(|(known, _)| known == name);
        if let Some((_, slot)) = known {
            *slot = value;
        }
    }

    fn pipeline(&mut self, pipe: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or(Value::Null);
        for name in &pipe.variables {
            if pipe.declares {
                self.variables.push((name.clone(), value.clone()));
            } else if let Some((_, slot)) = self
                .variables
                .iter_mut()
                .rev()
                .find(|(known, _)| known == name)
            {
                *slot = value.clone();
            }
        }
        Ok(value)
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Result<Value> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Ok(Value::Null);
        };
        match &first.kind {
            OperandKind::Function(name) => {
                let value = self.call(name, command, rest, dot, piped)?;
                return self.fields(value, first);
            }
            OperandKind::Nil => {
                return self.error(first.span.0, first.span, "nil is not a command");
            }
            _ => {}
        }
        let value = self.operand(first, dot)?;
        if let Value::Lookup(entries) = &value {
            let key = match rest {
                [argument] => Some(self.operand(argument, dot)?),
                _ => piped.filter(|_| rest.is_empty()),
            };
            return match key {
                Some(Value::String(key)) => {
                    let found = entries.iter().find(|(known, _)| *known == key);
                    Ok(Value::String(
                        found.map(|(_, value)| value.clone()).unwrap_or_default(),
                    ))
                }
                Some(other) => {
                    let at = rest.first().map_or(first.span, |o| o.span);
                    self.error(at.0, at, format!("expected string; found {other}"))
                }
                None => {
                    let got = rest.len();
                    self.error(
                        first.span.0,
                        first.span,
                        format!("wrong number of args: want 1 got {got}"),
                    )
                }
            };
        }
        if !rest.is_empty() || piped.is_some() {
            let text = self
                .source
                .get(first.span.0..first.span.1)
                .unwrap_or_default();
            return self.error(
                first.span.0,
                first.span,
                format!("can't give argument to non-function {text}"),
            );
        }
        Ok(value)
    }

    fn call(
        &mut self,
        name: &str,
        command: &Command,
        arguments: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value> {
        // These two evaluate no further than they must.
        if matches!(name, "and" | "or") && (!arguments.is_empty() || piped.is_some()) {
            let stop = name == "or";
            let mut value = Value::Null;
            for argument in arguments {
                value = self.operand(argument, dot)?;
                if value.truth() == stop {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(piped);
        functions::call(name, &values, self.functions).or_else(|error| {
            let start = command
                .operands
                .first()
                .map_or(command.span.0, |o| o.span.0);
            match error {
                CallError::Failed(reason) => self.error(
                    start,
                    command.span,
                    format!("error calling {name}: {reason}"),
                ),
                CallError::Count { want, got } => {
                    let reason = format!("wrong number of args for {name}: want {want} got {got}");
                    self.error(start, (start, start + name.len()), reason)
                }
                CallError::Argument { index, expected } => {
                    match (arguments.get(index), values.get(index)) {
                        (Some(operand), Some(value)) => self.error(
                            operand.span.0,
                            operand.span,
                            format!("expected {expected}; found {}", describe(value)),
                        ),
                        (_, value) => {
                            let got = value.map_or("nil", Value::type_name);
                            let reason =
                                format!("wrong type for value; expected {expected}; got {got}");
                            self.error(start, command.span, reason)
                        }
                    }
                }
            }
        })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        let value = match &operand.kind {
            OperandKind::Dot => dot.clone(),
            OperandKind::Nil => Value::Null,
            OperandKind::Bool(value) => Value::Bool(*value),
            OperandKind::Int(value) => Value::Int(*value),
            OperandKind::Float(value) => Value::Float(*value),
            OperandKind::String(value) => Value::String(value.clone()),
            OperandKind::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Value::Null, |(_, value)| value.clone())
            }
            OperandKind::Function(name) => {
                let command = Command {
                    operands: Vec::new(),
                    span: operand.span,
                };
                self.call(name, &command, &[], dot, None)?
            }
            OperandKind::Pipeline(pipe) => {
                let outer = self.variables.len();
                let value = self.pipeline(pipe, dot)?;
                self.variables.truncate(outer);
                value
            }
        };
        self.fields(value, operand)
    }

    fn fields(&self, mut value: Value, operand: &Operand) -> Result<Value> {
        for (name, at) in &operand.fields {
            // Go's field is ID where Docker's JSON has Id; scripts use both.
            let alias = if name == "ID" { "Id" } else { name };
            let found = value.get(name).or_else(|| value.get(alias)).cloned();
            value = match found {
                Some(found) => found,
                None if matches!(value, Value::Dict(_) | Value::Missing) => Value::Missing,
                None => {
                    let reason = match &value {
                        Value::Map(_) => {
                            return self.unknown_field(*at, operand.span, name);
                        }
                        Value::Null => format!("nil data; no entry for key {name:?}"),
                        other => {
                            format!("can't evaluate field {name} in type {}", other.type_name())
                        }
                    };
                    return self.error(*at, operand.span, reason);
                }
            };
        }
        Ok(value)
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
