//! Answers as real servers give them, by a server that sends any bytes: lists that grow and end in
//! every way, numbers of any size, answers that cannot be read.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;

/// What a request is answered with: status line, further header lines, body.
pub(super) struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// Bytes that the header promises beyond the body.
    missing: usize,
}

pub(super) fn json(body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status: "200 OK",
        headers: "Content-Type: application/json\r\n".to_owned(),
        body: body.into(),
        missing: 0,
    }
}

/// A server that answers each page as `answer` says and keeps which pages were asked for.
struct Raw {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Raw {
    fn serve(answer: impl Fn(u64, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (answer, seen) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), answer) = (stream, Arc::clone(&answer)) else {
                    return;
                };
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let first = lines.next()?.ok()?;
                    while !lines.next()?.ok()?.is_empty() {}
                    let (_, page) = first.split_once("page=")?;
                    let page: u64 = page.split([' ', '&']).next()?.parse().ok()?;
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(page);
                        seen.len()
                    };
                    let Answer {
                        status,
                        headers,
                        body,
                        missing,
                    } = answer(page, number);
                    let length = body.len() + missing;
                    let head = format!(
                        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: \
                         close\r\n\r\n"
                    );
                    stream.write_all(head.as_bytes()).ok()?;
                    stream.write_all(&body).ok()
                });
            }
        });
        Self { addr, asked }
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }

    /// A pipeline that fetches from it into `items(id, n)`.
    fn options(&self, place: &Place, name: &str, schedule: &str, fetch: &str) -> Options {
        let text = format!(
            "[schedule]\nevery = '5ms'\n{schedule}\n[fetch]\nurl = 'http://{}/items'\n{fetch}\n\
             page_parameter = 'page'\nbackoff = '2ms'\nbackoff_max = '10ms'\n[land]\n\
             table = 'items'\nkey = 'id'\ndocument = 'whole'\n\
             columns = [{{ name = 'id', path = 'id', type = 'text' }},\n\
             {{ name = 'n', path = 'n', type = 'double', nullable = true }}]\n",
            self.addr
        );
        Options {
            pipeline: Pipeline::parse(&text, "ingest.toml").unwrap(),
            name: name.to_owned(),
            database: place.url.clone(),
            log: place.log.clone(),
            registry: String::new(),
            api: None,
            until: None,
            resnapshot: false,
        }
    }
}

/// Runs the fetching, for as long as `meanwhile` takes.
fn fetching<T>(options: &Options, meanwhile: impl FnOnce(&Stats) -> T) -> T {
    let (stats, stop) = (Stats::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run::fetch(options, &stats, &stop));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(&stats)));
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !reached() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Page `page` of the list 1, 2, … `count`, in the form `{"items": […]}`.
fn page_of(page: u64, size: u64, count: u64) -> String {
    let first = (page - 1) * size + 1;
    let items = first..=(page * size).min(count);
    let items: Vec<String> = items
        .map(|id| format!("{{\"id\":{id},\"n\":{id}}}"))
        .collect();
    format!("{{\"items\":[{}]}}", items.join(","))
}

/// A list of 25 that grows to 45 while it is followed.
fn grows(place: &Place, name: &str, fetch: &str, pages: fn(u64, u64) -> Answer) -> Vec<u64> {
    place.execute("DROP TABLE IF EXISTS items");
    let count = Arc::new(AtomicU64::new(25));
    let now = Arc::clone(&count);
    let server = Raw::serve(move |page, _| pages(page, now.load(Ordering::Relaxed)));
    let options = server.options(place, name, "", fetch);
    fetching(&options, |_| {
        until("a table", || server.asked().len() > 1);
        until("25 rows", || place.number("count(*)", "items") == 25);
        let before = server.asked().len();
        until("a look behind the end", || {
            server.asked().len() > before + 3
        });
        count.store(45, Ordering::Relaxed);
        until("45 rows", || place.number("count(*)", "items") == 45);
        let before = server.asked().len();
        until("another look", || server.asked().len() > before + 3);
    });
    server.asked()
}

