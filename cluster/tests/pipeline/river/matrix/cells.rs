//! The changes of tables that leave the pipeline running: each with a table of its own, made with
//! the same columns, read by the same view.

/// What becomes of a table's capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream tells all of it.
    Streamed,
    /// The table is read anew.
    Anew,
}

impl End {
    /// As the documentation begins to tell it.
    pub(crate) fn told(self) -> &'static str {
        match self {
            Self::Streamed => "in the stream",
            Self::Anew => "it is read anew",
        }
    }
}

/// A change of one table. `{t}` stands for the table, `{pub}` for the capture's publication.
pub(crate) struct Cell {
    /// The table's name.
    pub(crate) table: &'static str,
    /// The row of `docs/schema-changes.md` that tells of it.
    pub(crate) docs: &'static str,
    pub(crate) end: End,
    /// How the table is made.
    pub(crate) made: &'static [&'static str],
    /// The change, each statement a transaction.
    pub(crate) change: &'static [&'static str],
    /// A column, or an expression, that a view reads which is added later.
    pub(crate) later: Option<&'static str>,
}

const PLAIN: &[&str] = &[
    "CREATE TABLE {t} (id int PRIMARY KEY, n int, u int, s varchar(10))",
    "INSERT INTO {t} SELECT g, g, g, 'row' FROM generate_series(1, 40) g",
];
const PARTS: &[&str] = &[
    "CREATE TABLE {t} (id int PRIMARY KEY, n int, u int, s varchar(10)) PARTITION BY RANGE (id)",
    "CREATE TABLE {t}_0 PARTITION OF {t} FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES FROM (500) TO (2000)",
    "INSERT INTO {t} SELECT g, g, g, 'row' FROM generate_series(1, 990, 30) g",
];
const FULL: &[&str] = &[PLAIN[0], PLAIN[1], "ALTER TABLE {t} REPLICA IDENTITY FULL"];
const UNIQUE: &[&str] = &[
    "CREATE TABLE {t} (id int PRIMARY KEY, n int, u int NOT NULL UNIQUE DEFAULT nextval('numbers'),
                       s varchar(10))",
    "INSERT INTO {t} (id, n, s) SELECT g, g, 'row' FROM generate_series(1, 40) g",
];

/// Waits until a running ingest has noticed what was done.
pub(crate) const LOOKS: &str = "DO $$ BEGIN";
/// What is done only then, so that a running ingest sees both apart.
pub(crate) const THEN: &str = "/* then */";
const LOOKED_AT_DROP: &str = "DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM _tidemill_capture_tables
                      WHERE table_name = '{t}' AND shape LIKE '%\"dropped\":[\"u\"]%')
    LOOP COMMIT; PERFORM pg_sleep(0.05); END LOOP; END $$";
const LOOKED_AT_PART: &str = "DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM _tidemill_capture_tables
                      WHERE table_name = '{t}' AND shape LIKE '%' || '{t}_2'::regclass::oid || '%')
    LOOP COMMIT; PERFORM pg_sleep(0.05); END LOOP; END $$";

const fn streamed(
    table: &'static str,
    docs: &'static str,
    change: &'static [&'static str],
) -> Cell {
    Cell {
        table,
        docs,
        end: End::Streamed,
        made: PLAIN,
        change,
        later: None,
    }
}

const fn anew(table: &'static str, docs: &'static str, change: &'static [&'static str]) -> Cell {
    Cell {
        end: End::Anew,
        ..streamed(table, docs, change)
    }
}

const fn parts(cell: Cell) -> Cell {
    Cell {
        made: PARTS,
        ..cell
    }
}

const fn later(cell: Cell, column: &'static str) -> Cell {
    Cell {
        later: Some(column),
        ..cell
    }
}

const ROWS: &str = "`INSERT`, `UPDATE`, `DELETE`; `TRUNCATE` of a table without partitions";
const ADDED: &str = "`ADD COLUMN` without a default, or of a generated column; `DROP COLUMN`";
const FILLED: &str = "`ADD COLUMN` with a default, a serial or an identity column";
const VALUES: &str = "`ALTER COLUMN TYPE` that rewrites the table, or to a type or collation that \
                      compares otherwise (`text` to `citext`)";
const TYPES: &str = "`ALTER COLUMN TYPE` to one that compares the same and rewrites nothing \
    (`varchar(9)` to `text`, `numeric(9,2)` to `numeric(12,2)`); `SET` and `DROP NOT NULL`";
const NAMED: &str = "`DROP TABLE` and `CREATE TABLE` of the same name, a swap by `RENAME`";
const KEY: &str = "primary key changed, or dropped and added again";
const PART: &str = "`DETACH`, `DROP` or `TRUNCATE` of a partition or of all; `VACUUM FULL` \
                    of one, which looks like it";
