CREATE TABLE typed WITH (topic = 'typed');
CREATE VIEW passed AS SELECT * FROM typed;
CREATE VIEW again AS SELECT id, mood, price FROM passed WHERE mood = 'happy' AND ip <> '10.0.0.1';
CREATE VIEW moods AS SELECT mood, count(*) AS n, count(took) AS t, count(DISTINCT ip) AS ips
  FROM typed GROUP BY mood;
CREATE VIEW codes AS SELECT code, count(*) AS n FROM typed WHERE code = 'DE  ' AND code < long_code
  AND code IN ('DE', 'AT') AND code LIKE 'D%' GROUP BY code;
CREATE VIEW code_text AS SELECT id, code || 'x' AS a, CAST(code AS text) AS b, concat(code, 'x') AS c
  FROM typed ORDER BY code LIMIT 10;
CREATE VIEW joined AS SELECT a.id, b.price FROM typed a JOIN typed b
  ON a.code = b.long_code AND a.mood = b.other_mood AND a.id = b.id;
CREATE VIEW numbers AS SELECT id, CAST(price AS numeric(20,4)) AS p, CAST(cost AS double precision) AS c
  FROM typed WHERE CAST(price AS numeric(20,4)) > 9.5;
CREATE VIEW texts AS SELECT CAST(took AS text) AS took, count(*) AS n FROM typed
  WHERE CAST(tags AS text) = '{1}' AND took IS NOT NULL GROUP BY CAST(took AS text);
CREATE VIEW ordered AS SELECT max(at) AS late, min(id) AS id FROM typed WHERE at >= '12:00:00';
CREATE VIEW chosen AS SELECT id, coalesce(mood, other_mood) AS m,
  CASE WHEN n > 1 THEN price ELSE cost END AS p FROM typed;
CREATE VIEW both AS SELECT mood FROM typed UNION SELECT other_mood FROM typed;
