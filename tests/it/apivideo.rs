//! api.video: uploads, public ones too, and operations whose method says what they do.

use super::support::{Framing, Site, Upstream, request, upload_in_halves};

const CONFIG: &str = r#"
deny: { format: problem }
routes:
  - { path: "/upload", methods: [POST], auth: none }
"#;

/// A token of api.video's own, as its documentation shows one.
const TOKEN: &str = "to1tcmSFHeYY5KzyhOqVKMKb";

#[test]
fn a14_an_upload_with_the_upstreams_own_token_needs_no_key() {
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), CONFIG).serve();
    let target = format!("/upload?token={TOKEN}");
    for fields in [&[][..], &[("Authorization", "Bearer eyJ0eXAi.theirs")], &[("X-API-Key", "theirs")]] {
        assert_eq!(keyward.send(&request("POST", &target, fields, b"movie")).status, 200);
        let received = upstream.only();
        assert_eq!((received.head.target(), &*received.body.bytes), (target.clone(), &b"movie"[..]));
        for (name, value) in fields {
            assert_eq!(received.head.value(&name.to_ascii_lowercase()).as_deref(), Some(*value));
        }
    }
    // Managing those tokens does.
    for (method, path) in [
        ("GET", "/upload-tokens"),
        ("POST", "/upload-tokens"),
        ("DELETE", "/upload-tokens/to1tcmSFHeYY5KzyhOqVKMKb"),
        ("GET", "/upload"),
        ("POST", "/upload/"),
    ] {
        let response = keyward.send(&request(method, &format!("{path}?token={TOKEN}"), &[], b""));
        assert_eq!(response.status, 401, "{method} {path}");
        upstream.expect_nothing();
    }
}

#[test]
fn a15_uploads_stream() {
    let (upstream, arrived) = Upstream::watching();
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let multipart = "multipart/form-data; boundary=\"----x y\"";
    for (path, media_type) in [
        ("/videos/vi4k0jvEUuaTdRAEjQ4Jfagz/source", multipart),
        ("/videos/vi4k0jvEUuaTdRAEjQ4Jfagz/thumbnail", "image/jpeg"),
        ("/players/pl45KFKdlddgk654dspkze/logo", "image/png"),
        ("/videos/vi4k0jvEUuaTdRAEjQ4Jfagz/captions/en", "text/vtt"),
        ("/watermarks", "image/png"),
    ] {
        for framing in [Framing::Length(6000), Framing::Chunked] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: {media_type}\r\n",
                key.bearer()
            );
            upload_in_halves(&keyward, &arrived, &head, framing);
            let received = upstream.only().head;
            assert_eq!((received.target(), received.framing()), (path.to_owned(), framing));
            assert_eq!(received.value("content-type").as_deref(), Some(media_type));
        }
    }
}

#[test]
fn a16_the_method_says_what_an_operation_does() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let (read_write, read_only) = (site.create_key(&[]), site.create_key(&["--read-only"]));
    let keyward = site.serve();
    for (method, path, reads) in [
        ("GET", "/videos", true),
        ("HEAD", "/videos", true),
        ("OPTIONS", "/videos", true),
        ("POST", "/videos", false),
        ("PATCH", "/videos/vi4k0jvEUuaTdRAEjQ4Jfagz", false),
        ("PUT", "/videos/vi4k0jvEUuaTdRAEjQ4Jfagz", false),
        ("DELETE", "/videos/vi4k0jvEUuaTdRAEjQ4Jfagz", false),
        ("PROPFIND", "/videos", false),
        ("get", "/videos", false),
    ] {
        for (key, allowed) in [(&read_write, true), (&read_only, reads)] {
            let response = keyward.with_key(key, method, path);
            assert_eq!(response.status, if allowed { 200 } else { 403 }, "{method}");
            let heads: Vec<String> = upstream.take().iter().map(|received| received.head.start()).collect();
            let expected = if allowed { vec![format!("{method} {path} HTTP/1.1")] } else { vec![] };
            assert_eq!(heads, expected);
        }
    }
}
