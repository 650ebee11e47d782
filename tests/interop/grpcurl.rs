//! grpcurl, which knows nothing of us but what reflection tells it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::{PATIENCE, tools};

impl Broker {
    fn grpcurl(&self, arguments: &[&str]) -> Command {
        let mut command = tools::tool("grpcurl");
        command.arg("-plaintext").args(arguments);
        command
    }

    /// `list` or `describe`.
    #[track_caller]
    fn asks(&self, arguments: &[&str]) -> String {
        tools::succeeds(self.grpcurl(&[]).arg(&self.address).args(arguments))
    }

    /// A call that ends well with one answer.
    #[track_caller]
    fn call(&self, method: &str, request: &Value) -> Value {
        let printed = tools::succeeds(self.grpcurl(&["-emit-defaults", "-d", &request.to_string()]).args([&self.address, method]));
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{method}: {e}: {printed}"))
    }

    /// A stream whose frames are told as they come.
    fn open(&self, method: &str, first: Option<&Value>) -> Stream {
        let request = first.map_or("@".to_owned(), Value::to_string);
        let mut command = self.grpcurl(&["-d", &request]);
        command.args([&self.address, method]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("grpcurl starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
        let (sender, frames) = channel();
        std::thread::spawn(move || {
            // Each answer is a JSON object over several lines; the last line is a brace of its own.
            let mut text = String::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                text += &line;
                if line == "}" || line == "{}" {
                    let frame = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                    text.clear();
                    if sender.send(frame).is_err() {
                        return;
                    }
                }
            }
        });
        Stream { child, stdin, frames }
    }
}

/// A call that goes on; it ends with the test.
struct Stream {
    child: Child,
    stdin: Option<ChildStdin>,
    frames: Receiver<Value>,
}

impl Stream {
    fn says(&mut self, frame: &Value) {
        writeln!(self.stdin.as_mut().expect("not closed"), "{frame}").expect("grpcurl reads");
    }

    /// The next frame, which is of this kind.
    #[track_caller]
    fn hears(&self, kind: &str) -> Value {
        let frame = self.frames.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no `{kind}`: {e}"));
        frame.get(kind).cloned().unwrap_or_else(|| panic!("not `{kind}` but {frame}"))
    }

    /// Closes its side, and waits for a good end.
    #[track_caller]
    fn finishes(mut self) {
        self.stdin = None;
        let since = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be asked") {
                Some(status) => break status,
                None => assert!(since.elapsed() < PATIENCE, "the stream does not end"),
            }
            std::thread::yield_now();
        };
        assert!(status.success(), "grpcurl ended with {status}");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `{"n":1}` and the like, as an event.
fn event(data: &str) -> Value {
    use base64::Engine as _;
    json!({"data": base64::engine::general_purpose::STANDARD.encode(data)})
}

fn append(data: &str) -> Value {
    json!({"stream": "orders", "events": {"events": [event(data)]}})
}

#[test]
fn reflection_tells_every_service_and_nothing_of_what_is_stored() {
    let broker = Broker::start();
    let listed = broker.asks(&["list"]);
    for service in ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "tidelog.v1.Access", "tidelog.v1.Admin", "tidelog.v1.Broker"] {
        assert!(listed.lines().any(|line| line == service), "{service} is missing:\n{listed}");
    }
    let methods = broker.asks(&["list", "tidelog.v1.Broker"]);
    for method in ["Ack", "Append", "Commit", "Connect", "OpenProducer", "Pull", "Read", "Subscribe"] {
        assert!(methods.lines().any(|line| line == format!("tidelog.v1.Broker.{method}")), "{method} is missing:\n{methods}");
    }
    let described = broker.asks(&["describe", "tidelog.v1.Broker.Append"]);
    assert!(described.contains("rpc Append ( .tidelog.v1.Append ) returns ( .tidelog.v1.Appended );"), "{described}");
    assert!(broker.asks(&["describe", "tidelog.v1.EventBatch"]).contains("uint64 base_offset = 1;"));
    let stored = tools::fails(broker.grpcurl(&[]).args([&broker.address, "describe", "tidelog.store.v1.CursorRow"]));
    assert!(stored.contains("not found"), "{stored}");
}

