-- Format 3. What each commit left, so that records can be held against the audit.
alter table keyward.audit add column records text;   -- null: the commit is of an older version
