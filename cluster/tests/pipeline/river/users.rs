//! The users of the real API, as 20 recorded pages, become rows and aggregates in Cassandra; served
//! a second time they change nothing there.

use serde_json::Value;

use crate::river::place::{Place, recorded, serve_recorded};
use crate::river::rows::{Rows, answer, expect_alike, settle};

const PAGES: u32 = 20;
const USERS: usize = 2_000;

/// Columns of `created_users`, in the order of [`created`].
const COLUMNS: [&str; 12] = [
    "id",
    "first_name",
    "last_name",
    "gender",
    "address",
    "post_code",
    "email",
    "username",
    "dob",
    "registered_date",
    "phone",
    "picture",
];

/// What the row of a recorded user must be.
fn created(user: &Value) -> Vec<Option<String>> {
    let at = |path: &str| {
        let value = path.split('.').fold(user, |value, field| &value[field]);
        match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => panic!("{path}: {other}"),
        }
    };
    let millis = |path: &str| {
        let at: jiff::Timestamp = at(path).parse().unwrap();
        at.as_millisecond().to_string()
    };
    let address = format!(
        "{} {}, {}, {}, {}",
        at("location.street.number"),
        at("location.street.name"),
        at("location.city"),
        at("location.state"),
        at("location.country")
    );
    let row = [
        at("login.uuid"),
        at("name.first"),
        at("name.last"),
        at("gender"),
        address,
        at("location.postcode"),
        at("email"),
        at("login.username"),
        millis("dob.date"),
        millis("registered.date"),
        at("phone"),
        at("picture.large"),
    ];
    row.into_iter().map(Some).collect()
}

fn expected() -> Rows {
    let mut rows = Vec::new();
    for page in 1..=PAGES {
        let text = std::fs::read_to_string(recorded().join(format!("page-{page:02}.json")));
        let page: Value = serde_json::from_str(&text.unwrap()).unwrap();
        rows.extend(page["results"].as_array().unwrap().iter().map(created));
    }
    rows.sort();
    rows
}

/// `created_users` with its columns in the order of [`COLUMNS`].
fn found(place: &Place) -> Rows {
    let (columns, rows) = place.views.read("created_users").unwrap();
    let place_of = |name: &&str| columns.iter().position(|c| c.name == *name);
    let order: Vec<usize> = COLUMNS.iter().map(|name| place_of(name).unwrap()).collect();
    assert_eq!(columns.len(), order.len());
    let ordered = |row: &Vec<Option<String>>| order.iter().map(|&at| row[at].clone()).collect();
    let mut rows: Rows = rows.iter().map(ordered).collect();
    rows.sort();
    rows
}

/// The averages, cast to doubles there as here.
fn expect_exact_averages(place: &Place) {
    let (columns, rows) = place.views.read("users_by_country").unwrap();
    let sql = "SELECT country, count(*) AS users,
                      avg(age)::float8 AS average_age
               FROM users GROUP BY country";
    let (expected, rounded) = answer(&mut place.sql(), sql, &columns);
    assert_eq!(rounded, [false; 3]);
    assert_eq!(rows, expected);
    assert!(rows.len() > 10, "{rows:?}");
}

#[test]
fn the_recorded_users_are_in_cassandra_and_served_again_change_nothing() {
    let test = "the_recorded_users_are_in_cassandra_and_served_again_change_nothing";
    let Some(place) = Place::open(test) else {
        return;
    };
    let api = serve_recorded();
    let views = place.users(PAGES);
    assert_eq!(views.len(), 6);
    let args = ["--api", &api.url(), "--until", "2000"];
    let printed = place.start("run", "users", &args).ended();
    for view in &views {
        assert!(printed.contains(&view.name), "{printed}");
    }
    let expected = expected();
    assert_eq!(expected.len(), USERS);
    assert_eq!(found(&place), expected);
    let mut sql = place.sql();
    expect_alike(&place.views, &mut sql, &views);
    expect_exact_averages(&place);
    let written = || -> Vec<Rows> {
        let names = views.iter().map(|view| view.name.as_str());
        names.map(|name| place.views.written(name)).collect()
    };
    let (before, ends) = (written(), place.ends("users"));
    assert_eq!(ends.iter().sum::<i64>(), 2_000);

    // The ledger forgets, and every page is fetched and landed again.
    let forgotten = "DELETE FROM _tidemill_runs WHERE pipeline = $1";
    assert!(sql.execute(forgotten, &[&place.name]).unwrap() >= u64::from(PAGES));
    let mut again = place.start("run", "users", &["--api", &api.url()]);
    let done = "SELECT count(*) FROM _tidemill_runs WHERE pipeline = $1 AND state = 'done'";
    again.until("every page landed again", || {
        let done: i64 = sql.query_one(done, &[&place.name]).unwrap().get(0);
        (done >= i64::from(PAGES)).then_some(())
    });
    // One change behind all of that: once it is in the view, whatever came before it is as well.
    let marked = expected[0][0].clone().unwrap();
    let mark = "UPDATE users SET phone = 'marked' WHERE id = $1::text::uuid";
    assert_eq!(sql.execute(mark, &[&marked]).unwrap(), 1);
    settle(&mut again, &place.views, &mut sql, &views);
    again.stop();

    let ends_now = place.ends("users");
    assert_eq!(ends_now.iter().sum::<i64>(), 2_001, "{ends:?} {ends_now:?}");
    let after = written();
    let mut changed = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.len(), after.len());
        changed.extend(before.iter().zip(after).filter(|(a, b)| a != b));
    }
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].1[0].as_ref(), Some(&marked));
}
