//! Tokens into a tree (Go's `text/template/parse`).

use super::error::TemplateError;
use super::functions;
use super::lex::{Kind, Token};

/// Deeper than any template people write, far from the end of the stack.
const MAX_DEPTH: usize = 100;

/// A piece of a template.
#[derive(Debug)]
pub enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// `{{if}}`, `{{with}}`, `{{range}}`: a condition and two bodies.
#[derive(Debug)]
pub struct Branch {
    pub pipe: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// `$x := command | command`
#[derive(Debug)]
pub struct Pipeline {
    /// Names with the dollar sign, at most two.
    pub variables: Vec<String>,
    /// `:=`, not `=`.
    pub declares: bool,
    pub commands: Vec<Command>,
}

/// An operand, or a function (or lookup) and its arguments.
#[derive(Debug)]
pub struct Command {
    pub operands: Vec<Operand>,
    /// Bytes of the source.
    pub span: (usize, usize),
}

/// A word of a command.
#[derive(Debug)]
pub struct Operand {
    pub kind: OperandKind,
    /// Field names that follow: `.a.b`, `$x.a`, `(…).a`, each with the byte of its dot.
    pub fields: Vec<(String, usize)>,
    pub span: (usize, usize),
}

/// What an operand starts with.
#[derive(Debug)]
pub enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    Variable(String),
    Function(String),
    Pipeline(Pipeline),
}

/// Why a list of nodes ended.
enum Stop {
    File,
    End,
    Else,
}

