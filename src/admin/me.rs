//! `/v2/session` and `/v2/me`: signing in and out, and what everybody may see and change of their own account (C23).

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::api::{Api, Request};
use super::caller::Caller;
use super::envelope::{Answer, Trouble};
use super::input::{Attributes, parsed, text};
use super::sessions::{self, Jar, Token};
use crate::auth::decision::Denial;
use crate::auth::grant::{Environment, Timestamp};
use crate::auth::limit::Exhausted;
use crate::control::{Ask, Mounted};
use crate::manage::authority::{View, authority_of};
use crate::manage::password::{Password, hash};
use crate::manage::user::UserPatch;
use crate::manage::values::PersonName;
use crate::manage::{Failure, Mistake, Session, Stored};
use crate::replica::Status;
use crate::store::record::{Subject, UserBody};

/// Nobody learns which half was wrong, or whether there is such a user.
const WRONG: &str = "the e-mail address or the password is wrong, or the account may not be used";

/// Whether somebody of whom nothing is known yet may send what they sign in by.
///
/// # Errors
/// When too many have tried who come from where they come from, or it is not the place.
pub(super) fn may_sign_in(api: &Api, ask: &Ask) -> Result<(), Trouble> {
    if ask.mounted.is_some() {
        return Err(Trouble::forbidden("people sign in on the admin port; here it takes an API key"));
    }
    api.sign_ins.come(ask.client.unwrap_or(ask.peer)).map_err(|exhausted| too_many_attempts(&exhausted))
}

fn too_many_attempts(exhausted: &Exhausted) -> Trouble {
    let why = "too many attempts to sign in; wait a moment";
    Trouble::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", why).retry_after(exhausted.retry_after)
}

/// How long after signing in by a link the first password may be set.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// Signs in by e-mail address and password, or by a one-time link.
pub(super) async fn sign_in(api: &Api, ask: &Ask, body: &bytes::Bytes, now: Timestamp) -> Result<Answer, Trouble> {
    let mut attributes = Attributes::read(&ask.headers, body)?;
    let string = |value: &Value| text(value).map(str::to_owned);
    let ticket = attributes.optional("ticket", string);
    let (email, password) = match ticket {
        Some(_) => (None, None),
        None => (attributes.required("email", string), attributes.required("password", typed)),
    };
    attributes.finish()?;
    if let Some(email) = &email {
        let source = ask.client.unwrap_or(ask.peer);
        api.sign_ins.attempt(source, email).map_err(|exhausted| too_many_attempts(&exhausted))?;
    }
    let (store, locksmith) = (api.store.clone(), api.locksmith());
    let session = Session { store, locksmith, actor: "anonymous".to_owned(), now };
    let wrong = || Trouble::new(StatusCode::UNAUTHORIZED, "invalid_credential", WRONG);
    let user = match (ticket, email, password) {
        (Some(ticket), ..) => match session.redeem_link(&ticket).await {
            Ok(user) => user,
            Err(Failure::BadTicket(_)) => return Err(wrong()),
            Err(failure) => return Err(failure.into()),
        },
        (None, Some(email), Some(password)) => {
            let user = session.sign_in(&email, password).await?.ok_or_else(wrong)?;
            session.signed_in(&user, ask.client).await?;
            user
        }
        _ => return Err(wrong()),
    };
    // Whoever was signed in on this browser before is not any more.
    if let Some(old) = sessions::presented(&ask.headers, api.jar()) {
        api.sessions.end(&old);
    }
    let answer = Answer::of(&view(&user.id, &user.body))?;
    Ok(answer.with_cookie(api.begin(&user.id, now)?))
}

impl Api {
    /// Where browsers keep their tokens.
    fn jar(&self) -> Jar {
        if self.url.as_deref().is_some_and(|url| url.starts_with("https://")) { Jar::Host } else { Jar::Plain }
    }

    /// What clients call the server that they came by, if that is known.
    pub(super) fn origin<'o>(&'o self, mounted: Option<&'o Mounted>) -> Option<&'o str> {
        mounted.map_or(self.url.as_deref(), |mounted| Some(&mounted.origin))
    }

