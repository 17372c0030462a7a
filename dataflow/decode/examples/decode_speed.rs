//! How fast the decoders are, beside what they are measured against: in CPU time of one thread (as
//! Linux counts it).
//!
//! Build with `cargo test --release --workspace --no-run`, then run
//! `target/release/examples/decode_speed`.

use std::hint::black_box;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidemill_decode::{Decoder, open};
use tidemill_ir::{Envelope, Format, Source, Spelling};
use tidemill_log::registry::{Registered, Registry};

const RECORDS: usize = 200_000;
const ROUNDS: usize = 10;

const NAMES: [&str; 14] = [
    "id",
    "gender",
    "first_name",
    "last_name",
    "email",
    "username",
    "phone",
    "street",
    "city",
    "country",
    "postcode",
    "age",
    "registered",
    "picture",
];

struct One(String);

impl Registry for One {
    fn register(&self, _: &str, schema: &str) -> tidemill_log::Result<Registered> {
        let schema = schema.to_owned();
        Ok(Registered {
            id: 1,
            version: 1,
            schema,
        })
    }
    fn delete(&self, _subject: &str) -> tidemill_log::Result<bool> {
        Ok(false)
    }

    fn by_id(&self, _: u32) -> tidemill_log::Result<Option<String>> {
        Ok(Some(self.0.clone()))
    }
    fn versions(&self, _: &str) -> tidemill_log::Result<Vec<Registered>> {
        Ok(Vec::new())
    }
}

#[derive(serde::Deserialize)]
struct Typed {
    country: String,
    age: i32,
}

#[derive(serde::Deserialize)]
struct Borrowed<'a> {
    country: &'a str,
    age: i32,
}

fn value(name: &str, index: usize) -> String {
    match name {
        "country" => ["Norway", "Brazil", "United Kingdom", "Iran"][index % 4].into(),
        "street" => format!("{} Long Winding Road", index % 9973),
        "id" => format!("{index:08x}-5e4f-4c27-b1f0-{index:012x}"),
        "email" => format!("someone.number{index}@example.com"),
        "picture" => format!("https://example.com/portraits/{}.jpg", index % 100),
        "registered" => "2015-02-03T10:11:12.345Z".into(),
        _ => format!("{name}-{}", index % 9973),
    }
}

fn records() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let both = (0..RECORDS).map(|index| {
        let age = (index % 80) as u8;
        let mut json = Vec::new();
        let mut avro = vec![0, 0, 0, 0, 1];
        for name in NAMES {
            let text = value(name, index);
            if name == "age" {
                json.push(format!("\"age\":{age}"));
                // Zigzag: 64 and more take two bytes.
                match age {
                    0..64 => avro.push(age * 2),
                    _ => avro.extend([0x80 | ((age * 2) & 0x7f), 1]),
                }
            } else {
                json.push(format!("\"{name}\":\"{text}\""));
                avro.push(text.len() as u8 * 2);
                avro.extend(text.bytes());
            }
        }
        (format!("{{{}}}", json.join(",")).into_bytes(), avro)
    });
    both.unzip()
}

/// Seconds of CPU time that this thread has had.
fn cpu() -> f64 {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos = read.split(' ').next().and_then(|first| first.parse().ok());
    nanos.map_or(f64::NAN, |nanos: f64| nanos / 1e9)
}

/// Millions of records a CPU-second. All rounds are timed as one: the clock is coarse.
fn speed(records: &[Vec<u8>], mut each: impl FnMut(&[u8]), mut done: impl FnMut()) -> f64 {
    let start = cpu();
    for _ in 0..ROUNDS {
        for chunk in records.chunks(8192) {
            chunk.iter().for_each(|record| each(record));
            done();
        }
    }
    (ROUNDS * records.len()) as f64 / (cpu() - start) / 1e6
}

