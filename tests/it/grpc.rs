//! gRPC as its callers and servers see it: a library on either side, in the clear and by TLS, and Keyward between them.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc as messages};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, once};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::{Context, Poll, Service};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server as Transport, ServerTlsConfig,
};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::support::certificates::{Authority, Certified};
use super::support::{Key, Keyward, PATIENCE, Site, until};

/// A message, as `message Film { string name = 1; uint32 number = 2; }` would be.
#[derive(Clone, PartialEq, prost::Message)]
struct Film {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    number: u32,
}

fn film(number: u32) -> Film {
    Film { name: "x".repeat(20_000), number }
}

type Codec = ProstCodec<Film, Film>;
type Films = Pin<Box<dyn Stream<Item = Result<Film, Status>> + Send>>;
type Promise<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the server has seen, and what it waits for.
#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<MetadataMap>>,
    /// How many calls of `Silence` have ended.
    ended: AtomicUsize,
    /// The next message of a list may be sent.
    next: Notify,
}

/// The server: its methods by name.
#[derive(Clone)]
struct Studio(Arc<Seen>);

impl NamedService for Studio {
    const NAME: &'static str = "media.Films";
}

impl Service<http::Request<Body>> for Studio {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Promise<Result<http::Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method { name: request.uri().path().replace("/media.Films/", ""), seen: self.0.clone() };
        let mut grpc = tonic::server::Grpc::new(Codec::default());
        Box::pin(async move { Ok(grpc.streaming(method, request).await) })
    }
}

/// One method. On the wire a message is a stream of one.
#[derive(Clone)]
struct Method {
    name: String,
    seen: Arc<Seen>,
}

impl StreamingService<Film> for Method {
    type Response = Film;
    type ResponseStream = Films;
    type Future = Promise<Result<Response<Films>, Status>>;

    fn call(&mut self, request: Request<Streaming<Film>>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

/// Counts when it ends, however it ends.
struct Ending(Arc<Seen>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

impl Method {
    async fn answer(self, request: Request<Streaming<Film>>) -> Result<Response<Films>, Status> {
        let (metadata, _, mut films) = request.into_parts();
        self.seen.calls.lock().unwrap().push(metadata);
        match self.name.as_str() {
            "Get" => {
                let asked = films.message().await?.ok_or_else(|| Status::invalid_argument("nothing"))?;
                let mut response = Response::new(Box::pin(once(Ok(film(asked.number + 1)))) as Films);
                response.metadata_mut().insert("x-studio", MetadataValue::from_static("one"));
                Ok(response)
            }
            "Sum" => {
                let mut sum = 0;
                while let Some(film) = films.message().await? {
                    sum += film.number;
                }
                Ok(Response::new(Box::pin(once(Ok(film(sum))))))
            }
            "List" => Ok(self.stream(list)),
            "Watch" => Ok(self.stream(|_, out| watch(films, out))),
            "Silence" => {
                let _ending = Ending(self.seen);
                pending().await
            }
            "Missing" => {
                Err(Status::with_details(Code::NotFound, "no film \u{20ac}", b"\x08\x05\x12\x04word"[..].into()))
            }
            other => Err(Status::unimplemented(other)),
        }
    }

    fn stream<F>(self, run: impl FnOnce(Arc<Seen>, messages::Sender<Result<Film, Status>>) -> F) -> Response<Films>
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let (sender, receiver) = messages::channel(1);
        tokio::spawn(run(self.seen, sender));
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// Three messages, each when it is asked for, and then a failure.
async fn list(seen: Arc<Seen>, out: messages::Sender<Result<Film, Status>>) -> Option<()> {
    for number in 1..=3 {
        seen.next.notified().await;
        out.send(Ok(film(number))).await.ok()?;
    }
    let metadata = MetadataMap::from_headers(http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-retry"),
        http::HeaderValue::from_static("1"),
    )]));
    out.send(Err(Status::with_metadata(Code::Unavailable, "back soon", metadata))).await.ok()
}

/// Sends each message back when it comes.
async fn watch(mut films: Streaming<Film>, out: messages::Sender<Result<Film, Status>>) -> Option<()> {
    while let Some(film) = films.message().await.ok()? {
        out.send(Ok(film)).await.ok()?;
    }
    Some(())
}

/// Starts the server, by TLS or in the clear.
fn studio(tls: Option<&Certified>) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let (studio, (sender, receiver)) = (Studio(seen.clone()), mpsc::channel());
    let tls =
        tls.map(|Certified { certificate, key }| ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)));
    thread::spawn(move || {
        runtime().block_on(async move {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
            sender.send(incoming.local_addr().unwrap()).unwrap();
            let transport = match tls {
                Some(tls) => Transport::builder().tls_config(tls).unwrap(),
                None => Transport::builder(),
            };
            transport.clone().add_service(studio).serve_with_incoming(incoming).await
        })
    });
    (receiver.recv_timeout(PATIENCE).expect("a server"), seen)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A caller, Keyward and the server.
