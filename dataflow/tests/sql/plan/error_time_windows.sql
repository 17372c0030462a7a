CREATE TABLE t (id int, at timestamp, name text, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');
--- no arguments
CREATE VIEW v AS SELECT * FROM TUMBLE();
--- no size
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at);
--- too many intervals
CREATE VIEW v AS SELECT * FROM TUMBLE(t, at, INTERVAL '1 day', INTERVAL '1 hour', INTERVAL '1 hour');
--- hop without a size
CREATE VIEW v AS SELECT * FROM HOP(TABLE t, at, INTERVAL '1 day');
--- session without a gap
CREATE VIEW v AS SELECT * FROM SESSION(TABLE t PARTITION BY name, at);
--- tumble with a partition
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t PARTITION BY name, at, INTERVAL '1 day');
--- session partitioned twice
CREATE VIEW v AS SELECT * FROM SESSION(TABLE t PARTITION BY name, at, PARTITION BY id, INTERVAL '1 day');
--- a size twice
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '1 day', SIZE => INTERVAL '1 day');
--- an unknown argument
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, WIDTH => INTERVAL '1 day');
--- an expression as the time
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at + INTERVAL '1 day', INTERVAL '1 day');
--- a descriptor of two columns
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(at, id), INTERVAL '1 day');
--- months
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '1 month');
--- a size of nothing
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '0 seconds');
--- a negative hop
CREATE VIEW v AS SELECT * FROM HOP(TABLE t, at, INTERVAL '-1 hour', INTERVAL '1 day');
--- a size that is no interval
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, 10);
--- a size in a text
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, '10 seconds');
--- a size with a fraction before its unit
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '1.5' HOUR);
--- too many windows for a row
CREATE VIEW v AS SELECT * FROM HOP(TABLE t, at, INTERVAL '1 second', INTERVAL '1 day');
--- a time that is text
CREATE VIEW v AS SELECT id FROM TUMBLE(TABLE t, name, INTERVAL '1 day');
--- sessions of numbers
CREATE VIEW v AS SELECT id, window_start FROM SESSION(TABLE t, id, INTERVAL '1 day');
--- an unknown column
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, att, INTERVAL '1 day');
--- an unknown table
CREATE VIEW v AS SELECT * FROM TABLE(TUMBLE(TABLE tt, DESCRIPTOR(at), INTERVAL '1 day'));
--- a table with a schema
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE public.t, at, INTERVAL '1 day');
--- windows of windows
CREATE VIEW v AS WITH w AS (SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '1 day')) SELECT * FROM TUMBLE(TABLE w, at, INTERVAL '1 day');
--- windows in GROUP BY
CREATE VIEW v AS SELECT count(*) AS n FROM t GROUP BY TUMBLE(at, INTERVAL '1 day');
--- TABLE in an expression
CREATE VIEW v AS SELECT TABLE t AS n FROM t;
--- PARTITION BY as an argument
CREATE VIEW v AS SELECT lower(PARTITION BY name) AS n FROM t;
--- another table function
CREATE VIEW v AS SELECT * FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(at), INTERVAL '1 hour', INTERVAL '1 day'));
--- processing time
CREATE VIEW v AS SELECT PROCTIME() AS p FROM t;
--- windows with LATERAL
CREATE VIEW v AS SELECT * FROM t, LATERAL TUMBLE(TABLE t, at, INTERVAL '1 day');
--- windows with an ordinality
CREATE VIEW v AS SELECT * FROM TUMBLE(TABLE t, at, INTERVAL '1 day') WITH ORDINALITY;
