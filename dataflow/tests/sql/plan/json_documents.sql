CREATE TABLE events (
    id bigint PRIMARY KEY, kind text, amount numeric(10, 2), data jsonb, raw json
) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW fields WITH (primary_key = 'id') AS
SELECT id, data->'user' AS user_doc, data #>> '{user,name}' AS name, (data->>'n')::int AS n,
    raw->'a'->0 AS first, data @> '{"paid": true}' AS paid, data - 'user' || '{"v": 2}' AS rest
FROM events WHERE data ? 'user' AND data->'n' > '1';

CREATE MATERIALIZED VIEW again WITH (primary_key = 'id') AS
SELECT id, user_doc->>'name' AS name, first->>'x' AS x FROM fields;

CREATE MATERIALIZED VIEW collected WITH (primary_key = 'kind') AS
SELECT kind, jsonb_agg(amount ORDER BY id) AS amounts, json_agg(DISTINCT amount) AS distinct_ones,
    jsonb_object_agg(id, data) FILTER (WHERE amount > 0) AS by_id
FROM events GROUP BY kind;

CREATE MATERIALIZED VIEW built WITH (primary_key = 'id') AS
SELECT id, jsonb_build_object('id', id, 'kind', kind, 'data', data) AS doc,
    string_to_array(kind, ',')::text AS parts, kind = ANY (ARRAY['a', 'b']) AS known,
    to_char(amount, 'FM999,990.00') AS shown
FROM events;
