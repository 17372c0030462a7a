//! What cannot be verified, and what is said of it.

use crate::harness::Place;
use crate::verify::damage::Tables;
use crate::verify::people::{PATIENCE, VIEWS, arrived, settle, write};

#[test]
fn what_cannot_be_verified_is_told_plainly() {
    for place in Place::all("refused") {
        write(&place);
        let never = place.start("verify", &[]).ends(1, PATIENCE);
        assert!(never.contains("run the pipeline first"), "{never}");
        let mut job = place.start("dataflow", &["-w", "1"]);
        job.says("starting");
        settle(&place, "Iceland", 3);
        let tables = crate::harness::until("the tables are there", PATIENCE, || {
            job.runs();
            let there = place.are_there(&VIEWS);
            there.then(|| Tables::of(&place))
        });
        arrived(&place, &tables, "mark-1");
        let refused = |views: &[&str]| place.start("verify", views).ends(1, PATIENCE);
        let unknown = refused(&["everybody"]);
        assert!(
            unknown.contains("`everybody`: there is no view of this name"),
            "{unknown}"
        );
        assert!(
            unknown.contains("everyone, by_country, oldest"),
            "{unknown}"
        );
        let internal = refused(&["everyone", "adults"]);
        assert!(
            internal.contains("`adults`: it has no primary key"),
            "{internal}"
        );
        let other = refused(&["--name", "another"]);
        assert!(
            other.contains("job `another` has filled no view there"),
            "{other}"
        );
        job.stop("TERM");
        let sql = std::fs::read_to_string(place.folder().join(&place.name).join("views.sql"));
        place.write(
            "views.sql",
            &sql.unwrap().replace("avg(score)", "max(score)"),
        );
        let altered = refused(&["by_country"]);
        assert!(
            altered.contains("view `by_country` was altered"),
            "{altered}"
        );
        place.start("verify", &["everyone"]).ends(0, PATIENCE);
        tables.run("DROP TABLE everyone");
        let dropped = refused(&["everyone"]);
        assert!(
            dropped.contains("if it was dropped, --repair makes"),
            "{dropped}"
        );
        place
            .start("verify", &["everyone", "--repair"])
            .ends(0, PATIENCE);
        assert_eq!(Tables::of(&place).cells("everyone", "age").len(), 4);
    }
}
