//! The faces over real sockets, in one process: what goes in, what comes out, and that bad input hurts nobody.

mod access;
mod auth;
mod backpressure;
mod browser;
mod conditional;
mod cors;
mod drain;
mod event_source;
mod grpc_bad;
mod grpc_client;
mod grpc_good;
mod http_appends;
mod http_bad;
mod http_good;
mod http_producers;
mod http_pull;
mod limits;
mod ops;
mod scenarios;
mod sse;
mod sse_durable;
mod strangers;
mod support;
mod ws_bad;
mod ws_fragments;
mod ws_good;
