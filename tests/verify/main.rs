//! The checkers that users run themselves, `tidelog verify` and `tidelog store check`: green where all is well, whatever was killed, and red,
//! with the right name, for each promise that is broken on purpose and each byte or row that is damaged.

mod closed;
mod damaged;
mod live;
mod process;
