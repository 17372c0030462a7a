//! Jobs of constant rows alone, without any table.

use crate::views::river::River;

/// As many rows as a VALUES may have are planned soon; one more is refused.
#[test]
fn a_values_has_a_limit() {
    let planned = |rows: usize| {
        let rows: Vec<String> = (0..rows).map(|row| format!("({row}, 'x', NULL)")).collect();
        let sql = format!("CREATE VIEW v AS VALUES {};", rows.join(", "));
        tidemill_plan::compile(&sql, "views.sql", None)
    };
    let began = std::time::Instant::now();
    assert_eq!(planned(1000).unwrap().views.len(), 1);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    let refused = planned(1001).unwrap_err().to_string();
    assert!(refused.contains("at most 1000 are allowed"), "{refused}");
}

const VIEWS: &str = "
    CREATE MATERIALIZED VIEW three WITH (primary_key = 'column1') AS
        VALUES (1, 'a'), (2, NULL), (3, 'c');
    CREATE MATERIALIZED VIEW counted WITH (primary_key = 'k') AS
        SELECT 'all' AS k, count(*) AS n FROM three;
    CREATE MATERIALIZED VIEW less WITH (primary_key = 'a') AS
        SELECT column1 AS a FROM three EXCEPT SELECT 2;
    CREATE MATERIALIZED VIEW one WITH (primary_key = 'one') AS SELECT 1 AS one;";

/// The tables are complete soon after a start, and stay so through restarts with other numbers of
/// workers.
#[test]
fn views_of_constants_are_complete_and_stay_so() {
    let mut river = River::new(VIEWS, 1);
    for workers in [1, 3, 2] {
        river.rescale(workers);
        river.start();
        // Nothing says when the tables are made: there is no topic to wait for.
        std::thread::sleep(std::time::Duration::from_secs(2));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let sizes = ["three", "counted", "less", "one"];
        let seen = |river: &River| sizes.map(|view| river.rows(view).len());
        while seen(&river) != [3, 1, 2, 1] {
            assert!(std::time::Instant::now() < deadline, "{:?}", seen(&river));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(river.dead_letters(), 0);
        river.stop();
        assert_eq!(seen(&river), [3, 1, 2, 1]);
    }
}
