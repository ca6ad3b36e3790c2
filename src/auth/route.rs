//! Which rule a request falls under: routes by host, method and path, and what they need.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::credential::Forms;
use super::grant::Environment;
use super::path::{is_ambiguous, percent_decode};
use super::scope::{Level, Step};

/// What a request does to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Looks.
    Read,
    /// Changes, or may.
    Write,
}

/// How a route knows the class of its requests. By method is only the default: Cablecast creates with GET (B19), and
/// Cognitive3D's own client reads with POST (C27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassRule {
    /// GET, HEAD and OPTIONS read, in exactly this spelling; everything else writes.
    Method,
    /// All of its requests are of this class.
    Always(Class),
}

impl ClassRule {
    /// The class of a request with this method.
    pub fn class(self, method: &Method) -> Class {
        match self {
            Self::Always(class) => class,
            Self::Method if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) => Class::Read,
            Self::Method => Class::Write,
        }
    }
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A key.
    Key,
    /// Nothing: the route is public.
    Nothing,
}

/// What to do with ambiguous paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMode {
    /// Refuse them.
    Strict,
    /// Let them through to those whose key is read-write and not bound to a scope.
    Lenient,
}

/// What a request must bring to pass under a route.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whether it needs a key.
    pub requirement: Requirement,
    /// What class its requests are of.
    pub class: ClassRule,
    /// The environment that its keys must be of, if it matters.
    pub environment: Option<Environment>,
    /// The forms in which its key may come.
    pub forms: Forms,
}

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
    /// Whether it ends in `{*name}`, which takes all that is left, even if that is nothing.
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

    fn captured(&self, target: &RequestTarget<'_>, segments: &[u8]) -> Option<Vec<Step>> {
        let method_fits = self.methods.is_empty() || self.methods.contains(target.method);
        let host_fits = self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.fits(target.host()));
        (method_fits && host_fits).then(|| self.path.captured(segments)).flatten()
    }
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, BadPattern> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        match (fits, text.starts_with("*.")) {
            (false, _) => Err(BadPattern::Host(text.to_owned())),
            (true, false) => Ok(Self::Exactly(text.to_owned())),
            (true, true) => Ok(Self::Below(text[1..].to_owned())),
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
        let (head, open) = match rest.rsplit_once('/').unwrap_or(("", rest)) {
            (head, last) if last.starts_with("{*") && last.ends_with('}') => (head, true),
            _ => (rest, false),
        };
        if is_ambiguous(&format!("/{head}")) {
            return Err(BadPattern::Path(text.to_owned()));
        }
        let segments = match (head, open) {
            ("", true) => Vec::new(),
            _ => head
                .split('/')
                .map(Segment::parse)
                .collect::<Option<_>>()
                .ok_or_else(|| BadPattern::Capture(text.to_owned()))?,
        };
        Ok(Self { segments, open })
    }

    /// The steps of the scope tree that a decoded path (without its first slash) names, if the pattern fits.
    fn captured(&self, path: &[u8]) -> Option<Vec<Step>> {
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
        (self.open == rest.is_some()).then_some(captured)
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(name) if !name.is_empty() && !name.contains(['{', '}', '*']) => {
                Some(Self::Capture(Level::parse(name)))
            }
            None if !text.contains(['{', '}']) => Some(Self::Literal(percent_decode(text.as_bytes()).into())),
            Some(_) | None => None,
        }
    }
}

/// The first segment, and what follows its slash if there is one.
fn split_segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}

/// All routes, in the order of the config; the first that fits counts.
#[derive(Debug)]
pub struct Routes {
    routes: Vec<(Pattern, Rule)>,
    default: Rule,
    paths: PathMode,
}

/// What routes are told apart by.
pub struct RequestTarget<'r> {
    /// The request's method.
    pub method: &'r Method,
    /// Its target, as it came.
    pub uri: &'r Uri,
    /// Its headers, for the host.
    pub headers: &'r HeaderMap,
}

impl RequestTarget<'_> {
    /// The host of an absolute target, else that of the header.
    fn host(&self) -> &[u8] {
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        authority.or_else(|| self.headers.get(HOST).map(HeaderValue::as_bytes)).unwrap_or_default()
    }
}

/// The route that a request falls under.
#[derive(Debug)]
pub struct Matched<'p> {
    /// Its place in the config; [`Routes::default_index`] for the default route.
    pub index: usize,
    /// What it needs.
    pub rule: &'p Rule,
    /// Where in the scope tree the path says it acts; empty where it does not say.
    pub captured: Vec<Step>,
    /// What is to be done about a path that servers read differently; `None` for all other paths.
    pub ambiguous: Option<PathMode>,
}

impl Routes {
    /// The routes, what holds where none fits, and what is done about ambiguous paths.
    pub fn new(routes: Vec<(Pattern, Rule)>, default: Rule, paths: PathMode) -> Self {
        Self { routes, default, paths }
    }

    /// The index of the default route.
    pub fn default_index(&self) -> usize {
        self.routes.len()
    }

    /// What each route needs, the default route last.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.routes.iter().map(|(_, rule)| rule).chain([&self.default])
    }

    /// The route for a request. An ambiguous path falls under the default route, whatever the routes say.
    pub fn find(&self, target: &RequestTarget<'_>) -> Matched<'_> {
        let path = target.uri.path();
        let default =
            Matched { index: self.default_index(), rule: &self.default, captured: Vec::new(), ambiguous: None };
        if is_ambiguous(path) {
            return Matched { ambiguous: Some(self.paths), ..default };
        }
        let decoded = percent_decode(&path.as_bytes()[1..]);
        for (index, (pattern, rule)) in self.routes.iter().enumerate() {
            if let Some(captured) = pattern.captured(target, &decoded) {
                return Matched { index, rule, captured, ambiguous: None };
            }
        }
        default
    }
}

