-- One row a record.
CREATE TABLE lines (id int, line text) WITH (format = 'json');
-- The record's key alone says which row it is.
CREATE TABLE states (name text, value double) WITH (format = 'json', envelope = 'upsert');
CREATE TABLE people (id int PRIMARY KEY, name text)
WITH (topic = 'db.public.people', format = 'json', envelope = 'debezium');
CREATE TABLE not_used (id int) WITH (format = 'json');

CREATE MATERIALIZED VIEW all_lines WITH (primary_key = 'id') AS SELECT id, line FROM lines;
CREATE MATERIALIZED VIEW all_states WITH (primary_key = 'name') AS SELECT * FROM states;
CREATE MATERIALIZED VIEW all_people WITH (primary_key = 'id') AS SELECT * FROM people;
