//! What was answered to requests that may come twice: a client that sends an `Idempotency-Key` and loses the answer asks again,
//! and gets the same answer instead of a second key. Answers have values in them, so they are kept in memory alone, for a few
//! minutes, and are wiped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::caller::Caller;
use super::envelope::{Answer, Trouble};
use crate::auth::authority::Authority;
use crate::manage::Mistake;

static NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// How long an answer is remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// How many answers are.
const MOST: usize = 1_000;
/// How many of one caller: nobody pushes out what others wait for.
const MOST_OF_ONE: usize = 100;

type Fingerprint = [u8; 32];

/// The answers that are remembered.
#[derive(Clone, Default)]
pub(super) struct Replays(Arc<Mutex<HashMap<Fingerprint, Entry>>>);

struct Entry {
    at: Instant,
    caller: Box<str>,
    question: Fingerprint,
    /// What the caller might do.
    authority: Authority,
    /// `None` while it is being made.
    answer: Option<Kept>,
}

struct Kept {
    result: Zeroizing<String>,
    etag: Option<u64>,
    revision: Option<u64>,
}

/// What is known of a question.
pub(super) enum Remembered {
    /// It does not say that it may come twice.
    Nothing,
    /// It has come before.
    Answer(Answer),
    /// It has not: its answer will be remembered here.
    Place(Place),
}

/// Where an answer will be remembered; forgotten if there is none.
pub(super) struct Place {
    replays: Replays,
    name: Fingerprint,
}

