CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- One source for all views, with the columns that any of them uses.
CREATE MATERIALIZED VIEW by_country WITH (primary_key = 'country') AS
SELECT country, avg(age) AS age FROM users GROUP BY country;
CREATE MATERIALIZED VIEW mails WITH (primary_key = 'id') AS SELECT id, email FROM users;
CREATE MATERIALIZED VIEW total WITH (primary_key = 'id') AS SELECT 1 AS id, count(*) AS n FROM users;
