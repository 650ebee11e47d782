//! Bad disks and power that goes: what was acknowledged is there afterwards, or the broker says that it is not. Never silence, an overlap, or a panic.
//!
//! `power` cuts the block device under a running broker and starts it on what had reached it. `failing` and `full` make system calls fail by a
//! shim (`shim.c`, compiled here) or a small file system. `wal`, `rot` and `side` damage the files of a directory (`made`) and read all of it
//! again in this process (`inspect`). `ledger` is what clients were told and judges what is found; `load` are the clients.
//!
//! What needs mounts or loop devices says so and passes where they are not allowed. `ROUNDS=n` makes all of it n times as long.

mod broker;
mod chance;
mod failing;
mod full;
mod image;
mod inspect;
mod ledger;
mod load;
mod made;
mod power;
mod rot;
mod shim;
mod side;
mod wal;
