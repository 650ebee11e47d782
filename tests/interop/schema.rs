//! The protobuf files by the rules of buf: how they are written, and that no release takes back what an older one said.
//!
//! `make test` runs buf on the files as they are; here are the controls, on copies with one fault each.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tools;

/// A copy of `proto`, with one change.
struct Copy(tempfile::TempDir);

impl Copy {
    /// Replaces a text that stands in a file exactly once.
    fn with(file: &str, from: &str, to: &str) -> Self {
        let copy = Self::of(&tools::checkout("proto"));
        let path = copy.0.path().join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text.matches(from).count(), 1, "{file} has `{from}` once");
        fs::write(&path, text.replace(from, to)).expect("a copy can be written");
        copy
    }

    fn of(folder: &Path) -> Self {
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_folder(folder, copy.path());
        Self(copy)
    }

    fn buf(&self, arguments: &[&str]) -> Command {
        let mut command = tools::tool("buf");
        command.args(arguments).current_dir(self.0.path());
        command
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&target).expect("a folder");
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

const LINT: &[&str] = &["lint"];
const BREAKING: &[&str] = &["breaking", "--against", "baseline.binpb"];

#[test]
fn the_files_are_clean_and_keep_what_the_last_release_said() {
    let copy = Copy::of(&tools::checkout("proto"));
    tools::succeeds(&mut copy.buf(LINT));
    tools::succeeds(&mut copy.buf(BREAKING));
}

#[test]
fn a_removed_field_a_changed_number_type_or_name_breaks_the_promise() {
    const SESSION: &str = "tidelog/v1/session.proto";
    const EVENT: &str = "tidelog/v1/event.proto";
    for (file, from, to, says) in [
        (SESSION, "  bool create = 4; ", "  // ", "Previously present field \"4\""),
        (SESSION, "  bool rewind = 6; ", "  bool rewind = 66; ", "Previously present field \"6\""),
        (SESSION, "  bool rewind = 6; ", "  uint64 rewind = 6; ", "changed type from \"bool\" to \"uint64\""),
        (SESSION, "  bool rewind = 6; ", "  bool back = 6; ", "changed name from \"rewind\" to \"back\""),
        (EVENT, "  COMPACTED = 3; ", "  // ", "Previously present enum value \"3\""),
        (EVENT, "  repeated Header headers = 5;", "  Header headers = 5;", "changed cardinality"),
    ] {
        let printed = tools::fails(&mut Copy::with(file, from, to).buf(BREAKING));
        assert!(printed.contains(says), "`{from}` → `{to}` is told otherwise:\n{printed}");
    }
}

#[test]
fn a_new_field_is_no_break() {
    let copy = Copy::with("tidelog/v1/session.proto", "  bool rewind = 6; ", "  bool quite_new = 99;\n  bool rewind = 6; ");
    tools::succeeds(&mut copy.buf(BREAKING));
}

#[test]
fn a_name_against_the_style_is_a_complaint() {
    let copy = Copy::with("tidelog/v1/session.proto", "  bool rewind = 6; ", "  bool Rewind = 6; ");
    let printed = tools::fails(&mut copy.buf(LINT));
    assert!(printed.contains("should be lower_snake_case"), "{printed}");
}
