-- Names fold to lower case unless quoted, and keep their quotes' case then.
CREATE TABLE Events ("Id" int, Kind text, "select" text) WITH (FORMAT = 'json');

CREATE MATERIALIZED VIEW Kinds WITH (PRIMARY_KEY = 'kind') AS
SELECT KIND, count("Id") AS "count", max("select") AS "select", max(E."Id") AS "Max_Id"
FROM EVENTS e GROUP BY Kind;
CREATE MATERIALIZED VIEW quoted WITH (primary_key = '"Id", kind') AS
SELECT "Id", kind FROM events;
