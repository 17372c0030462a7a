//! The pipeline that is tortured, and what its views and topics must hold.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use tidemill_log::envelope::Decoder;

use crate::harness::{Place, View};

/// Partitions of the topics.
const PARTITIONS: u32 = 4;
/// More records than a partition ever holds.
const RECORDS_MAX: u32 = 100_000_000;

const INGEST: &str = r#"
[schedule]
every = "400ms"
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 20
page_size_parameter = "results"
page_parameter = "page"
parameters = { seed = "torture" }
timeout = "5s"
backoff_max = "1s"
[land]
table = "users"
key = "id"
columns = [
    { name = "id", path = "login.uuid", type = "text" },
    { name = "first_name", path = "name.first", type = "text" },
    { name = "country", path = "location.country", type = "text" },
    { name = "age", path = "dob.age", type = "int" },
]
[[seed]]
table = "offers"
file = "offers.csv"
key = "id"
columns = [
    { name = "id", type = "int" },
    { name = "country", type = "text" },
    { name = "age_from", type = "int" },
    { name = "weight", type = "double", nullable = true },
    { name = "note", type = "text", nullable = true },
]
[publish]
partitions = PARTITIONS
"#;

/// A seed makes no exact decimals, so the table is there before it.
const OFFERS_TABLE: &str = "CREATE TABLE offers (id int PRIMARY KEY, country text NOT NULL,
    age_from int NOT NULL, amount numeric(10, 2) NOT NULL DEFAULT 0, weight double precision,
    note text)";

const OFFERS: &str = "id,country,age_from,weight,note\n";

/// A view: its name, its key, its SQL, and its columns.
type Served = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, DataType)],
);

/// The views. PostgreSQL takes the same SQL. Weights are sums of powers of two, so that its sums
/// are exact in whatever order it adds.
const VIEWS: &[Served] = &[
    (
        "created_users",
        "id",
        "SELECT id, first_name, country, age FROM users",
        &[
            ("id", DataType::Utf8),
            ("first_name", DataType::Utf8),
            ("country", DataType::Utf8),
            ("age", DataType::Int32),
        ],
    ),
    (
        "offered",
        "offer, id",
        "SELECT o.id AS offer, u.id, u.first_name, u.country, u.age, o.amount, o.note
         FROM offers AS o JOIN users AS u ON o.country = u.country AND u.age > o.age_from",
        &[
            ("offer", DataType::Int32),
            ("id", DataType::Utf8),
            ("first_name", DataType::Utf8),
            ("country", DataType::Utf8),
            ("age", DataType::Int32),
            ("amount", DataType::Decimal128(10, 2)),
            ("note", DataType::Utf8),
        ],
    ),
    (
        "youngest",
        "country, place",
        "SELECT country, place, id, first_name, age FROM (
             SELECT *, row_number() OVER (PARTITION BY country ORDER BY age, id) AS place
             FROM users) AS placed
         WHERE place <= 3",
        &[
            ("country", DataType::Utf8),
            ("place", DataType::Int64),
            ("id", DataType::Utf8),
            ("first_name", DataType::Utf8),
            ("age", DataType::Int32),
        ],
    ),
    (
        "countries",
        "country",
        "SELECT country, count(*) AS users, sum(age) AS ages, min(age) AS youngest,
             max(age) AS oldest, max(first_name) AS last_name
         FROM users GROUP BY country",
        &[
            ("country", DataType::Utf8),
            ("users", DataType::Int64),
            ("ages", DataType::Int64),
            ("youngest", DataType::Int32),
            ("oldest", DataType::Int32),
            ("last_name", DataType::Utf8),
        ],
    ),
    (
        "offers_by_country",
        "country",
        "SELECT country, count(*) AS offers, sum(amount) AS amount, min(amount) AS least,
             max(amount) AS most, sum(weight) AS weight, avg(weight) AS mean, count(note) AS notes
         FROM offers GROUP BY country",
        &[
            ("country", DataType::Utf8),
            ("offers", DataType::Int64),
            ("amount", DataType::Decimal128(20, 2)),
            ("least", DataType::Decimal128(10, 2)),
            ("most", DataType::Decimal128(10, 2)),
            ("weight", DataType::Float64),
            ("mean", DataType::Float64),
            ("notes", DataType::Int64),
        ],
    ),
    (
        "offered_by_country",
        "country",
        "SELECT u.country, count(*) AS pairs, sum(o.amount) AS amount
         FROM offers AS o JOIN users AS u ON o.country = u.country AND u.age > o.age_from
         GROUP BY u.country",
        &[
            ("country", DataType::Utf8),
            ("pairs", DataType::Int64),
            ("amount", DataType::Decimal128(20, 2)),
        ],
    ),
];

