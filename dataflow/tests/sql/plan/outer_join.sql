CREATE TABLE t (a int, b text, c int) WITH (format = 'json');
CREATE TABLE u (id bigint, a int, b text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');
-- left join
CREATE VIEW left_join AS SELECT t.b, u.id FROM t LEFT JOIN u ON t.a = u.a;
-- left join on a key
CREATE MATERIALIZED VIEW left_join_on_a_key WITH (primary_key = 'a') AS
SELECT x.a, u.b FROM (SELECT a, count(*) AS n FROM t GROUP BY a) AS x LEFT JOIN u ON x.n = u.id;
-- left join with conditions
CREATE VIEW left_join_with_conditions AS SELECT t.b, u.id FROM t LEFT JOIN u ON t.a = u.a AND t.c < u.id AND u.b = 'x' AND t.b = 'y'
WHERE t.c > 1 AND u.b IS NULL;
-- right join
CREATE VIEW right_join AS SELECT t.b, u.id FROM t RIGHT JOIN u ON t.a = u.a;
-- full join
CREATE VIEW full_join AS SELECT t.b, u.id FROM t FULL OUTER JOIN u ON t.a = u.a;
-- join without an equality
CREATE VIEW join_without_an_equality AS SELECT x.a FROM t AS x JOIN t AS y ON x.a < y.a;
-- cross join
CREATE VIEW cross_join AS SELECT x.a FROM t AS x, t AS y;
-- left join with USING
CREATE VIEW left_join_with_using AS SELECT * FROM t LEFT JOIN (SELECT a, id FROM u) AS u USING (a);
