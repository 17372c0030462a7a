CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW conditions WITH (primary_key = 'id') AS
SELECT
    id,
    CASE WHEN age < 18 THEN 'minor' WHEN age >= 65 THEN 'senior' ELSE 'adult' END AS band,
    CASE gender WHEN 'male' THEN 'm' WHEN 'female' THEN 'f' END AS letter,
    age BETWEEN 20 AND 29 AS twenties,
    age NOT BETWEEN 30 AND 40 AS outside
FROM users
WHERE nat IN ('DE', 'FR', 'GB', 'NL') AND nat NOT IN ('US', 'CA', NULL)
    AND email LIKE '%@example.com' AND city NOT ILIKE 'b_rlin'
    AND username ~ '^[a-z]+[0-9]*$' AND username !~* 'admin' AND phone SIMILAR TO '0(1|2)%';
