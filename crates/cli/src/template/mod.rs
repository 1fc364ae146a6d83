//! `--format`: the part of Go's `text/template` that people use with Docker.
//!
//! Scripts written for `docker ps --format …` and `docker inspect -f …` must print the same here, so the
//! semantics (printing of values, truth, comparison, error texts) are Go's, checked against the real
//! client. Data are JSON values, not reflected structs: a field that is missing is an error, unless a [`Record`] says
//! that Docker's struct has it.
//! Absent: `define`/`template`/`block`, complex numbers and method calls.
//!
//! `lex` cuts text into tokens, `parse` makes a tree, `exec` walks it over a [`Value`].

mod error;
mod exec;
mod functions;
mod lex;
mod parse;
mod printf;
mod record;
mod value;

pub use error::TemplateError;
pub use functions::Functions;
pub use printf::quote;
pub use record::Record;
pub use value::Value;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    source: String,
    body: Vec<parse::Node>,
}

impl Template {
    /// Parses `source`.
    ///
    /// # Errors
    /// A text that Go's parser rejects, or that uses what is not supported here.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let tokens = lex::tokens(source)?;
        let body = parse::parse(source, tokens)?;
        Ok(Self {
            source: source.to_owned(),
            body,
        })
    }

    /// Renders the template with `data` as dot.
    ///
    /// # Errors
    /// A missing field, a wrong argument, or an index out of range.
    pub fn render(&self, data: &Value, functions: Functions) -> Result<String, TemplateError> {
        exec::render(&self.source, &self.body, data, functions)
    }
}

#[cfg(test)]
mod tests;
