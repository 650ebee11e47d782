//! Who may call what: every route, frame and gRPC method, as every kind of caller, with every right, against the table in `docs/access.md`.
//!
//! `table` reads the law, `surface` what there is to call, `people` who calls, `calls` how each call is asked well; `walk` compares. `hidden`
//! shows that nobody learns of a stream by its absence, `revoked` that what is taken away is gone within a second, `rights` that chance
//! finds no other answer than a model of thirty lines, `evernest` does the same as `walk` for the calls of that face.

mod ask;
mod calls;
mod evernest;
#[path = "../api/grpc_client.rs"]
#[allow(dead_code, reason = "tests/api uses the rest of it")]
mod grpc_client;
mod hidden;
mod people;
mod revoked;
mod rights;
#[path = "../chance/splitmix.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod splitmix;
mod surface;
mod table;
mod walk;

/// For `grpc_client`.
mod support {
    /// Nothing here takes this long; a test that waits forever says where.
    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
}
