//! The law, rule by rule: each test is named after the rule of `exactly-once.md` (or the decision) that it holds the broker to.
//!
//! Written from the specification against the broker's public face and the engines' test hooks; no carrier in between.

mod access;
mod audit;
mod cold;
mod cursors;
mod filters;
mod keys;
mod overtaken;
mod producers;
mod pulls;
mod quotas;
mod sessions;
mod storage;
mod streams;
mod subscriptions;
mod support;
mod transactions;