/// `[{"id":"é2"}]` as gzip packs it.
const GZIP: [u8; 34] = [
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 139, 174, 86, 202, 76, 81, 178, 82, 58, 188, 210, 72, 169, 54,
    22, 0, 206, 215, 233, 7, 14, 0, 0, 0,
];

const SIZED: &str = "records = 'items'\npage_size = 10";

#[test]
fn a_list_that_grows_is_followed() {
    let plain = |page, count| json(page_of(page, 10, count));
    on_each("grows", |place| {
        let asked = grows(place, "sized", SIZED, plain);
        assert_eq!(asked.iter().max(), Some(&6), "{asked:?}");
        // Full pages are asked for once.
        let times = |page| asked.iter().filter(|it| **it == page).count();
        assert_eq!((times(1), times(2)), (1, 1), "{asked:?}");
        // Without a size no page is known to be full before another one follows.
        let asked = grows(place, "unsized", "records = 'items'", plain);
        assert_eq!(asked.iter().max(), Some(&6), "{asked:?}");
        // The size is another one than the pipeline says.
        let asked = grows(place, "other", "records = 'items'\npage_size = 50", plain);
        assert_eq!(asked.iter().max(), Some(&6), "{asked:?}");
        // An API that gives its last page again behind the end.
        let asked = grows(place, "repeats", SIZED, |page, count| {
            json(page_of(page.min(count.div_ceil(10)), 10, count))
        });
        assert_eq!(asked.iter().max(), Some(&6), "{asked:?}");
        // One that says 404 there.
        let fetch = format!("{SIZED}\nend_status = [404]");
        grows(place, "status", &fetch, |page, count| match page {
            page if page <= count.div_ceil(10) => json(page_of(page, 10, count)),
            _ => Answer {
                status: "404 Not Found",
                ..json("{\"detail\":\"Invalid page.\"}")
            },
        });
        // One that gives one record less than a page has, in the middle of the list.
        let asked = grows(place, "less", SIZED, |page, count| {
            let item = |id: u64| format!("{{\"id\":{id}}}");
            let ids: Vec<u64> = match page {
                1 => (1..=9).collect(),
                page => ((page - 1) * 10..page * 10)
                    .filter(|id| *id <= count)
                    .collect(),
            };
            let items: Vec<String> = ids.into_iter().map(item).collect();
            json(format!("{{\"items\":[{}]}}", items.join(",")))
        });
        assert_eq!(asked.iter().max(), Some(&6), "{asked:?}");
    });
}

#[test]
fn a_list_ends_or_begins_again_as_the_schedule_says() {
    on_each("ends", |place| {
        let server = Raw::serve(|page, _| json(page_of(page, 10, 25)));
        let stops = server.options(place, "stops", "at_end = 'stop'", SIZED);
        assert_eq!(count(&fetched(&stops).landed), 25);
        assert_eq!(server.asked(), [1, 2, 3, 4]);
        assert_eq!(count(&fetched(&stops).pages), 0, "it is done");
        let tally = ledger(&stops, LEASE).tally().unwrap();
        assert_eq!((tally.last, tally.failed, tally.landed), (Some(3), 0, true));

        let range = server.options(place, "range", "last_page = 6", SIZED);
        fetched(&range);
        assert_eq!(
            server.asked()[4..],
            [1, 2, 3, 4, 5, 6],
            "a range is asked for whole"
        );

        // The first page of an API without pages, again and again.
        let server = Raw::serve(|_, number| {
            json(format!(
                "[{{\"id\":\"a\",\"n\":{number}}},{{\"id\":\"{number}\"}}]"
            ))
        });
        let schedule = "last_page = 1\nat_end = 'restart'";
        let again = server.options(place, "again", schedule, "");
        place.execute("DROP TABLE items");
        fetching(&again, |_| {
            until("five rounds", || server.asked().len() > 5);
        });
        assert!(server.asked().iter().all(|page| *page == 1));
        let rounds = place.number("count(*)", "items");
        assert_eq!(place.number("CAST(max(n) AS integer)", "items") + 1, rounds);
        // A list whose pages change is read anew.
        let server = Raw::serve(|page, number| match page {
            3 => json("[]"),
            _ => json(format!("[{{\"id\":\"{page}\",\"n\":{number}}}]")),
        });
        let shifts = server.options(place, "shifts", "at_end = 'restart'", "page_size = 1");
        place.execute("DROP TABLE items");
        fetching(&shifts, |_| {
            until("three rounds", || server.asked().len() > 8);
        });
        let asked = server.asked();
        assert!(
            asked.chunks(3).all(|round| [1, 2, 3].starts_with(round)),
            "{asked:?}"
        );
        assert_eq!(place.number("count(*)", "items"), 2);
    });
}

