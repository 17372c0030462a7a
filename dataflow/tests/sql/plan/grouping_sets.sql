CREATE TABLE t (id int, a int, b text, n int, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE VIEW rolled_up AS
SELECT a, b, count(*) AS c, sum(n) AS s, grouping(a, b) AS g FROM t GROUP BY ROLLUP (a, b);

CREATE VIEW mixed AS
SELECT a, b, id, grouping(b) AS g FROM t GROUP BY a, ROLLUP (b, id);

CREATE VIEW nested AS
SELECT a, b, count(*) AS c FROM t GROUP BY GROUPING SETS ((a), (b), (a, b), ());

CREATE VIEW cubed AS
SELECT a + 1 AS k, b, max(n) FILTER (WHERE n > 0) AS m FROM t WHERE id > 3
GROUP BY CUBE (1, (b)) HAVING count(*) > 1;

CREATE VIEW only_empty AS SELECT count(*) AS c FROM t GROUP BY GROUPING SETS (());

CREATE VIEW listed AS SELECT a, b FROM t GROUP BY (a, b);

CREATE VIEW of_nothing AS SELECT count(*) AS c FROM t GROUP BY ();

CREATE VIEW plain AS SELECT a, grouping(a) AS g FROM t GROUP BY a;
