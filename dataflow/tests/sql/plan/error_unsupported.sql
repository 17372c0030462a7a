CREATE TABLE t (a int, b text, d date, n numeric(5, 2)) WITH (format = 'json');
--- full join with USING
CREATE VIEW v AS SELECT x.b FROM t x FULL JOIN t y USING (a);
--- natural right join
CREATE VIEW v AS SELECT x.b FROM t x NATURAL RIGHT JOIN t y;
--- a subquery in the condition of an outer join
CREATE VIEW v AS SELECT x.b FROM t x LEFT JOIN t y ON x.a = y.a AND y.a IN (SELECT a FROM t);
--- a correlated subquery in ORDER BY of another column
CREATE VIEW v AS SELECT b FROM t AS x ORDER BY (SELECT max(a) FROM t WHERE t.a = x.a) LIMIT 1;
--- subqueries too deep in each other
CREATE VIEW v AS SELECT a FROM t WHERE a IN (SELECT a FROM t WHERE a IN (SELECT a FROM t WHERE a IN (
  SELECT a FROM t WHERE a IN (SELECT a FROM t WHERE a IN (SELECT a FROM t WHERE a IN (
  SELECT a FROM t WHERE a IN (SELECT a FROM t)))))));
--- a subquery of two columns
CREATE VIEW v AS SELECT a, (SELECT a, b FROM t) AS m FROM t;
--- LIKE ANY of a subquery
CREATE VIEW v AS SELECT a FROM t WHERE b LIKE ANY (SELECT b FROM t);
--- semi join
CREATE VIEW v AS SELECT x.a FROM t x LEFT SEMI JOIN t y ON x.a = y.a;
--- anti join
CREATE VIEW v AS SELECT x.a FROM t x ANTI JOIN t y ON x.a = y.a;
--- order by an unknown column
CREATE VIEW v AS SELECT a FROM t
ORDER BY x;
--- order by in a subquery
CREATE VIEW v AS SELECT a FROM (SELECT a FROM t ORDER BY a) AS s LIMIT 3;
--- limit that depends
CREATE VIEW v AS SELECT a FROM t LIMIT a;
--- negative limit
CREATE VIEW v AS SELECT a FROM t LIMIT -1;
--- limit by
CREATE VIEW v AS SELECT a FROM t LIMIT 3 BY a;
--- fetch with ties
CREATE VIEW v AS SELECT a FROM t ORDER BY a OFFSET 2 FETCH FIRST 3 ROWS WITH TIES;
--- ties without an order
CREATE VIEW v AS SELECT a FROM t FETCH FIRST 3 ROWS WITH TIES;
--- ties of the first of each
CREATE VIEW v AS SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b FETCH FIRST 3 ROWS WITH TIES;
--- fetch percent
CREATE VIEW v AS SELECT a FROM t FETCH FIRST 3 PERCENT ROWS ONLY;
--- fetch and limit
CREATE VIEW v AS SELECT a FROM t LIMIT 2 FETCH FIRST 3 ROWS ONLY;
--- limit that is negative after all
CREATE VIEW v AS SELECT a FROM t LIMIT 2 - 3;
--- row_number without OVER
CREATE VIEW v AS SELECT a, row_number() AS n FROM t;
--- rank without OVER
CREATE VIEW v AS SELECT a, rank() AS n FROM t;
--- a window function in WHERE
CREATE VIEW v AS SELECT a FROM t WHERE rank() OVER (ORDER BY a) < 3;
--- a window function in HAVING
CREATE VIEW v AS SELECT a FROM t GROUP BY a HAVING count(*) OVER () > 1;
--- a window function in GROUP BY
CREATE VIEW v AS SELECT count(*) AS n FROM t GROUP BY rank() OVER (ORDER BY a);
--- a window function in a join
CREATE VIEW v AS SELECT x.a FROM t x JOIN t y ON x.a = y.a AND rank() OVER (ORDER BY x.a) = 1;
--- a window function in an aggregate
CREATE VIEW v AS SELECT sum(rank() OVER (ORDER BY a)) AS n FROM t;
--- a window function in a window
CREATE VIEW v AS SELECT rank() OVER (ORDER BY lag(a) OVER (ORDER BY a)) AS n FROM t;
--- a function that is no window function
CREATE VIEW v AS SELECT abs(a) OVER () AS n FROM t;
--- an aggregate that views do not have, with OVER
CREATE VIEW v AS SELECT array_agg(a) OVER () AS n FROM t;
--- DISTINCT in a window
CREATE VIEW v AS SELECT count(DISTINCT a) OVER () AS n FROM t;
--- FILTER of a window function
CREATE VIEW v AS SELECT rank() FILTER (WHERE a > 1) OVER (ORDER BY a) AS n FROM t;
--- IGNORE NULLS
CREATE VIEW v AS SELECT lag(a) IGNORE NULLS OVER (ORDER BY a) AS n FROM t;
--- an offset of lag that depends
CREATE VIEW v AS SELECT lag(a, a) OVER (ORDER BY a) AS n FROM t;
--- an offset of lag that is null
CREATE VIEW v AS SELECT lag(a, NULL) OVER (ORDER BY a) AS n FROM t;
--- a default of another type
CREATE VIEW v AS SELECT lag(a, 1, d) OVER (ORDER BY a) AS n FROM t;
--- no bucket
CREATE VIEW v AS SELECT ntile(0) OVER (ORDER BY a) AS n FROM t;
--- a number of buckets that depends
CREATE VIEW v AS SELECT ntile(a) OVER (ORDER BY a) AS n FROM t;
--- the value before the first
CREATE VIEW v AS SELECT nth_value(a, 0) OVER (ORDER BY a) AS n FROM t;
--- too many arguments
CREATE VIEW v AS SELECT rank(a) OVER (ORDER BY a) AS n FROM t;
--- an unknown window
CREATE VIEW v AS SELECT rank() OVER w AS n FROM t;
--- a window with a second order
CREATE VIEW v AS SELECT rank() OVER (w ORDER BY b) AS n FROM t WINDOW w AS (ORDER BY a);
--- a window with a second partition
CREATE VIEW v AS SELECT rank() OVER (w PARTITION BY b) AS n FROM t WINDOW w AS (ORDER BY a);
--- a window that extends a frame
CREATE VIEW v AS SELECT sum(a) OVER (w ORDER BY b) AS n FROM t WINDOW w AS (ROWS 1 PRECEDING);
--- a frame with EXCLUDE
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS 1 PRECEDING EXCLUDE CURRENT ROW) AS n FROM t;
--- a frame that ends before it starts
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN CURRENT ROW AND 1 PRECEDING) AS n FROM t;
--- a frame that starts after the row
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS 1 FOLLOWING) AS n FROM t;
--- a frame that starts at the end
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN UNBOUNDED FOLLOWING AND UNBOUNDED FOLLOWING) AS n FROM t;
--- groups without an order
CREATE VIEW v AS SELECT sum(a) OVER (GROUPS 1 PRECEDING) AS n FROM t;
--- a range of two orders
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a, b RANGE 1 PRECEDING) AS n FROM t;
--- a range of texts
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY b RANGE 1 PRECEDING) AS n FROM t;
--- a range of dates by a number
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY d RANGE 1 PRECEDING) AS n FROM t;
--- a range of ints by a numeric
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a RANGE 1.5 PRECEDING) AS n FROM t;
--- a range by a number in quotes
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a RANGE '1' PRECEDING) AS n FROM t;
--- a range by a part of a month
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY d RANGE '1.5 months' PRECEDING) AS n FROM t;
--- a frame whose offset depends
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS a PRECEDING) AS n FROM t;
--- a frame with a negative offset
CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY a ROWS -1 PRECEDING) AS n FROM t;
--- rollup inside grouping sets
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY GROUPING SETS ((a), ROLLUP (a, b));
--- a column that is no key of a grouping set
CREATE VIEW v AS SELECT a, b, count(*) AS n FROM t GROUP BY ROLLUP (a);
--- grouping of no key
CREATE VIEW v AS SELECT a, grouping(b) AS g FROM t GROUP BY ROLLUP (a);
--- grouping of nothing
CREATE VIEW v AS SELECT a, grouping() AS g FROM t GROUP BY ROLLUP (a);
--- a position in a grouping set that is none
CREATE VIEW v AS SELECT a FROM t GROUP BY ROLLUP (3);
--- group by nothing without an aggregate
CREATE VIEW v AS SELECT 1 AS one FROM t GROUP BY ();
--- a cube of too many sets
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY CUBE (a, b), CUBE (d, n), CUBE (a, d, n);
--- group by all
CREATE VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY ALL;
--- values of two lengths
CREATE VIEW v AS VALUES (1), (2, 3);
--- values of two types
CREATE VIEW v AS SELECT x FROM (VALUES (1), (true)) AS y (x);
--- an aggregate in values
CREATE VIEW v AS VALUES (count(*));
--- a column in values
CREATE VIEW v AS VALUES (a);
--- values with the word of another database
CREATE VIEW v AS VALUES ROW(1);
--- a star without FROM
CREATE VIEW v AS SELECT *;
--- a column without FROM
CREATE VIEW v AS SELECT a;
--- minus
CREATE VIEW v AS SELECT a FROM t MINUS SELECT a FROM t;
--- except of two types
CREATE VIEW v AS SELECT a FROM t EXCEPT SELECT 'x' || a FROM t;
--- except by name
CREATE VIEW v AS SELECT a FROM t EXCEPT BY NAME SELECT a FROM t;
--- intersect of two lengths
CREATE VIEW v AS SELECT a FROM t INTERSECT SELECT a, b FROM t;
--- intersect of intervals
CREATE VIEW v AS SELECT INTERVAL '1 day' AS i INTERSECT SELECT INTERVAL '24 hours';
--- an alias that looks like a mark
CREATE VIEW v AS SELECT * FROM t AS "Except";
--- table function
CREATE VIEW v AS SELECT * FROM generate_series(1, a);
--- a series of too many numbers
CREATE VIEW v AS SELECT * FROM generate_series(1, 1001);
--- a series of numbers with a point
CREATE VIEW v AS SELECT * FROM generate_series(1.5, 3);
--- unnest of no array
CREATE VIEW v AS SELECT * FROM UNNEST(b);
--- unnest of an array with a column
CREATE VIEW v AS SELECT x FROM t, UNNEST(ARRAY[1, a]) AS x;
--- unnest of an empty array
CREATE VIEW v AS SELECT * FROM UNNEST(ARRAY[]);
--- tablesample
CREATE VIEW v AS SELECT a FROM t TABLESAMPLE SYSTEM (3);
--- for update
CREATE VIEW v AS SELECT a FROM t FOR UPDATE;
--- qualify
CREATE VIEW v AS SELECT a FROM t QUALIFY a > 1;
--- aggregate
CREATE VIEW v AS SELECT median(a) AS m FROM t;
--- array_agg
CREATE VIEW v AS SELECT array_agg(a) AS m FROM t;
--- jsonb_object_agg of distinct members
CREATE VIEW v AS SELECT jsonb_object_agg(DISTINCT b, a) AS m FROM t;
--- documents as keys
CREATE VIEW v AS SELECT to_jsonb(a) AS j, count(*) AS n FROM t GROUP BY to_jsonb(a);
--- a path of SQL/JSON
CREATE VIEW v AS SELECT a FROM t WHERE to_jsonb(b) @? '$.a';
--- rows of a document
CREATE VIEW v AS SELECT e FROM t, jsonb_array_elements(to_jsonb(b)) AS e;
--- an array as a column
CREATE VIEW v AS SELECT string_to_array(b, ',') AS parts FROM t;
--- an array of numbers
CREATE VIEW v AS SELECT ARRAY[a, 1]::text AS s FROM t;
--- an alias of another database
CREATE VIEW v AS SELECT std(a) AS m FROM t;
--- another alias of another database
CREATE VIEW v AS SELECT covar(a, a) AS m FROM t;
--- hypothetical-set aggregate
CREATE VIEW v AS SELECT rank(3) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- percentile without WITHIN GROUP
CREATE VIEW v AS SELECT percentile_cont(0.5) AS m FROM t;
--- percentile with ORDER BY inside
CREATE VIEW v AS SELECT percentile_cont(a, 0.5 ORDER BY a) AS m FROM t;
--- percentile of two expressions
CREATE VIEW v AS SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY a, b) AS m FROM t;
--- distinct percentile
CREATE VIEW v AS SELECT percentile_disc(DISTINCT 0.5) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- a fraction above 1
CREATE VIEW v AS SELECT percentile_disc(1.5) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- a fraction that is null
CREATE VIEW v AS SELECT percentile_cont(NULL) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- a fraction that depends
CREATE VIEW v AS SELECT percentile_cont(n) WITHIN GROUP (ORDER BY a) AS m FROM t GROUP BY n;
--- several fractions
CREATE VIEW v AS SELECT percentile_cont(ARRAY[0.5]) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- percentile of text
CREATE VIEW v AS SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY b) AS m FROM t;
--- percentile of an interval
CREATE VIEW v AS SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY d - DATE '2024-01-01' + INTERVAL '1 day') AS m FROM t;
--- mode of an interval
CREATE VIEW v AS SELECT mode() WITHIN GROUP (ORDER BY INTERVAL '1 day' + INTERVAL '2 days') AS m, count(a) AS c FROM t;
--- mode with an argument
CREATE VIEW v AS SELECT mode(a) AS m FROM t;
--- mode of a constant
CREATE VIEW v AS SELECT mode() WITHIN GROUP (ORDER BY 1) AS m FROM t;
--- WITHIN GROUP of a plain aggregate
CREATE VIEW v AS SELECT sum(a) WITHIN GROUP (ORDER BY a) AS m FROM t;
--- a text without a separator
CREATE VIEW v AS SELECT string_agg(b) AS m FROM t;
--- a separator that depends
CREATE VIEW v AS SELECT string_agg(b, b) AS m FROM t;
--- a separator that is a number
CREATE VIEW v AS SELECT string_agg(b, 1) AS m FROM t;
--- string_agg of numbers
CREATE VIEW v AS SELECT string_agg(a, ',') AS m FROM t;
--- ORDER BY of a constant in an aggregate
CREATE VIEW v AS SELECT string_agg(b, ',' ORDER BY 1) AS m FROM t;
--- ORDER BY of an interval in an aggregate
CREATE VIEW v AS SELECT string_agg(b, ',' ORDER BY d - (d - INTERVAL '1 day')) AS m FROM t;
--- ORDER BY beside count(*)
CREATE VIEW v AS SELECT count(* ORDER BY a) AS m FROM t;
--- DISTINCT ordered by another column
CREATE VIEW v AS SELECT sum(DISTINCT a ORDER BY b) AS m FROM t;
--- DISTINCT text ordered by another column
CREATE VIEW v AS SELECT string_agg(DISTINCT b, ',' ORDER BY a) AS m FROM t;
--- ORDER BY inside a scalar function
CREATE VIEW v AS SELECT abs(a ORDER BY a) AS m FROM t;
--- too many arguments
CREATE VIEW v AS SELECT stddev(a, a) AS m FROM t;
--- too few arguments
CREATE VIEW v AS SELECT corr(a) AS m FROM t;
--- a star in an aggregate
CREATE VIEW v AS SELECT variance(*) AS m FROM t;
--- deviation of text
CREATE VIEW v AS SELECT stddev(b) AS m FROM t;
--- regression of text
CREATE VIEW v AS SELECT regr_slope(a, b) AS m FROM t;
--- bits of numerics
CREATE VIEW v AS SELECT bit_and(n) AS m FROM t;
--- every of a number
CREATE VIEW v AS SELECT every(a) AS m FROM t;
--- deviation of a quotient
CREATE VIEW v AS SELECT stddev(n / 3) AS m FROM t;
--- average of a quotient
CREATE VIEW v AS SELECT avg(n / 3) AS m FROM t;
--- variance of many digits after the point
CREATE VIEW v AS SELECT variance(CAST(n AS numeric(30,20))) AS m FROM t;
--- a window over a statistic
CREATE VIEW v AS SELECT stddev(a) OVER () AS m FROM t;
--- count of several columns
CREATE VIEW v AS SELECT count(DISTINCT a, b) AS m FROM t;
--- clock
CREATE VIEW v AS SELECT a FROM t WHERE d < clock_timestamp();
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
--- HAVING of one group without an aggregate
CREATE VIEW v AS SELECT 1 AS one FROM t HAVING true;
--- a position in DISTINCT ON that is none
CREATE VIEW v AS SELECT DISTINCT ON (3) a, b FROM t;
--- a name that means two things
CREATE VIEW v AS SELECT -a AS a FROM t ORDER BY a + 1 LIMIT 1;
--- USING over two types
CREATE VIEW v AS SELECT * FROM t x JOIN (SELECT n AS a FROM t) AS y USING (a);
--- a star over USING and a column without a name
CREATE VIEW v AS SELECT * FROM t x JOIN (SELECT a, count(*) FROM t GROUP BY a) AS y USING (a);
--- an operator that is none
CREATE VIEW v AS SELECT a FROM t WHERE a @-1 = 2;
--- an operator and a comment
CREATE VIEW v AS SELECT a FROM t WHERE a>--1
0;
