CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW places WITH (primary_key = '(country, state), city') AS
SELECT DISTINCT country, state, city FROM users WHERE age > 17;

-- Distinct cities, but not distinct countries.
CREATE MATERIALIZED VIEW partial WITH (primary_key = 'country') AS
SELECT DISTINCT country, city FROM users;

-- Every user is another one already.
CREATE MATERIALIZED VIEW users_again WITH (primary_key = 'id') AS SELECT DISTINCT id, age FROM users;

CREATE MATERIALIZED VIEW counts WITH (primary_key = 'users') AS
SELECT DISTINCT count(*) AS users FROM users GROUP BY country;
