//! The screens of topics, schemas, the capture, rows and dead letters in a real browser, beside
//! what the services say themselves.

use serde_json::json;

use super::center::look;
use super::inspected::{Shown, TOKEN};
use crate::harness::browser::Browser;
use crate::harness::database::Database;
use crate::harness::{PATIENCE, until};

/// The address of a screen of the job.
fn screen(shown: &Shown, hash: &str) -> String {
    let (server, _) = shown.at.split_once("/api/").unwrap();
    format!("{server}/#/jobs/{}/{hash}", shown.place.name)
}

/// Logs in, so that the browser has the cookie.
fn log_in(shown: &Shown, browser: &Browser) {
    browser.go(&screen(shown, "topics"));
    browser.sees(&["needs the cluster's token"]);
    let fill = format!("document.querySelector('#token').value = '{TOKEN}'; return 1");
    browser.js(&fill);
    browser.click("Log in");
    browser.sees(&[&shown.carts, &shown.users]);
}

/// Messages as text, also one that is markup; offsets as the log has them.
fn topics(shown: &Shown, browser: &Browser) {
    let log = tidemill_log::log::open(&shown.place.log).unwrap();
    let high = log.ranges(&shown.carts).unwrap()[0].high;
    let hash = format!("topics?topic={}&partition=0&offset=0", shown.carts);
    let url = screen(shown, &hash);
    look(browser, &url, "topics", "<b>not JSON</b>");
    browser.sees(&["tombstone", "9007199254740993", &format!("0\t0\t{high}")]);
    let markup = browser.js("return document.querySelectorAll('main b').length");
    assert_eq!(markup, 0, "markup of a record became an element");
    let link = browser.js("return document.querySelector('a[download]').getAttribute('href')");
    assert!(link.as_str().unwrap().contains("lines=true"), "{link}");
    let hash = format!("topics?topic={}&filter=nothing%20has%20this", shown.users);
    browser.go(&screen(shown, &hash));
    browser.sees(&["No message is there that fits."]);
    browser.go(&screen(shown, "topics?topic=of_somebody_else"));
    browser.sees(&["The messages cannot be shown", "is none of job"]);
}

fn schemas(shown: &Shown, browser: &Browser) {
    let hash = format!("schemas?subject={}-value", shown.users);
    look(browser, &screen(shown, &hash), "schemas", "The views plan");
    browser.sees(&["added\tnick", "country\tstring?", "countries, people"]);
}

/// The slot as PostgreSQL shows it; the LSNs move while they are compared.
fn capture(shown: &Shown, browser: &Browser) {
    let url = screen(shown, "capture");
    if !shown.place.database.starts_with("postgres") {
        browser.go(&url);
        browser.sees(&["Triggers of the SQLite file", &shown.users]);
        return;
    }
    let slot = format!("tidemill_{}", shown.place.name);
    look(browser, &url, "capture", &slot);
    let mut database = Database::open(&shown.place.database);
    let sql = format!(
        "SELECT restart_lsn, active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    until("the page shows the server's LSN", PATIENCE, || {
        let row = database.rows(&sql).pop_first().unwrap();
        let text = browser.text();
        let has_process = text.contains(&format!("process {}", row[1]));
        (text.contains(&row[0]) && has_process).then_some(())
    });
    browser.sees(&["reserved", "The snapshot began", "none: the server's disk"]);
}

/// The row of a key as the table has it, and a key without a row.
fn rows(shown: &Shown, browser: &Browser) {
    let row = shown.people().pop_first().unwrap();
    let of = |key: &str| {
        let key = json!({ "id": key }).to_string();
        let pairs = [("view", "people"), ("key", &key)];
        let url = reqwest::Url::parse_with_params("http://x", pairs).unwrap();
        screen(shown, &format!("rows?{}", url.query().unwrap()))
    };
    look(browser, &of(&row[0]), "rows", &row.join("\t"));
    browser.sees(&["The view has 100 rows"]);
    browser.go(&of("nobody"));
    browser.sees(&["The table has no row of this key."]);
    browser.click("First rows");
    browser.sees(&["First rows of people"]);
}

/// A letter's bytes beside their text; a replay by the button.
fn letters(shown: &Shown, browser: &Browser) {
    let text = "not a JSON object";
    look(browser, &screen(shown, "letters"), "letters", text);
    let letter = shown.place.dead_letters();
    let newest = letter.iter().max_by_key(|it| it.number).unwrap();
    let hash = format!("letters?letter={}", newest.number);
    browser.go(&screen(shown, &hash));
    browser.sees(&["Bytes", "Decoded", &format!("Letter {}", newest.number)]);
    let hex = browser.js("return document.querySelector('.columns pre').textContent");
    let key = newest.letter.key.as_deref().unwrap();
    let digits = tidemill_log::log::dead_letter::hex(key);
    let plain = hex.as_str().unwrap().replace(' ', "");
    assert_eq!(plain, digits);
    let before = shown.place.records(&shown.carts).len();
    browser.click("Replay");
    browser.click("Replay");
    browser.sees(&["1 replayed, 0 left as they are"]);
    assert_eq!(shown.place.records(&shown.carts).len(), before + 1);
}

/// Looks at the five screens, and at one of them when the process has ended.
pub(super) fn browse(shown: &mut Shown) {
    let Some(browser) = Browser::open() else {
        return;
    };
    browser.look_as(1280, "light");
    log_in(shown, &browser);
    topics(shown, &browser);
    schemas(shown, &browser);
    capture(shown, &browser);
    rows(shown, &browser);
    letters(shown, &browser);
    shown.run.runs();
    shown.run.stop("TERM");
    browser.sees(&["Not up to date"]);
}
