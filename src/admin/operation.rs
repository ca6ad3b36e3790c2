//! The table of operations: what there is, where, and who may. The router, the check of permissions and the OpenAPI document
//! are all made from it, so that none of them can know of something that the others do not.

mod find;

use http::Method;

pub use self::find::{Found, find};
use crate::auth::authority::Permission;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A page of the keys.
    ListKeys,
    /// One key.
    GetKey,
    /// A new key.
    CreateKey,
    /// Keys of another system.
    ImportKeys,
    /// A change of a key.
    UpdateKey,
    /// The end of a key.
    DeleteKey,
    /// What is known of a key's values.
    ListSecrets,
    /// A new value for a key.
    CreateSecret,
    /// The value of a key that keeps it.
    LookUpKey,
    /// Whose a value is.
    IdentifyKey,
    /// A page of the audit.
    ListAudit,
    /// A page of the keys that were used.
    ListUsage,
    /// How often the values of a key were used.
    GetUsage,
    /// A page of the scopes.
    ListScopes,
    /// One scope.
    GetScope,
    /// A new scope.
    CreateScope,
    /// Suspends or resumes a scope.
    UpdateScope,
    /// A page of the users.
    ListUsers,
    /// A new user.
    CreateUser,
    /// One user.
    GetUser,
    /// A change of a user.
    UpdateUser,
    /// The end of a user.
    DeleteUser,
    /// A page of the roles.
    ListRoles,
    /// A new role.
    CreateRole,
    /// One role.
    GetRole,
    /// A change of a role.
    UpdateRole,
    /// The end of a role.
    DeleteRole,
    /// A page of who has which role.
    ListBindings,
    /// A role for somebody.
    CreateBinding,
    /// One binding.
    GetBinding,
    /// The end of a binding.
    DeleteBinding,
    /// A link by which a user signs in once.
    CreateLink,
    /// The processes that follow the store.
    ListNodes,
    /// A process that has ended, and could not say so.
    ForgetNode,
    /// Keys that were found somewhere.
    ReportLeaks,
    /// Signs in.
    SignIn,
    /// Signs out.
    SignOut,
    /// Who asks.
    GetMe,
    /// A change of the own account.
    UpdateMe,
    /// The value of the own key.
    LookUpOwnKey,
    /// A new value for the own key.
    RegenerateOwnKey,
}

/// One operation.
pub struct Operation {
    /// What it does.
    pub action: Action,
    /// Its method.
    pub method: &'static Method,
    /// Its path; `{id}` stands for a segment.
    pub path: &'static str,
    /// What the OpenAPI document calls it.
    pub id: &'static str,
    /// What its caller must be permitted.
    pub permission: Permission,
    /// What it does, for people.
    pub summary: &'static str,
    /// The schema of what is sent along, if anything is.
    pub input: Option<&'static str>,
    /// The schema of its result.
    pub output: &'static str,
    /// The parameters of its query.
    pub query: &'static [&'static str],
    /// Whether it makes something, once for each `Idempotency-Key`.
    pub creates: bool,
}

static GET: Method = Method::GET;
static POST: Method = Method::POST;
static PATCH: Method = Method::PATCH;
static DELETE: Method = Method::DELETE;

const fn operation(
    action: Action,
    (method, path): (&'static Method, &'static str),
    permission: Permission,
    (id, summary): (&'static str, &'static str),
    (input, output): (Option<&'static str>, &'static str),
    query: &'static [&'static str],
) -> Operation {
    Operation { action, method, path, id, permission, summary, input, output, query, creates: false }
}

/// One that makes something at a path.
const fn creation(
    action: Action,
    path: &'static str,
    permission: Permission,
    names: (&'static str, &'static str),
    (input, output): (&'static str, &'static str),
) -> Operation {
    Operation { creates: true, ..operation(action, (&POST, path), permission, names, (Some(input), output), &[]) }
}

