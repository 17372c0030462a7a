CREATE TABLE numbers (
    id bigint PRIMARY KEY, i int, l bigint, f real, d double precision, n numeric(10, 2)
) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW arithmetic WITH (primary_key = 'id') AS
SELECT
    id, i + 1 AS plus, i / 10 * 10 AS tens, i % 3 AS rest, -l AS minus, l * 1.5 AS times,
    f + d AS floats, n * 2 AS twice, n / 3 AS third, n + i AS mixed, i & 7 AS bits, i << 2 AS shifted,
    2 + 3 * 4 AS folded, (i + 1) * (i + 1) AS square
FROM numbers;
