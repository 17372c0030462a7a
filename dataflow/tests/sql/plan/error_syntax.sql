CREATE TABLE t (a int, b text, d date, n numeric(5, 2)) WITH (format = 'json');
--- typo
CREATE VIEW v AS
  SELEC a FROM t;
--- missing parenthesis
CREATE VIEW v AS SELECT count(a FROM t;
--- ends too early
CREATE VIEW v AS SELECT a,
--- string not closed
CREATE VIEW v AS
SELECT 'abc FROM t;
--- two statements without a semicolon
CREATE VIEW v AS SELECT a FROM t
CREATE VIEW w AS SELECT a FROM t;
--- no view

--- another statement
INSERT INTO t VALUES (1);
--- a bare query
SELECT a FROM t;
--- drop
DROP TABLE t;
--- digits beyond a numeric
CREATE VIEW v AS
SELECT a, 1e308 FROM t;
--- hexadecimal digits
CREATE VIEW v AS SELECT a, 0x1F FROM t;
