CREATE TABLE typed WITH (topic = 'typed'); CREATE VIEW inside AS SELECT id, took FROM typed;
CREATE VIEW v AS
--- numeric_compared
SELECT id FROM typed WHERE price > 9.5
--- numeric_compared_with_itself
SELECT id FROM typed WHERE price = cost
--- numeric_grouped
SELECT price, count(*) AS n FROM typed GROUP BY price
--- numeric_max
SELECT max(price) AS m FROM typed
--- numeric_sum
SELECT sum(price) AS m FROM typed
--- numeric_distinct
SELECT DISTINCT price FROM typed
--- numeric_counted_distinct
SELECT count(DISTINCT price) AS n FROM typed
--- numeric_ordered
SELECT price FROM typed ORDER BY price LIMIT 3
--- numeric_union
SELECT price FROM typed UNION SELECT cost FROM typed
--- numeric_joined
SELECT a.id FROM typed a JOIN typed b ON a.price = b.price
--- numeric_added
SELECT price + 1 AS p FROM typed
--- numeric_negated
SELECT -price AS p FROM typed
--- numeric_to_int
SELECT CAST(price AS int) AS p FROM typed
--- numeric_rounded
SELECT round(price) AS p FROM typed
--- interval_compared
SELECT id FROM typed WHERE took > INTERVAL '1 day'
--- interval_equal
SELECT id FROM typed WHERE took = '1 day'
--- interval_case
SELECT id FROM typed WHERE CASE took WHEN '1 day' THEN true ELSE false END
--- through_a_view
SELECT took FROM inside ORDER BY took LIMIT 1
--- through_a_query
SELECT t FROM (SELECT took AS t FROM typed) s GROUP BY t
--- array_concatenated
SELECT tags || 'x' AS t FROM typed
--- array_in
SELECT id FROM typed WHERE tags IN ('{1}', '{2}')
--- citext_equal
SELECT id FROM typed WHERE email = 'a@b.c'
--- citext_in_a_function
SELECT lower(email) AS e FROM typed
--- extension_distinct_on
SELECT DISTINCT ON (shape) id FROM typed
--- row_number
SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY mood ORDER BY took) AS n FROM typed) s WHERE n < 3
--- enum_ordered
SELECT mood FROM typed ORDER BY mood LIMIT 1
--- enum_less
SELECT id FROM typed WHERE mood < 'sad'
--- enum_between
SELECT id FROM typed WHERE mood BETWEEN 'a' AND 'b'
--- enum_min
SELECT min(mood) AS m FROM typed
--- enum_upper
SELECT upper(mood) AS m FROM typed
--- enum_and_text
SELECT id FROM typed WHERE mood = note
--- enum_and_inet
SELECT id FROM typed WHERE mood = ip
--- enum_and_text_union
SELECT mood FROM typed UNION ALL SELECT note FROM typed
--- enum_or_text
SELECT coalesce(mood, note) AS m FROM typed
--- inet_literal
SELECT id FROM typed WHERE ip = '10.0.0.1/32'
--- inet_text
SELECT CAST(ip AS text) AS t FROM typed
--- uuid_literal
SELECT note FROM typed WHERE id = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'
--- time_literal
SELECT id FROM typed WHERE at < '12:00'
--- char_max
SELECT max(code) AS c FROM typed
--- char_or_text
SELECT coalesce(code, '-') AS c FROM typed
--- char_using
SELECT a.id FROM typed a JOIN typed b USING (code)
--- json_grouped
SELECT doc, count(*) AS n FROM typed GROUP BY doc
--- json_literal
SELECT id FROM typed WHERE coalesce(doc, '{ }') IS NOT NULL
--- json_as_uuid
SELECT CAST(doc AS uuid) AS u FROM typed
--- composite_is_null
SELECT id FROM typed WHERE note = 'a' OR NOT pair IS NULL
--- composite_compared
SELECT id FROM typed WHERE pair = pair
