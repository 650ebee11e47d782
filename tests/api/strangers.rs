//! Connections of callers that nobody knows: so many of one address, and few that say nothing.

use tidelog::server::Mode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Broker, PATIENCE, start};

async fn strict(most: u64, silent: u64) -> Broker {
    start(Mode::Serve { trust_loopback: false }, |config| {
        config.raw.limits.connections_per_address = most;
        config.raw.limits.connections_per_address_silent = silent;
    })
    .await
}

/// Sends a request on a connection and keeps it open. False when the broker has closed it.
async fn speaks(stream: &mut TcpStream) -> bool {
    if stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_err() {
        return false;
    }
    let mut buffer = [0; 1024];
    matches!(tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer or an end"), Ok(n) if n > 0)
}

#[tokio::test]
async fn an_address_has_its_connections_and_not_one_more() {
    let broker = strict(4, 64).await;
    let mut open = Vec::new();
    for n in 0..4 {
        let mut stream = broker.tcp().await;
        assert!(speaks(&mut stream).await, "connection {n}");
        open.push(stream);
    }
    assert!(!speaks(&mut broker.tcp().await).await, "the fifth is closed");
    assert_eq!(broker.ask_locally("GET", "/livez", &[], b"").await.status, 200, "the socket is not counted");
    assert!(speaks(&mut open[0]).await, "and those that are open live on");
    drop(open.pop());
    let room = async { while !speaks(&mut broker.tcp().await).await {} };
    tokio::time::timeout(PATIENCE, room).await.expect("a closed connection makes room");
}

#[tokio::test]
async fn few_connections_of_an_address_may_be_silent() {
    let broker = strict(64, 3).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(broker.tcp().await);
    }
    let mut fourth = broker.tcp().await;
    assert!(!speaks(&mut fourth).await, "three are silent");
    assert!(speaks(&mut silent[0]).await, "those that are open live on");
    let mut more = broker.tcp().await;
    assert!(speaks(&mut more).await, "one has spoken, so one more may come");
    for stream in &mut silent {
        assert!(speaks(stream).await);
    }
}

#[tokio::test]
async fn callers_that_are_trusted_by_address_are_not_counted() {
    let broker = start(Mode::Dev, |config| {
        config.raw.limits.connections_per_address = 1;
        config.raw.limits.connections_per_address_silent = 1;
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = broker.tcp().await;
        assert!(speaks(&mut stream).await);
        open.push(stream);
    }
}