#[test]
fn what_is_appended_is_pushed_and_an_ack_moves_the_cursor() {
    let broker = Broker::start();
    let appended = broker.call("tidelog.v1.Broker/Append", &append(r#"{"total":12}"#));
    assert_eq!((&appended["firstOffset"], &appended["count"], &appended["durability"]), (&json!("0"), &json!(1), &json!("fsync")), "{appended}");
    let reader = json!({"stream": "orders", "subscription": "billing", "create": true});
    let stream = broker.open("tidelog.v1.Broker/Subscribe", Some(&reader));
    assert_eq!(stream.hears("subscribed")["epoch"], "1");
    let batch = stream.hears("events")["batches"][0].clone();
    assert_eq!(batch["events"], json!([event(r#"{"total":12}"#)]), "{batch}");
    stream.hears("live");
    broker.call("tidelog.v1.Broker/Append", &append("2"));
    assert_eq!(stream.hears("events")["batches"][0]["baseOffset"], "1");
    let acked = broker.call("tidelog.v1.Broker/Ack", &json!({"stream": "orders", "subscription": "billing", "epoch": 1, "offset": 0}));
    assert_eq!((&acked["offset"], &acked["next"]), (&json!("0"), &json!("1")), "{acked}");
    drop(stream);
    let again = broker.open("tidelog.v1.Broker/Subscribe", Some(&reader));
    let subscribed = again.hears("subscribed");
    assert_eq!((&subscribed["epoch"], &subscribed["next"]), (&json!("2"), &json!("1")), "{subscribed}");
}

#[test]
fn several_frames_on_one_connect_stream_are_answered_in_order() {
    let broker = Broker::start();
    let mut stream = broker.open("tidelog.v1.Broker/Connect", None);
    assert!(stream.hears("hello")["limits"].is_array());
    for req in 1..=3 {
        let mut request = append(&req.to_string());
        request["req"] = json!(req);
        stream.says(&json!({"append": request}));
    }
    for req in 1..=3 {
        assert_eq!(stream.hears("appended")["req"], req.to_string());
    }
    stream.says(&json!({"subscribe": {"sub": 7, "stream": "orders", "from": {"place": "PLACE_EARLIEST"}}}));
    assert_eq!(stream.hears("subscribed")["sub"], "7");
    assert_eq!(stream.hears("events")["batches"][0].get("baseOffset"), None, "the first offset is 0");
    stream.hears("live");
    stream.says(&json!({"unsubscribe": {"sub": 7}}));
    stream.hears("unsubscribed");
    stream.says(&json!({"ack": {"sub": 9, "offset": 1}}));
    assert_eq!(stream.hears("error")["sub"], "9");
    stream.says(&json!({"ping": {}}));
    stream.hears("pong");
    stream.finishes();
}

#[test]
fn streams_subscriptions_producers_and_operations_are_administered() {
    let broker = Broker::start();
    let created = broker.call("tidelog.v1.Admin/CreateStream", &json!({"name": "orders", "description": "What was ordered"}));
    assert_eq!((&created["status"], &created["nextOffset"]), (&json!("Ready"), &json!("0")), "{created}");
    for n in 0..4 {
        broker.call("tidelog.v1.Broker/Append", &append(&n.to_string()));
    }
    let subscription = broker.call("tidelog.v1.Admin/CreateSubscription", &json!({"stream": "orders", "name": "billing"}));
    assert_eq!((&subscription["next"], &subscription["lag"]["events"]), (&json!("0"), &json!("4")), "{subscription}");
    let moved = broker.call("tidelog.v1.Admin/SeekSubscription", &json!({"stream": "orders", "name": "billing", "to": {"offset": 3}}));
    assert_eq!((&moved["next"], &moved["epoch"]), (&json!("3"), &json!("1")), "{moved}");
    let listed = broker.call("tidelog.v1.Admin/ListSubscriptions", &json!({"stream": "orders"}));
    assert_eq!(listed["subscriptions"].as_array().map(Vec::len), Some(1), "{listed}");
    broker.call("tidelog.v1.Broker/OpenProducer", &json!({"stream": "orders", "producer": "p1"}));
    assert_eq!(broker.call("tidelog.v1.Admin/GetProducer", &json!({"stream": "orders", "id": "p1"}))["epoch"], "1");
    broker.call("tidelog.v1.Admin/DeleteProducer", &json!({"stream": "orders", "id": "p1"}));
    let trimmed = broker.call("tidelog.v1.Admin/TrimStream", &json!({"name": "orders", "beforeOffset": 2}));
    assert_eq!((&trimmed["firstOffset"], &trimmed["nextOffset"]), (&json!("2"), &json!("4")), "{trimmed}");
    assert_eq!(broker.call("tidelog.v1.Admin/CloseStream", &json!({"name": "orders"}))["closed"], true);
    broker.call("tidelog.v1.Admin/DeleteSubscription", &json!({"stream": "orders", "name": "billing"}));
    let operation = broker.call("tidelog.v1.Admin/DeleteStream", &json!({"name": "orders"}));
    let ended = broker.call("tidelog.v1.Admin/WaitOperation", &json!({"id": operation["id"], "timeoutS": 30}));
    assert_eq!(ended["status"], "Success", "{ended}");
    assert_eq!(broker.call("tidelog.v1.Admin/ListStreams", &json!({}))["streams"], json!([]));
}

#[test]
fn an_error_shows_its_code_its_rule_and_what_to_do() {
    let broker = Broker::start();
    broker.call("tidelog.v1.Broker/OpenProducer", &json!({"stream": "orders", "producer": "p1"}));
    let mut request = append("1");
    request["producer"] = json!({"id": "p1", "epoch": 1, "seq": 5});
    let printed = tools::fails(broker.grpcurl(&["-d", &request.to_string()]).args([&broker.address, "tidelog.v1.Broker/Append"]));
    for part in
        ["Code: FailedPrecondition", "google.rpc.ErrorInfo", r#""reason":"producer_seq_gap""#, r#""domain":"tidelog""#, "tidelog.v1.Error", r#""rule":"P-8""#]
    {
        assert!(printed.replace(": ", ":").contains(&part.replace(": ", ":")), "`{part}` is not shown:\n{printed}");
    }
    let unknown = tools::fails(broker.grpcurl(&["-d", "{}"]).args([&broker.address, "tidelog.v1.Broker/Dance"]));
    assert!(unknown.contains("does not include a method named"), "{unknown}");
}

#[test]
fn health_is_told_and_a_watcher_hears_of_the_end() {
    let broker = Broker::start();
    assert_eq!(broker.call("grpc.health.v1.Health/Check", &json!({}))["status"], "SERVING");
    assert_eq!(broker.call("grpc.health.v1.Health/Check", &json!({"service": "tidelog.v1.Broker"}))["status"], "SERVING");
    let watch = broker.open("grpc.health.v1.Health/Watch", Some(&json!({})));
    assert_eq!(watch.hears("status"), "SERVING");
    broker.ask_to_stop();
    assert_eq!(watch.hears("status"), "NOT_SERVING");
}
