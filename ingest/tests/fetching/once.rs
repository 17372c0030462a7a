//! Runs that end: what is due, ranges of pages, pages that others have, APIs that are away; and
//! that everything is published when one is over.

use tidemill_ingest::capture::mark::{CommitPosition as Position, Marks};
use tidemill_ingest::run::Once;

use super::*;

/// Runs until it ends by itself.
fn once(options: &Options, what: &Once) -> (Stats, Result<Position, String>) {
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    let ended = run::once(options, what, &stats, &stop);
    let ended = ended.map_err(|error| error.to_string());
    let ended = ended.map(|place| place.expect("nobody stopped it"));
    (
        Arc::into_inner(stats).expect("its threads have ended"),
        ended,
    )
}

fn range(pages: std::ops::RangeInclusive<u64>, refetch: bool) -> Once {
    Once {
        pages: Some(pages),
        refetch,
    }
}

/// A pipeline that follows its list, a page a second, and publishes.
fn options(place: &Place, server: &Server, name: &str) -> Options {
    // A server's slots have one name each, whatever their database.
    let name = format!("once_{name}_{}", std::process::id());
    let mut options = Options {
        registry: place.log.clone(),
        ..place.options(server, 1, &name)
    };
    let feed = options.pipeline.feed.as_mut().unwrap();
    feed.schedule.last_page = None;
    feed.schedule.at_end = tidemill_ingest::config::AtEnd::Follow;
    options
}

fn published(place: &Place, topic: &str) -> u64 {
    let log = tidemill_log::log::open(&place.log).unwrap();
    if log.describe(topic).unwrap().is_none() {
        return 0;
    }
    let ranges = log.ranges(topic).unwrap();
    ranges
        .iter()
        .map(|range| range.high - range.low)
        .sum::<i64>() as u64
}

/// The pages that a server was asked for, in order.
type Asked = Arc<Mutex<Vec<u64>>>;

fn noting(asked: &Asked) -> impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static {
    let asked = Arc::clone(asked);
    move |request| {
        asked.lock().unwrap().push(request.page);
        None
    }
}

fn taken(asked: &Asked) -> Vec<u64> {
    std::mem::take(&mut *asked.lock().unwrap())
}

#[test]
fn a_range_is_fetched_once_again_when_asked_and_passed_over_by_the_schedule() {
    on_each("once_range", |place| {
        let asked = Asked::default();
        let server = serve(Source::Made, noting(&asked));
        let mut options = options(place, &server, "ranged");
        let (stats, ended) = once(&options, &range(3..=5, false));
        let first = ended.unwrap();
        let counts = [
            &stats.pages,
            &stats.landed,
            &stats.changed,
            &stats.failed_pages,
        ];
        assert_eq!(counts.map(count), [3, 300, 300, 0]);
        assert_eq!(taken(&asked), [3, 4, 5]);
        // A snapshot of tables that are made just then may begin with a truncate.
        assert!(published(place, "users") >= 300);
        let mut marks = Marks::new(&options.database, &options.name).unwrap();
        assert!(marks.is_past(first).unwrap());

        let (stats, ended) = once(&options, &range(3..=5, false));
        assert!(ended.unwrap() >= first);
        assert_eq!((count(&stats.pages), taken(&asked).len()), (0, 0));
        let before = published(place, "users");
        let (stats, ended) = once(&options, &range(4..=6, true));
        ended.unwrap();
        let counts = [&stats.pages, &stats.landed, &stats.changed].map(count);
        assert_eq!(counts, [3, 300, 100], "two pages of it were the same");
        assert_eq!(taken(&asked), [4, 5, 6]);
        assert_eq!(published(place, "users"), before + 100);

        // The schedule begins at its first page, and fetches what is missing.
        let feed = options.pipeline.feed.as_mut().unwrap();
        feed.schedule.last_page = Some(8);
        feed.schedule.at_end = tidemill_ingest::config::AtEnd::Stop;
        fetched(&options);
        assert_eq!(taken(&asked), [1, 2, 7, 8]);
        let done = place.number("count(*)", "_tidemill_runs WHERE state = 'done'");
        assert_eq!(done, 8);
    });
}

#[test]
fn what_is_due_is_fetched_and_no_more() {
    on_each("once_due", |place| {
        let asked = Asked::default();
        let server = serve(Source::Recorded(recorded()), noting(&asked));
        let mut options = options(place, &server, "due");
        let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
        schedule.tick = tidemill_ingest::config::Tick::Every(Duration::from_secs(3600));
        let (stats, ended) = once(&options, &Once::default());
        ended.unwrap();
        assert_eq!((count(&stats.pages), taken(&asked)), (1, vec![1]));
        let (stats, ended) = once(&options, &Once::default());
        ended.unwrap();
        assert_eq!((count(&stats.pages), taken(&asked)), (0, vec![]));

        // So many records, whatever is due, and not beyond the end of the list.
        let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
        schedule.tick = tidemill_ingest::config::Tick::Every(Duration::from_millis(1));
        options.until = Some(350);
        let (_, ended) = once(&options, &Once::default());
        ended.unwrap();
        assert_eq!(place.number("count(*)", "users"), 350);
        taken(&asked);
        options.until = Some(1_000_000);
        let (_, ended) = once(&options, &Once::default());
        ended.unwrap();
        assert_eq!(place.number("count(*)", "users"), 2000);
        assert_eq!(taken(&asked).last(), Some(&21), "an empty page is the end");
    });
}

