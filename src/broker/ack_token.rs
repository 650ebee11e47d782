//! Ack tokens: what a pull handed out, signed by the broker, so that the reader can prove it even after a restart (C-18).
//!
//! A token is bound to its stream and subscription by name; a re-created one has higher epochs, which fence it (S-8).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::types::{Code, Error, Result, StreamName, SubscriptionName, TimeUs};

const VERSION: u8 = 1;
/// Version and five numbers.
const CONTENT_BYTES: usize = 1 + 5 * 8;
/// Half of the hash: 128 bits, as many as a key needs.
const TAG_BYTES: usize = 16;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Of which session.
    pub epoch: u64,
    /// First offset handed out.
    pub from: u64,
    /// One past the last offset handed out.
    pub to: u64,
    /// Of which history.
    pub log_epoch: u64,
    /// On the clock of S-9.
    pub expires: TimeUs,
}

/// Writes and reads tokens. Its key is derived from the secret that was made when the data directory was.
pub struct AckTokens(Hmac<Sha256>);

impl AckTokens {
    /// From the secret of the data directory.
    pub fn new(secret: &[u8]) -> Self {
        let derived = keyed(secret).chain_update(b"tidelog ack token").finalize().into_bytes();
        Self(keyed(&derived))
    }

    fn sign(&self, stream: &StreamName, subscription: &SubscriptionName, content: &[u8]) -> Hmac<Sha256> {
        let (stream, subscription) = (stream.folded(), subscription.folded());
        // The content has one length, and a name's length stands before it: no two inputs are the same bytes.
        self.0.clone().chain_update(content).chain_update([stream.len() as u8]).chain_update(stream.as_bytes()).chain_update(subscription.as_bytes())
    }

    /// A token for what was handed out.
    pub fn write(&self, stream: &StreamName, subscription: &SubscriptionName, run: &Run) -> String {
        let mut bytes = vec![VERSION];
        for number in [run.epoch, run.from, run.to, run.log_epoch, run.expires.0 as u64] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let tag = self.sign(stream, subscription, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token of ours back. Compares in constant time.
    ///
    /// # Errors
    /// `bad_ack_token` (C-18) for anything that this broker did not write for this subscription.
    pub fn read(&self, stream: &StreamName, subscription: &SubscriptionName, token: &str) -> Result<Run> {
        let foreign = || refused("was not given out for this subscription, or was altered");
        let bytes = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == CONTENT_BYTES + TAG_BYTES).ok_or_else(foreign)?;
        let (content, tag) = bytes.split_at(CONTENT_BYTES);
        self.sign(stream, subscription, content).verify_truncated_left(tag).map_err(|_| foreign())?;
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| content[1 + at * 8 + i]));
        Ok(Run { epoch: number(0), from: number(1), to: number(2), log_epoch: number(3), expires: TimeUs(number(4) as i64) })
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length")
}

/// C-18: why a token is not taken.
pub fn refused(why: &str) -> Error {
    Error::new(Code::BadAckToken, format!("The ack_token {why}. Pull again, without an epoch if need be, and acknowledge with the new token.")).rule("C-18")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (StreamName, SubscriptionName) {
        (StreamName::parse("Orders").unwrap(), SubscriptionName::parse("billing").unwrap())
    }

    fn run() -> Run {
        Run { epoch: 6, from: 41, to: 58, log_epoch: 1, expires: TimeUs(1_769_421_600_123_456) }
    }

    #[test]
    fn c18_a_token_reads_back_for_its_own_subscription_in_any_case() {
        let (stream, subscription) = names();
        let token = AckTokens::new(b"secret").write(&stream, &subscription, &run());
        let again = AckTokens::new(b"secret");
        assert_eq!(again.read(&stream, &subscription, &token), Ok(run()), "also by a broker that was restarted");
        assert_eq!(again.read(&StreamName::parse("oRDERS").unwrap(), &subscription, &token), Ok(run()));
        for (stream, subscription) in [("orders2", "billing"), ("orders", "billing2"), ("ordersb", "illing")] {
            let (stream, subscription) = (StreamName::parse(stream).unwrap(), SubscriptionName::parse(subscription).unwrap());
            assert_eq!(again.read(&stream, &subscription, &token).unwrap_err().code, Code::BadAckToken, "{stream} {subscription}");
        }
    }

    #[test]
    fn c18_a_token_with_any_bit_changed_or_of_another_broker_is_refused() {
        let (stream, subscription) = names();
        let tokens = AckTokens::new(b"secret");
        let token = tokens.write(&stream, &subscription, &run());
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(tokens.read(&stream, &subscription, &URL_SAFE_NO_PAD.encode(changed)).is_err(), "bit {bit}");
        }
        for bad in ["", "x", &token[1..], &format!("{token}A"), &format!("{token}="), "ü"] {
            assert_eq!(tokens.read(&stream, &subscription, bad).unwrap_err().rule.as_deref(), Some("C-18"), "{bad}");
        }
        assert!(AckTokens::new(b"other").read(&stream, &subscription, &token).is_err());
    }
}
