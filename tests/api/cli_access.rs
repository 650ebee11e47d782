//! The command line's verbs about who may do what, the real binary against a broker; and passwords typed on a terminal.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::sessions_kept::{Home, alice, mode, url};
use crate::support::serve;

/// Runs the binary on a terminal, and types.
async fn typed(home: &Home, dialog: Value, command: &[&str]) -> Output {
    let mut python = home.command("python3");
    python.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/terminal.py")).arg(dialog.to_string()).args(command);
    tokio::task::spawn_blocking(move || python.output().expect("python3 runs")).await.expect("it ends")
}

/// What the terminal showed, the exit code, and whether it echoes again.
fn shown(output: &Output) -> (String, Option<i32>, bool) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with("echoes\n") || said.ends_with("silent\n"), "{said}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code(), said.ends_with("echoes\n"))
}

const TIDELOG: &str = env!("CARGO_BIN_EXE_tidelog");

#[tokio::test(flavor = "multi_thread")]
async fn from_a_first_user_to_a_program_that_may_only_write() {
    let (broker, home) = (serve().await, Home::new());
    let (socket, url, password) = (broker.server.socket().to_str().unwrap().to_owned(), url(&broker), home.password().to_str().unwrap().to_owned());
    let by_socket = |arguments: &[&str]| [arguments, &["--socket", socket.as_str()]].concat().iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let by_url = |arguments: &[&str]| [arguments, &["--url", url.as_str()]].concat().iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    fn texts(arguments: &[String]) -> Vec<&str> {
        arguments.iter().map(String::as_str).collect()
    }
    let root = async |arguments: &[&str]| home.lines(&texts(&by_socket(arguments))).await;
    let user = async |arguments: &[&str]| home.lines(&texts(&by_url(arguments))).await;
    let root_fails = async |arguments: &[&str]| home.bad(&texts(&by_socket(arguments))).await.0;
    let user_fails = async |arguments: &[&str]| home.bad(&texts(&by_url(arguments))).await.0;

    let made = root(&["user", "create", "alice", "--password-file", &password]).await;
    assert_eq!((made.len(), &made[0]["name"], &made[0]["has_password"]), (1, &json!("alice"), &json!(true)));
    assert_eq!(root_fails(&["user", "create", "Alice"]).await, 5, "the name is taken");
    let names = |list: &[Value], field: &str| list.iter().map(|item| item[field].clone()).collect::<Vec<_>>();
    assert_eq!(names(&root(&["user", "ls"]).await, "name"), [json!("alice")]);
    assert_eq!((root_fails(&["user", "show", "nobody"]).await, user_fails(&["whoami"]).await), (3, 4));

    home.log_in(&url).await;
    assert_eq!(mode(&home.sessions()[0]), 0o600);
    let who = &user(&["whoami"]).await[0];
    assert_eq!((&who["kind"], &who["user"]["name"], &who["broker"], &who["remote"]), (&json!("console"), &json!("alice"), &json!(url), &Value::Null));
    assert_eq!(user_fails(&["user", "create", "bob"]).await, 4, "that is the operator's");
    user(&["stream", "create", "orders"]).await;

    let till = user(&["source", "create", "till", "--description", "in the shop"]).await.remove(0);
    let (id, principal) = (till["id"].to_string(), format!("source:{}", till["id"]));
    let key = home.file("till.key");
    std::fs::write(&key, till["key"].as_str().unwrap()).unwrap();
    let key = key.to_str().unwrap();
    assert_eq!(names(&user(&["source", "ls"]).await, "name"), [json!("till")]);
    assert!(user(&["source", "ls"]).await[0].get("key").is_none() && user(&["source", "show", &id]).await[0].get("key").is_none());
    assert_eq!(user_fails(&["pub", "orders", "early", "--key-file", key]).await, 3, "it has no right, so there is no stream");
    assert_eq!(user_fails(&["right", "set", "orders", &principal, "Everything"]).await, 2);
    assert_eq!(user(&["right", "set", "orders", &principal, "WriteOnly"]).await[0]["effective"], "WriteOnly");
    assert_eq!(names(&user(&["right", "ls", "orders"]).await, "principal"), [json!("user:alice"), json!(principal)]);
    user(&["pub", "orders", "hello", "--key-file", key]).await;
    assert_eq!(user_fails(&["tail", "orders", "--key-file", key]).await, 4, "it may write, and read nothing");
    assert_eq!(user(&["tail", "orders"]).await[0]["author"]["source_id"], till["id"]);

    let rotated = user(&["source", "rotate", &id]).await.remove(0);
    assert_eq!(user_fails(&["pub", "orders", "old", "--key-file", key]).await, 4, "the old key is over");
    std::fs::write(key, rotated["key"].as_str().unwrap()).unwrap();
    user(&["pub", "orders", "new", "--key-file", key]).await;
    user(&["right", "rm", "orders", &principal]).await;
    assert_eq!(user_fails(&["pub", "orders", "late", "--key-file", key]).await, 3);

    let ci = user(&["key", "create", "ci"]).await.remove(0);
    assert!(ci["key"].as_str().unwrap().starts_with("tlu_"));
    let listed = user(&["key", "ls"]).await;
    assert!(names(&listed, "name") == [json!("ci")] && listed[0].get("key").is_none(), "{listed:?}");
    let program = home.run_with(&[("TIDELOG_KEY", ci["key"].as_str().unwrap())], &["key", "create", "more", "--url", &url]).await;
    assert_eq!(program.status.code(), Some(4), "keys make no keys");
    user(&["key", "rm", "ci", "--yes"]).await;

    root(&["user", "set", "alice", "--disabled", "true"]).await;
    assert_eq!(user_fails(&["whoami"]).await, 4);
    root(&["user", "set", "alice", "--disabled", "false"]).await;
    assert_eq!(root_fails(&["user", "rm", "alice", "--yes"]).await, 5, "it owns a stream");
    assert_eq!(home.bad(&["whoami", "--url", "http://127.0.0.1:1"]).await.0, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_out_of_a_pipe_as_well() {
    let (broker, home) = (serve().await, Home::new());
    alice(&broker, &home, "create").await;
    let mut command = home.command(TIDELOG);
    command.args(["login", "alice", "--url", &url(&broker)]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let piped = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(b"correct horse\n").expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    let output = piped.await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    home.good(&["whoami", "--url", &url(&broker)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_typed_is_not_seen() {
    let (broker, home) = (serve().await, Home::new());
    let socket = broker.server.socket().to_str().unwrap().to_owned();
    let twice = |one: &str, other: &str| json!([["New password of alice: ", format!("{one}\r"), false], ["The same again: ", format!("{other}\r"), false]]);

    let made = typed(&home, twice("first horse", "first horse"), &[TIDELOG, "user", "create", "alice", "--password", "--socket", &socket]).await;
    let (text, code, echoes) = shown(&made);
    assert!(text.contains("has_password") && !text.contains("horse"), "{text}");
    assert_eq!((code, echoes), (Some(0), true));

    let login = json!([["Password of alice: ", "first horse\r", false]]);
    let (text, code, echoes) = shown(&typed(&home, login, &[TIDELOG, "login", "alice", "--url", &url(&broker)]).await);
    assert!(text.contains("kept_in") && !text.contains("horse") && !text.contains("tlc_"), "{text}");
    assert_eq!((code, echoes), (Some(0), true));
    home.good(&["whoami", "--url", &url(&broker)]).await;

    let set = [TIDELOG, "user", "set", "alice", "--password", "--socket", &socket];
    let (text, code, echoes) = shown(&typed(&home, twice("second horse", "second house"), &set).await);
    assert!(text.contains("not the same") && !text.contains("second"), "{text}");
    assert_eq!((code, echoes), (Some(1), true));
    home.good(&["whoami", "--url", &url(&broker)]).await;
    let (text, code, _) = shown(&typed(&home, twice("second horse", "second horse"), &set).await);
    assert_eq!((code, text.contains("second")), (Some(0), false), "{text}");
    assert_eq!(home.bad(&["whoami", "--url", &url(&broker)]).await.0, 4, "a new password ends the sessions");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_a_terminal_that_shows_again_what_is_typed() {
    let (broker, home) = (serve().await, Home::new());
    let login = json!([["Password of alice: ", "half a pass\u{3}", false]]);
    let (text, code, echoes) = shown(&typed(&home, login, &[TIDELOG, "login", "alice", "--url", &url(&broker)]).await);
    assert_eq!((code, echoes, text.contains("half")), (Some(130), true, false), "{text}");
}

/// The terminal of these tests does show what is typed, where nobody asks it not to.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_elsewhere_is_seen() {
    let home = Home::new();
    let (text, code, echoes) = shown(&typed(&home, json!([["Name: ", "visible\r", true]]), &["/bin/sh", "-c", "printf 'Name: '; read name"]).await);
    assert_eq!((code, echoes, text.contains("visible")), (Some(0), true, true), "{text}");
}
