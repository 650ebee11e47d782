//! Streams that come and go: what was acknowledged to one of their lives is there as long as that life is, and no longer.

use std::collections::HashMap;

use super::{at, dense as log_is_dense, places};
use crate::history::{Log, Outcome, Side};

fn name(side: &Side) -> String {
    format!("stream {} (id {})", side.name, side.id)
}

/// Lives that are there at the end.
fn alive(sides: &[Side]) -> impl Iterator<Item = (&Side, &Log)> {
    sides.iter().filter_map(|side| Some((side, side.log.as_ref()?)))
}

/// I-1: what nobody deleted is there, and so are its events; what was deleted is not.
pub(super) fn acknowledged(sides: &[Side]) -> Result<u64, String> {
    let mut events = 0;
    for side in sides {
        let Some(log) = &side.log else {
            if side.deleting {
                continue;
            }
            return Err(format!("{} is gone, and nobody deleted it", name(side)));
        };
        if side.deleted {
            return Err(format!("{} was deleted and is there", name(side)));
        }
        for append in &side.appends {
            let Outcome::Acked { first: Some(first) } = append.outcome else { continue };
            if first >= log.first && at(log, first) != Some(append.value.as_str()) {
                return Err(format!("{:?} was acknowledged at {first} of {}, where {:?} is", append.value, name(side), at(log, first)));
            }
            events += 1;
        }
    }
    Ok(events)
}

/// I-2: what was refused is not there.
pub(super) fn refused(sides: &[Side]) -> Result<u64, String> {
    let mut appends = 0;
    for (side, log) in alive(sides) {
        let places = places(log);
        for append in &side.appends {
            let Outcome::Refused { code, .. } = &append.outcome else { continue };
            if let Some(places) = places.get(append.value.as_str()) {
                return Err(format!("{:?} was refused ({code}) and is at {places:?} of {}", append.value, name(side)));
            }
            appends += 1;
        }
    }
    Ok(appends)
}

/// I-3: nothing is there twice.
pub(super) fn stored_once(sides: &[Side]) -> Result<(), String> {
    for (side, log) in alive(sides) {
        if let Some((value, places)) = places(log).iter().find(|(_, places)| places.len() > 1) {
            return Err(format!("{value:?} is stored {} times in {}, at {places:?}", places.len(), name(side)));
        }
    }
    Ok(())
}

/// I-5: offsets are dense.
pub(super) fn dense(sides: &[Side]) -> Result<usize, String> {
    alive(sides).try_for_each(|(side, log)| log_is_dense(&name(side), log))?;
    Ok(alive(sides).count())
}

/// I-8: ids and epochs grow, a trim is not forgotten, and nothing is trimmed by itself. Lives of a name come in their order.
pub(super) fn never_back(sides: &[Side]) -> Result<usize, String> {
    let mut ids: HashMap<&str, u64> = HashMap::new();
    for side in sides {
        if let Some(before) = ids.insert(&side.name, side.id).filter(|before| *before >= side.id) {
            return Err(format!("{} was created after a stream of that name with id {before}", name(side)));
        }
        let mut epochs: HashMap<&str, u64> = HashMap::new();
        for (producer, epoch, _) in &side.opened {
            if let Some(before) = epochs.insert(producer, *epoch).filter(|before| before >= epoch) {
                return Err(format!("producer {producer} of {} was opened with epoch {epoch} after {before}", name(side)));
            }
        }
    }
    for (side, log) in alive(sides) {
        if log.first < side.trimmed || log.first > side.trimmed_at_most {
            return Err(format!("{} was trimmed to {} (at most {}) and begins at {}", name(side), side.trimmed, side.trimmed_at_most, log.first));
        }
    }
    Ok(sides.len())
}
