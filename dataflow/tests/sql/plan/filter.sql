CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW adults WITH (primary_key = 'id') AS
SELECT id, age FROM users WHERE age >= 18 AND country = 'Germany' OR NOT (nat <> 'DE');

-- The inner condition is tested first: the outer one divides by what it excludes.
CREATE MATERIALIZED VIEW safe WITH (primary_key = 'id') AS
SELECT id FROM (SELECT id, age, street_number FROM users WHERE age <> 0) AS grown
WHERE street_number / age > 2;

CREATE MATERIALIZED VIEW computed WITH (primary_key = 'id') AS
SELECT id, shout FROM (SELECT id, upper(city) AS shout FROM users) AS shouted
WHERE shout LIKE 'B%';
