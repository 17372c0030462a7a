CREATE TABLE t (id int, parent int, name text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE TABLE e (a int, b int, w numeric(10,2)) WITH (format = 'json');

CREATE MATERIALIZED VIEW series WITH (primary_key = 'n') AS
WITH RECURSIVE s(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < 100) SELECT n FROM s;

CREATE MATERIALIZED VIEW tree WITH (primary_key = 'id') AS
WITH RECURSIVE below AS (
    SELECT id, name AS path, 0 AS depth FROM t WHERE parent IS NULL
    UNION ALL
    SELECT t.id, below.path || '/' || t.name, depth + 1 FROM t JOIN below ON t.parent = below.id
)
SELECT * FROM below;

CREATE MATERIALIZED VIEW closure WITH (primary_key = 'a, b') AS
WITH RECURSIVE r(a, b) AS (
    SELECT a, b FROM e UNION SELECT r.a, e.b FROM r, e WHERE e.a = r.b
)
SELECT a, b FROM r;

-- A condition above stays above, and the recursion is shared.
CREATE VIEW twice AS
WITH RECURSIVE s(n) AS (SELECT id FROM t UNION SELECT n / 2 FROM s WHERE n > 1)
SELECT x.n FROM s AS x JOIN s AS y ON x.n = y.n + 1 WHERE x.n > 3;

CREATE VIEW of_each_kind AS
WITH RECURSIVE r(a, w) AS (
    SELECT a, w FROM e
    UNION ALL
    SELECT coalesce(t.id, 0), r.w FROM r LEFT JOIN t ON t.parent = r.a
    WHERE r.w > 5 AND EXISTS (SELECT 1 FROM e WHERE e.a = r.a)
        AND NOT EXISTS (SELECT 1 FROM t AS other WHERE other.id = r.a AND other.name = 'end')
)
SELECT a, sum(w) AS w FROM r GROUP BY a;

-- Two recursions, written in the other order, and one query that is not recursive.
CREATE VIEW unordered AS
WITH RECURSIVE later(n) AS (SELECT n FROM early UNION ALL SELECT n * 2 FROM later WHERE n < 50),
    early(n) AS (SELECT k FROM plain UNION SELECT n + 1 FROM early WHERE n < 5),
    plain AS (SELECT DISTINCT id AS k FROM t)
SELECT n FROM later;
