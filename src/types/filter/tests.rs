//! The language by examples, by its bounds, and by chance against a tree that is written down.

use proptest::prelude::*;

use super::*;
use crate::types::{Code, limits};

const FIELDS: Fields = &[
    ("name", Type::Text),
    ("id", Type::Integer),
    ("frozen", Type::Boolean),
    ("created_at", Type::Time),
    ("metadata", Type::Map),
    ("retention.max_age_s", Type::Integer),
];

/// Something with a name; the rest may be unset.
#[derive(Clone, Debug, Default)]
struct Thing {
    name: String,
    id: Option<i128>,
    frozen: Option<bool>,
    created: Option<TimeUs>,
    team: Option<String>,
    max_age: Option<i128>,
}

impl Subject for Thing {
    fn value(&self, index: usize, key: &str) -> Option<Value<'_>> {
        match index {
            0 => Some(Value::Text(&self.name)),
            1 => self.id.map(Value::Integer),
            2 => self.frozen.map(Value::Boolean),
            3 => self.created.map(Value::Time),
            4 if key == "team.x" => self.team.as_deref().map(Value::Text),
            5 => self.max_age.map(Value::Integer),
            _ => None,
        }
    }
}

fn thing() -> Thing {
    Thing {
        name: "orders".into(),
        id: Some(7),
        frozen: Some(false),
        created: TimeUs::parse("2026-01-26T10:00:00Z").ok(),
        team: Some("it's".into()),
        max_age: None,
    }
}

fn holds(text: &str) -> bool {
    Filter::parse(text, FIELDS).unwrap_or_else(|e| panic!("{text}: {e}")).holds(&thing())
}

#[test]
fn each_type_is_compared_as_what_it_is() {
    for yes in [
        "name eq orders",
        "name eq 'orders'",
        "name EQ \"orders\"",
        "name gt Z",
        "name lt p",
        "id eq 7",
        "id eq '7'",
        "id ge 7 and id le 7",
        "id gt -3",
        "id lt 99999999999999999999",
        "frozen eq false",
        "frozen ne true",
        "created_at eq 2026-01-26T10:00:00Z",
        "created_at eq 2026-01-26T11:00:00+01:00",
        "created_at lt 2026-01-26T10:00:00.000001Z",
        "metadata.team.x eq 'it''s'",
        "metadata.team.x eq \"it's\"",
        "metadata.team.x ne null",
        "metadata.other eq null",
        "retention.max_age_s eq null",
        "retention.max_age_s ne 5",
        "name ne null",
        "name ne 'null'",
    ] {
        assert!(holds(yes), "{yes}");
    }
    for no in [
        "name eq Orders",
        "name gt orders",
        "id ne 7",
        "id lt 7",
        "created_at gt 2026-01-26T10:00:00Z",
        "metadata.other eq x",
        "metadata.other gt a",
        "retention.max_age_s lt 5",
        "retention.max_age_s ge 5",
        "retention.max_age_s ne null",
        "name eq 'null'",
        "name eq null",
    ] {
        assert!(!holds(no), "{no}");
    }
}

