CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW by_country WITH (primary_key = 'country') AS
SELECT
    country,
    count(*) FILTER (WHERE gender = 'female') AS women,
    avg(age) FILTER (WHERE gender = 'female' AND age > 18) AS age_of_women,
    count(DISTINCT city) FILTER (WHERE age > 60) AS cities,
    sum(CASE WHEN gender = 'male' THEN 1 ELSE 0 END) AS men,
    count(*) * 100 / (sum(age) + 1) AS ratio,
    max(age) - min(age) AS spread
FROM users GROUP BY country;
