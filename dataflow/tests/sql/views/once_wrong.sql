-- Queries that came out unlike PostgreSQL's answer, or are of the same kind.
SELECT * FROM (SELECT DISTINCT ON (a) a, b FROM d2 ORDER BY a, b DESC) AS s WHERE b <> 2;
WITH s AS (SELECT DISTINCT ON (a) a, b FROM d2 ORDER BY a, b DESC) SELECT a FROM s WHERE b < 2;
SELECT a, b FROM (SELECT a, b, row_number() OVER (PARTITION BY a ORDER BY b DESC) AS n FROM d2) AS s
WHERE n <= 1 AND b <> 2;
SELECT a, b FROM (SELECT a, b FROM d2 ORDER BY a, b DESC LIMIT 1) AS s WHERE b <> 2;
SELECT s.b, m1.a FROM (SELECT a, b FROM d2 ORDER BY a, b DESC LIMIT 1) AS s
JOIN m1 ON s.a = m1.b WHERE s.b <> 2;
SELECT a, sum(b) AS t FROM d2 GROUP BY a, a;
SELECT b, c FROM m2 GROUP BY b, b, c;
SELECT 5 AS five FROM d2 GROUP BY a, a, b;
SELECT s.b, u.c FROM (SELECT DISTINCT ON (a) a, b FROM d2 ORDER BY a, b DESC) AS s
JOIN m2 AS u ON s.a = u.b AND s.b < 2;
SELECT a FROM d2 WHERE b>-1;
SELECT x FROM n1 WHERE x<-1;
SELECT x FROM n1 WHERE x=-3 AND y>=-1 AND y<>-1 AND y*-1<+2;
SELECT * FROM m1 JOIN m2 USING (b);
SELECT * FROM m1 NATURAL JOIN m2;
SELECT m2.*, m1.a FROM m1 NATURAL JOIN m2;
SELECT m1.* FROM m1 JOIN m2 USING (b);
SELECT *, m1.a + c AS e FROM m1 JOIN m2 USING (b) WHERE b > 0;
SELECT * FROM m2 JOIN m1 USING (b) JOIN (SELECT a, c FROM m1, m2 WHERE m1.b = m2.b) AS s USING (c, a);
-- Columns that are joined below have nothing to say above.
SELECT * FROM (SELECT m1.a FROM m1 JOIN m2 USING (b)) AS s JOIN m2 ON s.a + 1 = m2.b;
-- More outputs than the input has columns.
SELECT DISTINCT ON (a) a, b, a + 1 AS c, b + 1 AS d, a * b AS e FROM d2 ORDER BY a, b;
-- LIMIT takes groups in their order.
SELECT DISTINCT ON (x) x, y FROM n1 ORDER BY x DESC NULLS LAST, y LIMIT 1;
SELECT DISTINCT ON (x) y FROM n1 ORDER BY x, y LIMIT 1 OFFSET 1;
-- may be refused: the same twice.
SELECT DISTINCT ON (x, x) x, s FROM n1 ORDER BY x, s;
-- Keys for which null equals null, beside keys for which it does not.
SELECT n1.s, n2.x FROM n1 JOIN n2 ON n1.x IS NOT DISTINCT FROM n2.x WHERE n1.y = n2.y;
SELECT n1.s, n2.x FROM n1 JOIN n2 ON n1.x IS NOT DISTINCT FROM n2.x AND n1.y = n2.y;
SELECT n1.s, n2.x FROM n1, n2 WHERE n1.x = n2.x AND n1.y IS NOT DISTINCT FROM n2.y;
-- What binds how.
SELECT a FROM m1 WHERE a IS DISTINCT FROM b AND a IS NOT DISTINCT FROM b OR a = 1 AND b = 2;
SELECT a = 1 IS DISTINCT FROM (b = 1) AND b = 7 AS p, NOT a = 1 IS DISTINCT FROM false OR true AS q FROM m1;
SELECT count(*) AS n FROM n1 HAVING false;
SELECT count(*) AS n FROM n1 HAVING NULL;
SELECT n FROM (SELECT count(*) AS n FROM n1) AS s WHERE 1 = 2;
SELECT max(x) AS n FROM n1 WHERE false HAVING count(*) = 0;
SELECT n FROM (SELECT s, count(*) AS n FROM n1 GROUP BY s) AS t WHERE false;
SELECT count(*) AS n FROM (SELECT x FROM n1 ORDER BY x LIMIT 0) AS s;
SELECT x, y, count(*) AS n FROM n1 GROUP BY 1, x, n1.x, 2, y;
SELECT x AS y, y AS x FROM n1 WHERE x < 0;
SELECT y AS x, count(*) AS n FROM n1 GROUP BY y, n1.y;
SELECT DISTINCT x, y, s FROM n1;
SELECT x, s FROM n1 UNION SELECT x, s FROM n2;
SELECT x FROM n1 UNION ALL (SELECT x FROM n2 UNION SELECT x FROM n1);
(SELECT x FROM n1 UNION ALL SELECT x FROM n2) UNION SELECT y FROM n1;
WITH n1 AS (SELECT x FROM n2) SELECT * FROM n1;
WITH c AS (SELECT x, count(*) AS n FROM n1 GROUP BY x) SELECT p.n, q.n AS m FROM c p JOIN c q ON p.x = q.x;
-- may be refused: an expression inside another of the same name.
WITH c AS (SELECT x FROM n1), d AS (WITH c AS (SELECT y AS x FROM n1) SELECT x FROM c)
SELECT c.x FROM c JOIN d ON c.x = d.x + 1;
SELECT "X" FROM (SELECT x AS "X", y AS "x" FROM n1) AS s WHERE "x" = 0;
SELECT s."a.b" AS k FROM (SELECT x AS "a.b" FROM n1) AS s WHERE s."a.b" < 0;
SELECT X, N1.Y FROM N1 WHERE N1.x IS NOT NULL;
SELECT x FROM n1 ORDER BY y NULLS FIRST, x LIMIT 1;
SELECT x AS k FROM n1 ORDER BY k DESC NULLS LAST, 1 LIMIT 2;
-- may be refused: a name in an ORDER BY expression means the column below, not the output.
SELECT -x AS x, y FROM n1 ORDER BY x + 0, y LIMIT 1;
-- may be refused: HAVING and no aggregate are one group.
SELECT 1 AS one FROM n1 HAVING true;
-- may be refused: a position in DISTINCT ON.
SELECT DISTINCT ON (1) x, y FROM n1;
-- may be refused: a name of the SELECT list in DISTINCT ON.
SELECT DISTINCT ON (k) -x AS k, y FROM n1 ORDER BY k, y;
SELECT y, max(x) AS m FROM n1 GROUP BY y ORDER BY max(x) DESC NULLS LAST, y LIMIT 1;
SELECT s FROM n1 GROUP BY s HAVING count(*) > 1;
SELECT a.x FROM n1 a, n2 b, m1 c WHERE a.x = b.x AND b.x = c.a;
SELECT a.x, c.y FROM n1 a, m1 b, n2 c WHERE a.x = c.x AND b.a = c.x;
SELECT a.x FROM n1 a JOIN n2 b ON a.x = b.x AND (b.y IS NULL OR b.y > 3);
SELECT a.x FROM n1 a, n2 b WHERE (a.x = b.x AND a.y IS NULL) OR (a.x = b.x AND b.s = 'p');
SELECT n1.x FROM n1 JOIN n2 ON n1.x = n2.x OR n1.x IS NULL WHERE n1.x = n2.x;
SELECT 2 - -1 AS a, - - 3 AS b, 7 - 2 - 1 AS c, 2 + 3 * 4 % 5 AS d, -7 / 2 AS e, -7 % 3 AS f FROM m1;
SELECT NOT a = b AS p, NOT a IS NULL AS q, a = b IS NULL AS r, NOT a < 1 AND false AS t FROM m1;
SELECT a BETWEEN 1 AND 2 AND b > 5 AS p, a = 1 OR b = 2 AND false AS q, a IN (1, 2) = true AS r FROM m1;
SELECT x FROM n1 WHERE x NOT IN (1, NULL);
SELECT x FROM n1 WHERE NOT (x > 0 AND y > 0);
SELECT x FROM n1 WHERE (x = 1) IS NOT TRUE;
SELECT x = x AS same, x <> x AS other, s LIKE '%' AS any_text, s = s OR false AS p FROM n1;
SELECT coalesce(x, 0) AS k, count(*) AS n, count(x) AS m FROM n1 GROUP BY coalesce(x, 0) HAVING coalesce(x, 0) < 1;
SELECT k FROM (SELECT s AS k, count(*) AS n FROM n1 GROUP BY s) AS t WHERE k IS NULL;
SELECT t.x FROM (SELECT x FROM n1 UNION ALL SELECT y FROM n2) AS t WHERE t.x > 0;
SELECT t.x, t.k FROM (SELECT x, 1 AS k FROM n1 UNION ALL SELECT y, 2 FROM n2) AS t WHERE k = 2;
SELECT DISTINCT t.k FROM (SELECT x, 1 AS k FROM n1 UNION ALL SELECT y, 2 FROM n2) AS t;
SELECT x FROM (SELECT x, y FROM n1 ORDER BY y, x LIMIT 3 OFFSET 1) AS s WHERE x < 0;
SELECT x FROM (SELECT DISTINCT x, s FROM n1) AS d;
SELECT a FROM (SELECT a, b FROM m1) AS s (a, c);
-- NOT IN of a list with NULL is never true, whatever IN stands beside it.
SELECT x FROM n1 WHERE x IN (1, -3, 5, 6) AND x NOT IN (7, 8, NULL);
SELECT s FROM n1 WHERE s IN ('p', 'q', 'r', 's') AND s NOT IN ('u', 'v', 'w', NULL);
SELECT x FROM n1 WHERE NOT (x IN (7, NULL) OR y > 100);
SELECT x = NULL AS p, x + NULL AS q, NULL AND x > 0 AS r, NULL OR x IS NULL AS t, NOT (NULL::boolean) AS u FROM n1;
SELECT CASE WHEN NULL THEN 1 WHEN x > 0 THEN 2 WHEN true THEN 3 ELSE 4 END AS k FROM n1;
SELECT CASE WHEN false THEN 1 END AS k, coalesce(NULL, x, 4) AS m, coalesce('c', s) AS o FROM n1;
SELECT x NOT BETWEEN -3 AND 0 AS p, NOT x BETWEEN y AND 5 AS q, x BETWEEN NULL AND 0 AS r FROM n1;
SELECT NOT (x < 0 AND y = 0) AS p, NOT (x IS NULL OR s = 'q') AS q, NOT (x IS DISTINCT FROM 1) AS r FROM n1;
SELECT sum(x + 1) AS a, sum(x * 2 + 1) AS b, sum(x) + 1 AS c, count(x + NULL) AS d FROM n1;
SELECT 3000000000 > x AS p, x < 3000000000 AS q, -1 <= x AS r, x = 1.0 AS t FROM n1;

