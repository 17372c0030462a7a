CREATE TABLE bid (id bigint, auction bigint, bidder bigint, price bigint, at timestamp, zoned timestamptz, day date, PRIMARY KEY (id)) WITH (format = 'json', envelope = 'upsert');

CREATE MATERIALIZED VIEW tumbled WITH (primary_key = 'window_start') AS
SELECT window_start, window_end, count(*) AS bids, max(price) AS price
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(at), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW tumbled_with_offset WITH (primary_key = 'id') AS
SELECT * FROM TUMBLE(bid, zoned, INTERVAL '1 hour', INTERVAL '-15 minutes');

CREATE MATERIALIZED VIEW tumbled_by_name WITH (primary_key = 'id') AS
SELECT id, b.window_start FROM TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(day), SIZE => INTERVAL '7 days')) AS b WHERE day > DATE '2024-01-01';

CREATE MATERIALIZED VIEW hopped WITH (primary_key = 'auction, window_start') AS
SELECT auction, window_start, count(*) AS bids
FROM HOP(TABLE bid, at, INTERVAL '2' SECOND, INTERVAL '5' SECOND) GROUP BY auction, window_start;

CREATE MATERIALIZED VIEW sessions WITH (primary_key = 'bidder, window_start') AS
SELECT bidder, window_start, window_end, count(*) AS bids
FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(at), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;

CREATE MATERIALIZED VIEW sessions_of_all WITH (primary_key = 'id') AS
SELECT id, window_start, window_end, day FROM SESSION(TABLE bid, day, INTERVAL '1 day');

CREATE MATERIALIZED VIEW sessions_of_pairs WITH (primary_key = 'id') AS
SELECT s.* FROM SESSION(TABLE (SELECT id, auction, bidder, zoned FROM bid WHERE price > 10), zoned, PARTITION BY (auction, bidder), INTERVAL '1 minute') AS s;

CREATE MATERIALIZED VIEW sessions_joined WITH (primary_key = 'id') AS
SELECT * FROM SESSION(bid, DESCRIPTOR(at), DESCRIPTOR(bidder), INTERVAL '1 day') JOIN (SELECT id, at AS other FROM bid) AS b USING (id);
