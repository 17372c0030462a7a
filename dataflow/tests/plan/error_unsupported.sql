CREATE TABLE t (a int, b text, d date, n numeric(5, 2)) WITH (format = 'json');
--- join
CREATE VIEW v AS SELECT x.a FROM t AS x
JOIN t AS y ON x.a = y.a;
--- left join
CREATE VIEW v AS SELECT x.a FROM t x LEFT JOIN t y USING (a);
--- join in parentheses
CREATE VIEW v AS SELECT x.a FROM (t x CROSS JOIN t y);
--- join by comma
CREATE VIEW v AS SELECT x.a FROM t x,
 t y;
--- order by
CREATE VIEW v AS SELECT a FROM t
ORDER BY a;
--- limit
CREATE VIEW v AS SELECT a FROM t
LIMIT 3;
--- offset
CREATE VIEW v AS SELECT a FROM t OFFSET 3;
--- fetch
CREATE VIEW v AS SELECT a FROM t FETCH FIRST 3 ROWS ONLY;
--- window
CREATE VIEW v AS SELECT a, row_number() OVER (ORDER BY a) AS n FROM t;
--- window over an aggregate
CREATE VIEW v AS SELECT sum(a) OVER () AS n FROM t;
--- named window
CREATE VIEW v AS SELECT a FROM t WINDOW w AS (ORDER BY a);
--- scalar subquery
CREATE VIEW v AS SELECT a, (SELECT max(a) FROM t) AS m FROM t;
--- IN subquery
CREATE VIEW v AS SELECT a FROM t WHERE a IN (SELECT a FROM t);
--- EXISTS
CREATE VIEW v AS SELECT a FROM t WHERE EXISTS (SELECT a FROM t);
--- ANY subquery
CREATE VIEW v AS SELECT a FROM t WHERE a = ANY (SELECT a FROM t);
--- recursive
CREATE VIEW v AS WITH RECURSIVE r AS (SELECT a FROM t) SELECT a FROM r;
--- grouping sets
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY GROUPING SETS ((a), ());
--- rollup
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY ROLLUP (a);
--- cube
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY CUBE (a, b);
--- group by all
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY ALL;
--- values
CREATE VIEW v AS VALUES (1), (2);
--- values in FROM
CREATE VIEW v AS SELECT x FROM (VALUES (1)) AS y (x);
--- no FROM
CREATE VIEW v AS SELECT 1 AS one;
--- intersect
CREATE VIEW v AS SELECT a FROM t INTERSECT SELECT a FROM t;
--- except
CREATE VIEW v AS SELECT a FROM t EXCEPT SELECT a FROM t;
--- distinct on
CREATE VIEW v AS SELECT DISTINCT ON (a) a, b FROM t;
--- lateral
CREATE VIEW v AS SELECT a FROM t, LATERAL (SELECT 1) AS y;
--- table function
CREATE VIEW v AS SELECT * FROM generate_series(1, 3);
--- unnest
CREATE VIEW v AS SELECT * FROM UNNEST(ARRAY[1]);
--- tablesample
CREATE VIEW v AS SELECT a FROM t TABLESAMPLE SYSTEM (3);
--- for update
CREATE VIEW v AS SELECT a FROM t FOR UPDATE;
--- qualify
CREATE VIEW v AS SELECT a FROM t QUALIFY a > 1;
--- aggregate
CREATE VIEW v AS SELECT median(a) AS m FROM t;
--- aggregate of text
CREATE VIEW v AS SELECT string_agg(b, ',') AS m FROM t;
--- ordered aggregate
CREATE VIEW v AS SELECT sum(a ORDER BY b) AS m FROM t;
--- within group
CREATE VIEW v AS SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- count of several columns
CREATE VIEW v AS SELECT count(DISTINCT a, b) AS m FROM t;
--- clock
CREATE VIEW v AS SELECT a FROM t WHERE d < now();
--- current date
CREATE VIEW v AS SELECT current_date AS today FROM t;
--- current timestamp
CREATE VIEW v AS SELECT CURRENT_TIMESTAMP AS t FROM t;
--- chance
CREATE VIEW v AS SELECT random() AS r FROM t;
--- uuid
CREATE VIEW v AS SELECT uuid() AS r FROM t;
--- parameter
CREATE VIEW v AS SELECT a FROM t WHERE a = $1;
--- array
CREATE VIEW v AS SELECT ARRAY[a] AS r FROM t;
--- interval as a column
CREATE VIEW v AS SELECT INTERVAL '1 day' AS r FROM t;
--- time as a column
CREATE VIEW v AS SELECT CAST('10:00' AS time) AS r FROM t;
--- cast to an unknown type
CREATE VIEW v AS SELECT CAST(a AS money) AS r FROM t;
