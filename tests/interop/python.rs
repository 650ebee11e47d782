//! Python's stock grpcio with stubs that grpcio-tools makes of our files: one script for each scenario, each against a fresh broker.

use std::fs;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::broker::Broker;
use crate::tools;

/// Made once for all scripts, from the files as they are now.
fn stubs() -> &'static TempDir {
    static STUBS: OnceLock<TempDir> = OnceLock::new();
    STUBS.get_or_init(|| {
        let stubs = tempfile::tempdir().expect("a temporary folder");
        let proto = tools::checkout("proto");
        let mut command = tools::tool("python3");
        command.args(["-m", "grpc_tools.protoc", "-I"]).arg(&proto);
        command.arg(format!("--python_out={0}", stubs.path().display())).arg(format!("--grpc_python_out={0}", stubs.path().display()));
        let files = fs::read_dir(proto.join("tidelog/v1")).expect("a folder").map(|entry| entry.expect("an entry").path());
        tools::succeeds(command.args(files.filter(|path| path.extension().is_some_and(|e| e == "proto"))));
        stubs
    })
}

/// Runs `tests/interop/python/NAME.py`, which fails by an assertion.
#[track_caller]
fn script(name: &str) {
    let broker = Broker::start();
    let mut command = tools::tool("python3");
    command.arg(tools::checkout("tests/interop/python").join(name).with_extension("py"));
    command.arg(&broker.address).arg(stubs().path()).arg(broker.id().to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
    tools::succeeds(&mut command);
}

#[test]
fn an_append_that_is_sent_again_is_a_duplicate() {
    script("append_and_resend");
}

#[test]
fn a_reader_that_comes_back_goes_on_behind_its_last_ack() {
    script("subscribe_and_go_on");
}

#[test]
fn a_commit_is_all_or_nothing_and_may_be_sent_again() {
    script("commit");
}

#[test]
fn who_was_replaced_hears_aborted_with_readable_details() {
    script("fencing");
}

#[test]
fn a_deadline_ends_a_silent_stream_and_the_cursor_stays() {
    script("deadline");
}

#[test]
fn a_cancelled_reader_has_left() {
    script("cancel");
}

#[test]
fn pings_keep_a_silent_reader_alive_and_notice_a_frozen_broker() {
    script("keepalive");
}

#[test]
fn one_connect_stream_does_everything() {
    script("connection");
}

#[test]
fn pulls_and_reads_need_no_stream_of_ones_own() {
    script("pull_and_read");
}

#[test]
fn grpc_web_needs_no_more_than_a_post() {
    script("grpc_web");
}
