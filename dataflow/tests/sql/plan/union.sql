CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE TABLE clicks WITH (topic = 'clicks', envelope = 'append');

CREATE MATERIALIZED VIEW everyone WITH (primary_key = 'kind, id') AS
SELECT 'user' AS kind, id FROM users WHERE age > 17
UNION ALL SELECT 'click', CAST(id AS text) FROM clicks
UNION ALL SELECT nat, username FROM users;

CREATE MATERIALIZED VIEW names WITH (primary_key = 'name') AS
SELECT first_name AS name FROM users UNION SELECT last_name FROM users;

-- int and double give double, text and a missing text give text.
CREATE MATERIALIZED VIEW coerced WITH (primary_key = 'n') AS
SELECT age AS n, city AS c FROM users UNION ALL SELECT avg(age), NULL FROM users GROUP BY nat;

CREATE MATERIALIZED VIEW per_name WITH (primary_key = 'name') AS
SELECT name, count(*) AS users
FROM (SELECT first_name AS name FROM users UNION ALL SELECT last_name FROM users) AS both_names
GROUP BY name;
