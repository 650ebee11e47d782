//! The `EventSource` of a real Chromium, on a page of another origin: it hears, acknowledges with `fetch`, survives a restart of the
//! broker and stays away after a fence.

use std::collections::VecDeque;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidelog::server::{Config, Mode, Server, Storage};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::Broker;

/// Where Debian puts it.
const CHROMIUM: &str = "/usr/bin/chromium";
/// A browser on a busy machine takes its time to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser on one page, with a profile of its own. Both go with it.
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        assert!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is not there. `make test` installs it; by hand: apt-get install chromium.");
        let profile = tempfile::tempdir().expect("a temporary directory");
        let child = Command::new(CHROMIUM)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // so that its helpers end with it
            .spawn()
            .unwrap_or_else(|e| panic!("{CHROMIUM} does not start: {e}"));
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// What the page tells, one list for each of its readers.
struct Page {
    told: UnboundedReceiver<Value>,
    waiting: [(&'static str, VecDeque<Value>); 2],
}

impl Page {
    /// Serves the page; its origin.
    async fn serve() -> (Self, String) {
        async fn heard(State(told): State<UnboundedSender<Value>>, body: String) {
            let _ = told.send(serde_json::from_str(&body).expect("JSON"));
        }
        let (sender, told) = unbounded_channel();
        let router = Router::new().route("/", get(|| async { Html(include_str!("browser.html")) })).route("/heard", post(heard)).with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum_server(listener, router).await });
        (Self { told, waiting: [("passing", VecDeque::new()), ("lasting", VecDeque::new())] }, origin)
    }

    /// The next thing a reader hears.
    async fn next(&mut self, who: &str) -> Value {
        loop {
            let (_, waiting) = self.waiting.iter_mut().find(|(name, _)| *name == who).expect("a reader");
            if let Some(told) = waiting.pop_front() {
                return told;
            }
            let told = tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap_or_else(|_| panic!("{who} hears nothing")).expect("the page is served");
            let (_, waiting) = self.waiting.iter_mut().find(|(name, _)| told["who"] == *name).expect("a reader");
            waiting.push_back(told);
        }
    }

    /// The next thing of this kind; broken connections in between are what `EventSource` is for.
    async fn hears(&mut self, who: &str, on: &str) -> Value {
        loop {
            let told = self.next(who).await;
            if told["on"] == on {
                return told;
            }
            assert!(["error", "open"].iter().any(|word| told["on"] == *word), "{told} instead of {on}");
        }
    }
}

/// As small a server as can be: `axum::serve` is in a feature that nothing else needs.
async fn axum_server(listener: TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service));
    }
}

async fn broker(dir: TempDir, listen: &str, origin: &str) -> Broker {
    let mut config = Config::for_tests(Mode::Dev, dir.path());
    config.storage = Storage::Rocks;
    config.listen = listen.to_owned();
    config.raw.http.origins = vec![origin.to_owned()];
    config.raw.storage.write_buffer_bytes = 16 << 20;
    config.raw.storage.ballast_bytes = Some(0);
    config.raw.storage.free_min_bytes = Some(0);
    Broker { server: Server::start(config).await.expect("the broker starts"), dir }
}

