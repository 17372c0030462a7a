CREATE TABLE t (id int, a int, b text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE VIEW fetched AS SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS ONLY;

CREATE VIEW fetched_one AS SELECT a FROM t ORDER BY a OFFSET 2 ROWS FETCH NEXT ROW ONLY;

CREATE VIEW computed AS SELECT a FROM t ORDER BY a LIMIT 2 + 1 OFFSET (2 * 2) - 1;

CREATE VIEW unlimited AS SELECT a FROM t ORDER BY a LIMIT ALL;

-- The order means nothing.
CREATE VIEW ordered AS SELECT a, b FROM t WHERE a > 1 ORDER BY b DESC, id;

CREATE VIEW ordered_below AS SELECT a, count(*) AS c FROM (SELECT a FROM t ORDER BY b) AS s GROUP BY a;

CREATE VIEW first_by_position AS SELECT DISTINCT ON (1) a, b FROM t ORDER BY a, b;
