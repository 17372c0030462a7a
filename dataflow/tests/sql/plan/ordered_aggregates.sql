CREATE TABLE numbers (
    id bigint PRIMARY KEY, k text, i int, d double precision, n numeric(10, 2), b boolean,
    t timestamptz
) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW texts WITH (primary_key = 'i') AS
SELECT i, string_agg(k, ',') AS plain, string_agg(k, ', ' ORDER BY k DESC) AS descending,
    string_agg(k, ',' ORDER BY n DESC NULLS LAST, t) AS by_others,
    string_agg(DISTINCT k, ',') AS distinctly, string_agg(k, NULL) AS joined,
    string_agg(n::text, 'x' || 'y' ORDER BY n) FILTER (WHERE b) AS numbers
FROM numbers GROUP BY i;

CREATE MATERIALIZED VIEW percentiles WITH (primary_key = 'k') AS
SELECT k, mode() WITHIN GROUP (ORDER BY i) AS mode, mode() WITHIN GROUP (ORDER BY b DESC) AS last,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY i) AS median,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY n) AS exact,
    percentile_cont(1) WITHIN GROUP (ORDER BY d DESC) AS least,
    percentile_disc(0.25) WITHIN GROUP (ORDER BY t) AS t,
    percentile_disc(0.25) WITHIN GROUP (ORDER BY k) FILTER (WHERE b) AS filtered
FROM numbers GROUP BY k;

CREATE MATERIALIZED VIEW without_effect WITH (primary_key = 'k') AS
SELECT k, sum(i ORDER BY t) AS s, count(DISTINCT i ORDER BY i DESC) AS c, max(n ORDER BY k) AS m
FROM numbers GROUP BY k;
