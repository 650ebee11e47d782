//! The real binary, killed while it works: what was acknowledged is there, what was refused is not, and every effect happened once.
//!
//! `load` makes traffic, `run` kills processes and collects what everybody saw, `check` judges the history by I-1 to I-16.
//! `single` holds the smaller questions to one process: stopping, starting twice, deleting. The roles of child processes that
//! are no example of ours live in this binary too (`load::role`).

mod check;
mod dice;
mod history;
mod load;
mod process;
mod readback;
mod run;
mod session;
mod single;
