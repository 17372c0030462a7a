CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW numbered WITH (primary_key = 'country, place') AS
SELECT country, row_number() OVER (PARTITION BY country ORDER BY age DESC) AS place, id FROM users;
CREATE MATERIALIZED VIEW numbered_from WITH (primary_key = 'id') AS
SELECT id FROM (SELECT id, row_number() OVER (ORDER BY age) AS place FROM users) AS placed WHERE place > 3;
CREATE MATERIALIZED VIEW unread WITH (primary_key = 'id') AS
SELECT id FROM (SELECT id, row_number() OVER (ORDER BY age) AS place, rank() OVER () AS r FROM users) AS placed;
CREATE MATERIALIZED VIEW ranked WITH (primary_key = 'id') AS
SELECT id, rank() OVER w AS a, dense_rank() OVER w AS b, percent_rank() OVER w AS c, cume_dist() OVER w AS d, ntile(4) OVER w AS e
FROM users WINDOW w AS (PARTITION BY country ORDER BY age DESC NULLS LAST);
CREATE MATERIALIZED VIEW neighbours WITH (primary_key = 'id') AS
SELECT id, lag(age) OVER w AS a, lead(age, 2) OVER w AS b, lag(age + 1, 1, 0) OVER w AS c, nth_value(age, 2) OVER w AS d,
  age - first_value(age) OVER (w ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS e
FROM users WINDOW w AS (ORDER BY id);
CREATE MATERIALIZED VIEW sums WITH (primary_key = 'id') AS
SELECT id, sum(age) OVER () AS a, sum(age) OVER (PARTITION BY country ORDER BY age) AS b,
  count(*) FILTER (WHERE gender = 'female') OVER (PARTITION BY country) AS c,
  sum(100 / age) FILTER (WHERE age > 0) OVER (ORDER BY age RANGE BETWEEN 5 PRECEDING AND 5 FOLLOWING) AS d,
  avg(age) OVER (ORDER BY age GROUPS 1 PRECEDING) AS e
FROM users;
CREATE MATERIALIZED VIEW several WITH (primary_key = 'id') AS
SELECT id, a FROM (SELECT id, country, rank() OVER (PARTITION BY country ORDER BY age) AS a,
  rank() OVER (PARTITION BY country, gender ORDER BY age) AS b FROM users) AS ranked
WHERE country = 'NZ' AND b < 3 AND a < 9;
CREATE MATERIALIZED VIEW grouped WITH (primary_key = 'country') AS
SELECT country, count(*) AS users, rank() OVER (ORDER BY count(*) DESC) AS place FROM users GROUP BY country;
CREATE MATERIALIZED VIEW ordered WITH (primary_key = 'id') AS
SELECT id FROM users ORDER BY rank() OVER (PARTITION BY country ORDER BY age), id LIMIT 5;