#[test]
fn a_list_is_followed_behind_a_page_that_was_refused_at_its_end() {
    on_each("refused_end", |place| {
        let asked = AtomicU64::new(0);
        let server = Raw::serve(move |page, _| match page {
            4 => match asked.fetch_add(1, Ordering::Relaxed) {
                0 => json("{\"items\":[]}"),
                _ => Answer {
                    status: "404 Not Found",
                    ..json("no such page")
                },
            },
            page => json(page_of(page, 10, 50)),
        });
        let options = server.options(place, "refused_end", "", SIZED);
        fetching(&options, |_| {
            until("the rows of the page behind it", || {
                server.asked().contains(&5) && place.number("count(*)", "items") == 40
            });
        });
        assert_eq!(ledger(&options, LEASE).tally().unwrap().failed, 1);
    });
}

#[test]
fn a_growing_list_is_followed_by_two_processes() {
    on_each("grows_two", |place| {
        let count = Arc::new(AtomicU64::new(3));
        let now = Arc::clone(&count);
        let server = Raw::serve(move |page, _| {
            // Each answer finds the list longer than the one before.
            let count = now.fetch_add(1, Ordering::Relaxed).min(200);
            std::thread::sleep(Duration::from_millis(page % 3));
            json(page_of(page, 7, count))
        });
        let options = server.options(place, "both", "", "records = 'items'\npage_size = 7");
        fetching(&options, |_| {
            fetching(&options, |_| {
                until("the table", || server.asked().len() > 3);
                until("all rows", || place.number("count(*)", "items") == 200);
            });
        });
    });
}

#[test]
fn numbers_keep_their_digits() {
    const BODY: &str = r#"[{"id":123456789012345678901,"n":9007199254740993,"v":19.90},
        {"id":123456789012345678902,"n":1e2,"v":0.1000000000000000055},
        {"id":1E2,"n":1E400},{"id":18446744073709551615,"n":-0.0,"v":1},
        {"id":"x","n":1,"n":2},{"id":null,"n":3},{"id":{"a":1}},{"id":"\ud83d"},
        {"id":"fine","v":"\u0000"},[7],"text"]"#;
    on_each("digits", |place| {
        let server = Raw::serve(|_, _| json(BODY));
        let options = server.options(place, "digits", "last_page = 1", "");
        let stats = fetched(&options);
        assert_eq!((count(&stats.landed), count(&stats.dead_letters)), (4, 7));
        let columns = ["id", "n"].map(str::to_owned);
        let rows = place.rows(&columns, "items ORDER BY items.n, items.id");
        let number = |text: &Option<String>| text.as_ref().unwrap().parse::<f64>().unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row[0].clone().unwrap(), number(&row[1])))
            .collect();
        let expected = [
            ("18446744073709551615", -0.0),
            ("x", 2.0),
            ("123456789012345678902", 100.0),
            ("123456789012345678901", 9007199254740992.0),
        ];
        assert_eq!(rows, expected.map(|(id, n)| (id.to_owned(), n)));
        // The document has the digits as well.
        let documents = place.rows(&["whole".to_owned()], "items ORDER BY items.n, items.id");
        let document = documents[2][0].clone().unwrap();
        assert!(document.contains("0.1000000000000000055"), "{document}");
        let document = documents[3][0].clone().unwrap();
        assert!(document.contains("19.90") && document.contains("123456789012345678901"));
        let letters = place.letters("digits");
        let reasons: Vec<&str> = letters.iter().map(|it| it.reason.as_str()).collect();
        for part in [
            "`n` is `1E400`, but column `n` takes",
            "no `id` for column `id`",
            "`id` is an object, but column `id` takes text",
            "half of a surrogate pair",
            "the character U+0000",
            "the record is a list",
            "the record is `text`",
        ] {
            let says = reasons
                .iter()
                .filter(|reason| reason.contains(part))
                .count();
            assert_eq!(says, 1, "{part}: {reasons:?}");
        }
    });
}

