//! Reports of leaked keys as those sign them who search public code: GitHub's secret scanning partner programme. They have no key
//! of ours; that a report is theirs, their signature says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

const IDENTIFIER: &str = "github-public-key-identifier";
const SIGNATURE: &str = "github-public-key-signature";

/// What stands before the point of a public key on the curve P-256 in its usual form (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The keys by which reports are signed.
#[derive(Debug)]
pub struct PublicKeys(Vec<PublicKey>);

#[derive(Debug)]
struct PublicKey {
    identifier: String,
    /// The uncompressed point.
    point: Vec<u8>,
}

/// Why a file is no list of public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPublicKeys {
    /// It is something else.
    #[error("is not what https://api.github.com/meta/public_keys/secret_scanning answers: an object with public_keys")]
    OtherShape,
    /// One of the keys is not.
    #[error("has a key that is none on the curve P-256 in PEM")]
    OtherKey,
    /// There are none.
    #[error("has no keys")]
    Empty,
}

impl PublicKeys {
    /// Reads a file as GitHub gives it out.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &[u8]) -> Result<Self, NotPublicKeys> {
        #[derive(Deserialize)]
        struct File {
            public_keys: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            key_identifier: String,
            key: String,
        }
        let file: File = serde_json::from_slice(text).map_err(|_| NotPublicKeys::OtherShape)?;
        let key = |Listed { key_identifier, key }| {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(key.as_bytes()).map_err(|_| NotPublicKeys::OtherKey)?;
            let point = der.strip_prefix(&P256).filter(|point| point.len() == 65).ok_or(NotPublicKeys::OtherKey)?;
            Ok(PublicKey { identifier: key_identifier, point: point.to_vec() })
        };
        let keys: Vec<PublicKey> = file.public_keys.into_iter().map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(NotPublicKeys::Empty) } else { Ok(Self(keys)) }
    }

    /// Whether a body is as one of these has signed it.
    pub(super) fn have_signed(&self, headers: &HeaderMap, body: &Bytes) -> bool {
        // Of two that differ nobody knows which one was meant.
        let one = |name: &str| {
            let mut lines = headers.get_all(name).into_iter();
            lines.next().filter(|_| lines.next().is_none()).and_then(|line| line.to_str().ok())
        };
        let (Some(identifier), Some(signature)) = (one(IDENTIFIER), one(SIGNATURE)) else { return false };
        let Some(key) = self.0.iter().find(|key| key.identifier == identifier) else { return false };
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point).verify(body, &signature).is_ok()
    }
}

/// Whether a report claims to be signed.
pub(super) fn claims(headers: &HeaderMap) -> bool {
    headers.contains_key(IDENTIFIER) || headers.contains_key(SIGNATURE)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn pair() -> EcdsaKeyPair {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap()
    }

    fn listed(identifier: &str, pair: &EcdsaKeyPair) -> serde_json::Value {
        let der = STANDARD.encode([&P256[..], pair.public_key().as_ref()].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        serde_json::json!({ "key_identifier": identifier, "key": pem, "is_current": true })
    }

    #[test]
    fn only_who_has_the_key_signs() {
        let (one, other) = (pair(), pair());
        let file = serde_json::json!({ "public_keys": [listed("a", &one), listed("b", &other)] });
        let keys = PublicKeys::parse(file.to_string().as_bytes()).unwrap();
        let sign = |pair: &EcdsaKeyPair, body: &str| {
            STANDARD.encode(pair.sign(&SystemRandom::new(), body.as_bytes()).unwrap())
        };
        let judged = |fields: &[(&'static str, &str)], body: &'static str| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            keys.have_signed(&headers, &Bytes::from_static(body.as_bytes()))
        };
        let good = sign(&one, "[]");
        assert!(judged(&[(IDENTIFIER, "a"), (SIGNATURE, &good)], "[]"));
        for (fields, body) in [
            (&[(IDENTIFIER, "a"), (SIGNATURE, good.as_str())][..], "[ ]"),
            (&[(IDENTIFIER, "b"), (SIGNATURE, &good)], "[]"),
            (&[(IDENTIFIER, "c"), (SIGNATURE, &good)], "[]"),
            (&[(IDENTIFIER, "a"), (IDENTIFIER, "b"), (SIGNATURE, &good)], "[]"),
            (&[(IDENTIFIER, "a"), (SIGNATURE, &sign(&other, "[]"))], "[]"),
            (&[(IDENTIFIER, "a"), (SIGNATURE, "")], "[]"),
            (&[(IDENTIFIER, "a"), (SIGNATURE, "!")], "[]"),
            (&[(IDENTIFIER, "a")], "[]"),
            (&[(SIGNATURE, &good)], "[]"),
        ] {
            assert!(!judged(fields, body), "{fields:?} {body}");
        }
    }

    #[test]
    fn what_is_no_list_of_keys_says_what_it_should_be() {
        let parse = |text: &str| PublicKeys::parse(text.as_bytes()).map(|keys| keys.0.len());
        let mut rsa = listed("a", &pair());
        rsa["key"] = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into();
        for (text, expected) in [
            ("".to_owned(), Err(NotPublicKeys::OtherShape)),
            ("[]".to_owned(), Err(NotPublicKeys::OtherShape)),
            (r#"{"public_keys":[]}"#.to_owned(), Err(NotPublicKeys::Empty)),
            (serde_json::json!({ "public_keys": [rsa] }).to_string(), Err(NotPublicKeys::OtherKey)),
            (serde_json::json!({ "public_keys": [listed("a", &pair())] }).to_string(), Ok(1)),
        ] {
            assert_eq!(parse(&text), expected, "{text}");
        }
    }
}
