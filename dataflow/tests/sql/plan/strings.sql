CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW strings WITH (primary_key = 'id') AS
SELECT
    id,
    first_name || ' ' || last_name AS whole,
    'no ' || street_number AS number,
    upper(nat) AS upper, lower(nat) AS lower, initcap(city) AS initcap, length(city) AS length,
    trim(city) AS trimmed, trim(LEADING '0' FROM postcode) AS leading,
    substring(email FROM 1 FOR 3) AS part, substr(email, 2) AS rest,
    position('@' IN email) AS at, split_part(email, '@', 2) AS host,
    replace(phone, '-', '') AS digits, lpad(postcode, 5, '0') AS padded, left(city, 1) AS first,
    concat(city, ', ', country) AS place, concat_ws(', ', city, NULL, country) AS places,
    overlay(phone PLACING '***' FROM 3 FOR 3) AS hidden,
    regexp_replace(phone, '[^0-9]', '', 'g') AS plain
FROM users;
