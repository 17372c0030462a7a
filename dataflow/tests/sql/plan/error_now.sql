CREATE TABLE t (id int, a int, d date, at timestamp, tz timestamptz, word text) WITH (format = 'json');
--- selected
CREATE VIEW v AS SELECT id, now() AS seen FROM t;
--- today selected
CREATE VIEW v AS SELECT id, CURRENT_DATE AS today FROM t;
--- age
CREATE VIEW v AS SELECT id FROM t WHERE now() - tz < INTERVAL '1 hour';
--- below or
CREATE VIEW v AS SELECT id FROM t WHERE tz IS NULL OR tz > now();
--- below not
CREATE VIEW v AS SELECT id FROM t WHERE NOT (tz > now());
--- not between
CREATE VIEW v AS SELECT id FROM t WHERE tz NOT BETWEEN now() - INTERVAL '1 hour' AND now();
--- unequal
CREATE VIEW v AS SELECT id FROM t WHERE tz <> now();
--- in case
CREATE VIEW v AS SELECT id FROM t WHERE CASE WHEN a = 1 THEN tz > now() END;
--- both sides
CREATE VIEW v AS SELECT id FROM t WHERE greatest(tz, now()) > now() - INTERVAL '1 hour';
--- grouped
CREATE VIEW v AS SELECT count(*) AS n FROM t GROUP BY date_trunc('day', now());
--- ordered
CREATE VIEW v AS SELECT id FROM t ORDER BY tz - now() LIMIT 3;
--- aggregate filter
CREATE VIEW v AS SELECT count(*) FILTER (WHERE tz > now()) AS n FROM t;
--- a month
CREATE VIEW v AS SELECT id FROM t WHERE tz > now() - INTERVAL '1 month';
--- a year with a unit
CREATE VIEW v AS SELECT id FROM t WHERE tz > now() - INTERVAL '1' YEAR;
--- months that are computed
CREATE VIEW v AS SELECT id FROM t WHERE tz > now() - 2 * INTERVAL '1 month';
--- an interval of the row
CREATE VIEW v AS SELECT id FROM t WHERE tz > now() - a * INTERVAL '1 hour';
--- a week
CREATE VIEW v AS SELECT id FROM t WHERE tz > date_trunc('week', now());
--- another zone
CREATE VIEW v AS SELECT id FROM t WHERE at > now() AT TIME ZONE 'Europe/Oslo';
--- twice cut
CREATE VIEW v AS SELECT id FROM t WHERE tz > date_trunc('day', CURRENT_DATE + INTERVAL '1 hour');
--- seconds since 1970
CREATE VIEW v AS SELECT id FROM t WHERE a > extract(epoch FROM now());
--- text
CREATE VIEW v AS SELECT id FROM t WHERE word > now();
--- as text
CREATE VIEW v AS SELECT id FROM t WHERE word > now()::text;
--- an argument
CREATE VIEW v AS SELECT id FROM t WHERE tz > now(3);
--- a precision
CREATE VIEW v AS SELECT id FROM t WHERE tz > CURRENT_TIMESTAMP(3);
--- outer join
CREATE VIEW v AS SELECT x.id FROM t x LEFT JOIN t y ON x.id = y.id AND y.tz > now();
--- a recursive reference
CREATE VIEW v AS WITH RECURSIVE r AS (SELECT id, tz FROM t UNION SELECT t.id, t.tz FROM t JOIN r ON t.a = r.id WHERE r.tz > now()) SELECT id FROM r;
--- a name of another engine
CREATE VIEW v AS SELECT id FROM t WHERE tz > mz_now();
--- the clock
CREATE VIEW v AS SELECT id FROM t WHERE tz > clock_timestamp();
