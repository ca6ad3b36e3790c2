//! From a question to an answer: which operation, who asks, whether they may, what they send, and what comes of it.

use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use http::header::{ALLOW, HOST, HeaderMap, IF_MATCH, WWW_AUTHENTICATE};
use tokio::sync::watch;

use super::caller::{Caller, authenticate};
use super::document::document;
use super::envelope::{Answer, Trouble};
use super::index::Index;
use super::input::{Attributes, Query, decode, truth};
use super::operation::{Action, Found, Operation, find};
use super::replay::{Remembered, Replays};
use super::sessions::Sessions;
use super::throttle::{SignIns, Throttle};
use super::{bindings, import, keys, leaks, ledger, me, people, scopes, secrets};
use crate::auth::Locksmith;
use crate::auth::address::{Networks, client_address};
use crate::auth::authority::Permission;
use crate::auth::decision::{Denial, Denied};
use crate::auth::grant::Timestamp;
use crate::control::sent::{Longest, Unread};
use crate::control::{Ask, Mounted, Page};
use crate::manage::sweep::{Sweeper, Swept};
use crate::manage::{Failure, Mistake, Session};
use crate::replica::Replica;
use crate::store::{AnyStore, Revision};
use crate::telemetry::metrics::Metrics;

/// How long an answer waits for what it has changed to be in force here.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often is cleared away what nobody needs, and how many seconds later at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
const SWEEP_JITTER: u64 = 60;

/// What answers are made of.
pub struct Api {
    /// Where changes go.
    pub(super) store: Arc<AnyStore>,
    /// What of it changes with the config.
    live: Arc<Live>,
    /// What keys are judged by.
    pub(super) replica: Arc<Replica>,
    /// Where lists and look-ups come from.
    pub(super) index: Arc<Index>,
    /// What the replica has come to.
    pub(super) applied: watch::Receiver<Option<Revision>>,
    /// What is counted.
    pub(super) metrics: Arc<Metrics>,
    /// What clients call this server, if the config says so.
    pub(super) url: Option<String>,
    /// Whose signed reports of leaked keys are taken, if anybody's.
    pub(super) leaks: Option<leaks::Config>,
    /// Who has failed.
    pub(super) throttle: Throttle,
    /// Who has tried to sign in.
    pub(super) sign_ins: SignIns,
    /// Who has signed in.
    pub(super) sessions: Sessions,
    /// What was answered to those who may ask again.
    pub(super) replays: Replays,
}

/// What another config changes while the API goes on.
pub struct Live {
    /// How keys are read and made.
    locksmith: ArcSwap<Locksmith>,
    /// Who may say where clients are.
    trusted: ArcSwap<Networks>,
}

impl Live {
    /// What the config says.
    pub fn new(locksmith: Arc<Locksmith>, trusted: Networks) -> Self {
        Self { locksmith: locksmith.into(), trusted: ArcSwap::from_pointee(trusted) }
    }

    /// What it says from now on.
    pub fn replace(&self, locksmith: Arc<Locksmith>, trusted: Networks) {
        self.locksmith.store(locksmith);
        self.trusted.store(Arc::new(trusted));
    }
}

/// A question of somebody who may ask it.
pub(super) struct Request<'r> {
    /// What answers are made of.
    pub(super) api: &'r Api,
    /// What is asked.
    pub(super) operation: &'static Operation,
    /// Who asks.
    pub(super) caller: Caller,
    /// What stands for `{id}` in the path.
    pub(super) id: String,
    /// Its headers.
    pub(super) headers: &'r HeaderMap,
    /// Where it comes from, for counting.
    pub(super) peer: IpAddr,
    /// Who asks, as far as that is known.
    pub(super) client: Option<IpAddr>,
    /// Where it was asked, if not on the listener of our own.
    pub(super) mounted: Option<&'r Mounted>,
    /// When.
    pub(super) now: Timestamp,
    query: String,
    path: String,
    body: Bytes,
}

impl Api {
    /// An API that knows nothing yet.
    pub fn new(
        store: Arc<AnyStore>,
        live: Arc<Live>,
        (replica, applied): (Arc<Replica>, watch::Receiver<Option<Revision>>),
        metrics: Arc<Metrics>,
        config: Option<super::Config>,
    ) -> Self {
        let (url, leaks) = config.map_or((None, None), |config| (config.url, config.leaks));
        let index = Arc::new(Index::new(replica.clone()));
        let (throttle, replays) = (Throttle::default(), Replays::default());
        let (sign_ins, sessions) = (SignIns::default(), Sessions::default());
        Self { store, live, replica, index, applied, metrics, url, leaks, throttle, sign_ins, sessions, replays }
    }