#[test]
fn answers_of_real_servers_are_read() {
    on_each("real", |place| {
        let answers: [fn() -> Answer; 5] = [
            || json([&b"\xef\xbb\xbf"[..], r#"[{"id":"é0"}]"#.as_bytes()].concat()),
            || Answer {
                headers: "Content-Type: application/json; charset=iso-8859-1\r\n".to_owned(),
                ..json(&b"[{\"id\":\"\xe91\"}]"[..])
            },
            || Answer {
                headers: "Content-Encoding: gzip\r\n".to_owned(),
                ..json(GZIP)
            },
            || Answer {
                headers: "Content-Type: application/x-ndjson\r\n".to_owned(),
                ..json("{\"id\":\"é3\"}\n{\"id\":\"é4\"}\n")
            },
            || Answer {
                status: "204 No Content",
                ..json("")
            },
        ];
        let server = Raw::serve(move |page, _| match page {
            6 => Answer {
                status: "302 Found",
                headers: "Location: /other?page=7\r\n".to_owned(),
                ..json("")
            },
            7 => json("[{\"id\":\"é5\"}]"),
            page => answers[page as usize - 1](),
        });
        let options = server.options(place, "real", "last_page = 6", "");
        let stats = fetched(&options);
        assert_eq!((count(&stats.retries), count(&stats.dead_letters)), (0, 0));
        let ids = place.rows(&["id".to_owned()], "items ORDER BY id");
        let ids: Vec<String> = ids.into_iter().map(|row| row[0].clone().unwrap()).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5].map(|number| format!("é{number}")));
    });
}

#[test]
fn a_page_that_cannot_be_read_fails_for_good_and_the_others_go_on() {
    on_each("unreadable", |place| {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = Arc::clone(&mended);
        let large = format!("<html>{}", " ".repeat(2 << 20));
        let server = Raw::serve(move |page, number| match page {
            2 if !is_mended.load(Ordering::Relaxed) => json(large.as_str()),
            // Cut off, which passes.
            3 if number < 12 => Answer {
                missing: 5,
                ..json(page_of(3, 1, 1_000))
            },
            page => json(page_of(page, 1, 1_000)),
        });
        let fetch = "records = 'items'\npage_size = 1\ntries = 3";
        let options = server.options(place, "unreadable", "last_page = 4", fetch);
        let stats = fetched(&options);
        assert_eq!((count(&stats.landed), count(&stats.failed_pages)), (3, 1));
        assert_eq!(server.asked().iter().filter(|page| **page == 2).count(), 3);
        let mut ledger = ledger(&options, LEASE);
        let tally = ledger.tally().unwrap();
        assert_eq!((tally.failed, tally.last), (1, Some(4)));
        let letters = place.letters("unreadable");
        let [letter] = letters.as_slice() else {
            panic!("{letters:?}");
        };
        assert_eq!(letter.value.as_ref().unwrap().len(), 1 << 20);
        assert!(
            letter.reason.contains("the first 1048576 of 2097158 bytes"),
            "{}",
            letter.reason
        );
        // It is due again when that is asked for, and tried as often as before.
        assert!(ledger.again(2).unwrap());
        mended.store(true, Ordering::Relaxed);
        assert_eq!(count(&fetched(&options).landed), 1);
        assert_eq!(ledger.tally().unwrap().failed, 0);
        // Redirects in a circle are no answer either.
        let circle = Raw::serve(|_, _| Answer {
            status: "302 Found",
            headers: "Location: /?page=1\r\n".to_owned(),
            ..json("")
        });
        let options = circle.options(place, "circle", "last_page = 1", "tries = 2");
        assert_eq!(count(&fetched(&options).failed_pages), 1);
    });
}

