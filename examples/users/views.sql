-- The users and the countries, as change capture publishes them. The columns come from the schema
-- registry.
CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');
CREATE TABLE countries WITH (topic = 'countries', format = 'avro', envelope = 'debezium');

-- Every user that was created, ready to be shown.
CREATE MATERIALIZED VIEW created_users WITH (primary_key = 'id') AS
SELECT
    id,
    first_name,
    last_name,
    gender,
    street_number || ' ' || street_name || ', ' || city || ', ' || state || ', ' || country
        AS address,
    postcode AS post_code,
    email,
    username,
    dob,
    registered AS registered_date,
    phone,
    picture_large AS picture
FROM users;

-- How many users live in each country, and how old they are.
CREATE MATERIALIZED VIEW users_by_country WITH (primary_key = 'country') AS
SELECT country, count(*) AS users, avg(age)::double precision AS average_age
FROM users
GROUP BY country;

-- Users by decade of age ('20-29') and gender.
CREATE MATERIALIZED VIEW users_by_age_band_and_gender WITH (primary_key = 'age_band, gender') AS
SELECT decade || '-' || (decade + 9) AS age_band, gender, count(*) AS users
FROM (SELECT age / 10 * 10 AS decade, gender FROM users) AS decades
GROUP BY age_band, gender;

-- How many users registered in each year.
CREATE MATERIALIZED VIEW registrations_by_year WITH (primary_key = 'year') AS
SELECT CAST(extract(year FROM registered) AS int) AS year, count(*) AS users
FROM users
GROUP BY 1;

-- Each user with the country he or she lives in.
CREATE MATERIALIZED VIEW users_with_country WITH (primary_key = 'id') AS
SELECT u.id, u.first_name, u.last_name, u.country, c.continent, c.capital, c.population
FROM users AS u JOIN countries AS c ON u.country = c.name;

-- The ten youngest of each country, the youngest first.
CREATE MATERIALIZED VIEW youngest_by_country WITH (primary_key = 'country, place') AS
SELECT country, place, id, first_name, last_name, dob
FROM (
    SELECT *, row_number() OVER (PARTITION BY country ORDER BY dob DESC, id) AS place FROM users
) AS placed
WHERE place <= 10;
