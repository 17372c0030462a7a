CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW youngest_by_country WITH (primary_key = 'country, id') AS
SELECT country, id, age FROM (
  SELECT *, row_number() OVER (PARTITION BY country ORDER BY age, id) AS place FROM users) AS placed
WHERE place <= 10;
CREATE MATERIALIZED VIEW with_place WITH (primary_key = 'country, place') AS
SELECT country, place, id FROM (
  SELECT country, id, row_number() OVER (PARTITION BY country ORDER BY age) AS place FROM users) AS placed
WHERE place < 4;
CREATE MATERIALIZED VIEW first_one WITH (primary_key = 'country') AS
SELECT country, id FROM (
  SELECT country, id, row_number() OVER (PARTITION BY country ORDER BY age DESC) AS place FROM users) AS placed
WHERE place = 1;
CREATE MATERIALIZED VIEW between_two WITH (primary_key = 'id') AS
SELECT id, place * 10 AS ten FROM (SELECT id, row_number() OVER (ORDER BY age) AS place FROM users) AS placed
WHERE 3 <= place AND place <= 5 AND place <> 4;
CREATE MATERIALIZED VIEW filtered WITH (primary_key = 'country, id') AS
SELECT country, id FROM users WHERE gender = 'female'
QUALIFY row_number() OVER (PARTITION BY country ORDER BY age) <= 2;
CREATE MATERIALIZED VIEW named WITH (primary_key = 'country, id') AS
SELECT country, id FROM (
  SELECT country, id, row_number() OVER w AS place FROM users WINDOW w AS (PARTITION BY country ORDER BY age)) AS placed
WHERE place <= 2;
CREATE MATERIALIZED VIEW counted WITH (primary_key = 'id') AS
SELECT 1 AS id, count(*) AS users FROM (
  SELECT row_number() OVER (PARTITION BY country ORDER BY age) AS place FROM users) AS placed
WHERE place <= 2;
