//! Failing storage, shown on a real process: `tidelog-faults` is the broker with fault points (`src/log/rocks/faults.rs`) and with promises
//! that can be broken on purpose (`src/broker/broken.rs`).
//!
//! `failing` asks what one caller hears. `points` visits every fault point under a small load over all carriers (`small`), restarts, and judges
//! the history by the checkers of `tests/crash`. `controls` breaks promises and sees those checkers go red.

mod controls;
mod failing;
mod points;
mod small;

#[path = "../crash/check.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod check;
#[path = "../crash/dice.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod dice;
#[path = "../crash/door.rs"]
mod door;
#[path = "../crash/frames.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod frames;
#[path = "../api/grpc_client.rs"]
#[expect(dead_code, reason = "tests/api uses the rest of it")]
mod grpc_client;
#[path = "../crash/history.rs"]
mod history;
#[path = "../crash/line.rs"]
mod line;
#[path = "../crash/load.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod load;
#[path = "../crash/process.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod process;
#[path = "../crash/readback.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod readback;
#[path = "../crash/session.rs"]
mod session;
#[path = "../crash/side.rs"]
mod side;
#[path = "../crash/told.rs"]
mod told;
#[path = "../crash/watch.rs"]
#[expect(dead_code, reason = "tests/crash uses the rest of it")]
mod watch;
#[path = "../crash/writers.rs"]
mod writers;

/// For `grpc_client`.
mod support {
    pub use crate::process::PATIENCE;
}
