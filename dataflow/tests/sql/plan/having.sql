CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW large WITH (primary_key = 'country') AS
SELECT country, count(*) AS users FROM users
GROUP BY country HAVING count(*) > 10 AND avg(age) < 40 AND country <> 'Norway';

CREATE MATERIALIZED VIEW whole WITH (primary_key = 'id') AS
SELECT 1 AS id, max(age) AS oldest FROM users HAVING count(*) > 3;
