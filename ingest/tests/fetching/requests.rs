//! What people ask of a running fetcher through the ledger: pause, resume, fetch now, backfill.

use tidemill_ingest::config::{AtEnd, Tick};
use tidemill_ingest::schedule::requests::{self, BACKFILL_PAGES_MAX, Requests};

use super::*;

/// The pages that a server was asked for, in order.
type Asked = Arc<Mutex<Vec<u64>>>;

fn noting(asked: &Asked) -> impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static {
    let asked = Arc::clone(asked);
    move |request| {
        asked.lock().unwrap().push(request.page);
        None
    }
}

/// A pipeline that follows its list, with this time between two pages.
fn options(place: &Place, server: &Server, name: &str, every: Duration) -> Options {
    let mut options = place.options(server, 1, &format!("req_{name}_{}", std::process::id()));
    options.registry.clone_from(&place.log);
    let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
    (schedule.last_page, schedule.at_end) = (None, AtEnd::Follow);
    schedule.tick = Tick::Every(every);
    options
}

fn requests(options: &Options) -> Box<dyn Requests> {
    requests::open(&options.database, &options.name, &feed(options).schedule).unwrap()
}

/// Runs an ingest while `work` looks at it.
fn while_it_runs(options: &Options, work: impl FnOnce(&Stats)) {
    let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let (told, end) = (Arc::clone(&stats), Arc::clone(&stop));
        let running = scope.spawn(move || run::run(options.clone(), told, end));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&stats)));
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap().unwrap();
        worked.unwrap();
    });
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_backfill_is_fetched_once_by_the_running_process_and_in_the_schedules_pace() {
    on_each("req_backfill", |place| {
        let asked = Asked::default();
        let server = serve(Source::Made, noting(&asked));
        let mut options = options(place, &server, "backfill", Duration::from_millis(1));
        let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
        (schedule.last_page, schedule.at_end) = (Some(3), AtEnd::Stop);
        let taken = || asked.lock().unwrap().clone();
        while_it_runs(&options, |stats| {
            // The range is done, and the process goes on.
            until("the range is done", || count(&stats.landed) == 300);
            assert_eq!(taken(), [1, 2, 3]);
            let mut asks = requests(&options);
            assert_eq!(asks.backfill(&(1..=3), false).unwrap(), 0, "all are done");
            assert_eq!(asks.backfill(&(2..=3), true).unwrap(), 2);
            until("both are fetched again", || count(&stats.pages) == 5);
            assert_eq!(taken(), [1, 2, 3, 2, 3]);
            let why = asks.backfill(&(2..=4), true).unwrap_err().to_string();
            assert!(why.contains("the last page of the pipeline is 3"), "{why}");
            let why = asks.backfill(&(0..=1), true).unwrap_err().to_string();
            assert!(why.contains("the first page of the pipeline is 1"), "{why}");
        });
        assert_eq!(taken().len(), 5);

        // With a slower schedule the pages are due a tick apart, and asking twice changes nothing.
        let schedule = &mut options.pipeline.feed.as_mut().unwrap().schedule;
        schedule.last_page = None;
        schedule.tick = Tick::Every(Duration::from_secs(3600));
        let mut asks = requests(&options);
        assert_eq!(asks.backfill(&(5..=7), false).unwrap(), 3);
        assert_eq!(
            asks.backfill(&(5..=7), true).unwrap(),
            0,
            "they wait already"
        );
        let many = 8..=8 + BACKFILL_PAGES_MAX;
        assert!(asks.backfill(&many, false).is_err());
        let mut ledger = ledger(&options, LEASE);
        let mut due = Vec::new();
        while let Next::Fetch(claim) = ledger.next().unwrap() {
            due.push(claim.page);
        }
        assert!(due.contains(&5) && !due.contains(&6), "{due:?}");
    });
}

#[test]
fn a_pause_outlives_the_process_and_fetch_now_is_refused_in_it() {
    on_each("req_pause", |place| {
        let asked = Asked::default();
        let server = serve(Source::Made, noting(&asked));
        let options = options(place, &server, "pause", Duration::from_millis(1));
        let mut asks = requests(&options);
        assert_eq!(asks.paused().unwrap(), None);
        assert!(asks.pause().unwrap() && !asks.pause().unwrap());
        while_it_runs(&options, |stats| {
            until("it says that it is paused", || stats.paused_ms().is_some());
        });
        assert_eq!(asked.lock().unwrap().len(), 0);
        let why = asks.fetch_now().unwrap_err().to_string();
        assert!(why.contains("paused since"), "{why}");
        let (stats, stop) = (Arc::new(Stats::default()), Arc::new(AtomicBool::new(false)));
        let once = run::once(&options, &run::Once::default(), &stats, &stop);
        let why = once.unwrap_err().to_string();
        assert!(why.contains("paused since"), "{why}");
        assert!(asks.resume().unwrap() && !asks.resume().unwrap());
        while_it_runs(&options, |stats| {
            until("pages are fetched", || count(&stats.pages) > 2);
            assert_eq!(stats.paused_ms(), None);
        });
    });
}

#[test]
fn fetch_now_takes_the_next_page_before_its_tick_and_what_waits() {
    on_each("req_now", |place| {
        let asked = Asked::default();
        let server = serve(Source::Made, noting(&asked));
        let options = options(place, &server, "now", Duration::from_secs(3600));
        while_it_runs(&options, |stats| {
            until("the first page has landed", || count(&stats.landed) == 100);
            let due = requests(&options).fetch_now().unwrap();
            assert_eq!((due.page, due.waiting), (Some(2), 0));
            until("the next page has landed", || count(&stats.landed) == 200);
        });
        assert_eq!(*asked.lock().unwrap(), [1, 2]);
        // A page that failed and waits.
        let mut ledger = ledger(&options, LEASE);
        assert_eq!(requests(&options).fetch_now().unwrap().page, Some(3));
        let claim = claimed(ledger.as_mut());
        assert_eq!(claim.page, 3);
        ledger
            .retry(&claim, Duration::from_secs(3600), "away")
            .unwrap();
        let due = requests(&options).fetch_now().unwrap();
        assert_eq!((due.page, due.waiting), (Some(4), 1));
        assert_eq!(claimed(ledger.as_mut()).page, 3);
        assert_eq!(claimed(ledger.as_mut()).page, 4);
    });
}