#[test]
fn an_api_that_gives_nothing_readable_for_a_while_loses_no_page() {
    on_each("outage", |place| {
        let away = Arc::new(AtomicBool::new(false));
        let is_away = Arc::clone(&away);
        let server = Raw::serve(move |page, _| match is_away.load(Ordering::Relaxed) {
            true => json("<html>We are back soon</html>"),
            false => json(page_of(page, 1, 1_000_000)),
        });
        let fetch = "records = 'items'\npage_size = 1\ntries = 2";
        let options = server.options(place, "outage", "", fetch);
        fetching(&options, |stats| {
            until("some pages", || count(&stats.landed) > 3);
            away.store(true, Ordering::Relaxed);
            let retries = count(&stats.retries);
            until("many tries", || count(&stats.retries) > retries + 40);
            away.store(false, Ordering::Relaxed);
            let landed = count(&stats.landed);
            until("more pages", || count(&stats.landed) > landed + 20);
            assert_eq!(count(&stats.failed_pages), 0);
        });
        let tally = ledger(&options, LEASE).tally().unwrap();
        assert_eq!(tally.failed, 0);
        // One whose answers could never be read ends the run.
        let server = Raw::serve(|_, _| json("[]"));
        let options = server.options(place, "wrong", "", "records = 'items'\ntries = 2");
        let stop = AtomicBool::new(false);
        let error = run::fetch(&options, &Stats::default(), &stop).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("no `items`"), "{error}");
    });
}

#[test]
fn a_ledger_of_an_earlier_version_is_taken_over() {
    on_each("earlier", |place| {
        let time = match place.url.starts_with("sqlite") {
            true => ("INTEGER", "1764300000000"),
            false => ("timestamptz", "now()"),
        };
        let (kind, now) = time;
        place.execute(&format!(
            "CREATE TABLE _tidemill_runs (pipeline text NOT NULL, page bigint NOT NULL,
             due_at {kind} NOT NULL, state text NOT NULL, claimed_by text, claimed_until {kind},
             attempts integer NOT NULL, finished_at {kind}, records bigint, error text,
             PRIMARY KEY (pipeline, page));
             CREATE INDEX _tidemill_runs_open ON _tidemill_runs (pipeline, claimed_until)
             WHERE state IN ('claimed', 'retry');"
        ));
        // 25 items were fetched, and then page after page behind the end.
        for page in 1..=40 {
            let records = [10, 10, 5].get(page - 1).copied().unwrap_or(0);
            place.execute(&format!(
                "INSERT INTO _tidemill_runs (pipeline, page, due_at, state, attempts, records)
                 VALUES ('earlier', {page}, {now}, 'done', 1, {records})"
            ));
        }
        let server = Raw::serve(|page, _| json(page_of(page, 10, 45)));
        let options = server.options(place, "earlier", "", SIZED);
        fetching(&options, |_| {
            until("the table", || server.asked().len() > 1);
            until("all rows", || place.number("count(*)", "items") == 25);
            until("the end", || server.asked().contains(&6));
        });
        let mut asked = server.asked();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(
            asked,
            [3, 4, 5, 6],
            "what was not full, and what came since"
        );
    });
}
