//! Recipe K-1: exactly-once effect in your own database. Kill it anywhere, as often as you like.
//!
//! What to copy:
//! 1. A table `positions` in the database that holds your effects: one row per reader.
//! 2. At the start, attach at the position of the table: `start_at(next, log_epoch)`. `cursor_ahead` means that another
//!    instance moved on meanwhile: read the table again. Then write the new `session_epoch` into the table: an older
//!    instance that was only frozen and wakes up now changes no row any more, and so cannot stop this one.
//! 3. Per batch, ONE transaction: first move the position with `WHERE next = :previous AND session_epoch <= :mine`
//!    (no row changed = somebody else owns the reader now: roll back and stop), then the effects, then commit.
//! 4. Ack afterwards. For the broker the ack is a hint for lag and retention; the table is the truth.
//!
//! `cargo run --release --example k1_sqlite -- --url http://127.0.0.1:4080 --stream orders --subscription k1 --db /tmp/k1.db`
//! (`--socket PATH` instead of `--url`; `--until N` ends when N events are applied.)

mod common;

use common::{Args, Error, stopped};
use rusqlite::{Connection, OptionalExtension, params};
use tidelog::client::{Client, Consumer, Delivery, Event};
use tidelog::types::Code;

/// Events of one transaction at most: a transaction costs a sync, an event does not.
const BATCH: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::read()?;
    let (stream, name) = (args.get("stream", "orders"), args.get("subscription", "k1"));
    let until = args.number("until")?;
    let mut db = open(args.get("db", "k1.db"))?;
    let mut applied = 0u64;
    let client = args.client()?;
    tokio::select! {
        outcome = follow(&client, &mut db, stream, name, until, &mut applied) => outcome?,
        () = stopped() => {}
    }
    println!("applied {applied} events");
    Ok(())
}

fn open(path: &str) -> Result<Connection, Error> {
    let db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a committed transaction survives power loss, like an acknowledged event does.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS positions (cursor TEXT PRIMARY KEY, log_epoch INTEGER NOT NULL, next INTEGER NOT NULL, session_epoch INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS effects (position INTEGER PRIMARY KEY AUTOINCREMENT, log_offset INTEGER NOT NULL, type TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL);",
    )?;
    Ok(db)
}

/// Where this reader stands: (log_epoch, next).
fn position(db: &Connection, cursor: &str) -> Result<Option<(u64, u64)>, Error> {
    let row = db.query_row("SELECT log_epoch, next FROM positions WHERE cursor = ?1", [cursor], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    Ok(row.optional()?.map(|(epoch, next)| (epoch as u64, next as u64)))
}

/// The epoch of whoever claimed the position last.
fn owner(db: &Connection, cursor: &str) -> Result<u64, Error> {
    Ok(db.query_row("SELECT session_epoch FROM positions WHERE cursor = ?1", [cursor], |row| row.get::<_, i64>(0))? as u64)
}

async fn attach(client: &Client, db: &mut Connection, stream: &str, name: &str, cursor: &str) -> Result<(Consumer, u64), Error> {
    loop {
        let stored = position(db, cursor)?;
        let builder = client.consumer(stream).subscription(name).create();
        let builder = match stored {
            Some((log_epoch, next)) => builder.start_at(next, log_epoch),
            None => builder,
        };
        match builder.open().await {
            Ok(consumer) => {
                let at = consumer.subscribed();
                let epoch = consumer.epoch().unwrap_or(0);
                // Without a row this is the first start ever: the position begins where the cursor does.
                db.execute(
                    "INSERT OR IGNORE INTO positions (cursor, log_epoch, next, session_epoch) VALUES (?1, ?2, ?3, 0)",
                    params![cursor, at.log_epoch as i64, at.next as i64],
                )?;
                let claimed = db.execute(
                    "UPDATE positions SET session_epoch = ?1 WHERE cursor = ?2 AND next = ?3 AND session_epoch < ?1",
                    params![epoch as i64, cursor, at.next as i64],
                )?;
                if claimed == 0 {
                    // An older instance applied one more batch after our reading, or a younger one is there already.
                    if owner(db, cursor)? > epoch {
                        return Err("another instance owns this reader now".into());
                    }
                    continue;
                }
                let next = at.next;
                return Ok((consumer, next));
            }
            // Another instance moved on between our reading and our opening: the table tells how far.
            Err(error) if error.code() == Some(Code::CursorAhead) && position(db, cursor)? != stored => {}
            Err(error) if error.is_retryable() => {
                eprintln!("{error}");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn follow(client: &Client, db: &mut Connection, stream: &str, name: &str, until: Option<u64>, applied: &mut u64) -> Result<(), Error> {
    let cursor = format!("{stream}/{name}");
    let (mut consumer, mut next) = attach(client, db, stream, name, &cursor).await?;
    while until.is_none_or(|until| next < until) {
        let Some(first) = consumer.next().await else { return Ok(()) };
        let mut events: Vec<Event> = Vec::new();
        let mut step = Some(first);
        while let Some(delivery) = step {
            match delivery? {
                Delivery::Event(event) => events.push(event),
                Delivery::Gap { from, to, reason } => return Err(format!("events {from} to {to} are gone ({})", reason.as_str()).into()),
                Delivery::Live { .. } => {}
            }
            step = if events.len() < BATCH { consumer.try_next() } else { None };
        }
        let Some(last) = events.last().map(|event| event.offset) else { continue };
        let epoch = consumer.epoch().unwrap_or(0);
        let done = apply(db, &cursor, next, last + 1, epoch, &events)?;
        if !done {
            return Err("another instance owns this reader now".into());
        }
        next = last + 1;
        *applied += events.len() as u64;
        consumer.ack(last);
    }
    consumer.ack(next - 1).await?;
    consumer.close().await;
    Ok(())
}

/// Position and effects, in one transaction. `false`: the position is not where we left it, nothing was done.
fn apply(db: &mut Connection, cursor: &str, previous: u64, next: u64, epoch: u64, events: &[Event]) -> Result<bool, Error> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let moved = transaction.execute(
        "UPDATE positions SET next = ?1, session_epoch = ?2 WHERE cursor = ?3 AND next = ?4 AND session_epoch <= ?2",
        params![next as i64, epoch as i64, cursor, previous as i64],
    )?;
    if moved == 0 {
        return Ok(false);
    }
    {
        let mut insert = transaction.prepare_cached("INSERT INTO effects (log_offset, type, key, data) VALUES (?1, ?2, ?3, ?4)")?;
        for event in events {
            insert.execute(params![event.offset as i64, event.kind, event.key, &event.data[..]])?;
        }
    }
    transaction.commit()?;
    Ok(true)
}
