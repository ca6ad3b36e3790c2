//! Whether a change lets a key do more than before: the audit marks those, since that is what a thief would do.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::auth::address::Networks;
use crate::auth::grant::{Access, Environment, Timestamp};
use crate::store::record::KeyBody;

/// Whether a key may do anything after a change that it may not do before. In doubt it does.
///
/// Acting as another user counts, since the upstream may know more about users; so does coming from the sandbox into
/// production. Enabling a key again does not: it gets nothing that it was not given.
pub fn widens(before: &KeyBody, after: &KeyBody) -> bool {
    let access = before.access == Access::ReadOnly && after.access == Access::ReadWrite;
    let environment = before.env == Environment::Test && after.env == Environment::Live;
    let scope = before.scope.as_ref().is_some_and(|b| after.scope.as_ref().is_none_or(|a| !b.covers(a)));
    let expiry = before.expires_at.unwrap_or(Timestamp::NEVER) < after.expires_at.unwrap_or(Timestamp::NEVER);
    let user = after.user.is_some() && before.user != after.user;
    let owner = before.owner != after.owner;
    let limit = before.rate_limit.is_some_and(|b| after.rate_limit.is_none_or(|a| a.is_wider_than(b)));
    access || environment || scope || expiry || user || owner || limit || widens_addresses(&before.ips, &after.ips)
}

/// Whether some address is on the list after and not on the list before. A network that only several networks cover
/// together counts as wider.
fn widens_addresses(before: &[String], after: &[String]) -> bool {
    let covers = |wide: &String, narrow: &String| {
        let wide = Networks::parse([wide.as_str()]);
        ends(narrow).is_some_and(|ends| wide.is_ok_and(|wide| ends.into_iter().all(|end| wide.contains(end))))
    };
    !before.is_empty() && (after.is_empty() || after.iter().any(|a| !before.iter().any(|b| covers(b, a))))
}

/// The first and the last address of a network.
fn ends(text: &str) -> Option<[IpAddr; 2]> {
    let network: IpNetwork = text.parse().ok()?;
    Some([network.network(), network.broadcast()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scope::Scope;
    use crate::manage::testing::key_body;

    #[track_caller]
    fn check(before: impl FnOnce(&mut KeyBody), after: impl FnOnce(&mut KeyBody), expected: bool) {
        let mut narrow = key_body("CI");
        before(&mut narrow);
        let mut wide = narrow.clone();
        after(&mut wide);
        assert_eq!(widens(&narrow, &wide), expected, "{narrow:?} -> {wide:?}");
    }

    #[test]
    fn more_access_a_higher_scope_or_a_later_end_is_an_escalation() {
        let scope = |text: &str| Some(Scope::parse(text).unwrap());
        let time = |text| Timestamp::parse(text);
        check(|k| k.access = Access::ReadOnly, |k| k.access = Access::ReadWrite, true);
        check(|_| (), |k| k.access = Access::ReadOnly, false);
        check(|k| k.scope = scope("organization:a/project:p"), |k| k.scope = scope("organization:a"), true);
        check(|k| k.scope = scope("organization:a"), |k| k.scope = scope("organization:a/project:p"), false);
        check(|k| k.scope = scope("organization:a"), |k| k.scope = scope("organization:b"), true);
        check(|k| k.scope = scope("organization:a"), |k| k.scope = None, true);
        check(|_| (), |k| k.scope = scope("organization:a"), false);
        check(|k| k.expires_at = time("2027-01-31"), |k| k.expires_at = time("2027-02-01"), true);
        check(|k| k.expires_at = time("2027-01-31"), |k| k.expires_at = time("2027-01-30"), false);
        check(|k| k.expires_at = time("2027-01-31"), |k| k.expires_at = None, true);
        check(|_| (), |k| k.expires_at = time("2027-01-31"), false);
        check(|k| k.env = Environment::Test, |k| k.env = Environment::Live, true);
        check(|_| (), |k| k.env = Environment::Test, false);
        check(|_| (), |k| k.user = Some("root".into()), true);
        check(|k| k.user = Some("root".into()), |k| k.user = None, false);
        check(|_| (), |k| k.name = "other".into(), false);
    }

    /// Failure 23. Lists are compared as sets, and the smaller one counts as the narrower: but an empty one is all there is.
    #[test]
    fn failure_23_who_compares_lists_takes_emptying_one_for_narrowing() {
        let is_larger = |before: &[String], after: &[String]| after.iter().any(|net| !before.contains(net));
        let mut narrow = key_body("CI");
        narrow.ips = vec!["10.0.0.0/8".to_owned()];
        let wide = KeyBody { ips: vec![], ..narrow.clone() };
        assert!(!is_larger(&narrow.ips, &wide.ips), "nothing was added, and the key works from anywhere");
        assert!(widens(&narrow, &wide));
        // On the wire the same is true of permissions: `["fetch"]` emptied is read-write.
        check(|k| k.access = Access::ReadOnly, |k| k.access = Access::ReadWrite, true);
    }

    #[test]
    fn more_requests_are_an_escalation() {
        let limit = |text: &str| Some(text.parse().unwrap());
        check(|k| k.rate_limit = limit("3/1h"), |k| k.rate_limit = limit("4/1h"), true);
        check(|k| k.rate_limit = limit("3/1h"), |k| k.rate_limit = limit("3/1m"), true);
        check(|k| k.rate_limit = limit("3/1h"), |k| k.rate_limit = None, true);
        check(|k| k.rate_limit = limit("3/1h"), |k| k.rate_limit = limit("2/1h"), false);
        check(|_| (), |k| k.rate_limit = limit("3/1h"), false);
    }

    #[test]
    fn more_addresses_are_an_escalation() {
        for (before, after, expected) in [
            (&[][..], &["10.0.0.0/8"][..], false),
            (&["10.0.0.0/8"], &[], true),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], false),
            (&["10.0.0.0/8"], &["10.1.2.3"], false),
            (&["10.0.0.0/8"], &["10.0.0.0/7"], true),
            (&["10.0.0.0/8"], &["10.0.0.0/8", "1.2.3.4"], true),
            (&["1.2.3.4", "10.0.0.0/8"], &["10.0.0.0/8"], false),
            (&["1.2.3.4"], &["::ffff:1.2.3.4"], false),
            (&["::ffff:1.2.3.4"], &["1.2.3.4"], false),
            (&["0.0.0.0/0"], &["::/0"], true),
            (&["::/0"], &["1.2.3.4"], true),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], false),
            (&["2001:db8:1::/48"], &["2001:db8::/32"], true),
            (&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.0/8"], true),
            (&["10.9.9.9/8"], &["10.0.0.0/8"], false),
        ] {
            let texts = |list: &[&str]| list.iter().map(|ip| (*ip).to_owned()).collect();
            check(|k| k.ips = texts(before), |k| k.ips = texts(after), expected);
        }
    }
}
