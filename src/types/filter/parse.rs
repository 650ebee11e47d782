//! From text to a tree: one pass, one character of look-ahead, and every bound checked on the way.

use super::super::{Code, Error, Result, TimeUs, limits, name::quote};
use super::{Comparison, Fields, Node, Op, Operand, Type, unknown_field};

const OPERATORS: [(&str, Op); 6] = [("eq", Op::Eq), ("ne", Op::Ne), ("gt", Op::Gt), ("ge", Op::Ge), ("lt", Op::Lt), ("le", Op::Le)];

/// What stands at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    /// A run of characters that are none of blank, bracket and quote.
    Bare(&'a str),
    Quoted(String),
}

struct Parser<'a> {
    text: &'a str,
    fields: Fields,
    /// Bytes that are read.
    at: usize,
    comparisons: usize,
}

pub(super) fn parse(text: &str, fields: Fields) -> Result<Node> {
    if text.len() > limits::FILTER_BYTES {
        let why = format!("The filter is {} bytes long; the limit is {}.", text.len(), limits::FILTER_BYTES);
        return Err(Error::new(Code::BadFilter, why).detail("position", limits::FILTER_BYTES as u64));
    }
    let mut parser = Parser { text, fields, at: 0, comparisons: 0 };
    let root = parser.or(0)?;
    match parser.peek()? {
        None => Ok(root),
        Some((at, Token::Close)) => Err(parser.bad(at, "There is a `)` that nothing opened.")),
        Some((at, _)) => Err(parser.bad(at, "Write `and`, `or`, or nothing more, after a comparison.")),
    }
}

impl<'a> Parser<'a> {
    /// An error at this byte.
    fn bad(&self, at: usize, why: &str) -> Error {
        let position = self.text.get(..at).map_or(0, |before| before.chars().count());
        Error::new(Code::BadFilter, format!("The filter cannot be read at character {}: {why}", position + 1)).detail("position", position as u64)
    }

    fn blanks(&self) -> usize {
        let rest = &self.text[self.at..];
        self.at + (rest.len() - rest.trim_start_matches(' ').len())
    }

    /// The next token and where it begins; `None` at the end.
    fn peek(&self) -> Result<Option<(usize, Token<'a>)>> {
        self.read().map(|found| found.map(|(at, _, token)| (at, token)))
    }

    fn next(&mut self) -> Result<Option<(usize, Token<'a>)>> {
        let Some((at, end, token)) = self.read()? else {
            self.at = self.text.len();
            return Ok(None);
        };
        self.at = end;
        Ok(Some((at, token)))
    }

    /// Where the next token begins and ends, and what it is.
    fn read(&self) -> Result<Option<(usize, usize, Token<'a>)>> {
        let at = self.blanks();
        let rest = &self.text[at..];
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let (length, token) = match first {
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            '\'' | '"' => {
                let (length, text) = quoted(rest, first).ok_or_else(|| self.bad(at, "This quote is not closed."))?;
                (length, Token::Quoted(text))
            }
            _ => {
                let length = rest.find([' ', '(', ')', '\'', '"']).unwrap_or(rest.len());
                (length, Token::Bare(&rest[..length]))
            }
        };
        Ok(Some((at, at + length, token)))
    }

    /// Is the next token this keyword, in any case? Then it is read.
    fn keyword(&mut self, word: &str) -> Result<bool> {
        let found = matches!(self.peek()?, Some((_, Token::Bare(text))) if text.eq_ignore_ascii_case(word));
        if found {
            self.next()?;
        }
        Ok(found)
    }

