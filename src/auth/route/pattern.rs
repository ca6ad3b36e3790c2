//! What a route's requests look like: hosts, methods, and a path with captures.

use http::Method;

use super::RequestTarget;
use crate::auth::path::{is_ambiguous, percent_decode};
use crate::auth::scope::{Level, Step};

/// Which requests a route is for.
#[derive(Clone, Debug)]
pub struct Pattern {
    hosts: Vec<HostPattern>,
    methods: Vec<Method>,
    path: PathPattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// Ends with this, which begins with a dot.
    Below(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PathPattern {
    segments: Vec<Segment>,
    /// Whether it ends in `{*name}`, which takes all that is left, even if that is nothing, or not even a slash.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    /// Any non-empty segment. What stands for a level of the tree must be within the key's scope.
    Capture(Option<Level>),
}

/// Why a pattern cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPattern {
    /// It is not absolute, or could only match an ambiguous path.
    #[error("a path pattern begins with / and has no empty, dot or escaped segment: {0:?}")]
    Path(String),
    /// Braces that are no capture.
    #[error("a capture is a whole segment, {{name}}, or {{*name}} as the last one: {0:?}")]
    Capture(String),
    /// Two captures of one name.
    #[error("two captures have one name: {0:?}")]
    Twice(String),
    /// `{*organization}`: what may be many segments is no id of the tree, and would not be checked.
    #[error("{{*name}} is not checked against scopes, so it is not called as a level of theirs: {0:?}")]
    OpenLevel(String),
    /// A character that is a sign elsewhere, and would be one like any other here.
    #[error(
        "captures are written {{name}}, and {{*rest}} for all that follows; a path has no query, and * ? : < > in it stand for \
         themselves: write %2A %3F %3A %3C %3E: {0:?}"
    )]
    Sign(String),
    /// Not a host name.
    #[error("a host is a name without port, or *.name: {0:?}")]
    Host(String),
}

impl Pattern {
    /// Reads a path such as `/v0/organizations/{organization}/{*rest}`, and hosts such as `api.example.com` or
    /// `*.example.com`. No hosts or no methods means any.
    pub fn parse(path: &str, hosts: &[String], methods: Vec<Method>) -> Result<Self, BadPattern> {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?;
        Ok(Self { hosts, methods, path: PathPattern::parse(path)? })
    }

