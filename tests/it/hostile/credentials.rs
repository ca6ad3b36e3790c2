//! Which credential counts (rows 1 to 11).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{BAD, Cases, Expect, UNKNOWN};

pub(super) fn add(cases: &mut Cases) {
    two_of_them(cases);
    spellings_of_the_parameter(cases);
    nearly_the_key(cases);
    odd_texts(cases);
    for agent in [
        "kube-probe/1.29",
        "GoogleHC/1.0",
        "ELB-HealthChecker/2.0",
        "Prometheus/3.0",
        "Consul Health Check",
        "UptimeRobot/2.0",
        "Amazon-Route53-Health-Check-Service",
        "curl/8.5.0",
    ] {
        cases.get(11, "/x", &format!("User-Agent: {agent}\r\n"), UNKNOWN);
        cases.get(11, "/healthz", &format!("user-agent: {agent}\r\nX-Health-Check: 1\r\n"), UNKNOWN);
    }
}

/// Rows 1 to 3, 9 and 10.
fn two_of_them(cases: &mut Cases) {
    let basic = cases.fill("{key}:");
    let basic = format!("Authorization: Basic {}\r\n", BASE64.encode(basic));
    let lines = [
        "Authorization: Bearer {key}\r\n",
        "authorization: Bearer wrong\r\n",
        "AUTHORIZATION: Bearer {ro}\r\n",
        "Authorization: APIKEY:ORGANIZATION {key}\r\n",
        &basic,
    ];
    for (at, one) in lines.iter().enumerate() {
        for other in &lines[at..] {
            cases.get(1, "/x", &format!("{one}{other}"), BAD);
            cases.get(1, "/x", &format!("{other}X: y\r\n{one}"), BAD);
        }
        for header in ["X-API-Key: {key}\r\n", "x-api-key: {ro}\r\n", "X-API-KEY: wrong\r\n"] {
            cases.get(2, "/x", &format!("{one}{header}"), BAD);
            cases.get(2, "/x", &format!("{header}{one}"), BAD);
        }
        for value in ["{key}", "{ro}", "wrong"] {
            cases.get(2, &format!("/x?api_key={value}"), one, BAD);
        }
    }
    cases.get(1, "/x", "Authorization: Bearer {key}, Bearer {key}\r\n", UNKNOWN);
    cases.get(1, "/x", "Authorization: Bearer wrong, Bearer {key}\r\n", UNKNOWN);
    cases.get(1, "/x", "Authorization: Bearer wrong,\r\n Bearer {key}\r\n", BAD);
    for value in ["{key}", "{ro}", "wrong"] {
        cases.get(1, "/x", &format!("X-API-Key: {value}\r\nx-api-key: {{key}}\r\n"), BAD);
        cases.get(1, "/x", &format!("X-API-Key: {value}, {{key}}\r\n"), UNKNOWN);
        cases.get(2, &format!("/x?api_key={value}"), "X-API-Key: {key}\r\n", BAD);
        cases.get(2, "/x?api_key={key}", &format!("X-API-Key: {value}\r\n"), BAD);
        for query in ["api_key={key}&api_key=", "api_key={key}&a=b&api%5fkey=", "%61pi_key={key}&api_key="] {
            cases.get(3, &format!("/x?{query}{value}"), "", BAD);
        }
    }
    for coding in ["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n"] {
        for trailer in ["Authorization: Bearer {key}", "X-API-Key: {key}", "authorization: APIKEY:ORGANIZATION {key}"] {
            let head = format!("POST /x HTTP/1.1\r\nHost: a\r\n{coding}\r\n");
            cases.raw(9, &format!("{head}3\r\nabc\r\n0\r\n{trailer}\r\n\r\n"), UNKNOWN);
        }
    }
    let keyed = "GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n";
    for then in [
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key:\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nCookie: session=1\r\nConnection: keep-alive\r\n\r\n",
    ] {
        cases.raw(10, &format!("{keyed}{then}"), Expect::Answers(&[200, 401]));
        cases.raw(10, &format!("{keyed}{then}{keyed}"), Expect::Answers(&[200, 401, 200]));
    }
}

