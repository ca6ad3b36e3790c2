//! What Keyward itself ends in the middle does not look whole to the other side either (reliability row 70).

use std::io;
use std::sync::{Mutex, mpsc};

use super::super::support::{After, PATIENCE, Site, Upstream};

/// An upload in chunks that ends halfway, before there is an answer and while there is one: its key is revoked, or it has
/// had all the time that there is.
#[test]
fn an_upload_that_is_ended_is_not_completed() {
    for (answers, revokes) in [(false, false), (false, true), (true, false), (true, true)] {
        let (said, heard) = mpsc::channel();
        let said = Mutex::new(said);
        let upstream = Upstream::scripted(move |turn| {
            turn.wire.chunk()?;
            if answers {
                turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                turn.wire.send_chunk(b"so far")?;
            }
            let said = said.lock().unwrap();
            said.send(Vec::new()).map_err(io::Error::other)?;
            said.send(turn.wire.rest()?).map_err(io::Error::other)?;
            Ok(After::Close)
        });
        let site = Site::new(upstream.address(), "proxy: { workers: 1, timeouts: { request: 1s } }");
        let key = site.create_key(&[]);
        let keyward = site.serve();
        let mut client = keyward.connect();
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
        client.send(format!("{head}X-API-Key: {}\r\n\r\n", key.value).as_bytes());
        client.wire().send_chunk(b"half").unwrap();
        heard.recv_timeout(PATIENCE).unwrap();
        if answers {
            assert_eq!(client.response_head().unwrap().0, 200);
        }
        if revokes {
            assert!(keyward.site.run(&["key", "revoke", &key.id]).status.success());
        }
        let rest = heard.recv_timeout(PATIENCE).unwrap();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{answers} {revokes}: {:?}", String::from_utf8_lossy(&rest));
    }
}
