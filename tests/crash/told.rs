//! Every refusal that this process was told, counted (I-17). One place for all tasks, since refusals come up everywhere.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidelog::client::Error;

use crate::history::Told;

static ALL: Mutex<BTreeMap<Told, u64>> = Mutex::new(BTreeMap::new());

pub fn note(told: Told) {
    *ALL.lock().entry(told).or_default() += 1;
}

/// What our client library was told, if it was told something.
pub fn note_error(error: &Error) {
    if let Some(server) = error.server() {
        note(of("library", server));
    }
}

/// In words.
pub fn of(carrier: &str, error: &tidelog::types::Error) -> Told {
    Told {
        carrier: carrier.to_owned(),
        code: error.code.as_str().to_owned(),
        applied: error.applied.as_str().to_owned(),
        retry: error.retry.as_str().to_owned(),
        number: None,
    }
}

/// All so far; counting begins anew.
pub fn take() -> BTreeMap<Told, u64> {
    std::mem::take(&mut ALL.lock())
}
