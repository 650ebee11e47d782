//! `tidelog ca`, and commands over `https`: the real binary, and what openssl and curl think of what it makes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidelog::server::Mode;
use tidelog::server::config::{Tls, TlsClients};

use crate::world::{PASSWORD, World, put, run, said, tidelog};

/// Somebody's machine, with an authority that `tidelog ca` has made.
struct Home(tempfile::TempDir);

impl Home {
    async fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a temporary folder"));
        home.good(&["ca", "init", "--dir", "ca", "--cluster", "c1", "--host", "broker.example,10.0.0.7"]).await;
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tidelog();
        command.args(arguments).current_dir(self.0.path()).env("HOME", self.0.path());
        run(command).await
    }

    async fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    async fn openssl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.path("ca"));
        let output = run(command).await;
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    /// A broker with these certificates.
    async fn broker(&self) -> World {
        let ca = |name: &str| self.path("ca").join(name);
        let clients = Some(TlsClients { ca: ca("ca.crt"), listen: Some("127.0.0.1:0".into()) });
        let tls = Tls { cert: ca("server.crt"), key: ca("server.key"), clients };
        World::with(Mode::Serve { trust_loopback: false }, |config| config.tls = Some(tls)).await
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_accepts_what_the_authority_signs_for_what_it_is_for() {
    let home = Home::new().await;
    home.good(&["ca", "create-api-certificate", "alice", "--dir", "ca"]).await;
    home.good(&["ca", "create-node-certificate", "6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11", "--dir", "ca"]).await;
    let node = "node-6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11.crt";
    for (purpose, file) in [("sslserver", "server.crt"), ("sslclient", "user-alice.crt"), ("sslclient", node)] {
        let said = home.openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.crt", file]).await;
        assert_eq!(said, format!("{file}: OK\n"));
    }
    let subject = home.openssl(&["x509", "-noout", "-subject", "-in", "user-alice.crt"]).await;
    assert!(subject.contains("OU = c1") && subject.contains("CN = user-alice"), "{subject}");
    let names = home.openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in", "server.crt"]).await;
    for name in ["DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1", "DNS:broker.example", "IP Address:10.0.0.7"] {
        assert!(names.contains(name), "{name} in {names}");
    }
    for key in ["ca.key", "server.key", "user-alice.key"] {
        assert_eq!(mode(&home.path("ca").join(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&home.path("ca")), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overwritten_unless_one_says_so() {
    let home = Home::new().await;
    let all = || {
        let mut files: Vec<_> = std::fs::read_dir(home.path("ca")).expect("a folder").map(|file| file.expect("a file").path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect::<Vec<_>>()
    };
    home.good(&["ca", "create-api-certificate", "alice", "--dir", "ca"]).await;
    let before = all();
    for arguments in
        [&["ca", "init", "--dir", "ca"][..], &["ca", "create-api-certificate", "alice", "--dir", "ca"], &["ca", "create-server-certificate", "--dir", "ca"]]
    {
        let output = home.run(arguments).await;
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains("is there already and was left alone"), "{}", said(&output));
    }
    assert_eq!(all(), before);
    let printed = home.good(&["ca", "create-api-certificate", "alice", "--dir", "ca", "--replace", "--json"]).await;
    assert!(printed.contains(r#""cluster":"c1""#) && printed.contains("user-alice.key"), "{printed}");
    let after = all();
    assert_eq!(after.len(), before.len(), "no other file is left behind");
    assert_eq!(after.iter().zip(&before).filter(|(a, b)| a != b).count(), 2, "the pair is another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_make_no_sense_and_authorities_that_are_not_there_are_sentences() {
    let home = Home::new().await;
    for (arguments, code, word) in [
        (&["ca", "create-api-certificate", "a/b", "--dir", "ca"][..], 2, "user name"),
        (&["ca", "create-node-certificate", "7", "--dir", "ca"], 2, "7"),
        (&["ca", "init", "--dir", "new", "--cluster", "a b"], 2, "cluster id"),
        (&["ca", "init", "--dir", "new", "--host", "https://broker"], 2, "--host"),
        (&["ca", "create-api-certificate", "alice", "--dir", "elsewhere"], 3, "tidelog ca init"),
    ] {
        let output = home.run(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments:?}: {}", said(&output));
    }
    assert!(!home.path("new").exists() && !home.path("elsewhere").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_known_by_their_certificate_and_send_no_session_beside_it() {
    let home = Home::new().await;
    home.good(&["ca", "create-api-certificate", "alice", "--dir", "ca"]).await;
    let world = home.broker().await;
    let (main, mutual) = (format!("https://localhost:{}", world.main()), format!("https://127.0.0.1:{}", world.mutual()));
    let certified = ["--ca-file", "ca/ca.crt", "--cert-file", "ca/user-alice.crt", "--cert-key-file", "ca/user-alice.key"];
    let at =
        |arguments: &[&str], url: &str, more: &[&str]| [arguments, &["--url", url], more].concat().iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let good = async |arguments: Vec<String>| home.good(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(good(at(&["whoami", "--json"], &mutual, &certified)).await.contains(r#""name":"alice""#));
    good(at(&["stream", "create", "orders"], &mutual, &certified)).await;
    good(at(&["pub", "orders", "hello"], &mutual, &certified)).await;
    assert_eq!(good(at(&["sub", "orders", "--from", "earliest", "-n", "1"], &mutual, &certified)).await, "hello\n");

    // bob logs in; the session is kept for this address, and alice's certificate is not beaten by it.
    put(home.0.path(), "pw", PASSWORD);
    let trusting = ["--ca-file", "ca/ca.crt"];
    good(at(&["login", "bob", "--password-file", "pw"], &main, &trusting)).await;
    assert!(good(at(&["whoami", "--json"], &main, &trusting)).await.contains(r#""name":"bob""#));
    assert!(good(at(&["whoami", "--json"], &main, &certified)).await.contains(r#""name":"alice""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_known_and_one_that_wants_a_certificate_are_unreachable_with_advice() {
    let home = Home::new().await;
    let world = home.broker().await;
    let stranger = World::open().await;
    for (url, ca) in
        [(format!("https://localhost:{}", world.mutual()), "ca/ca.crt".to_owned()), (format!("https://localhost:{}", stranger.main()), "ca/ca.crt".to_owned())]
    {
        for arguments in [&["stream", "ls"][..], &["sub", "orders", "-n", "1"]] {
            let output = home.run(&[arguments, &["--url", &url, "--ca-file", &ca]].concat()).await;
            assert_eq!(output.status.code(), Some(6), "{url} {arguments:?}: {}", said(&output));
            assert!(said(&output).contains("--ca-file"), "{url} {arguments:?}: {}", said(&output));
        }
    }
    let output = home.run(&["stream", "ls", "--url", "http://localhost:1", "--ca-file", "ca/ca.crt"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_known_by_what_the_authority_signs() {
    let home = Home::new().await;
    home.good(&["ca", "create-api-certificate", "alice", "--dir", "ca"]).await;
    let world = home.broker().await;
    let mut curl = Command::new("curl");
    curl.current_dir(home.path("ca")).args(["-sS", "--noproxy", "*", "--cacert", "ca.crt", "--cert", "user-alice.crt", "--key", "user-alice.key"]);
    curl.arg(format!("https://localhost:{}/v1/sessions/current", world.mutual()));
    let output = said(&run(curl).await);
    assert!(output.contains(r#""name":"alice""#), "{output}");
}
