CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW youngest WITH (primary_key = 'id') AS
SELECT id, age FROM users ORDER BY age LIMIT 10;
CREATE MATERIALIZED VIEW oldest_after WITH (primary_key = 'id') AS
SELECT id, upper(city) AS city FROM users WHERE age < 100 ORDER BY age DESC, last_name NULLS FIRST, id DESC NULLS LAST LIMIT 10 OFFSET 5;
CREATE MATERIALIZED VIEW the_one WITH (primary_key = 'city') AS SELECT city FROM users ORDER BY age LIMIT 1;
CREATE MATERIALIZED VIEW any_three WITH (primary_key = 'id') AS SELECT id FROM users LIMIT 3;
CREATE MATERIALIZED VIEW all_but_three WITH (primary_key = 'id') AS SELECT id FROM users ORDER BY id OFFSET 3;
CREATE MATERIALIZED VIEW largest_countries WITH (primary_key = 'country') AS
SELECT country, count(*) AS users FROM users GROUP BY country ORDER BY users DESC LIMIT 3;
CREATE MATERIALIZED VIEW youngest_of_each WITH (primary_key = 'country') AS
SELECT DISTINCT ON (country) country, id, age FROM users ORDER BY country, age, id;
