//! For those who run Keyward: what state it is in, that it shall read its config again, and under `/v2/` the management API.
//! [`operation`] is the table of what the API can do, [`api`] the way from a question to an answer.

pub mod api;
mod bindings;
mod caller;
pub mod document;
mod envelope;
mod import;
mod index;
mod input;
mod key_records;
mod keys;
pub mod leaks;
mod ledger;
mod me;
pub mod operation;
mod people;
mod replay;
mod scopes;
mod secrets;
mod sessions;
mod throttle;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use serde_json::json;

use self::api::Api;
use self::envelope::Trouble;
use crate::control::desk::Unanswered;
use crate::control::{Ask, Page};
use crate::lifecycle::{Lifecycle, Reloads};
use crate::replica::{Replica, Status};
use crate::telemetry::metrics::Metrics;

/// What the config says of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What clients call it, for links; what they say themselves if absent.
    pub url: Option<String>,
    /// Whose signed reports of leaked keys are taken, if anybody's.
    pub leaks: Option<leaks::Config>,
}

/// What the pages are made of.
pub struct Admin {
    /// How fresh it is.
    pub replica: Arc<Replica>,
    /// What has been applied.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub lifecycle: Lifecycle,
    /// Who reads the config again; `None` where it is not in a file.
    pub reloads: Option<Reloads>,
    /// The management API.
    pub api: Api,
}

impl Admin {
    /// The page that is asked for.
    pub async fn page(&self, ask: Ask) -> Page {
        if ask.path.starts_with("/v2/") || ask.mounted.is_some() {
            return self.managed(ask).await;
        }
        match (ask.path.as_str(), &self.reloads) {
            ("/status", _) if ask.only_looks() => self.status(),
            ("/status", _) => Page::not_allowed("GET, HEAD"),
            ("/-/reload", Some(_)) if ask.method != Method::POST => Page::not_allowed("POST"),
            ("/-/reload", Some(_)) if ask.is_of_web_page() => Page::text(StatusCode::FORBIDDEN, "not for web pages\n"),
            ("/-/reload", Some(reloads)) => reload(reloads).await,
            _ => {
                let message = "not found; there are /status, POST /-/reload and the management API under /v2/";
                Trouble::new(StatusCode::NOT_FOUND, "not_found", message).page()
            }
        }
    }

    /// The API's answer, and nothing else: the rest is not for those who come by the way of the upstream's clients.
    async fn managed(&self, ask: Ask) -> Page {
        if ask.path == document::PATH && ask.only_looks() {
            return Page::new(StatusCode::OK, "application/json", self.api.document(ask.mounted.as_ref()));
        }
        self.api.answer(ask).await
    }

    fn status(&self) -> Page {
        let (state, age) = match self.replica.status(Instant::now()) {
            Status::Booting => ("booting", None),
            Status::Usable(age) => ("usable", Some(age.as_secs_f64())),
            Status::Expired(age) => ("expired", Some(age.as_secs_f64())),
        };
        let records = |kind: &str| self.metrics.sync.records.with_label_values(&[kind]).get();
        let troubles: Vec<_> =
            self.lifecycle.troubles().iter().map(|(part, trouble)| json!({"part": part, "trouble": trouble})).collect();
        let replica = json!({
            "state": state, "staleness_seconds": age, "revision": self.metrics.sync.revision.get(),
            "scopes": records("scope"), "keys": records("key"), "secrets": records("secret"),
        });
        let result = json!({"version": env!("CARGO_PKG_VERSION"), "replica": replica, "troubles": troubles});
        page(StatusCode::OK, &json!({"success": true, "result": result, "links": null, "errors": []}))
    }
}

/// What those hear whom nobody has answered.
pub fn unanswered(why: Unanswered) -> Page {
    let unavailable = |why: &str| Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).retry_after(1);
    let goes_on = |why: &str| Trouble::new(StatusCode::GATEWAY_TIMEOUT, "goes_on", why);
    let trouble = match why {
        Unanswered::NoRoom => unavailable("there are too many requests to the management API at once"),
        Unanswered::Overloaded => unavailable("there are too many requests at once"),
        Unanswered::Lost => unavailable("it was not answered; look whether it was done before you ask again"),
        Unanswered::GoesOn => {
            goes_on("it takes more than a minute, and goes on; look whether it was done before you ask again")
        }
        Unanswered::OutOfTime => goes_on(
            "it takes longer than `timeouts.request`, and goes on; look whether it was done before you ask again",
        ),
    };
    trouble.page()
}

/// As Prometheus answers it: in words, and a config with mistakes is the server's trouble, not the request's.
async fn reload(reloads: &Reloads) -> Page {
    match reloads.ask().await {
        Ok(done) => Page::text(StatusCode::OK, format!("{done}\n")),
        Err(why) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

fn page(status: StatusCode, body: &serde_json::Value) -> Page {
    Page::new(status, "application/json", format!("{body}\n"))
}
