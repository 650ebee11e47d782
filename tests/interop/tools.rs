//! Where the tools of strangers are: on the path of everything that is started here, the pinned ones first.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where `.ci/setup-interop` puts what no package of Debian has.
fn folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home folder")).join(".cache/tidelog/tools");
    std::env::var_os("TIDELOG_TOOLS").map_or_else(home, PathBuf::from)
}

/// The search path: pinned tools, then those of the machine.
pub fn path() -> OsString {
    let pinned = [folder().join("venv/bin"), folder().join("bin")];
    let machine = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(pinned.into_iter().chain(std::env::split_paths(&machine))).expect("folders without colons")
}

/// Fails with what to do when a tool is not there.
#[track_caller]
pub fn require(tool: &str) {
    let runs = |folder: &Path| folder.join(tool).metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let found = std::env::split_paths(&path()).any(|folder| runs(&folder));
    assert!(found, "`{tool}` was not found. `make tools` installs it (so does `make test`), then run this again.");
}

/// A tool, with the search path on which everything it starts is found too. No settings of whoever runs the test.
#[track_caller]
pub fn tool(name: &str) -> Command {
    require(name);
    let mut command = Command::new("env");
    command.arg(name).env("PATH", path());
    without_settings(&mut command);
    command
}

/// Settings of whoever runs the test are not ours; proxies are not for this machine.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_lowercase();
        if text.starts_with("tidelog_") || text.ends_with("_proxy") || text == "pythonpath" {
            command.env_remove(name);
        }
    }
}

/// What it printed, both outputs together, and that it went well.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let printed = printed(&output);
    assert!(output.status.success(), "{command:?} ended with {}:\n{printed}", output.status);
    printed
}

/// What it printed, both outputs together, and that it went wrong.
#[track_caller]
pub fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let printed = printed(&output);
    assert!(!output.status.success(), "{command:?} went well, and should not:\n{printed}");
    printed
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A file or folder of this checkout.
pub fn checkout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
