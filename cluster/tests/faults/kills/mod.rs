//! Crashes of the real binary at random moments: afterwards every view is what the SQL says.

mod changed;
mod drained;
mod frozen;
mod peers;
mod river;
mod second;
mod sinks;
mod zombie;

use crate::harness::Place;

/// A pipeline that lands users in a table called as the pipeline is, and has one view of them.
/// Returns the table's name.
fn lands_users(place: &Place, feed: &str, view: impl Fn(&str) -> String) -> String {
    let table = place.name.clone();
    let columns = "[{ name = \"id\", path = \"login.uuid\", type = \"text\" },
                    { name = \"age\", path = \"dob.age\", type = \"int\" }]";
    let land = format!("[land]\ntable = \"{table}\"\nkey = \"id\"\ncolumns = {columns}\n");
    place.write("ingest.toml", &format!("{feed}{land}"));
    let view = view(&table);
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro', envelope = 'debezium');
             CREATE MATERIALIZED VIEW {view};"
        ),
    );
    table
}
