CREATE TABLE appended WITH (topic = 'clicks', envelope = 'append');
CREATE TABLE upserted WITH (topic = 'clicks', envelope = 'upsert');
CREATE TABLE keyed (id bigint, url text, PRIMARY KEY (url))
WITH (topic = 'clicks', envelope = 'upsert');

CREATE MATERIALIZED VIEW not_unique WITH (primary_key = 'id') AS SELECT id, url FROM appended;
CREATE MATERIALIZED VIEW is_unique WITH (primary_key = 'id') AS SELECT id, url FROM upserted;
CREATE MATERIALIZED VIEW of_url WITH (primary_key = 'url') AS SELECT id, url FROM keyed;
