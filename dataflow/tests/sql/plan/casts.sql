CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW casts WITH (primary_key = 'id') AS
SELECT
    id,
    CAST(age AS text) AS a_text,
    age::bigint AS a_bigint,
    age::smallint AS a_smallint,
    CAST(age AS real) AS a_real,
    CAST(age AS double precision) AS a_double,
    CAST(age AS numeric(6, 2)) AS a_numeric,
    CAST(age > 3 AS int) AS a_bool,
    CAST(dob AS date) AS a_date,
    CAST(dob AS timestamp) AS a_timestamp,
    CAST('2024-02-29 12:00:00+01' AS timestamptz) AS an_instant,
    TIMESTAMP '2024-02-29 12:00:00' AS a_literal,
    DATE '2024-02-29' AS a_day,
    CAST(latitude AS double precision) AS latitude,
    CAST(postcode AS int) AS a_number
FROM users;
