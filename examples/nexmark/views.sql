-- Nexmark as standing views: the tables of its auctions as topics of JSON rows, and its queries q0 to q22,
-- each kept up to date while people, auctions and bids are inserted, changed and deleted. The queries are
-- those of the benchmark for Flink (nexmark-flink/src/main/resources/queries). README.md lists what was
-- changed.

CREATE TABLE person (
    id bigint, name text, "emailAddress" text, "creditCard" text, city text, state text,
    "dateTime" timestamp, extra text,
    PRIMARY KEY (id)
) WITH (format = 'json', envelope = 'upsert');

CREATE TABLE auction (
    id bigint, "itemName" text, description text, "initialBid" bigint, reserve bigint,
    "dateTime" timestamp, expires timestamp, seller bigint, category bigint, extra text,
    PRIMARY KEY (id)
) WITH (format = 'json', envelope = 'upsert');

CREATE TABLE bid (
    id bigint, auction bigint, bidder bigint, price bigint, channel text, url text,
    "dateTime" timestamp, extra text,
    PRIMARY KEY (id)
) WITH (format = 'json', envelope = 'upsert');

CREATE TABLE side_input (
    key bigint, value text,
    PRIMARY KEY (key)
) WITH (format = 'json', envelope = 'upsert');

-- Q0: pass through.
CREATE MATERIALIZED VIEW q0 WITH (primary_key = 'id') AS
SELECT id, auction, bidder, price, "dateTime", extra FROM bid;

-- Q1: currency conversion.
CREATE MATERIALIZED VIEW q1 WITH (primary_key = 'id') AS
SELECT
    id,
    auction,
    bidder,
    0.908 * price as price, -- convert dollar to euro
    "dateTime",
    extra
FROM bid;

-- Q2: selection.
CREATE MATERIALIZED VIEW q2 WITH (primary_key = 'id') AS
SELECT id, auction, price FROM bid WHERE MOD(auction, 123) = 0;

-- Q3: local item suggestion.
CREATE MATERIALIZED VIEW q3 WITH (primary_key = 'id') AS
SELECT
    P.name, P.city, P.state, A.id
FROM
    auction AS A INNER JOIN person AS P on A.seller = P.id
