CREATE TABLE t (a int, b text, d date, n numeric(5, 2)) WITH (format = 'json');
--- table
CREATE VIEW v AS SELECT a
FROM tt;
--- table, nothing like it
CREATE VIEW v AS SELECT a FROM orders;
--- view above itself
CREATE VIEW v AS SELECT a FROM w;
CREATE VIEW w AS SELECT a FROM t;
--- column
CREATE VIEW v AS SELECT a,
       bb FROM t;
--- column, nothing like it
CREATE VIEW v AS SELECT surname FROM t;
--- column of an alias
CREATE VIEW v AS SELECT x.a, y.b FROM t AS x;
--- column in WHERE
CREATE VIEW v AS SELECT a FROM t WHERE
  aa > 3;
--- column in GROUP BY
CREATE VIEW v AS SELECT count(*) AS n FROM t GROUP BY colour;
--- scalar function
CREATE VIEW v AS SELECT uper(b) AS u FROM t;
--- function, nothing like it
CREATE VIEW v AS SELECT frobnicate(b) AS u FROM t;
--- aggregate
CREATE VIEW v AS SELECT cuont(*) AS n FROM t;
--- quoted column
CREATE TABLE q ("userId" int) WITH (format = 'json');
CREATE VIEW v AS SELECT userId FROM q;
--- primary key
CREATE VIEW v WITH (primary_key = 'id') AS SELECT a FROM t;
--- primary key, close
CREATE VIEW v WITH (primary_key = 'user_idd') AS SELECT a AS user_id FROM t;
--- primary key twice
CREATE VIEW v WITH (primary_key = 'a, a') AS SELECT a FROM t;
--- name taken by a table
CREATE VIEW t AS SELECT a FROM t;
--- name taken by a view
CREATE VIEW v AS SELECT a FROM t;
CREATE VIEW V AS SELECT b FROM t;
--- two columns of one name
CREATE VIEW v AS SELECT a, b AS a FROM t;
--- column without a name
CREATE VIEW v AS SELECT a, count(*) + 1 FROM t GROUP BY a;
--- columns that would have one name
CREATE VIEW v AS SELECT a, max(n), max(d) FROM t GROUP BY a;
--- number of column names
CREATE VIEW v (x, y, z) AS SELECT a, b FROM t;
--- schema before a table
CREATE VIEW v AS SELECT a FROM public.t;
--- name no sink can hold
CREATE VIEW "my view" AS SELECT a FROM t;
