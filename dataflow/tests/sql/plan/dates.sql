CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW dates WITH (primary_key = 'id') AS
SELECT
    id,
    extract(year FROM registered) AS year,
    CAST(extract(month FROM registered) AS int) AS month,
    date_part('dow', registered) AS weekday,
    extract(epoch FROM dob) AS epoch,
    date_trunc('month', registered) AS month_start,
    date_bin(INTERVAL '15 minutes', registered, TIMESTAMP '2000-01-01') AS quarter,
    registered + INTERVAL '1 day' AS next_day,
    CAST(registered AS date) - INTERVAL '1 month' AS month_before,
    to_char(registered, 'YYYY-MM') AS text,
    to_timestamp(age) AS instant,
    to_date('2024-02-29', 'YYYY-MM-DD') AS leap,
    dob < TIMESTAMPTZ '1990-01-01 00:00:00Z' AS older
FROM users WHERE registered >= TIMESTAMP '2015-01-01' AND dob < DATE '2005-01-01';
