-- Format 3. What each commit left, so that records can be held against the audit.
alter table keyward.audit add column records text;   -- null: the commit is of an older version

-- What is deleted of what nobody follows leaves nothing behind.
alter table keyward.private disable trigger only_in_a_commit;
delete from keyward.private where body is null;
alter table keyward.private enable trigger only_in_a_commit;
do $$ begin
    if to_regrole('keyward_writer') is not null then
        grant delete on keyward.private to keyward_writer;
    end if;
end $$;
