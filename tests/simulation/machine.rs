//! The machine that the broker runs on: it boots, dies, and boots again on what its disk has kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog::broker::{Broken, Broker, Settings, Simulated, access::Quotas};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::disk::{Disk, Step, Trouble};
use crate::net::Net;
use crate::power::Power;
use crate::trace::Trace;

/// The wall clock when a simulation begins, in microseconds.
const BEGINNING: i64 = 1_790_000_000_000_000;

/// See the module.
pub struct Machine {
    dice: Dice,
    trace: Arc<Trace>,
    net: Arc<Net>,
    settings: Settings,
    simulated: Simulated,
    jump: Arc<AtomicI64>,
    disk: Arc<Disk>,
    power: Arc<Power>,
    broker: Option<Broker>,
    /// The wall clock jumps further than the window of an idempotency key.
    far: bool,
    /// How often a process of it has died.
    pub deaths: u32,
}

impl Machine {
    pub fn new(mut dice: Dice, trace: Arc<Trace>, net: Arc<Net>, broken: Broken, far: bool) -> Self {
        let (began, jump) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let wall = {
            let jump = jump.clone();
            move || BEGINNING + began.elapsed().as_micros() as i64 + jump.load(Ordering::SeqCst)
        };
        let chance = Mutex::new(Dice::new(dice.throw()));
        let chance = move || {
            let mut dice = chance.lock();
            (u128::from(dice.throw()) << 64) | u128::from(dice.throw())
        };
        let settings = Settings {
            create_streams_on_use: false,
            tail_bytes: [0, 3000, 1 << 20][dice.below(3) as usize],
            hot_entries: [1, 4, 8192][dice.below(3) as usize],
            quotas: Quotas::default(),
            broken,
        };
        let power = Arc::new(Power::default());
        let disk = Arc::new(Disk::new(Dice::new(dice.throw()), power.clone(), trace.clone()));
        let simulated = Simulated { wall: Arc::new(wall), chance: Arc::new(chance) };
        Self { dice, trace, net, settings, simulated, jump, disk, power, broker: None, far, deaths: 0 }
    }

    /// Starts a broker on the disk as it is; now and then it dies on its way there.
    pub async fn boot(&mut self) {
        loop {
            let opening = Broker::open_simulated(self.simulated.clone(), self.disk.clone(), self.settings.clone());
            let patience = Duration::from_millis(if self.deaths > 0 && self.dice.one_in(6) { self.dice.between(1, 8) } else { 60_000 });
            match tokio::time::timeout(patience, opening).await {
                Ok(broker) => {
                    let broker = broker.unwrap_or_else(|e| panic!("the broker does not start: {e}"));
                    self.trace.say(format_args!("machine: the broker is up"));
                    self.net.serve(broker.clone(), self.power.clone());
                    self.broker = Some(broker);
                    return;
                }
                Err(_) => self.replace_disk().await,
            }
        }
    }

    async fn replace_disk(&mut self) {
        self.power.cut();
        self.deaths += 1;
        self.power = Arc::new(Power::default());
        self.disk = Arc::new(self.disk.recover(self.power.clone()).await);
    }

    /// The process dies, unless it has already; after a while another one is there.
    pub async fn restart(&mut self, why: &str) {
        self.trace.say(format_args!("machine: down: {why}"));
        self.power.cut();
        self.net.die();
        self.broker = None;
        let pause = if self.dice.one_in(3) { 0 } else { self.dice.between(1, 150) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.replace_disk().await;
        self.boot().await;
    }

    /// Resolves when the process has died or has to go (S-5).
    async fn down(&self) -> &'static str {
        let broker = self.broker.clone().expect("it is up");
        tokio::select! {
            biased;
            () = self.power.down() => "it died",
            _ = broker.failed() => "its disk failed",
        }
    }

    /// Lets time pass. A broker that dies meanwhile is followed by another.
    pub async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(why) = tokio::time::timeout_at(until, self.down()).await {
            self.restart(why).await;
        }
    }

    /// Something bad, by chance.
    pub async fn trouble(&mut self) {
        let dice = &mut self.dice;
        match dice.below(12) {
            0 => self.restart("killed").await,
            1 | 2 => {
                let step = [Step::BeforeWrite, Step::Written, Step::Synced][dice.below(3) as usize];
                self.trace.say(format_args!("machine: will die: {step:?}"));
                self.disk.plan(Trouble::Crash(step));
            }
            3 | 4 => {
                let steps = dice.between(1, 25);
                self.trace.say(format_args!("machine: will die after {steps} frames"));
                self.power.light(steps);
            }
            5 => self.disk.plan(if dice.one_in(2) { Trouble::FailWrite } else { Trouble::FailSync }),
            6 => {
                let times = dice.between(1, 12) as u32;
                self.trace.say(format_args!("machine: {times} stalls"));
                self.disk.plan(Trouble::Refuse(times));
            }
            7 => {
                // Longer than anybody waits: the group is given up, and what was speculated with it.
                let times = 60 + dice.below(20) as u32;
                self.trace.say(format_args!("machine: a long stall"));
                self.disk.plan(Trouble::Refuse(times));
                self.pass(Duration::from_secs(6)).await;
            }
            8 => {
                let time = dice.between(5, 80);
                self.trace.say(format_args!("machine: no space for {time} ms"));
                self.disk.fill(true);
                self.pass(Duration::from_millis(time)).await;
                self.disk.fill(false);
            }
            9 => {
                let by = [-86_400, -3600, -1, 1, 3600, if self.far { 400 * 86_400 } else { 7200 }][dice.below(6) as usize];
                self.trace.say(format_args!("machine: the clock jumps by {by} s"));
                self.jump.fetch_add(by * 1_000_000, Ordering::SeqCst);
            }
            _ => self.net.cut(2),
        }
    }

    /// No trouble any more.
    pub async fn calm(&mut self) {
        self.disk.calm();
        self.power.light(0);
        self.net.rough(false);
        self.pass(Duration::from_millis(1)).await;
    }
}