/// Writes the pipeline's files and makes the table that it does not make.
pub(crate) fn write(place: &Place) {
    let ingest = INGEST.replace("PARTITIONS", &PARTITIONS.to_string());
    place.write("ingest.toml", &ingest);
    place.write("offers.csv", OFFERS);
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    client.batch_execute(OFFERS_TABLE).unwrap();
    let mut sql = String::new();
    for table in ["users", "offers"] {
        sql += &format!(
            "CREATE TABLE {table}
               WITH (topic = '{table}', format = 'avro', envelope = 'debezium');\n"
        );
    }
    for (name, key, select, _) in VIEWS {
        sql +=
            &format!("CREATE MATERIALIZED VIEW {name} WITH (primary_key = '{key}') AS {select};\n");
    }
    place.write("views.sql", &sql);
}

type Rows = BTreeSet<Vec<String>>;

/// How a view differs from what PostgreSQL answers.
pub(crate) struct Difference {
    pub(crate) view: &'static str,
    pub(crate) missing: Vec<Vec<String>>,
    pub(crate) wrong: Vec<Vec<String>>,
}

/// The views that are not what PostgreSQL answers, and how many rows each has.
pub(crate) fn compare(
    place: &Place,
    client: &mut postgres::Client,
) -> Result<(Vec<Difference>, BTreeMap<&'static str, usize>), postgres::Error> {
    let (mut differences, mut counts) = (Vec::new(), BTreeMap::new());
    for (name, _, select, columns) in VIEWS {
        let right = answer(client, select, columns)?;
        let found = place.view(&View::new(name, columns));
        let found: Rows = found.into_iter().map(|row| plain(row, columns)).collect();
        counts.insert(*name, right.len());
        if found != right {
            differences.push(Difference {
                view: name,
                missing: right.difference(&found).take(5).cloned().collect(),
                wrong: found.difference(&right).take(5).cloned().collect(),
            });
        }
    }
    Ok((differences, counts))
}

fn answer(
    client: &mut postgres::Client,
    select: &str,
    columns: &[(&'static str, DataType)],
) -> Result<Rows, postgres::Error> {
    let messages = client.simple_query(select)?;
    let rows = messages.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text =
        |row: &postgres::SimpleQueryRow, column| row.get(column).unwrap_or_default().to_owned();
    let rows = rows.map(|row| (0..row.len()).map(|column| text(row, column)).collect());
    Ok(rows.map(|row| plain(row, columns)).collect())
}

/// A row with each double written in one way.
fn plain(mut row: Vec<String>, columns: &[(&'static str, DataType)]) -> Vec<String> {
    for (cell, (_, kind)) in row.iter_mut().zip(columns) {
        if *kind == DataType::Float64 && !cell.is_empty() {
            *cell = cell.parse::<f64>().unwrap().to_string();
        }
    }
    row
}

/// Every change is in its topic once and in order. How many there are.
pub(crate) fn check_topics(place: &Place) -> usize {
    let mut count = 0;
    for topic in ["users", "offers"] {
        let registry = tidemill_log::registry::open(&place.registry).unwrap();
        let mut decoder = Decoder::new(topic, registry);
        let mut last = BTreeMap::new();
        let records = place.records_up_to(topic, RECORDS_MAX);
        assert!(!records.is_empty(), "topic {topic} is empty");
        for record in records {
            let position = decoder.position_of(&record).unwrap();
            let position = position.unwrap_or_else(|| panic!("{topic}: {record:?}"));
            let before = last.insert(record.partition, position);
            assert!(
                before < Some(position),
                "topic {topic}, partition {}, offset {}: {position:?} after {before:?}",
                record.partition,
                record.offset
            );
            count += 1;
        }
    }
    count
}
