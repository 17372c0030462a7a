CREATE TABLE t (id int, a int, s text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW rows WITH (primary_key = 'column1') AS
VALUES (1, 'a'), (2, NULL), (3, 'c');

-- The types of all rows decide together.
CREATE VIEW of_types AS
SELECT * FROM (VALUES (NULL, NULL, 1, '2020-01-01'), (1, NULL, 2.5, NULL), (2, NULL, 3, DATE '2021-01-01'))
AS v (a, b, c, d);

CREATE MATERIALIZED VIEW one WITH (primary_key = 'a') AS SELECT 1 AS a, 'x' || 'y' AS b;

CREATE VIEW counted AS SELECT count(*) AS n;

CREATE VIEW filtered AS SELECT 1 AS a WHERE 1 > 2;

-- The division fails when the job starts, and its row is a dead letter.
CREATE VIEW failing AS VALUES (1), (1 / 0);

CREATE MATERIALIZED VIEW named WITH (primary_key = 'id') AS
SELECT t.id, v.name FROM t JOIN (VALUES (1, 'one'), (2, 'two')) AS v (a, name) ON v.a = t.a;

CREATE VIEW together AS SELECT a FROM t UNION ALL VALUES (1), (2);

CREATE VIEW many AS VALUES (1), (2), (3), (4), (5), (6), (7);

CREATE VIEW series AS SELECT n FROM generate_series(1, 7, 3) AS n;

CREATE VIEW unnested AS SELECT x, y.id FROM unnest(ARRAY[1, 2, NULL]) AS u (x) JOIN t AS y ON y.id = x;
