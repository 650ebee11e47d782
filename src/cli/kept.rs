//! What the command line keeps for its user: files in the configuration directory that nobody else reads, written whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::client::Endpoint;

/// A file of ours: below `$XDG_CONFIG_HOME/tidelog`, or `~/.config/tidelog`. `None` without a home.
pub fn file(name: &str, env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let config = env("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(config.join("tidelog").join(name))
}

/// The file in which `login` leaves its session, and where commands look for one: a file for each address, so that no other broker hears of it.
/// The socket has none: there one is the operator without it.
pub fn session_file(endpoint: &Endpoint, env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if matches!(endpoint, Endpoint::Unix(_)) {
        return None;
    }
    let address = endpoint.to_string().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    file("sessions", env).map(|folder| folder.join(address))
}

/// Writes a text and a line end: whole, and only for this user.
///
/// # Errors
/// What the file system says; what was there before is still there then.
pub fn keep(to: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(new, to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_session_is_kept_where_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = |name: &str| (name == "XDG_CONFIG_HOME").then(|| dir.path().join("config").display().to_string());
        let file = session_file(&Endpoint::Http("127.0.0.1:4080".into()), home).unwrap();
        for token in ["tlc_one", "tlc_two"] {
            keep(&file, token).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }
}
