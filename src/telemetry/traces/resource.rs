//! What is said of this process beside every trace: the service, its version, and what the environment tells of the Pod.

use super::message::{KeyValue, ResourceMessage};

/// The attributes of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource(Vec<(String, String)>);

impl Resource {
    /// What the environment says goes before what is known anyway: `service_name` is `OTEL_SERVICE_NAME`, and `attributes`
    /// is `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// # Errors
    /// When the attributes are no list of `name=value`.
    pub fn new(service_name: Option<&str>, attributes: Option<&str>) -> Result<Self, NoAttributes> {
        let mut all = vec![
            ("service.name".to_owned(), "keyward".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), instance()),
        ];
        let named = attributes.map(parse).transpose()?.unwrap_or_default();
        let service = service_name.filter(|name| !name.is_empty()).map(|name| ("service.name".into(), name.to_owned()));
        for (name, value) in named.into_iter().chain(service) {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => all.push((name, value)),
            }
        }
        Ok(Self(all))
    }

    pub(super) fn message(&self) -> ResourceMessage {
        let attributes = self.0.iter().map(|(name, value)| KeyValue::text(name, value.as_str()));
        ResourceMessage { attributes: attributes.collect() }
    }
}

/// `OTEL_RESOURCE_ATTRIBUTES` is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no list such as `k8s.pod.name=web-1,k8s.namespace.name=shop`, with %2C for a comma within a value")]
pub struct NoAttributes;

/// Reads `name=value,name=value`; what is a separator elsewhere is escaped as in URLs.
fn parse(text: &str) -> Result<Vec<(String, String)>, NoAttributes> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (unescape(name.trim())?, unescape(value.trim())?);
        (!name.is_empty()).then_some((name, value))
    });
    pairs.collect::<Option<_>>().ok_or(NoAttributes)
}

fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                rest = &after[2..];
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A name for this process that no other has: a random UUID.
fn instance() -> String {
    let bits = (u128::from(getrandom::u64().unwrap_or_default()) << 64) | u128::from(std::process::id());
    let bits = bits ^ u128::from(getrandom::u64().unwrap_or_default());
    // Version 4, variant 10 (RFC 9562 section 5.4).
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(service: Option<&str>, attributes: Option<&str>, expected: &[(&str, &str)]) {
        let Resource(all) = Resource::new(service, attributes).unwrap();
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for pair in expected {
            assert!(all.contains(pair), "{pair:?} in {all:?}");
        }
    }

    #[test]
    fn the_environment_goes_before_what_is_known_anyway() {
        check(None, None, &[("service.name", "keyward"), ("service.version", env!("CARGO_PKG_VERSION"))]);
        check(Some(""), Some(""), &[("service.name", "keyward")]);
        check(Some("gate"), Some("service.name=other, a = b"), &[("service.name", "gate"), ("a", "b")]);
        check(
            None,
            Some("service.name=x,service.instance.id=7"),
            &[("service.name", "x"), ("service.instance.id", "7")],
        );
        check(None, Some("k8s.pod.name=web-1,note=a%2Cb%3d%C3%A9,"), &[("k8s.pod.name", "web-1"), ("note", "a,b=é")]);
        for wrong in ["a", "=b", "a=%", "a=%4", "a=%zz", "a=%ff", "a=b,c"] {
            assert_eq!(Resource::new(None, Some(wrong)), Err(NoAttributes), "{wrong}");
        }
    }

    #[test]
    fn an_instance_is_a_random_uuid() {
        let (one, other) = (instance(), instance());
        assert_ne!(one, other);
        let groups: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert!(one[14..].starts_with('4') && one[19..].starts_with(['8', '9', 'a', 'b']), "{one}");
    }
}
