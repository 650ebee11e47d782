//! Did every event come once, and in its producer's order? Plain values; a reader feeds it.

/// Bytes of the mark in front of each event's data: producer u32, counter u64, time of sending u64 (nanoseconds).
pub const MARK_BYTES: usize = 20;

/// Writes a mark.
pub fn mark(data: &mut [u8], producer: u32, counter: u64, sent_ns: u64) {
    data[..4].copy_from_slice(&producer.to_le_bytes());
    data[4..12].copy_from_slice(&counter.to_le_bytes());
    data[12..20].copy_from_slice(&sent_ns.to_le_bytes());
}

fn read_mark(data: &[u8]) -> Option<(u32, u64, u64)> {
    let u64_at = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let producer = data.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)?;
    Some((producer, u64_at(4)?, u64_at(12)?))
}

/// What one reader saw.
#[derive(Debug)]
pub struct Checker {
    /// The counter each producer's next event should have.
    next: Vec<u64>,
    next_offset: Option<u64>,
    seen: u64,
    lost: u64,
    repeated: u64,
    first_wrong: Option<String>,
}

impl Checker {
    /// For events of this many producers.
    pub fn new(producers: u32) -> Self {
        Self { next: vec![0; producers as usize], next_offset: None, seen: 0, lost: 0, repeated: 0, first_wrong: None }
    }

    /// Takes the next event; gives the time it was sent.
    pub fn check(&mut self, offset: u64, data: &[u8]) -> Option<u64> {
        self.seen += 1;
        if self.next_offset.is_some_and(|next| next != offset) {
            self.wrong(format!("offset {offset} came where {} was due", self.next_offset.unwrap_or(0)));
        }
        self.next_offset = Some(offset + 1);
        let Some((producer, counter, sent_ns)) = read_mark(data).filter(|(producer, ..)| (*producer as usize) < self.next.len()) else {
            self.wrong(format!("event {offset} is none of this run"));
            return None;
        };
        let due = &mut self.next[producer as usize];
        match counter.cmp(due) {
            std::cmp::Ordering::Equal => *due += 1,
            std::cmp::Ordering::Less => {
                let due = *due;
                self.repeated += 1;
                self.wrong(format!("event {offset} is number {counter} of producer {producer}, which had come before (due was {due})"));
            }
            std::cmp::Ordering::Greater => {
                let missing = counter - *due;
                *due = counter + 1;
                self.lost += missing;
                self.wrong(format!("before event {offset}, {missing} events of producer {producer} are missing"));
            }
        }
        Some(sent_ns)
    }

    /// The broker said that events are gone; nothing removes any in a run.
    pub fn gap(&mut self, from: u64, to: u64) {
        self.next_offset = Some(to + 1);
        self.wrong(format!("a gap from {from} to {to}"));
    }

    /// Events so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    fn wrong(&mut self, what: String) {
        self.first_wrong.get_or_insert(what);
    }

    /// Is everything there that each producer sent?
    ///
    /// # Errors
    /// A sentence with the figures and the first thing that was wrong.
    pub fn verdict(&self, sent: &[u64]) -> Result<(), String> {
        let missing: u64 = self.next.iter().zip(sent).map(|(next, sent)| sent.saturating_sub(*next)).sum();
        let surplus: u64 = self.next.iter().zip(sent).map(|(next, sent)| next.saturating_sub(*sent)).sum();
        if self.first_wrong.is_none() && missing == 0 && surplus == 0 {
            return Ok(());
        }
        let first = self.first_wrong.as_deref().unwrap_or("the end is missing");
        Err(format!(
            "{} lost, {} repeated, {surplus} never acknowledged, out of {}; first: {first}.",
            self.lost + missing,
            self.repeated,
            sent.iter().sum::<u64>()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(marks: &[(u32, u64)], sent: &[u64]) -> Result<(), String> {
        let mut checker = Checker::new(2);
        for (offset, (producer, counter)) in marks.iter().enumerate() {
            let mut data = [0; MARK_BYTES];
            mark(&mut data, *producer, *counter, 7);
            assert_eq!(checker.check(offset as u64, &data), Some(7));
        }
        checker.verdict(sent)
    }

    #[test]
    fn interleaved_producers_in_order_pass() {
        assert_eq!(run(&[(0, 0), (1, 0), (1, 1), (0, 1)], &[2, 2]), Ok(()));
    }

    #[test]
    fn loss_repetition_and_a_missing_end_are_told_apart() {
        assert!(run(&[(0, 0), (0, 2)], &[3, 0]).unwrap_err().starts_with("1 lost, 0 repeated"));
        assert!(run(&[(0, 0), (0, 0)], &[1, 0]).unwrap_err().starts_with("0 lost, 1 repeated"));
        assert!(run(&[(0, 0)], &[2, 0]).unwrap_err().contains("the end is missing"));
        assert!(run(&[(0, 0), (0, 1)], &[1, 0]).unwrap_err().contains("1 never acknowledged"));
    }

    #[test]
    fn foreign_events_and_holes_in_the_offsets_fail() {
        let mut checker = Checker::new(1);
        assert_eq!(checker.check(0, b"short"), None);
        assert!(checker.verdict(&[0]).is_err());
        let mut checker = Checker::new(1);
        let mut data = [0; MARK_BYTES];
        mark(&mut data, 0, 0, 0);
        checker.check(0, &data);
        mark(&mut data, 0, 1, 0);
        checker.check(2, &data);
        assert!(checker.verdict(&[2]).unwrap_err().contains("offset 2 came where 1 was due"));
    }
}
