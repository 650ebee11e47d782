//! Damages.
