CREATE TABLE upserted WITH (topic = 'clicks', envelope = 'upsert');

CREATE MATERIALIZED VIEW is_unique WITH (primary_key = 'id') AS SELECT id, url FROM upserted;
