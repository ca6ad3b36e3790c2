//! `keyward demo`: the whole product at work, without a config. An XML upstream that knows nothing of keys, Keyward in front
//! of it, one key that may write and one that may only read.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::open::World;
use crate::app::{self, App};
use crate::auth::digest::Pepper;
use crate::auth::grant::Access;
use crate::auth::key::Secret;
use crate::config::{self, Overrides};
use crate::manage::Session;
use crate::manage::key::NewKey;
use crate::manage::values::NotAValue;
use crate::store::AnyStore;
use crate::telemetry::Logs;

/// Runs until Ctrl-C.
pub(super) fn run(output: Output, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let folder = Folder::new()?;
    let runtime = app::control_runtime().map_err(failed)?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let upstream = serve_upstream().map_err(failed)?;
        let path = folder.write_config(upstream)?;
        let config = config::load(&path, &Overrides::default())?;
        let (store, _) = AnyStore::open_or_make(&config.store, config.locksmith.pepper.check()).await?;
        let session = world.session(config.locksmith.clone(), store);
        let key = make_key("demo", Access::ReadWrite, None, &session).await?;
        let read_only = make_key("demo read-only", Access::ReadOnly, None, &session).await?;
        let management = make_key("demo management", Access::ReadWrite, Some("admin"), &session).await?;

        let logs = Logs::start(&config.log);
        logs.install(&config.log);
        let app = app::start(config, None, &logs)?;
        app.loaded().await;
        let demo = Demo { app: &app, upstream, key: &key, read_only: &read_only, management: &management };
        demo.tell(output, console)?;
        tokio::select! {
            stopped = app.until_stopped() => stopped?,
            // The terminal was closed: what follows goes away as with Ctrl-C.
            _ = hangup.recv() => {}
        }
        console.note("stopped");
        Ok(Exit::Ok)
    })
}

/// Makes a key, and hands over its value.
async fn make_key(
    name: &str,
    access: Access,
    role: Option<&str>,
    session: &Session<AnyStore>,
) -> Result<Secret, Failure> {
    let name = name.parse().map_err(|error: NotAValue| Failure::Failed(error.to_string()))?;
    let role = role.map(str::parse).transpose().map_err(|error: NotAValue| Failure::Failed(error.to_string()))?;
    let new = NewKey { role, ..NewKey::named(name, access) };
    Ok(session.create_key(new).await?.secret)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::Failed(format!("cannot start: {error}"))
}

/// What is running.
struct Demo<'d> {
    app: &'d App,
    upstream: SocketAddr,
    key: &'d Secret,
    read_only: &'d Secret,
    management: &'d Secret,
}

impl Demo<'_> {
    fn tell(&self, output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
        match output {
            Output::Json => {
                let url = |address: Option<SocketAddr>| address.map(|address| format!("http://{address}"));
                console.json(&json!({
                    "proxy": url(Some(self.app.proxy)), "admin": url(self.app.admin), "ops": url(self.app.ops),
                    "upstream": url(Some(self.upstream)), "key": self.key.reveal(), "read_only_key": self.read_only.reveal(),
                    "management_key": self.management.reveal(),
                }))?;
            }
            Output::Table => console.line(self.text())?,
        }
        console.flush()
    }

    fn text(&self) -> String {
        let (key, read_only, url) =
            (self.key.reveal(), self.read_only.reveal(), format!("http://{}/catalog.xml", self.app.proxy));
        let address =
            |address: Option<SocketAddr>| address.map_or_else(String::new, |address| format!("http://{address}"));
        format!(
            "Keyward is in front of an XML server that knows nothing of keys (http://{upstream}/catalog.xml).\n\
             Paste these into another terminal:\n\n\
             # no key: 401, <error>… Access Denied\n\
             curl -i {url}\n\n\
             # a key opens it, in any of the forms that clients use: 200, <catalog>…\n\
             curl -i -H 'Authorization: APIKEY:ORGANIZATION {key}' {url}\n\
             curl -i -H 'Authorization: Bearer {key}' {url}\n\
             curl -i -H 'X-API-Key: {key}' {url}\n\
             curl -i -u '{key}:' {url}\n\
             curl -i '{url}?api_key={key}'\n\n\
             # the read-only key may look (200), but not change (403)\n\
             curl -i -H 'Authorization: Bearer {read_only}' {url}\n\
             curl -i -H 'Authorization: Bearer {read_only}' -d '<item/>' {url}\n\
             curl -i -H 'Authorization: Bearer {key}' -d '<item/>' {url}\n\n\
             # a denial for those who read JSON\n\
             curl -i -H 'Accept: application/json' -H 'Authorization: Bearer wrong' {url}\n\n\
             # what Prometheus and people see\n\
             curl {ops}/metrics\n\
             curl {admin}/status\n\n\
             # keys by the management API: the list, and a new one, whose value is shown once\n\
             curl -H 'Authorization: Bearer {management}' {admin}/v2/keys\n\
             curl -H 'Authorization: Bearer {management}' --json '{NEW_KEY}' {admin}/v2/keys\n\n\
             Ctrl-C ends it; nothing is left behind.",
            management = self.management.reveal(),
            upstream = self.upstream,
            ops = address(self.app.ops),
            admin = address(self.app.admin),
        )
    }
}

/// A key as the management API makes it.
const NEW_KEY: &str = r#"{"type":"api","name":"Example","permissions":[],"ips":[]}"#;

/// A folder of our own that goes away with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name = format!("keyward-demo-{}-{:08x}", std::process::id(), getrandom::u32()?);
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self(path))
    }

    fn write_config(&self, upstream: SocketAddr) -> Result<PathBuf, Failure> {
        write(&self.0.join("keyward.pepper"), &Pepper::generate()?)?;
        let path = self.0.join("keyward.yaml");
        write(
            &path,
            &format!(
                "version: 1\n\
                 proxy: {{ listen: '127.0.0.1:0', upstream: 'http://{upstream}', workers: 1 }}\n\
                 keys: {{ pepper: {{ file: ./keyward.pepper }} }}\n\
                 store: sqlite:./keyward.db\n\
                 admin: {{ listen: '127.0.0.1:0' }}\n\
                 ops: {{ listen: '127.0.0.1:0' }}\n\
                 log: {{ level: warn, access: denied }}\n"
            ),
        )?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the system's folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())).map_err(failed)
}

/// A server from before there were keys: it shows what it was sent, as far as that is of interest here.
fn serve_upstream() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(catalog(&request)) });
            tokio::spawn(Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    Ok(address)
}

fn catalog(request: &Request<Incoming>) -> Response<String> {
    let key = request.headers().get("x-keyward-key-id").and_then(|id| id.to_str().ok()).unwrap_or("none");
    let (status, body) = match (request.uri().path(), request.method()) {
        ("/catalog.xml", &Method::GET | &Method::HEAD) => {
            (StatusCode::OK, format!("<catalog key=\"{key}\"><item>The old server answers</item></catalog>"))
        }
        ("/catalog.xml", &Method::POST) => (StatusCode::CREATED, format!("<added key=\"{key}\"/>")),
        _ => (StatusCode::NOT_FOUND, "<error>no such page; there is /catalog.xml</error>".to_owned()),
    };
    let mut response = Response::new(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{body}\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}
