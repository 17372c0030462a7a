//! A random table as it is now, and random changes of its definition.

use std::fmt::Write as _;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::kinds::{named, that_may};
use crate::types::cells::Operation;
use crate::types::kinds::{KINDS, Kind};

/// Names that some tool on the way does not take as they are.
const NAMES: [&str; 7] = [
    "plain",
    "first name",
    "größe",
    "2nd",
    "SELECT",
    "e-mail",
    "q\"q",
];

/// Types of the first column of a partitioned table's key.
const BOUNDS: [&str; 3] = ["smallint", "int", "bigint"];

/// A column of a random table.
#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: &'static Kind,
}

/// A table as it is now.
pub(super) struct Table {
    pub(super) number: usize,
    pub(super) columns: Vec<Column>,
    /// How many of the columns are the key.
    pub(super) key: usize,
    /// Columns that no view reads.
    extra: Vec<String>,
    /// Whether rows from 20 on are in a partition of their own, and whether that is attached.
    partitions: Option<bool>,
    /// Whether its keys and its views' are such that every sink takes all of their values.
    plain: bool,
    named: usize,
    /// Whether the views must be written anew.
    pub(super) altered: bool,
    /// What was done to it, for whoever looks for a fault.
    pub(super) log: Vec<String>,
}

/// A change of a definition: its SQL, and what the table is then.
pub(super) struct Ddl {
    pub(super) sql: String,
    pub(super) apply: fn(&mut Table),
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    pub(super) fn new(number: usize, plain: bool, rng: &mut StdRng) -> Self {
        let mut table = Self {
            number,
            columns: Vec::new(),
            key: rng.random_range(1..=2),
            extra: Vec::new(),
            partitions: rng.random_ratio(1, 6).then_some(true),
            plain,
            named: 0,
            altered: false,
            log: Vec::new(),
        };
        for index in 0..table.key + rng.random_range(1..6) {
            let kind = match index {
                0 if table.partitions.is_some() || plain => named(BOUNDS.choose(rng).unwrap()),
                _ if index < table.key => table.key_kind(rng),
                _ => table.any_kind(rng),
            };
            let name = table.new_name(rng);
            table.columns.push(Column { name, kind });
        }
        table
    }

    /// Its name, which is its topic's too.
    pub(super) fn name(&self) -> String {
        format!("t{}", self.number)
    }

    fn new_name(&mut self, rng: &mut StdRng) -> String {
        self.named += 1;
        format!("{}{}", NAMES.choose(rng).unwrap(), self.named)
    }

