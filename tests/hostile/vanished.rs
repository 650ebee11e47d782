//! A peer that vanishes: no goodbye, no reset, nothing. Its own network has to go down for that, so broker and reader run in a network
//! namespace of their own, which is switched off. The broker stays reachable over its Unix socket.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::Broker;
use crate::support::PATIENCE;

/// A child that does not outlive its owner.
struct Gone(Child);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command in the namespace of a process.
fn beside(id: u32, line: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &id.to_string()]).args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Is a new network namespace allowed here, and are the tools there?
fn allowed() -> bool {
    let mut run = Command::new("unshare");
    run.args(["--net", "sh", "-c", "ip link set lo up && command -v nsenter && command -v curl"]).stdout(Stdio::null()).stderr(Stdio::null());
    run.status().is_ok_and(|status| status.success())
}

/// Readers over HTTP/1, HTTP/2 and a WebSocket vanish. All of them must be detached when a peer may be called dead.
///
/// # Errors
/// What is still there.
pub async fn vanished() -> Result<(), String> {
    if !allowed() {
        println!("peers that vanish: skipped, since network namespaces are not allowed here");
        return Ok(());
    }
    let broker = Broker::with(&["unshare", "--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "--"], &[]);
    let local = |method: &'static str, path: &'static str, body: String| {
        let broker = &broker;
        async move { broker.ask_locally(method, path, &body).await }
    };
    assert_eq!(local("POST", "/v1/streams", json!({"name":"s"}).to_string()).await.status, 201);
    for name in ["one", "two"] {
        assert_eq!(local("POST", "/v1/streams/s/subscriptions", json!({"name":name}).to_string()).await.status, 201);
    }
    let url = |rest: &str| format!("http://{}{rest}", broker.at);
    let accept = ["-H", "Accept: text/event-stream"];
    let durable = url("/v1/streams/s/subscriptions/one/events");
    let second = url("/v1/streams/s/subscriptions/two/events");
    let poll = url("/v1/streams/s/events?from=latest&wait=60");
    let another = url("/v1/streams/s/events?from=earliest&wait=60");
    let mut readers = Vec::new();
    for line in [
        vec!["curl", "-sN", accept[0], accept[1], &durable],
        vec!["curl", "-sN", "--http2-prior-knowledge", accept[0], accept[1], &second],
        vec!["curl", "-s", &poll],
        vec!["curl", "-s", &another],
    ] {
        readers.push(Gone(beside(broker.id(), &line).spawn().expect("nsenter is there")));
    }
    let until = |what: &'static str, patience: Duration, good: fn(f64, f64) -> bool| {
        let broker = &broker;
        async move {
            let began = Instant::now();
            loop {
                let text = broker.metrics().await;
                let (sessions, connections) = (crate::broker::number(&text, "tidelog_sessions"), crate::broker::number(&text, "tidelog_connections"));
                if good(sessions, connections) {
                    return Ok(began.elapsed());
                }
                if began.elapsed() > patience {
                    return Err(format!("{what}: {sessions} sessions and {connections} connections are there after {:.0} s", patience.as_secs_f32()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    // Each question is a connection itself.
    until("readers that will vanish", PATIENCE, |sessions, connections| sessions == 2.0 && connections == 5.0).await?;
    let down = beside(broker.id(), &["ip", "link", "set", "lo", "down"]).status();
    assert!(down.is_ok_and(|status| status.success()), "the network can be switched off");
    // 45 s from the first byte that is not acknowledged; the first is sent after 20 s at the latest.
    let took = until("readers that vanished", Duration::from_secs(75), |sessions, connections| sessions == 0.0 && connections == 1.0).await?;
    println!("4 peers that vanished are gone after {:.0} s", took.as_secs_f32());
    Ok(())
}
