//! nginx and HAProxy in front of Keyward: whom they say the client is, by `X-Forwarded-For` and by the PROXY protocol.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use super::config;
use crate::support::port;
use crate::support::{Client, Key, Keyward, Site, Upstream, request, until};
use crate::tools::{self, Program};

/// The one client that the key may be used by, and another.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 8));

const NGINX: &str = r#"
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream keyward { server FORWARDED; keepalive 4; }
  server {
    listen 127.0.0.1:HTTP;
    location / {
      proxy_pass http://keyward; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
stream { server { listen 127.0.0.1:STREAM; proxy_pass PREFIXED; proxy_protocol on; } }
"#;

const HAPROXY: &str = r"
defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend forwarded
  mode http
  bind 127.0.0.1:HTTP
  option forwardfor
  default_backend forwarded
backend forwarded
  mode http
  server keyward FORWARDED
listen version-1
  mode tcp
  bind 127.0.0.1:STREAM
  server keyward PREFIXED send-proxy
listen version-2
  mode tcp
  bind 127.0.0.1:SECOND
  server keyward PREFIXED send-proxy-v2
";

/// Two Keywards, one told by headers and one told by the PROXY protocol, and a key that one client may use with each.
struct Behind {
    upstream: Upstream,
    forwarded: (Keyward, Key),
    prefixed: (Keyward, Key),
}

impl Behind {
    fn start() -> Self {
        let upstream = Upstream::start();
        let serve = |config: &str| {
            let site = Site::new(upstream.address(), config);
            let key = site.create_key(&["--ip", &CLIENT.to_string()]);
            (site.serve(), key)
        };
        let forwarded = serve("proxy: { trusted_proxies: [127.0.0.1] }");
        let prefixed = serve("proxy: { proxy_protocol: [127.0.0.1] }");
        Self { upstream, forwarded, prefixed }
    }

    /// Whether the right client is let in through a balancer, the wrong one is not, and the upstream hears who it was.
    #[track_caller]
    fn check(&self, what: &str, port: u16, key: &Key) {
        let balancer = SocketAddr::from(([127, 0, 0, 1], port));
        // Whatever the client claims itself, it is the balancer that is believed.
        let fields = [("X-API-Key", &*key.value), ("X-Forwarded-For", "127.0.0.9"), ("Connection", "close")];
        for (client, status) in [(CLIENT, 200), (OTHER, 403), (CLIENT, 200)] {
            let response = Client::connect_from(client, balancer).exchange(&request("GET", "/x", &fields, b""));
            assert_eq!(response.status, status, "{what} from {client}");
        }
        let received = self.upstream.take();
        assert_eq!(received.len(), 2, "{what}");
        for request in received {
            let list = request.head.values("x-forwarded-for").join(", ");
            assert!(list.contains("127.0.0.9") && !list.contains("127.0.0.8"), "{what}: {list}");
        }
    }
}

/// Starts a balancer, and waits until it listens on these ports.
#[track_caller]
fn start(command: &mut Command, ports: &[u16]) -> Program {
    let mut program = Program::start(command);
    until("the balancer listens", || {
        assert!(!program.has_ended(), "it has ended: {}", program.err());
        ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    });
    program
}

#[test]
fn nginx_in_front() {
    if tools::lacks(&["nginx"]) {
        return;
    }
    let (behind, folder) = (Behind::start(), tempfile::tempdir().unwrap());
    let (http, stream) = (port::unused().port(), port::unused().port());
    let fill = [
        ("FORWARDED", &*behind.forwarded.0.proxy.to_string()),
        ("PREFIXED", &behind.prefixed.0.proxy.to_string()),
        ("HTTP", &http.to_string()),
        ("STREAM", &stream.to_string()),
    ];
    let file = config(folder.path(), "nginx.conf", NGINX, &fill);
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c", &file, "-p"]).arg(folder.path());
    let _nginx = start(&mut command, &[http, stream]);
    behind.check("X-Forwarded-For of nginx", http, &behind.forwarded.1);
    behind.check("PROXY protocol of nginx", stream, &behind.prefixed.1);
}

#[test]
fn haproxy_in_front() {
    if tools::lacks(&["haproxy"]) {
        return;
    }
    let (behind, folder) = (Behind::start(), tempfile::tempdir().unwrap());
    let (http, stream, second) = (port::unused().port(), port::unused().port(), port::unused().port());
    let fill = [
        ("FORWARDED", &*behind.forwarded.0.proxy.to_string()),
        ("PREFIXED", &behind.prefixed.0.proxy.to_string()),
        ("HTTP", &http.to_string()),
        ("STREAM", &stream.to_string()),
        ("SECOND", &second.to_string()),
    ];
    let file = config(folder.path(), "haproxy.cfg", HAPROXY, &fill);
    let _haproxy = start(Command::new("haproxy").args(["-db", "-f", &file]), &[http, stream, second]);
    behind.check("X-Forwarded-For of HAProxy", http, &behind.forwarded.1);
    behind.check("PROXY protocol 1 of HAProxy", stream, &behind.prefixed.1);
    behind.check("PROXY protocol 2 of HAProxy", second, &behind.prefixed.1);
}
