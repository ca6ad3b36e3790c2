-- Format 2. What no sidecar may read stands in a table of its own, which pulls never touch: forgetting a condition
-- somewhere cannot show it to anybody.
create table keyward.private (
    kind text collate "C" not null,
    id text collate "C" not null,
    rev bigint not null,             -- number of the commit that last touched it
    body json,                       -- null: it was deleted
    primary key (kind, id)
);
create trigger only_in_a_commit before insert or update or delete on keyward.private
    for each statement execute function keyward.only_in_a_commit();

-- What is not replicated, and makes no revision.
create table keyward.usage (
    key_id text collate "C" not null,
    secret_id text collate "C" not null, -- which of the key's values: the id of its record
    last_used bigint not null,           -- minutes since 1970
    count bigint not null,               -- requests that were permitted
    node text not null,                  -- who permitted the last of them
    client text,                         -- where that came from
    primary key (key_id, secret_id)
);

create table keyward.node (
    id text collate "C" primary key,
    rev bigint not null,                 -- the revision that it has applied
    version text not null,
    max_staleness bigint not null,       -- milliseconds after which it refuses everything, unless it has read the store
    seen_at timestamptz not null,        -- by the server's clock
    owner name not null default current_user
);
