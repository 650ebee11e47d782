//! What the audit is told, in the group of the act that it tells of.

use serde_json::json;

use super::{Effect, State};
use crate::broker::audit::{Act, By};
use crate::log::Key;
use crate::types::StreamId;
use crate::types::id::AUDIT_STREAM;

impl State {
    /// Something was done, and is in the group. Call it only where [`State::lacks`] asks for the end of the audit.
    pub(super) fn audit(&mut self, by: &By, act: Act) {
        self.tell(by, &act, false);
    }

    /// The same; `if_room`: while the disk is nearly full the log is told only.
    pub(super) fn tell(&mut self, by: &By, act: &Act, if_room: bool) {
        let (events, line) = act.told(by).expect("names and ids are short, and a context from outside was measured at the door");
        if !(if_room && self.full.is_some()) {
            self.keep_system_stream(AUDIT_STREAM);
            self.store(AUDIT_STREAM, events, by.author());
        }
        self.group.effects.push(Effect::Audit(line));
    }

    /// A stream of the broker's own is there before it has rows. It gets them with the first that is kept of it.
    pub(super) fn keep_system_stream(&mut self, id: StreamId) {
        if !id.is_system() || self.stream(id).row.created_us != 0 {
            return;
        }
        let now = self.now.wall_us.max(1);
        let row = &mut self.stream(id).row;
        row.created_us = now;
        let row = row.clone();
        self.put(Key::Stream(id), &row);
        self.group.bounds.insert(id);
        self.group.counters = true;
    }

    /// A raised log epoch is told of once, in the commit that notes that it was.
    pub(super) fn audit_log_epoch(&mut self) {
        let (old, new) = (self.counters.audited_log_epoch.max(1), self.counters.log_epoch);
        if new <= old {
            return;
        }
        self.counters.audited_log_epoch = new;
        self.group.counters = true;
        self.audit(&By::broker(), Act::new("log-epoch-raised", "", json!({ "old": old, "new": new })));
    }
}
