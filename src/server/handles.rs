//! How many files the process may open, and how many of them are left for connections.
//!
//! A storage engine that cannot open a file fails, and the broker stops (S-5). So connections are turned away before they can take the
//! engine's files: strangers must not be able to stop the broker by connecting.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::log::rocks::open_files;
use crate::types::limits;

/// Asks the system for as many files as it grants, and says how many connections that allows, at most `wanted`.
pub fn connections(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // without it there are fewer
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = room(limit);
    if room < wanted {
        tracing::warn!(
            "this process may open {limit} files, so {room} connections are accepted, not {wanted} (limits.connections); \
             raise the limit of open files (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(room)
}

fn room(limit: u64) -> u64 {
    limit.saturating_sub(open_files(limit) + limits::OTHER_FILES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_what_the_engine_leaves() {
        for (limit, sockets) in [(u64::MAX, u64::MAX - 4096 - 64), (20_000, 15_840), (1024, 448), (256, 64), (64, 1)] {
            assert_eq!(room(limit), sockets, "{limit}");
        }
    }
}
