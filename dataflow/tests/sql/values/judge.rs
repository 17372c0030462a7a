//! One expression over the same rows here and in PostgreSQL.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use postgres::{Client, NoTls, SimpleQueryMessage};
use rand::Rng;
use rand::rngs::StdRng;
use tidemill_functions::Kind;
use tidemill_ir::{Job, RelOp};
use tidemill_plan::compile;

use crate::values::calls::Call;
use crate::values::edges::{COLUMNS, of};

/// Rows of edge values.
const ROWS: usize = 48;

/// PostgreSQL with a table of edge values, and the same rows here.
pub(crate) struct Judge {
    client: Client,
    columns: Vec<ArrayRef>,
}

/// What came of an expression.
pub(crate) enum Outcome {
    /// It is refused before anything runs.
    Refused(String),
    Compared {
        rows: usize,
        differences: Vec<Difference>,
    },
}

/// A row on which the two differ. An error is an [`Err`].
pub(crate) struct Difference {
    row: String,
    ours: Result<Option<String>, String>,
    theirs: Result<Option<String>, String>,
}

impl Difference {
    /// Whether PostgreSQL has an answer and we refuse the row.
    pub(crate) fn only_ours_fails(&self) -> bool {
        self.ours.is_err()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n    ours   {:?}\n    theirs {:?}\n    over {}",
            self.ours, self.theirs, self.row
        )
    }
}

/// Evaluates an expression in PostgreSQL row by row where the whole fails.
const TRY: &str = "CREATE FUNCTION pg_temp.attempt(e text) RETURNS TABLE (v text, failed text)
    LANGUAGE plpgsql AS $$
    DECLARE r int;
    BEGIN
        BEGIN
            RETURN QUERY EXECUTE format('SELECT (%s)::text, NULL::text FROM edges ORDER BY id', e);
            RETURN;
        EXCEPTION WHEN others THEN NULL;
        END;
        FOR r IN SELECT id FROM edges ORDER BY id LOOP
            BEGIN
                EXECUTE format('SELECT (%s)::text FROM edges WHERE id = %s', e, r) INTO v;
                failed := NULL;
            EXCEPTION WHEN others THEN
                v := NULL;
                failed := SQLERRM;
            END;
            RETURN NEXT;
        END LOOP;
    END $$";