impl Place {
    /// Remembers an answer.
    pub(super) fn remember(self, answer: &Answer) {
        let (etag, revision) = (answer.etag, answer.revision);
        let kept = Kept { result: Zeroizing::new(answer.result.clone()), etag, revision };
        if let Some(entry) = self.replays.lock().get_mut(&self.name) {
            entry.answer = Some(kept);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut entries = self.replays.lock();
        if entries.get(&self.name).is_some_and(|entry| entry.answer.is_none()) {
            entries.remove(&self.name);
        }
    }
}

impl Replays {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether a question has come before.
    ///
    /// # Errors
    /// When it has come with something else in it, is still being answered, its key is too long, or the caller may no longer do
    /// all that it might then: what was made is for those who may make it.
    pub(super) fn look(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        (path, body): (&str, &Bytes),
    ) -> Result<Remembered, Trouble> {
        let Some(key) = headers.get(&NAME) else { return Ok(Remembered::Nothing) };
        if !(1..=255).contains(&key.len()) {
            let (field, why) = ("Idempotency-Key".to_owned(), "must be 1 to 255 characters".to_owned());
            return Err(Trouble::invalid(vec![Mistake { field, why }]));
        }
        let (name, question) = (hash(&[caller.actor.as_bytes(), key.as_bytes()]), hash(&[path.as_bytes(), body]));
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.at.elapsed() < MEMORY);
        match entries.get(&name) {
            Some(entry) if entry.question != question => {
                let why = "this Idempotency-Key came with another request";
                Err(Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", why))
            }
            Some(entry) if !caller.authority.includes(&entry.authority) => {
                let why = "you may do less than when the first request with this Idempotency-Key came";
                Err(Trouble::forbidden(why))
            }
            Some(Entry { answer: None, .. }) => {
                let why = "the first request with this Idempotency-Key is still under way";
                Err(Trouble::new(StatusCode::CONFLICT, "in_progress", why).retry_after(1))
            }
            Some(Entry { answer: Some(kept), .. }) => {
                let (etag, revision) = (kept.etag, kept.revision);
                Ok(Remembered::Answer(Answer {
                    result: kept.result.to_string(),
                    links: None,
                    etag,
                    revision,
                    cookie: None,
                    status: StatusCode::OK,
                    is_bare: false,
                }))
            }
            None => {
                let is_theirs = |entry: &Entry| *entry.caller == *caller.actor;
                let theirs = entries.values().filter(|entry| is_theirs(entry)).count();
                let from = entries.iter().filter(|(_, entry)| theirs < MOST_OF_ONE || is_theirs(entry));
                let oldest = from.min_by_key(|(_, entry)| entry.at).map(|(name, _)| *name);
                if theirs >= MOST_OF_ONE || entries.len() >= MOST {
                    oldest.and_then(|oldest| entries.remove(&oldest));
                }
                let (at, authority, caller) = (Instant::now(), caller.authority.clone(), caller.actor.as_str().into());
                entries.insert(name, Entry { at, caller, question, authority, answer: None });
                Ok(Remembered::Place(Place { replays: self.clone(), name }))
            }
        }
    }
}

fn hash(parts: &[&[u8]]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authority::{Permission, Permissions};
    use crate::auth::grant::Environment;
    use crate::store::record::Subject;

    fn caller(key: &str, permissions: &[Permission]) -> Caller {
        let subject = Subject::Key(key.into());
        let authority = Authority::new(Permissions::of(permissions), None);
        Caller { actor: subject.to_string(), subject, scope: None, authority, signed_in: None, env: Environment::Live }
    }

    fn look(replays: &Replays, key: &str, who: &str, body: &'static str) -> Result<Remembered, Trouble> {
        look_as(replays, key, &caller(who, &[Permission::KeysWrite]), body)
    }

    fn look_as(replays: &Replays, key: &str, caller: &Caller, body: &'static str) -> Result<Remembered, Trouble> {
        let headers = HeaderMap::from_iter([(NAME.clone(), key.parse().unwrap())]);
        replays.look(&headers, caller, ("/v2/keys", &Bytes::from_static(body.as_bytes())))
    }

    #[test]
    fn the_same_question_gets_the_same_answer() {
        let replays = Replays::default();
        let Ok(Remembered::Place(place)) = look(&replays, "a", "k1", "1") else { panic!("it is new") };
        assert_eq!(look(&replays, "a", "k1", "1").err().unwrap().status, StatusCode::CONFLICT);
        place.remember(&Answer::of(&7).unwrap().after_change(3));
        let Ok(Remembered::Answer(answer)) = look(&replays, "a", "k1", "1") else { panic!("it is known") };
        assert_eq!((answer.result.as_str(), answer.revision), ("7", Some(3)));
        assert_eq!(look(&replays, "a", "k1", "2").err().unwrap().status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(matches!(look(&replays, "a", "k2", "1"), Ok(Remembered::Place(_))));
        let withdrawn = caller("k1", &[Permission::KeysRead]);
        assert_eq!(look_as(&replays, "a", &withdrawn, "1").err().unwrap().status, StatusCode::FORBIDDEN);
        assert!(matches!(replays.look(&HeaderMap::new(), &withdrawn, ("/", &Bytes::new())), Ok(Remembered::Nothing)));
    }

    #[test]
    fn a_question_that_failed_may_come_again_and_memory_has_an_end() {
        let replays = Replays::default();
        drop(look(&replays, "a", "k1", "1"));
        assert!(matches!(look(&replays, "a", "k1", "2"), Ok(Remembered::Place(_))));
        let ask = |n: usize, who: &str| look(&replays, &n.to_string(), who, "1");
        let mut places: Vec<_> = (0..MOST).map(|n| ask(n, &format!("k{}", n % 20))).collect();
        places.extend((0..MOST).map(|n| ask(n, "greedy")));
        // Whoever asks much pushes out their own, and at most so many of others.
        let of = |who: &str| replays.lock().values().filter(|entry| &*entry.caller == who).count();
        let all = replays.lock().len();
        assert_eq!((all, of("key:greedy")), (MOST, MOST_OF_ONE));
        assert!((0..20).all(|n| of(&format!("key:k{n}")) >= 40));
        drop(places);
        assert_eq!(replays.lock().len(), 0);
    }

    #[test]
    fn the_oldest_goes_first_and_none_is_remembered_for_ever() {
        let (replays, who) = (Replays::default(), |n: usize| format!("k{n}"));
        for n in 0..=MOST {
            let Ok(Remembered::Place(place)) = look(&replays, &n.to_string(), &who(n), "1") else {
                panic!("{n} is new")
            };
            place.remember(&Answer::of(&n).unwrap());
        }
        assert!(
            matches!(look(&replays, &MOST.to_string(), &who(MOST), "1"), Ok(Remembered::Answer(_))),
            "the last is there"
        );
        assert!(matches!(look(&replays, "0", &who(0), "1"), Ok(Remembered::Place(_))), "the first is gone");
        let almost = MEMORY - Duration::from_secs(1);
        let age = |by: Duration| replays.lock().values_mut().for_each(|entry| entry.at -= by);
        age(almost);
        assert!(matches!(look(&replays, "5", &who(5), "1"), Ok(Remembered::Answer(_))));
        age(Duration::from_secs(1));
        assert!(matches!(look(&replays, "5", &who(5), "1"), Ok(Remembered::Place(_))));
    }

    #[test]
    fn the_same_words_about_something_else_are_another_question() {
        let (replays, caller) = (Replays::default(), caller("k1", &[Permission::KeysWrite]));
        let headers = HeaderMap::from_iter([(NAME.clone(), "a".parse().unwrap())]);
        let ask = |path| replays.look(&headers, &caller, (path, &Bytes::from_static(b"{}")));
        let Ok(Remembered::Place(place)) = ask("/v2/keys/k1/secrets") else { panic!("it is new") };
        place.remember(&Answer::of(&"the value of k1").unwrap());
        assert_eq!(ask("/v2/keys/k2/secrets").err().unwrap().status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}
