//! Who may what, and where: the rows are those of the checklist.

use super::Permission as P;
use super::*;

fn scope(text: &str) -> Option<Scope> {
    (!text.is_empty()).then(|| Scope::parse(text).unwrap())
}

/// A built-in role within a scope.
fn role(name: &str, at: &str) -> Authority {
    Authority::new(BuiltIn::parse(name).unwrap().permissions(), scope(at))
}

const ACME: &str = "organization:acme";
const PROJECT: &str = "organization:acme/project:p1";
const SCENE: &str = "organization:acme/project:p1/scene:s1";
const OTHER: &str = "organization:other";

#[test]
fn a_permission_is_read_as_it_is_written() {
    for (at, permission) in P::ALL.into_iter().enumerate() {
        assert_eq!((permission as usize, P::parse(permission.label())), (at, Some(permission)));
        let looks = permission.label().ends_with(":read");
        assert_eq!(LOOKING.has(permission), looks, "{permission:?}");
    }
    assert_eq!(P::parse("keys:*"), None);
    assert!(BuiltIn::ALL.into_iter().all(|role| BuiltIn::parse(role.name()) == Some(role)));
    assert_eq!(BuiltIn::parse("Admin"), None);
    assert!(Permissions::ALL.iter().eq(P::ALL));
}

#[test]
fn what_a_role_permits_where_it_is_held() {
    for (id, authority, permission, at, expected) in [
        // Making a key needs admin access to the organization.
        ("C2", role("admin", ACME), P::KeysWrite, ACME, true),
        ("C2", role("observer", ACME), P::KeysWrite, ACME, false),
        ("C2", role("member", ACME), P::KeysWrite, ACME, false),
        ("C2", role("admin", OTHER), P::KeysWrite, ACME, false),
        ("C2", Authority::NONE, P::KeysWrite, ACME, false),
        // Observers look at everything but the audit, and touch nothing.
        ("C17", role("observer", ACME), P::KeysRead, ACME, true),
        ("C17", role("observer", ACME), P::UsersRead, ACME, true),
        ("C17", role("observer", ACME), P::UsersWrite, ACME, false),
        ("C17", role("observer", ACME), P::ScopesWrite, PROJECT, false),
        ("C17", role("observer", ACME), P::LeaksWrite, ACME, false),
        // Access to an organization is access to its projects and scenes.
        ("C18", role("admin", ACME), P::KeysWrite, PROJECT, true),
        ("C18", role("admin", ACME), P::KeysWrite, SCENE, true),
        ("C18", role("admin", PROJECT), P::KeysWrite, SCENE, true),
        ("C18", role("admin", PROJECT), P::KeysWrite, ACME, false),
        // The domain is above all organizations, and an organization's admin is not its admin.
        ("C19", role("admin", ""), P::ScopesWrite, "", true),
        ("C19", role("admin", ""), P::AuditRead, OTHER, true),
        ("C19", role("admin", ACME), P::ScopesWrite, "", false),
        ("C19", role("admin", "domain:d"), P::KeysWrite, "domain:d/organization:acme", true),
        ("C19", role("admin", "domain:d"), P::KeysWrite, ACME, false),
        // Its audit, members and roles are the organization's.
        ("C20", role("admin", ACME), P::AuditRead, ACME, true),
        ("C20", role("admin", ACME), P::UsersWrite, ACME, true),
        ("C20", role("admin", ACME), P::BindingsWrite, ACME, true),
        ("C20", role("admin", ACME), P::AuditRead, OTHER, false),
        ("C20", role("observer", ACME), P::AuditRead, ACME, false),
        ("C20", role("member", ACME), P::AuditRead, ACME, false),
        ("C21", role("admin", PROJECT), P::KeysRead, PROJECT, true),
        ("C21", role("admin", PROJECT), P::ScopesWrite, SCENE, true),
        ("C21", role("admin", PROJECT), P::ScopesWrite, "organization:acme/project:p2", false),
        ("C22", role("admin", SCENE), P::UsageRead, SCENE, true),
        ("C22", role("admin", SCENE), P::UsageRead, PROJECT, false),
        // Their own account is everybody's, whatever else they hold, and nobody else's.
        ("C23", Authority::NONE, P::Own, "", true),
        ("C23", role("observer", SCENE), P::Own, "", true),
        ("C23", role("observer", SCENE), P::UsersRead, "", false),
        // Who is bound to a project or scene has no function of the organization, not even there.
        ("C24", role("admin", PROJECT), P::AuditRead, ACME, false),
        ("C24", role("admin", PROJECT), P::AuditRead, PROJECT, false),
        ("C24", role("admin", PROJECT), P::UsersRead, PROJECT, false),
        ("C24", role("admin", PROJECT), P::BindingsWrite, PROJECT, false),
        ("C24", role("admin", SCENE), P::RolesRead, SCENE, false),
        // A read-only key lists and gets, but does not create, change or delete.
        ("V5", role("admin", "").looking(), P::KeysRead, ACME, true),
        ("V5", role("admin", "").looking(), P::KeysWrite, ACME, false),
        ("V5", role("admin", "").looking(), P::AuditRead, ACME, true),
    ] {
        let at = scope(at);
        assert_eq!(authority.may(permission, at.as_ref()), expected, "{id}: {permission:?} at {at:?}");
    }
}

#[test]
fn c16_rights_are_the_union_of_the_roles() {
    let both = role("observer", ACME).or(role("admin", "organization:other/project:p"));
    let may = |permission, at| both.may(permission, scope(at).as_ref());
    assert!(may(P::KeysRead, ACME) && may(P::KeysWrite, "organization:other/project:p"));
    assert!(!may(P::KeysWrite, ACME), "a role counts where it is held, and not where another is");
    assert!(both.may_somewhere(P::KeysWrite) && !both.may_somewhere(P::AuditRead));
}

#[test]
fn what_is_cut_gives_what_both_give() {
    let cut = role("admin", "").within(scope(PROJECT).as_ref());
    assert!(cut.may(P::KeysWrite, scope(PROJECT).as_ref()) && !cut.may(P::KeysWrite, scope(ACME).as_ref()));
    assert!(!cut.may_somewhere(P::AuditRead), "cutting to a project takes what is the organization's");
    let apart = role("admin", ACME).and(&role("admin", OTHER));
    assert_eq!(apart, Authority::NONE);
    let both = role("admin", ACME).or(role("member", "")).and(&role("observer", PROJECT));
    assert!(both.may(P::KeysRead, scope(SCENE).as_ref()) && !both.may_somewhere(P::KeysWrite));
}

#[test]
fn nobody_hands_on_what_they_do_not_have() {
    for (giver, given, expected) in [
        (role("admin", ""), role("admin", ""), true),
        (role("admin", ACME), role("admin", PROJECT), true),
        (role("admin", ACME), role("observer", ACME), true),
        (role("admin", ACME), role("admin", ""), false),
        (role("admin", PROJECT), role("admin", ACME), false),
        (role("observer", ACME), role("member", ACME), false),
        (role("observer", ""), role("observer", ACME), true),
        (Authority::NONE, role("member", SCENE), false),
        (Authority::NONE, Authority::NONE, true),
    ] {
        assert_eq!(giver.includes(&given), expected, "{giver:?} gives {given:?}");
    }
}
