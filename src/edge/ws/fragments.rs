//! Counts the frames of each message a client sends. The WebSocket library puts messages together and has no bound on their number:
//! 8 MiB in frames of one byte are 8 million turns. So the headers are read here too, on the way in (RFC 6455 section 5.2).

use crate::types::limits;

/// Why reading ends, behind the library's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyFragments;

impl std::fmt::Display for TooManyFragments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "The message has more than {} frames.", limits::WS_FRAGMENTS)
    }
}

impl std::error::Error for TooManyFragments {}

/// Where in its frames a byte stream is.
#[derive(Debug, Default)]
pub struct Fragments {
    /// The header so far.
    header: [u8; 10],
    have: usize,
    /// Bytes of mask and payload still to pass.
    skip: u64,
    /// Frames of the message that is on its way.
    frames: u32,
}

impl Fragments {
    /// Takes the next bytes of the stream. `Err(n)`: the frame that begins among or after the first `n` is one too many.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let n = self.skip.min((bytes.len() - at) as u64);
                self.skip -= n;
                at += n as usize;
                continue;
            }
            self.header[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            if self.have == self.header_len() {
                self.begin().map_err(|TooManyFragments| at - self.have.min(at))?;
                self.have = 0;
            }
        }
        Ok(())
    }

    fn header_len(&self) -> usize {
        match (self.have, self.header[1] & 0x7f) {
            (..=1, _) => 2,
            (_, 126) => 4,
            (_, 127) => 10,
            _ => 2,
        }
    }

    fn begin(&mut self) -> Result<(), TooManyFragments> {
        let h = &self.header;
        let payload = match h[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([h[2], h[3]])),
            127 => u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]),
            short => u64::from(short),
        };
        let mask = if h[1] & 0x80 == 0 { 0 } else { 4 };
        self.skip = payload.saturating_add(mask);
        let (last, opcode) = (h[0] & 0x80 != 0, h[0] & 0x0f);
        // Control frames may come between; they are no part of the message.
        if opcode < 8 {
            self.frames += 1;
            if self.frames > limits::WS_FRAGMENTS {
                return Err(TooManyFragments);
            }
            if last {
                self.frames = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(last: bool, opcode: u8, payload: usize) -> Vec<u8> {
        let mut out = vec![u8::from(last) << 7 | opcode];
        match payload {
            0..=125 => out.push(0x80 | payload as u8),
            126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        out.resize(out.len() + 4 + payload, 0x82); // looks like a header
        out
    }

    /// A message in `n` frames, with a ping between any two.
    fn message(n: u32, payload: usize) -> Vec<u8> {
        (0..n).flat_map(|i| [frame(i + 1 == n, if i == 0 { 1 } else { 0 }, payload), frame(true, 9, 3)].concat()).collect()
    }

    #[test]
    fn a_message_has_at_most_1024_frames_however_often_it_is_pinged_and_the_next_one_counts_anew() {
        for n in [1, 2, limits::WS_FRAGMENTS - 1, limits::WS_FRAGMENTS] {
            assert_eq!(Fragments::default().pass(&[message(n, 1), message(n, 1)].concat()), Ok(()), "{n}");
        }
        let bytes = message(limits::WS_FRAGMENTS + 1, 1);
        let last = bytes.len() - frame(true, 0, 1).len() - frame(true, 9, 3).len();
        assert_eq!(Fragments::default().pass(&bytes), Err(last), "everything before the frame that is too many");
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_come(sizes in proptest::collection::vec(0usize..70_000, 1..6), step in 1usize..5000) {
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| frame(false, 2, *size)).collect();
            let mut fragments = Fragments::default();
            for chunk in bytes.chunks(step) {
                prop_assert_eq!(fragments.pass(chunk), Ok(()));
            }
            prop_assert_eq!((fragments.frames as usize, fragments.have, fragments.skip), (sizes.len(), 0, 0));
        }
    }
}