    /// The steps of the scope tree that the path of a request names, if it fits. `bare` says whether `/a/{*rest}` is for `/a`.
    pub(super) fn captured(&self, target: &RequestTarget<'_>, path: &[u8], bare: bool) -> Option<Vec<Step>> {
        let method_fits = self.methods.is_empty() || self.methods.contains(target.method);
        let host_fits = self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.fits(target.host()));
        (method_fits && host_fits).then(|| self.path.captured(path, bare)).flatten()
    }

    /// Whether it fits every request that the other one fits, but perhaps for the path before the slash of `/{*rest}`.
    pub(super) fn covers(&self, other: &Self, bare: bool) -> bool {
        let has_method = |method| self.methods.contains(method);
        let has_host = |host| self.hosts.iter().any(|own: &HostPattern| own.covers(host));
        let methods = self.methods.is_empty() || !other.methods.is_empty() && other.methods.iter().all(has_method);
        let hosts = self.hosts.is_empty() || !other.hosts.is_empty() && other.hosts.iter().all(has_host);
        methods && hosts && self.path.covers(&other.path, bare)
    }
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, BadPattern> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label =
            |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let fits = name.split('.').all(label);
        match (fits, text.starts_with("*.")) {
            (false, _) => Err(BadPattern::Host(text.to_owned())),
            (true, false) => Ok(Self::Exactly(text.to_owned())),
            (true, true) => Ok(Self::Below(text[1..].to_owned())),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exactly(own), Self::Exactly(other)) => own.eq_ignore_ascii_case(other),
            (Self::Exactly(_), Self::Below(_)) => false,
            // What is below a name ends with what follows its first letter, and is longer.
            (Self::Below(_), Self::Exactly(other)) => self.fits(other.as_bytes()),
            (Self::Below(own), Self::Below(other)) => {
                own.eq_ignore_ascii_case(other) || self.fits(&other.as_bytes()[1..])
            }
        }
    }

    /// Compares without port and final dot, in any letter case.
    fn fits(&self, host: &[u8]) -> bool {
        let port = host.iter().rposition(|b| *b == b':').filter(|at| host[at + 1..].iter().all(u8::is_ascii_digit));
        let name = &host[..port.unwrap_or(host.len())];
        let name = name.strip_suffix(b".").unwrap_or(name);
        match self {
            Self::Exactly(exact) => name.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below(suffix) => {
                let start = name.len().checked_sub(suffix.len()).filter(|start| *start > 0);
                start.is_some_and(|start| name[start..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

impl PathPattern {
    fn parse(text: &str) -> Result<Self, BadPattern> {
        let rest = text.strip_prefix('/').ok_or_else(|| BadPattern::Path(text.to_owned()))?;
        let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let open = last.strip_prefix("{*").and_then(|name| name.strip_suffix('}'));
        let head = if open.is_some() { head } else { rest };
        if is_ambiguous(&format!("/{head}")) {
            return Err(BadPattern::Path(text.to_owned()));
        }
        let mut names: Vec<&str> = open.into_iter().collect();
        if names.iter().any(|name| !is_name(name)) {
            return Err(BadPattern::Capture(text.to_owned()));
        }
        if names.iter().any(|name| Level::parse(name).is_some()) {
            return Err(BadPattern::OpenLevel(text.to_owned()));
        }
        let mut segments = Vec::new();
        for part in head.split('/').filter(|_| open.is_none() || !head.is_empty()) {
            let (segment, name) = Segment::parse(part, text)?;
            if name.is_some_and(|name| names.contains(&name)) {
                return Err(BadPattern::Twice(text.to_owned()));
            }
            names.extend(name);
            segments.push(segment);
        }
        Ok(Self { segments, open: open.is_some() })
    }

    /// The steps of the scope tree that a decoded path (without its first slash) names, if the pattern fits.
    fn captured(&self, path: &[u8], bare: bool) -> Option<Vec<Step>> {
        let mut captured = Vec::new();
        let mut rest = Some(path);
        for segment in &self.segments {
            let (part, after) = split_segment(rest?);
            match segment {
                Segment::Literal(literal) if **literal == *part => {}
                Segment::Capture(None) if !part.is_empty() => {}
                Segment::Capture(Some(level)) if !part.is_empty() => {
                    captured.push(Step { level: *level, id: String::from_utf8_lossy(part).into() });
                }
                Segment::Literal(_) | Segment::Capture(_) => return None,
            }
            rest = after;
        }
        let fits = match (self.open, rest) {
            (true, None) => bare,
            (open, rest) => open == rest.is_some(),
        };
        fits.then_some(captured)
    }

    fn covers(&self, other: &Self, bare: bool) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let lengths = match (self.open, other.open) {
            (false, false) => own == others,
            (false, true) => false,
            (true, false) => own < others || own == others && bare,
            (true, true) => own <= others,
        };
        lengths && self.segments.iter().zip(&other.segments).all(|(own, other)| own.covers(other))
    }
}

impl Segment {
    /// A segment of a pattern, and the name of the capture that it is.
    fn parse<'s>(part: &'s str, pattern: &str) -> Result<(Self, Option<&'s str>), BadPattern> {
        match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if is_name(name) => Ok((Self::Capture(Level::parse(name)), Some(name))),
            None if part.contains(['*', '?', '<', '>']) || part.starts_with(':') => {
                Err(BadPattern::Sign(pattern.to_owned()))
            }
            None if !part.contains(['{', '}']) => Ok((Self::Literal(percent_decode(part.as_bytes()).into()), None)),
            Some(_) | None => Err(BadPattern::Capture(pattern.to_owned())),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(other)) => own == other,
            (Self::Literal(_), Self::Capture(_)) => false,
            (Self::Capture(_), Self::Literal(other)) => !other.is_empty(),
            (Self::Capture(_), Self::Capture(_)) => true,
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// The first segment, and what follows its slash if there is one.
fn split_segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_could_not_match_are_refused() {
        for path in ["", "x", "//", "/a//b", "/a/../b", "/a%2fb", "/a%2Fb", "/a#b", "/a;b", "/a b"] {
            assert_eq!(Pattern::parse(path, &[], vec![]).unwrap_err(), BadPattern::Path(path.to_owned()));
        }
        for path in ["/{a", "/a}", "/{}", "/{*}", "/x{a}", "/{*a}/b", "/{a}{b}", "/{a~b}", "/{*a{b}", "/{a*}", "/{**a}"]
        {
            assert_eq!(Pattern::parse(path, &[], vec![]).unwrap_err(), BadPattern::Capture(path.to_owned()));
        }
        for path in ["/*", "/a/*", "/a*b/c", "/a/**", "/q?x=1", "/:id", "/a/:id/b", "/<id>"] {
            assert_eq!(Pattern::parse(path, &[], vec![]).unwrap_err(), BadPattern::Sign(path.to_owned()));
        }
        for path in ["/{a}/{a}", "/{a}/x/{*a}", "/{project}/{project}"] {
            assert_eq!(Pattern::parse(path, &[], vec![]).unwrap_err(), BadPattern::Twice(path.to_owned()));
        }
        for path in ["/{*organization}", "/a/{*scene}"] {
            assert_eq!(Pattern::parse(path, &[], vec![]).unwrap_err(), BadPattern::OpenLevel(path.to_owned()));
        }
        for path in ["/%2A", "/q%3Fx", "/%3Aid", "/a:b", "/(a)", "/{a}/{b}/{*c}", "/{a-b}", "/{a.b}", "/", "/a/"] {
            assert!(Pattern::parse(path, &[], vec![]).is_ok(), "{path}");
        }
        for host in ["", "*", "*.", ".a", "a.", "a..b", "*.*.a", "a:80", "http://a", "a b"] {
            assert!(Pattern::parse("/", &[host.to_owned()], vec![]).is_err(), "{host}");
        }
    }

    #[test]
    fn what_one_pattern_covers_of_another() {
        for (own, other, expected) in [
            ("/{*rest}", "/", true),
            ("/{*rest}", "/a/{b}/{*c}", true),
            ("/a/{*rest}", "/a", true),
            ("/a/{*rest}", "/a/", true),
            ("/a/{*rest}", "/a/{*other}", true),
            ("/a/{*rest}", "/{a}/{*other}", false),
            ("/{a}/{*rest}", "/a/{*other}", true),
            ("/{a}/{*rest}", "/", false),
            ("/{a}", "/b", true),
            ("/{a}", "/{b}", true),
            ("/{a}", "/b/", false),
            ("/{a}", "/{*b}", false),
            ("/a", "/a", true),
            ("/%61", "/a", true),
            ("/a", "/A", false),
            ("/a", "/a/", false),
            ("/a/b/{*rest}", "/a/{*rest}", false),
        ] {
            let parse = |path| Pattern::parse(path, &[], vec![]).unwrap();
            assert_eq!(parse(own).covers(&parse(other), true), expected, "{own} {other}");
        }
        for (own, other, expected) in [
            (&[][..], &["a.b"][..], true),
            (&["a.b"], &[], false),
            (&["A.b"], &["a.B"], true),
            (&["*.b"], &["a.b", "*.a.b"], true),
            (&["*.b"], &["b"], false),
            (&["*.b"], &["*.b"], true),
            (&["*.a.b"], &["*.b"], false),
            (&["a.b"], &["*.a.b"], false),
            (&["a", "b"], &["b", "a"], true),
        ] {
            let parse = |hosts: &[&str]| {
                let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
                Pattern::parse("/a", &hosts, vec![]).unwrap()
            };
            assert_eq!(parse(own).covers(&parse(other), true), expected, "{own:?} {other:?}");
        }
        for (own, other, expected) in [
            (&[][..], &[Method::GET][..], true),
            (&[Method::GET], &[], false),
            (&[Method::GET, Method::PUT], &[Method::PUT], true),
            (&[Method::PUT], &[Method::GET, Method::PUT], false),
        ] {
            let parse = |methods: &[Method]| Pattern::parse("/a", &[], methods.to_vec()).unwrap();
            assert_eq!(parse(own).covers(&parse(other), true), expected, "{own:?} {other:?}");
        }
    }
}
