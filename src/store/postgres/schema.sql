-- Format 1. Tables are always named with their schema: a search path may be anything, and does not pass a pooler.
create table keyward.meta (
    one int primary key check (one = 1),
    rev bigint not null,             -- number of the last commit
    chain bytea not null,            -- head of the hash chain over all commits
    floor bigint not null,           -- oldest revision whose changes are still all known
    format int not null,             -- of these tables
    pepper_check text not null       -- which pepper the digests were made with; says nothing about it
);

create table keyward.record (
    kind text collate "C" not null,
    id text collate "C" not null,
    rev bigint not null,             -- number of the commit that last touched it
    body json,                       -- null: it was deleted; json and not jsonb: the hash chain covers its bytes
    primary key (kind, id)
);
create index record_rev on keyward.record (rev);

create table keyward.audit (
    rev bigint primary key,
    at text not null,
    entry json not null,
    content bytea not null,          -- hash of the records that the commit left
    chain bytea not null
);

-- Sidecars would never hear of a record that was changed by hand: no commit, no revision.
create function keyward.only_in_a_commit() returns trigger language plpgsql as $$
begin
    if not exists (select from keyward.meta where xmin = pg_current_xact_id()::xid) then
        raise exception 'records are changed with keyward, not by hand: nobody would hear of it'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    return null;
end $$;
create trigger only_in_a_commit before insert or update or delete on keyward.record
    for each statement execute function keyward.only_in_a_commit();
