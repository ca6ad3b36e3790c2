//! Which rule a request falls under: routes by host, method and path, and what they need.

mod pattern;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::credential::Forms;
use super::grant::Environment;
use super::path::{is_ambiguous, percent_decode};
use super::scope::Step;

pub use pattern::{BadPattern, Pattern};

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

impl Rule {
    /// Whether it lets pass what would else be asked for more. Such a rule is for what its path spells and no more: not for
    /// the path before the slash of `/{*rest}`.
    fn loosens(&self) -> bool {
        self.requirement == Requirement::Nothing || self.class == ClassRule::Always(Class::Read)
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

    /// Each route that is never reached, and the first before it that has all of its requests.
    pub fn hidden(&self) -> impl Iterator<Item = (usize, usize)> {
        self.routes.iter().enumerate().filter_map(|(nth, (pattern, _))| {
            let before = self.routes[..nth].iter();
            let by = before.map(|(other, rule)| other.covers(pattern, !rule.loosens())).position(|covers| covers);
            by.map(|by| (nth, by))
        })
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
            if let Some(captured) = pattern.captured(target, &decoded, !rule.loosens()) {
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
    use crate::auth::scope::Level;

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
    fn all_that_follows_may_be_nothing_where_a_rule_asks_for_more() {
        let restricting = Rule { class: ClassRule::Always(Class::Write), ..rule(Requirement::Key) };
        let reading = Rule { class: ClassRule::Always(Class::Read), ..rule(Requirement::Key) };
        for (rule, bare) in
            [(restricting, 0), (rule(Requirement::Key), 0), (reading, 1), (rule(Requirement::Nothing), 1)]
        {
            let named = format!("{rule:?}");
            let pattern = Pattern::parse("/o/{organization}/{*rest}", &[], vec![]).unwrap();
            let routes = Routes::new(vec![(pattern, rule)], self::rule(Requirement::Key), PathMode::Strict);
            for (path, expected) in [("/o/a", bare), ("/o/a/", 0), ("/o/a/b", 0), ("/o", 1), ("/o/", 1)] {
                let matched = find(&routes, "GET", "", path);
                assert_eq!((matched.index, matched.captured.len()), (expected, 1 - expected), "{path} {named}");
            }
        }
    }

    #[test]
    fn routes_behind_one_that_has_all_of_their_requests_are_hidden() {
        let hidden = |patterns: &[_]| routes(patterns).hidden().collect::<Vec<_>>();
        assert_eq!(hidden(&[("/a", &[], &[]), ("/b", &[], &[]), ("/a", &[], &[])]), [(2, 0)]);
        assert_eq!(hidden(&[("/a", &[], &[Method::GET]), ("/a", &[], &[])]), []);
        assert_eq!(hidden(&[("/{*x}", &[], &[]), ("/a", &["b"], &[]), ("/c/{*x}", &[], &[])]), [(1, 0), (2, 0)]);
        // These are public, and such a rule leaves the path before the slash to others.
        assert_eq!(hidden(&[("/a/{*x}", &[], &[]), ("/a", &[], &[]), ("/a/{*y}", &[], &[])]), [(2, 0)]);
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