#[test]
fn and_binds_before_or_and_not_before_both() {
    for (text, is) in [
        ("id eq 7 or id eq 8 and id eq 9", true),
        ("(id eq 7 or id eq 8) and id eq 9", false),
        ("not id eq 8 and id eq 7", true),
        ("not (id eq 8 and id eq 7)", true),
        ("not (id eq 7)", false),
        ("NOT id eq 7 OR name eq orders", true),
        (" ( ( id  eq  7 ) ) ", true),
        ("not(id eq 7)or(name eq x)", false),
        ("id eq 8 or not (name eq x or frozen eq true)", true),
    ] {
        assert_eq!(holds(text), is, "{text}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    for (text, position) in [
        ("", 0),
        ("   ", 3),
        ("name", 4),
        ("name is x", 5),
        ("name eq", 7),
        ("name eq ", 8),
        ("name eq'x'", 7),
        ("name eq (x)", 8),
        ("name eq 'x", 8),
        ("name eq \"x\\\"", 8),
        ("name eq x y", 10),
        ("name eq x and", 13),
        ("not", 3),
        ("(name eq x", 0),
        ("name eq x)", 9),
        ("(name eq x id eq 7)", 11),
        ("'name' eq x", 0),
        ("id eq seven", 6),
        ("id eq 7.5", 6),
        ("id eq ''", 6),
        ("frozen eq 1", 10),
        ("frozen gt true", 10),
        ("name lt null", 8),
        ("created_at eq yesterday", 14),
        ("metadata.é eq x and id eq y", 26),
    ] {
        let error = Filter::parse(text, FIELDS).expect_err(text);
        assert_eq!((error.code, &error.details["position"]), (Code::BadFilter, &position.into()), "{text}: {error}");
    }
}

#[test]
fn what_is_not_known_may_be_anything() {
    // Of `frozen` nothing is known.
    let known = |index: usize| FIELDS[index].0 != "frozen";
    for (text, may) in [
        ("frozen eq true", true),
        ("not frozen eq true", true),
        ("name eq orders and frozen eq true", true),
        ("name eq bills and frozen eq true", false),
        ("name eq bills or frozen eq true", true),
        ("not (name eq orders or frozen eq true)", false),
        ("not (name eq bills and frozen eq true)", true),
        ("name eq bills or id eq 8", false),
    ] {
        assert_eq!(Filter::parse(text, FIELDS).unwrap().may_hold(&thing(), known), may, "{text}");
    }
}

#[test]
fn a_field_that_does_not_exist_is_named_with_those_that_do() {
    for field in ["nam", "Name", "metadata", "metadata.", "retention", "name.x", "and", "or", "*"] {
        let error = Filter::parse(&format!("id eq 7 and {field} eq x"), FIELDS).expect_err(field);
        assert_eq!((error.code, &error.details["field"], &error.details["position"]), (Code::UnknownFilterField, &field.into(), &12.into()), "{field}");
        assert!(error.message.contains("metadata.*") && error.message.contains("retention.max_age_s"), "{}", error.message);
    }
}

#[test]
fn a_filter_has_bounds_at_which_it_is_taken_and_beyond_which_it_is_not() {
    let good = |text: &str| Filter::parse(text, FIELDS).is_ok();
    let many = |n: usize| vec!["id eq 7"; n].join(" or ");
    assert!(good(&many(limits::FILTER_COMPARISONS)) && !good(&many(limits::FILTER_COMPARISONS + 1)));
    let deep = |n: usize| format!("{}id eq 7{}", "(".repeat(n), ")".repeat(n));
    assert!(good(&deep(limits::FILTER_DEPTH)) && !good(&deep(limits::FILTER_DEPTH + 1)));
    let long = |n: usize| format!("name eq {}", "x".repeat(n - "name eq ".len()));
    assert!(good(&long(limits::FILTER_BYTES)) && !good(&long(limits::FILTER_BYTES + 1)));
}

/// A filter as a tree, and what it must come to: the language once more, from the other side.
#[derive(Clone, Debug)]
enum Tree {
    Is(bool, String),
    Not(Box<Tree>),
    All(Vec<Tree>),
    Any(Vec<Tree>),
}

impl Tree {
    fn is(&self) -> bool {
        match self {
            Self::Is(is, _) => *is,
            Self::Not(tree) => !tree.is(),
            Self::All(trees) => trees.iter().all(Self::is),
            Self::Any(trees) => trees.iter().any(Self::is),
        }
    }

    /// Written with no more brackets than precedence asks for.
    fn write(&self, within: u8) -> String {
        let (binds, text) = match self {
            Self::Is(_, text) => (3, text.clone()),
            Self::Not(tree) => (2, format!("not {}", tree.write(3))),
            Self::All(trees) => (1, trees.iter().map(|tree| tree.write(2)).collect::<Vec<_>>().join(" and ")),
            Self::Any(trees) => (0, trees.iter().map(|tree| tree.write(1)).collect::<Vec<_>>().join("  OR ")),
        };
        if binds < within { format!("({text})") } else { text }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (-20i128..20).prop_map(|n| Tree::Is(7 >= n, format!("id ge {n}"))),
        "[a-z '\"\\\\()é]{0,6}".prop_map(|text| Tree::Is("orders" == text, format!("name eq '{}'", text.replace('\'', "''")))),
        "[a-z '\"\\\\()é]{0,6}".prop_map(|text| Tree::Is("orders" > text.as_str(), format!("name gt \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))),
        any::<bool>().prop_map(|is| Tree::Is(!is, format!("frozen eq {is}"))),
    ];
    leaf.prop_recursive(3, 20, 3, |inner| {
        let some = proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![inner.prop_map(|tree| Tree::Not(Box::new(tree))), some.clone().prop_map(Tree::All), some.prop_map(Tree::Any)]
    })
}

proptest! {
    #[test]
    fn a_filter_means_what_its_tree_means(tree in tree()) {
        let text = tree.write(0);
        match Filter::parse(&text, FIELDS) {
            Ok(filter) => {
                prop_assert_eq!(filter.holds(&thing()), tree.is(), "{}", text);
                prop_assert_eq!(filter.as_str(), text);
            }
            // Only its bounds may refuse it.
            Err(error) => prop_assert!(error.message.contains("may"), "{}: {}", text, error),
        }
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_with_a_position(text in "[a-z_.0-9 '\"()\\\\é]{0,60}|.{0,40}") {
        if let Err(error) = Filter::parse(&text, FIELDS) {
            let position = error.details["position"].as_u64().expect("a position") as usize;
            prop_assert!(position <= text.chars().count(), "{}: {}", text, error);
        }
    }
}
