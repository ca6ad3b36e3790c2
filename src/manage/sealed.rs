//! Values that may be looked up again (B9): AES-256-GCM under a key that comes from the pepper, so that the store alone gives
//! none of them away. Who looks one up is in the audit, before it is shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::key::target;
use super::{Failure, Session};
use crate::auth::Locksmith;
use crate::auth::digest::Purpose;
use crate::auth::key::Secret;
use crate::store::record::{Body, Kind, RecordId, SealedBody, SealedValue, to_json};
use crate::store::{Change, Expect, Store};

/// Encrypts a value for the record of a key. It opens for no other.
fn seal(value: &str, key: &str, locksmith: &Locksmith) -> Result<SealedValue, Failure> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)?;
    let mut text = value.as_bytes().to_vec();
    let sealed = cipher(locksmith).and_then(|cipher| {
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut text).ok()
    });
    sealed.ok_or(Failure::Unsealable)?;
    Ok(SealedValue(STANDARD.encode([&nonce[..], &text].concat())))
}

/// The value in the record of a key.
fn open(sealed: &SealedValue, key: &str, locksmith: &Locksmith) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(STANDARD.decode(&sealed.0).ok()?);
    let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = cipher(locksmith)?.open_in_place(nonce, Aad::from(key), text).ok()?;
    std::str::from_utf8(text).ok().map(|text| Zeroizing::new(text.to_owned()))
}

fn cipher(locksmith: &Locksmith) -> Option<LessSafeKey> {
    let key = locksmith.pepper.key_for(Purpose::Sealing);
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).ok()?))
}

impl<S: Store> Session<S> {
    /// The change that seals a key's newest value in place of the one before.
    pub(super) fn sealing(&self, key: &str, secret: &Secret) -> Result<Change, Failure> {
        let body = SealedBody { value: seal(secret.reveal(), key, &self.locksmith)?, created_time: self.now };
        Ok(Change { id: RecordId::new(Kind::Sealed, key), expect: Expect::Any, body: Some(to_json(&body)) })
    }

    /// The value of a key that keeps it. That it was looked up is committed first.
    ///
    /// # Errors
    /// When there is no such key, it keeps no value, or the store cannot be written.
    pub async fn look_up_value(&self, id: &str) -> Result<Zeroizing<String>, Failure> {
        let key = self.key(id).await?;
        let record_id = RecordId::new(Kind::Sealed, id);
        let (_, record) = self.store.get(&record_id).await?;
        let not_kept = || Failure::NotKept(RecordId::key(id));
        let json = record.and_then(|record| record.body).ok_or_else(not_kept)?;
        let Body::Sealed(body) = Body::parse(&record_id, &json)? else { return Err(not_kept()) };
        let value = open(&body.value, id, &self.locksmith).ok_or(Failure::Unsealable)?;
        let detail = json!({ "target": target(id) });
        self.store.commit(self.entry("key.look_up", [&key.body.scope], detail, Vec::new())).await?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::testing::locksmith;

    #[test]
    fn a_sealed_value_opens_for_its_key_and_only_whole() {
        let locksmith = locksmith();
        let [a, b] = ["k1", "k1"].map(|key| seal("7e14204fcce1e00152b4", key, &locksmith).unwrap());
        assert_ne!(a, b, "each has a nonce of its own");
        assert_eq!(open(&a, "k1", &locksmith).as_deref().map(String::as_str), Some("7e14204fcce1e00152b4"));
        assert!(open(&a, "k2", &locksmith).is_none());
        let mut bytes = STANDARD.decode(&a.0).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(open(&SealedValue(STANDARD.encode(&bytes)), "k1", &locksmith).is_none(), "{at}");
            bytes[at] ^= 1;
        }
        assert!(open(&SealedValue("AAAA".to_owned()), "k1", &locksmith).is_none());
    }
}
