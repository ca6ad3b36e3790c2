//! A small HTTP server for the control plane: short questions and pages. Nothing is streamed. What is sent along is read before
//! anything else, and in little time; what is long, only by those who ask for it, up to a limit of theirs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

/// Connections at a time: for kubelet, Prometheus and a few people.
const CONNECTIONS: usize = 64;
/// For a whole connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For what is sent along.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions at a time that are handed in from elsewhere.
const HANDED_IN: usize = 64;
/// The most that is read before anybody knows who asks.
pub const LONGEST_BODY: usize = 64 * 1024;

/// A question.
pub struct Ask {
    /// What is to be done.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, empty if there is none.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Who asks, as far as that is known: somebody else where the other end speaks for others.
    pub client: Option<IpAddr>,
    /// Where it was asked, if not on the listener of our own.
    pub mounted: Option<Mounted>,
    /// What is sent along.
    pub body: Body,
}

/// Where on another listener a question was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// What clients call that listener: `https://api.example.com`.
    pub origin: String,
    /// What stood before the path that we know it by.
    pub before: String,
}

/// What is sent along.
pub enum Body {
    /// Nothing, or nothing any more.
    Nothing,
    /// It is long, or does not say how long it is, and has yet to be read.
    Coming(Incoming),
    /// It was read for us.
    Read(Result<Bytes, Unread>),
}

/// Why what is sent along cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than the limit.
    TooLong,
    /// It broke off.
    Broken,
    /// It did not come in time.
    Late,
}

impl Ask {
    /// Whether it only wants to see something.
    pub fn only_looks(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Whether a web page asks, which browsers let it do from anywhere.
    pub fn is_of_web_page(&self) -> bool {
        self.headers.contains_key(ORIGIN)
    }

    /// Reads what is sent along, the first time that it is called.
    ///
    /// # Errors
    /// When that is more than `limit` bytes, or breaks off.
    pub async fn read(&mut self, limit: usize) -> Result<Bytes, Unread> {
        match std::mem::replace(&mut self.body, Body::Nothing) {
            Body::Nothing => Ok(Bytes::new()),
            Body::Coming(body) => gather(body, limit).await.0,
            Body::Read(read) => read.and_then(|read| if read.len() > limit { Err(Unread::TooLong) } else { Ok(read) }),
        }
    }

    /// What is sent along, as far as nobody has to wait for it.
    ///
    /// # Errors
    /// When it is too long for that, does not say how long it is, or broke off.
    pub fn read_at_once(&mut self) -> Result<Bytes, Unread> {
        match std::mem::replace(&mut self.body, Body::Nothing) {
            Body::Nothing => Ok(Bytes::new()),
            Body::Coming(_) => Err(Unread::TooLong),
            Body::Read(read) => read,
        }
    }

    /// A question with nothing sent along.
    pub fn of(parts: Parts, peer: IpAddr) -> Self {
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let (method, headers) = (parts.method, parts.headers);
        Self { method, path, query, headers, peer, client: Some(peer), mounted: None, body: Body::Nothing }
    }
}

/// Reads a body of up to `limit` bytes; of one that is longer, what is left comes back.
pub async fn gather(mut body: Incoming, limit: usize) -> (Result<Bytes, Unread>, Option<Incoming>) {
    if body.size_hint().lower() > limit as u64 {
        return (Err(Unread::TooLong), Some(body));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(frame) = frame else { return (Err(Unread::Broken), None) };
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > limit {
            return (Err(Unread::TooLong), Some(body));
        }
        read.extend_from_slice(&data);
    }
    (Ok(read.freeze()), None)
}

/// Where other threads hand questions in, and wait for the answer without being in anybody's way. There is room for so many at
/// a time; one more hears at once that there is none.
#[derive(Clone)]
pub struct Desk {
    questions: mpsc::UnboundedSender<HandedIn>,
    room: Arc<Semaphore>,
    busy: fn() -> Page,
}

/// What was handed in and not answered yet.
pub struct Questions(mpsc::UnboundedReceiver<HandedIn>);

struct HandedIn {
    ask: Ask,
    answer: oneshot::Sender<Page>,
    /// Its place, as long as it is worked on.
    place: OwnedSemaphorePermit,
}

impl Desk {
    /// A desk, and the side of those who answer. `busy` is what is said when there is no room.
    pub fn new(busy: fn() -> Page) -> (Self, Questions) {
        let (questions, received) = mpsc::unbounded_channel();
        (Self { questions, room: Arc::new(Semaphore::new(HANDED_IN)), busy }, Questions(received))
    }

    /// The answer to those for whom there is no room.
    pub fn busy(&self) -> Page {
        (self.busy)()
    }

    /// Asks.
    pub async fn ask(&self, ask: Ask) -> Page {
        let Ok(place) = self.room.clone().try_acquire_owned() else { return self.busy() };
        let (answer, answered) = oneshot::channel();
        if self.questions.send(HandedIn { ask, answer, place }).is_err() {
            return self.busy();
        }
        answered.await.unwrap_or_else(|_| self.busy())
    }
}

/// Answers what is handed in, for ever. Whoever leaves before the answer has been heard all the same: a change is made as a
/// whole.
///
/// # Errors
/// None: when nobody can hand anything in any more, it waits.
pub async fn attend<A, F>(mut questions: Questions, answer: A) -> std::io::Result<()>
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    while let Some(HandedIn { ask, answer: to, place }) = questions.0.recv().await {
        let page = answer(ask);
        tokio::spawn(async move {
            let _place = place;
            // Without an answer in time the asker hears what those hear for whom there is no room.
            if let Ok(page) = tokio::time::timeout(CONNECTION_LIMIT, page).await {
                let _ = to.send(page);
            }
        });
    }
    std::future::pending().await
}

