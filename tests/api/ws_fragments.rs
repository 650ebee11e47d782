//! A WebSocket message in pieces: 1,024 frames are put together, one more ends the connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Broker, PATIENCE, dev};

/// An upgraded connection, byte by byte.
struct Bare(TcpStream);

impl Bare {
    /// Upgrades; `early` comes right behind the request.
    async fn open(broker: &Broker, early: &[u8]) -> Self {
        let mut stream = broker.tcp().await;
        let head = "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(&[head.as_bytes(), early].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    /// The next frame: opcode and payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let opcode = self.0.read_u8().await.unwrap() & 0x0f;
            let len = match self.0.read_u8().await.unwrap() {
                126 => usize::from(self.0.read_u16().await.unwrap()),
                127 => panic!("a frame of 64 KiB"),
                short => usize::from(short),
            };
            let mut payload = vec![0; len];
            self.0.read_exact(&mut payload).await.unwrap();
            (opcode, payload)
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a frame in time")
    }
}

fn frame(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    // Masked with zeros: that is a mask, too.
    [&[u8::from(last) << 7 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// `{"t":"ping"}` in `n` frames, most of them empty, with a ping of the protocol in the middle.
fn ping_in(n: usize) -> Vec<u8> {
    let text = br#"{"t":"ping"}"#;
    let mut out = Vec::new();
    for i in 0..n {
        let payload = if i == 0 {
            &text[..5]
        } else if i == n - 1 {
            &text[5..]
        } else {
            &[]
        };
        out.extend(frame(i == n - 1, u8::from(i == 0), payload));
        if i == n / 2 {
            out.extend(frame(true, 9, b""));
        }
    }
    out
}

#[tokio::test]
async fn a_message_may_come_in_1024_frames_and_not_in_one_more() {
    let broker = dev().await;
    let mut bare = Bare::open(&broker, b"").await;
    assert_eq!(bare.frame().await.0, 1, "hello");
    for n in [2, 1023, 1024, 1024] {
        bare.0.write_all(&ping_in(n)).await.unwrap();
        let mut heard = [bare.frame().await, bare.frame().await];
        heard.sort();
        assert_eq!(heard, [(1, br#"{"t":"pong"}"#.to_vec()), (10, Vec::new())], "{n}");
    }
    // What is whole before it is heard all the same.
    bare.0.write_all(&[frame(true, 1, br#"{"t":"ping"}"#), ping_in(1025)].concat()).await.unwrap();
    loop {
        match bare.frame().await {
            (8, payload) => {
                assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 1009);
                assert!(String::from_utf8_lossy(&payload[2..]).contains("1024 frames"));
                break;
            }
            (1, payload) => assert_eq!(payload, br#"{"t":"pong"}"#),
            (opcode, _) => assert_eq!(opcode, 10),
        }
    }
    broker.ws("/v1/connect").await.greeted().await.alive().await;
}

#[tokio::test]
async fn frames_that_come_with_the_upgrade_count() {
    let broker = dev().await;
    let mut bare = Bare::open(&broker, &ping_in(1025)).await;
    while bare.frame().await.0 != 8 {}
    let mut bare = Bare::open(&broker, &ping_in(3)).await;
    while bare.frame().await != (1, br#"{"t":"pong"}"#.to_vec()) {}
}
