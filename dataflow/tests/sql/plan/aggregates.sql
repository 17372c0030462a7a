CREATE TABLE numbers (
    id bigint PRIMARY KEY, k text, i int, l bigint, f real, d double precision, n numeric(10, 2),
    b boolean, t timestamptz
) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW aggregates WITH (primary_key = 'k') AS
SELECT
    k,
    count(*) AS rows, count(1) AS ones, count(i) AS count, count(DISTINCT i) AS count_distinct,
    sum(i) AS sum_int, sum(l) AS sum_bigint, sum(f) AS sum_real, sum(d) AS sum_double,
    sum(n) AS sum_numeric, sum(DISTINCT i) AS sum_distinct,
    avg(i) AS avg_int, avg(l) AS avg_bigint, avg(d) AS avg_double, avg(n) AS avg_numeric,
    avg(DISTINCT i) AS avg_distinct,
    min(i) AS min_int, max(k) AS max_text, min(f) AS min_real, max(n) AS max_numeric,
    min(t) AS first, max(DISTINCT t) AS last, bool_and(b) AS min_bool,
    bool_and(b) AS all_true, bool_or(b) AS any_true, bool_or(i > 3) AS any_more
FROM numbers GROUP BY k;
