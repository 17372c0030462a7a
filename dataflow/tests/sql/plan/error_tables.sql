--- option
CREATE TABLE u (a int) WITH (format = 'json', envelop = 'append');
--- format
CREATE TABLE u (a int) WITH (format = 'jason');
--- format, nothing like it
CREATE TABLE u (a int) WITH (format = 'protobuf');
--- envelope
CREATE TABLE u (a int) WITH (format = 'json', envelope = 'debesium');
--- option is no string
CREATE TABLE u (a int) WITH (format = json);
--- option twice
CREATE TABLE u (a int) WITH (format = 'json', topic = 'a', topic = 'b');
--- placeholder of an append-only table
CREATE TABLE u (a int) WITH (format = 'json', unavailable = 'none');
--- placeholder that is no hexadecimal
CREATE TABLE u (a int) WITH (format = 'json', envelope = 'upsert', unavailable = 'hex:6g');
--- placeholder of nothing
CREATE TABLE u (a int) WITH (format = 'json', envelope = 'upsert', unavailable = '');
--- json without columns
CREATE TABLE u WITH (format = 'json');
--- type
CREATE TABLE u (a int, b money) WITH (format = 'json');
--- numeric without precision
CREATE TABLE u (a numeric) WITH (format = 'json');
--- column twice
CREATE TABLE u (a int, b int, A text) WITH (format = 'json');
--- default
CREATE TABLE u (a int DEFAULT 3) WITH (format = 'json');
--- foreign key
CREATE TABLE u (a int, FOREIGN KEY (a) REFERENCES x (a)) WITH (format = 'json');
--- key column
CREATE TABLE u (userid int, PRIMARY KEY (user_id)) WITH (format = 'json');
--- key twice
CREATE TABLE u (a int PRIMARY KEY, b int, PRIMARY KEY (b)) WITH (format = 'json');
--- if not exists
CREATE TABLE IF NOT EXISTS u (a int) WITH (format = 'json');
--- temporary
CREATE TEMPORARY TABLE u (a int) WITH (format = 'json');
--- as select
CREATE TABLE u AS SELECT 1;
--- name taken
CREATE TABLE u (a int) WITH (format = 'json');
CREATE TABLE u (a int) WITH (format = 'json');
--- view option
CREATE TABLE u (a int) WITH (format = 'json');
CREATE VIEW v WITH (primarykey = 'a') AS SELECT a FROM u;
--- view option of a table
CREATE TABLE u (a int) WITH (format = 'json');
CREATE VIEW v WITH (topic = 'a') AS SELECT a FROM u;
--- malformed primary key
CREATE TABLE u (a int, b int) WITH (format = 'json');
CREATE VIEW v WITH (primary_key = '(a, b') AS SELECT a, b FROM u;
--- empty primary key
CREATE TABLE u (a int) WITH (format = 'json');
CREATE VIEW v WITH (primary_key = '') AS SELECT a FROM u;
--- sink that is no name
CREATE TABLE u (a int) WITH (format = 'json');
CREATE VIEW v WITH (primary_key = 'a', sink = 'postgres://h/d') AS SELECT a FROM u;
--- sink of a view that is not written
CREATE TABLE u (a int) WITH (format = 'json');
CREATE VIEW v WITH (sink = 'w') AS SELECT a FROM u;
--- or replace
CREATE TABLE u (a int) WITH (format = 'json');
CREATE OR REPLACE VIEW v AS SELECT a FROM u;
