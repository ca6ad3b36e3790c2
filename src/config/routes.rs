//! Routes, and what is set for each of them: forms of credentials, denials, and what is injected.

mod pattern;

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderName;

use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::values;
use crate::auth::credential::Forms;
use crate::auth::grant::Environment;
use crate::auth::route::{Class, ClassRule, PathMode, Requirement, Routes, Rule};
use crate::proxy::reply::{Deny, Format, FormatRule};
use crate::proxy::{IdentityValue, Inject, InjectInto, RouteSettings, TrailerRules};

/// The routes, and the settings of each, the default route's last.
pub(super) struct Routing {
    pub(super) routes: Routes,
    pub(super) settings: Vec<RouteSettings>,
}

/// What holds for a route that does not say otherwise.
struct Defaults<'d> {
    forms: Forms,
    forward: bool,
    deny: &'d raw::Deny,
    identity_prefix: &'d str,
}

/// What routes and the default route have in common.
struct Section<'r> {
    auth: raw::Auth,
    class: raw::Class,
    env: Option<raw::Env>,
    credentials: &'r raw::RouteCredentials,
    deny: Option<&'r raw::RouteDeny>,
    inject: &'r raw::Inject,
    trailers: bool,
    pattern: Option<&'r str>,
}

/// Reads all routes.
pub(super) fn routing(raw: &raw::File, paths: raw::Paths, identity_prefix: &str, report: &mut Report) -> Routing {
    let forms = forms(&raw.credentials, identity_prefix, report);
    let defaults = Defaults { forms, forward: raw.credentials.forward, deny: &raw.deny, identity_prefix };
    let mut routes = Vec::new();
    let mut settings = Vec::new();
    for (nth, route) in raw.routes.iter().enumerate() {
        let at = OptionPath::of(["routes"]).index(nth);
        let (rule, setting) = Section::from(route).read(&defaults, &at, report);
        settings.push(setting);
        routes.extend(pattern::read(route, &at, report).map(|pattern| (pattern, rule)));
    }
    let (default, setting) =
        Section::from(&raw.default_route).read(&defaults, &OptionPath::of(["default_route"]), report);
    settings.push(setting);
    let paths = match paths {
        raw::Paths::Strict => PathMode::Strict,
        raw::Paths::Lenient => PathMode::Lenient,
    };
    let routes = Routes::new(routes, default, paths);
    pattern::report_hidden(&routes, raw, report);
    Routing { routes, settings }
}

impl<'r> From<&'r raw::Route> for Section<'r> {
    fn from(raw: &'r raw::Route) -> Self {
        Self {
            auth: raw.auth,
            class: raw.class,
            env: raw.env,
            credentials: &raw.credentials,
            deny: raw.deny.as_ref(),
            inject: &raw.inject,
            trailers: raw.trailers,
            pattern: raw.path.as_deref(),
        }
    }
}

impl<'r> From<&'r raw::DefaultRoute> for Section<'r> {
    fn from(raw: &'r raw::DefaultRoute) -> Self {
        Self {
            auth: raw.auth,
            class: raw.class,
            env: raw.env,
            credentials: &raw.credentials,
            deny: raw.deny.as_ref(),
            inject: &raw.inject,
            trailers: raw.trailers,
            pattern: None,
        }
    }
}

