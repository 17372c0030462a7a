CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- Only the columns that a view names are read.
CREATE MATERIALIZED VIEW names WITH (primary_key = 'id') AS
SELECT id, first_name, last_name AS surname FROM users;

CREATE MATERIALIZED VIEW renamed (user_id, years) WITH (primary_key = 'user_id') AS
SELECT u.id, u.age FROM users AS u;
