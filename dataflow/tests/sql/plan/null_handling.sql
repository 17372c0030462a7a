CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW nulls WITH (primary_key = 'id') AS
SELECT
    id,
    NULL AS nothing,
    coalesce(phone, cell, 'none') AS number,
    nullif(nat, '') AS nat,
    age IS NULL AS unknown,
    age IS DISTINCT FROM 30 AS other,
    age IS NOT DISTINCT FROM NULL AS same,
    (age > 30) IS TRUE AS older,
    (age > 30) IS NOT UNKNOWN AS known
FROM users WHERE city IS NOT NULL AND state IS DISTINCT FROM country;
