CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

-- Once a row: what a subquery computes and more than one expression reads.
CREATE MATERIALIZED VIEW plain WITH (primary_key = 'id') AS
SELECT id, plain, left(plain, 2) AS prefix
FROM (SELECT id, regexp_replace(phone, '[^0-9]', '') AS plain FROM users) AS phones;

CREATE MATERIALIZED VIEW per_prefix WITH (primary_key = 'prefix') AS
SELECT left(phone, 2) AS prefix, min(left(phone, 2)) AS first, max(left(phone, 3)) AS last
FROM users GROUP BY left(phone, 2);
