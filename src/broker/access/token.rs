//! Keys and tokens: what they look like. A prefix says what it is (and lets scanners of source code find lost ones), a public part finds
//! the row, a secret of 144 bits proves it, a checksum tells a typing error from a wrong key without a look at the store.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crc_fast::CrcAlgorithm;

use super::unknown_credential;
use crate::log::rows::ApiKeyId;
use crate::types::Result;

/// Bytes of the secret part.
const SECRET_BYTES: usize = 18;
/// All of it behind the prefix: 9 + 18 + 3 bytes are 40 characters.
const CHECK_BYTES: usize = 3;

/// What kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Acts for a user.
    UserKey,
    /// Acts for a source.
    SourceKey,
    /// A console session.
    Session,
    /// Opens one connection of a browser.
    Ticket,
}

impl Family {
    const ALL: [Self; 4] = [Self::UserKey, Self::SourceKey, Self::Session, Self::Ticket];

    const fn prefix(self) -> &'static str {
        match self {
            Self::UserKey => "tlu_",
            Self::SourceKey => "tls_",
            Self::Session => "tlc_",
            Self::Ticket => "tlt_",
        }
    }
}

/// A token, whole. Never printed: `Debug` and the public part show only what may be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    family: Family,
    id: ApiKeyId,
    text: String,
}

impl Token {
    /// A new one, from the system's randomness.
    pub fn new(family: Family) -> Self {
        let (id, secret): (ApiKeyId, [u8; SECRET_BYTES]) = (rand::random(), rand::random());
        let mut bytes = id.to_vec();
        bytes.extend_from_slice(&secret);
        let check = checksum(family, &bytes);
        bytes.extend_from_slice(&check);
        Self { family, id, text: format!("{}{}", family.prefix(), URL_SAFE_NO_PAD.encode(bytes)) }
    }

    /// Reads one.
    ///
    /// # Errors
    /// `unauthenticated`, the same for all that is no token.
    pub fn parse(text: &str) -> Result<Self> {
        let found = Family::ALL.into_iter().find_map(|family| Some((family, text.strip_prefix(family.prefix())?)));
        let (family, body) = found.ok_or_else(unknown_credential)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).ok().filter(|bytes| bytes.len() == 9 + SECRET_BYTES + CHECK_BYTES).ok_or_else(unknown_credential)?;
        let (content, check) = bytes.split_at(bytes.len() - CHECK_BYTES);
        if check != checksum(family, content) {
            return Err(unknown_credential());
        }
        let id = content.first_chunk().copied().ok_or_else(unknown_credential)?;
        Ok(Self { family, id, text: text.to_owned() })
    }

    /// What kind it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its public part.
    pub fn id(&self) -> &ApiKeyId {
        &self.id
    }

    /// All of it: for its owner, once.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

/// The public part of what may be a token, for counting; `None` when it cannot be one.
pub fn credential_id(text: &str) -> Option<&str> {
    let long_enough = Family::ALL.into_iter().any(|family| text.starts_with(family.prefix()));
    text.get(..16).filter(|_| long_enough)
}

/// The public part as people see it.
pub fn public(family: Family, id: &ApiKeyId) -> String {
    format!("{}{}", family.prefix(), URL_SAFE_NO_PAD.encode(id))
}

fn checksum(family: Family, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(family.prefix().as_bytes());
    digest.update(content);
    let [_, check @ ..] = (digest.finalize() as u32).to_be_bytes();
    check
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&public(self.family, &self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_shows_only_its_public_part() {
        for family in Family::ALL {
            let token = Token::new(family);
            assert_eq!(token.reveal().len(), 44);
            assert_eq!(Token::parse(token.reveal()).unwrap(), token);
            let shown = format!("{token:?}");
            assert!(token.reveal().starts_with(&shown) && shown.len() == 16, "{shown}");
        }
    }

    #[test]
    fn what_is_no_token_gets_one_answer() {
        let token = Token::new(Family::UserKey);
        let text = token.reveal();
        let other = text.replacen("tlu_", "tls_", 1);
        let longer = format!("{text}A");
        let spaced = format!("{text} ");
        for bad in ["", "tlu_", &text[..43], &other, &longer, &spaced, &text.to_uppercase(), "tlu_ÄÖÜ", &text.replacen('_', "\u{ff3f}", 1)] {
            assert_eq!(Token::parse(bad).unwrap_err(), unknown_credential(), "{bad}");
        }
        let mut typo = text.to_owned().into_bytes();
        typo[20] = if typo[20] == b'A' { b'B' } else { b'A' };
        assert!(Token::parse(std::str::from_utf8(&typo).unwrap()).is_err());
    }
}
