CREATE TABLE clicks WITH (topic = 'clicks', envelope = 'append');

CREATE MATERIALIZED VIEW all_clicks WITH (primary_key = 'id') AS SELECT * FROM clicks;
CREATE MATERIALIZED VIEW urls WITH (primary_key = 'url') AS SELECT c.* FROM clicks c;
