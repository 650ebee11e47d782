//! What the store's secret is used for: hashes of keys, source keys that can be shown again, passwords.
//!
//! Keys are random, so a keyed hash is enough; passwords are not, so they get Argon2id, a bounded number at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::Token;
use crate::types::{Code, Error, Result, limits};

/// See the module.
pub struct Vault {
    pepper: Hmac<Sha256>,
    seal: LessSafeKey,
    /// Argon2 takes 19 MiB and tens of milliseconds of a processor, each.
    passwords: Semaphore,
    /// What a password is held against when there is no such user: the same work.
    nobody: String,
}

impl Vault {
    /// From the secret of the data directory.
    pub fn new(secret: &[u8]) -> Self {
        let derive = |label: &[u8]| keyed(secret).chain_update(label).finalize().into_bytes();
        let seal = UnboundKey::new(&CHACHA20_POLY1305, &derive(b"tidelog source keys")).expect("32 bytes are a key");
        Self {
            pepper: keyed(&derive(b"tidelog key hashes")),
            seal: LessSafeKey::new(seal),
            passwords: Semaphore::new(limits::PASSWORDS_AT_ONCE),
            nobody: format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", "bm9ib2R5IHNhbHQ5", "bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8"),
        }
    }

    /// What is stored of a token.
    pub fn hash(&self, token: &Token) -> Vec<u8> {
        self.pepper.clone().chain_update(token.reveal()).finalize().into_bytes().to_vec()
    }

    /// Is it the one whose hash was stored? In constant time; also against nothing, so that an unknown id costs the same.
    pub fn is(&self, token: &Token, stored: Option<&[u8]>) -> bool {
        let hash = self.hash(token);
        let nothing = [0; 32];
        let same = bool::from(hash.as_slice().ct_eq(stored.unwrap_or(&nothing)));
        same && stored.is_some()
    }

    /// A source key, so that only this broker reads it, and only as this source's.
    pub fn seal(&self, source: u64, token: &Token) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = token.reveal().as_bytes().to_vec();
        let sealed = self.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(source.to_be_bytes()), &mut text);
        sealed.expect("a short text can be sealed");
        [nonce.as_slice(), &text].concat()
    }

    /// Reads [`Vault::seal`] back.
    ///
    /// # Errors
    /// `internal` when the row is damaged.
    pub fn unseal(&self, source: u64, sealed: &[u8]) -> Result<String> {
        let damaged = || Error::internal(format!("the stored key of source {source} cannot be read"));
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let mut text = text.to_vec();
        let opened = self.seal.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(source.to_be_bytes()), &mut text);
        opened.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()).ok_or_else(damaged)
    }

    /// What is stored of a password.
    ///
    /// # Errors
    /// `bad_parameter` for one that is too short or too long; `overloaded`.
    pub async fn hash_password(&self, password: String) -> Result<String> {
        let length = password.chars().count();
        if length < limits::PASSWORD_MIN_CHARACTERS || password.len() > limits::PASSWORD_MAX_BYTES {
            let (least, most) = (limits::PASSWORD_MIN_CHARACTERS, limits::PASSWORD_MAX_BYTES);
            return Err(Error::bad("password", format!("The password has {length} characters; give it at least {least}, and at most {most} bytes.")));
        }
        self.work(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| Error::internal(e.to_string()))).await?
    }

    /// Is it the one that was stored? Without a stored one the same work is done for nothing.
    ///
    /// # Errors
    /// `overloaded`.
    pub async fn is_password(&self, password: String, stored: Option<String>) -> Result<bool> {
        if password.len() > limits::PASSWORD_MAX_BYTES {
            return Ok(false);
        }
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let same =
            self.work(move || PasswordHash::new(&stored).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())).await?;
        Ok(same && known)
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy = || Error::new(Code::Overloaded, "Too many passwords are being checked; try again in a moment.");
        let _permit = tokio::time::timeout(limits::ADMISSION_WAIT, self.passwords.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::super::Family;
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_and_by_no_other_brokers() {
        let (here, there) = (Vault::new(&[1; 32]), Vault::new(&[2; 32]));
        let (token, other) = (Token::new(Family::UserKey), Token::new(Family::UserKey));
        let hash = here.hash(&token);
        assert!(here.is(&token, Some(&hash)));
        assert!(!here.is(&other, Some(&hash)) && !here.is(&token, None) && !there.is(&token, Some(&hash)));
        assert!(!here.is(&token, Some(&hash[..31])) && !here.is(&token, Some(&[])));
    }

    #[test]
    fn a_sealed_key_is_read_by_its_broker_for_its_source() {
        let vault = Vault::new(&[1; 32]);
        let token = Token::new(Family::SourceKey);
        let mut sealed = vault.seal(7, &token);
        assert_eq!(vault.unseal(7, &sealed).unwrap(), token.reveal());
        assert!(vault.unseal(8, &sealed).is_err() && Vault::new(&[2; 32]).unseal(7, &sealed).is_err() && vault.unseal(7, &sealed[..5]).is_err());
        *sealed.last_mut().unwrap() ^= 1;
        assert!(vault.unseal(7, &sealed).is_err());
    }

    #[tokio::test]
    async fn passwords_are_argon2id_and_nobody_has_none() {
        let vault = Vault::new(&[1; 32]);
        let stored = vault.hash_password("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$"), "{stored}");
        assert!(vault.is_password("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!vault.is_password("correct house".into(), Some(stored)).await.unwrap());
        assert!(!vault.is_password("correct horse".into(), None).await.unwrap());
        assert!(PasswordHash::new(&vault.nobody).is_ok(), "or the work would not be the same");
        for bad in ["short", &"x".repeat(limits::PASSWORD_MAX_BYTES + 1)] {
            assert_eq!(vault.hash_password(bad.to_owned()).await.unwrap_err().code, Code::BadParameter);
        }
    }
}
