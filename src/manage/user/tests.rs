//! What happens to accounts and their keys. The rows are those of the checklist (B) where they have one.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::auth::grant::{Access, State};
use crate::manage::key::{NewKey, Patch};
use crate::manage::testing::{MemoryStore, locksmith, noon};

type Place = Session<MemoryStore>;

fn place() -> Place {
    Session { store: MemoryStore::default(), locksmith: Arc::new(locksmith()), actor: "tests".to_owned(), now: noon() }
}

fn ann(api_access: bool) -> NewUser {
    let email = "Ann@example.com".parse().unwrap();
    NewUser { email, name: None, scope: None, password: None, api_access, role: None }
}

fn access(api_access: bool) -> UserPatch {
    UserPatch { api_access: Some(api_access), ..UserPatch::default() }
}

fn kinds(place: &Place) -> Vec<&'static str> {
    let records = place.store.records();
    records.iter().filter(|record| record.body.is_some()).map(|record| record.id.kind.label()).collect()
}

async fn opens(place: &Place, key: &str, secret: &str) -> bool {
    let digest = Secret::returned(secret).digest(&place.locksmith.pepper);
    place.secrets_of(key).await.unwrap().iter().any(|secret| secret.digest == digest)
}

#[tokio::test]
async fn b4_b5_b6_access_is_off_until_somebody_gives_it_and_gives_a_key() {
    let place = place();
    let made = place.create_user(ann(false)).await.unwrap();
    assert!(!made.user.body.api_access && made.secret.is_none());
    assert_eq!(kinds(&place), ["user", "unique"]);
    let given = place.update_user(&made.user.id, &access(true), None).await.unwrap();
    let secret = given.secret.unwrap();
    assert!(opens(&place, &made.user.id, secret.reveal()).await);
    let key = place.key(&made.user.id).await.unwrap().body;
    assert_eq!((key.owner.as_deref(), key.user.as_deref()), (Some(&*made.user.id), Some("ann@example.com")));
    assert_eq!(place.store.commits()[1].detail["escalation"], true);
    // B7: taking it back is a change of the user alone; B11: there is one key, and it comes back with it.
    assert!(place.update_user(&made.user.id, &access(false), None).await.unwrap().secret.is_none());
    assert_eq!(place.store.commits()[2].changes.len(), 1);
    assert!(place.update_user(&made.user.id, &access(true), None).await.unwrap().secret.is_none());
    assert_eq!(kinds(&place).iter().filter(|kind| **kind == "key").count(), 1);
}

#[tokio::test]
async fn b9_an_own_key_is_looked_up_again_and_each_time_is_in_the_audit() {
    let place = place();
    let made = place.create_user(ann(true)).await.unwrap();
    let value = made.secret.unwrap();
    assert_eq!(place.look_up_value(&made.user.id).await.unwrap().as_str(), value.reveal());
    let last = place.store.commits().pop().unwrap();
    assert_eq!((last.action, last.changes.len()), ("key.look_up", 0));
    // Nothing in the store gives it away.
    let records = place.store.records();
    assert!(!records.iter().any(|record| record.body.as_deref().is_some_and(|json| json.contains(value.reveal()))));
    // What is not noted down is not shown.
    place.store.fail_commits(1);
    assert!(matches!(place.look_up_value(&made.user.id).await, Err(Failure::Outrun(_))));
    let rotated = place.rotate_key(&made.user.id, Some(noon())).await.unwrap();
    assert_eq!(place.look_up_value(&made.user.id).await.unwrap().as_str(), rotated.secret.reveal());
    let plain = NewKey::named("CI".parse().unwrap(), Access::ReadWrite);
    let plain = place.create_key(plain).await.unwrap().key.id;
    assert!(matches!(place.look_up_value(&plain).await, Err(Failure::NotKept(_))));
}