    /// How keys are read and made now.
    pub(super) fn locksmith(&self) -> Arc<Locksmith> {
        self.live.locksmith.load_full()
    }

    /// Keeps what it answers from up with the store, for ever.
    pub fn follow(&self) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
        let (index, store, applied) = (self.index.clone(), self.store.clone(), self.applied.clone());
        async move {
            index.follow(store, applied).await;
            Ok(())
        }
    }

    /// Clears away what nobody needs any more, for ever. Several processes that do are in nobody's way.
    pub fn sweep(&self) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
        let (store, locksmith) = (self.store.clone(), self.locksmith());
        async move {
            let (mut sweeper, actor) = (Sweeper::default(), "keyward".to_owned());
            let mut session = Session { store, locksmith, actor, now: SystemTime::now().into() };
            loop {
                // Not all of those that were started together at once.
                let jitter = getrandom::u64().unwrap_or_default() % SWEEP_JITTER;
                tokio::time::sleep(SWEEP_INTERVAL + Duration::from_secs(jitter)).await;
                session.now = SystemTime::now().into();
                match sweeper.step(&session).await {
                    Ok(swept) if swept == Swept::default() => {}
                    Ok(Swept { records, uses, nodes }) => {
                        tracing::info!(records, uses, nodes, "cleared away what nobody needs any more");
                    }
                    Err(Failure::NoLedger(_) | Failure::ReadOnly(_)) => std::future::pending().await,
                    Err(failure) => tracing::warn!(%failure, "cannot clear away what nobody needs any more"),
                }
            }
        }
    }

    /// What it can do, for programs.
    pub fn document(&self, mounted: Option<&Mounted>) -> String {
        match mounted {
            Some(Mounted { origin, before }) => document(Some(&format!("{origin}{before}"))),
            None => document(self.url.as_deref()),
        }
    }

    /// Answers.
    pub async fn answer(&self, mut ask: Ask) -> Page {
        if ask.mounted.is_none() {
            // The proxy port has found out already.
            ask.client = client_address(ask.peer, &ask.headers, &self.live.trusted.load());
        }
        let mut key = None;
        let page = match self.try_answer(&mut ask, &mut key).await {
            Ok(answer) => answer.page(),
            Err(trouble) => trouble.page(),
        };
        self.metrics.admin.answered(page.status.as_u16());
        Page { key, ..page }
    }

    /// Also notes whose key it is, once that is known.
    async fn try_answer(&self, ask: &mut Ask, whose: &mut Option<String>) -> Result<Answer, Trouble> {
        let (operation, id) = match find(&ask.method, &ask.path) {
            Found::Operation(operation, id) => (operation, id),
            Found::OtherMethods(allow) => {
                let why = format!("only {allow}");
                return Err(Trouble::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why).with(ALLOW, &allow));
            }
            Found::Nothing => return Err(Trouble::new(StatusCode::NOT_FOUND, "not_found", "there is no such path")),
        };
        let now = SystemTime::now().into();
        if operation.action == Action::SignIn {
            me::may_sign_in(self, ask)?;
            let body = read(ask, Longest::Brief).await?;
            return me::sign_in(self, ask, &body, now).await;
        }
        if operation.action == Action::ReportLeaks && leaks::is_signed(self, ask) {
            let body = read(ask, Longest::Signed).await?;
            return leaks::report_signed(self, ask, &body, now).await;
        }
        let caller = match self.signed_in(ask)? {
            Some(signed_in) => {
                self.catch_up().await?;
                self.user(signed_in, now)?
            }
            None => {
                let key = authenticate(ask, operation, &self.locksmith(), &self.replica, whose)
                    .map_err(|denied| self.denied(&denied, ask.client.unwrap_or(ask.peer)))?;
                self.catch_up().await?;
                key.caller(&self.index, now)
            }
        };
        if !caller.authority.may_somewhere(operation.permission) {
            return Err(Trouble::forbidden(format!("this needs a role with {}", operation.permission.label())));
        }
        if operation.permission == Permission::Own && operation.input.is_some() {
            me::account(&caller)?;
        }
        let body = match operation.input {
            Some(_) if operation.action == Action::ImportKeys && ask.mounted.is_none() => {
                read(ask, Longest::List).await?
            }
            Some(_) => read(ask, Longest::Usual).await?,
            None => Bytes::new(),
        };
        let (headers, client, mounted) = (&ask.headers, ask.client, ask.mounted.as_ref());
        let peer = client.unwrap_or(ask.peer);
        let (query, path) = (ask.query.clone(), ask.path.clone());
        let request =
            Request { api: self, operation, caller, id, headers, peer, client, mounted, now, query, path, body };
        request.answer().await
    }

    /// Resolves once the index has all that a caller was judged by: it is behind for a moment after each change, and holds
    /// nothing before the first good key or cookie.
    pub(super) async fn catch_up(&self) -> Result<(), Trouble> {
        let judged = self.applied.borrow().map_or(0, |applied| applied.number);
        let caught_up = tokio::time::timeout(PATIENCE, self.index.reached(judged)).await;
        caught_up.map_err(|_| Trouble::denied(&Denial::ReplicaNotLoaded.into()))
    }

    /// Tells apart only what the client may tell apart, and counts the rest.
    fn denied(&self, denied: &Denied, peer: IpAddr) -> Trouble {
        self.metrics.admin.denied(denied.denial);
        let terms = denied.denial.terms();
        let trouble = Trouble::denied(denied);
        if !terms.challenge {
            return trouble;
        }
        let trouble = trouble.with(WWW_AUTHENTICATE, "Bearer realm=\"keyward\"");
        if denied.denial == Denial::MissingCredential {
            return trouble;
        }
        self.throttled(peer, trouble)
    }

    /// What somebody hears who has shown what is not good: at some time only that it was too often.
    pub(super) fn throttled(&self, peer: IpAddr, trouble: Trouble) -> Trouble {
        match self.throttle.failed(peer) {
            Ok(()) => trouble,
            Err(exhausted) => {
                let why = "too many API keys from this address were not valid";
                Trouble::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", why).retry_after(exhausted.retry_after)
            }
        }
    }

    /// Resolves once a change is in force here, or at least soon will be: the caller reads its own writes, and a key that was
    /// deleted is refused.
    pub(super) async fn in_force(&self, revision: u64) {
        let mut applied = self.applied.clone();
        let replica = applied.wait_for(|applied| applied.is_some_and(|applied| applied.number >= revision));
        let both = async { tokio::join!(self.index.reached(revision), async { drop(replica.await) }) };
        if tokio::time::timeout(PATIENCE, both).await.is_err() {
            tracing::warn!(revision, "a change was made, but is not in force here yet");
        }
    }
}

