-- What a cast made a smallint stays one in queries and views above, and what is none is an int.
CREATE TABLE t (a int, b int) WITH (format = 'json');
CREATE VIEW small AS SELECT CAST(a AS smallint) AS s, a, b FROM t;
CREATE MATERIALIZED VIEW shifts WITH (primary_key = 's') AS
SELECT s, s << 3 AS lost, (s << 3) << 4 AS lost_again, s + s AS fails, s + 1 AS an_int, a << 3 AS kept
FROM small;
