--- subject not there yet
CREATE TABLE orders WITH (topic = 'shop.orders');
--- key subject not there yet
CREATE TABLE keyless WITH (topic = 'keyless');
--- no envelope
CREATE TABLE clicks WITH (topic = 'clicks');
--- no record
CREATE TABLE plain WITH (topic = 'plain', envelope = 'append');
--- no schema
CREATE TABLE broken WITH (topic = 'broken', envelope = 'append');
--- column not in the schema
CREATE TABLE clicks (
    id bigint,
    uri text
) WITH (topic = 'clicks', envelope = 'append');
--- column of another type
CREATE TABLE clicks (id int) WITH (topic = 'clicks', envelope = 'append');
--- column of a type that no column has
CREATE TABLE odd WITH (topic = 'odd', envelope = 'append');
CREATE VIEW v AS SELECT tags FROM odd;
