//! The control: effect, then ack, without a recipe. After a crash between the two, events come again and the effect
//! happens twice. The crash test counts these duplicates; there must be some, or the test tests nothing.
//!
//! Do not copy this where twice is wrong. It is right where it does not matter (caches, logs, metrics): at-least-once.
//! It acks every 50th event, so that up to 49 effects are repeated after each kill.
//!
//! `cargo run --release --example plain -- --url http://127.0.0.1:4080 --stream orders --subscription plain --db /tmp/plain.db`

mod common;

use common::{Args, Error, stopped};
use rusqlite::{Connection, params};
use tidelog::client::Client;

const ACK_EVERY: u64 = 50;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::read()?;
    let db = Connection::open(args.get("db", "plain.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // One transaction per effect would cost one sync per effect; the control need not survive a power cut.
    db.pragma_update(None, "synchronous", "OFF")?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS effects (position INTEGER PRIMARY KEY AUTOINCREMENT, log_offset INTEGER NOT NULL, data BLOB NOT NULL);")?;
    let mut applied = 0u64;
    let client = args.client()?;
    tokio::select! {
        outcome = follow(&client, &db, &args, &mut applied) => outcome?,
        () = stopped() => {}
    }
    println!("applied {applied} events");
    Ok(())
}

async fn follow(client: &Client, db: &Connection, args: &Args, applied: &mut u64) -> Result<(), Error> {
    let until = args.number("until")?;
    let reader = client.consumer(args.get("stream", "orders")).subscription(args.get("subscription", "plain")).create();
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
        db.execute("INSERT INTO effects (log_offset, data) VALUES (?1, ?2)", params![event.offset as i64, &event.data[..]])?;
        *applied += 1;
        if applied.is_multiple_of(ACK_EVERY) {
            consumer.ack(event.offset);
        }
    }
    if let Some(last) = consumer.position().checked_sub(1) {
        consumer.ack(last).await?;
    }
    consumer.close().await;
    Ok(())
}