-- group_by_column_not_alias
SELECT -x AS x, count(*) AS n FROM n1 GROUP BY x HAVING x > 0;

-- group_by_column_not_alias_2
SELECT x % 2 AS x, count(*) AS n FROM n1 GROUP BY x;

-- swapped_names
SELECT y AS x, x AS y, count(*) AS n FROM n1 GROUP BY x, y;

-- order_by_output
SELECT -b AS b FROM d2 ORDER BY b LIMIT 1;

-- order_by_output_distinct
SELECT DISTINCT -b AS b FROM d2 ORDER BY b LIMIT 1;

-- limit_all (may be refused)
SELECT b FROM d2 ORDER BY b LIMIT ALL;

-- limit_null (may be refused)
SELECT b FROM d2 ORDER BY b LIMIT NULL;

-- limit_fraction (may be refused)
SELECT b FROM d2 ORDER BY b LIMIT 1.5;

-- limit_quoted (may be refused)
SELECT b FROM d2 ORDER BY b LIMIT '1';

-- limit_computed (may be refused)
SELECT b FROM d2 ORDER BY b LIMIT 3 - 2;

-- distinct_intervals (may be refused)
SELECT count(*) AS n FROM (SELECT DISTINCT CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END AS i FROM n1) AS q;

-- grouped_intervals (may be refused)
SELECT count(*) AS n FROM n1 GROUP BY CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END;