/// An answer.
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// What it is.
    pub content_type: &'static str,
    /// What it says.
    pub body: String,
    /// What else is said beside it.
    pub headers: HeaderMap,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// Something of a media type.
    pub fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, headers: HeaderMap::new() }
    }

    /// The method is not one of these, which are given as the value of `Allow`.
    pub fn not_allowed(allow: &'static str) -> Self {
        let mut page = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {}\n", allow.replace(", ", " and ")));
        page.headers.insert(ALLOW, HeaderValue::from_static(allow));
        page
    }

    /// As it is sent.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Answers every question with what `answer` makes of it.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve<A, F>(listener: TcpListener, answer: A) -> std::io::Result<()>
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (answer, mut guests) = (Arc::new(answer), Guests::default());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok((socket, peer)) => (socket, peer.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the control plane");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        guests.make_room().await;
        let (answer, asked) = (answer.clone(), Arc::<AtomicUsize>::default());
        let questions = asked.clone();
        let service = service_fn(move |request| {
            let (answer, questions) = (answer.clone(), questions.clone());
            async move {
                let ask = ask(request, peer).await;
                // Not before all of it is there: whoever takes time to ask makes room for those who do not.
                let _question = Question::of(&questions);
                Ok::<_, Infallible>(answer(ask).await.into_response())
            }
        });
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        // A client that leaves in the middle is no news; one that stays without reading must not keep others out.
        let task = tokio::spawn(async move { drop(tokio::time::timeout(CONNECTION_LIMIT, connection).await) });
        guests.0.push_back(Guest { asked, task: task.abort_handle() });
    }
}

/// The connections that there are, the oldest first.
#[derive(Default)]
struct Guests(VecDeque<Guest>);

struct Guest {
    /// How many of its questions are being answered.
    asked: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Guests {
    /// Waits until there is room for one more. Whoever asks nothing makes room for those who do: kubelet must be heard however
    /// many connections somebody opens.
    async fn make_room(&mut self) {
        loop {
            self.0.retain(|guest| !guest.task.is_finished());
            if self.0.len() < CONNECTIONS {
                return;
            }
            match self.0.iter().position(|guest| guest.asked.load(Relaxed) == 0) {
                Some(silent) => drop(self.0.remove(silent).map(|guest| guest.task.abort())),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// Counts a question as long as it is being answered.
struct Question(Arc<AtomicUsize>);

impl Question {
    fn of(asked: &Arc<AtomicUsize>) -> Self {
        asked.fetch_add(1, Relaxed);
        Self(asked.clone())
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn ask(request: Request<Incoming>, peer: IpAddr) -> Ask {
    let (parts, body) = request.into_parts();
    let is_short = body.size_hint().upper().is_some_and(|length| length <= LONGEST_BODY as u64);
    let body = if is_short {
        let read = tokio::time::timeout(BODY_TIMEOUT, gather(body, LONGEST_BODY)).await;
        Body::Read(read.map_or(Err(Unread::Late), |(read, _)| read))
    } else {
        Body::Coming(body)
    };
    Ask { body, ..Ask::of(parts, peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask::of(Request::new(()).into_parts().0, IpAddr::from([127, 0, 0, 1]))
    }

    /// One more than there is room for hears it at once, and whoever leaves gives nobody's place away before the work is done.
    #[tokio::test]
    async fn a_desk_has_room_for_so_many_and_tells_the_rest() {
        let (desk, questions) = Desk::new(|| Page::text(StatusCode::SERVICE_UNAVAILABLE, "busy"));
        let (go, gone) = tokio::sync::watch::channel(false);
        tokio::spawn(attend(questions, move |_| {
            let mut gone = gone.clone();
            async move {
                let _ = gone.wait_for(|gone| *gone).await;
                Page::text(StatusCode::OK, "done")
            }
        }));
        let mut waiting: Vec<_> = (0..HANDED_IN).map(|_| Box::pin(desk.ask(ask()))).collect();
        for question in &mut waiting {
            assert!(tokio::time::timeout(Duration::ZERO, question).await.is_err());
        }
        assert_eq!(desk.ask(ask()).await.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(waiting.pop());
        tokio::task::yield_now().await;
        assert_eq!(desk.ask(ask()).await.status, StatusCode::SERVICE_UNAVAILABLE, "it is still being worked on");
        go.send_replace(true);
        for question in waiting {
            assert_eq!(question.await.status, StatusCode::OK);
        }
        assert_eq!(desk.ask(ask()).await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn where_nobody_answers_everybody_hears_that_there_is_no_room() {
        let (desk, questions) = Desk::new(|| Page::text(StatusCode::SERVICE_UNAVAILABLE, "busy"));
        drop(questions);
        assert_eq!(desk.ask(ask()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
