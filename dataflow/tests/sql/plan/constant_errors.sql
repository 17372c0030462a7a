CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- Left to the rows: a constant that fails must not fail the planning, and a branch that is never
-- taken must not fail at all.
CREATE MATERIALIZED VIEW failing WITH (primary_key = 'id') AS
SELECT
    id,
    1 / 0 AS division,
    1 % 0 AS remainder,
    CASE WHEN age = 0 THEN 0 ELSE 100 / age END AS share
FROM users WHERE 1 / 0 = 1 OR age > 1;