impl Judge {
    pub(crate) fn connect(rng: &mut StdRng) -> Option<Self> {
        let Ok(url) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
            // Past the harness, which hides what a passing test prints.
            let line = "left out: values needs TIDEMILL_TEST_POSTGRES (run ./test)\n";
            let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            return None;
        };
        let mut client = Client::connect(&url, NoTls).unwrap();
        // The database's collation is C.UTF-8: text sorts by its bytes, as in views.
        let columns = COLUMNS
            .iter()
            .map(|(name, _, declared)| format!("{name} {declared}"));
        let columns: Vec<String> = columns.collect();
        let begin = format!(
            "SET TimeZone = 'UTC'; SET DateStyle = ISO; SET extra_float_digits = 1;
             SET client_min_messages = warning; SET standard_conforming_strings = on;
             CREATE TEMP TABLE edges (id int, {}); {TRY}",
            columns.join(", ")
        );
        client.batch_execute(&begin).unwrap();
        for row in 0..ROWS {
            client.batch_execute(&insert(row, rng)).unwrap();
        }
        let columns = COLUMNS.iter().map(|(name, kind, declared)| {
            let texts = all(&mut client, name, *kind);
            column(&texts, *kind, declared)
        });
        let columns = columns.collect();
        Some(Self { client, columns })
    }

    /// Both answers, row by row.
    pub(crate) fn compare(&mut self, call: &Call) -> Outcome {
        let ours = match self.ours(call) {
            Ok(ours) => ours,
            // What can never have an answer is refused at once.
            Err(_) if self.theirs(call).iter().all(Result::is_err) => {
                return Outcome::Compared {
                    rows: 0,
                    differences: Vec::new(),
                };
            }
            Err(why) => return Outcome::Refused(why),
        };
        let theirs = self.theirs(call);
        assert_eq!(ours.len(), theirs.len(), "{call}");
        let pairs = ours.into_iter().zip(theirs).enumerate();
        let differ = pairs.filter(|(_, (ours, theirs))| match (ours, theirs) {
            (Err(_), Err(_)) => false,
            (Ok(ours), Ok(theirs)) => !same(ours.as_deref(), theirs.as_deref(), call.gives),
            _ => true,
        });
        let differences = differ.map(|(row, (ours, theirs))| Difference {
            row: self.row(row, call),
            ours,
            theirs,
        });
        Outcome::Compared {
            rows: ROWS,
            differences: differences.collect(),
        }
    }

    /// Whether planning refuses the call.
    pub(crate) fn refuses(&self, call: &Call) -> bool {
        self.ours(call).is_err()
    }

    /// The type that PostgreSQL gives the expression, or why it refuses to.
    pub(crate) fn their_type(&mut self, sql: &str) -> Result<String, String> {
        let prepared = self
            .client
            .prepare(&format!("SELECT {sql} AS x FROM edges"));
        match prepared {
            Ok(prepared) => Ok(prepared.columns()[0].type_().name().to_owned()),
            Err(error) => Err(error.as_db_error().unwrap().message().to_owned()),
        }
    }

    /// The type that planning gives the call, or why it refuses to.
    pub(crate) fn our_type(&self, call: &Call) -> Result<Kind, String> {
        let job = Self::planned(call)?;
        let field = job.views[0].rel.schema.field(0).clone();
        Ok(match field.data_type() {
            DataType::Boolean => Kind::Bool,
            DataType::Int32 => Kind::Int,
            DataType::Int64 => Kind::Long,
            DataType::Decimal128(..) => Kind::Numeric,
            DataType::Float32 => Kind::Real,
            DataType::Float64 => Kind::Double,
            DataType::Utf8 => Kind::Text,
            DataType::Binary => Kind::Bytes,
            DataType::Date32 => Kind::Date,
            DataType::Timestamp(_, None) => Kind::Timestamp,
            DataType::Timestamp(..) => Kind::Timestamptz,
            other => panic!("{call} is {other}"),
        })
    }

    /// The row's values that the call names.
    fn row(&self, row: usize, call: &Call) -> String {
        let named = COLUMNS.iter().zip(&self.columns);
        let named = named.filter(|((name, ..), _)| call.sql.contains(name));
        let shown = named.map(|((name, ..), column)| {
            let value = arrow::util::display::array_value_to_string(column, row);
            format!("{name} = {:?}", value.unwrap())
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// A view whose first column is the call.
    fn planned(call: &Call) -> Result<Job, String> {
        let declared = COLUMNS
            .iter()
            .map(|(name, _, kind)| format!("{name} {kind}"));
        let declared: Vec<String> = declared.collect();
        let expression = match call.gives {
            Kind::Interval | Kind::Texts => format!("CAST({} AS text)", call.sql),
            _ => call.sql.clone(),
        };
        let sql = format!(
            "CREATE TABLE t ({}) WITH (format = 'json'); CREATE VIEW v AS SELECT {expression} AS \
             x, i1 AS keep FROM t",
            declared.join(", ")
        );
        compile(&sql, "values", None).map_err(|error| error.to_string())
    }

    fn ours(&self, call: &Call) -> Result<Vec<Result<Option<String>, String>>, String> {
        let job = Self::planned(call)?;
        let RelOp::Compute { outputs, .. } = &job.views[0].rel.op else {
            panic!("{call} is no Compute");
        };
        let schema = Arc::clone(&job.sources[0].schema);
        let columns = schema.fields().iter().map(|field| {
            let index = COLUMNS
                .iter()
                .position(|(name, ..)| name == field.name())
                .unwrap();
            Arc::clone(&self.columns[index])
        });
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
        let evaluate = |batch: &RecordBatch| {
            let value = outputs[0].expr.evaluate(batch);
            let value = value.and_then(|value| value.into_array(batch.num_rows()));
            value.map_err(|error| error.strip_backtrace())
        };
        if let Ok(all) = evaluate(&batch) {
            return Ok((0..ROWS).map(|row| Ok(shown(&all, row))).collect());
        }
        let each = (0..ROWS).map(|row| evaluate(&batch.slice(row, 1)).map(|one| shown(&one, 0)));
        Ok(each.collect())
    }

    fn theirs(&mut self, call: &Call) -> Vec<Result<Option<String>, String>> {
        let asked = asked(&call.sql, call.gives).replace('\'', "''");
        let rows = self
            .client
            .simple_query(&format!("SELECT v, failed FROM pg_temp.attempt('{asked}')"));
        let rows = rows.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        let rows = rows.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(match row.get(1) {
                Some(failed) => Err(failed.to_owned()),
                None => Ok(row.get(0).map(str::to_owned)),
            }),
            _ => None,
        });
        rows.collect()
    }
}

