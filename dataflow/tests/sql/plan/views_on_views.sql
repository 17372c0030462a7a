CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- Internal: read by others, written nowhere.
CREATE VIEW per_city AS
SELECT country, city, count(*) AS users, sum(age) AS ages FROM users GROUP BY country, city;

CREATE MATERIALIZED VIEW per_country WITH (primary_key = 'country') AS
SELECT country, sum(users) AS users, count(*) AS cities FROM per_city GROUP BY country;

CREATE MATERIALIZED VIEW big_cities WITH (primary_key = 'country, city') AS
SELECT country, city, users FROM per_city WHERE users > 100;

CREATE MATERIALIZED VIEW copy WITH (primary_key = 'country') AS SELECT * FROM per_country;
