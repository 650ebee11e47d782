//! Against HTTP/2 and gRPC: the attacks that have a number, and messages that lie.

use std::net::SocketAddr;

use crate::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PADDED, PING2, RESET, SETTINGS, WIDEST, WINDOW, call, field, h2_frame, h2_head,
    h2_settings, head, message, narrow, number, tcp,
};

const SSE: [(&str, &str); 1] = [("accept", "text/event-stream")];

pub async fn rapid_reset(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let block = head("GET", "/v1/streams/s", &[]);
    let bytes: Vec<u8> = (0..10_000u32)
        .flat_map(|n| [h2_frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block), h2_frame(RESET, 0, 2 * n + 1, &8u32.to_be_bytes())].concat())
        .collect();
    h2.ended(&bytes, None).await
}

pub async fn continuation(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let part = field("x-more", &"y".repeat(1000));
    let mut bytes = h2_frame(HEADERS, END_STREAM, 1, &head("GET", "/v1", &[]));
    for _ in 0..10_000 {
        bytes.extend(h2_frame(CONTINUATION, 0, 1, &part));
    }
    let end = h2.ended(&bytes, None).await;
    if end.starts_with("goaway 11") || end.starts_with("goaway 1") || end == "gone" { "goaway".into() } else { end }
}

pub async fn settings(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let mut acked = 0;
    h2.flood(&h2_settings(&[(3, 100), (5, 16_384)]).repeat(100_000), |frame| {
        acked += usize::from(frame.kind == SETTINGS && frame.flags & ACK != 0);
        acked < 100_000 && frame.kind != GOAWAY
    })
    .await;
    h2.alive().await;
    "alive".into()
}

pub async fn pings(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let mut answered = 0;
    h2.flood(&h2_frame(PING2, 0, 0, b"flooding").repeat(100_000), |frame| {
        answered += usize::from(frame.kind == PING2 && frame.flags & ACK != 0);
        answered < 100_000 && frame.kind != GOAWAY
    })
    .await;
    h2.alive().await;
    format!("answered: {answered}; alive")
}

pub async fn empty_data(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let bytes = [h2_frame(HEADERS, END_HEADERS, 1, &call("Connect")), h2_frame(DATA, 0, 1, b"").repeat(100_000)].concat();
    h2.ended(&bytes, None).await
}

/// Those over the bound are refused one by one, or, when there are too many, with the connection.
pub async fn many_calls(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let block = call("Connect");
    let bytes: Vec<u8> = (0..10_000u32).flat_map(|n| h2_frame(HEADERS, END_HEADERS, 2 * n + 1, &block)).collect();
    let (mut refused, mut accepted, mut gone) = (0, 0, true);
    h2.flood(&bytes, |frame| {
        refused += usize::from(frame.kind == RESET && number(&frame.payload) == 7);
        accepted += usize::from(frame.kind == HEADERS);
        gone = frame.kind == GOAWAY;
        !gone && refused + accepted < 10_000
    })
    .await;
    if accepted <= 128 && (refused > 0 || gone) { "goaway or reset".into() } else { format!("{accepted} were accepted, {refused} refused") }
}

pub async fn crumbs(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::on(tcp(at).await, 0).await;
    h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/v1/streams/big/events?from=0", &SSE))).await;
    let mut got = 0;
    h2.flood(&h2_frame(WINDOW, 0, 1, &1u32.to_be_bytes()).repeat(5000), |frame| {
        got += if frame.kind == DATA { frame.payload.len() } else { 0 };
        got < 5000 && frame.kind != GOAWAY
    })
    .await;
    h2.alive().await;
    format!("{got} bytes; alive")
}

pub async fn windows(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let overflow = h2.ended(&h2_frame(WINDOW, 0, 0, &WIDEST.to_be_bytes()), None).await;
    let mut h2 = H2::open(at).await;
    let call = h2_frame(HEADERS, END_HEADERS, 1, &call("Connect"));
    let still = h2.ended(&[call, h2_frame(WINDOW, 0, 1, &0u32.to_be_bytes())].concat(), Some(1)).await;
    let still = if still.starts_with("reset 1") || still.starts_with("goaway 1") { "reset 1 or goaway 1".to_owned() } else { still };
    format!("{overflow}; {still}")
}