/// Makes the tree.
pub fn parse(source: &str, tokens: Vec<Token>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        source,
        tokens,
        at: 0,
        scope: vec!["$".to_owned()],
        loops: 0,
        depth: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        Stop::File => Ok(nodes),
        Stop::End => parser.error("unexpected {{end}}"),
        Stop::Else => parser.error("unexpected {{else}}"),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    /// Variables in scope.
    scope: Vec<String>,
    /// Enclosing `{{range}}`s.
    loops: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error<T>(&self, reason: impl Into<String>) -> Result<T, TemplateError> {
        let here = self.tokens.get(self.at).or(self.tokens.last());
        Err(TemplateError::parse(
            self.source,
            here.map_or(0, |t| t.at),
            reason,
        ))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.error("max expression depth exceeded")
        } else {
            Ok(())
        }
    }

    fn expect_close(&mut self, context: &str) -> Result<(), TemplateError> {
        match self.next().map(|t| t.kind) {
            Some(Kind::Close) => Ok(()),
            Some(other) => {
                self.at -= 1;
                self.error(format!("unexpected {} in {context}", describe(&other)))
            }
            None => self.error("unexpected EOF"),
        }
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        self.deeper()?;
        let mut nodes = Vec::new();
        let end = loop {
            let Some(token) = self.next() else {
                break Stop::File;
            };
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => {
                    if let Some(end) = self.action(&mut nodes)? {
                        break end;
                    }
                }
                other => return self.error(format!("unexpected {} in input", describe(&other))),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    /// Parses behind `{{`. `{{else}}` is left with its `if` unread, for the caller to see.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<Stop>, TemplateError> {
        let keyword = match self.peek().map(|t| &t.kind) {
            Some(Kind::Identifier(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" => {
                self.at += 1;
                self.expect_close("end")?;
                return Ok(Some(Stop::End));
            }
            "else" => {
                self.at += 1;
                return Ok(Some(Stop::Else));
            }
            "if" | "with" | "range" => {
                self.at += 1;
                nodes.push(self.control(&keyword)?);
            }
            "break" | "continue" => {
                self.at += 1;
                if self.loops == 0 {
                    return self.error(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                self.expect_close(&keyword)?;
                nodes.push(if keyword == "break" {
                    Node::Break
                } else {
                    Node::Continue
                });
            }
            "define" | "template" | "block" => {
                return self.error(format!("{{{{{keyword}}}}} is not supported"));
            }
            _ => {
                let pipe = self.pipeline("command")?;
                self.expect_close("command")?;
                nodes.push(Node::Action(pipe));
            }
        }
        Ok(None)
    }

    fn control(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let outer = self.scope.len();
        let pipe = self.pipeline(keyword)?;
        self.expect_close(keyword)?;
        self.loops += usize::from(keyword == "range");
        let (then, end) = self.list()?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::File => return self.error("unexpected EOF"),
            Stop::Else => self.otherwise(keyword)?,
        };
        self.scope.truncate(outer);
        let branch = Branch {
            pipe,
            then,
            otherwise,
        };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn otherwise(&mut self, keyword: &str) -> Result<Vec<Node>, TemplateError> {
        // `{{else if x}}` shares the `{{end}}` of the outer if.
        let chained =
            matches!(self.peek().map(|t| &t.kind), Some(Kind::Identifier(w)) if w == keyword);
        if chained && keyword != "range" {
            self.at += 1;
            self.deeper()?;
            let node = self.control(keyword)?;
            self.depth -= 1;
            return Ok(vec![node]);
        }
        self.expect_close("else")?;
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::File) => self.error("unexpected EOF"),
            (_, Stop::Else) => self.error("expected end; found {{else}}"),
        }
    }

    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        self.deeper()?;
        let (variables, declares) = self.declaration(context)?;
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(context)?);
            if !matches!(self.peek().map(|t| &t.kind), Some(Kind::Pipe)) {
                break;
            }
            self.at += 1;
        }
        // A value cannot take the value before it.
        for command in commands.iter().skip(1) {
            if let [only] = command.operands.as_slice() {
                let literal = matches!(
                    only.kind,
                    OperandKind::Nil
                        | OperandKind::Bool(_)
                        | OperandKind::Int(_)
                        | OperandKind::Float(_)
                        | OperandKind::String(_)
                ) || matches!(only.kind, OperandKind::Dot) && only.fields.is_empty();
                if literal {
                    return self.error("non executable command in pipeline stage 2");
                }
            }
        }
        // A variable is not in scope of its own right-hand side.
        if declares {
            self.scope.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipeline {
            variables,
            declares,
            commands,
        })
    }

    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let kinds: Vec<_> = self
            .tokens
            .iter()
            .skip(self.at)
            .take(4)
            .map(|t| &t.kind)
            .collect();
        let (variables, used, declares) = match kinds.as_slice() {
            [Kind::Variable(a), Kind::Declare, ..] => (vec![a.clone()], 2, true),
            [Kind::Variable(a), Kind::Assign, ..] => (vec![a.clone()], 2, false),
            [
                Kind::Variable(a),
                Kind::Comma,
                Kind::Variable(b),
                Kind::Declare,
            ] if context == "range" => (vec![a.clone(), b.clone()], 4, true),
            [
                Kind::Variable(a),
                Kind::Comma,
                Kind::Variable(b),
                Kind::Assign,
            ] if context == "range" => (vec![a.clone(), b.clone()], 4, false),
            [Kind::Variable(_), Kind::Comma, ..] => {
                return self.error(format!("too many declarations in {context}"));
            }
            _ => (Vec::new(), 0, false),
        };
        if used > 0 && !declares {
            for name in &variables {
                self.check_variable(name)?;
            }
        }
        self.at += used;
        Ok((variables, declares))
    }

    fn check_variable(&self, name: &str) -> Result<(), TemplateError> {
        if self.scope.iter().any(|known| known == name) {
            Ok(())
        } else {
            self.error(format!("undefined variable {name:?}"))
        }
    }

    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let start = self.peek().map_or(self.source.len(), |t| t.at);
        let mut end = start;
        let mut operands = Vec::new();
        while let Some(token) = self.peek() {
            if matches!(token.kind, Kind::Close | Kind::Pipe | Kind::RightParen) {
                break;
            }
            let operand = self.operand(context)?;
            end = operand.span.1;
            operands.push(operand);
        }
        if operands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        Ok(Command {
            operands,
            span: (start, end),
        })
    }

    fn operand(&mut self, context: &str) -> Result<Operand, TemplateError> {
        let Some(token) = self.next() else {
            return self.error("unexpected EOF");
        };
        let start = token.at;
        let mut end = token.end;
        let mut fields = Vec::new();
        let kind = match token.kind {
            Kind::Dot => OperandKind::Dot,
            Kind::Field(name) => {
                fields.push((name, start));
                OperandKind::Dot
            }
            Kind::Variable(name) => {
                self.check_variable(&name)?;
                OperandKind::Variable(name)
            }
            Kind::String(text) => OperandKind::String(text),
            Kind::Int(value) => OperandKind::Int(value),
            Kind::Float(value) => OperandKind::Float(value),
            Kind::LeftParen => {
                let pipe = self.pipeline("parenthesized pipeline")?;
                match self.next() {
                    Some(Token {
                        kind: Kind::RightParen,
                        end: close,
                        ..
                    }) => end = close,
                    _ => return self.error("unexpected EOF"),
                }
                OperandKind::Pipeline(pipe)
            }
            Kind::Identifier(word) => match word.as_str() {
                "true" => OperandKind::Bool(true),
                "false" => OperandKind::Bool(false),
                "nil" => OperandKind::Nil,
                name if functions::exists(name) => OperandKind::Function(word),
                name => {
                    self.at -= 1;
                    return self.error(format!("function {name:?} not defined"));
                }
            },
            other => {
                self.at -= 1;
                return self.error(format!("unexpected {} in {context}", describe(&other)));
            }
        };
        while let Some(Token {
            kind: Kind::Field(name),
            at,
            end: to,
            spaced: false,
        }) = self.peek()
        {
            fields.push((name.clone(), *at));
            end = *to;
            self.at += 1;
        }
        Ok(Operand {
            kind,
            fields,
            span: (start, end),
        })
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Text(text) => format!("{text:?}"),
        Kind::Open => "\"{{\"".to_owned(),
        Kind::Close => "\"}}\"".to_owned(),
        Kind::Identifier(word) => format!("<{word}>"),
        Kind::Field(word) => format!("<.{word}>"),
        Kind::Dot => "<.>".to_owned(),
        Kind::Variable(word) => format!("<{word}>"),
        Kind::String(text) => format!("{text:?}"),
        Kind::Int(value) => format!("\"{value}\""),
        Kind::Float(value) => format!("\"{value}\""),
        Kind::Pipe => "\"|\"".to_owned(),
        Kind::Comma => "\",\"".to_owned(),
        Kind::Declare => "\":=\"".to_owned(),
        Kind::Assign => "\"=\"".to_owned(),
        Kind::LeftParen => "\"(\"".to_owned(),
        Kind::RightParen => "\")\"".to_owned(),
    }
}