WHERE
    A.category = 10 and (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA');

-- Q4: average price for a category.
CREATE MATERIALIZED VIEW q4 WITH (primary_key = 'id') AS
SELECT
    Q.category AS id,
    AVG(Q.final) AS final
FROM (
    SELECT MAX(B.price) AS final, A.category
    FROM auction A, bid B
    WHERE A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires
    GROUP BY A.id, A.category
) Q
GROUP BY Q.category;

-- Q5: hot items.
CREATE MATERIALIZED VIEW q5 WITH (primary_key = 'starttime, auction') AS
SELECT AuctionBids.starttime, AuctionBids.auction, AuctionBids.num
 FROM (
   SELECT
     auction,
     count(*) AS num,
     window_start AS starttime,
     window_end AS endtime
     FROM TABLE(
             HOP(TABLE bid, DESCRIPTOR("dateTime"), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
     GROUP BY auction, window_start, window_end
 ) AS AuctionBids
 JOIN (
   SELECT
     max(CountBids.num) AS maxn,
     CountBids.starttime,
     CountBids.endtime
   FROM (
     SELECT
       count(*) AS num,
       window_start AS starttime,
       window_end AS endtime
     FROM TABLE(
             HOP(TABLE bid, DESCRIPTOR("dateTime"), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
     GROUP BY auction, window_start, window_end
     ) AS CountBids
   GROUP BY CountBids.starttime, CountBids.endtime
 ) AS MaxBids
 ON AuctionBids.starttime = MaxBids.starttime AND
    AuctionBids.endtime = MaxBids.endtime AND
    AuctionBids.num >= MaxBids.maxn;

-- Q6: average selling price by seller.
CREATE MATERIALIZED VIEW q6 WITH (primary_key = 'id') AS
SELECT
    Q.id,
    Q.seller,
    AVG(Q.price) OVER
        (PARTITION BY Q.seller ORDER BY Q."dateTime" ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
        AS avg_price
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY A.id, A.seller ORDER BY A.price DESC) AS rownum
    FROM (SELECT A.id, A.seller, B.price, B."dateTime"
        FROM auction AS A,
            bid AS B
        WHERE A.id = B.auction
            and B."dateTime" between A."dateTime" and A.expires) AS A
) AS Q
WHERE rownum <= 1;

-- Q7: highest bid.
CREATE MATERIALIZED VIEW q7 WITH (primary_key = 'id, window_end') AS
SELECT B.id, B1."dateTime" AS window_end, B.auction, B.price, B.bidder, B."dateTime", B.extra
from bid B
JOIN (
  SELECT MAX(price) AS maxprice, window_end as "dateTime"
  FROM TABLE(
          TUMBLE(TABLE bid, DESCRIPTOR("dateTime"), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end
) B1
ON B.price = B1.maxprice
WHERE B."dateTime" BETWEEN B1."dateTime"  - INTERVAL '10' SECOND AND B1."dateTime";

-- Q8: monitor new users.
CREATE MATERIALIZED VIEW q8 WITH (primary_key = 'id, stime') AS
SELECT P.id, P.name, P.starttime AS stime
FROM (
  SELECT id, name,
        window_start AS starttime,
        window_end AS endtime
  FROM TABLE(
            TUMBLE(TABLE person, DESCRIPTOR("dateTime"), INTERVAL '10' SECOND))
  GROUP BY id, name, window_start, window_end
) P
JOIN (
  SELECT seller,
        window_start AS starttime,
        window_end AS endtime
  FROM TABLE(
        TUMBLE(TABLE auction, DESCRIPTOR("dateTime"), INTERVAL '10' SECOND))
  GROUP BY seller, window_start, window_end
) A
ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime;

-- Q9: winning bids.
CREATE MATERIALIZED VIEW q9 WITH (primary_key = 'id') AS
SELECT
    id, "itemName", description, "initialBid", reserve, "dateTime", expires, seller, category, extra,
    auction, bidder, price, "bid_dateTime", bid_extra
FROM (
   SELECT A.*, B.auction, B.bidder, B.price, B."dateTime" AS "bid_dateTime", B.extra AS bid_extra,
     ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B."dateTime" ASC) AS rownum
   FROM auction A, bid B
   WHERE A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires
) AS winning
WHERE rownum <= 1;

-- Q10: log to file system.
CREATE MATERIALIZED VIEW q10 WITH (primary_key = 'id') AS
SELECT id, auction, bidder, price, "dateTime", extra,
    TO_CHAR("dateTime", 'YYYY-MM-DD') AS dt, TO_CHAR("dateTime", 'HH24:MI') AS hm
FROM bid;

-- Q11: user sessions.
CREATE MATERIALIZED VIEW q11 WITH (primary_key = 'bidder, starttime') AS
SELECT
    bidder,
    count(*) as bid_count,
    window_start as starttime,
    window_end as endtime
FROM TABLE(
        SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR("dateTime"), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;

-- Q12: windows of bids.
CREATE MATERIALIZED VIEW q12 WITH (primary_key = 'bidder, starttime') AS
SELECT
    bidder,
    count(*) as bid_count,
    window_start AS starttime,
    window_end AS endtime
FROM TABLE(
        TUMBLE(TABLE bid, DESCRIPTOR("dateTime"), INTERVAL '10' SECOND))
GROUP BY bidder, window_start, window_end;

-- Q13: bounded side input join.
CREATE MATERIALIZED VIEW q13 WITH (primary_key = 'id') AS
SELECT
    B.id,
    B.auction,
    B.bidder,
    B.price,
    B."dateTime",
    S.value
FROM bid B
JOIN side_input AS S
ON mod(B.auction, 10000) = S.key;

-- Q14: calculation.
CREATE MATERIALIZED VIEW q14 WITH (primary_key = 'id') AS
SELECT
    id,
    auction,
    bidder,
    0.908 * price as price,
    CASE
        WHEN EXTRACT(HOUR FROM "dateTime") >= 8 AND EXTRACT(HOUR FROM "dateTime") <= 18 THEN 'dayTime'
        WHEN EXTRACT(HOUR FROM "dateTime") <= 6 OR EXTRACT(HOUR FROM "dateTime") >= 20 THEN 'nightTime'
        ELSE 'otherTime'
    END AS "bidTimeType",
    "dateTime",
    extra,
    length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;

-- Q15: bidding statistics report.
CREATE MATERIALIZED VIEW q15 WITH (primary_key = 'day') AS
SELECT
     TO_CHAR("dateTime", 'YYYY-MM-DD') as day,
     count(*) AS total_bids,
     count(*) filter (where price < 10000) AS rank1_bids,
     count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
     count(*) filter (where price >= 1000000) AS rank3_bids,
     count(distinct bidder) AS total_bidders,
     count(distinct bidder) filter (where price < 10000) AS rank1_bidders,
     count(distinct bidder) filter (where price >= 10000 and price < 1000000) AS rank2_bidders,
     count(distinct bidder) filter (where price >= 1000000) AS rank3_bidders,
     count(distinct auction) AS total_auctions,
     count(distinct auction) filter (where price < 10000) AS rank1_auctions,
     count(distinct auction) filter (where price >= 10000 and price < 1000000) AS rank2_auctions,
     count(distinct auction) filter (where price >= 1000000) AS rank3_auctions
FROM bid
GROUP BY TO_CHAR("dateTime", 'YYYY-MM-DD');

-- Q16: channel statistics report.
CREATE MATERIALIZED VIEW q16 WITH (primary_key = 'channel, day') AS
SELECT
    channel,
    TO_CHAR("dateTime", 'YYYY-MM-DD') as day,
    max(TO_CHAR("dateTime", 'HH24:MI')) as minute,
    count(*) AS total_bids,
    count(*) filter (where price < 10000) AS rank1_bids,
    count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
    count(*) filter (where price >= 1000000) AS rank3_bids,
    count(distinct bidder) AS total_bidders,
    count(distinct bidder) filter (where price < 10000) AS rank1_bidders,
    count(distinct bidder) filter (where price >= 10000 and price < 1000000) AS rank2_bidders,
    count(distinct bidder) filter (where price >= 1000000) AS rank3_bidders,
    count(distinct auction) AS total_auctions,
    count(distinct auction) filter (where price < 10000) AS rank1_auctions,
    count(distinct auction) filter (where price >= 10000 and price < 1000000) AS rank2_auctions,
    count(distinct auction) filter (where price >= 1000000) AS rank3_auctions
FROM bid
GROUP BY channel, TO_CHAR("dateTime", 'YYYY-MM-DD');

-- Q17: auction statistics report.
CREATE MATERIALIZED VIEW q17 WITH (primary_key = 'auction, day') AS
SELECT
     auction,
     TO_CHAR("dateTime", 'YYYY-MM-DD') as day,
     count(*) AS total_bids,
     count(*) filter (where price < 10000) AS rank1_bids,
     count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
     count(*) filter (where price >= 1000000) AS rank3_bids,
     min(price) AS min_price,
     max(price) AS max_price,
     avg(price) AS avg_price,
     sum(price) AS sum_price
FROM bid
GROUP BY auction, TO_CHAR("dateTime", 'YYYY-MM-DD');

-- Q18: find last bid.
CREATE MATERIALIZED VIEW q18 WITH (primary_key = 'bidder, auction') AS
SELECT auction, bidder, price, channel, url, "dateTime", extra
 FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS rank_number
       FROM bid) AS ranked
 WHERE rank_number <= 1;

-- Q19: auction top 10 price.
CREATE MATERIALIZED VIEW q19 WITH (primary_key = 'auction, rank_number') AS
SELECT * FROM
(SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM bid) AS ranked
WHERE rank_number <= 10;

-- Q20: expand bid with auction.
CREATE MATERIALIZED VIEW q20 WITH (primary_key = 'id') AS
SELECT
    B.id, auction, bidder, price, channel, url, B."dateTime" AS "bid_dateTime", B.extra AS bid_extra,
    "itemName", description, "initialBid", reserve, A."dateTime" AS "auction_dateTime", expires, seller,
    category, A.extra AS auction_extra
FROM
    bid AS B INNER JOIN auction AS A on B.auction = A.id
WHERE A.category = 10;

-- Q21: add channel id.
CREATE MATERIALIZED VIEW q21 WITH (primary_key = 'id') AS
SELECT
    id, auction, bidder, price, channel,
    CASE
        WHEN lower(channel) = 'apple' THEN '0'
        WHEN lower(channel) = 'google' THEN '1'
        WHEN lower(channel) = 'facebook' THEN '2'
        WHEN lower(channel) = 'baidu' THEN '3'
        ELSE SUBSTRING('&' || url FROM '&channel_id=([^&]*)')
        END
    AS channel_id FROM bid
    where SUBSTRING('&' || url FROM '&channel_id=([^&]*)') is not null or
          lower(channel) in ('apple', 'google', 'facebook', 'baidu');

-- Q22: get URL directories.
CREATE MATERIALIZED VIEW q22 WITH (primary_key = 'id') AS
SELECT
    id, auction, bidder, price, channel,
    SPLIT_PART(url, '/', 4) as dir1,
    SPLIT_PART(url, '/', 5) as dir2,
    SPLIT_PART(url, '/', 6) as dir3 FROM bid;
