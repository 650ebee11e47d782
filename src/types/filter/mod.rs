//! Filters: the language in which lists, reads and subscriptions are narrowed (`surfaces.md` 5.7).
//!
//! A [`Filter`] is parsed against the fields of one collection, so that a comparison which cannot be meant is refused before anything is
//! looked at; `docs/filters.md` tells the language. Evaluation allocates nothing and takes time linear in the filter and in the values.

mod parse;

use std::cmp::Ordering;

use super::{Error, Result, TimeUs};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    Integer,
    /// `true` or `false`; it has no order.
    Boolean,
    /// An instant, written as RFC 3339.
    Time,
    /// Bytes of UTF-8, compared byte by byte.
    Text,
    /// Names that the user chose, below this field: `metadata.team`. Their values are texts.
    Map,
}

/// The fields of a collection: name and type, in the order of the table in `docs/filters.md`.
pub type Fields = &'static [(&'static str, Type)];

/// The value of a field, as the thing has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of an integer field. Wide enough for ids and offsets, and for what a person may write.
    Integer(i128),
    /// Of a boolean field.
    Boolean(bool),
    /// Of a time field.
    Time(TimeUs),
    /// Of a text field, or below a map.
    Text(&'a str),
}

/// Something that can be asked for its fields.
pub trait Subject {
    /// The value of the field at `index` of its [`Fields`]; `key` is what stands below a map. `None`: it has none.
    fn value(&self, index: usize, key: &str) -> Option<Value<'_>>;
}

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: Box<str>,
    root: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare(Comparison),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    index: usize,
    /// Below a map; else empty.
    key: Box<str>,
    op: Op,
    value: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Null,
    Integer(i128),
    Boolean(bool),
    Time(TimeUs),
    Text(Box<str>),
}

impl Filter {
    /// Parses a filter over these fields.
    ///
    /// # Errors
    /// `bad_filter` with `details.position`, the number of characters before what is wrong; `unknown_filter_field` with the field and those
    /// that exist.
    pub fn parse(text: &str, fields: Fields) -> Result<Self> {
        let root = parse::parse(text, fields)?;
        Ok(Self { text: text.into(), root })
    }

    /// The same of what a request gave or left out; a blank one is none (`surfaces.md` section 2).
    ///
    /// # Errors
    /// As [`Filter::parse`].
    pub fn given(text: Option<&str>, fields: Fields) -> Result<Option<Self>> {
        text.filter(|text| !text.trim().is_empty()).map(|text| Self::parse(text, fields)).transpose()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does it hold for this thing?
    pub fn holds(&self, subject: &impl Subject) -> bool {
        judge(&self.root, subject, &|_| true) == Some(true)
    }

    /// Can it hold for a thing of which only the fields are known that `known` says? The others may be anything.
    pub fn may_hold(&self, subject: &impl Subject, known: impl Fn(usize) -> bool) -> bool {
        judge(&self.root, subject, &known) != Some(false)
    }
}

/// `None`: it cannot be told by what is known (Kleene's logic).
fn judge(node: &Node, subject: &impl Subject, known: &impl Fn(usize) -> bool) -> Option<bool> {
    // Of all parts: `decisive` from one of them decides; else all have to be the other.
    let of = |parts: &[Node], decisive: bool| {
        let mut all = Some(!decisive);
        for part in parts {
            match judge(part, subject, known) {
                Some(found) if found == decisive => return Some(decisive),
                Some(_) => {}
                None => all = None,
            }
        }
        all
    };
    match node {
        Node::Or(parts) => of(parts, true),
        Node::And(parts) => of(parts, false),
        Node::Not(part) => judge(part, subject, known).map(|found| !found),
        Node::Compare(Comparison { index, key, op, value }) => known(*index).then(|| compare(subject.value(*index, key), *op, value)),
    }
}

/// What is unset equals nothing but `null`, differs from everything else, and has no order.
fn compare(found: Option<Value<'_>>, op: Op, operand: &Operand) -> bool {
    let order = match (found, operand) {
        (None, Operand::Null) => Some(Ordering::Equal),
        (Some(Value::Integer(a)), Operand::Integer(b)) => Some(a.cmp(b)),
        (Some(Value::Boolean(a)), Operand::Boolean(b)) => Some(a.cmp(b)),
        (Some(Value::Time(a)), Operand::Time(b)) => Some(a.cmp(b)),
        (Some(Value::Text(a)), Operand::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        // One of the two is unset. (That both are of one type was seen to when the filter was parsed.)
        _ => None,
    };
    match (op, order) {
        (Op::Ne, order) => order != Some(Ordering::Equal),
        (_, None) => false,
        (Op::Eq, Some(order)) => order.is_eq(),
        (Op::Gt, Some(order)) => order.is_gt(),
        (Op::Ge, Some(order)) => order.is_ge(),
        (Op::Lt, Some(order)) => order.is_lt(),
        (Op::Le, Some(order)) => order.is_le(),
    }
}

/// Refuses a field that the collection does not have.
fn unknown_field(name: &str, at: usize, fields: Fields) -> Error {
    let names: Vec<String> = fields.iter().map(|(name, of)| if *of == Type::Map { format!("{name}.*") } else { (*name).to_owned() }).collect();
    let why = format!("There is no field {} to filter by here. There are: {}.", super::name::quote(name), names.join(", "));
    Error::new(super::Code::UnknownFilterField, why).detail("field", super::name::short(name)).detail("position", at as u64)
}

#[cfg(test)]
mod tests;