-- counted_intervals (may be refused)
SELECT count(DISTINCT CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END) AS n FROM n1;

-- ordered_intervals (may be refused)
SELECT x FROM n1 WHERE x IS NOT NULL ORDER BY CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '40 days' END DESC, x LIMIT 1;

-- first_of_each_interval (may be refused)
SELECT DISTINCT ON (CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END) x FROM n1 ORDER BY CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END, x;

-- numbered_in_intervals (may be refused)
SELECT x FROM (SELECT x, row_number() OVER (PARTITION BY CASE WHEN x = 1 THEN INTERVAL '1 month' ELSE INTERVAL '30 days' END ORDER BY x) AS n FROM n1) AS q WHERE n = 1;

-- united_intervals (may be refused)
SELECT count(*) AS n FROM (SELECT INTERVAL '1 month' AS i FROM n1 UNION SELECT INTERVAL '30 days' FROM n1) AS q;

-- joined_by_using_two_types (may be refused)
SELECT k + 2147483647 > 0 AS n FROM (SELECT x AS k FROM n1) AS p JOIN (SELECT x::bigint AS k FROM n2) AS q USING (k);

-- whole_rows_counted (may be refused)
SELECT count(n1.*) AS n FROM n1;

-- row_is_null (may be refused)
SELECT x FROM n1 WHERE (x, s) IS NULL;

