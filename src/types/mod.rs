//! Vocabulary: parsed values that are right by construction, and the batch codec that all layers share.
//!
//! No I/O, no clock, no rule of the broker. Every other layer may use this one; it uses none of them.

pub mod batch;
pub mod error;
pub mod event;
pub mod filter;
pub mod id;
pub mod limits;
pub mod name;
pub mod reply;
pub mod request;
pub mod right;
pub mod time;
pub mod varint;

pub use batch::{Batch, Events, EventsBuilder, Slice};
pub use error::{Applied, Code, Error, Result, Retry};
pub use event::{Encoding, EventRef, Removed};
pub use filter::Filter;
pub use id::{OperationId, PrincipalId, StreamId, SubscriptionId};
pub use name::{ClusterId, IdempotencyKey, KeyName, ProducerId, RemoteName, StreamName, SubscriptionName, UserName};
pub use right::{Action, Right};
pub use time::TimeUs;
