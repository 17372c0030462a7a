CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');
CREATE TABLE countries (name text PRIMARY KEY, continent text, population bigint) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW users_with_continent WITH (primary_key = 'id') AS
SELECT id, first_name, continent FROM users JOIN countries ON country = name WHERE age > 30;
CREATE MATERIALIZED VIEW joined_by_comma WITH (primary_key = 'country, id') AS
SELECT id, u.country, c.population FROM users u, countries c WHERE u.country = c.name AND u.age > c.population;
CREATE MATERIALIZED VIEW pairs WITH (primary_key = 'one, other') AS
SELECT a.id AS one, b.id AS other FROM users a JOIN users b USING (city) WHERE a.id < b.id;
CREATE MATERIALIZED VIEW one_side_is_not_enough WITH (primary_key = 'one') AS
SELECT a.id AS one, b.id AS other FROM users a JOIN users b USING (city);
CREATE MATERIALIZED VIEW null_safe WITH (primary_key = 'id, name') AS
SELECT id, name FROM users JOIN countries ON country IS NOT DISTINCT FROM continent;
CREATE MATERIALIZED VIEW three AS
SELECT a.id, b.city, c.name FROM users a, users b, countries c WHERE c.name = b.country AND b.id = a.id;
CREATE MATERIALIZED VIEW users_by_continent WITH (primary_key = 'continent') AS
SELECT continent, count(*) AS users, max(population) AS most FROM users JOIN countries ON country = name GROUP BY continent;
CREATE MATERIALIZED VIEW of_views WITH (primary_key = 'id') AS
SELECT id, users FROM users_with_continent NATURAL JOIN users_by_continent;
CREATE MATERIALIZED VIEW computed_key WITH (primary_key = 'id') AS
SELECT u.id FROM users AS u JOIN countries AS c ON lower(u.country) = lower(c.name) AND u.age = c.population;