#[test]
fn a_page_of_a_process_that_died_is_fetched_before_the_run_is_over() {
    on_each("once_died", |place| {
        let server = serve(Source::Made, |_| None);
        let mut options = options(place, &server, "died");
        let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
        schedule.tick = tidemill_ingest::config::Tick::Every(Duration::from_secs(3600));
        let mut other = ledger(&options, Duration::from_millis(700));
        assert_eq!(claimed(other.as_mut()).page, 1);
        let (stats, ended) = once(&options, &Once::default());
        ended.unwrap();
        assert_eq!((count(&stats.pages), count(&stats.landed)), (1, 100));
        // The same of a range.
        let mut other = ledger(&options, Duration::from_millis(700));
        let other = other.ask(2, false).unwrap();
        assert!(matches!(other, schedule::Asked::Claimed(_)), "{other:?}");
        let (stats, ended) = once(&options, &range(2..=2, false));
        ended.unwrap();
        assert_eq!((count(&stats.pages), count(&stats.landed)), (1, 100));
    });
}

#[test]
fn an_api_that_stays_away_ends_the_run_and_the_next_one_goes_on() {
    on_each("once_away", |place| {
        let away = Arc::new(AtomicBool::new(true));
        let down = Arc::clone(&away);
        let server = serve(Source::Made, move |request| {
            (request.page == 2 && down.load(Ordering::Relaxed)).then_some(Fault::Status(503))
        });
        let options = options(place, &server, "away");
        for _ in 0..2 {
            let (stats, ended) = once(&options, &range(1..=3, false));
            let why = ended.unwrap_err();
            assert!(why.contains("page 2 failed 5 times"), "{why}");
            assert!(why.contains("the same command begins with it"), "{why}");
            assert_eq!(count(&stats.failed_pages), 0, "it did not fail for good");
        }
        away.store(false, Ordering::Relaxed);
        let (_, ended) = once(&options, &range(1..=3, false));
        ended.unwrap();
        assert_eq!(place.number("count(*)", "users"), 300);
    });
}

#[test]
fn a_page_that_failed_for_good_is_told_and_asked_for_by_the_next_run() {
    on_each("once_failed", |place| {
        let gone = Arc::new(AtomicBool::new(true));
        let is_gone = Arc::clone(&gone);
        let server = serve(Source::Made, move |request| {
            (request.page == 2 && is_gone.load(Ordering::Relaxed)).then_some(Fault::Status(404))
        });
        let options = options(place, &server, "gone");
        let (stats, ended) = once(&options, &range(1..=3, false));
        ended.unwrap();
        assert_eq!([&stats.pages, &stats.failed_pages].map(count), [2, 1]);
        gone.store(false, Ordering::Relaxed);
        let (stats, ended) = once(&options, &range(1..=3, false));
        ended.unwrap();
        assert_eq!([&stats.pages, &stats.failed_pages].map(count), [1, 0]);
        assert_eq!(place.number("count(*)", "users"), 300);
    });
}

#[test]
fn one_that_is_stopped_says_so() {
    on_each("once_stopped", |place| {
        let server = serve(Source::Made, |_| Some(Fault::Status(503)));
        let mut options = options(place, &server, "stopped");
        options.pipeline.feed.as_mut().unwrap().fetch.tries = u32::MAX;
        let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let what = range(1..=1, false);
            let running = scope.spawn({
                let (options, stats, stop) = (&options, Arc::clone(&stats), Arc::clone(&stop));
                move || run::once(options, &what, &stats, &stop)
            });
            while count(&stats.retries) == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(running.join().unwrap().unwrap(), None);
        });
    });
}

/// A capture that has nothing to write down does it when somebody waits.
#[test]
fn a_mark_is_passed_while_nothing_changes() {
    on_each("once_idle", |place| {
        let server = serve(Source::Made, |_| None);
        let mut options = options(place, &server, "idle");
        options.pipeline.feed = None;
        options.pipeline.capture.tables = vec!["captured".to_owned()];
        place.execute("CREATE TABLE captured (id int PRIMARY KEY)");
        place.execute("CREATE TABLE other (id int PRIMARY KEY)");
        let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let running = scope.spawn({
                let (options, stats, stop) = (options.clone(), stats, Arc::clone(&stop));
                move || run::run(options, stats, stop)
            });
            let mut marks = Marks::new(&options.database, &options.name).unwrap();
            for number in 0..5 {
                // What is not captured moves the database on as well.
                place.execute(&format!("INSERT INTO other VALUES ({number})"));
                let deadline = Instant::now() + Duration::from_secs(60);
                let mut mark = None;
                loop {
                    match mark {
                        None => mark = marks.mark().ok(),
                        Some(mark) if marks.is_past(mark.place).unwrap() => break,
                        Some(_) => {}
                    }
                    assert!(Instant::now() < deadline, "{number}: {mark:?}");
                    std::thread::sleep(Duration::from_millis(10));
                }
                // And what is captured is in the log by then.
                place.execute(&format!("INSERT INTO captured VALUES ({number})"));
                let mark = marks.mark().unwrap();
                while !marks.is_past(mark.place).unwrap() {
                    assert!(Instant::now() < deadline, "{number}: {mark:?}");
                    std::thread::sleep(Duration::from_millis(10));
                }
                assert!(published(place, "captured") > number);
            }
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap().unwrap();
        });
    });
}
