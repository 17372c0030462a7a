CREATE TABLE appended WITH (topic = 'clicks', envelope = 'append');

CREATE MATERIALIZED VIEW not_unique WITH (primary_key = 'id') AS SELECT id, url FROM appended;
