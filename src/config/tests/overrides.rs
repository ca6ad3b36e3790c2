//! Environment and flags.

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const FILE: &str = "proxy: { upstream: http://app:9000, listen: 127.0.0.1:1, workers: 2 }\n";

#[track_caller]
fn laid_over(env: &[(&str, &str)], set: &[(&str, &str)]) -> Config {
    let overrides = Overrides { env: pairs(env), set: pairs(set) };
    load_text(&format!("{NEEDED}{FILE}"), &overrides).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    const NAME: &str = "KEYWARD_PROXY__LISTEN";
    for (env, set, expected) in [
        (&[][..], &[][..], "127.0.0.1:1"),
        (&[(NAME, "127.0.0.1:2")], &[], "127.0.0.1:2"),
        (&[], &[("proxy.listen", "127.0.0.1:3")], "127.0.0.1:3"),
        (&[(NAME, "127.0.0.1:2")], &[("proxy.listen", "127.0.0.1:3")], "127.0.0.1:3"),
        (&[], &[("proxy.listen", "127.0.0.1:3"), ("proxy.listen", "127.0.0.1:4")], "127.0.0.1:4"),
        (&[(NAME, "127.0.0.1:2"), ("KEYWARD_PROXY", "{ upstream: http://b }")], &[], "127.0.0.1:2"),
        // What can only be text is taken as it is: in YAML this would be a list.
        (&[(NAME, "[::1]:5")], &[], "[::1]:5"),
    ] {
        assert_eq!(laid_over(env, set).proxy.listen, expected.parse().unwrap(), "{env:?} {set:?}");
    }
}

#[test]
fn values_are_read_as_in_the_file() {
    let config = laid_over(
        &[
            ("KEYWARD_PROXY__WORKERS", "5"),
            ("KEYWARD_PROXY__MAX_HEAD", "16KiB"),
            ("KEYWARD_PROXY__TIMEOUTS__HEAD", "3s"),
            ("KEYWARD_PROXY__TRUSTED_PROXIES", "[10.0.0.0/8]"),
            ("KEYWARD_CREDENTIALS__HEADER", ""),
            ("KEYWARD_CREDENTIALS__BARE", "true"),
            ("KEYWARD_ROUTES", "[{ path: /a, auth: none }]"),
            ("KEYWARD_ADMIN", "{}"),
        ],
        &[("ops.listen", "127.0.0.1:9"), ("default_route.deny", "json"), ("log.level", "info,hyper=warn")],
    );
    let proxy = &config.proxy;
    assert_eq!((proxy.workers.count, proxy.limits.max_head_bytes), (5, 16 << 10));
    assert_eq!(proxy.limits.head_timeout, Duration::from_secs(3));
    assert!(proxy.trusted_proxies.contains("10.1.2.3".parse().unwrap()));
    assert_eq!(proxy.routes.find_path("/a").rule.requirement, Requirement::Nothing);
    let forms = &proxy.routes.find_path("/").rule.forms;
    assert_eq!((&forms.header, forms.bare), (&None, true));
    assert_eq!(proxy.settings[1].deny.format, FormatRule::Always(Format::Json));
    assert!(config.admin.is_some() && config.ops.is_some());
    assert_eq!(config.log.level, "info,hyper=warn");
    assert!(config.warnings.is_empty());
}

#[test]
fn variables_that_set_nothing_are_warned_of() {
    let config = laid_over(
        &[
            ("KEYWARD_PROXY__LISEN", "x"),
            ("KEYWARD_PROXY_WORKERS", "x"),
            ("KEYWARD_SOMETHING", "x"),
            ("KEYWARD_ROUTES__0__PATH", "x"),
            ("KEYWARD_CONFIG", "x"),
            ("KEYWARD_REQUIRE_TOOLS", "1"),
            ("KEYWARD_SERVICE_HOST", "10.0.0.1"),
            ("KEYWARD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("HOME", "/"),
        ],
        &[],
    );
    let warnings: Vec<String> = config.warnings.iter().map(Finding::to_string).collect();
    assert_eq!(
        warnings,
        [
            "environment KEYWARD_PROXY_WORKERS: sets no option; did you mean KEYWARD_PROXY__WORKERS?",
            "environment KEYWARD_SOMETHING: sets no option",
            "environment KEYWARD_PROXY__LISEN: sets no option; did you mean KEYWARD_PROXY__LISTEN?",
            "environment KEYWARD_ROUTES__0__PATH: sets no option",
        ]
    );
}

#[test]
fn mistakes_say_where_the_value_is_from() {
    for (env, set, expected) in [
        (
            &[("KEYWARD_PROXY__LISTEN", "localhost:80")][..],
            &[][..],
            "environment KEYWARD_PROXY__LISTEN: proxy.listen: \"localhost:80\" has a name instead of an address; \
             write 127.0.0.1:80",
        ),
        (&[], &[("proxy.workers", "0")], "--set proxy.workers: expected a number from 1 to 1024, found 0"),
        (
            &[],
            &[("proxy.workers", "")],
            "--set proxy.workers: expected auto or a whole number, found nothing; write a value, or leave the option \
             out",
        ),
        (&[], &[("proxy.lisen", "x")], "--set proxy.lisen: there is no such option; did you mean proxy.listen?"),
        (
            &[],
            &[("listen", "x")],
            "--set listen: there is no such option; an option of this name belongs under admin or ops or proxy",
        ),
        (
            &[("KEYWARD_ROUTES", "[{ path: x }, { paht: /y }]")],
            &[],
            "environment KEYWARD_ROUTES: routes[0].path: a path pattern begins with / and has no empty, dot or escaped \
             segment: \"x\"\n\
             environment KEYWARD_ROUTES: routes[1].paht: there is no such option; did you mean path?\n\
             environment KEYWARD_ROUTES: routes[1].path: is missing; write for example `path: \"/public/{*rest}\"`",
        ),
        (
            &[("KEYWARD_ROUTES", "[{")],
            &[],
            "environment KEYWARD_ROUTES: is no YAML: did not find expected node content, while parsing a flow node",
        ),
        (
            &[],
            &[("log", "{ level: info, level: warn }")],
            "--set log: log.level: is given more than once; keep one of them",
        ),
        (
            &[],
            &[("store", "mysql://root:hunter2@db")],
            "--set store: a store is sqlite:PATH (an embedded database), postgres://USER@HOST/DATABASE or file:PATH \
             (files that something else writes)",
        ),
    ] {
        let overrides = Overrides { env: pairs(env), set: pairs(set) };
        let mistakes = load_text(&format!("{NEEDED}{FILE}"), &overrides).err().unwrap();
        let mut lines: Vec<String> = mistakes.to_string().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines.join("\n"), expected, "{env:?} {set:?}");
    }
}

#[test]
fn a_config_can_come_from_the_environment_alone() {
    let overrides = Overrides {
        env: pairs(&[
            ("KEYWARD_VERSION", "1"),
            ("KEYWARD_STORE", "sqlite:keys.db"),
            ("KEYWARD_KEYS__PEPPER__FILE", "pepper"),
            ("KEYWARD_PROXY__UPSTREAM", "http://app"),
        ]),
        set: vec![],
    };
    assert_eq!(load_text("", &overrides).ok().unwrap().proxy.upstream, Target::Http("app:80".to_owned()));
}