-- row_is_not_null (may be refused)
SELECT x FROM n1 WHERE (x, s) IS NOT NULL;

-- quoted_condition (may be refused)
SELECT x FROM n1 WHERE 'true';

-- union_of_quoted (may be refused)
SELECT x FROM n1 UNION ALL SELECT '7' FROM n1;

-- real_union_numeric (may be refused)
SELECT (v * 3)::int AS w FROM (SELECT x::real AS v FROM n1 UNION ALL SELECT 0.1 FROM n1) AS q;

-- max_of_quoted (may be refused)
SELECT max('7') AS n FROM n1;

-- constants_without_rows
SELECT count(*) AS n, sum(x) AS s, min(x) AS i, count(DISTINCT x) AS d, bool_and(x > 0) AS b FROM n1 WHERE false;

-- having_over_nothing
SELECT count(*) AS n FROM n1 WHERE x > 100 HAVING count(*) = 0;

-- null_group
SELECT x, count(x) AS c, count(*) AS n, sum(x) AS s FROM n1 GROUP BY x;

-- distinct_nulls
SELECT count(DISTINCT y) AS n, sum(DISTINCT y) AS s, max(y) AS m, bool_or(y IS NULL) AS b FROM n1;

-- average_of_ints
SELECT round(avg(x), 20) * 1000000000 > 0 AS n FROM n1 GROUP BY s;

-- nullif_of_two_types
SELECT (nullif(x, 2.5) / 2 * 10)::int AS n FROM n1;

-- list_of_reals
SELECT x FROM n1 WHERE (x::real / 10) IN (0.1, 0.2);

-- list_of_one_real
SELECT x FROM n1 WHERE (x::real / 10) IN (0.1);

-- empty_set_beside_a_key (may be refused)
SELECT x FROM n1 GROUP BY x, ();