#[cfg(test)]
impl Routes {
    /// The route of a GET without a host, for tests of what a config comes to.
    pub(crate) fn find_path(&self, path: &str) -> Matched<'_> {
        let uri = path.parse().expect("a test's path is a target");
        self.find(&RequestTarget { method: &Method::GET, uri: &uri, headers: &HeaderMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(requirement: Requirement) -> Rule {
        let forms = Forms { organization: true, bearer: true, basic: true, bare: false, header: None, query: None };
        Rule { requirement, class: ClassRule::Method, environment: None, forms }
    }

    fn routes(patterns: &[(&str, &[&str], &[Method])]) -> Routes {
        let routes = patterns.iter().map(|(path, hosts, methods)| {
            let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
            (Pattern::parse(path, &hosts, methods.to_vec()).unwrap(), rule(Requirement::Nothing))
        });
        Routes::new(routes.collect(), rule(Requirement::Key), PathMode::Strict)
    }

    fn find<'p>(routes: &'p Routes, method: &str, host: &str, path: &str) -> Matched<'p> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        let uri = path.parse().unwrap_or_else(|_| "*".parse().unwrap());
        routes.find(&RequestTarget {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            uri: &uri,
            headers: &headers,
        })
    }

    #[test]
    fn the_first_route_that_fits_counts() {
        let routes = routes(&[
            ("/public/{*rest}", &[], &[]),
            ("/exact", &[], &[]),
            ("/posted", &[], &[Method::POST]),
            ("/host", &["a.example.com", "*.b.example"], &[]),
            ("/{any}/end", &[], &[]),
            ("/sp%20ace", &[], &[]),
            ("/", &[], &[]),
        ]);
        let default = routes.default_index();
        for (method, host, path, index) in [
            ("GET", "", "/public/a", 0),
            ("GET", "", "/public/a/b.xml", 0),
            ("GET", "", "/public/", 0),
            ("GET", "", "/public", default),
            ("GET", "", "/publicity", default),
            ("GET", "", "/p%75blic/x", 0),
            ("GET", "", "/PUBLIC/x", default),
            ("GET", "", "/exact", 1),
            ("GET", "", "/exact/", default),
            ("POST", "", "/posted", 2),
            ("post", "", "/posted", default),
            ("GET", "", "/posted", default),
            ("GET", "a.example.com", "/host", 3),
            ("GET", "A.EXAMPLE.COM.:8080", "/host", 3),
            ("GET", "x.b.example", "/host", 3),
            ("GET", "b.example", "/host", default),
            ("GET", "evil-a.example.com", "/host", default),
            ("GET", "", "/host", default),
            ("GET", "", "/x/end", 4),
            ("GET", "", "/x/y/end", default),
            ("GET", "", "/sp%20ace", 5),
            ("GET", "", "/", 6),
        ] {
            let matched = find(&routes, method, host, path);
            assert_eq!((matched.index, matched.ambiguous), (index, None), "{method} {host} {path}");
        }
    }

    #[test]
    fn ambiguous_paths_match_no_route() {
        let routes = routes(&[("/public/{*rest}", &[], &[]), ("/{*rest}", &[], &[])]);
        for path in
            ["/public/../x", "/public//x", "/public/%2e%2e/x", "/public/%2fx", "/public/x;y", "/public/\\x", "x", "*"]
        {
            let matched = find(&routes, "GET", "", path);
            assert_eq!((matched.index, matched.ambiguous), (2, Some(PathMode::Strict)), "{path}");
            assert_eq!(matched.rule.requirement, Requirement::Key);
        }
    }

    #[test]
    fn captures_named_after_levels_are_kept() {
        let routes = routes(&[("/v0/organizations/{organization}/x/{id}/projects/{project}/{*rest}", &[], &[])]);
        let matched = find(&routes, "GET", "", "/v0/organizations/ac%6De/x/7/projects/p1/a/b");
        let captured: Vec<_> = matched.captured.iter().map(|s| (s.level, &*s.id)).collect();
        assert_eq!(captured, [(Level::Organization, "acme"), (Level::Project, "p1")]);
        assert_eq!(find(&routes, "GET", "", "/v0/organizations//x/7/projects/p1/").index, 1);
    }

    #[test]
    fn patterns_that_could_not_match_are_refused() {
        for path in
            ["", "x", "//", "/a//b", "/a/../b", "/a%2fb", "/{a", "/a}", "/{}", "/x{a}", "/{*a}/b", "/{a}{b}", "/a;b"]
        {
            assert!(Pattern::parse(path, &[], vec![]).is_err(), "{path}");
        }
        for host in ["", "*", "*.", "a:80", "http://a", "a b"] {
            assert!(Pattern::parse("/", &[host.to_owned()], vec![]).is_err(), "{host}");
        }
    }

    #[test]
    fn a16_the_method_tells_the_class_only_by_default() {
        for (rule, method, class) in [
            (ClassRule::Method, "GET", Class::Read),
            (ClassRule::Method, "HEAD", Class::Read),
            (ClassRule::Method, "OPTIONS", Class::Read),
            (ClassRule::Method, "POST", Class::Write),
            (ClassRule::Method, "PATCH", Class::Write),
            (ClassRule::Method, "DELETE", Class::Write),
            (ClassRule::Method, "get", Class::Write),
            (ClassRule::Method, "PROPFIND", Class::Write),
            (ClassRule::Always(Class::Write), "GET", Class::Write),
            (ClassRule::Always(Class::Read), "POST", Class::Read),
        ] {
            assert_eq!(rule.class(&Method::from_bytes(method.as_bytes()).unwrap()), class, "{method}");
        }
    }
}
