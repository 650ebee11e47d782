//! Power loss: the block device stops in the middle of the load, and the broker is started on what had reached it.
//!
//! What was written and never synced is in the memory of the mounted file system and not on its device, so a missing fdatasync shows. The
//! histories are chained: each start goes on from what the cut before it left.

use std::time::Duration;

use tidelog::client::Protocol;

use crate::broker::{Broker, Setup};
use crate::chance::{Chance, rounds};
use crate::image::Rig;
use crate::ledger::{Found, Ledger};
use crate::load::{Load, block, prepare, until};
use crate::made::recorded;
use crate::shim::Shim;

/// Where the power goes.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// The device stands still wherever it is.
    Device,
    /// The file system is frozen: everything written so far is on it, and consistent.
    FileSystem,
}

/// One life: the load runs, the power goes. The ledger is what was known at that moment. `behind`: not before the side file was written again.
fn live(rig: &mut Rig, setup: &Setup, ledger: &Ledger, round: usize, chance: &mut Chance, cut: Cut, behind: bool) -> Ledger {
    let mut disk = rig.mount().expect("the disk is mounted");
    let broker = setup.must_start(&disk.at.join("data"));
    if round == 0 {
        prepare(&broker);
    } else {
        judge(&broker, ledger, round);
    }
    let ledger = ledger.fork();
    let before = ledger.stored();
    let load = Load::start(&broker, &ledger, round, chance);
    let data = disk.at.join("data");
    let known = recorded(&data);
    until("the load gets going", || ledger.stored() > before + 30 && (!behind || recorded(&data) > known));
    std::thread::sleep(Duration::from_millis(chance.between(0, 700)));
    match cut {
        Cut::Device => rig.freeze(),
        Cut::FileSystem => disk.freeze(),
    }
    rig.copy();
    // Every answer so far rests on what is in the copy.
    let known = ledger.fork();
    load.vanish();
    // First the signal, then the thaw: nobody gets a word in between.
    broker.signal(rustix::process::Signal::KILL);
    rig.thaw();
    disk.thaw();
    broker.kill();
    drop(disk);
    rig.swap();
    known
}

fn judge(broker: &Broker, ledger: &Ledger, round: usize) {
    let found = block(Found::read(&broker.client(Protocol::Binary))).expect("everything can be read");
    let wrong = ledger.judge(&found);
    assert!(wrong.is_empty(), "after cut {round}: {}", wrong.join("\n"));
}

#[test]
fn i1_what_was_acknowledged_is_on_the_disk_when_the_power_goes() {
    let mut rig = match Rig::new() {
        Ok(rig) => rig,
        Err(why) => return println!("skipped: loop devices cannot be used here: {why}"),
    };
    let mut chance = Chance::for_test("i1_what_was_acknowledged");
    let (setup, mut ledger) = (Setup::small(), Ledger::default());
    let cuts = 12 * rounds();
    for round in 0..cuts {
        let cut = if round % 4 == 3 { Cut::FileSystem } else { Cut::Device };
        ledger = live(&mut rig, &setup, &ledger, round, &mut chance, cut, false);
    }
    let disk = rig.mount().expect("the disk is mounted");
    let broker = setup.must_start(&disk.at.join("data"));
    judge(&broker, &ledger, cuts);
    println!("{cuts} cuts of the power: {} batches acknowledged and found, {} left open", ledger.stored(), ledger.open());
    broker.stop();
}

/// The control: a disk that says "synced" and did not. Where more is gone than the side file knows of, it must tell (S-7); the ledger must in any case. How
/// much is gone, the file system decides: an honest sync of another file may take the log along.
#[test]
fn control_a_disk_that_lies_about_the_log_is_found_out_by_the_ledger_and_mostly_by_the_side_file() {
    let mut rig = match Rig::new() {
        Ok(rig) => rig,
        Err(why) => return println!("skipped: loop devices cannot be used here: {why}"),
    };
    let mut chance = Chance::for_test("control_a_disk_that_lies");
    let shim = Shim::new(rig.dir());
    // One large table: nothing is flushed, whose sync would be honest.
    let setup = Setup::small().storage("WRITE_BUFFER_BYTES", 256 << 20).shim(&shim);
    let honest = live(&mut rig, &setup, &Ledger::default(), 0, &mut chance, Cut::Device, false);
    shim.obey(&["sync */db/*.log 0 -1 lie"]);
    let ledger = live(&mut rig, &setup, &honest, 1, &mut chance, Cut::Device, true);
    let disk = rig.mount().expect("the disk is mounted");
    let data = disk.at.join("data");
    let broker = Setup::small().start(&data).unwrap_or_else(|(code, said)| {
        assert_eq!(code, Some(11), "{said}");
        assert!(said.contains("S-7") && said.contains("accept"), "{said}");
        Setup::small().argument("--accept-data-loss").must_start(&data)
    });
    let found = block(Found::read(&broker.client(Protocol::Binary))).expect("what was honestly synced is there");
    let wrong = ledger.judge(&found);
    assert!(wrong.iter().any(|line| line.starts_with("I-1")), "the ledger did not see it: {wrong:?}");
    println!("control: {} complaints about {} acknowledged batches", wrong.len(), ledger.stored());
    broker.stop();
}