const IDENTITY: &str = "`REPLICA IDENTITY DEFAULT`, `FULL` or `USING INDEX` of the key";
const MEMBER: &str = "a table is taken out of the publication, gets a row filter or a column list \
                      there, also for a moment; other options of the publication";

/// All of them.
pub(crate) const CELLS: &[Cell] = &[
    streamed(
        "rows",
        ROWS,
        &["TRUNCATE {t}", "INSERT INTO {t} VALUES (1101, 1, 1, 'new')"],
    ),
    parts(anew(
        "root_truncated",
        PART,
        &["TRUNCATE {t}", "INSERT INTO {t} VALUES (1107, 1)"],
    )),
    parts(streamed(
        "moved_row",
        ROWS,
        &["UPDATE {t} SET id = id + 1000 WHERE id = 31"],
    )),
    later(
        streamed(
            "added",
            ADDED,
            &[
                "ALTER TABLE {t} ADD x int",
                "UPDATE {t} SET x = 5 WHERE id < 9",
            ],
        ),
        "x",
    ),
    streamed(
        "generated",
        ADDED,
        &["ALTER TABLE {t} ADD x int GENERATED ALWAYS AS (n * 2) STORED"],
    ),
    streamed(
        "dropped",
        ADDED,
        &[
            "ALTER TABLE {t} DROP u",
            "INSERT INTO {t} VALUES (1170, 1, 'x')",
        ],
    ),
    later(
        anew(
            "added_default",
            FILLED,
            &["ALTER TABLE {t} ADD x int NOT NULL DEFAULT 5"],
        ),
        "x",
    ),
    later(
        anew("added_serial", FILLED, &["ALTER TABLE {t} ADD x serial"]),
        "x",
    ),
    later(
        parts(anew(
            "added_parts",
            FILLED,
            &["ALTER TABLE {t} ADD x int DEFAULT 5"],
        )),
        "x",
    ),
    later(
        anew(
            "dropped_added",
            "`DROP COLUMN`, and later `ADD COLUMN` of the same name",
            &[
                "ALTER TABLE {t} DROP u",
                LOOKED_AT_DROP,
                "ALTER TABLE {t} ADD u int",
            ],
        ),
        "u",
    ),
    later(
        Cell {
            made: &[
                "CREATE TABLE {t} (id int PRIMARY KEY, n int, s varchar(10),
                                   u int GENERATED ALWAYS AS (n + 1) STORED)",
                "INSERT INTO {t} SELECT g, g, 'row' FROM generate_series(1, 40) g",
            ],
            ..anew(
                "undone",
                "`ALTER COLUMN … DROP EXPRESSION` of a generated column",
                &["ALTER TABLE {t} ALTER u DROP EXPRESSION"],
            )
        },
        "u",
    ),
    later(
        anew(
            "renamed_unused",
            "`RENAME COLUMN`",
            &[
                "ALTER TABLE {t} RENAME u TO v",
                "UPDATE {t} SET v = 3 WHERE id < 20",
            ],
        ),
        "v",
    ),
    anew(
        "computed",
        VALUES,
        &["ALTER TABLE {t} ALTER n TYPE int USING n + 1000"],
    ),
    anew(
        "shortened",
        VALUES,
        &["ALTER TABLE {t} ALTER s TYPE varchar(2) USING left(s, 2)"],
    ),
    streamed(
        "lengthened",
        TYPES,
        &[
            "ALTER TABLE {t} ALTER s TYPE varchar(20)",
            "UPDATE {t} SET s = 'longer than ten' WHERE id < 9",
        ],
    ),
    streamed(
        "texted",
        TYPES,
        &[
            "ALTER TABLE {t} ALTER s TYPE text",
            "UPDATE {t} SET s = 'longer than ten' WHERE id < 9",
        ],
    ),
    streamed(
        "never_null",
        TYPES,
        &[
            "INSERT INTO {t} (id) VALUES (1901)",
            "UPDATE {t} SET n = 0 WHERE n IS NULL",
            "ALTER TABLE {t} ALTER n SET NOT NULL",
        ],
    ),
    Cell {
        made: &[PLAIN[0], PLAIN[1], "ALTER TABLE {t} ALTER n SET NOT NULL"],
        ..streamed(
            "may_be_null",
            TYPES,
            &[
                "ALTER TABLE {t} ALTER n DROP NOT NULL",
                "INSERT INTO {t} (id) VALUES (1901)",
            ],
        )
    },
    Cell {
        made: &[
            "CREATE TYPE mood AS ENUM ('low', 'high')",
            "CREATE TABLE {t} (id int PRIMARY KEY, n int, u int, s varchar(10),
                               mood mood DEFAULT 'low')",
            "INSERT INTO {t} SELECT g, g, g, 'row' FROM generate_series(1, 40) g",
        ],
        ..anew(
            "moods",
            "`ALTER TYPE … RENAME VALUE` of an enum, or an altered composite type",
            &[
                "ALTER TYPE mood RENAME VALUE 'low' TO 'calm'",
                "ALTER TYPE mood ADD VALUE 'wild'",
                "UPDATE {t} SET mood = 'wild' WHERE id < 9",
            ],
        )
    },
    anew(
        "made_anew",
        NAMED,
        &[
            "DROP TABLE {t}",
            "CREATE TABLE {t} (id int PRIMARY KEY, n int, u int, s varchar(10))",
            "INSERT INTO {t} VALUES (1101, 1, 1, 'new'), (1102, 2, 2, 'new')",
        ],
    ),
    anew(
        "swap_a",
        NAMED,
        &[
            "BEGIN; ALTER TABLE swap_a RENAME TO swapped; ALTER TABLE swap_b RENAME TO swap_a;
             ALTER TABLE swapped RENAME TO swap_b; UPDATE swap_a SET n = -1 WHERE id < 9; COMMIT",
        ],
    ),
    anew("swap_b", NAMED, &[]),
    streamed(
        "renamed_back",
        "`RENAME TABLE` away and back",
        &[
            "ALTER TABLE {t} RENAME TO renamed_away",
            "UPDATE renamed_away SET n = -1 WHERE id < 9",
            "ALTER TABLE renamed_away RENAME TO {t}",
        ],
    ),
    anew(
        "key_again",
        KEY,
        &[
            "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey",
            "ALTER TABLE {t} ADD PRIMARY KEY (id)",
        ],
    ),
    parts(streamed(
        "new_part",
        "a new, empty partition",
        &[
            "CREATE TABLE {t}_2 PARTITION OF {t} FOR VALUES FROM (2000) TO (3000)",
            LOOKED_AT_PART,
            "/* then */ INSERT INTO {t} VALUES (2001, 1, 1, 'new')",
        ],
    )),
    parts(anew(
        "attached",
        "`ATTACH PARTITION` of one with rows",
        &[
            "CREATE TABLE {t}_2 (LIKE {t} INCLUDING ALL)",
            "INSERT INTO {t}_2 SELECT g, g, g, 'part' FROM generate_series(2000, 2010) g",
            "ALTER TABLE {t} ATTACH PARTITION {t}_2 FOR VALUES FROM (2000) TO (3000)",
        ],
    )),
    parts(anew(
        "detached",
        PART,
        &["ALTER TABLE {t} DETACH PARTITION {t}_1"],
    )),
    parts(anew("part_dropped", PART, &["DROP TABLE {t}_1"])),
    parts(anew("part_truncated", PART, &["TRUNCATE {t}_0"])),
    streamed(
        "identity_full",
        IDENTITY,
        &["ALTER TABLE {t} REPLICA IDENTITY FULL"],
    ),
    Cell {
        made: FULL,
        ..streamed(
            "identity_default",
            IDENTITY,
            &["ALTER TABLE {t} REPLICA IDENTITY DEFAULT"],
        )
    },
    streamed(
        "identity_key",
        IDENTITY,
        &["ALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_pkey"],
    ),
    Cell {
        made: UNIQUE,
        ..anew(
            "identity_index",
            "`REPLICA IDENTITY USING INDEX` without the key's columns, for a moment",
            &[
                "ALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_u_key",
                "UPDATE {t} SET id = id + 1000 WHERE id < 9",
                "DELETE FROM {t} WHERE id < 12",
                "ALTER TABLE {t} REPLICA IDENTITY DEFAULT",
            ],
        )
    },
    streamed(
        "bystander",
        "`CREATE TABLE`, in another publication `FOR ALL TABLES` too",
        &[
            "CREATE TABLE beside (id int PRIMARY KEY)",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "INSERT INTO beside VALUES (1)",
        ],
    ),
    anew(
        "member_gone",
        MEMBER,
        &["ALTER PUBLICATION {pub} DROP TABLE {t}"],
    ),
    anew(
        "member_back",
        MEMBER,
        &[
            "ALTER PUBLICATION {pub} DROP TABLE {t}",
            "DELETE FROM {t} WHERE id < 20",
            "ALTER PUBLICATION {pub} ADD TABLE {t}",
        ],
    ),
    anew(
        "filtered",
        MEMBER,
        &[
            "ALTER PUBLICATION {pub} DROP TABLE {t}",
            "ALTER PUBLICATION {pub} ADD TABLE {t} WHERE (id > 1000)",
        ],
    ),
    anew(
        "listed",
        MEMBER,
        &[
            "ALTER PUBLICATION {pub} DROP TABLE {t}",
            "ALTER PUBLICATION {pub} ADD TABLE {t} (id, s)",
        ],
    ),
];
