CREATE TABLE t (a int, b text, d date, n numeric(5, 2), f double precision) WITH (format = 'json');

-- Columns without AS have PostgreSQL's names.
CREATE VIEW calls AS SELECT b, count(*), sum(a), max(d) FROM t GROUP BY b;
CREATE VIEW casts AS SELECT a::text, n::int AS m, 1::bigint, '2020-01-01'::date, (f)::real FROM t;
CREATE VIEW cases AS SELECT CASE WHEN a > 1 THEN 2 END, CASE WHEN a > 1 THEN a ELSE a END AS c, nullif(a, 1) FROM t;
CREATE VIEW forms AS SELECT extract(year FROM d), trim(b), ltrim(b), substring(b, 1, 2), position('x' IN b), floor(f) FROM t;
CREATE VIEW values_of AS SELECT coalesce(a, 1), greatest(a, 2), (SELECT max(a) FROM t) FROM t;
CREATE VIEW both AS SELECT lower(b) FROM t UNION SELECT b FROM t;

-- Other spellings.
CREATE VIEW lists AS SELECT a FROM t WHERE a = ANY (ARRAY[1, 2]) AND a <> ALL ((ARRAY[3, 4])::int[]) AND a > ANY (ARRAY[1, 2]);
CREATE VIEW patterns AS SELECT a FROM t WHERE b LIKE ANY (ARRAY['a%', 'b%']) OR b NOT ILIKE ANY (ARRAY['c%', 'd%']);
CREATE VIEW operators AS SELECT @ a AS size, ~ a AS flipped, |/ f AS root, d + '1 day'::interval AS next FROM t;
CREATE VIEW zones AS SELECT date_trunc('day', d::timestamptz, 'Europe/Paris') AS day FROM t;
