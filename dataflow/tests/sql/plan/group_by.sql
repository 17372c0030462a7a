CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW by_expression WITH (primary_key = 'decade') AS
SELECT age / 10 * 10 AS decade, count(*) AS users FROM users GROUP BY age / 10 * 10;

CREATE MATERIALIZED VIEW by_alias WITH (primary_key = 'letter, gender') AS
SELECT left(last_name, 1) AS letter, gender, count(*) AS users FROM users GROUP BY letter, gender;

CREATE MATERIALIZED VIEW by_position WITH (primary_key = 'country') AS
SELECT country, max(age) AS oldest FROM users WHERE age > 17 GROUP BY 1;

-- A key that is not shown: nothing says that the others are unique.
CREATE MATERIALIZED VIEW key_not_shown WITH (primary_key = 'country') AS
SELECT country, count(*) AS users FROM users GROUP BY country, city;

CREATE MATERIALIZED VIEW no_aggregates WITH (primary_key = 'country, city') AS
SELECT country, city FROM users GROUP BY country, city;