impl Section<'_> {
    fn read(&self, defaults: &Defaults<'_>, at: &OptionPath, report: &mut Report) -> (Rule, RouteSettings) {
        let forms = merged(&defaults.forms, self.credentials, defaults.identity_prefix, &at.key("credentials"), report);
        if self.auth == raw::Auth::Key && !has_any(&forms) {
            // Where the route changes nothing, it is all said at the top, and once.
            let top = OptionPath::of(["credentials"]);
            let own = at.key("credentials");
            let place = if forms == defaults.forms { &top } else { &own };
            if !report.has_mistake_within(&top) && !report.has_mistake_within(&own) {
                report.mistake(place, "every form is off, so no request could present a key; turn one on");
            }
        }
        if self.auth == raw::Auth::None && self.env.is_some() {
            report.mistake(
                &at.key("env"),
                "has no effect beside `auth: none`, which asks for no key; remove one of them",
            );
        }
        let rule = Rule {
            requirement: match self.auth {
                raw::Auth::Key => Requirement::Key,
                raw::Auth::None => Requirement::Nothing,
            },
            class: match self.class {
                raw::Class::Method => ClassRule::Method,
                raw::Class::Read => ClassRule::Always(Class::Read),
                raw::Class::Write => ClassRule::Always(Class::Write),
            },
            environment: self.env.map(|env| match env {
                raw::Env::Live => Environment::Live,
                raw::Env::Test => Environment::Test,
            }),
            forms,
        };
        let inject = inject(self.inject, defaults.identity_prefix, &at.key("inject"), report);
        let trailers = self.trailers.then(|| trailer_rules(&rule.forms, &inject, defaults));
        let settings = RouteSettings {
            pattern: self.pattern.map(Arc::from),
            deny: deny(self.deny, defaults.deny, &at.key("deny"), report),
            forward_credential: self.credentials.forward.unwrap_or(defaults.forward),
            inject,
            trailers,
        };
        (rule, settings)
    }
}

/// Which trailers pass, on a route with these headers of its own. That at the top is a key header here too.
fn trailer_rules(forms: &Forms, inject: &[Inject], defaults: &Defaults<'_>) -> Arc<TrailerRules> {
    let injected = inject.iter().filter_map(|inject| match &inject.into {
        InjectInto::Header(name) => Some(name),
        InjectInto::Query(_) => None,
    });
    Arc::new(TrailerRules::new(defaults.identity_prefix, injected.chain(&forms.header).chain(&defaults.forms.header)))
}

fn forms(raw: &raw::Credentials, identity_prefix: &str, report: &mut Report) -> Forms {
    let at = OptionPath::of(["credentials"]);
    Forms {
        organization: raw.organization,
        bearer: raw.bearer,
        basic: raw.basic,
        bare: raw.bare,
        header: header(&raw.header, identity_prefix, &at, report),
        query: query(&raw.query, &at, report),
    }
}

/// The forms of a route: what it names is its own, all else is as at the top.
fn merged(
    top: &Forms,
    raw: &raw::RouteCredentials,
    identity_prefix: &str,
    at: &OptionPath,
    report: &mut Report,
) -> Forms {
    let own_header = raw.header.as_ref().map(|text| header(text, identity_prefix, at, report));
    let own_query = raw.query.as_ref().map(|text| query(text, at, report));
    Forms {
        organization: raw.organization.unwrap_or(top.organization),
        bearer: raw.bearer.unwrap_or(top.bearer),
        basic: raw.basic.unwrap_or(top.basic),
        bare: raw.bare.unwrap_or(top.bare),
        header: own_header.unwrap_or_else(|| top.header.clone()),
        query: own_query.unwrap_or_else(|| top.query.clone()),
    }
}

fn header(text: &str, identity_prefix: &str, at: &OptionPath, report: &mut Report) -> Option<HeaderName> {
    if text.is_empty() { None } else { report.take(&at.key("header"), values::header(text, identity_prefix)) }
}

fn query(text: &str, at: &OptionPath, report: &mut Report) -> Option<Box<str>> {
    if text.is_empty() { None } else { report.take(&at.key("query"), values::parameter(text)) }
}

fn has_any(forms: &Forms) -> bool {
    let Forms { organization, bearer, basic, bare, header, query } = forms;
    *organization || *bearer || *basic || *bare || header.is_some() || query.is_some()
}

