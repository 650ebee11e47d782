//! Refuses client messages that protobuf itself would let pass: unknown fields, repeated singular fields, unknown enum values,
//! wrong wire types, two variants of a oneof, integers that JSON readers cannot hold.
//!
//! It walks the bytes by a table that `build.rs` writes from the same descriptors as the generated types. Events are left to
//! `Events::from_wire`, which walks them anyway.

use crate::types::varint::{self, Wire};
use crate::types::{Code, Error, limits};
use crate::wire::convert::{self, MAX_INTEGER};

struct MessageRule {
    name: &'static str,
    fields: &'static [FieldRule],
}

struct FieldRule {
    number: u32,
    name: &'static str,
    kind: Kind,
    repeated: bool,
    oneof: Option<i32>,
}

enum Kind {
    Message(usize),
    Enum(&'static [i32]),
    U64,
    I64,
    U32,
    Bool,
    Text,
    Bytes,
    Double,
}

include!(concat!(env!("OUT_DIR"), "/strict.rs"));

/// What is wrong, and at which field below the message looked at.
struct Problem {
    code: Code,
    field: String,
    text: String,
    /// Of a list of a commit that is longer than any may be.
    most: Option<usize>,
}

impl Problem {
    fn bad(field: &str, text: impl Into<String>) -> Self {
        Self { code: Code::BadParameter, field: field.to_owned(), text: text.into(), most: None }
    }

    fn inside(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

/// Checks `bytes` as the message `name` of package `tidelog.v1`.
///
/// # Errors
/// `unknown_field` or `bad_parameter` with the field's path.
pub fn check(name: &'static str, bytes: &[u8]) -> Result<(), Error> {
    let rule = MESSAGES.iter().find(|m| m.name == name).expect("the caller names a message of session.proto");
    walk(rule, bytes).map_err(|problem| {
        let field = if problem.field.is_empty() { "frame" } else { &problem.field };
        match problem.most {
            Some(most) => convert::too_many(field, most),
            None => Error::new(problem.code, format!("{field} {}.", problem.text)).detail("field", field),
        }
    })
}

/// Most entries of a list. A message that is empty takes two bytes, and the type it becomes thirty times as much: so they are counted before.
fn most(message: &str, field: &str) -> usize {
    match (message, field) {
        ("Commit", "acks") => limits::COMMIT_ACKS,
        ("Commit", "appends") => limits::COMMIT_APPENDS,
        ("Commit", "checks") => limits::COMMIT_CHECKS,
        _ => limits::LIST_ENTRIES,
    }
}

fn walk(rule: &MessageRule, mut bytes: &[u8]) -> Result<(), Problem> {
    let (mut seen, mut oneofs) = (0u64, 0u64);
    let mut counts = [0u32; 16];
    while !bytes.is_empty() {
        let (number, value) = varint::take_field(&mut bytes).ok_or_else(|| Problem::bad("", format!("is not a protobuf {}", rule.name)))?;
        let Some(field) = rule.fields.iter().find(|f| f.number == number) else {
            let text = format!("has no field {number} ({})", rule.name);
            return Err(Problem { code: Code::UnknownField, ..Problem::bad("", text) });
        };
        let bit = 1u64 << (number & 63);
        if !field.repeated && seen & bit != 0 {
            return Err(Problem::bad(field.name, "is given twice"));
        }
        seen |= bit;
        if let Some(oneof) = field.oneof {
            if oneofs & (1 << oneof) != 0 {
                return Err(Problem::bad(field.name, "is given beside another variant of the same choice"));
            }
            oneofs |= 1 << oneof;
        }
        match (&field.kind, value) {
            (Kind::Message(index), Wire::Bytes(inner)) => {
                let index_in_list = counts[number as usize & 15];
                counts[number as usize & 15] += 1;
                let most = most(rule.name, field.name);
                if index_in_list as usize >= most {
                    let text = format!("has more than {most} entries, which is the limit");
                    let commit = rule.name == "Commit";
                    return Err(Problem { code: Code::TooLarge, most: commit.then_some(most), ..Problem::bad(field.name, text) });
                }
                let message = &MESSAGES[*index];
                if message.name != "Events" {
                    walk(message, inner)
                        .map_err(|problem| problem.inside(&if field.repeated { format!("{}[{index_in_list}]", field.name) } else { field.name.to_owned() }))?;
                }
            }
            (Kind::Enum(known), Wire::Varint(n)) => {
                if !known.iter().any(|k| *k as i64 as u64 == n) {
                    return Err(Problem::bad(field.name, format!("has the unknown value {n}")));
                }
            }
            (Kind::U64, Wire::Varint(n)) if n > MAX_INTEGER => return Err(Problem::bad(field.name, format!("is {n}; the largest is {MAX_INTEGER}"))),
            (Kind::U32, Wire::Varint(n)) if n > u64::from(u32::MAX) => return Err(Problem::bad(field.name, format!("is {n}; the largest is {}", u32::MAX))),
            (Kind::Bool, Wire::Varint(n)) if n > 1 => return Err(Problem::bad(field.name, "is neither 0 nor 1")),
            (Kind::U64 | Kind::I64 | Kind::U32 | Kind::Bool, Wire::Varint(_)) | (Kind::Bytes, Wire::Bytes(_)) | (Kind::Double, Wire::Fixed64(_)) => {}
            (Kind::Text, Wire::Bytes(text)) => {
                if std::str::from_utf8(text).is_err() {
                    return Err(Problem::bad(field.name, "is not valid UTF-8"));
                }
            }
            _ => return Err(Problem::bad(field.name, "has the wrong wire type")),
        }
    }
    Ok(())
}
