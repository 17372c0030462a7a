CREATE TABLE everything (
    a_bool boolean NOT NULL, a_small smallint, an_int integer, a_big bigint, a_real real,
    a_double double precision, a_text text, a_varchar varchar(20), a_numeric numeric(12, 3),
    a_date date, a_timestamp timestamp, an_instant timestamptz,
    instant_too timestamp with time zone, some_bytes bytea, a_uuid uuid, a_json json,
    a_jsonb jsonb, PRIMARY KEY (a_uuid, a_date)
) WITH (topic = 'things', format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW copy WITH (primary_key = 'a_uuid, a_date') AS SELECT * FROM everything;