#[tokio::test]
async fn b12_b13_b14_a_new_value_counts_once_it_is_confirmed_and_the_old_one_no_more() {
    let mut place = place();
    let made = place.create_user(ann(true)).await.unwrap();
    let (id, old) = (made.user.id, made.secret.unwrap());
    let before = place.store.records().len();
    let proposal = place.propose_value(&id).await.unwrap();
    assert_eq!(place.store.records().len(), before, "there is nothing to cancel");
    let (value, confirmation) = (proposal.secret.reveal(), proposal.confirmation.as_str());
    assert!(opens(&place, &id, old.reveal()).await && !opens(&place, &id, value).await);
    // Only what was proposed, for this key, and not for ever.
    let other = place.propose_value(&id).await.unwrap();
    for (value, confirmation) in [
        (other.secret.reveal(), confirmation),
        ("7e14204fcce1e00152b4", confirmation),
        (value, ""),
        (value, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        assert!(matches!(place.confirm_value(&id, value, confirmation).await, Err(Failure::BadTicket(_))));
    }
    place.now = noon().plus(Duration::from_secs(900));
    assert!(matches!(place.confirm_value(&id, value, confirmation).await, Err(Failure::BadTicket(_))));
    place.now = noon();
    place.confirm_value(&id, value, confirmation).await.unwrap();
    assert!(!opens(&place, &id, old.reveal()).await && opens(&place, &id, value).await);
    assert_eq!(place.look_up_value(&id).await.unwrap().as_str(), value);
    let again = place.confirm_value(&id, value, confirmation).await;
    assert!(matches!(again, Err(Failure::BadTicket(_))), "it counts once");
}

#[tokio::test]
async fn an_address_is_one_users_and_free_again_when_they_have_another() {
    let place = place();
    let first = place.create_user(ann(false)).await.unwrap().user;
    let twice = place.create_user(ann(false)).await;
    assert!(matches!(&twice, Err(Failure::Taken(id)) if id.to_string() == "the e-mail address ann@example.com"));
    let email = Some("bea@example.com".parse().unwrap());
    place.update_user(&first.id, &UserPatch { email, ..UserPatch::default() }, None).await.unwrap();
    assert_eq!(place.find_user("BEA@example.com").await.unwrap().id, first.id);
    assert!(matches!(place.find_user("ann@example.com").await, Err(Failure::NotFound(_))));
    let second = place.create_user(ann(false)).await.unwrap().user;
    let email = Some("bea@example.com".parse().unwrap());
    let taken = place.update_user(&second.id, &UserPatch { email, ..UserPatch::default() }, None).await;
    assert!(matches!(taken, Err(Failure::Taken(_))));
    assert_eq!(place.users().await.unwrap().len(), 2);
}

#[tokio::test]
async fn who_goes_takes_all_keys_along_and_leaves_the_others() {
    let place = place();
    let ann = place.create_user(NewUser { role: Some("admin".into()), ..ann(true) }).await.unwrap().user;
    let mut below = NewKey::named("below".parse().unwrap(), Access::ReadWrite);
    below.parent = Some(ann.id.clone());
    let below = place.create_key(below).await.unwrap().key.id;
    let other = place.create_key(NewKey::named("other".parse().unwrap(), Access::ReadWrite)).await.unwrap().key.id;
    place.bind(Subject::Key(below.clone()), "observer", None).await.unwrap();
    place.bind(Subject::Key(other.clone()), "observer", None).await.unwrap();
    let refused = place.delete_key(&ann.id, (false, None), None).await;
    assert!(matches!(refused, Err(Failure::HasKeysBelow(_, 1))));
    let mut gone = vec![ann.id.clone(), below.clone()];
    gone.sort_unstable();
    assert_eq!(place.delete_user(&ann.id, None).await.unwrap(), gone);
    assert_eq!(
        place.delete_key(&other, (false, Some("tidying up")), None).await.unwrap(),
        std::slice::from_ref(&other)
    );
    // What is left of a key is that it was revoked, and that its values were those of a key.
    for key in [&ann.id, &below, &other] {
        assert_eq!(place.key(key).await.unwrap().body.state, State::Revoked);
        assert_eq!(place.secrets_of(key).await.unwrap().len(), 1);
    }
    let theirs: Vec<&str> =
        kinds(&place).into_iter().filter(|kind| !["key", "secret", "binding"].contains(kind)).collect();
    assert_eq!(theirs, Vec::<&str>::new());
    assert!(
        place.bindings().await.unwrap().iter().all(|binding| binding.body.subject != Subject::User(ann.id.clone()))
    );
    // Keys that were revoked before do not stand in the way, and there is nothing left to do.
    assert!(matches!(place.delete_key(&ann.id, (false, None), None).await, Err(Failure::NotFound(_))));
}

#[tokio::test]
async fn a_key_is_not_made_below_one_under_which_it_could_not_work() {
    let place = place();
    let make = |change: fn(&mut NewKey)| {
        let mut key = NewKey::named("k".parse().unwrap(), Access::ReadWrite);
        change(&mut key);
        key
    };
    let acme = |key: &mut NewKey| {
        key.id = Some("acme".parse().unwrap());
        key.scope = Scope::parse("organization:acme").ok();
    };
    place.create_key(make(acme)).await.unwrap();
    type Change = fn(&mut NewKey);
    let fits: [(Change, bool); 4] = [
        (|_| (), true),
        (|key| key.scope = Scope::parse("organization:acme/project:p").ok(), true),
        (|key| key.scope = Scope::parse("organization:other").ok(), false),
        (|key| key.env = crate::auth::grant::Environment::Test, false),
    ];
    for (change, fits) in fits {
        let mut key = make(change);
        key.parent = Some("acme".into());
        assert_eq!(place.create_key(key).await.is_ok(), fits);
    }
    place.set_key_state("acme", State::Revoked, None, None).await.map(|_| ()).unwrap();
    let mut key = make(|_| ());
    key.parent = Some("acme".into());
    assert!(matches!(place.create_key(key).await, Err(Failure::Revoked(_))));
}

#[tokio::test]
async fn who_signs_in_is_known_by_the_password_and_must_be_active() {
    let place = place();
    let password = || Some(Password::typed("correct horse battery"));
    let user = place.create_user(NewUser { password: password(), ..ann(false) }).await.unwrap().user;
    let sign_in = async |email: &str, typed: &str| {
        place.sign_in(email, Password::typed(typed)).await.unwrap().map(|user| user.id)
    };
    assert_eq!(sign_in("ann@example.com", "correct horse battery").await, Some(user.id.clone()));
    for (email, typed) in [("ann@example.com", "wrong"), ("bea@example.com", "correct horse battery"), ("", "")] {
        assert_eq!(sign_in(email, typed).await, None, "{email}");
    }
    place.set_password(&user.id, Password::typed("another one, please")).await.unwrap();
    assert_eq!(sign_in("ann@example.com", "correct horse battery").await, None);
    assert_eq!(sign_in("ann@example.com", "another one, please").await, Some(user.id.clone()));
    place
        .update_user(&user.id, &UserPatch { state: Some(UserState::Suspended), ..UserPatch::default() }, None)
        .await
        .unwrap();
    assert_eq!(sign_in("ann@example.com", "another one, please").await, None);
    // Nothing of it is in the audit.
    assert!(!format!("{:?}", place.store.commits().iter().map(|c| &c.detail).collect::<Vec<_>>()).contains("argon2"));
}

#[tokio::test]
async fn a_link_signs_in_once_and_not_for_ever() {
    let mut place = place();
    let user = place.create_user(ann(false)).await.unwrap().user;
    let ticket = place.create_link(&user.id, Duration::from_secs(60)).await.unwrap();
    let stored = format!("{:?}", place.store.commits().last().unwrap());
    assert!(!stored.contains(ticket.reveal()), "{stored}");
    assert!(matches!(place.redeem_link("another").await, Err(Failure::BadTicket(_))));
    assert_eq!(place.redeem_link(ticket.reveal()).await.unwrap().id, user.id);
    assert!(matches!(place.redeem_link(ticket.reveal()).await, Err(Failure::BadTicket(_))));
    let late = place.create_link(&user.id, Duration::from_secs(60)).await.unwrap();
    place.now = noon().plus(Duration::from_secs(60));
    assert!(matches!(place.redeem_link(late.reveal()).await, Err(Failure::BadTicket(_))));
}

#[tokio::test]
async fn an_own_key_that_was_revoked_is_made_anew_and_nothing_of_the_old_one_comes_back() {
    let place = place();
    let made = place.create_user(ann(true)).await.unwrap();
    let (id, old) = (made.user.id, made.secret.unwrap());
    place.bind(Subject::Key(id.clone()), "admin", None).await.unwrap();
    place.set_key_state(&id, State::Revoked, None, None).await.map(drop).unwrap();
    // Whoever has access already gets a key all the same when somebody gives it once more.
    let given = place.update_user(&id, &access(true), None).await.unwrap();
    let new = given.secret.unwrap();
    assert_eq!(place.key(&id).await.unwrap().body.state, State::Active);
    let ends = |secrets: Vec<crate::manage::StoredSecret>, value: &Secret| {
        let digest = Secret::returned(value.reveal()).digest(&place.locksmith.pepper);
        secrets.into_iter().find(|secret| secret.digest == digest).unwrap().body.not_after
    };
    assert_eq!(ends(place.secrets_of(&id).await.unwrap(), &old), Some(noon()));
    assert_eq!(ends(place.secrets_of(&id).await.unwrap(), &new), None);
    assert_eq!(place.look_up_value(&id).await.unwrap().as_str(), new.reveal());
    assert!(place.bindings().await.unwrap().is_empty());
    assert!(place.update_user(&id, &access(true), None).await.unwrap().secret.is_none());
}

#[tokio::test]
async fn a_link_is_void_after_a_suspension_or_another_password_and_is_not_used_up_by_what_is_refused() {
    let mut place = place();
    let user = place.create_user(ann(false)).await.unwrap().user;
    let state = |state| UserPatch { state: Some(state), ..UserPatch::default() };
    let link = place.create_link(&user.id, Duration::from_secs(600)).await.unwrap();
    let later = |place: &mut Place| place.now = place.now.plus(Duration::from_secs(1));
    later(&mut place);
    place.update_user(&user.id, &state(UserState::Suspended), None).await.unwrap();
    let during = place.create_link(&user.id, Duration::from_secs(600)).await.unwrap();
    let before = place.store.commits().len();
    for link in [&link, &during] {
        assert!(matches!(place.redeem_link(link.reveal()).await, Err(Failure::BadTicket(_))));
    }
    assert_eq!(place.store.commits().len(), before, "nothing was used");
    place.update_user(&user.id, &state(UserState::Active), None).await.unwrap();
    assert!(matches!(place.redeem_link(link.reveal()).await, Err(Failure::BadTicket(_))));
    place.redeem_link(during.reveal()).await.unwrap();
    let link = place.create_link(&user.id, Duration::from_secs(600)).await.unwrap();
    later(&mut place);
    place.set_password(&user.id, Password::typed("another one, please")).await.unwrap();
    assert!(matches!(place.redeem_link(link.reveal()).await, Err(Failure::BadTicket(_))));
}

#[tokio::test]
async fn a_key_says_the_address_of_its_own_account_and_of_no_other() {
    let place = place();
    let scope = |text: &str| Scope::parse(text).ok();
    let acme = NewUser { scope: scope("organization:acme"), ..ann(true) };
    let user = place.create_user(acme).await.unwrap().user;
    let make = async |change: fn(&mut NewKey), owner: Option<&str>| {
        let mut key = NewKey::named("k".parse().unwrap(), Access::ReadWrite);
        key.owner = owner.map(Box::from);
        change(&mut key);
        place.create_key(key).await.map(|created| created.key)
    };
    let address = |key: &mut NewKey| key.user = "ann@example.com".parse().ok();
    assert!(matches!(make(address, None).await, Err(Failure::Invalid(_))));
    assert!(make(|key| key.user = "bea@example.com".parse().ok(), None).await.is_ok(), "nobody's");
    assert!(matches!(make(|key| key.user = "root".parse().ok(), Some(&user.id)).await, Err(Failure::Invalid(_))));
    let other: fn(&mut NewKey) = |key| key.scope = Scope::parse("organization:other").ok();
    assert!(matches!(make(other, Some(&user.id)).await, Err(Failure::Invalid(_))));
    let key = make(|_| (), Some(&user.id)).await.unwrap();
    assert_eq!((key.body.user.as_deref(), &key.body.scope), (Some("ann@example.com"), &scope("organization:acme")));
    let patch = |user: &str| Patch { user: Some(user.parse().ok()), ..Patch::default() };
    assert!(matches!(place.update_key(&key.id, &patch("root"), None).await, Err(Failure::Invalid(_))));
    // And the account takes its keys along.
    let email = Some("bea.acme@example.com".parse().unwrap());
    let moved = UserPatch { email, scope: Some(scope("organization:other")), ..UserPatch::default() };
    place.update_user(&user.id, &moved, None).await.unwrap();
    for id in [&key.id, &user.id] {
        let body = place.key(id).await.unwrap().body;
        assert_eq!((body.user.as_deref(), body.scope), (Some("bea.acme@example.com"), scope("organization:other")));
    }
}

#[tokio::test]
async fn a_role_that_comes_with_a_user_or_a_key_is_there_and_marked_in_the_audit() {
    let place = place();
    let role = |role: &str| NewUser { role: Some(role.into()), ..ann(false) };
    let key = |role: &str| NewKey { role: role.parse().ok(), ..NewKey::named("k".parse().unwrap(), Access::ReadWrite) };
    assert!(matches!(place.create_user(role("chief")).await, Err(Failure::NotFound(id)) if id.kind == Kind::Role));
    assert!(matches!(place.create_key(key("chief")).await, Err(Failure::NotFound(id)) if id.kind == Kind::Role));
    place.create_user(role("member")).await.unwrap();
    place.create_key(key("member")).await.unwrap();
    assert!(place.store.commits().iter().all(|commit| commit.detail["escalation"] == true));
}
