//! One file for each kind of bytes that somebody else may have written, and the list of all.

pub mod batches;
mod bodies;
mod filters;
pub mod frames;
mod lines;
mod messages;
mod names;
pub mod routes;
mod settings;
pub mod stored;
pub mod tokens;

use crate::engine::Target;

/// Every target.
pub const ALL: &[&Target] = &[
    &frames::CLIENT_JSON,
    &frames::CLIENT_PROTO,
    &frames::SERVER_JSON,
    &frames::SERVER_PROTO,
    &frames::TWO_FORMS,
    &batches::APPENDED,
    &batches::RECEIVED,
    &batches::STORED,
    &messages::MESSAGES,
    &bodies::BODIES,
    &routes::ROUTES,
    &stored::KEYS,
    &stored::ROWS,
    &stored::WAL,
    &stored::SIDE_FILE,
    &tokens::TOKENS,
    &names::NAMES,
    &filters::FILTERS,
    &settings::SETTINGS,
    &lines::LINES,
];

/// One test for each, so that they run side by side and are asked for by name.
macro_rules! tests {
    ($($name:ident = $target:path;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!($target.name, stringify!($name), "the test is called as its target");
            crate::engine::run(&$target);
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$($target.name),*];
            assert_eq!(tested, ALL.iter().map(|target| target.name).collect::<Vec<_>>()[..]);
        }
    };
}

tests! {
    client_json = frames::CLIENT_JSON;
    client_proto = frames::CLIENT_PROTO;
    server_json = frames::SERVER_JSON;
    server_proto = frames::SERVER_PROTO;
    two_forms = frames::TWO_FORMS;
    appended_events = batches::APPENDED;
    received_batch = batches::RECEIVED;
    stored_batch = batches::STORED;
    grpc_messages = messages::MESSAGES;
    rest_bodies = bodies::BODIES;
    routes = routes::ROUTES;
    keys = stored::KEYS;
    rows = stored::ROWS;
    wal = stored::WAL;
    side_file = stored::SIDE_FILE;
    ack_tokens = tokens::TOKENS;
    names = names::NAMES;
    filters = filters::FILTERS;
    settings = settings::SETTINGS;
    cli_lines = lines::LINES;
}