    /// A new cookie for a user.
    pub(super) fn begin(&self, user: &str, now: Timestamp) -> Result<String, Trouble> {
        let token = self.sessions.begin(user, now, Instant::now()).map_err(Failure::Random)?;
        Ok(sessions::cookie(Some(&token), self.jar()))
    }

    /// Who has signed in on this browser, if nobody has used a key beside.
    ///
    /// # Errors
    /// When they may not go on, another site's page may have asked, or what is known is too old to know it.
    pub(super) fn signed_in(&self, ask: &Ask) -> Result<Option<SignedIn>, Trouble> {
        let token = if ask.mounted.is_some() { None } else { token(&ask.headers, self.jar()) };
        let Some(token) = token else { return Ok(None) };
        match self.replica.status(Instant::now()) {
            Status::Usable(_) => {}
            Status::Booting => return Err(Trouble::denied(&Denial::ReplicaNotLoaded.into())),
            Status::Expired(_) => return Err(Trouble::denied(&Denial::ReplicaExpired.into())),
        }
        let (user, since) = self.sessions.find(&token, Instant::now()).ok_or_else(signed_out)?;
        if ask.method != Method::GET
            && ask.method != Method::HEAD
            && sessions::may_be_forged(&ask.headers, self.url.as_deref())
        {
            let why = "this may come from another site's page: Sec-Fetch-Site and Origin must name our own, and where neither is \
                       sent there must be a header X-Keyward-Request: 1";
            return Err(Trouble::forbidden(why));
        }
        Ok(Some(SignedIn { token, user, since }))
    }

    /// What somebody may do who has signed in.
    ///
    /// # Errors
    /// When they may not go on.
    pub(super) fn user(&self, signed_in: SignedIn, now: Timestamp) -> Result<Caller, Trouble> {
        let SignedIn { token, user, since } = signed_in;
        let body = self.index.user(&user).ok_or_else(signed_out)?;
        if !body.takes_in(Some(since)) {
            self.sessions.end(&token);
            return Err(signed_out());
        }
        let subject = Subject::User(user);
        let authority = authority_of(&subject, &*self.index, now);
        let env = Environment::Live;
        let signed_in = Some(since);
        Ok(Caller { actor: subject.to_string(), subject, scope: body.scope, authority, signed_in, env })
    }
}

/// Somebody whose browser has a good token, before anybody has looked what they may do.
pub(super) struct SignedIn {
    token: Token,
    user: Box<str>,
    since: Timestamp,
}

fn signed_out() -> Trouble {
    Trouble::new(StatusCode::UNAUTHORIZED, "signed_out", "you are signed out; sign in again")
}

/// A key goes before a cookie: browsers send the one along by themselves, and never the other.
fn token(headers: &HeaderMap, jar: Jar) -> Option<Token> {
    let has_key = headers.contains_key(http::header::AUTHORIZATION) || headers.contains_key("x-api-key");
    if has_key { None } else { sessions::presented(headers, jar) }
}

/// Signs out.
pub(super) fn sign_out(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let jar = request.api.jar();
    if let Some(token) = token(request.headers, jar) {
        request.api.sessions.end(&token);
    }
    Ok(Answer::of(&json!({}))?.with_cookie(sessions::cookie(None, jar)))
}

/// Who asks, and what they may do.
pub(super) fn get(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    match &request.caller.subject {
        Subject::User(_) => {
            let user = own(request)?;
            Ok(Answer::of(&view(&user.id, &user.body))?.with_etag(user.revision))
        }
        Subject::Key(id) => Answer::of(&json!({ "key": id, "scope": request.caller.scope })),
    }
}