pub async fn lies(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    let large = h2.ended(&[h2_head(0xff_ffff, DATA, 0, 1), vec![0; 100_000]].concat(), None).await;
    // More padding than there is frame.
    let mut h2 = H2::open(at).await;
    let padded = [h2_frame(HEADERS, END_HEADERS, 1, &call("Append")), h2_frame(DATA, PADDED, 1, &[255; 10])].concat();
    let padding = h2.ended(&padded, Some(1)).await;
    format!("{large}; {padding}")
}

pub async fn hpack_bomb(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    // One field of 4,000 bytes goes into the table; each further byte says it again.
    let mut entry = field("x-bomb", &"z".repeat(3900));
    entry[0] = 0x40;
    let block = [head("GET", "/v1", &[]), entry, vec![0x80 | 62; 10_000]].concat();
    h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
    let end = loop {
        match h2.next().await {
            None => break "refused",
            Some(frame) if frame.kind == RESET || frame.kind == GOAWAY || frame.kind == HEADERS => break "refused",
            Some(_) => {}
        }
    };
    end.into()
}

pub async fn slow_readers(at: SocketAddr, _: u64) -> String {
    let mut stuck = Vec::new();
    for n in 0..20 {
        // Windows that never close, and nothing read: the kernel's buffers are the bound. Or windows that are shut.
        let mut h2 = H2::on(narrow(at).await, if n % 2 == 0 { WIDEST } else { 0 }).await;
        for call in 0..5 {
            h2.send(&h2_frame(HEADERS, END_STREAM | END_HEADERS, 2 * call + 1, &head("GET", "/v1/streams/big/events?from=0", &SSE))).await;
        }
        h2.next().await;
        stuck.push(h2);
    }
    (5 * stuck.len()).to_string()
}

pub async fn messages(at: SocketAddr, _: u64) -> String {
    let mut heard = Vec::new();
    for (flag, len, sent) in [(0u8, (8u32 << 20) + 1, 100usize), (0, u32::MAX, 100), (0, 100, 50), (1, 600, 600)] {
        let mut h2 = H2::open(at).await;
        let body = [&[flag][..], &len.to_be_bytes(), &vec![0xec; sent]].concat();
        h2.send(&[h2_frame(HEADERS, END_HEADERS, 1, &call("Append")), h2_frame(DATA, END_STREAM, 1, &body)].concat()).await;
        heard.push(h2.status(1).await);
    }
    heard.join("; ")
}

pub async fn entries(at: SocketAddr, _: u64) -> String {
    let mut h2 = H2::open(at).await;
    // Field 3 (acks) with nothing in it.
    let body = message(&[3 << 3 | 2, 0].repeat(2_000_000));
    let mut bytes = h2_frame(HEADERS, END_HEADERS, 1, &call("Commit"));
    let count = body.chunks(16_384).count();
    for (n, chunk) in body.chunks(16_384).enumerate() {
        bytes.extend(h2_frame(DATA, if n + 1 == count { END_STREAM } else { 0 }, 1, chunk));
    }
    // The broker's window is 1 MiB for each call: wait for it to open.
    let (mut sent, mut window) = (0, 1usize << 20);
    while sent < bytes.len() {
        let now = window.min(bytes.len() - sent);
        h2.send(&bytes[sent..sent + now]).await;
        sent += now;
        window -= now;
        while sent < bytes.len() && window < 32_768 {
            let Some(frame) = h2.next().await else { return "gone".into() };
            if frame.kind == WINDOW && frame.stream == 1 {
                window += number(&frame.payload) as usize;
            } else if frame.stream == 1 && frame.kind == RESET {
                return format!("reset {}", number(&frame.payload));
            }
        }
    }
    h2.status(1).await
}
