//! TLS with real sockets: who is let in and as whom, every carrier inside it, certificates that change, and clients that want to hurt.
//!
//! Where a stranger would use curl or openssl, they are used here.

mod carriers;
mod command_line;
mod handshakes;
mod people;
mod reload;
mod world;