struct Stage {
    runtime: Runtime,
    channel: Channel,
    keyward: Keyward,
    key: Key,
    seen: Arc<Seen>,
}

fn stage(config: &str) -> Stage {
    let (upstream, seen) = studio(None);
    let site = Site::new(upstream, &format!("proxy: {{ upstream_protocol: http2, {config} }}"));
    open(site, seen, |keyward| Endpoint::from_shared(format!("http://{}", keyward.proxy)).unwrap())
}

/// With TLS on both sides.
fn stage_by_tls() -> Stage {
    let ca = Authority::new("root");
    let certified = ca.sign("localhost", 2020..2100);
    let (upstream, seen) = studio(Some(&certified));
    let tls = "tls: { certificate: tls.crt, key: tls.key }, upstream_tls: { ca: ca.crt }";
    let address = format!("upstream: \"https://localhost:{}\"", upstream.port());
    let site = Site::new(upstream, &format!("proxy: {{ upstream_protocol: http2, {tls}, {address} }}"));
    site.write("ca.crt", &ca.certificate);
    site.write("tls.crt", &certified.certificate);
    site.write("tls.key", &certified.key);
    open(site, seen, |keyward| {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca.certificate)).domain_name("localhost");
        Endpoint::from_shared(format!("https://{}", keyward.proxy)).unwrap().tls_config(tls).unwrap()
    })
}

fn open(site: Site, seen: Arc<Seen>, to: impl Fn(&Keyward) -> Endpoint) -> Stage {
    let key = site.create_key(&[]);
    let (runtime, keyward) = (runtime(), site.serve());
    let channel = runtime.block_on(to(&keyward).connect()).unwrap();
    Stage { runtime, channel, keyward, key, seen }
}

impl Stage {
    /// Runs a call to its end, as somebody with this key.
    fn call<T>(&self, call: impl AsyncFnOnce(Caller) -> T) -> T {
        self.call_as(&self.key.value, call)
    }

    fn call_as<T>(&self, key: &str, call: impl AsyncFnOnce(Caller) -> T) -> T {
        let caller = Caller { grpc: Grpc::new(self.channel.clone()), key: key.to_owned() };
        let called = async { tokio::time::timeout(PATIENCE, call(caller)).await.expect("a call ends in time") };
        self.runtime.block_on(called)
    }

    /// The status of a call that fails.
    fn failure(&self, key: &str, method: &str) -> Status {
        self.call_as(key, async |mut caller| caller.get(method, film(1)).await.unwrap_err())
    }
}

/// Who calls.
struct Caller {
    grpc: Grpc<Channel>,
    key: String,
}

impl Caller {
    async fn request<T>(&mut self, message: T) -> Request<T> {
        self.grpc.ready().await.unwrap();
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-api-key", self.key.parse().unwrap());
        request
    }

    /// One message for one.
    async fn get(&mut self, method: &str, message: Film) -> Result<Response<Film>, Status> {
        let request = self.request(message).await;
        self.grpc.unary(request, path(method), Codec::default()).await
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/media.Films/{method}").parse().unwrap()
}

#[test]
fn calls_of_every_kind_pass() {
    for stage in [stage(""), stage_by_tls()] {
        let answer = stage.call(async |mut caller| caller.get("Get", film(41)).await.unwrap());
        assert_eq!(answer.metadata().get("x-studio").unwrap(), "one");
        assert_eq!(answer.get_ref(), &film(42));
        let seen = std::mem::take(&mut *stage.seen.calls.lock().unwrap());
        assert_eq!((seen.len(), seen[0].get("x-api-key")), (1, None));
        assert_eq!(seen[0].get("x-keyward-key-id").unwrap(), &*stage.key.id);

        let sum = stage.call(async |mut caller| {
            let films = caller.request(tokio_stream::iter((1..=50).map(film))).await;
            caller.grpc.client_streaming(films, path("Sum"), Codec::default()).await.unwrap()
        });
        assert_eq!(*sum.get_ref(), film(51 * 25));
        stage.call(async |caller| expect_list(caller, &stage.seen).await);
        stage.call(expect_watch);
        assert_eq!(stage.seen.calls.lock().unwrap().len(), 3);
    }
}

/// Each message is sent only when the one before has been read here; what comes behind the last is the server's.
async fn expect_list(mut caller: Caller, seen: &Seen) {
    let request = caller.request(film(0)).await;
    let mut films = caller.grpc.server_streaming(request, path("List"), Codec::default()).await.unwrap().into_inner();
    for number in 1..=3 {
        seen.next.notify_one();
        assert_eq!(films.message().await.unwrap(), Some(film(number)));
    }
    let end = films.message().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "back soon"));
    assert_eq!(end.metadata().get("x-retry").unwrap(), "1");
}

