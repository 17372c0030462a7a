CREATE TABLE numbers (
    id bigint PRIMARY KEY, k text, i int, l bigint, f real, d double precision, n numeric(10, 2),
    m numeric(38, 0), b boolean, s smallint
) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW bits WITH (primary_key = 'k') AS
SELECT k, every(b) AS every, bit_and(i) AS a, bit_or(l) AS o, bit_xor(s) AS x,
    bit_and(DISTINCT i) AS da, bit_xor(DISTINCT i) AS dx FROM numbers GROUP BY k;

CREATE MATERIALIZED VIEW deviations WITH (primary_key = 'k') AS
SELECT k, stddev(i) AS si, stddev_samp(l) AS sl, stddev_pop(f) AS sf, stddev(d) AS sd,
    stddev(n) AS sn, variance(i) AS vi, var_samp(l) AS vl, var_pop(f) AS vf, variance(d) AS vd,
    variance(n) AS vn, variance(m) AS vm, variance(s) AS vs, stddev(DISTINCT i) AS di,
    var_pop(i) FILTER (WHERE b) AS filtered, stddev(i ORDER BY l) AS ordered
FROM numbers GROUP BY k;

CREATE MATERIALIZED VIEW regressions WITH (primary_key = 'k') AS
SELECT k, corr(d, i) AS corr, covar_pop(f, n) AS cp, covar_samp(l, d) AS cs,
    regr_avgx(d, i) AS ax, regr_avgy(d, i) AS ay, regr_count(d, i) AS c,
    regr_intercept(d, i) AS intercept, regr_r2(d, i) AS r2, regr_slope(d, i) AS slope,
    regr_sxx(d, i) AS sxx, regr_sxy(d, i) AS sxy, regr_syy(d, i) AS syy,
    regr_count(DISTINCT d, i) AS dc
FROM numbers GROUP BY k;

CREATE MATERIALIZED VIEW deviating WITH (primary_key = 'k') AS
SELECT k FROM numbers GROUP BY k HAVING stddev(i) > 3 AND round(variance(n), 2) < 7;
