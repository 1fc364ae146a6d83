//! Text into tokens: literal text, `{{`, `}}`, and what stands between them.

use super::error::TemplateError;

/// One token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub kind: Kind,
    /// Byte in the source.
    pub at: usize,
    /// Byte behind the token.
    pub end: usize,
    /// White space stands before it: `.a.b` is one operand, `.a .b` are two.
    pub spaced: bool,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text(String),
    Open,
    Close,
    Identifier(String),
    /// `.name`
    Field(String),
    /// `.` alone
    Dot,
    /// `$` or `$name`, with the dollar sign
    Variable(String),
    String(String),
    Int(i128),
    Float(f64),
    Pipe,
    Comma,
    Declare,
    Assign,
    LeftParen,
    RightParen,
}

/// Cuts `source` into tokens.
pub fn tokens(source: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer {
        source,
        at: 0,
        out: Vec::new(),
    };
    let mut trim_next = false;
    while lexer.at < source.len() {
        let start = lexer.at;
        let open = source[start..].find("{{").map(|offset| start + offset);
        let text_end = open.unwrap_or(source.len());
        let mut text = &source[start..text_end];
        if trim_next {
            text = text.trim_start_matches(is_space);
        }
        let after_open = text_end + 2;
        let trim_before = open.is_some() && has_left_trim(source, after_open);
        if trim_before {
            text = text.trim_end_matches(is_space);
        }
        if !text.is_empty() {
            lexer.push(Kind::Text(text.to_owned()), start, text_end, false);
        }
        let Some(open) = open else { break };
        lexer.at = after_open + if trim_before { 2 } else { 0 };
        trim_next = lexer.action(open)?;
    }
    Ok(lexer.out)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// `{{- ` trims the text before it; `{{-3}}` is a number.
fn has_left_trim(source: &str, at: usize) -> bool {
    let mut rest = source[at..].chars();
    rest.next() == Some('-') && rest.next().is_some_and(is_space)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn push(&mut self, kind: Kind, at: usize, end: usize, spaced: bool) {
        self.out.push(Token {
            kind,
            at,
            end,
            spaced,
        });
    }

    fn error<T>(&self, reason: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::parse(self.source, self.at, reason))
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    /// Lexes up to and including `}}`; true when that trims the text behind it.
    fn action(&mut self, open: usize) -> Result<bool, TemplateError> {
        if self.rest().starts_with("/*") {
            return self.comment();
        }
        self.push(Kind::Open, open, self.at, false);
        let mut depth = 0usize;
        loop {
            let before = self.at;
            let trimmed = self.rest().trim_start_matches(is_space);
            self.at = self.source.len() - trimmed.len();
            let spaced = self.at > before;
            let start = self.at;
            if spaced && self.rest().starts_with("-}}") {
                self.at += 3;
                self.close(start, depth)?;
                return Ok(true);
            }
            if self.rest().starts_with("}}") {
                self.at += 2;
                self.close(start, depth)?;
                return Ok(false);
            }
            let Some(first) = self.rest().chars().next() else {
                return self.error("unclosed action");
            };
            let kind = self.token(first)?;
            match kind {
                Kind::LeftParen => depth += 1,
                Kind::RightParen if depth == 0 => return self.error("unexpected right paren"),
                Kind::RightParen => depth -= 1,
                _ => {}
            }
            self.push(kind, start, self.at, spaced);
        }
    }

    fn close(&mut self, start: usize, depth: usize) -> Result<(), TemplateError> {
        if depth > 0 {
            return self.error("unclosed left paren");
        }
        self.push(Kind::Close, start, self.at, false);
        Ok(())
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(offset) = self.rest().find("*/") else {
            return self.error("unclosed comment");
        };
        self.at += offset + 2;
        let rest = self.rest();
        if rest.starts_with("}}") {
            self.at += 2;
            return Ok(false);
        }
        if rest.chars().next().is_some_and(is_space)
            && rest.get(1..).is_some_and(|r| r.starts_with("-}}"))
        {
            self.at += 4;
            return Ok(true);
        }
        self.error("comment ends before closing delimiter")
    }

    fn token(&mut self, first: char) -> Result<Kind, TemplateError> {
        let single = |kind| Some((kind, 1));
        let next = self.rest().chars().nth(1);
        let simple = match (first, next) {
            (':', Some('=')) => Some((Kind::Declare, 2)),
            (':', _) => return self.error("expected :="),
            ('=', _) => single(Kind::Assign),
            ('|', _) => single(Kind::Pipe),
            (',', _) => single(Kind::Comma),
            ('(', _) => single(Kind::LeftParen),
            (')', _) => single(Kind::RightParen),
            _ => None,
        };
        if let Some((kind, length)) = simple {
            self.at += length;
            return Ok(kind);
        }
        match first {
            '"' => self.quoted(),
            '`' => self.raw(),
            '\'' => self.character(),
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(format!("${}", self.word())))
            }
            '.' if !next.is_some_and(|c| c.is_ascii_digit()) => {
                self.at += 1;
                let word = self.word();
                Ok(if word.is_empty() {
                    Kind::Dot
                } else {
                    Kind::Field(word)
                })
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.word();
                Ok(Kind::Identifier(word))
            }
            c => self.error(format!("unexpected {c:?} in command")),
        }
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        self.at += length;
        word
    }

    fn quoted(&mut self) -> Result<Kind, TemplateError> {
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    let body = self.rest()[1..offset].to_owned();
                    let Some(text) = unescape(&body) else {
                        return self.error("invalid syntax");
                    };
                    self.at += offset + 1;
                    return Ok(Kind::String(text));
                }
                _ => {}
            }
        }
        self.error("unterminated quoted string")
    }

    fn raw(&mut self) -> Result<Kind, TemplateError> {
        let Some(length) = self.rest()[1..].find('`') else {
            return self.error("unterminated raw quoted string");
        };
        let text = self.rest()[1..=length].to_owned();
        self.at += length + 2;
        Ok(Kind::String(text))
    }

    fn character(&mut self) -> Result<Kind, TemplateError> {
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => {
                    let text = unescape(&self.rest()[1..offset]).unwrap_or_default();
                    let mut chars = text.chars();
                    let (Some(value), None) = (chars.next(), chars.next()) else {
                        return self.error("malformed character constant");
                    };
                    self.at += offset + 1;
                    return Ok(Kind::Int(u32::from(value).into()));
                }
                _ => {}
            }
        }
        self.error("unterminated character constant")
    }

    fn number(&mut self) -> Result<Kind, TemplateError> {
        let rest = self.rest();
        let mut previous = ' ';
        let mut length = 0;
        for (offset, c) in rest.char_indices() {
            let sign = matches!(c, '+' | '-');
            let exponent = matches!(previous, 'e' | 'E' | 'p' | 'P') && !rest.contains("0x");
            if !(c.is_alphanumeric() || c == '.' || c == '_' || sign && (offset == 0 || exponent)) {
                break;
            }
            previous = c;
            length = offset + c.len_utf8();
        }
        let text = rest[..length].to_owned();
        let Some(kind) = parse_number(&text) else {
            return self.error(format!("bad number syntax: {text:?}"));
        };
        self.at += length;
        Ok(kind)
    }
}

