//! A durable reader without the client library, over any carrier: what the broker says is kept as it was said.
//!
//! It attaches again and again. Now and then it keeps its old session while it opens the next one, and then tries to ack with the old: a
//! zombie, whose acks must have no effect (C-7). One that is `loyal` ends when it hears of a fence, as programs do.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::dice::Dice;
use crate::door::{Door, ask_json};
use crate::history::Look;
use crate::line::{Carrier, Heard, Line};
use crate::load::INPUT;

/// A file in which several tasks write down what they do, line by line.
pub type Notes = Arc<Mutex<File>>;

/// One write for a line: a kill may cut the last one only.
pub fn note(notes: &Notes, note: &impl Serialize) {
    let line = format!("{}\n", serde_json::to_string(note).expect("a note has a JSON form"));
    notes.lock().write_all(line.as_bytes()).expect("the notes can be written");
}

/// What a file of notes holds; a last line that was cut is not there.
pub fn read_notes<T: serde::de::DeserializeOwned>(file: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no note: {e}"))).collect()
}

/// The machine's clock, which all processes of the test share.
fn clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// A session that was left open.
struct Old {
    line: Line,
    epoch: u64,
    last: u64,
}

/// See the module.
pub struct Reader {
    pub name: &'static str,
    pub carrier: Carrier,
    /// All its acks are durable ones; else none is.
    pub durable: bool,
    /// Ends when it is fenced, and never leaves a session without need.
    pub loyal: bool,
    pub door: Door,
    /// Where acks of an old epoch are tried.
    pub straight: Door,
    pub dice: Dice,
    pub stop: Arc<AtomicBool>,
    pub notes: Option<Notes>,
}

/// What a reader keeps while it runs.
struct Running {
    it: Reader,
    looks: Vec<Look>,
    old: Option<Old>,
    left: bool,
    fenced: bool,
}

/// Codes with which a session or its opening may end while brokers die and readers overtake each other.
const ENDS: [&str; 6] = ["unavailable", "outcome_unknown", "session_fenced", "session_unknown", "storage_failed", "slow_consumer"];

impl Reader {
    /// Reads until it is told to stop and has acked everything; what it saw.
    pub async fn run(self) -> Vec<Look> {
        let mut running = Running { it: self, looks: Vec::new(), old: None, left: false, fenced: false };
        while !running.left && !running.fenced {
            if running.attach().await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        running.looks
    }
}

impl Running {
    fn look(&mut self, look: Look) {
        match &self.it.notes {
            Some(notes) => note(notes, &look),
            None => self.looks.push(look),
        }
    }

    /// One session, until the connection ends, or chance or the test ends it. `None`: it ended by itself.
    async fn attach(&mut self) -> Option<()> {
        let name = self.it.name;
        let (mut line, opened) = Line::open(self.it.carrier, &self.it.door, INPUT, name).await?;
        let (epoch, stream_id, log_epoch) = (opened.epoch, opened.stream_id, opened.log_epoch);
        self.look(Look::Opened { reader: name.into(), durable: self.it.durable, epoch, next: opened.next, stream_id, log_epoch, at: clock() });
        if let Some(old) = self.old.take() {
            self.too_late(old).await;
        }
        let (mut last, mut unacked, mut due) = (None, 0, opened.next);
        let mut sent: VecDeque<u64> = VecDeque::new();
        let mut live = opened.end == Some(opened.next);
        let (mut patience, mut frames) = (self.it.dice.between(1, 200), self.it.dice.between(5, 400));
        loop {
            let heard = timeout(Duration::from_millis(100), line.hear()).await.ok();
            let (mut now, idle) = (false, heard.is_none());
            match heard {
                None => {}
                Some(None) => return None,
                Some(Some(Heard::Events(events))) => {
                    unacked += events.len() as u64;
                    last = events.last().map(|(offset, _)| *offset).or(last);
                    self.look(Look::Got { reader: name.into(), stream_id, log_epoch, events });
                    now = line.is_pull();
                }
                Some(Some(Heard::Acked { next })) => {
                    let sent = sent.pop_front().unwrap_or_else(|| panic!("{name} heard that {next} is acked, and had not asked"));
                    self.look(Look::Acked { reader: name.into(), epoch, sent, next });
                    due = due.max(next);
                }
                Some(Some(Heard::Live)) => {
                    (live, now) = (true, true);
                    if line.is_pull() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                Some(Some(Heard::AckRefused { code })) => return self.ended(epoch, last, &code).await,
                Some(Some(Heard::Ended { code })) => return self.ended(epoch, last, &code).await,
                Some(Some(Heard::Gap { from, to })) => panic!("{name} heard of a gap from {from} to {to}, and nothing was trimmed"),
            }
            let stopping = self.it.stop.load(Ordering::SeqCst);
            if unacked > 0 && (unacked >= patience || now || idle || stopping) {
                (unacked, patience) = (0, self.it.dice.between(1, 200));
                sent.push_back(clock());
                line.ack(last?, self.it.durable || stopping).await?;
            }
            if stopping && live && last.is_none_or(|last| due > last) {
                self.left = true;
                line.close().await;
                return Some(());
            }
            frames -= 1;
            if frames == 0 && !self.it.loyal && !stopping {
                // Without a word, like a process that died, or kept open, like one that was frozen.
                if let Some(last) = last.filter(|_| sent.is_empty() && self.it.dice.one_in(2)) {
                    self.old = Some(Old { line, epoch, last });
                }
                return Some(());
            }
            frames = frames.max(1);
        }
    }

    async fn ended(&mut self, epoch: u64, last: Option<u64>, code: &str) -> Option<()> {
        let name = self.it.name;
        assert!(ENDS.contains(&code), "{name} heard {code}");
        if code == "session_fenced" {
            self.look(Look::Fenced { reader: name.into(), epoch });
            self.fenced = self.it.loyal;
            if let (true, Some(last)) = (self.it.loyal, last) {
                self.by_epoch(epoch, last).await;
            }
        }
        None
    }

    /// A newer session is open. What the old one acks now must be refused, on its own line and by its epoch over REST.
    async fn too_late(&mut self, mut old: Old) {
        let sent = clock();
        if old.line.ack(old.last, self.it.durable).await.is_some() {
            while let Ok(Some(heard)) = timeout(Duration::from_secs(2), old.line.hear()).await {
                match heard {
                    // An answer to an ack from before, perhaps: only one that asked for this much is from now.
                    Heard::Acked { next } if next > old.last => {
                        self.look(Look::Acked { reader: self.it.name.into(), epoch: old.epoch, sent, next });
                        break;
                    }
                    Heard::Ended { code } | Heard::AckRefused { code } => {
                        self.ended(old.epoch, None, &code).await;
                        break;
                    }
                    _ => {}
                }
            }
        }
        self.by_epoch(old.epoch, old.last).await;
    }

    async fn by_epoch(&mut self, epoch: u64, offset: u64) {
        let (name, sent) = (self.it.name, clock());
        let path = format!("/v1/streams/{INPUT}/subscriptions/{name}/ack");
        match ask_json(&self.it.straight, "POST", &path, &json!({"epoch": epoch, "offset": offset})).await {
            Ok(acked) => {
                let next = acked["next"].as_u64().unwrap_or_else(|| panic!("no next in {acked}"));
                self.look(Look::Acked { reader: name.into(), epoch, sent, next });
            }
            Err(failure) if failure.code == "session_fenced" => self.look(Look::Fenced { reader: name.into(), epoch }),
            Err(_) => {}
        }
    }
}
