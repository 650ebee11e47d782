//! Brokers with names: which one a command speaks to, that one sees which, and that a key goes to its own broker only.

use serde_json::json;

use crate::sessions_kept::{Home, alice, mode, stranger, url};
use crate::support::{Broker, serve};

/// Two brokers with names, `one` and `two`, and a session of alice's at each.
async fn two() -> (Broker, Broker, Home) {
    let (one, two, home) = (serve().await, serve().await, Home::new());
    for (name, broker) in [("one", &one), ("two", &two)] {
        alice(broker, &home, "create").await;
        home.log_in(&url(broker)).await;
        home.good(&["remote", "add", name, &url(broker)]).await;
    }
    (one, two, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_to_the_broker_that_was_named_and_says_which_that_is() {
    let (one, two, home) = two().await;
    let file = home.file("config/tidelog/remotes.json");
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let rows = home.lines(&["remote", "ls"]).await;
    let told: Vec<_> = rows.iter().map(|row| (row["name"].as_str().unwrap(), row["in_use"].as_bool().unwrap())).collect();
    assert_eq!(told, [("local", true), ("one", false), ("two", false)]);
    home.good(&["remote", "use", "TWO"]).await;
    assert_eq!(
        home.lines(&["remote", "show"]).await,
        [json!({"name": "two", "url": url(&two), "key_file": null, "ca_file": null, "cert_file": null, "cert_key_file": null, "in_use": true})]
    );
    assert!(home.good(&["remote", "ls"]).await.lines().any(|line| line.starts_with("two") && line.ends_with("yes")));

    let asked = async |env: &[(&str, &str)], arguments: &[&str]| {
        let output = home.run_with(env, &[&["whoami", "--json"][..], arguments].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let who: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (who["remote"].as_str().unwrap_or("none").to_owned(), who["broker"].as_str().unwrap().to_owned())
    };
    let (first, second) = (("one".to_owned(), url(&one)), ("two".to_owned(), url(&two)));
    let address = url(&one);
    let address = address.as_str();
    assert_eq!(asked(&[], &[]).await, second);
    assert_eq!(asked(&[], &["--remote", "one"]).await, first);
    assert_eq!(asked(&[("TIDELOG_REMOTE", "one")], &[]).await, first);
    assert_eq!(asked(&[("TIDELOG_REMOTE", "one")], &["--remote", "two"]).await, second);
    assert_eq!(asked(&[("TIDELOG_URL", address)], &["--remote", "two"]).await, second);
    assert_eq!(asked(&[("TIDELOG_URL", address), ("TIDELOG_REMOTE", "two")], &[]).await, ("none".into(), url(&one)));
    assert_eq!(asked(&[], &["--url", address, "--remote", "two"]).await, ("none".into(), url(&one)));

    assert_eq!(home.bad(&["remote", "rm", "two"]).await.0, 5, "it is in use");
    for arguments in [&["remote", "use", "three"][..], &["remote", "rm", "three"], &["remote", "show", "three"], &["stream", "ls", "--remote", "three"]] {
        let (code, said) = home.bad(arguments).await;
        assert!(code == 3 && said.contains("tidelog remote ls"), "{arguments:?}: {said}");
    }
    assert_eq!((home.bad(&["remote", "add", "one", &url(&two)]).await.0, home.bad(&["remote", "add", "a b", &url(&two)]).await.0), (5, 2));
    home.good(&["remote", "use", "local"]).await;
    home.good(&["remote", "rm", "two"]).await;
    assert_eq!(home.lines(&["remote", "ls"]).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_to_its_remote_and_a_session_to_its_address_and_to_no_other() {
    let (one, _two, home) = two().await;
    let key = home.lines(&["key", "create", "ci", "--remote", "one"]).await[0]["key"].as_str().unwrap().to_owned();
    let file = home.file("one.key");
    std::fs::write(&file, &key).unwrap();
    let file = file.to_str().unwrap();
    home.good(&["remote", "add", "program", &url(&one), "--key-file", file]).await;
    assert!(!std::fs::read_to_string(home.file("config/tidelog/remotes.json")).unwrap().contains(&key[..16]), "the file names the key's file only");
    assert_eq!(home.lines(&["whoami", "--remote", "program"]).await[0]["kind"], "user_key");
    assert_eq!(home.lines(&["whoami", "--remote", "one"]).await[0]["kind"], "console");
    assert_eq!(home.lines(&["whoami", "--remote", "two"]).await[0]["kind"], "console");
    // The key of the environment may be for another broker: the remote's own comes first.
    let output = home.run_with(&[("TIDELOG_KEY", "tlu_of_somebody_else")], &["whoami", "--json", "--remote", "program"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    home.good(&["remote", "use", "program"]).await;
    for named in [false, true] {
        let (address, heard) = stranger();
        if named {
            home.good(&["remote", "add", "stranger", &address]).await;
        }
        let there = if named { ["--remote", "stranger"] } else { ["--url", address.as_str()] };
        home.bad(&[&["whoami"][..], &there].concat()).await;
        let heard = heard.await.expect("it heard").to_ascii_lowercase();
        assert!(
            heard.starts_with("get /v1/sessions/current") && !heard.contains("authorization") && !heard.contains("tlc_") && !heard.contains("tlu_"),
            "{heard}"
        );
    }
    // `logout` ends the session, whatever key comes before it elsewhere.
    home.good(&["logout"]).await;
    assert_eq!(home.sessions().len(), 1);
    assert_eq!(home.bad(&["whoami", "--remote", "one"]).await.0, 4);
    assert_eq!(home.lines(&["whoami"]).await[0]["kind"], "user_key");
    let login = home.run(&["login", "alice", "--password-file", home.password().to_str().unwrap()]).await;
    assert!(login.status.success() && String::from_utf8_lossy(&login.stderr).contains("the key of remote program comes before this session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_of_remotes_sends_nobody_elsewhere() {
    let (one, _two, home) = two().await;
    home.good(&["remote", "use", "two"]).await;
    let file = home.file("config/tidelog/remotes.json");
    std::fs::write(&file, "{\"in_use\":\"two\",").unwrap();
    for arguments in [&["whoami"][..], &["remote", "ls"], &["whoami", "--remote", "one"]] {
        let (code, said) = home.bad(arguments).await;
        assert!(code == 2 && said.contains("remotes.json is broken") && said.contains("--url"), "{arguments:?}: {said}");
    }
    home.good(&["whoami", "--url", &url(&one)]).await;
    std::fs::write(&file, r#"{"in_use":"two","remotes":{"two":{"url":"gopher://x"},"one":{"url":"URL"}}}"#.replace("URL", &url(&one))).unwrap();
    home.good(&["whoami", "--remote", "one"]).await;
    let (code, said) = home.bad(&["whoami"]).await;
    assert!(code == 2 && said.contains("Remote two is broken"), "{said}");
}
