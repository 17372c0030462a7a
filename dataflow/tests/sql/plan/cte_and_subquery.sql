CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW from_cte WITH (primary_key = 'country') AS
WITH grown AS (SELECT country, age FROM users WHERE age > 17),
    counted (land, n) AS (SELECT country, count(*) FROM grown GROUP BY country)
SELECT land AS country, n FROM counted WHERE n > 1;

CREATE MATERIALIZED VIEW used_twice WITH (primary_key = 'what, country') AS
WITH per_country AS (SELECT country, count(*) AS n FROM users GROUP BY country)
SELECT 'many' AS what, country FROM per_country WHERE n > 9
UNION ALL SELECT 'few', country FROM per_country WHERE n <= 9;

-- A common table expression hides the table of that name.
CREATE MATERIALIZED VIEW hidden WITH (primary_key = 'id') AS
WITH users AS (SELECT id, age FROM users WHERE age > 90) SELECT id, age FROM users;

-- An aggregate of an aggregate.
CREATE MATERIALIZED VIEW histogram WITH (primary_key = 'users') AS
SELECT users, count(*) AS countries
FROM (SELECT country, count(*) AS users FROM users GROUP BY country) AS counted GROUP BY users;