/// Messages go both ways, one after the other.
async fn expect_watch(mut caller: Caller) {
    let (sender, receiver) = messages::channel(1);
    let films = caller.request(ReceiverStream::new(receiver)).await;
    let mut films = caller.grpc.streaming(films, path("Watch"), Codec::default()).await.unwrap().into_inner();
    for number in 1..=20 {
        sender.send(film(number)).await.unwrap();
        assert_eq!(films.message().await.unwrap(), Some(film(number)));
    }
    drop(sender);
    assert_eq!(films.message().await.unwrap(), None);
    assert!(films.trailers().await.unwrap().is_some(), "a status that is good stands in trailers too");
}

#[test]
fn an_error_of_the_server_comes_whole() {
    for stage in [stage(""), stage_by_tls()] {
        let error = stage.failure(&stage.key.value, "Missing");
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no film \u{20ac}"));
        assert_eq!(error.details(), b"\x08\x05\x12\x04word");
        assert_eq!(stage.failure(&stage.key.value, "Nothing").code(), Code::Unimplemented);
    }
}

#[test]
fn denials_are_statuses() {
    for stage in [stage(""), stage_by_tls()] {
        let site = &stage.keyward.site;
        let (seldom, reader) = (site.create_key(&["--rate-limit", "1/1h"]), site.create_key(&["--read-only"]));
        until("the keys are known", || stage.failure(&reader.value, "Get").code() == Code::PermissionDenied);
        stage.call_as(&seldom.value, async |mut caller| caller.get("Get", film(1)).await.unwrap());
        stage.seen.calls.lock().unwrap().clear();
        for (key, code, message) in [
            ("wrong", Code::Unauthenticated, "The API key is not valid."),
            (&reader.value, Code::PermissionDenied, "The API key may only read."),
            (&seldom.value, Code::ResourceExhausted, "The API key has been used too often; try again later."),
        ] {
            let denial = stage.failure(key, "Get");
            assert_eq!((denial.code(), denial.message()), (code, message));
            assert!(denial.metadata().get("x-request-id").is_some());
            assert_eq!(denial.metadata().get("retry-after").is_some(), code == Code::ResourceExhausted);
        }
        // One who still sends hears of it as well.
        let denial = stage.call_as("wrong", async |mut caller| {
            let (sender, receiver) = messages::channel(1);
            sender.send(film(1)).await.unwrap();
            let films = caller.request(ReceiverStream::new(receiver)).await;
            caller.grpc.streaming(films, path("Watch"), Codec::default()).await.map(drop).unwrap_err()
        });
        assert_eq!(denial.code(), Code::Unauthenticated);
        assert!(stage.seen.calls.lock().unwrap().is_empty());
    }
}

#[test]
fn what_goes_wrong_behind_is_a_status() {
    let silent = stage("timeouts: { response: 1s, body: 1s }");
    let late = silent.failure(&silent.key.value, "Silence");
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "The server behind did not answer in time."));
    let stalled = silent.call(async |mut caller| {
        let (sender, receiver) = messages::channel(1);
        sender.send(film(1)).await.unwrap();
        let films = caller.request(ReceiverStream::new(receiver)).await;
        let ended = caller.grpc.client_streaming::<_, _, Film, _>(films, path("Sum"), Codec::default()).await;
        drop(sender);
        ended.unwrap_err()
    });
    assert_eq!(stalled.code(), Code::DeadlineExceeded);
    let nobody = crate::support::port::unused();
    let site = Site::new(nobody, "proxy: { upstream_protocol: http2 }");
    let down =
        open(site, Arc::default(), |keyward| Endpoint::from_shared(format!("http://{}", keyward.proxy)).unwrap());
    assert_eq!(down.failure(&down.key.value, "Get").code(), Code::Unavailable);
}

#[test]
fn a_deadline_is_told_and_a_call_that_is_given_up_ends_on_both_sides() {
    let stage = stage("");
    let late = stage.call(async |mut caller| {
        let mut request = caller.request(film(1)).await;
        request.set_timeout(Duration::from_millis(300));
        caller.grpc.unary::<_, Film, _>(request, path("Silence"), Codec::default()).await.unwrap_err()
    });
    assert!(matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded), "{late:?}");
    assert_eq!(stage.seen.calls.lock().unwrap()[0].get("grpc-timeout").unwrap(), "300000u");
    until("the call has ended at the server", || stage.seen.ended.load(SeqCst) == 1);
    stage.call(async |mut caller| {
        let silent = caller.get("Silence", film(1));
        assert!(tokio::time::timeout(Duration::from_millis(300), silent).await.is_err());
    });
    // Somebody has to drive the connection that says so.
    until("the other one too", || {
        stage.call(async |mut caller| caller.get("Get", film(1)).await.unwrap());
        stage.seen.ended.load(SeqCst) == 2
    });
}
