-- Who may do what in Keyward's schema. Run by a superuser in the database that Keyward shall use, before
-- `keyward init --store postgres://…`, and once more after it and after every upgrade that changes the tables:
--
--     psql -d keyward -f deploy/postgres/roles.sql
-- What is there already stays: a NOTICE about it is no failure.
--
-- keyward_owner makes the tables (`keyward init`), keyward_writer commits (`keyward key …`), keyward_reader reads what
-- requests are decided by, and says which node it is and how often keys were used (`keyward serve`). They cannot log in
-- themselves; give them to users that can:
--
--     create role sidecar login password '…' in role keyward_reader;

do $$
declare
    name text;
begin
    foreach name in array array['keyward_owner', 'keyward_writer', 'keyward_reader'] loop
        if to_regrole(name) is null then
            begin
                execute format('create role %I nologin', name);
            exception when duplicate_object or unique_violation then
                null;   -- made by somebody else at this moment
            end;
        end if;
    end loop;
end $$;

create schema if not exists keyward;
alter schema keyward owner to keyward_owner;
revoke all on schema keyward from public;
grant usage on schema keyward to keyward_writer, keyward_reader;

do $$
declare
    name text;
begin
    if to_regclass('keyward.meta') is null or to_regclass('keyward.private') is null then
        raise notice 'the schema is there; make the tables with `keyward init --store URL`, or bring them up with a '
            'command that writes, then run this once more';
        return;
    end if;

    -- Whoever made the tables, they belong to the owner.
    foreach name in array array['meta', 'record', 'private', 'audit', 'usage', 'node'] loop
        execute format('alter table keyward.%I owner to keyward_owner', name);
    end loop;
    alter function keyward.only_in_a_commit() owner to keyward_owner;

    -- Who reads needs of the audit only what tells one history from another, and how old a change is.
    grant select on keyward.meta, keyward.record to keyward_reader, keyward_writer;
    grant select (rev, at, chain) on keyward.audit to keyward_reader;

    -- What only those who manage may read (passwords, sealed values) is nothing for who only reads.
    grant select, insert, update, delete on keyward.private to keyward_writer;

    -- Who writes adds to the history and changes nothing in it.
    grant update (rev, chain) on keyward.meta to keyward_writer;
    grant insert, update on keyward.record to keyward_writer;
    grant select, insert on keyward.audit to keyward_writer;

    -- Every sidecar says how often keys were used, and of nodes only what it is itself.
    grant select, insert, update on keyward.usage to keyward_reader, keyward_writer;
    grant delete on keyward.usage to keyward_writer;
    grant select, insert, update, delete on keyward.node to keyward_reader, keyward_writer;
    alter table keyward.node enable row level security;
    drop policy if exists reader on keyward.node;
    create policy reader on keyward.node to keyward_reader
        using (owner = current_user) with check (owner = current_user);
    drop policy if exists writer on keyward.node;
    create policy writer on keyward.node to keyward_writer using (true) with check (owner = current_user);
end $$;
