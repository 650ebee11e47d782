//! What comes before the first request: versions, protocols, strangers' tools, and those who want to hurt.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Instant;

use tidelog::server::Mode;
use tidelog::types::limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{PATIENCE, World, config, connect, exchange, run, said};

async fn tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("the port is open")
}

/// All that the broker says before it closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it closes");
    all
}

/// The record of an alert that ends everything.
fn is_fatal_alert(bytes: &[u8]) -> bool {
    bytes.len() == 7 && bytes[0] == 21 && bytes[5] == 2
}

/// Begins as every ClientHello does; the rest never comes.
const BEGINNING: [u8; 9] = [22, 3, 1, 0, 200, 1, 0, 0, 196];

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_openssl_agree_with_the_broker_on_the_newest_versions() {
    let world = World::open().await;
    let ca = world.dir.path().join("ca.crt");
    for (flags, version) in [(&["-tls1_3"][..], "TLSv1.3"), (&["-tls1_2"], "TLSv1.2"), (&[], "TLSv1.3")] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &format!("localhost:{}", world.main()), "-verify_return_error", "-verify_hostname", "localhost"]);
        openssl.args(["-alpn", "h2,http/1.1"]).arg("-CAfile").arg(&ca).args(flags);
        let said = said(&run(openssl).await);
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains(&format!("New, {version}")), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
    }
    for flags in [["--http1.1"], ["--http2"]] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "-w", " %{http_version} %{http_code}"]).args(flags).arg("--cacert").arg(&ca);
        let said = said(
            &run({
                curl.arg(format!("https://localhost:{}/livez", world.main()));
                curl
            })
            .await,
        );
        assert_eq!(said, if flags == ["--http2"] { "ok\n 2 200" } else { "ok\n 1.1 200" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_before_1_2_are_refused() {
    let world = World::open().await;
    for (version, spoken) in [("-tls1", false), ("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &format!("127.0.0.1:{}", world.main()), version, "-cipher", "ALL:@SECLEVEL=0"]);
        let output = run(openssl).await;
        assert_eq!(output.status.success(), spoken, "{version}: {}", said(&output));
        assert_eq!(said(&output).contains("SSL alert number"), !spoken, "{version}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_client_that_speaks_plain_http_is_told_so_and_closed() {
    let world = World::open().await;
    for (port, words) in [(world.main(), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), (world.mutual(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")] {
        let mut stream = tcp(port).await;
        stream.write_all(words.as_bytes()).await.expect("it takes it");
        let said = String::from_utf8(rest(&mut stream).await).expect("text");
        assert!(said.starts_with("HTTP/1.0 400 ") && said.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{said}");
    }
    assert_eq!(world.metric("tidelog_tls_handshakes_failed_total").await, 2.0);
}

#[tokio::test]
async fn a_silent_client_is_cut_at_the_handshake_deadline() {
    let world = World::open().await;
    let cut = async |first: &[u8]| {
        let mut stream = tcp(world.main()).await;
        stream.write_all(first).await.expect("it takes it");
        let since = Instant::now();
        assert_eq!(rest(&mut stream).await, b"", "{first:?}");
        since.elapsed()
    };
    let (silent, half) = tokio::join!(cut(b""), cut(&BEGINNING));
    for took in [silent, half] {
        assert!(took + std::time::Duration::from_millis(50) > limits::TLS_HANDSHAKE, "after {took:?}");
        assert!(took < limits::TLS_HANDSHAKE * 2, "after {took:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_byte_now_and_then_is_cut_at_the_same_time() {
    let world = World::open().await;
    let (mut from, mut to) = tcp(world.main()).await.into_split();
    let since = Instant::now();
    let drip = tokio::spawn(async move {
        for byte in BEGINNING.iter().chain(std::iter::repeat(&0)) {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, from.read_to_end(&mut all)).await.expect("it closes");
    assert!(since.elapsed() < limits::TLS_HANDSHAKE * 2, "after {:?}", since.elapsed());
    drip.abort();
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_in_an_alert_and_hurt_nobody() {
    let world = World::open().await;
    let record =
        |kind: u8, version: [u8; 2], length: u16, byte: u8| [&[kind, version[0], version[1]][..], &length.to_be_bytes(), &vec![byte; length.into()]].concat();
    for (bytes, what) in [
        (vec![0; 64], "zeros"),
        (vec![255; 64], "ones"),
        (record(22, [3, 1], 0, 0), "an empty record"),
        (record(22, [3, 1], 16_384 + 300, 1), "a record over the size of records"),
        (record(22, [3, 1], 65_535, 1), "the largest number for a record"),
        (record(23, [3, 3], 20, 0), "data before the handshake"),
        (record(20, [3, 3], 1, 1), "a change of ciphers before the handshake"),
        (record(22, [9, 9], 20, 1), "a version there is not"),
        ([&[22, 3, 1, 0, 4][..], &[1, 255, 255, 255]].concat(), "a ClientHello of 16 MiB"),
        ([&[22, 3, 1, 0, 4][..], &[2, 0, 0, 0]].concat(), "a ServerHello"),
        (b"\x80\x2e\x01\x00\x02".to_vec(), "SSL 2"),
    ] {
        let mut stream = tcp(world.main()).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let said = rest(&mut stream).await;
        assert!(said.is_empty() || is_fatal_alert(&said), "{what}: {said:?}");
    }
    assert_eq!(world.ask(world.main(), None, "/livez", &[]).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn nobody_agrees_on_a_protocol_that_is_not_spoken_here() {
    let world = World::open().await;
    for (offered, agreed) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let tls = connect(world.main(), config(&world.ca, None, offered)).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol().map(|name| std::str::from_utf8(name).expect("text")), agreed);
    }
    let error = connect(world.main(), config(&world.ca, None, &["smtp"])).await.expect_err("no handshake");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn handshakes_count_among_the_silent_connections_of_their_address() {
    let world = World::with(Mode::Serve { trust_loopback: false }, |config| config.raw.limits.connections_per_address_silent = 3).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(tcp(world.main()).await);
    }
    let mut fourth = tcp(world.main()).await;
    assert_eq!(rest(&mut fourth).await, b"", "it is closed at once");
    silent.pop();
    let since = Instant::now();
    // The place of the one that left is free as soon as the broker has seen it.
    while world.ask(world.main(), None, "/livez", &[]).await.is_err() {
        assert!(since.elapsed() < limits::TLS_HANDSHAKE, "a place gets free when somebody leaves");
    }
}

#[tokio::test]
async fn callers_with_a_certificate_are_not_counted_by_address() {
    let world = World::with(Mode::Serve { trust_loopback: false }, |config| config.raw.limits.connections_per_address = 3).await;
    let alice = world.user("alice");
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut tls = world.connect(world.mutual(), Some(&alice)).await.expect("a handshake");
        tls.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it takes it");
        let mut piece = [0; 512];
        assert!(timeout(PATIENCE, tls.read(&mut piece)).await.expect("in time").expect("an answer") > 0);
        open.push(tls);
    }
}

#[tokio::test]
async fn a_broker_that_stops_says_goodbye_inside_tls() {
    let world = World::open().await;
    let mut tls = world.connect(world.main(), None).await.expect("a handshake");
    tls.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it takes it");
    let mut piece = [0; 1024];
    assert!(timeout(PATIENCE, tls.read(&mut piece)).await.expect("in time").expect("an answer") > 0);
    world.server.stop().await.expect("a clean stop");
    // Without close_notify it would be an error: bytes could have been cut off.
    assert_eq!(timeout(PATIENCE, tls.read(&mut piece)).await.expect("in time").map_err(|error| error.kind()), Ok::<_, ErrorKind>(0));
}

#[tokio::test]
async fn a_session_of_tls_is_not_taken_up_again_where_certificates_are_shown() {
    let world = World::open().await;
    let alice = world.user("alice");
    let config = config(&world.ca, Some(&alice), &[]);
    for _ in 0..2 {
        let tls = connect(world.mutual(), config.clone()).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(exchange(tls, "GET", "/v1/streams", &[]).await.expect("an answer").status, 200);
    }
}