/// All operations.
pub static OPERATIONS: [Operation; 41] = [
    operation(
        Action::ListKeys,
        (&GET, "/v2/keys"),
        Permission::KeysRead,
        ("listKeys", "List keys"),
        (None, "KeyList"),
        &["limit", "cursor", "state", "name", "scope", "record"],
    ),
    creation(
        Action::CreateKey,
        "/v2/keys",
        Permission::KeysWrite,
        ("createKey", "Create a key; its value is shown once"),
        ("NewKey", "KeyWithValue"),
    ),
    operation(
        Action::ImportKeys,
        (&POST, "/v2/keys/import"),
        Permission::KeysWrite,
        (
            "importKeys",
            "Import keys of another system, as they are; rows that cannot be taken are told with their lines",
        ),
        (Some("KeyRows"), "Import"),
        &["line"],
    ),
    operation(
        Action::GetKey,
        (&GET, "/v2/keys/{id}"),
        Permission::KeysRead,
        ("getKey", "Get a key"),
        (None, "Key"),
        &["record"],
    ),
    operation(
        Action::UpdateKey,
        (&PATCH, "/v2/keys/{id}"),
        Permission::KeysWrite,
        ("updateKey", "Change a key"),
        (Some("KeyPatch"), "Key"),
        &["force"],
    ),
    operation(
        Action::DeleteKey,
        (&DELETE, "/v2/keys/{id}"),
        Permission::KeysWrite,
        ("deleteKey", "Delete a key: it stops working for good"),
        (None, "Deletion"),
        &["reason", "cascade", "list", "wait", "timeout"],
    ),
    operation(
        Action::GetUsage,
        (&GET, "/v2/keys/{id}/usage"),
        Permission::UsageRead,
        ("getUsage", "Get how often each value of a key was used"),
        (None, "KeyUsage"),
        &["record"],
    ),
    operation(
        Action::ListUsage,
        (&GET, "/v2/usage"),
        Permission::UsageRead,
        ("listUsage", "List how often keys were used"),
        (None, "UsageList"),
        &["limit", "cursor"],
    ),
    operation(
        Action::ListAudit,
        (&GET, "/v2/audit"),
        Permission::AuditRead,
        ("listAudit", "List who changed what, the newest first"),
        (None, "AuditList"),
        &["limit", "cursor", "actor", "action", "target", "since", "until", "order", "chain"],
    ),
    operation(
        Action::ListSecrets,
        (&GET, "/v2/keys/{id}/secrets"),
        Permission::KeysRead,
        ("listSecrets", "List what is known of a key's values"),
        (None, "SecretList"),
        &["record"],
    ),
    creation(
        Action::CreateSecret,
        "/v2/keys/{id}/secrets",
        Permission::KeysWrite,
        ("createSecret", "Give a key a new value, shown once"),
        ("Rotation", "KeyWithValue"),
    ),
    operation(
        Action::LookUpKey,
        (&POST, "/v2/keys/{id}/value"),
        Permission::KeysWrite,
        ("lookUpKey", "Look up the value of a key that keeps it; each time is in the audit"),
        (None, "OwnValue"),
        &[],
    ),
    operation(
        Action::IdentifyKey,
        (&POST, "/v2/keys/identify"),
        Permission::KeysRead,
        ("identifyKey", "Find the key that a value opens"),
        (Some("Value"), "Key"),
        &[],
    ),
    operation(
        Action::ListScopes,
        (&GET, "/v2/scopes"),
        Permission::ScopesRead,
        ("listScopes", "List scopes"),
        (None, "ScopeList"),
        &["limit", "cursor", "record"],
    ),
    creation(
        Action::CreateScope,
        "/v2/scopes",
        Permission::ScopesWrite,
        ("createScope", "Create a scope, and what is missing above it"),
        ("NewScope", "Scope"),
    ),
    operation(
        Action::GetScope,
        (&GET, "/v2/scopes/{id}"),
        Permission::ScopesRead,
        ("getScope", "Get a scope"),
        (None, "Scope"),
        &["record"],
    ),
    operation(
        Action::UpdateScope,
        (&PATCH, "/v2/scopes/{id}"),
        Permission::ScopesWrite,
        ("updateScope", "Suspend or resume a scope and all keys in it and below"),
        (Some("ScopePatch"), "Scope"),
        &[],
    ),
    operation(
        Action::ListUsers,
        (&GET, "/v2/users"),
        Permission::UsersRead,
        ("listUsers", "List users"),
        (None, "UserList"),
        &["limit", "cursor", "record"],
    ),
    creation(
        Action::CreateUser,
        "/v2/users",
        Permission::UsersWrite,
        ("createUser", "Create a user"),
        ("NewUser", "UserWithValue"),
    ),
    operation(
        Action::GetUser,
        (&GET, "/v2/users/{id}"),
        Permission::UsersRead,
        ("getUser", "Get a user"),
        (None, "User"),
        &["record"],
    ),
    operation(
        Action::UpdateUser,
        (&PATCH, "/v2/users/{id}"),
        Permission::UsersWrite,
        ("updateUser", "Change a user; the first API access gives a key, whose value is shown once"),
        (Some("UserPatch"), "UserWithValue"),
        &[],
    ),
    operation(
        Action::DeleteUser,
        (&DELETE, "/v2/users/{id}"),
        Permission::UsersWrite,
        ("deleteUser", "Delete a user and all keys of theirs"),
        (None, "DeletedUser"),
        &[],
    ),
    operation(
        Action::CreateLink,
        (&POST, "/v2/users/{id}/links"),
        Permission::UsersWrite,
        ("createLink", "Create a link by which a user signs in once; its ticket is shown once"),
        (Some("NewLink"), "Link"),
        &[],
    ),
    operation(
        Action::ListNodes,
        (&GET, "/v2/nodes"),
        Permission::KeysRead,
        ("listNodes", "List the processes that follow the store, and how far they are"),
        (None, "NodeList"),
        &["limit", "cursor"],
    ),
    operation(
        Action::ForgetNode,
        (&DELETE, "/v2/nodes/{id}"),
        Permission::KeysWrite,
        ("forgetNode", "Forget a process that has ended and could not say so, so that nobody waits for it"),
        (None, "Nothing"),
        &[],
    ),
    operation(
        Action::ListRoles,
        (&GET, "/v2/roles"),
        Permission::RolesRead,
        ("listRoles", "List roles"),
        (None, "RoleList"),
        &["limit", "cursor", "record"],
    ),
    creation(
        Action::CreateRole,
        "/v2/roles",
        Permission::RolesWrite,
        ("createRole", "Create a role"),
        ("NewRole", "Role"),
    ),
    operation(
        Action::GetRole,
        (&GET, "/v2/roles/{id}"),
        Permission::RolesRead,
        ("getRole", "Get a role"),
        (None, "Role"),
        &["record"],
    ),
    operation(
        Action::UpdateRole,
        (&PATCH, "/v2/roles/{id}"),
        Permission::RolesWrite,
        ("updateRole", "Change a role for all who have it"),
        (Some("RolePatch"), "Role"),
        &[],
    ),
    operation(
        Action::DeleteRole,
        (&DELETE, "/v2/roles/{id}"),
        Permission::RolesWrite,
        ("deleteRole", "Delete a role and take it from all who have it"),
        (None, "Nothing"),
        &[],
    ),
    operation(
        Action::ListBindings,
        (&GET, "/v2/bindings"),
        Permission::BindingsRead,
        ("listBindings", "List who has which role"),
        (None, "BindingList"),
        &["limit", "cursor", "subject", "record"],
    ),
    creation(
        Action::CreateBinding,
        "/v2/bindings",
        Permission::BindingsWrite,
        ("createBinding", "Give somebody a role"),
        ("NewBinding", "Binding"),
    ),
    operation(
        Action::GetBinding,
        (&GET, "/v2/bindings/{id}"),
        Permission::BindingsRead,
        ("getBinding", "Get a binding"),
        (None, "Binding"),
        &["record"],
    ),
    operation(
        Action::DeleteBinding,
        (&DELETE, "/v2/bindings/{id}"),
        Permission::BindingsWrite,
        ("deleteBinding", "Take a role from somebody"),
        (None, "Nothing"),
        &[],
    ),
    operation(
        Action::SignIn,
        (&POST, "/v2/session"),
        Permission::Own,
        ("signIn", "Sign in with e-mail address and password, or with a one-time link"),
        (Some("SignIn"), "Me"),
        &[],
    ),
    operation(
        Action::SignOut,
        (&DELETE, "/v2/session"),
        Permission::Own,
        ("signOut", "Sign out"),
        (None, "Nothing"),
        &[],
    ),
    operation(Action::GetMe, (&GET, "/v2/me"), Permission::Own, ("getMe", "Get the own account"), (None, "Me"), &[]),
    operation(
        Action::UpdateMe,
        (&PATCH, "/v2/me"),
        Permission::Own,
        ("updateMe", "Change the own name or password"),
        (Some("MePatch"), "Me"),
        &[],
    ),
    operation(
        Action::LookUpOwnKey,
        (&POST, "/v2/me/key/value"),
        Permission::Own,
        ("lookUpOwnKey", "Look up the value of the own key; each time is in the audit"),
        (None, "OwnValue"),
        &[],
    ),
    operation(
        Action::RegenerateOwnKey,
        (&POST, "/v2/me/key"),
        Permission::Own,
        ("regenerateOwnKey", "Propose a new value for the own key, or confirm one that was proposed"),
        (Some("Proposal"), "Proposal"),
        &[],
    ),
    operation(
        Action::ReportLeaks,
        (&POST, "/v2/leaks"),
        Permission::LeaksWrite,
        (
            "reportLeaks",
            "Report keys that were found where they do not belong; they are revoked. Who signs as GitHub does needs no key",
        ),
        (Some("LeakReport"), "LeakResult"),
        &[],
    ),
];

#[cfg(test)]
mod tests;
