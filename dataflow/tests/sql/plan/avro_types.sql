-- As capture registers it: every column type, a key of two columns, a name Avro does not allow.
CREATE TABLE everything WITH (topic = 'everything');

CREATE MATERIALIZED VIEW copy WITH (primary_key = 'id, part') AS 
SELECT id, part, a_bool, a_float, a_double, a_uuid, a_json, some_bytes, a_date, a_timestamp,
    an_instant, a_numeric, "odd name" AS odd
FROM everything;
