CREATE TABLE t (id int, a int, s text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE TABLE u (id int, a bigint, s text) WITH (format = 'json');

CREATE MATERIALIZED VIEW only_t WITH (primary_key = 'id') AS
SELECT id, s FROM t EXCEPT SELECT id, s FROM u;

CREATE MATERIALIZED VIEW all_of_t WITH (primary_key = 'id') AS
SELECT id, s FROM t EXCEPT ALL SELECT id, s FROM u;

CREATE MATERIALIZED VIEW in_both WITH (primary_key = 'id, a') AS
SELECT id, a FROM u INTERSECT SELECT id, a FROM t;

-- INTERSECT before EXCEPT and UNION, which go from left to right.
CREATE VIEW precedence AS
SELECT a FROM t UNION ALL SELECT a FROM u EXCEPT SELECT id FROM t INTERSECT ALL SELECT id FROM u;

-- A condition that cannot fail goes to both sides.
CREATE VIEW filtered AS
SELECT * FROM (SELECT id, a FROM t EXCEPT SELECT id, a FROM u) AS d WHERE a > 3 AND 10 / a > 1;

CREATE VIEW unions_inside AS
SELECT a FROM t EXCEPT ALL (SELECT a FROM u UNION ALL SELECT 1);

CREATE VIEW few_columns AS
SELECT s FROM (SELECT id, s FROM t INTERSECT ALL SELECT id, s FROM u) AS d;
