//! For those who run Keyward: what state it is in. It says nothing that is secret and changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde_json::json;

use crate::control::Page;
use crate::lifecycle::Lifecycle;
use crate::replica::{Replica, Status};
use crate::telemetry::metrics::Metrics;

/// What the config says of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// What the pages are made of.
pub struct Admin {
    /// How fresh it is.
    pub replica: Arc<Replica>,
    /// What has been applied.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub lifecycle: Lifecycle,
}

impl Admin {
    /// The page at a path.
    pub fn page(&self, path: &str, _query: &str) -> Page {
        match path {
            "/status" => self.status(),
            _ => {
                let error = json!({"code": "not_found", "message": "not found; there is /status"});
                page(
                    StatusCode::NOT_FOUND,
                    &json!({"success": false, "result": null, "links": null, "errors": [error]}),
                )
            }
        }
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

fn page(status: StatusCode, body: &serde_json::Value) -> Page {
    Page { status, content_type: "application/json", body: format!("{body}\n") }
}
