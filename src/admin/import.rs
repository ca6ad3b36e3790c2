//! `POST /v2/keys/import`: keys of another system, in the formats and by the rules of `keyward key import`. What cannot be
//! taken is told with its lines and reasons; the rest is imported.

use std::io;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::api::Request;
use super::envelope::{Answer, Trouble};
use super::scopes::may_make;
use crate::auth::authority::Permission;
use crate::auth::grant::Environment;
use crate::auth::scope::Scope;
use crate::manage::import::{Format, Importer, Rejection, Source, Terms};

/// The media types of what is sent along, and how they are read.
pub(super) const MEDIA_TYPES: [(&str, Format); 3] = [
    ("text/csv", Format::Csv),
    ("text/tab-separated-values", Format::Tsv),
    ("application/x-ndjson", Format::JsonLines),
];

/// How many rows that were not taken are told; the rest are counted. Whoever has more has sent another format.
const MOST_REJECTIONS: usize = 1_000;

/// A row that was not taken.
#[derive(Serialize)]
struct Rejected {
    line: u64,
    reason: String,
}

/// What became of it.
#[derive(Serialize)]
struct View {
    imported: u64,
    unchanged: u64,
    rejected: usize,
    /// The first of them.
    rejections: Vec<Rejected>,
}

/// Imports keys.
pub(super) async fn import(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let line = query.take("line", |text| {
        let line = text.parse::<u32>().ok().filter(|line| *line > 0);
        line.ok_or_else(|| "write the number of a line".to_owned())
    });
    query.finish()?;
    if !request.caller.reaches(Environment::Live) {
        return Err(Trouble::forbidden("a key of the sandbox imports nothing"));
    }
    let format = format(request)?;
    let session = request.session();
    let not_rows = |why: String| Trouble::new(StatusCode::BAD_REQUEST, "invalid_rows", why);
    let source = Source::new(&**request.content(), |_| format, &session.locksmith.format);
    let mut source = source.map_err(|why| not_rows(why.to_string()))?;
    line.inspect(|line| source.begins_at(u64::from(*line)));
    let terms = Terms {
        file: None,
        // As for every new key: where nothing is said, it acts where its maker does.
        scope: request.caller.scope.clone(),
        against: Box::new(|id, scope| against(request, id, scope)),
    };
    let (mut importer, mut rejected, mut rejections) = (Importer::new(&session, terms), 0, Vec::new());
    loop {
        let batch = importer.read(&mut source).map_err(|error: io::Error| not_rows(error.to_string()))?;
        if batch.is_empty() {
            break;
        }
        let refused = importer.commit(batch).await?;
        rejected += refused.len();
        let told = refused.into_iter().take(MOST_REJECTIONS - rejections.len());
        rejections.extend(told.map(|Rejection { line, reason, .. }| Rejected { line, reason: reason.to_string() }));
        // Others ask as well, and nothing above waits where all is refused.
        tokio::task::yield_now().await;
    }
    let (imported, unchanged) = (importer.imported, importer.unchanged);
    let answer = Answer::of(&View { imported, unchanged, rejected, rejections })?;
    match importer.revision {
        Some(revision) => {
            request.in_force(revision).await;
            Ok(answer.after_change(revision))
        }
        None => Ok(answer),
    }
}

fn format(request: &Request<'_>) -> Result<Format, Trouble> {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let known = MEDIA_TYPES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(media_type));
    known.map(|(_, format)| format).ok_or_else(|| {
        let why = format!(
            "send a table or JSON lines, and say so: Content-Type: {}",
            MEDIA_TYPES.map(|(name, _)| name).join(", ")
        );
        Trouble::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why)
    })
}

/// What there is against a key with that id in that scope.
fn against(request: &Request<'_>, id: Option<&str>, scope: Option<&Scope>) -> Option<&'static str> {
    if !request.caller.authority.may(Permission::KeysWrite, scope) {
        return Some("you may not make keys in its `scope`");
    }
    if may_make(request, scope).is_err() {
        return Some("its `scope` is not there, and you may not make it");
    }
    // The own key of a user is called as they are.
    let is_of_user = id.is_some_and(|id| request.api.index.stored_user(id).is_some());
    is_of_user.then_some("its `id` is that of a user, and kept for their own key")
}