/// Changes the own name or password. Whoever changes the password signs in anew, here with the same step.
pub(super) async fn update(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    if attributes.is_empty() {
        let why = "send one attribute at least, such as {\"name\":\"New name\"}";
        return Err(Trouble::new(StatusCode::BAD_REQUEST, "nothing_to_change", why));
    }
    let name = attributes.nullable("name", parsed::<PersonName>);
    let password = attributes.optional("password", parsed::<Password>);
    let current = attributes.optional("current_password", typed);
    attributes.finish()?;
    let user = own(request)?;
    let session = request.session();
    let mut patch = UserPatch { name, ..UserPatch::default() };
    let mut expected = None;
    if let Some(password) = password {
        let sign_ins = &request.api.sign_ins;
        let attempt = sign_ins.come(request.peer).and_then(|()| sign_ins.attempt(request.peer, &user.body.email));
        attempt.map_err(|exhausted| too_many_attempts(&exhausted))?;
        let is_first = !session.has_password(&user.id).await?;
        match current {
            _ if is_first => came_by_link(request)?,
            None => return Err(Trouble::invalid(vec![missing("current_password")])),
            Some(current) => {
                let is_right = session.sign_in(&user.body.email, current).await?.is_some();
                is_right.then_some(()).ok_or_else(|| Trouble::forbidden("the current password is wrong"))?;
            }
        }
        // The first of two at the same time is the first password.
        expected = is_first.then_some(user.revision);
        patch.password = Some(hash(password, &request.api.locksmith()).await?);
    }
    let changed = session.update_user(&user.id, &patch, expected).await?;
    request.in_force(changed.user.revision).await;
    let answer = Answer::of(&view(&changed.user.id, &changed.user.body))?.after_change(changed.user.revision);
    Ok(match patch.password {
        Some(_) => answer.with_cookie(request.api.begin(&user.id, request.now)?),
        None => answer,
    })
}

/// Who has no password has come by a link. Soon after it the first one is set without another, and not by whoever finds the
/// browser later.
fn came_by_link(request: &Request<'_>) -> Result<(), Trouble> {
    let is_fresh = request.caller.signed_in.is_some_and(|since| request.now < since.plus(FRESH));
    let why = "a first password is set within 15 minutes after signing in by a link; ask for another link";
    if is_fresh { Ok(()) } else { Err(Trouble::forbidden(why)) }
}

fn missing(field: &str) -> Mistake {
    Mistake { field: field.to_owned(), why: "is missing".to_owned() }
}

/// The value of the own key, which may be looked up again (B9); each time is in the audit.
pub(super) async fn look_up(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let user = with_access(request)?;
    let value = request.session().look_up_value(&user.id).await?;
    Answer::of(&json!({ "id": user.id, "value": value.as_str() }))
}

/// A new value for the own key: proposed, and in force once it is sent back as it is (B12, B13).
pub(super) async fn regenerate(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let user = with_access(request)?;
    let mut attributes = request.attributes()?;
    let string = |value: &Value| text(value).map(str::to_owned);
    let value = attributes.optional("value", string);
    let confirmation = attributes.optional("confirmation", string);
    attributes.finish()?;
    let session = request.session();
    let (Some(value), Some(confirmation)) = (value, confirmation) else {
        let proposal = session.propose_value(&user.id).await?;
        let (value, confirmation) = (proposal.secret.reveal(), &proposal.confirmation);
        let expires_at = proposal.expires_at;
        return Answer::of(&json!({ "value": value, "confirmation": confirmation, "expires_at": expires_at }));
    };
    let key = session.confirm_value(&user.id, &value, &confirmation).await?;
    request.in_force(key.revision).await;
    Ok(Answer::of(&json!({ "id": key.id }))?.after_change(key.revision))
}

/// The account of who asks.
fn own(request: &Request<'_>) -> Result<Stored<UserBody>, Trouble> {
    request.api.index.stored_user(account(&request.caller)?).ok_or_else(|| Trouble::not_found("user"))
}

/// The user who asks.
///
/// # Errors
/// When it is none.
pub(super) fn account(caller: &Caller) -> Result<&str, Trouble> {
    match &caller.subject {
        Subject::User(id) => Ok(id),
        Subject::Key(_) => Err(Trouble::forbidden("a key has no account; sign in")),
    }
}

/// Those who may use the API see what there is for it (B8).
fn with_access(request: &Request<'_>) -> Result<Stored<UserBody>, Trouble> {
    let user = own(request)?;
    if user.body.api_access { Ok(user) } else { Err(Trouble::forbidden("you may not use the API; ask an admin")) }
}

fn typed(value: &Value) -> Result<Password, String> {
    text(value).map(Password::typed)
}

fn view(id: &str, user: &UserBody) -> Value {
    let UserBody { email, name, scope, api_access, created_time, updated_time, .. } = user;
    json!({
        "id": id, "email": email, "name": name, "scope": scope, "api_access": api_access,
        "created_time": created_time, "updated_time": updated_time,
    })
}