    /// A type that may be in the key of the table and of a view over it.
    fn key_kind(&self, rng: &mut StdRng) -> &'static Kind {
        if self.plain {
            return named(BOUNDS.choose(rng).unwrap());
        }
        let may = that_may(&[Operation::SourceKey, Operation::Key]);
        // Numbers and texts more often than the others.
        match rng.random_ratio(1, 2) {
            true => named(["int", "bigint", "text", "smallint"].choose(rng).unwrap()),
            false => may.choose(rng).unwrap(),
        }
    }

    /// Whether every sink takes all values of the column in a key. Cassandra takes no empty text.
    pub(super) fn may_key(&self, column: &Column) -> bool {
        !self.plain || BOUNDS.contains(&column.kind.name)
    }

    fn any_kind(&self, rng: &mut StdRng) -> &'static Kind {
        match rng.random_ratio(1, 3) {
            true => named(
                ["int", "bigint", "text", "numeric(12,3)"]
                    .choose(rng)
                    .unwrap(),
            ),
            false => KINDS.choose(rng).unwrap(),
        }
    }

    /// The names of the key's columns, as SQL writes them.
    pub(super) fn key_list(&self) -> String {
        let key = self.columns[..self.key].iter();
        let key: Vec<String> = key.map(|column| quote(&column.name)).collect();
        key.join(", ")
    }

    pub(super) fn create(&self, rng: &mut StdRng) -> String {
        let (name, mut sql) = (self.name(), self.definition(&self.name()));
        if rng.random_ratio(1, 2) {
            write!(sql, "ALTER TABLE {name} REPLICA IDENTITY FULL;").unwrap();
        }
        sql
    }

    /// `CREATE TABLE`, and its partitions.
    fn definition(&self, name: &str) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|it| format!("{} {}", quote(&it.name), it.kind.name));
        let columns: Vec<String> = columns.collect();
        let by = match self.partitions {
            Some(_) => format!("PARTITION BY RANGE ({})", quote(&self.columns[0].name)),
            None => String::new(),
        };
        let mut sql = format!(
            "CREATE TABLE {name} ({}, CONSTRAINT {name}_key PRIMARY KEY ({})) {by};",
            columns.join(", "),
            self.key_list()
        );
        if self.partitions.is_some() {
            write!(
                sql,
                "CREATE TABLE {name}_low PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO (20);
                 CREATE TABLE {name}_high PARTITION OF {name} FOR VALUES FROM (20) TO (MAXVALUE);"
            )
            .unwrap();
        }
        sql
    }

    /// A change that no view is concerned with: the pipeline goes on.
    pub(super) fn quiet(&mut self, rng: &mut StdRng) -> Ddl {
        let name = self.name();
        let column = self.columns.choose(rng).unwrap().clone();
        let (c, kind) = (quote(&column.name), column.kind);
        let nothing: fn(&mut Self) = |_| {};
        let just = |sql: String| Ddl {
            sql,
            apply: nothing,
        };
        let some = kind.values[0];
        match rng.random_range(0..14) {
            0..3 => self.add(rng),
            3 => self.drop_extra(rng),
            4 => just(format!("ALTER TABLE {name} REPLICA IDENTITY FULL")),
            5 => just(format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT")),
            6 => just(format!(
                "ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_key"
            )),
            7 => just(format!("ALTER TABLE {name} ALTER {c} SET DEFAULT {some}")),
            8 => just(format!("ALTER TABLE {name} ALTER {c} DROP DEFAULT")),
            9 => just(format!(
                "ALTER TABLE {name} ALTER {c} SET NOT NULL; \
                 ALTER TABLE {name} ALTER {c} DROP NOT NULL"
            )),
            10 => just(format!(
                "ALTER TABLE {name} RENAME TO {name}_away; ALTER TABLE {name}_away RENAME TO {name}"
            )),
            11 => self.anew(),
            12 => just(format!(
                "BEGIN; ALTER TABLE {name} DROP CONSTRAINT {name}_key;
                 ALTER TABLE {name} ADD CONSTRAINT {name}_key PRIMARY KEY ({}); COMMIT",
                self.key_list()
            )),
            _ => self.partition(rng),
        }
    }

    fn add(&mut self, rng: &mut StdRng) -> Ddl {
        // Half of the time under a name that was there before.
        let column = match rng.random_ratio(1, 2) {
            true => format!("extra{}", rng.random_range(0..2)),
            false => self.new_name(rng),
        };
        let kind = KINDS.choose(rng).unwrap();
        let default = match rng.random_ratio(1, 2) {
            true => format!(" DEFAULT {}", kind.values[0]),
            false => String::new(),
        };
        self.extra.push(column.clone());
        Ddl {
            sql: format!(
                "ALTER TABLE {} ADD {} {}{default}",
                self.name(),
                quote(&column),
                kind.name
            ),
            apply: |_| {},
        }
    }

    fn drop_extra(&mut self, rng: &mut StdRng) -> Ddl {
        let column = self.extra.choose(rng).map_or("extra0", String::as_str);
        let sql = format!(
            "ALTER TABLE {} DROP COLUMN IF EXISTS {}",
            self.name(),
            quote(column)
        );
        Ddl { sql, apply: |_| {} }
    }

    /// Another table under its name, by DROP and CREATE or by RENAME.
    fn anew(&self) -> Ddl {
        let name = self.name();
        let sql = match self.named.is_multiple_of(2) || self.partitions.is_some() {
            true => format!(
                "BEGIN; DROP TABLE {name}; DROP TABLE IF EXISTS {name}_high; {} COMMIT",
                self.definition(&name)
            ),
            false => format!(
                "BEGIN; {} ALTER TABLE {name} RENAME TO {name}_old;
                 ALTER TABLE {name}_new RENAME TO {name}; DROP TABLE {name}_old;
                 ALTER INDEX {name}_new_key RENAME TO {name}_key; COMMIT",
                self.definition(&format!("{name}_new"))
            ),
        };
        let apply = |table: &mut Self| {
            table.extra.clear();
            table.partitions = table.partitions.map(|_| true);
        };
        Ddl { sql, apply }
    }

    /// A change of the partitions; of another table, one of its rows' place.
    fn partition(&self, rng: &mut StdRng) -> Ddl {
        let name = self.name();
        let just = |sql: String| Ddl { sql, apply: |_| {} };
        match (self.partitions, rng.random_range(0..4)) {
            (None, 0) => just(format!("VACUUM FULL {name}")),
            (None, 1) => just(format!("CLUSTER {name} USING {name}_key")),
            (None, _) => just(format!("TRUNCATE {name}")),
            (Some(true), 0) => just(format!("TRUNCATE {name}_high")),
            (Some(true), 1) => Ddl {
                sql: format!(
                    "BEGIN; DROP TABLE {name}_high; CREATE TABLE {name}_high PARTITION OF {name}
                     FOR VALUES FROM (20) TO (MAXVALUE); COMMIT"
                ),
                apply: |_| {},
            },
            (Some(true), _) => Ddl {
                sql: format!("ALTER TABLE {name} DETACH PARTITION {name}_high"),
                apply: |table| table.partitions = Some(false),
            },
            (Some(false), _) => Ddl {
                sql: format!(
                    "ALTER TABLE {name} ATTACH PARTITION {name}_high
                     FOR VALUES FROM (20) TO (MAXVALUE)"
                ),
                apply: |table| table.partitions = Some(true),
            },
        }
    }

    /// A change that the views are concerned with: the job ends and names it, and is planned anew.
    pub(super) fn loud(&mut self, rng: &mut StdRng) -> Option<String> {
        let name = self.name();
        let among = self.key..self.columns.len();
        let index = rng.random_range(among);
        let c = quote(&self.columns[index].name);
        match rng.random_range(0..6) {
            0 => {
                let to = self.new_name(rng);
                let sql = format!("ALTER TABLE {name} RENAME {c} TO {}", quote(&to));
                self.columns[index].name = to;
                Some(sql)
            }
            1 if self.columns.len() > self.key + 1 => {
                self.columns.remove(index);
                Some(format!("ALTER TABLE {name} DROP {c}"))
            }
            // Dropped, and there again under the same name, of any type.
            2 => {
                let kind = self.any_kind(rng);
                self.columns[index].kind = kind;
                Some(format!(
                    "ALTER TABLE {name} DROP {c}; ALTER TABLE {name} ADD {c} {}",
                    kind.name
                ))
            }
            3 => {
                let (kind, column) = (self.any_kind(rng), self.new_name(rng));
                let sql = format!("ALTER TABLE {name} ADD {} {}", quote(&column), kind.name);
                self.columns.push(Column { name: column, kind });
                Some(sql)
            }
            4 if self.partitions.is_none() => self.other_key(rng),
            _ => {
                let kind = self.any_kind(rng);
                let using = match rng.random_ratio(1, 2) {
                    true => "NULL".to_owned(),
                    false => kind.values.choose(rng).unwrap().to_string(),
                };
                self.columns[index].kind = kind;
                Some(format!(
                    "ALTER TABLE {name} ALTER {c} DROP DEFAULT;
                     ALTER TABLE {name} ALTER {c} TYPE {} USING {using}",
                    kind.name
                ))
            }
        }
    }

    /// A new column becomes the key, all rows having another value of it.
    fn other_key(&mut self, rng: &mut StdRng) -> Option<String> {
        let name = self.name();
        let kind = named(["int", "bigint"].choose(rng).unwrap());
        let column = self.new_name(rng);
        let c = quote(&column);
        self.columns.insert(0, Column { name: column, kind });
        self.key = 1;
        Some(format!(
            "BEGIN; ALTER TABLE {name} ADD {c} {};
             UPDATE {name} AS t SET {c} = n FROM
               (SELECT ctid AS place, row_number() OVER () AS n FROM {name}) AS numbered
               WHERE t.ctid = place;
             ALTER TABLE {name} DROP CONSTRAINT {name}_key;
             ALTER TABLE {name} ADD CONSTRAINT {name}_key PRIMARY KEY ({c}); COMMIT",
            kind.name
        ))
    }

    /// As it was before a change that PostgreSQL refused.
    pub(super) fn shape(&self) -> (Vec<Column>, usize) {
        (self.columns.clone(), self.key)
    }

    pub(super) fn reshape(&mut self, (columns, key): (Vec<Column>, usize)) {
        (self.columns, self.key) = (columns, key);
    }
}