fn insert(row: usize, rng: &mut StdRng) -> String {
    let values = COLUMNS.iter().map(|(_, kind, _)| {
        let edges = of(*kind);
        match rng.random_range(0..12) {
            0 => "NULL".to_owned(),
            _ => format!(
                "'{}'",
                edges[rng.random_range(0..edges.len())].replace('\'', "''")
            ),
        }
    });
    let values: Vec<String> = values.collect();
    format!("INSERT INTO edges VALUES ({row}, {})", values.join(", "))
}

/// SQL of PostgreSQL that gives a value in the form that [`shown`] has.
fn asked(sql: &str, kind: Kind) -> String {
    match kind {
        Kind::Date => format!("(({sql}) - DATE '1970-01-01')"),
        Kind::Timestamp | Kind::Timestamptz => {
            format!("(extract(epoch FROM ({sql})) * 1000000)::bigint")
        }
        _ => sql.to_owned(),
    }
}

fn all(client: &mut Client, name: &str, kind: Kind) -> Vec<Option<String>> {
    let sql = format!(
        "SELECT ({})::text FROM edges ORDER BY id",
        asked(name, kind)
    );
    let rows = client.query(&sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn column(texts: &[Option<String>], kind: Kind, declared: &str) -> ArrayRef {
    let texts = texts.iter().map(Option::as_deref);
    fn read<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
        text.map(|text| text.parse().ok().unwrap())
    }
    match kind {
        Kind::Bool => Arc::new(
            texts
                .map(|t| t.map(|t| t == "true"))
                .collect::<BooleanArray>(),
        ),
        Kind::Int => Arc::new(texts.map(read::<i32>).collect::<Int32Array>()),
        Kind::Long => Arc::new(texts.map(read::<i64>).collect::<Int64Array>()),
        Kind::Real => Arc::new(texts.map(read::<f32>).collect::<Float32Array>()),
        Kind::Double => Arc::new(texts.map(read::<f64>).collect::<Float64Array>()),
        Kind::Text => Arc::new(texts.collect::<StringArray>()),
        Kind::Bytes => {
            let bytes = texts.map(|t| t.map(|t| unhex(t.strip_prefix("\\x").unwrap())));
            Arc::new(bytes.collect::<BinaryArray>())
        }
        Kind::Date => Arc::new(texts.map(read::<i32>).collect::<Date32Array>()),
        Kind::Timestamp | Kind::Timestamptz => {
            let column = texts
                .map(read::<i64>)
                .collect::<TimestampMicrosecondArray>();
            match kind {
                Kind::Timestamp => Arc::new(column),
                _ => Arc::new(column.with_timezone("UTC")),
            }
        }
        Kind::Numeric => {
            let (precision, scale) = declared[8..declared.len() - 1].split_once(',').unwrap();
            let digits = texts.map(|t| t.map(|t| t.replace('.', "").parse::<i128>().unwrap()));
            let column = digits.collect::<Decimal128Array>();
            let (precision, scale) = (precision.parse().unwrap(), scale.parse().unwrap());
            Arc::new(column.with_precision_and_scale(precision, scale).unwrap())
        }
        Kind::Json | Kind::Jsonb => Arc::new(texts.collect::<StringArray>()),
        Kind::Interval | Kind::Texts => unreachable!("no column holds {kind:?}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Our value as plain text: numbers as digits, dates as days, moments as microseconds.
fn shown(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{hex}")
        }
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => column
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
            .to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        other => panic!("a column of {other} is not compared"),
    })
}

fn same(ours: Option<&str>, theirs: Option<&str>, kind: Kind) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return ours.is_none() && theirs.is_none();
    };
    match kind {
        Kind::Double => {
            let (a, b): (f64, f64) = (number(ours), number(theirs));
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
        }
        Kind::Real => {
            let (a, b): (f32, f32) = (number(ours), number(theirs));
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
        }
        // The scale of a numeric is that of its column; its value is compared.
        Kind::Numeric => digits(ours) == digits(theirs),
        _ => ours == theirs,
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    let parsed = text.parse().ok();
    parsed.unwrap_or_else(|| panic!("`{text}` is no number"))
}

fn digits(text: &str) -> &str {
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    if text == "-0" { "0" } else { text }
}
