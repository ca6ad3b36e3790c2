//! The trace that a request belongs to (W3C Trace Context): what its caller says of it, what the upstream is told, and what
//! is sent to the collector. A request of which nothing is recorded costs a look at its `traceparent`, and nothing where there
//! is no collector.

use http::HeaderName;
use http::header::{Entry, HeaderMap, HeaderValue};

use super::request_id::{RequestId, RequestIds};
use crate::telemetry::traces::{Sampling, Tracer};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl Parent {
    /// Reads the header, if there is one and it is good. Two are none.
    fn of(headers: &HeaderMap) -> Option<Self> {
        Self::only_of(headers.get_all(TRACEPARENT).iter())
    }

    fn only_of<'h>(mut lines: impl Iterator<Item = &'h HeaderValue>) -> Option<Self> {
        let only = lines.next().filter(|_| lines.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`; what later versions have behind that is not looked at.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (known, more) = bytes.split_at_checked(55)?;
        let version = u8::try_from(hex(&known[..2])?).ok().filter(|version| *version != 0xff)?;
        let ends = more.is_empty() || version > 0 && more.starts_with(b"-");
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let trace = hex(&known[3..35]).filter(|trace| *trace != 0)?;
        let span = u64::try_from(hex(&known[36..52])?).ok().filter(|span| *span != 0)?;
        let flags = u8::try_from(hex(&known[53..])?).ok()?;
        (ends && dashes).then_some(Self { trace, span, sampled: flags & SAMPLED != 0 })
    }
}

/// A number of hex digits in lower case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// A request of which spans are sent.
pub(super) struct Trace {
    /// What all its spans share.
    pub(super) id: u128,
    /// The caller's span.
    pub(super) parent: Option<u64>,
    /// Ours: of the request, of the decision, of what is asked of the upstream.
    pub(super) spans: [u64; 3],
    /// The route, once it is known.
    pub(super) route: Option<usize>,
    /// Whether the upstream is asked.
    pub(super) asks: bool,
    /// The status of the upstream's answer.
    pub(super) answer: Option<u16>,
}

impl Trace {
    /// Decides whether spans of a request are sent.
    pub(super) fn begin(
        tracer: &Tracer,
        headers: &HeaderMap,
        peer_is_trusted: bool,
        id: &RequestId,
        ids: &RequestIds,
    ) -> Option<Box<Self>> {
        Self::decide(&tracer.sampling, Parent::of(headers), peer_is_trusted, id, ids)
    }

    fn decide(
        sampling: &Sampling,
        parent: Option<Parent>,
        peer_is_trusted: bool,
        id: &RequestId,
        ids: &RequestIds,
    ) -> Option<Box<Self>> {
        // A trace that begins here has the request's id, so that a log leads to it.
        let own = || id.hex_digits().and_then(|digits| hex(digits)).filter(|id| *id != 0).unwrap_or_else(|| fresh(ids));
        // Who brings an id may have chosen it, so chance comes from elsewhere.
        let (trace, random) = match parent {
            Some(parent) if sampling.follows(peer_is_trusted) => (parent.trace, 0),
            Some(parent) => (parent.trace, fresh(ids)),
            None => {
                let own = own();
                (own, own)
            }
        };
        let low = (random & u128::from(u64::MAX)) as u64;
        if !sampling.wants(parent.map(|parent| parent.sampled), peer_is_trusted, low) {
            return None;
        }
        let [request, decision] = ids.bits();
        let [upstream, _] = ids.bits();
        // An id is never zero.
        let spans = [request, decision, upstream].map(|bits| bits.max(1));
        let parent = parent.map(|parent| parent.span);
        Some(Box::new(Self { id: trace, parent, spans, route: None, asks: false, answer: None }))
    }
}

fn fresh(ids: &RequestIds) -> u128 {
    let [high, low] = ids.bits();
    u128::from(high) << 64 | u128::from(low.max(1))
}

/// What the upstream is told of the trace.
#[derive(Clone, Copy)]
pub(super) enum Onward<'t> {
    /// What the client says, else that one begins with this request. Sampled: servers that trace everything by default would
    /// otherwise stop doing so.
    Passed,
    /// What the client says, else that one begins that nobody records.
    Unrecorded,
    /// That our span is its parent.
    Recorded(&'t Trace),
}

impl Onward<'_> {
    /// Writes it.
    pub(super) fn tell(self, headers: &mut HeaderMap, id: &RequestId) {
        let flags = match self {
            Self::Recorded(trace) => {
                let value = format!("00-{:032x}-{:016x}-01", trace.id, trace.spans[2]);
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(TRACEPARENT, value);
                }
                // It is about a trace that is not continued (Trace Context section 4.3).
                if trace.parent.is_none() {
                    headers.remove(TRACESTATE);
                }
                return;
            }
            Self::Passed => *b"01",
            Self::Unrecorded => *b"00",
        };
        match headers.entry(TRACEPARENT) {
            // Of two the upstream would choose one.
            Entry::Occupied(given) if Parent::only_of(given.iter()).is_some() => return,
            Entry::Occupied(mut given) => drop(beginning(id, flags).map(|value| given.insert(value))),
            Entry::Vacant(missing) => drop(beginning(id, flags).map(|value| missing.insert(value))),
        }
        headers.remove(TRACESTATE);
    }
}

/// A trace that begins here, with the request's id as its own.
fn beginning(id: &RequestId, flags: [u8; 2]) -> Option<HeaderValue> {
    let id = id.hex_digits()?;
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    value[3..35].copy_from_slice(id);
    value[36..52].copy_from_slice(&id[16..]);
    value[53..].copy_from_slice(&flags);
    HeaderValue::from_bytes(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::traces::Follow;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(text: &str) -> Option<(u128, u64, bool)> {
        Parent::parse(text.as_bytes()).map(|parent| (parent.trace, parent.span, parent.sampled))
    }

    #[test]
    fn traceparent_is_read_as_the_standard_says() {
        let (trace, span) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        for (text, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!("cc-{TRACE}-{SPAN}-03"), true),
            (format!("01-{TRACE}-{SPAN}-00-what comes later"), false),
        ] {
            assert_eq!(parent(&text), Some((trace, span, sampled)), "{text}");
        }
        for text in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(parent(&text), None, "{text}");
        }
    }

    fn told(given: &[(HeaderName, &str)], onward: Onward<'_>, id: &RequestId) -> Vec<String> {
        let mut headers: HeaderMap = given.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        onward.tell(&mut headers, id);
        let all = [TRACEPARENT, TRACESTATE].into_iter().flat_map(|name| headers.get_all(name));
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_upstream_is_told_whose_child_it_is() {
        let ids = RequestIds::default();
        let digits = *b"0123456789abcdef0123456789abcdef";
        let id = RequestId::Made(digits);
        let (good, state) = (format!("00-{TRACE}-{SPAN}-01"), "vendor=1");
        let given = [(TRACEPARENT, good.as_str()), (TRACESTATE, state)];
        let beginning = |flags| format!("00-0123456789abcdef0123456789abcdef-0123456789abcdef-{flags}");

        assert_eq!(told(&given, Onward::Passed, &id), [&good, state]);
        assert_eq!(told(&given, Onward::Unrecorded, &id), [&good, state]);
        assert_eq!(told(&[], Onward::Passed, &id), [beginning("01")]);
        assert_eq!(told(&[], Onward::Unrecorded, &id), [beginning("00")]);
        let other = format!("00-{TRACE}-{}-01", "1".repeat(16));
        for bad in
            [&["nonsense"][..], &[&good, &other], &[&good, &good], &[&good, "nonsense"], &["nonsense", &good], &[]]
        {
            let given: Vec<_> = bad.iter().map(|value| (TRACEPARENT, *value)).chain([(TRACESTATE, state)]).collect();
            assert_eq!(told(&given, Onward::Passed, &id), [beginning("01")], "{bad:?}");
            assert_eq!(told(&given, Onward::Unrecorded, &id), [beginning("00")], "{bad:?}");
        }

        let all = Sampling::new(1.0, Follow::All);
        let trace = Trace::decide(&all, Parent::parse(good.as_bytes()), false, &id, &ids).unwrap();
        let ours = format!("00-{TRACE}-{:016x}-01", trace.spans[2]);
        assert_eq!(told(&given, Onward::Recorded(&trace), &id), [&ours, state]);
        assert_eq!(trace.parent, Some(0xb7ad_6b71_6920_3331));

        let trace = Trace::decide(&all, None, false, &id, &ids).unwrap();
        assert_eq!((trace.id, trace.parent), (hex(&digits).unwrap(), None));
        let ours = format!("00-0123456789abcdef0123456789abcdef-{:016x}-01", trace.spans[2]);
        assert_eq!(told(&[(TRACESTATE, state)], Onward::Recorded(&trace), &id), [ours]);
    }

    #[test]
    fn a_client_that_is_not_followed_cannot_choose_to_be_recorded() {
        let ids = RequestIds::default();
        let id = RequestId::Made(*b"0123456789abcdef0123456789abcdef");
        // Its low bits are as high as can be.
        let parent = Some(Parent { trace: u128::MAX, span: 1, sampled: true });
        let recorded = |follow, share| {
            let sampling = Sampling::new(share, follow);
            (0..1_000).filter(|_| Trace::decide(&sampling, parent, false, &id, &ids).is_some()).count()
        };
        assert_eq!((recorded(Follow::All, 0.0), recorded(Follow::Trusted, 0.0)), (1_000, 0));
        let half = recorded(Follow::Trusted, 0.5);
        assert!((350..650).contains(&half), "{half}");
        let two = Trace::decide(&Sampling::new(1.0, Follow::None), parent, true, &id, &ids).unwrap();
        assert_eq!(two.id, u128::MAX);
        assert!(two.spans[0] != two.spans[1] && two.spans[1] != two.spans[2]);
    }
}
