//! Mutations of JSON as a tree: the text stays JSON, and one thing in it is not what it should be.

use serde_json::Value;

use super::{EDGES, WORDS};
use crate::dice::Dice;

/// JSON in which a name may stand twice, numbers are as they are written, and a value may be text that is no JSON at all.
#[derive(Clone, Debug)]
enum Json {
    Raw(String),
    List(Vec<Json>),
    Members(Vec<(String, Json)>),
}

impl Json {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect();
                // Frames say first what they are.
                members.sort_by_key(|(name, _)| name != "t");
                Self::Members(members)
            }
            scalar => Self::Raw(scalar.to_string()),
        }
    }

    fn write(&self, out: &mut String) {
        let list = |out: &mut String, open: char, close: char, write: &mut dyn FnMut(&mut String)| {
            out.push(open);
            write(out);
            out.push(close);
        };
        match self {
            Self::Raw(text) => out.push_str(text),
            Self::List(items) => list(out, '[', ']', &mut |out| {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
            }),
            Self::Members(members) => list(out, '{', '}', &mut |out| {
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(name));
                    out.push(':');
                    value.write(out);
                }
            }),
        }
    }

    fn count(&self) -> usize {
        1 + match self {
            Self::Raw(_) => 0,
            Self::List(items) => items.iter().map(Self::count).sum(),
            Self::Members(members) => members.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// Hands the n-th node to `change`, parents before children.
    fn change(&mut self, n: &mut usize, change: &mut dyn FnMut(&mut Self)) {
        let here = *n == 0;
        // Wraps after the one that was meant, so that no other is met.
        *n = n.wrapping_sub(1);
        if here {
            return change(self);
        }
        match self {
            Self::Raw(_) => {}
            Self::List(items) => items.iter_mut().for_each(|item| item.change(n, change)),
            Self::Members(members) => members.iter_mut().for_each(|(_, value)| value.change(n, change)),
        }
    }

    /// A copy of a node.
    fn some(&mut self, dice: &mut Dice) -> Self {
        let (mut n, mut found) = (dice.below(self.count()), None);
        self.change(&mut n, &mut |node| found = Some(node.clone()));
        found.unwrap_or_else(|| Self::Raw("null".into()))
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text has a JSON form")
}

/// Values that are hardly ever right.
const ODD: &[&str] = &[
    "null",
    "true",
    "false",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"\":null}",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"AP8=\"",
    "\"AP8\"",
    "\"A===\"",
    "\" \"",
    "\"a b\"",
    "\".a\"",
    "\"$a\"",
    "\"\\n\"",
    "\"\u{e9}\"",
    "\"\\/\"",
    " 1 ",
    "1 2",
    "nul",
    "'a'",
    "\"",
    "{\"a\":1,\"a\":2}",
    "/**/1",
    "01",
    "1.",
    ".5",
    "-",
];

/// `None`: `base` is no JSON.
pub fn mutate(dice: &mut Dice, base: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut tree = Json::of(&serde_json::from_slice(base).ok()?);
    let mut stranger = serde_json::from_slice(other).map_or(Json::Raw("7".into()), |value| Json::of(&value));
    let mut n = dice.below(tree.count());
    tree.change(&mut n, &mut |node| one(dice, node, &mut stranger));
    let mut out = String::new();
    tree.write(&mut out);
    Some(out.into_bytes())
}

fn one(dice: &mut Dice, node: &mut Json, stranger: &mut Json) {
    match (dice.below(10), &mut *node) {
        (0..=2, Json::Members(members)) if !members.is_empty() => {
            let at = dice.below(members.len());
            match dice.below(5) {
                0 => drop(members.remove(at)),
                1 => {
                    let twice = members[at].clone();
                    members.push(twice);
                }
                2 => members[at].0 = dice.pick(WORDS).to_owned(),
                3 => members.swap(0, at),
                _ => members[at].1 = odd(dice),
            }
        }
        (0..=2, Json::List(items)) if !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(4) {
                0 => drop(items.remove(at)),
                1 => items[at] = odd(dice),
                _ => {
                    let again = items[at].clone();
                    items.extend(std::iter::repeat_n(again, dice.small(600)));
                }
            }
        }
        (3, Json::Members(members)) => members.push((dice.pick(WORDS).to_owned(), stranger.some(dice))),
        (4, Json::Members(members)) => {
            // Many members, all different.
            let many = dice.small(6000);
            members.extend((0..many).map(|i| (format!("m{i}"), Json::Raw("0".into()))));
        }
        (5, Json::Members(members)) => members.push(("n".repeat(dice.small(20_000)), odd(dice))),
        (6, _) => *node = stranger.some(dice),
        (7, _) => *node = Json::List(vec![node.clone()]),
        (8, _) => *node = Json::Raw(quoted(dice.pick(WORDS))),
        _ => *node = odd(dice),
    }
}

fn odd(dice: &mut Dice) -> Json {
    match dice.below(8) {
        0..=2 => Json::Raw(dice.pick(EDGES).to_owned()),
        3 => Json::Raw(quoted(&"long".repeat(dice.small(8000)))),
        4 => {
            let depth = [31, 32, 33, 127, 128, 129, 5000][dice.below(7)];
            Json::Raw("[".repeat(depth) + &"]".repeat(depth))
        }
        _ => Json::Raw(dice.pick(ODD).to_owned()),
    }
}