    fn or(&mut self, depth: usize) -> Result<Node> {
        let mut parts = vec![self.and(depth)?];
        while self.keyword("or")? {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Node::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Node> {
        let mut parts = vec![self.unary(depth)?];
        while self.keyword("and")? {
            parts.push(self.unary(depth)?);
        }
        Ok(one_or(parts, Node::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Node> {
        let negated = self.keyword("not")?;
        let node = match self.next()? {
            Some((at, Token::Open)) => {
                if depth == limits::FILTER_DEPTH {
                    return Err(self.bad(at, &format!("Brackets may be {} deep.", limits::FILTER_DEPTH)));
                }
                let inner = self.or(depth + 1)?;
                match self.next()? {
                    Some((_, Token::Close)) => inner,
                    Some((at, _)) => return Err(self.bad(at, "Write `and`, `or` or `)` here.")),
                    None => return Err(self.bad(at, "This bracket is not closed.")),
                }
            }
            Some((at, Token::Bare(field))) => self.comparison(at, field)?,
            Some((at, _)) => return Err(self.bad(at, "A comparison begins with a field: name eq orders.")),
            None => return Err(self.bad(self.text.len(), "A comparison is missing: field, operator, value, as in name eq orders.")),
        };
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn comparison(&mut self, at: usize, field: &str) -> Result<Node> {
        self.comparisons += 1;
        if self.comparisons > limits::FILTER_COMPARISONS {
            return Err(self.bad(at, &format!("A filter may have {} comparisons.", limits::FILTER_COMPARISONS)));
        }
        let (index, of, key) = self.field(at, field)?;
        let said = || "Write one of eq, ne, gt, ge, lt, le after the field.";
        let op = match self.next()? {
            Some((at, Token::Bare(word))) => {
                let op = OPERATORS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, op)| *op);
                op.ok_or_else(|| self.bad(at, said()))?
            }
            Some((at, _)) => return Err(self.bad(at, said())),
            None => return Err(self.bad(self.text.len(), said())),
        };
        let before = self.at;
        let Some((at, token)) = self.next()? else { return Err(self.bad(self.text.len(), "A value is missing.")) };
        if at == before {
            return Err(self.bad(at, "Put a blank between the operator and the value."));
        }
        let value = self.value(at, token, of, field)?;
        if !matches!(op, Op::Eq | Op::Ne) && matches!(value, Operand::Null | Operand::Boolean(_)) {
            return Err(self.bad(at, "true, false and null have no order; compare them with eq or ne."));
        }
        Ok(Node::Compare(Comparison { index, key: key.into(), op, value }))
    }

    /// The place of a field, its type, and what stands below a map.
    fn field<'b>(&self, at: usize, field: &'b str) -> Result<(usize, Type, &'b str)> {
        let position = self.text[..at].chars().count();
        let found = self.fields.iter().enumerate().find_map(|(index, (name, of))| match of {
            Type::Map => field.strip_prefix(name)?.strip_prefix('.').filter(|key| !key.is_empty()).map(|key| (index, Type::Text, key)),
            of => (field == *name).then_some((index, *of, "")),
        });
        found.ok_or_else(|| unknown_field(field, position, self.fields))
    }

    fn value(&self, at: usize, token: Token<'_>, of: Type, field: &str) -> Result<Operand> {
        let text = match token {
            Token::Bare("null") => return Ok(Operand::Null),
            Token::Bare(text) => text.to_owned(),
            Token::Quoted(text) => text,
            Token::Open | Token::Close => return Err(self.bad(at, "A value is missing; one with brackets is written in quotes.")),
        };
        let wrong = |what: &str| self.bad(at, &format!("{field} is {what}, which {} is not.", quote(&text)));
        match of {
            Type::Integer => text.parse().map(Operand::Integer).map_err(|_| wrong("a whole number")),
            Type::Boolean => match text.as_str() {
                "true" => Ok(Operand::Boolean(true)),
                "false" => Ok(Operand::Boolean(false)),
                _ => Err(wrong("true or false")),
            },
            Type::Time => TimeUs::parse(&text).map(Operand::Time).map_err(|_| wrong("a time like 2026-01-26T10:00:00Z")),
            Type::Text | Type::Map => Ok(Operand::Text(text.into())),
        }
    }
}

fn one_or(mut parts: Vec<Node>, many: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}

/// The bytes that a quoted value takes, and what it says. Between `'` a quote is doubled; between `"` it follows a backslash, and so does
/// a backslash. `None`: it is not closed.
fn quoted(text: &str, quote: char) -> Option<(usize, String)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        let following = chars.peek().map(|(_, next)| *next);
        match c {
            '\'' if quote == '\'' && following == Some('\'') => {
                chars.next();
                out.push('\'');
            }
            '\\' if quote == '"' && matches!(following, Some('"' | '\\')) => out.extend(chars.next().map(|(_, c)| c)),
            c if c == quote => return Some((at + 1, out)),
            c => out.push(c),
        }
    }
    None
}
