//! The designs that were not taken, in the schedules that they fail: what guards from a failure must be able to see it.

use std::collections::HashMap as Map;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

use super::*;
use crate::auth::digest::Pepper;

/// Failure 8. A full pull of what is there already puts a table that knows nothing of the one before in its place: what was
/// taken of a limit is given again.
#[test]
fn failure_8_a_table_that_begins_anew_gives_again_what_was_taken() {
    let limited = || key("a", KeyFacts { limit: "1/1h".parse().ok(), ..facts("A") });
    for (keeps, expected) in [(false, true), (true, false)] {
        let (replica, mut writer) = loaded([limited(), secret(1, "a")]);
        let take = || {
            let view = replica.view(Instant::now());
            view.take(&view.grant(&digest(1)).unwrap().unwrap()).is_ok()
        };
        assert!(take() && !take());
        let mut draft = if keeps { writer.draft() } else { Draft::new(None) };
        [limited(), secret(1, "a")].into_iter().for_each(|change| draft.apply(change));
        writer.replace(draft);
        assert_eq!(take(), expected, "the table knows the one before: {keeps}");
    }
}

/// Asks without pause while something is done, which is told how often there was an answer, and says how often meanwhile.
fn answers_while(ask: impl Fn() + Sync, work: impl FnOnce(&AtomicUsize) -> usize) -> usize {
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                ask();
                count.fetch_add(1, Relaxed);
            }
        });
        while count.load(Relaxed) == 0 {
            thread::yield_now();
        }
        let answered = work(&count);
        done.store(true, Relaxed);
        answered
    })
}

/// Failure 9. A full pull rebuilds what requests read under their lock: nobody is answered until the last of many records is in.
/// Beside it, and swapped, it disturbs nobody.
#[test]
fn failure_9_a_table_that_is_rebuilt_in_place_answers_nobody_meanwhile() {
    let many = 100_000_u32;
    let mixed = |n: u32| u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let digest = |n: u32| Digest::from_record_id(&format!("{:032x}", mixed(n))).unwrap();
    let changes = || {
        (0..many).flat_map(|n| {
            let id: Box<str> = format!("k{n}").into();
            let secret = Change::Secret { digest: digest(n), key: id.clone(), not_after: Timestamp::NEVER };
            [Change::Key(id, facts("A")), secret]
        })
    };
    let locked: RwLock<Map<u32, String>> = RwLock::new(Map::from([(7, "k7".to_owned())]));
    let ask = || assert!(locked.read().unwrap().contains_key(&7));
    let answered = answers_while(ask, |count| {
        let mut all = locked.write().unwrap();
        count.store(0, Relaxed);
        all.clear();
        all.extend((0..many).map(|n| (n, format!("k{n}"))));
        count.load(Relaxed)
    });
    // One may have been on its way.
    assert!(answered <= 1, "{answered}");

    // The same, as it is.
    let (replica, mut writer) = loaded(changes().take(20));
    let ask =
        || assert!(replica.view(Instant::now()).grant(&digest(7)).unwrap().is_some(), "a live key is never unknown");
    let answered = answers_while(ask, |count| {
        count.store(0, Relaxed);
        let mut draft = writer.draft();
        changes().for_each(|change| draft.apply(change));
        writer.replace(draft);
        count.load(Relaxed)
    });
    assert!(answered > 100, "{answered}");
    assert_eq!(writer.counts().keys, many as usize);
}

/// Failure 20. What the owner's suspension means is copied into each key when the key is written: suspending the owner reaches
/// none of them.
#[test]
fn failure_20_what_is_copied_into_keys_outlives_its_owner() {
    let owned = |n: u8| key(&format!("k{n}"), KeyFacts { owner: Some("ann".into()), ..facts("A") });
    let user = |standing| Change::User { id: "ann".into(), standing };
    let all = (1..=3).flat_map(|n| [owned(n), secret(n, &format!("k{n}"))]);
    let (replica, mut writer) = loaded([user(Standing::Good)].into_iter().chain(all));
    let copies: Map<u8, Standing> = (1..=3).map(|n| (n, Standing::Good)).collect();
    writer.apply([user(Standing::Suspended)]);
    assert!(copies.values().all(|copy| *copy == Standing::Good), "nobody has written the keys again");
    // The same, as it is: one change, and all of them have heard of it.
    let view = replica.view(Instant::now());
    let looked_up = (1..=3).map(|n| view.standing(view.grant(&digest(n)).unwrap().unwrap().lineage.owner.unwrap()));
    assert!(looked_up.into_iter().all(|standing| standing == Standing::Suspended));
}