/// Appends an event of text; what a page must hear of it.
async fn append(broker: &Broker, text: &str) -> Value {
    let body = json!({"events": [{"type": text, "key": text, "headers": {text: text}, "data": text, "encoding": "utf8"}]}).to_string();
    let metadata = broker.post("/v1/streams/s/events", &body).await.metadata();
    broker.get(&format!("/v1/streams/s/events/{}", metadata["first_offset"])).await.metadata()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_hears_acknowledges_survives_a_restart_and_stays_away_after_a_fence() {
    let (mut page, origin) = Page::serve().await;
    let at = broker(tempfile::tempdir().unwrap(), "127.0.0.1:0", &origin).await;
    let nasty = ["lost", "\n\ndata: x\r\nid: 9\revent: end\n\n", "\0\u{2028}\u{2029}\u{feff}\u{85}", "\"\\ \u{b}é🦀"];
    let mut sent = Vec::new();
    for text in nasty {
        sent.push(append(&at, text).await);
    }
    assert_eq!(at.post("/v1/streams/s/subscriptions", r#"{"name":"billing"}"#).await.status, 201);
    assert_eq!(at.post("/v1/streams/s/trim", r#"{"before_offset":1}"#).await.status, 200);
    let _browser = Browser::open(&format!("{origin}/?broker={}", at.server.url()));

    // What is there.
    for who in ["passing", "lasting"] {
        if who == "lasting" {
            let open = page.hears(who, "subscribed").await;
            assert_eq!((&open["data"]["epoch"], &open["data"]["next"]), (&json!(1), &json!(0)));
        }
        let gap = page.hears(who, "gap").await;
        assert_eq!((&gap["data"], &gap["id"]), (&json!({"from": 0, "to": 0, "reason": "retention"}), &json!("0")));
    }
    for (offset, event) in sent.iter().enumerate().skip(1) {
        let heard = page.hears("passing", "event").await;
        assert_eq!((&heard["data"], &heard["id"]), (event, &json!(offset.to_string())), "it comes as it is, whatever is in it");
    }
    assert_eq!(page.hears("passing", "live").await["data"], json!({"next_offset": 4}));
    assert_acked(&mut page, 1..4).await;

    // The broker goes down in order, comes back, and nothing is lost or heard twice.
    let address = at.server.address().to_string();
    let Broker { server, dir } = at;
    server.stop().await.expect("a clean stop");
    for who in ["passing", "lasting"] {
        assert_eq!(page.hears(who, "end").await["data"]["code"], "unavailable");
    }
    let at = broker(dir, &address, &origin).await;
    for offset in 4..6 {
        let event = append(&at, &format!("after the restart, {offset}")).await;
        // Whether it is live in between depends on when it came back.
        let mut heard = page.next("passing").await;
        while heard["on"] != "event" {
            assert!(["live", "open", "error"].iter().any(|word| heard["on"] == *word), "{heard}");
            heard = page.next("passing").await;
        }
        assert_eq!((&heard["data"], &heard["id"]), (&event, &json!(offset.to_string())));
    }
    let open = page.hears("lasting", "subscribed").await;
    assert_eq!((&open["data"]["epoch"], &open["data"]["next"]), (&json!(2), &json!(4)), "its acks are on disk");
    assert_acked(&mut page, 4..6).await;

    // Somebody else takes over. The page hears of it and does not come back, though EventSource would.
    let mut other = at.events("/v1/streams/s/subscriptions/billing/events").await;
    assert_eq!(other.named("subscribed").await["epoch"], 3);
    let end = page.hears("lasting", "end").await;
    assert_eq!((&end["data"]["code"], &end["id"]), (&json!("session_fenced"), &json!("fenced")));
    let later = page.hears("lasting", "later").await;
    assert_eq!((&later["opened"], &later["state"]), (&json!(2), &json!(0)), "it waits for a day");
    append(&at, "for the other").await;
    loop {
        let heard = other.next().await;
        if heard.kind == "message" && heard.offset() == 6 {
            break;
        }
    }
    assert_eq!(at.get("/v1/streams/s/subscriptions/billing").await.metadata()["epoch"], 3, "nobody stole it back");
    let mut heard = page.next("passing").await;
    while heard["on"] == "live" {
        heard = page.next("passing").await;
    }
    assert_eq!((&heard["on"], &heard["id"]), (&json!("event"), &json!("6")), "the other reader of the page never noticed");
}

/// The page acknowledges these offsets, in whatever order its answers come; "live" is said in between.
async fn assert_acked(page: &mut Page, offsets: std::ops::Range<u64>) {
    let mut open: Vec<u64> = offsets.collect();
    while !open.is_empty() {
        let told = page.next("lasting").await;
        if told["on"] == "acked" {
            assert_eq!(told["status"], 200, "{told}");
            assert!(told["id"].is_string(), "a page may read the request id: {told}");
            open.retain(|offset| told["offset"] != *offset);
        } else {
            assert!(["live", "open"].iter().any(|word| told["on"] == *word), "{told}");
        }
    }
}
