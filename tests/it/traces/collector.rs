//! A collector: reads what it is sent with the messages of OpenTelemetry itself, and answers as a test tells it to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span as Message;
use prost::Message as _;

use crate::support::upstream::Turn;
use crate::support::{After, Upstream, until};

/// How a batch is answered: status line and fields, and the body.
pub(super) type Answer = (&'static str, Vec<u8>);

/// It was taken.
pub(super) const TAKEN: &str = "200 OK\r\nContent-Type: application/x-protobuf";

pub(super) struct Collector {
    pub(super) server: Upstream,
    taken: Arc<Mutex<Vec<Batch>>>,
}

/// What came at once, and was taken.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) resource: BTreeMap<String, String>,
    pub(super) scope: String,
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    /// INTERNAL 1, SERVER 2, CLIENT 3.
    pub(super) kind: i32,
    pub(super) time: std::ops::Range<u64>,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) has_error: bool,
    pub(super) flags: u32,
}

impl Span {
    pub(super) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// Takes everything.
    pub(super) fn start() -> Self {
        Self::answering(|_| (TAKEN, Vec::new()))
    }

    /// Answers the nth batch, counted from 0, as told.
    pub(super) fn answering(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::scripted(move |turn, nth| {
            let (head, body) = answer(nth);
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
            turn.answer(&[head.as_bytes(), &body].concat()).map(|_| head.starts_with("HTTP/1.1 2"))
        })
    }

    /// Does as told, and takes a batch if that says so.
    pub(super) fn scripted(script: impl Fn(&mut Turn<'_>, usize) -> io::Result<bool> + Send + Sync + 'static) -> Self {
        let (taken, count) = (Arc::<Mutex<Vec<Batch>>>::default(), Mutex::new(0));
        let kept = taken.clone();
        let server = Upstream::scripted(move |turn| {
            let body = turn.body()?;
            let nth = std::mem::replace(&mut *count.lock().unwrap(), 0);
            *count.lock().unwrap() = nth + 1;
            if script(turn, nth)? {
                kept.lock().unwrap().extend(read(&body.bytes));
            }
            Ok(After::Keep)
        });
        Self { server, taken }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub(super) fn batches(&self) -> Vec<Batch> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.batches().into_iter().flat_map(|batch| batch.spans).collect()
    }

    /// Waits for so many spans.
    #[track_caller]
    pub(super) fn wait_for(&self, count: usize) -> Vec<Span> {
        until("the collector has its spans", || self.spans().len() >= count);
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// That so many spans were not taken.
pub(super) fn partial(rejected: i64, words: &str) -> Vec<u8> {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: words.to_owned() };
    opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse { partial_success: Some(partial) }
        .encode_to_vec()
}

fn read(bytes: &[u8]) -> Vec<Batch> {
    let request = ExportTraceServiceRequest::decode(bytes).expect("a batch is as OTLP has it");
    let batches = request.resource_spans.into_iter().map(|resource| {
        let [scope] = &resource.scope_spans[..] else { panic!("one scope: {resource:?}") };
        let named = scope.scope.as_ref().expect("a scope has a name");
        Batch {
            resource: attributes(&resource.resource.expect("there is a resource").attributes),
            scope: format!("{} {}", named.name, named.version),
            spans: scope.spans.iter().map(span).collect(),
        }
    });
    batches.collect()
}

fn span(message: &Message) -> Span {
    assert_eq!((message.trace_id.len(), message.span_id.len()), (16, 8), "{message:?}");
    assert!(message.start_time_unix_nano <= message.end_time_unix_nano, "{message:?}");
    Span {
        name: message.name.clone(),
        trace: hex(&message.trace_id),
        id: hex(&message.span_id),
        parent: hex(&message.parent_span_id),
        kind: message.kind,
        time: message.start_time_unix_nano..message.end_time_unix_nano,
        attributes: attributes(&message.attributes),
        has_error: message.status.as_ref().is_some_and(|status| status.code == 2),
        flags: message.flags,
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    let all: BTreeMap<String, String> = list.iter().map(|pair| (pair.key.clone(), text(pair))).collect();
    assert_eq!(all.len(), list.len(), "no attribute comes twice: {list:?}");
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
