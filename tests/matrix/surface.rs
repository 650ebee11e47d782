//! What there is to call: the routes in the router's source, the frames and methods in the descriptors of the protobuf files.

use std::collections::BTreeSet;

use prost::Message;

use crate::table::{Face, rows};

/// The router.
const ROUTER: &str = include_str!("../../src/edge/http/mod.rs");

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(message, repeated, tag = "4")]
    message: Vec<Named>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Named>,
}
/// A message with its fields, or a service with its methods.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    part: Vec<Part>,
}
#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(string, tag = "1")]
    name: String,
}

fn files() -> Vec<File> {
    Files::decode(tidelog::wire::proto::DESCRIPTORS).expect("descriptors").file
}

/// Every frame that a client can send.
fn frames() -> BTreeSet<String> {
    let messages = files().into_iter().flat_map(|file| file.message);
    let frame = messages.into_iter().find(|message| message.name == "ClientFrame").expect("a message ClientFrame");
    frame.part.into_iter().map(|field| field.name).collect()
}

/// Every method of our services.
fn methods() -> BTreeSet<String> {
    let services = files().into_iter().flat_map(|file| file.service);
    services.flat_map(|service| service.part.into_iter().map(move |method| format!("{}/{}", service.name, method.name))).collect()
}

/// What stands between the bracket that opens at `text`'s start and the one that closes it.
fn inside(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[1..at];
        }
    }
    panic!("no end of {text:.80}")
}

/// The parts between commas that stand in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('"')?.strip_suffix('"')
}

/// `METHOD /path` of every route in a router's source. A route that is written in a way this does not know fails.
fn routes(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().expect("a first part");
    let constant = |name: &str| {
        let at = source.find(&format!("const {name}: &str = ")).unwrap_or_else(|| panic!("no constant {name} in the router"));
        source[at..].split('"').nth(1).expect("a text").to_owned()
    };
    let base = |text: &str| quoted(text).map_or_else(|| constant(text.trim()), str::to_owned);
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices(".route(") {
        let arguments = split(inside(&source[at + ".route".len()..]));
        let [path, methods] = arguments[..] else { panic!("a route has a path and methods: {arguments:?}") };
        let paths: Vec<String> = match path.strip_prefix("&under") {
            None => vec![base(path)],
            Some(parts) => {
                let parts = split(inside(parts));
                let [first, rest] = parts[..] else { panic!("`under` joins two texts: {parts:?}") };
                match quoted(rest) {
                    Some(rest) => vec![base(first) + rest],
                    // A loop over texts.
                    None => {
                        let begin = source[..at].rfind(&format!("for {rest} in [")).unwrap_or_else(|| panic!("what is {rest} in {path}?"));
                        let list = source[begin..].find('[').expect("a list");
                        split(inside(&source[begin + list..])).into_iter().map(|text| base(first) + quoted(text).expect("a text")).collect()
                    }
                }
            }
        };
        let methods: BTreeSet<&str> = ["get", "post", "put", "patch", "delete"]
            .into_iter()
            .filter(|method| methods.starts_with(&format!("{method}(")) || methods.contains(&format!(".{method}(")))
            .collect();
        assert!(!methods.is_empty(), "{paths:?} has no method that this test can read");
        for path in &paths {
            found.extend(methods.iter().map(|method| format!("{} {path}", method.to_ascii_uppercase())));
        }
    }
    found
}

#[test]
fn every_route_frame_and_method_has_a_row_and_every_row_is_one_of_them() {
    let rows = rows();
    for (face, there) in [(Face::Rest, routes(ROUTER)), (Face::Frame, frames()), (Face::Grpc, methods())] {
        let told: Vec<&str> = rows.iter().filter(|row| row.face == face).map(|row| row.call.as_str()).collect();
        let unique: BTreeSet<&str> = told.iter().copied().collect();
        assert_eq!(unique.len(), told.len(), "docs/access.md has a row twice");
        let missing: Vec<&String> = there.iter().filter(|call| !unique.contains(call.as_str())).collect();
        assert!(missing.is_empty(), "docs/access.md says of none of these who may call them: {missing:#?}");
        let built = rows.iter().filter(|row| row.face == face && row.built).map(|row| &row.call);
        let gone: Vec<&String> = built.filter(|call| !there.contains(*call)).collect();
        assert!(gone.is_empty(), "docs/access.md has rows for what does not exist: {gone:#?}");
        assert!(there.len() >= 10, "{face:?}: so few were found that they were not looked for well: {there:?}");
    }
}

#[test]
fn a_router_is_read_as_rust_reads_it() {
    let source = r#"
        const THING: &str = "/v1/things/{thing}";
        Router::new()
            .route("/", get(about::root))
            .route(THING, get(a::show).put(unbuilt).delete(a::remove))
            .route(
                &under(THING, "/parts"),
                post(parts::make).head(websocket_only).fallback(websocket_only),
            );
        for action in ["/x", "/y"] {
            routes = routes.route(&under(THING, action), patch(unbuilt));
        }
    "#;
    let expected = ["DELETE /v1/things/{thing}", "GET /", "GET /v1/things/{thing}", "PATCH /v1/things/{thing}/x", "PATCH /v1/things/{thing}/y"];
    let found = routes(source);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, [&expected[..], &["POST /v1/things/{thing}/parts", "PUT /v1/things/{thing}"]].concat());
}
