CREATE TABLE keyed (id bigint, url text, PRIMARY KEY (url))
WITH (topic = 'clicks', envelope = 'upsert');

CREATE MATERIALIZED VIEW of_url WITH (primary_key = 'url') AS SELECT id, url FROM keyed;
