CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW nobody WITH (primary_key = 'id') AS SELECT id, age FROM users WHERE false;
CREATE MATERIALIZED VIEW nobody_too WITH (primary_key = 'id') AS SELECT id FROM users WHERE NULL;
CREATE MATERIALIZED VIEW everybody WITH (primary_key = 'id') AS SELECT id FROM users WHERE 1 < 2;
-- One row that says 0, not no row.
CREATE MATERIALIZED VIEW none WITH (primary_key = 'id') AS
SELECT 'all' AS id, count(*) AS users FROM users WHERE 1 = 2;
CREATE MATERIALIZED VIEW no_group WITH (primary_key = 'id') AS
SELECT 'all' AS id, count(*) AS users FROM users HAVING false;
