CREATE TABLE t (a int, b text, d date, n numeric(5, 2)) WITH (format = 'json');
--- sum of text
CREATE VIEW v AS SELECT sum(b) AS s FROM t;
--- bool_and of a number
CREATE VIEW v AS SELECT bool_and(a) AS s FROM t;
--- date plus date
CREATE VIEW v AS SELECT d + d AS s FROM t;
--- WHERE is no condition
CREATE VIEW v AS SELECT a FROM t WHERE a + 1;
--- number compared with a date
CREATE VIEW v AS SELECT a FROM t WHERE d > 3.5;
--- arguments of a function
CREATE VIEW v AS SELECT upper(a, b) AS u FROM t;
--- too few arguments
CREATE VIEW v AS SELECT split_part(b) AS u FROM t;
--- NOT of text
CREATE VIEW v AS SELECT NOT b AS u FROM t;
--- union of unlike columns
CREATE VIEW v AS SELECT a FROM t UNION ALL SELECT a, b FROM t;
--- union of unlike types
CREATE VIEW v AS SELECT a FROM t UNION ALL SELECT d FROM t;
--- constant that is no number
CREATE VIEW v AS SELECT CAST('ten' AS int) AS x FROM t;
--- constant out of range
CREATE VIEW v AS SELECT CAST(3000000000 AS int) AS x FROM t;
--- constant that is no date
CREATE VIEW v AS SELECT CAST('2024-02-30' AS date) AS x FROM t;
--- column not grouped
CREATE VIEW v AS SELECT a, b, count(*) AS n
FROM t GROUP BY a;
--- aggregate in WHERE
CREATE VIEW v AS SELECT a FROM t WHERE count(*) > 1;
--- aggregate of an aggregate
CREATE VIEW v AS SELECT max(count(*)) AS m FROM t;
--- group by a position that is not there
CREATE VIEW v AS SELECT a FROM t GROUP BY 2;
--- ambiguous column
CREATE VIEW v AS SELECT x FROM (SELECT a AS x, b AS x FROM t) AS y;
