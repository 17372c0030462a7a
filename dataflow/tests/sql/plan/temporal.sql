CREATE TABLE events (id int, grp text, n int, day date, at timestamp, tz timestamptz, gone timestamptz,
  PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW recent WITH (primary_key = 'id') AS
SELECT id, n FROM events WHERE tz > now() - INTERVAL '1 hour' AND n > 2;

CREATE MATERIALIZED VIEW valid WITH (primary_key = 'id') AS
SELECT id, n + 1 AS n FROM events WHERE CURRENT_TIMESTAMP >= tz AND now() < gone;

CREATE MATERIALIZED VIEW of_a_day WITH (primary_key = 'id') AS
SELECT * FROM events WHERE at BETWEEN LOCALTIMESTAMP - INTERVAL '1 day' AND transaction_timestamp();

CREATE MATERIALIZED VIEW week WITH (primary_key = 'id') AS
SELECT id FROM events WHERE day > CURRENT_DATE - 7 AND day <= date_trunc('hour', now() AT TIME ZONE 'UTC');

CREATE MATERIALIZED VIEW months WITH (primary_key = 'id') AS
SELECT id FROM events WHERE tz + INTERVAL '1 month' > now();

CREATE MATERIALIZED VIEW sums WITH (primary_key = 'grp') AS
SELECT grp, count(*) AS rows, sum(n) AS n FROM events WHERE tz > now() - INTERVAL '1 hour' GROUP BY grp
HAVING max(at) > now() - INTERVAL '5 minutes';

CREATE MATERIALIZED VIEW pairs WITH (primary_key = 'id, other') AS
SELECT a.id, b.id AS other FROM events a
JOIN events b ON a.grp = b.grp AND a.tz BETWEEN b.tz - INTERVAL '5 minutes' AND b.tz
  AND a.tz > now() - INTERVAL '1 hour'
WHERE b.tz > now() - INTERVAL '1 hour' AND a.at + (b.tz - a.tz) > now();

CREATE MATERIALIZED VIEW without WITH (primary_key = 'id') AS
SELECT id FROM events a
WHERE NOT EXISTS (SELECT 1 FROM events b WHERE b.grp = a.grp AND b.gone > now());

CREATE VIEW live AS SELECT DISTINCT grp, gone FROM events WHERE gone > statement_timestamp();

CREATE MATERIALIZED VIEW counted WITH (primary_key = 'k') AS SELECT 'all' AS k, count(*) AS n FROM live;

CREATE MATERIALIZED VIEW constant WITH (primary_key = 'k') AS
SELECT k FROM (VALUES (1, TIMESTAMPTZ '2024-02-28 23:00:00Z')) AS c(k, tz) WHERE tz <= now();
