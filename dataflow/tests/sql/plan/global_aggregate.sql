CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- No column is read.
CREATE MATERIALIZED VIEW total WITH (primary_key = 'id') AS
SELECT 'all' AS id, count(*) AS users FROM users;

CREATE MATERIALIZED VIEW ages WITH (primary_key = 'oldest') AS
SELECT max(age) AS oldest, min(age) AS youngest FROM users;

-- A literal tells no groups apart, so country alone is unique.
CREATE MATERIALIZED VIEW literal_key WITH (primary_key = 'country') AS
SELECT 'users' AS what, country, count(*) AS users FROM users GROUP BY 1, 2;

CREATE MATERIALIZED VIEW literals WITH (primary_key = 'one') AS SELECT 1 AS one FROM users;
