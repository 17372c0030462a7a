CREATE TABLE t (a int, b text, c int) WITH (format = 'json');
CREATE TABLE u (id bigint, a int, b text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');
-- scalar subquery
CREATE VIEW scalar_subquery AS SELECT a, (SELECT max(id) FROM u) AS m FROM t;
-- correlated scalar subquery
CREATE VIEW correlated_scalar_subquery AS SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) AS n FROM t;
-- correlated by order
CREATE VIEW correlated_by_order AS SELECT a, (SELECT count(*) FROM u WHERE u.a < t.a) AS n FROM t;
-- scalar subquery of many rows
CREATE VIEW scalar_subquery_of_many_rows AS SELECT a, (SELECT u.b FROM u WHERE u.a = t.a) AS b FROM t;
-- IN subquery
CREATE VIEW in_subquery AS SELECT b FROM t WHERE a IN (SELECT a FROM u);
-- NOT IN subquery
CREATE VIEW not_in_subquery AS SELECT b FROM t WHERE a NOT IN (SELECT a FROM u);
-- EXISTS
CREATE VIEW exists AS SELECT b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a);
-- NOT EXISTS with a condition
CREATE VIEW not_exists_with_a_condition AS SELECT b FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.id > t.c);
-- ANY and ALL
CREATE VIEW any_and_all AS SELECT b FROM t WHERE c > ANY (SELECT a FROM u) OR c = ALL (SELECT a FROM u WHERE u.b = t.b);
-- LATERAL
CREATE VIEW lateral AS SELECT t.b, x.id FROM t, LATERAL (SELECT id FROM u WHERE u.a = t.a ORDER BY id LIMIT 2) AS x;
-- HAVING
CREATE VIEW having AS SELECT b, sum(c) AS s FROM t GROUP BY b HAVING sum(c) > (SELECT avg(a) FROM u);