/// The Avro records as captured changes, with their schema. Those of another connector are as long
/// and have no place.
fn changes(rows: &[Vec<u8>], row: &str, connector: &str) -> (Vec<Vec<u8>>, String) {
    let mut schema = format!(
        r#"{{"type":"record","name":"E","fields":[
        {{"name":"before","type":["null",{row}]}},{{"name":"after","type":["null","U"]}},
        {{"name":"source","type":{{"type":"record","name":"S","fields":["#
    );
    let mut text = Vec::new();
    let fields = [
        "version",
        "connector",
        "name",
        "snapshot",
        "db",
        "table",
        "sequence",
    ];
    for (index, name) in fields.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        schema += &format!(r#"{comma}{{"name":"{name}","type":"string"}}"#);
        let value = if name == "connector" {
            connector
        } else {
            "false"
        };
        if name != "sequence" {
            text.push(value.len() as u8 * 2);
            text.extend(value.bytes());
        }
    }
    schema += r#"]}},{"name":"op","type":"string"}]}"#;
    let change = |(index, row): (usize, &Vec<u8>)| {
        let sequence = format!("[\"{}\",\"0\"]", 45_449_976 + index);
        let length = [sequence.len() as u8 * 2];
        let body = [
            &row[..5],
            &[0, 2],
            &row[5..],
            &text,
            &length,
            sequence.as_bytes(),
            b"\x02c",
        ];
        body.concat()
    };
    (rows.iter().enumerate().map(change).collect(), schema)
}

fn decoder(
    format: Format,
    envelope: Envelope,
    registry: Option<Arc<dyn Registry>>,
) -> Box<dyn Decoder> {
    let fields = vec![
        Field::new("country", DataType::Utf8, true),
        Field::new("age", DataType::Int32, true),
    ];
    let source = Source {
        name: "users".into(),
        topic: "users".into(),
        format,
        envelope,
        unavailable: None,
        schema: Arc::new(Schema::new(fields)),
        key: vec![],
    };
    open(&source, registry).expect("the source is right")
}

fn measure(records: &[Vec<u8>], decoder: Box<dyn Decoder>) -> f64 {
    let decoder = std::cell::RefCell::new(decoder);
    let newest = std::cell::Cell::new(None);
    speed(
        records,
        |record| {
            let mut place = newest.get();
            decoder
                .borrow_mut()
                .push_after(record, &mut place)
                .expect("the record is right");
            newest.set(place);
        },
        || {
            black_box(decoder.borrow_mut().finish().expect("a batch"));
            // The same records come again, and none is to be a copy.
            newest.set(None);
        },
    )
}

fn arrow_avro(records: &[Vec<u8>], schema: &str) -> f64 {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let written = AvroSchema::new(schema.into());
    store
        .set(Fingerprint::Id(1), written)
        .expect("the schema is right");
    let projected = r#"{"type":"record","name":"U","fields":[
        {"name":"country","type":"string"},{"name":"age","type":"int"}]}"#;
    let decoder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_active_fingerprint(Fingerprint::Id(1))
        .with_reader_schema(AvroSchema::new(projected.into()))
        .with_batch_size(8192)
        .build_decoder()
        .expect("the schemas fit");
    let decoder = std::cell::RefCell::new(decoder);
    speed(
        records,
        |record| {
            decoder
                .borrow_mut()
                .decode(record)
                .expect("the record is right");
        },
        || {
            black_box(decoder.borrow_mut().flush().expect("a batch"));
        },
    )
}

fn main() {
    let (json, avro) = records();
    let bytes = |records: &[Vec<u8>]| records.iter().map(Vec::len).sum::<usize>() / RECORDS;
    println!(
        "JSON {} bytes, Avro {} bytes a record",
        bytes(&json),
        bytes(&avro)
    );
    let typed = |record: &[u8]| {
        let user: Typed = serde_json::from_slice(record).expect("typed");
        black_box((&user.country, user.age));
    };
    let borrowed = |record: &[u8]| {
        let user: Borrowed<'_> = serde_json::from_slice(record).expect("typed");
        black_box((user.country, user.age));
    };
    let typed = speed(&json, typed, || ());
    let borrowed = speed(&json, borrowed, || ());
    let ours = measure(
        &json,
        decoder(Format::Json(Spelling::default()), Envelope::Append, None),
    );
    println!("JSON: typed {typed:.2}, typed borrowed {borrowed:.2}, ours {ours:.2} M/CPU-s");
    println!(
        "JSON: ours to typed {:.2}, to borrowed {:.2}",
        ours / typed,
        ours / borrowed
    );
    let fields = NAMES.map(|name| {
        let kind = if name == "age" { "int" } else { "string" };
        format!(r#"{{"name":"{name}","type":"{kind}"}}"#)
    });
    let schema = format!(
        r#"{{"type":"record","name":"U","fields":[{}]}}"#,
        fields.join(",")
    );
    let format = Format::Avro {
        schema: schema.clone(),
        newest: 1,
        key: None,
    };
    let registry = Arc::new(One(schema.clone()));
    let ours = measure(&avro, decoder(format, Envelope::Append, Some(registry)));
    let theirs = arrow_avro(&avro, &schema);
    println!(
        "Avro: ours {ours:.2}, arrow-avro {theirs:.2} M/CPU-s, ratio {:.2}",
        ours / theirs
    );
    let speeds = ["tidemill", "postgres"].map(|connector| {
        let (changes, schema) = changes(&avro, &schema, connector);
        let format = Format::Avro {
            schema: schema.clone(),
            newest: 1,
            key: None,
        };
        let registry = Arc::new(One(schema));
        measure(
            &changes,
            decoder(format, Envelope::Debezium, Some(registry)),
        )
    });
    let [with, without] = speeds;
    println!("Changes in Avro: with places {with:.2}, without {without:.2} M/CPU-s");
}