fn parse_number(text: &str) -> Option<Kind> {
    let clean = text.replace('_', "").to_ascii_lowercase();
    let (negative, digits) = match clean.as_bytes().first()? {
        b'-' => (true, &clean[1..]),
        b'+' => (false, &clean[1..]),
        _ => (false, clean.as_str()),
    };
    let radix = |prefix: &str, radix| {
        digits
            .strip_prefix(prefix)
            .map(|d| i128::from_str_radix(d, radix))
    };
    let int = radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2));
    let int = int.unwrap_or_else(|| digits.parse::<i128>());
    if let Ok(value) = int {
        return i64::try_from(value)
            .ok()
            .map(|v| Kind::Int(if negative { -i128::from(v) } else { v.into() }));
    }
    // Without one of these it is a whole number that is too large, or no number.
    let fraction = digits.contains(['.', 'e']) && !digits.starts_with("0x");
    if !fraction || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    clean
        .parse::<f64>()
        .ok()
        .filter(|v| v.is_finite())
        .map(Kind::Float)
}

/// Go's escapes in an interpreted string.
fn unescape(body: &str) -> Option<String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let simple = match chars.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' => '\\',
            '\'' => '\'',
            '"' => '"',
            'x' => number(&mut chars, 2, 16)?,
            'u' => number(&mut chars, 4, 16)?,
            'U' => number(&mut chars, 8, 16)?,
            d @ '0'..='7' => {
                let rest = number(&mut chars, 2, 8)?;
                char::from_u32(d.to_digit(8)? * 64 + u32::from(rest))?
            }
            _ => return None,
        };
        out.push(simple);
    }
    Some(out)
}

fn number(chars: &mut std::str::Chars<'_>, digits: usize, radix: u32) -> Option<char> {
    let mut value = 0u32;
    for _ in 0..digits {
        value = value
            .checked_mul(radix)?
            .checked_add(chars.next()?.to_digit(radix)?)?;
    }
    char::from_u32(value)
}