fn deny(raw: Option<&raw::RouteDeny>, top: &raw::Deny, at: &OptionPath, report: &mut Report) -> Deny {
    let bare = raw::DenySettings::default();
    let (format, settings) = match raw {
        None => (top.format, &bare),
        Some(raw::RouteDeny::Format(format)) => (*format, &bare),
        Some(raw::RouteDeny::Settings(settings)) => (settings.format.unwrap_or(top.format), settings),
    };
    let format = rule(format, top.fallback);
    let status = settings.status.and_then(|code| report.take(&at.key("status"), status(code)));
    if status.is_some() && format == FormatRule::Always(Format::Grpc) {
        report.mistake(&at.key("status"), "gRPC answers with status 200; what is wrong stands in the headers");
    }
    let body = settings.body.as_ref().and_then(|text| report.take(&at.key("body"), body(text, format)));
    Deny { format, status, body }
}

fn status(code: u64) -> Result<StatusCode, String> {
    let known = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match known.ok_or_else(|| format!("{code} is no status"))? {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => {
            Err(format!("an answer with {code} has no body, so nothing would say that the request was denied"))
        }
        status => Ok(status),
    }
}

/// A body that can be sent as what its format says that it is.
fn body(text: &str, format: FormatRule) -> Result<String, &'static str> {
    let fits = match format {
        FormatRule::Negotiated(_) => return Err("needs a format other than auto, which says of what type it is"),
        FormatRule::Always(Format::Json | Format::Problem | Format::Oauth) => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        }
        FormatRule::Always(Format::Xml) => text.trim_start().starts_with('<'),
        FormatRule::Always(Format::XmlCablecast | Format::Text | Format::Grpc) => true,
    };
    if fits {
        Ok(text.to_owned())
    } else {
        Err("is not of its format; write it as JSON or XML, or choose the format text")
    }
}

fn rule(raw: raw::DenyFormat, fallback: raw::Format) -> FormatRule {
    match raw {
        raw::DenyFormat::Auto => FormatRule::Negotiated(match fallback {
            raw::Format::Xml => Format::Xml,
            raw::Format::XmlCablecast => Format::XmlCablecast,
            raw::Format::Json => Format::Json,
            raw::Format::Problem => Format::Problem,
            raw::Format::Oauth => Format::Oauth,
            raw::Format::Text => Format::Text,
        }),
        raw::DenyFormat::Xml => FormatRule::Always(Format::Xml),
        raw::DenyFormat::XmlCablecast => FormatRule::Always(Format::XmlCablecast),
        raw::DenyFormat::Json => FormatRule::Always(Format::Json),
        raw::DenyFormat::Problem => FormatRule::Always(Format::Problem),
        raw::DenyFormat::Oauth => FormatRule::Always(Format::Oauth),
        raw::DenyFormat::Text => FormatRule::Always(Format::Text),
        raw::DenyFormat::Grpc => FormatRule::Always(Format::Grpc),
    }
}

fn inject(raw: &raw::Inject, identity_prefix: &str, at: &OptionPath, report: &mut Report) -> Vec<Inject> {
    let mut all: Vec<Inject> = Vec::new();
    for (name, value) in &raw.header {
        let into = values::header(name, identity_prefix).map(InjectInto::Header);
        let into = into.and_then(|into| match all.iter().any(|other| other.into == into) {
            true => Err("is the same header as another one here, in other letter case".to_owned()),
            false => Ok(into),
        });
        match into {
            Ok(into) => all.push(Inject { into, value: (*value).into() }),
            Err(message) => report.wrong_name(&at.key("header").key(name), message),
        }
    }
    for (name, value) in &raw.query {
        match values::parameter(name).map(InjectInto::Query) {
            Ok(into) => all.push(Inject { into, value: (*value).into() }),
            Err(message) => report.wrong_name(&at.key("query").key(name), message),
        }
    }
    all
}

impl From<raw::IdentityValue> for IdentityValue {
    fn from(raw: raw::IdentityValue) -> Self {
        match raw {
            raw::IdentityValue::KeyId => Self::KeyId,
            raw::IdentityValue::KeyName => Self::KeyName,
            raw::IdentityValue::User => Self::User,
            raw::IdentityValue::Organization => Self::Organization,
            raw::IdentityValue::Scope => Self::Scope,
        }
    }
}
