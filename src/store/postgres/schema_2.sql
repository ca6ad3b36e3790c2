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