/// Rows 4 and 5.
fn spellings_of_the_parameter(cases: &mut Cases) {
    // The parameter, and what is left without it.
    for (name, alone, beside) in [
        ("api%5Fkey", "/x", "/x?b=c"),
        ("api%5fkey", "/x", "/x?b=c"),
        ("%61%70%69%5F%6B%65%79", "/x", "/x?b=c"),
        ("&&api_key", "/x?&", "/x?&&b=c"),
        ("api_key=&api_key", "/x", "/x?b=c"),
    ] {
        cases.get(4, &format!("/x?{name}={{key}}"), "", Expect::Passed(alone.to_owned(), ""));
        cases.get(4, &format!("/x?{name}={{key}}&b=c"), "", Expect::Passed(beside.to_owned(), ""));
    }
    // Others, for us.
    for name in [
        "API_KEY",
        "Api_Key",
        "api-key",
        "api.key",
        "apikey",
        "+api_key",
        "%20api_key",
        "api_key%20",
        "api_key+",
        "api_key[]",
        "api_key%5B%5D",
        "api_key[0]",
        "api_key%00",
        "api_key%0a",
        ";api_key",
        "a=1;api_key",
        "a;api_key",
        "?api_key",
        "x[api_key]",
        "api__key",
        "api%255Fkey",
        "%00api_key",
        "api_key\u{200b}",
        "\u{ff41}pi_key",
        "%uff41pi_key",
    ] {
        cases.get(4, &format!("/x?{name}={{key}}"), "", UNKNOWN);
        cases.get(4, &format!("/x?{name}={{key}}&b=c"), "", UNKNOWN);
    }
    for value in ["{key}%00", "%00{key}", "{key}%20", "+{key}", "{key}%0d%0a", "%22{key}%22", "{key};", "{key},{key}"] {
        cases.get(4, &format!("/x?api_key={value}"), "", UNKNOWN);
    }
    for (sent, arrives) in [
        ("/x?api_key={key}", "/x"),
        ("/x?a=1&api_key={key}", "/x?a=1"),
        ("/x?api_key={key}&b=%20+%2B&c", "/x?b=%20+%2B&c"),
        ("/x?a=%41&api%5Fkey={key}&&b==&", "/x?a=%41&&b==&"),
        ("/x?=&api_key={key}&?", "/x?=&?"),
        ("/a%20b%41?x=/../%2e&api_key={key}", "/a%20b%41?x=/../%2e"),
    ] {
        cases.get(5, sent, "", Expect::Passed(arrives.to_owned(), ""));
        cases.get(35, sent, "", Expect::Passed(arrives.to_owned(), ""));
        let passed = Expect::Passed(arrives.to_owned(), "");
        cases.get(5, sent, &format!("Referer: http://a{sent}\r\n"), passed);
    }
    for lines in ["X-API-Key: {key}\r\n", "Authorization: Bearer {key}\r\n", "authorization: bEaReR {key}\r\n"] {
        cases.get(5, "/x?a=b", lines, Expect::Passed("/x?a=b".to_owned(), ""));
        cases.get(5, "/public/x?a=b", lines, Expect::Passed("/public/x?a=b".to_owned(), ""));
    }
}

/// Row 7.
fn nearly_the_key(cases: &mut Cases) {
    let key = cases.keys.key.value.clone();
    let swapped: String =
        key.chars().map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    let escaped: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let short = &key[..key.len() - 1];
    for value in [
        &*swapped,
        &key.to_uppercase(),
        &key.to_lowercase(),
        short,
        &key[1..],
        &format!("{key}x"),
        &format!("\"{key}\""),
        &format!("'{key}'"),
        &format!("{key},"),
        &format!(",{key}"),
        &format!("{key};"),
        &escaped,
        &format!("{key}%00"),
        &format!("{key}%20"),
        &format!("<{key}>"),
        &format!("{key} {key}"),
        &format!("{key}\u{a0}"),
        &format!("{key}\t{key}"),
        &format!("{short}*"),
        &format!("{short}?"),
        &format!("{short}%"),
        &format!("Bearer {key}"),
        &format!("{key}="),
        &format!("{key}\u{0}"),
        &format!("\u{feff}{key}"),
        &key.replace('_', "-"),
    ] {
        let refused = || if value.contains('\0') { BAD } else { UNKNOWN };
        cases.get(7, "/x", &format!("X-API-Key: {value}\r\n"), refused());
        cases.get(7, "/x", &format!("Authorization: Bearer {value}\r\n"), refused());
    }
    for scheme in
        ["Bearer:", "Bear", "Token", "Bearer\u{0}", "Basic", "Digest", "APIKEY", "APIKEY:", "APIKEY:X", "Key="]
    {
        let refused = if scheme.contains('\0') { BAD } else { UNKNOWN };
        cases.get(7, "/x", &format!("Authorization: {scheme} {{key}}\r\n"), refused);
    }
}

/// Row 8: what means something to a store.
fn odd_texts(cases: &mut Cases) {
    for text in [
        "*",
        ">",
        "kw.>",
        "' OR '1'='1",
        "'; DROP TABLE keys; --",
        "%",
        "_",
        "\\",
        "$ne",
        "{\"$gt\":\"\"}",
        "../../etc/passwd",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "`id`",
        "$(id)",
        "\u{2028}",
        "kw_live_%",
        "key:1",
        "KEYS *",
        "<!ENTITY x>",
    ] {
        cases.get(8, "/x", &format!("X-API-Key: {text}\r\n"), UNKNOWN);
        cases.get(8, "/x", &format!("Authorization: Bearer {text}\r\n"), UNKNOWN);
    }
    let long = "k".repeat(20_000);
    cases.get(8, "/x", &format!("X-API-Key: {long}\r\n"), UNKNOWN);
    cases.get(8, &format!("/x?api_key={long}"), "", UNKNOWN);
}
