//! Recipe K-2: exactly-once effect under a unique key. For stores without transactions over several rows.
//!
//! What to copy:
//! 1. The effect is one write under a key made of (stream_id, log_epoch, offset): no two events share it, and the same
//!    event always has the same. A business key that the producer wrote into the event does as well.
//! 2. The write does nothing when the key is there (`INSERT … ON CONFLICT DO NOTHING`, `PUT-IF-ABSENT`, …).
//! 3. Ack after the write. An event that comes again after a crash meets its own key and changes nothing.
//!
//! `cargo run --release --example k2_keyed -- --url http://127.0.0.1:4080 --stream orders --subscription k2 --db /tmp/k2.db`

mod common;

use common::{Args, Error, stopped};
use rusqlite::{Connection, params};
use tidelog::client::Client;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::read()?;
    let db = Connection::open(args.get("db", "k2.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS effects (stream_id INTEGER, log_epoch INTEGER, log_offset INTEGER, data BLOB NOT NULL, PRIMARY KEY (stream_id, log_epoch, log_offset)) WITHOUT ROWID;",
    )?;
    let (mut applied, mut repeated) = (0u64, 0u64);
    let client = args.client()?;
    tokio::select! {
        outcome = follow(&client, &db, &args, &mut applied, &mut repeated) => outcome?,
        () = stopped() => {}
    }
    println!("applied {applied} events; {repeated} came again and changed nothing");
    Ok(())
}

async fn follow(client: &Client, db: &Connection, args: &Args, applied: &mut u64, repeated: &mut u64) -> Result<(), Error> {
    let until = args.number("until")?;
    let reader = client.consumer(args.get("stream", "orders")).subscription(args.get("subscription", "k2")).create();
    // Opening is not retried by the library; a program that shall outlive its broker does it.
    let mut consumer = loop {
        match reader.clone().open().await {
            Ok(consumer) => break consumer,
            Err(error) if error.is_retryable() => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            Err(error) => return Err(error.into()),
        }
    };
    while until.is_none_or(|until| consumer.position() < until) {
        let Some(event) = consumer.next_event().await else { return Ok(()) };
        let event = event?;
        let written = db.execute(
            "INSERT INTO effects (stream_id, log_epoch, log_offset, data) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![event.stream_id.0 as i64, event.log_epoch as i64, event.offset as i64, &event.data[..]],
        )?;
        *applied += written as u64;
        *repeated += 1 - written as u64;
        consumer.ack(event.offset);
    }
    if let Some(last) = consumer.position().checked_sub(1) {
        consumer.ack(last).await?;
    }
    consumer.close().await;
    Ok(())
}
