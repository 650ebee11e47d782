//! The real binary, killed while it works: what was acknowledged is there, what was refused is not, and every effect happened once.
//!
//! `load`, `writers`, `session`, `side` and `people` make traffic over every carrier, some of it through a `proxy` that breaks connections; `world` kills,
//! freezes and replaces processes; `watch` looks on; `run` puts it together and collects what everybody saw; `check` judges the history by I-1
//! to I-19. `single` holds the smaller questions to one process: stopping, starting twice, deleting. The roles of child processes that are no
//! example of ours live in this binary too (`load::role`).

mod check;
mod dice;
mod door;
mod frames;
#[path = "../api/grpc_client.rs"]
#[expect(dead_code, reason = "tests/api uses the rest of it")]
mod grpc_client;
mod history;
mod line;
mod load;
mod people;
mod process;
mod proxy;
mod readback;
mod run;
mod session;
mod side;
mod single;
mod told;
mod watch;
mod world;
mod writers;

/// For `grpc_client`.
mod support {
    pub use crate::process::PATIENCE;
}