impl Request<'_> {
    async fn answer(&self) -> Result<Answer, Trouble> {
        if !self.operation.creates {
            return self.run().await;
        }
        match self.api.replays.look(self.headers, &self.caller, (&self.path, &self.body))? {
            Remembered::Answer(answer) => Ok(answer),
            Remembered::Nothing => self.run().await,
            Remembered::Place(place) => {
                let answer = self.run().await?;
                place.remember(&answer);
                Ok(answer)
            }
        }
    }

    /// What it does, in memory of its own: the steps of all operations beside each other would take half of a thread's stack.
    fn run(&self) -> Pin<Box<dyn Future<Output = Result<Answer, Trouble>> + Send + '_>> {
        match self.operation.action {
            Action::ListKeys => Box::pin(keys::list(self)),
            Action::GetKey => Box::pin(keys::get(self)),
            Action::CreateKey => Box::pin(keys::create(self)),
            Action::ImportKeys => Box::pin(import::import(self)),
            Action::UpdateKey => Box::pin(keys::update(self)),
            Action::DeleteKey => Box::pin(keys::delete(self)),
            Action::ListSecrets => Box::pin(secrets::list(self)),
            Action::CreateSecret => Box::pin(secrets::create(self)),
            Action::LookUpKey => Box::pin(secrets::look_up(self)),
            Action::IdentifyKey => Box::pin(secrets::identify(self)),
            Action::ListAudit => Box::pin(ledger::audit(self)),
            Action::ListUsage => Box::pin(ledger::usage(self)),
            Action::GetUsage => Box::pin(ledger::usage_of(self)),
            Action::ListScopes => Box::pin(ready(scopes::list(self))),
            Action::GetScope => Box::pin(ready(scopes::get(self))),
            Action::CreateScope => Box::pin(scopes::create(self)),
            Action::UpdateScope => Box::pin(scopes::update(self)),
            Action::ListUsers => Box::pin(people::list_users(self)),
            Action::CreateUser => Box::pin(people::create_user(self)),
            Action::GetUser => Box::pin(people::get_user(self)),
            Action::UpdateUser => Box::pin(people::update_user(self)),
            Action::DeleteUser => Box::pin(people::delete_user(self)),
            Action::ListRoles => Box::pin(ready(people::list_roles(self))),
            Action::CreateRole => Box::pin(people::create_role(self)),
            Action::GetRole => Box::pin(ready(people::get_role(self))),
            Action::UpdateRole => Box::pin(people::update_role(self)),
            Action::DeleteRole => Box::pin(people::delete_role(self)),
            Action::ListBindings => Box::pin(ready(bindings::list(self))),
            Action::CreateBinding => Box::pin(bindings::create(self)),
            Action::GetBinding => Box::pin(ready(bindings::get(self))),
            Action::DeleteBinding => Box::pin(bindings::delete(self)),
            Action::CreateLink => Box::pin(people::create_link(self)),
            Action::ListNodes => Box::pin(ledger::nodes(self)),
            Action::ForgetNode => Box::pin(ledger::forget(self)),
            Action::ReportLeaks => Box::pin(leaks::report(self)),
            // Whoever signs in has not signed in yet.
            Action::SignIn => Box::pin(ready(Err(Trouble::not_found("session")))),
            Action::SignOut => Box::pin(ready(me::sign_out(self))),
            Action::GetMe => Box::pin(ready(me::get(self))),
            Action::UpdateMe => Box::pin(me::update(self)),
            Action::LookUpOwnKey => Box::pin(me::look_up(self)),
            Action::RegenerateOwnKey => Box::pin(me::regenerate(self)),
        }
    }

    /// What changes are made with, in the caller's name.
    pub(super) fn session(&self) -> Session<Arc<AnyStore>> {
        Session {
            store: self.api.store.clone(),
            locksmith: self.api.locksmith(),
            actor: self.caller.actor.clone(),
            now: self.now,
        }
    }

    /// The parameters of the query.
    pub(super) fn query(&self) -> Query {
        Query::read(&self.query, self.operation.query)
    }

    /// What is sent along.
    pub(super) fn attributes(&self) -> Result<Attributes, Trouble> {
        Attributes::read(self.headers, &self.body)
    }

    /// What is sent along, where it is no JSON object.
    pub(super) fn content(&self) -> &Bytes {
        &self.body
    }

    /// Whether anything is sent along.
    pub(super) fn has_body(&self) -> bool {
        !self.body.is_empty()
    }

    /// The revision that the caller has seen, and wants to change nothing else than.
    pub(super) fn if_match(&self) -> Result<Option<u64>, Trouble> {
        let Some(value) = self.headers.get(IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
        let why = "write the ETag of an answer, such as \"7\"";
        number
            .map(Some)
            .ok_or_else(|| Trouble::invalid(vec![Mistake { field: "If-Match".to_owned(), why: why.to_owned() }]))
    }

    /// As [`Api::in_force`].
    pub(super) async fn in_force(&self, revision: u64) {
        self.api.in_force(revision).await;
    }

    /// Where a list goes on: a full URL (V14).
    pub(super) fn next(&self, last: &str) -> String {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let base = self.api.origin(self.mounted).map_or_else(|| format!("http://{host}"), str::to_owned);
        let before = self.mounted.map_or("", |mounted| &mounted.before);
        let mut query = String::new();
        let is_cursor = |part: &str| decode(part.split('=').next().unwrap_or_default()) == "cursor";
        for part in self.query.split('&').filter(|part| !part.is_empty() && !is_cursor(part)) {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(part);
        }
        crate::auth::query::append(&mut query, "cursor", last);
        format!("{base}{before}{}?{query}", self.path)
    }
}

/// What is sent along.
async fn read(ask: &mut Ask, longest: Longest) -> Result<Bytes, Trouble> {
    ask.sent.read(longest).await.map_err(|unread| match unread {
        Unread::TooLong => {
            let why = format!("send {} bytes at most", longest.bytes());
            Trouble::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", why)
        }
        Unread::Broken => Trouble::new(StatusCode::BAD_REQUEST, "broken", "the body broke off"),
        Unread::Late => Trouble::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time"),
        Unread::NoRoom => {
            let why = "others send too much at once";
            Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).retry_after(1)
        }
    })
}

/// Whether records are wanted as they are stored, each with its revision.
pub(super) fn as_record(query: &mut Query) -> bool {
    query.take("record", truth).unwrap_or(false)
}

/// How many, and from where on (V12, V13).
pub(super) fn paging(query: &mut Query) -> (usize, String) {
    let limit = query.take("limit", |text| {
        let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
        number.ok_or_else(|| "write a number from 1 to 1000".to_owned())
    });
    let cursor = query.take("cursor", |text| Ok(text.to_owned()));
    (limit.unwrap_or(25), cursor.unwrap_or_default())
}

#[cfg(test)]
mod tests;
