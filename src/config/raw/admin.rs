//! The management API: where it listens, and what it does with reports of leaked keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The management API and web page.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// The address and port of the management API.
    pub(crate) listen: String,
    /// What its clients call it, for links to next pages; empty for what they say themselves in `Host`.
    #[schemars(example = "https://keys.example.com")]
    pub(crate) url: String,
    /// A prefix under which `proxy.listen` answers the management API too, in place of the upstream; empty for nowhere.
    #[schemars(example = "/v2")]
    pub(crate) mount: String,
    /// Reports of leaked keys by those who sign them.
    pub(crate) leaks: Leaks,
}

impl Default for Admin {
    fn default() -> Self {
        let (url, mount, leaks) = (String::new(), String::new(), Leaks::default());
        Self { listen: "127.0.0.1:8081".to_owned(), url, mount, leaks }
    }
}

/// Reports of leaked keys as GitHub's secret scanning partner programme sends them to `/v2/leaks`, signed and without a key.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Leaks {
    /// A file with the public keys that reports are judged by, as <https://api.github.com/meta/public_keys/secret_scanning>
    /// gives them out; it is read anew for each report. Empty for none: then no report is taken without a key.
    #[schemars(example = "github-keys.json")]
    pub(crate) keys: String,
    /// What is done with a key in a signed report.
    pub(crate) action: LeakAction,
}

impl Default for Leaks {
    fn default() -> Self {
        Self { keys: String::new(), action: LeakAction::Revoke }
    }
}

/// What is done with a key that was found.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LeakAction {
    /// It ends at once.
    Revoke,
    /// It gets the tag `leaked`, the audit says where it was found, and it goes on.
    Flag,
}
