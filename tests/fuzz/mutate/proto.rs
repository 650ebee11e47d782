//! Mutations of protobuf as fields: the message stays one, mostly, and one field in it is not what it should be.

use super::{NUMBERS, WORDS};
use crate::dice::Dice;
use tidelog::types::varint::{self, Wire};

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Clone, Debug)]
struct Field {
    number: u32,
    value: Value,
    /// What its length says more or less than is there.
    lie: i64,
    /// Bytes by which its key is longer than it need be.
    padding: usize,
}

impl Field {
    fn new(number: u32, value: Value) -> Self {
        Self { number, value, lie: 0, padding: 0 }
    }
}

/// Bytes that read as a message are taken for one: a name seldom does.
fn fields(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (number, value) = varint::take_field(&mut bytes)?;
        let value = match value {
            Wire::Varint(n) => Value::Varint(n),
            Wire::Fixed64(n) => Value::Fixed64(n),
            Wire::Fixed32(n) => Value::Fixed32(n),
            Wire::Bytes(inner) => match fields(inner, depth + 1).filter(|f| depth < 6 && !f.is_empty()) {
                Some(fields) => Value::Message(fields),
                None => Value::Bytes(inner.to_vec()),
            },
        };
        all.push(Field::new(number, value));
    }
    Some(all)
}

fn put_padded(out: &mut Vec<u8>, value: u64, padding: usize) {
    varint::put(out, value);
    if let Some(last) = out.last_mut().filter(|_| padding > 0) {
        *last |= 0x80;
        out.extend(std::iter::repeat_n(0x80, padding - 1));
        out.push(0);
    }
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for field in fields {
        let key = |wire: u64| u64::from(field.number) << 3 | wire;
        match &field.value {
            Value::Varint(n) => {
                put_padded(out, key(0), field.padding);
                varint::put(out, *n);
            }
            Value::Fixed64(n) => {
                put_padded(out, key(1), field.padding);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Value::Fixed32(n) => {
                put_padded(out, key(5), field.padding);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Value::Bytes(_) | Value::Message(_) => {
                let mut inner = Vec::new();
                match &field.value {
                    Value::Message(fields) => write(fields, &mut inner),
                    Value::Bytes(bytes) => inner.clone_from(bytes),
                    _ => {}
                }
                put_padded(out, key(2), field.padding);
                varint::put(out, (inner.len() as u64).wrapping_add_signed(field.lie));
                out.extend_from_slice(&inner);
            }
        }
    }
}

/// Hands the fields of one message somewhere in the tree to `change`.
fn inside(dice: &mut Dice, fields: &mut Vec<Field>, change: &mut dyn FnMut(&mut Dice, &mut Vec<Field>)) {
    let deeper: Vec<usize> = (0..fields.len()).filter(|at| matches!(fields[*at].value, Value::Message(_))).collect();
    if deeper.is_empty() || dice.one_in(3) {
        return change(dice, fields);
    }
    if let Value::Message(inner) = &mut fields[deeper[dice.below(deeper.len())]].value {
        inside(dice, inner, change);
    }
}

/// `None`: `base` is no message.
pub fn mutate(dice: &mut Dice, base: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut tree = fields(base, 0)?;
    let mut stranger = Vec::new();
    inside(dice, &mut fields(other, 0).unwrap_or_default(), &mut |_, fields| stranger.clone_from(fields));
    inside(dice, &mut tree, &mut |dice, fields| one(dice, fields, &stranger));
    let mut out = Vec::new();
    write(&tree, &mut out);
    Some(out)
}

fn one(dice: &mut Dice, fields: &mut Vec<Field>, stranger: &[Field]) {
    if fields.is_empty() || dice.one_in(12) {
        let value = odd(dice);
        return fields.push(Field::new([1, 2, 3, 7, 15, 16, 99, 1 << 20, (1 << 29) - 1][dice.below(9)], value));
    }
    let at = dice.below(fields.len());
    match dice.below(13) {
        0 => drop(fields.remove(at)),
        1 => {
            let twice = fields[at].clone();
            fields.push(twice);
        }
        2 => {
            let twice = fields[at].clone();
            fields.extend(std::iter::repeat_n(twice, dice.small(3000)));
        }
        3 => fields[at].number = 1 + dice.below(17) as u32,
        4 => fields[at].lie = [-1, 1, 2, 127, 1 << 20, 1 << 31, i64::MAX][dice.below(7)],
        5 => fields[at].padding = 1 + dice.below(10),
        6 => fields.swap(0, at),
        7 if !stranger.is_empty() => fields[at] = stranger[dice.below(stranger.len())].clone(),
        8 if !stranger.is_empty() => fields.push(stranger[dice.below(stranger.len())].clone()),
        9 => {
            // Empty ones cost two bytes each, and whoever builds a list of them pays more.
            let empty = Field::new(fields[at].number, Value::Bytes(Vec::new()));
            fields.extend(std::iter::repeat_n(empty, dice.small(30_000)));
        }
        10 => fields[at].value = Value::Varint(NUMBERS[dice.below(NUMBERS.len())]),
        _ => fields[at].value = odd(dice),
    }
}

fn odd(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0..=3 => Value::Varint(NUMBERS[dice.below(NUMBERS.len())]),
        4 => Value::Fixed64(dice.throw()),
        5 => Value::Fixed32(dice.throw() as u32),
        6 => Value::Bytes(Vec::new()),
        7 => Value::Bytes("long".repeat(dice.small(8000)).into_bytes()),
        8 => Value::Bytes(b"\xff\xfe".to_vec()),
        _ => Value::Bytes(dice.pick(WORDS).into()),
    }
}
