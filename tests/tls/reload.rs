//! Certificates that change while the broker runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rcgen::date_time_ymd;
use tidelog::client::{NewEvent, Protocol};
use tidelog::server::Mode;
use tidelog::types::request::Start;
use tokio::time::timeout;

use crate::world::{CLUSTER, PATIENCE, Pair, World, authority, config, connect, put, run, said, server_pair, signed, tidelog};

/// The certificate that a new connection is shown.
async fn shown(world: &World) -> Option<Vec<u8>> {
    let tls = connect(world.main(), config(&world.ca, None, &[])).await.ok()?;
    tls.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
}

fn der(pair: &Pair) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM").to_vec()
}

async fn until_shown(world: &World, pair: &Pair) {
    let wanted = der(pair);
    let found = async {
        while shown(world).await.as_ref() != Some(&wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("the new certificate is shown");
}

/// It is in use, and the one who reads says so; `reload_failed` of `GET /v1`.
async fn alarm(world: &World) -> serde_json::Value {
    let client = world.client(world.main(), Protocol::Json, Some(&world.user("alice")), None);
    let about: serde_json::Value = client.admin().call(http::Method::GET, "/v1", None).await.expect("an answer");
    about["environment"]["tls"]["reload_failed"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_new_connections_and_drops_no_old_one() {
    let world = World::open().await;
    world.stream("orders").await;
    let client = world.client(world.mutual(), Protocol::Binary, Some(&world.user("alice")), None);
    let producer = client.producer("orders", "p").open().await.expect("a producer");
    let mut reader = client.consumer("orders").subscription("s").create().from(Start::Earliest).open().await.expect("a reader");
    let epoch = reader.epoch();
    let next = server_pair(&world.ca);
    world.put("server", &next);
    until_shown(&world, &next).await;
    producer.send(NewEvent::text("after")).await.expect("it is taken").await.expect("it is stored");
    let event = timeout(PATIENCE, reader.next_event()).await.expect("in time").expect("an event").expect("no error");
    assert_eq!((event.text(), reader.epoch()), (Some("after"), epoch), "over the connection that was open before");
    assert_eq!(alarm(&world).await, serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_leave_the_old_ones_in_force_and_raise_an_alarm() {
    let world = World::open().await;
    let before = shown(&world).await.expect("a certificate");
    let next = server_pair(&world.ca);
    let expired = signed(&world.ca, "server", CLUSTER, |params| params.not_after = date_time_ymd(2025, 1, 1));
    let mut failures = 0.0;
    for (certificate, key, word) in [
        ("no certificate at all", &*next.key, "holds no certificate"),
        (&*next.certificate, "no key at all", "holds no private key"),
        (&*expired.certificate, &*expired.key, "has expired"),
        // Half of a change: the certificate is there, its key is not.
        (&*next.certificate, &*expired.key, "cannot be used together"),
    ] {
        put(world.dir.path(), "server.crt", certificate);
        put(world.dir.path(), "server.key", key);
        failures += 1.0;
        world.until_metric("tidelog_tls_reload_failures_total", |n| n >= failures).await;
        failures = world.metric("tidelog_tls_reload_failures_total").await;
        assert_eq!(world.metric("tidelog_tls_reload_failing").await, 1.0);
        let said = alarm(&world).await;
        assert!(said.as_str().is_some_and(|said| said.contains(word)), "{word}: {said}");
        assert_eq!(shown(&world).await, Some(before.clone()), "{word}");
    }
    // The other half comes, and all is well.
    put(world.dir.path(), "server.key", &next.key);
    until_shown(&world, &next).await;
    world.until_metric("tidelog_tls_reload_failing", |n| n == 0.0).await;
    assert_eq!(alarm(&world).await, serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_replaced_with_both_in_force_for_a_while() {
    let world = World::open().await;
    let next = authority(CLUSTER);
    let theirs = signed(&next, "user-alice", CLUSTER, |_| {});
    let status = async |pair: &Pair| world.ask(world.mutual(), Some(pair), "/v1/streams", &[]).await.ok().map(|answer| answer.status);
    assert_eq!((status(&world.user("alice")).await, status(&theirs).await), (Some(200), None));
    let until = async |wanted: (Option<u16>, Option<u16>)| {
        let found = async {
            while (status(&world.user("alice")).await, status(&theirs).await) != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, found).await.expect("the authorities are read again");
    };
    put(world.dir.path(), "ca.crt", &(world.ca.pem() + &next.pem()));
    until((Some(200), Some(200))).await;
    put(world.dir.path(), "ca.crt", &next.pem());
    until((None, Some(200))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_good_at_the_start_is_a_sentence_and_exit_code_2() {
    let world = World::with(Mode::Serve { trust_loopback: false }, |_| {}).await;
    let path = |name: &str| world.dir.path().join(name).display().to_string();
    let data = path("data");
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca.crt"));
    for (arguments, word) in [
        (vec!["--tls-cert", &cert], "--tls-key"),
        (vec!["--tls-key", &key], "--tls-cert"),
        (vec!["--client-ca", &ca], "--tls-cert"),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--mtls-listen", "127.0.0.1:0"], "--client-ca"),
        (vec!["--tls-cert", &key, "--tls-key", &key], "holds no certificate"),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &cert], "no certificate of an authority"),
        (vec!["--tls-cert", "/nowhere", "--tls-key", &key], "/nowhere"),
    ] {
        let mut command = tidelog();
        command.args(["serve", "--data", &data, "--listen", "127.0.0.1:0"]).args(&arguments);
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(word) && output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    }
    assert!(!std::path::Path::new(&data).exists(), "nothing was opened");
}

/// The real binary, which ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hangup_reads_the_certificates_again_and_ends_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let ca = |arguments: &[&str]| {
        let output = tidelog().arg("ca").args(arguments).args(["--dir", &path("ca")]).output().expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
    };
    ca(&["init"]);
    let mut command = tidelog();
    command.args(["serve", "--data", &path("data"), "--listen", "127.0.0.1:0"]);
    command.args(["--tls-cert", &path("ca/server.crt"), "--tls-key", &path("ca/server.key")]).env("TIDELOG_STORAGE__FREE_MIN_BYTES", "0");
    let log = std::fs::File::create(path("log")).expect("a file");
    let mut broker = Process(command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(broker.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("ready https://127.0.0.1:"), "{line}: {}", std::fs::read_to_string(path("log")).unwrap_or_default());
    let log = || std::fs::read_to_string(path("log")).unwrap_or_default();
    let read_again = || log().matches("the certificates were read again").count();
    let hang_up = || {
        let pid = rustix::process::Pid::from_child(&broker.0);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it is told");
    };
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !done() {
            assert!(since.elapsed() < PATIENCE, "{what}: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Unchanged files are read again, too: whoever asks is answered.
    hang_up();
    until("the first", &|| read_again() == 1);
    ca(&["create-server-certificate", "--replace"]);
    hang_up();
    until("the second", &|| read_again() >= 2);
    std::fs::remove_file(path("ca/server.key")).expect("it was there");
    hang_up();
    until("the alarm", &|| log().contains("the old ones stay in force") && log().contains("server.key cannot be read"));
    let url = line.trim().trim_start_matches("ready ").to_owned();
    let curl = std::process::Command::new("curl").args(["-sS", "--noproxy", "*", "--cacert", &path("ca/ca.crt"), &format!("{url}/livez")]).output();
    assert_eq!(said(&curl.expect("curl runs")), "ok\n");
}