/// Failure 19. Nobody compares peppers: all that is asked is not there, and everybody is told that their key is wrong.
#[test]
fn failure_19_without_a_check_another_pepper_knows_nobody() {
    let secret_of = |pepper: u8| {
        let pepper = Pepper::from_hex(&format!("{pepper:02x}").repeat(32)).unwrap();
        let brand = crate::auth::key::Brand::parse("kw").unwrap();
        let format = crate::auth::key::KeyFormat::new(brand, vec![]);
        let value = "kw_live_000000000000000000000000000000000032gtfw";
        format.parse(value.as_bytes()).unwrap().digest(&pepper)
    };
    let change = Change::Secret { digest: secret_of(1), key: "a".into(), not_after: Timestamp::NEVER };
    let (replica, _writer) = loaded([key("a", facts("A")), change]);
    let grant = |pepper| replica.view(Instant::now()).grant(&secret_of(pepper));
    assert!(matches!(grant(1), Ok(Some(_))));
    assert_eq!(grant(2), Ok(None), "that is 401, and clients throw their keys away");
    // The same, as it is: the store is not read at all (`failure_19_another_pepper_is_refused…`), so that it is 503.
    let (replica, _writer) = Replica::new(Duration::from_secs(60));
    assert_eq!(replica.view(Instant::now()).grant(&secret_of(2)), Err(Unavailable::NotLoaded));
}

/// Failure 17. Two designs that a frozen store deceives. One takes what cannot be read for a store without keys: everybody hears
/// that their key is wrong. The other counts from the last news, not from the last time that somebody looked: where nothing
/// changes, all is well for ever, or nothing is.
#[test]
fn failure_17_what_cannot_be_read_is_not_empty_and_silence_is_not_freshness() {
    let later = Instant::now() + Duration::from_secs(61);
    let known = || loaded([key("a", facts("A")), secret(1, "a")]);
    let (replica, mut writer) = known();
    writer.replace(Draft::new(None));
    assert_eq!(replica.view(later - Duration::from_secs(30)).grant(&digest(1)), Ok(None), "that is 401");
    // A store that is quiet, and read every second; and one that is frozen after its last news. By news alone they are the same.
    let last_news = Instant::now();
    let is_fresh = |now: Instant| now.duration_since(last_news) < Duration::from_secs(60);
    assert!(!is_fresh(later), "and the quiet one would be refused");
    // The same, as it is: what was known is known until it is too old, and then nothing is. That is 503.
    let (replica, mut writer) = known();
    let opens = |at| replica.view(at).grant(&digest(1)).map(|grant| grant.is_some());
    assert_eq!((opens(later - Duration::from_secs(30)), opens(later)), (Ok(true), Err(Unavailable::Expired)));
    writer.prove(later - Duration::from_secs(1));
    assert_eq!(opens(later), Ok(true), "whoever has looked knows that nothing is new");
}

/// Failure 18. What a snapshot knows is believed from when it is read, and not from when it was true: with each start a key that
/// was revoked long ago has another hour.
#[test]
fn failure_18_who_believes_a_snapshot_from_when_it_is_read_never_ages() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (ages, usable) in [(false, true), (true, false)] {
        let (replica, mut writer) = Replica::new(Duration::from_secs(60));
        writer.apply([key("a", facts("A")), secret(1, "a")]);
        match ages {
            true => writer.prove_aged(day),
            false => writer.prove(Instant::now()),
        }
        assert_eq!(replica.view(Instant::now()).grant(&digest(1)).is_ok(), usable, "its age counts: {ages}");
    }
}
