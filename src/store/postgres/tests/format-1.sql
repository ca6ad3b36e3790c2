-- A database as the first version of Keyward made and filled it (pg_dump); its pepper is 32 times 01.

CREATE SCHEMA keyward;

CREATE FUNCTION keyward.only_in_a_commit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if not exists (select from keyward.meta where xmin = pg_current_xact_id()::xid) then
        raise exception 'records are changed with keyward, not by hand: nobody would hear of it'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    return null;
end $$;

CREATE TABLE keyward.audit (
    rev bigint NOT NULL,
    at text NOT NULL,
    entry json NOT NULL,
    content bytea NOT NULL,
    chain bytea NOT NULL
);

CREATE TABLE keyward.meta (
    one integer NOT NULL,
    rev bigint NOT NULL,
    chain bytea NOT NULL,
    floor bigint NOT NULL,
    format integer NOT NULL,
    pepper_check text NOT NULL,
    CONSTRAINT meta_one_check CHECK ((one = 1))
);

CREATE TABLE keyward.record (
    kind text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    rev bigint NOT NULL,
    body json
);

INSERT INTO keyward.audit VALUES (0, '2026-11-22T21:53:22.074Z', '{"action":"store.create"}', '\x43259b8838053fd465d1d0e0755f949ac091c784375c0a268215fd24462e1434', '\x74ab7ad632ad9ebb442d5eb5c1af220fc777d1704479d412397e1e355de2c588');
INSERT INTO keyward.audit VALUES (1, '2026-11-22T21:53:22.088Z', '{"action":"key.create","actor":"cli","detail":{"after":{"access":"read-write","created_by":"cli","created_time":"2026-11-22T21:53:22.006Z","env":"live","ips":[],"name":"CI","scope":"organization:acme","state":"active","type":"api","updated_by":"cli","updated_time":"2026-11-22T21:53:22.006Z"},"created_scopes":["organization:acme"],"target":{"id":"k1","kind":"key"}}}', '\xb654f80a149262b0d1dcf75107cd1308b777b1af6a06dcd1cb423d41dc1f0b34', '\x4ad87162b6c6f4b39262cdfbbed4a12d4dd59542c2d5ea9a72355a0c7581c86f');
INSERT INTO keyward.audit VALUES (2, '2026-11-22T21:53:22.193Z', '{"action":"key.create","actor":"cli","detail":{"after":{"access":"read-write","created_by":"cli","created_time":"2026-11-22T21:53:22.100Z","env":"live","ips":[],"name":"Gone","state":"active","type":"api","updated_by":"cli","updated_time":"2026-11-22T21:53:22.100Z"},"created_scopes":[],"target":{"id":"k2","kind":"key"}}}', '\x8b138b861f2f9ea7bd536db0c98ce5c4a202b65c20416440cdc0ff0a1c9fa7e3', '\xd99f3813336d250f164d25b1b208f606f16e25c1464b40d8ac8ea0c02db3f293');
INSERT INTO keyward.audit VALUES (3, '2026-11-22T21:53:22.337Z', '{"action":"key.update","actor":"cli","detail":{"after":{"name":"Renamed"},"before":{"name":"CI"},"target":{"id":"k1","kind":"key"}}}', '\x4bb6224f18b6afe1fb19384bc9cbd207663140828a935b6abcabbdcfd8778472', '\x5a3f25bae4086f53b296e529c3251d911397f9bf49ea466a9f6ce09e902a3675');
INSERT INTO keyward.audit VALUES (4, '2026-11-22T21:53:22.405Z', '{"action":"key.revoke","actor":"cli","detail":{"after":{"state":"revoked"},"before":{"state":"active"},"target":{"id":"k2","kind":"key"}}}', '\x62dcf92937ce6597371f7a79134f05c56d30d930ca9e34870d00941630de693d', '\x9d3aee09a78783f0f1f60f3ae8b813c7c11822aa0542cf297f845c13436d2e1e');

INSERT INTO keyward.meta VALUES (1, 4, '\x9d3aee09a78783f0f1f60f3ae8b813c7c11822aa0542cf297f845c13436d2e1e', 0, 1, '214c16b250a3419617d638d3edb3c089915b2b88a71586ddd42f523e47d52913');

INSERT INTO keyward.record VALUES ('scope', 'organization:acme', 1, '{"state":"active","created_time":"2026-11-22T21:53:22.006Z"}');
INSERT INTO keyward.record VALUES ('secret', '17b05d47191c023a92d89c2e463e9faf', 1, '{"key":"k1","hint":"SFaehmDW","created_time":"2026-11-22T21:53:22.006Z"}');
INSERT INTO keyward.record VALUES ('secret', '83a2532b1bb9c58e35608a0be57e9943', 2, '{"key":"k2","hint":"JhizhCd5","created_time":"2026-11-22T21:53:22.100Z"}');
INSERT INTO keyward.record VALUES ('key', 'k1', 3, '{"name":"Renamed","type":"api","scope":"organization:acme","env":"live","access":"read-write","ips":[],"state":"active","created_by":"cli","created_time":"2026-11-22T21:53:22.006Z","updated_by":"cli","updated_time":"2026-11-22T21:53:22.225Z"}');
INSERT INTO keyward.record VALUES ('key', 'k2', 4, '{"name":"Gone","type":"api","env":"live","access":"read-write","ips":[],"state":"revoked","created_by":"cli","created_time":"2026-11-22T21:53:22.100Z","updated_by":"cli","updated_time":"2026-11-22T21:53:22.361Z"}');

ALTER TABLE ONLY keyward.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (rev);

ALTER TABLE ONLY keyward.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (one);

ALTER TABLE ONLY keyward.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (kind, id);

CREATE INDEX record_rev ON keyward.record USING btree (rev);

CREATE TRIGGER only_in_a_commit BEFORE INSERT OR DELETE OR UPDATE ON keyward.record FOR EACH STATEMENT EXECUTE FUNCTION keyward.only_in_a_commit();

