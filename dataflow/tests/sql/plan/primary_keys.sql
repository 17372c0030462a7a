CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW clustered WITH (primary_key = 'country, city, id') AS
SELECT country, city, id FROM users;
CREATE MATERIALIZED VIEW composite WITH (primary_key = '(country, city), id') AS
SELECT country, city, id FROM users;
CREATE MATERIALIZED VIEW whole_partition WITH (primary_key = '(id, country)') AS
SELECT country, id FROM users;
CREATE MATERIALIZED VIEW other_types WITH (primary_key = ' age , dob ') AS
SELECT id, age, dob FROM users;
-- Two users may share an upper case id.
CREATE MATERIALIZED VIEW computed WITH (primary_key = 'id') AS SELECT upper(id) AS id FROM users;
