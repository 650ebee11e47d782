//! Bookkeeping of what a producer has sent and not heard about: plain values, no socket.
//!
//! An entry leaves the window with a definite answer only. After a broken connection every entry is sent again,
//! unchanged and in order, under a new epoch; `last_seq` of the new opening tells which of them are stored already.

use std::collections::VecDeque;

/// A batch under way.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// Sequence number of its first event.
    pub(crate) seq: u64,
    /// Its answer on this connection will carry this number; `None` = not sent on this connection.
    req: Option<u64>,
    /// Sent on an earlier connection, and nothing since has told what became of it.
    pub(crate) unsettled: bool,
    /// The batch.
    pub(crate) item: T,
}

/// The batches under way, by sequence number.
#[derive(Debug)]
pub(crate) struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// How many at the front were sent on this connection.
    sent: usize,
    next_req: u64,
}

impl<T> Window<T> {
    /// Empty. Request numbers begin at `first_req`.
    pub(crate) fn new(first_req: u64) -> Self {
        Self { entries: VecDeque::new(), sent: 0, next_req: first_req }
    }

    /// Takes a batch; the caller counts sequence numbers without holes.
    pub(crate) fn push(&mut self, seq: u64, item: T) {
        debug_assert!(self.entries.back().is_none_or(|last| last.seq < seq), "sequence numbers grow");
        self.entries.push_back(Entry { seq, req: None, unsettled: false, item });
    }

    /// The next batch to send: its request number, sequence number and content.
    pub(crate) fn send_next(&mut self) -> Option<(u64, u64, &mut T)> {
        let entry = self.entries.get_mut(self.sent)?;
        self.sent += 1;
        entry.req = Some(self.next_req);
        self.next_req += 1;
        Some((self.next_req - 1, entry.seq, &mut entry.item))
    }

    /// Takes the batch that this answer is about.
    pub(crate) fn answered(&mut self, req: u64) -> Option<Entry<T>> {
        let at = self.entries.iter().take(self.sent).position(|e| e.req == Some(req))?;
        self.sent -= 1;
        self.entries.remove(at)
    }

    /// The connection broke: everything is to be sent again.
    pub(crate) fn broken(&mut self) {
        for entry in self.entries.iter_mut().take(self.sent) {
            entry.unsettled = true;
            entry.req = None;
        }
        self.sent = 0;
    }

    /// A new opening said which sequence number is the last one stored: later batches are not stored and, since an
    /// opening is a barrier, no earlier attempt can store them any more.
    pub(crate) fn settle(&mut self, last_seq: Option<u64>) {
        for entry in &mut self.entries {
            if last_seq.is_none_or(|last| entry.seq > last) {
                entry.unsettled = false;
            }
        }
    }

    /// Sequence number of the oldest batch under way.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.entries.front().map(|e| e.seq)
    }

    /// Nothing under way?
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives up on everything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry<T>> + '_ {
        self.sent = 0;
        self.entries.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(window: &mut Window<char>) -> Vec<(u64, char)> {
        std::iter::from_fn(|| window.send_next().map(|(_, seq, c)| (seq, *c))).collect()
    }

    #[test]
    fn after_a_break_everything_unanswered_is_sent_again_in_order_and_unchanged() {
        let mut window = Window::new(1);
        for (seq, item) in [(0, 'a'), (3, 'b'), (4, 'c')] {
            window.push(seq, item);
        }
        assert_eq!(sent(&mut window), [(0, 'a'), (3, 'b'), (4, 'c')]);
        assert_eq!(window.answered(1).unwrap().item, 'a');
        window.push(9, 'd');
        window.broken();
        assert_eq!(sent(&mut window), [(3, 'b'), (4, 'c'), (9, 'd')]);
        assert!(window.answered(2).is_none(), "an answer of the old connection is nobody's");
        assert_eq!(window.answered(4).unwrap().item, 'b');
    }

    #[test]
    fn last_seq_settles_what_is_not_stored_and_leaves_open_what_may_be() {
        let mut window = Window::new(0);
        window.push(0, 'a');
        window.push(5, 'b');
        sent(&mut window);
        window.broken();
        window.push(7, 'c');
        window.settle(Some(4));
        let states: Vec<_> = window.drain().map(|e| (e.item, e.unsettled)).collect();
        assert_eq!(states, [('a', true), ('b', false), ('c', false)]);
    }

    proptest! {
        /// Whatever the order of answers and breaks, each batch is answered exactly once and resends keep the order.
        #[test]
        fn each_batch_is_answered_once_and_order_is_kept(steps in prop::collection::vec(0u8..10, 0..200)) {
            let mut window = Window::new(0);
            let (mut seq, mut answered, mut on_wire) = (0u64, Vec::new(), VecDeque::<(u64, u64)>::new());
            for step in steps {
                match step {
                    0..=3 => { window.push(seq, seq); seq += 1; }
                    4..=6 => while let Some((req, s, item)) = window.send_next() {
                        prop_assert_eq!(s, *item);
                        prop_assert!(on_wire.back().is_none_or(|(r, last)| *r < req && *last < s));
                        on_wire.push_back((req, s));
                    },
                    7..=8 => if let Some((req, s)) = on_wire.pop_front() {
                        let entry = window.answered(req);
                        prop_assert_eq!(entry.map(|e| e.seq), Some(s));
                        answered.push(s);
                    },
                    _ => { window.broken(); on_wire.clear(); }
                }
            }
            prop_assert!(answered.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(window.first_seq().unwrap_or(seq), answered.len() as u64);
        }
    }
}
