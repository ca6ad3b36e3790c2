//! Who has signed in: kept in the memory of this process alone. A restart signs everybody out, and of several processes each
//! has its own; whoever manages by program has a key.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HOST, HeaderMap, ORIGIN};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::auth::grant::Timestamp;

/// Signed out after this long without a request.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Signed out after this long in any case.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// More than these are not remembered: the one that was quiet the longest goes.
const MOST: usize = 4_096;

/// What a browser keeps. Only its hash is kept here.
pub(super) struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Somebody who has signed in.
#[derive(Clone, Debug)]
struct Session {
    user: Box<str>,
    since: Timestamp,
    began: Instant,
    used: Instant,
}

/// All who have.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// Signs a user in.
    pub(super) fn begin(&self, user: &str, since: Timestamp, now: Instant) -> Result<Token, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        let token = Token(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)));
        let mut sessions = self.lock();
        if sessions.len() >= MOST {
            sessions.retain(|_, session| session.is_good(now));
        }
        if sessions.len() >= MOST {
            let quietest = sessions.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash);
            quietest.and_then(|hash| sessions.remove(&hash));
        }
        sessions.insert(hash(&token.0), Session { user: user.into(), since, began: now, used: now });
        Ok(token)
    }

    /// Who has this token, and since when: they are here again.
    pub(super) fn find(&self, token: &Token, now: Instant) -> Option<(Box<str>, Timestamp)> {
        let (mut sessions, hash) = (self.lock(), hash(&token.0));
        let session = sessions.get_mut(&hash)?;
        if !session.is_good(now) {
            sessions.remove(&hash);
            return None;
        }
        session.used = now;
        Some((session.user.clone(), session.since))
    }

    /// Signs out.
    pub(super) fn end(&self, token: &Token) {
        self.lock().remove(&hash(&token.0));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Session>> {
        // It is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.used) < IDLE && now.duration_since(self.began) < LONGEST
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Where a browser keeps its token. It shows it to the admin listener alone: on the port of the upstream, pages of the upstream's
/// could use it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jar {
    /// On a port of our own, in the clear.
    Plain,
    /// On a port of our own, by https: browsers see to it that nobody but this host has set it.
    Host,
}

impl Jar {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "keyward",
            Self::Host => "__Host-keyward",
        }
    }
}

/// The header that gives a browser its token, or takes it back.
pub(super) fn cookie(token: Option<&Token>, jar: Jar) -> String {
    let (value, age) = token.map_or(("", 0), |token| (token.0.as_str(), LONGEST.as_secs()));
    let secure = if jar == Jar::Plain { "" } else { "; Secure" };
    format!("{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}", jar.name())
}

/// The token that a browser sends along. Two of them are none: somebody else may have set one.
pub(super) fn presented(headers: &HeaderMap, jar: Jar) -> Option<Token> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut tokens = pairs.filter(|(found, _)| *found == jar.name()).map(|(_, value)| value);
    let token = tokens.next().filter(|token| !token.is_empty())?;
    tokens.next().is_none().then(|| Token(Zeroizing::new(token.to_owned())))
}

/// Whether a request that browsers send cookies along with may come from another site's page. One that does not say where it
/// comes from must have a header that no other site's page can add.
pub(super) fn may_be_forged(headers: &HeaderMap, url: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return site != "same-origin";
    }
    match text(ORIGIN.as_str()) {
        Some(origin) => {
            let own = text(HOST.as_str()).map(|host| format!("http://{host}"));
            url.map(|url| url.trim_end_matches('/')).or(own.as_deref()) != Some(origin)
        }
        None => !headers.contains_key("x-keyward-request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_good_until_it_is_idle_old_or_given_back() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin = || sessions.begin("ann", Timestamp::from_millis(1), now).unwrap();
        let (quiet, busy, gone) = (begin(), begin(), begin());
        let at = |minutes: u64| now + Duration::from_secs(60 * minutes);
        sessions.end(&gone);
        assert!(sessions.find(&gone, now).is_none());
        assert_eq!(sessions.find(&busy, at(29)).map(|(user, _)| user), Some("ann".into()));
        assert!(sessions.find(&quiet, at(30)).is_none() && sessions.find(&quiet, now).is_none());
        for minutes in (58..720).step_by(29) {
            assert!(sessions.find(&busy, at(minutes)).is_some(), "{minutes}");
        }
        assert!(sessions.find(&busy, at(720)).is_none());
    }

    #[test]
    fn memory_has_an_end_and_the_quietest_goes() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin =
            |seconds| sessions.begin("ann", Timestamp::from_millis(1), now + Duration::from_secs(seconds)).unwrap();
        let (first, second) = (begin(0), begin(1));
        (2..=MOST as u64 / 64).for_each(|n| drop(begin(n)));
        (0..MOST).for_each(|_| drop(begin(65)));
        assert_eq!(sessions.lock().len(), MOST);
        let later = now + Duration::from_secs(66);
        assert!(sessions.find(&first, later).is_none() && sessions.find(&second, later).is_none());
    }

    #[test]
    fn cookies_are_for_this_host_and_no_script() {
        let token = Token(Zeroizing::new("abc".to_owned()));
        assert_eq!(
            cookie(Some(&token), Jar::Host),
            "__Host-keyward=abc; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(cookie(None, Jar::Plain), "keyward=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
        let found =
            |line: &str, jar: Jar| presented(&headers(&[("cookie", line)]), jar).map(|token| token.0.to_string());
        for (line, jar, expected) in [
            ("keyward=abc", Jar::Plain, Some("abc")),
            ("a=b; keyward=abc; c=d", Jar::Plain, Some("abc")),
            ("__Host-keyward=abc", Jar::Host, Some("abc")),
            ("keyward=abc", Jar::Host, None),
            ("keyward=abc; keyward=def", Jar::Plain, None),
            ("keyward=", Jar::Plain, None),
            ("xkeyward=abc", Jar::Plain, None),
        ] {
            assert_eq!(found(line, jar).as_deref(), expected, "{line}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn another_sites_page_is_not_believed() {
        for (list, url, forged) in [
            (&[][..], None, true),
            (&[("x-keyward-request", "1")], None, false),
            (&[("sec-fetch-site", "same-origin")], None, false),
            (&[("sec-fetch-site", "same-site"), ("x-keyward-request", "1")], None, true),
            (&[("sec-fetch-site", "cross-site")], None, true),
            (&[("sec-fetch-site", "none")], None, true),
            (&[("origin", "http://admin:8081"), ("host", "admin:8081")], None, false),
            (&[("origin", "http://evil"), ("host", "admin:8081"), ("x-keyward-request", "1")], None, true),
            (&[("origin", "null"), ("host", "admin:8081")], None, true),
            (&[("origin", "https://admin.example")], Some("https://admin.example/"), false),
            (&[("origin", "http://admin.example"), ("host", "admin.example")], Some("https://admin.example"), true),
        ] {
            assert_eq!(may_be_forged(&headers(list), url), forged, "{list:?}");
        }
    }
}
