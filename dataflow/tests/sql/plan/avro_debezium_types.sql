-- As Debezium registers it, with its own names for times and a type that no column has.
CREATE TABLE foreign_table WITH (topic = 'foreign');

CREATE MATERIALIZED VIEW copy WITH (primary_key = 'id') AS SELECT * FROM foreign_table;
