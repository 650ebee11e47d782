//! The faces over real sockets, in one process: what goes in, what comes out, and that bad input hurts nobody.

mod auth;
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
mod support;
mod ws_bad;
mod ws_good;
