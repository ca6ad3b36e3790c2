//! The keys in their order, whatever order they came in.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::auth::scope::Scope;

fn keys_after(replica: &Replica, directory: &mut Directory, after: &str, most: usize, part: &str) -> Vec<String> {
    let keys = replica.keys(directory);
    keys.page(after, most, |key| key.name.contains(part)).into_iter().map(str::to_owned).collect()
}

/// Numbers from 0 on, in an order of no meaning.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| n * 7_919 % count)
}

#[test]
fn keys_come_in_the_order_of_their_ids_page_by_page_and_after_every_change() {
    let (replica, mut writer) = loaded(std::iter::empty());
    let (mut directory, mut model) = (Directory::default(), BTreeMap::new());
    // Many at once, a few, one that something names before it is there, some that go, some that come back under other names.
    for step in 0..6_u64 {
        let (news, gone): (Vec<(u64, String)>, Vec<u64>) = match step {
            0 => (shuffled(9_001).map(|n| (n, format!("first {}", n % 1_000))).collect(), vec![]),
            1 => ((9_100..9_110).rev().map(|n| (n, "few".to_owned())).collect(), vec![5, 9_000]),
            2 => (vec![(50, "renamed".to_owned()), (5, "again".to_owned())], vec![]),
            3 => (shuffled(300).map(|n| (20_000 + n, "late".to_owned())).collect(), (100..200).collect()),
            4 => (vec![], (20_000..20_300).collect()),
            _ => (vec![(150, "back".to_owned())], vec![]),
        };
        let mut changes = Vec::new();
        for (n, name) in news {
            changes.push(key(&format!("k{n:05}"), facts(&name)));
            model.insert(format!("k{n:05}"), name);
        }
        for n in gone {
            changes.push(Change::KeyGone(format!("k{n:05}").into()));
            model.remove(&format!("k{n:05}"));
        }
        changes.push(secret(1, "k99999"));
        match step {
            // Everything anew: the directory is of a table that is no more.
            3 => {
                let mut draft = writer.draft();
                model.iter().rev().for_each(|(id, name)| draft.apply(key(id, facts(name))));
                writer.replace(draft);
            }
            _ => writer.apply(changes),
        }
        for (part, most) in [("", 25), ("", 1_000), ("first 7", 10), ("first 7", 400), ("renamed", 3), ("nobody", 5)] {
            let expected: Vec<&String> =
                model.iter().filter(|(_, name)| name.contains(part)).map(|(id, _)| id).collect();
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = keys_after(&replica, &mut directory, &after, most, part);
                assert!(page.len() <= most && page.iter().all(|id| *id > after), "step {step}, {part:?}");
                let Some(last) = page.last().cloned() else { break };
                found.extend(page);
                after = last;
            }
            assert!(found.iter().eq(expected), "step {step}, {part:?}, {most} at a time");
        }
    }
}

/// More than are sorted together, in whatever order a store gives them.
#[test]
fn many_keys_in_no_order_come_in_order() {
    let (replica, mut writer) = loaded(std::iter::empty());
    let mut draft = writer.draft();
    shuffled(40_000).for_each(|n| draft.apply(key(&format!("k{n:05}"), facts("any"))));
    writer.replace(draft);
    let mut directory = Directory::default();
    let found = keys_after(&replica, &mut directory, "k00007", usize::MAX, "any");
    assert!(found.into_iter().eq((8..40_000).map(|n| format!("k{n:05}"))));
}

#[test]
fn what_belongs_to_a_key_or_a_user_is_found() {
    let child = KeyFacts { owner: Some("ann".into()), parent: Some("above".into()), ..facts("child") };
    let other = KeyFacts { owner: Some("bob".into()), scope: Scope::parse("organization:acme").ok(), ..facts("other") };
    let (replica, mut writer) = loaded([
        key("child", child.clone()),
        key("other", other),
        key("above", facts("above")),
        secret(1, "child"),
        secret(2, "other"),
        secret(3, "child"),
        secret(4, "nobody"),
    ]);
    let mut directory = Directory::default();
    {
        let keys = replica.keys(&mut directory);
        let found = keys.find("child").unwrap();
        assert_eq!((found.owner, found.parent, found.scope), (Some("ann"), Some("above"), None));
        assert_eq!(keys.find("other").unwrap().scope.map(ToString::to_string).as_deref(), Some("organization:acme"));
        assert!(keys.find("nobody").is_none() && keys.find("childish").is_none());
        assert_eq!(["above", "child", "other", "nobody"].map(|id| keys.has_below(id)), [true, false, false, false]);
        let owned = |users: &[&'static str]| {
            let mut owned = keys.owned_by(&users.iter().copied().collect());
            owned.sort_unstable();
            owned.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(owned(&["ann"]), ["child"]);
        assert_eq!(owned(&["ann", "bob", "eve"]), ["child", "other"]);
        assert!(owned(&["eve"]).is_empty() && owned(&[]).is_empty());
        let secrets = |ids: &[&'static str]| keys.secrets_of(&ids.iter().copied().collect()).into_iter().collect();
        assert!(HashSet::from([digest(1), digest(3)]) == secrets(&["child"]));
        assert!(HashSet::from([digest(1), digest(2), digest(3)]) == secrets(&["child", "other", "eve"]));
        assert!(HashSet::new() == secrets(&["above"]) && HashSet::new() == secrets(&[]));
    }
    writer.apply([Change::KeyGone("child".into()), Change::SecretGone(digest(1))]);
    let keys = replica.keys(&mut directory);
    assert!(keys.find("child").is_none() && !keys.has_below("above"));
    assert!(keys.owned_by(&HashSet::from(["ann"])).is_empty());
}
