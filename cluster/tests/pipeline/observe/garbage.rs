//! Whoever connects and says anything, or nothing, disturbs nobody.

use std::io::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::web::Web;
use crate::harness::{Place, seed};

/// More than the process serves at a time.
const SILENT: usize = 80;

#[test]
fn garbage_and_silence_do_no_harm() {
    let mut random = StdRng::seed_from_u64(seed("garbage_and_silence_do_no_harm"));
    let place = Place::embedded("garbage");
    let topic = format!("{}.t", place.name);
    let sql = format!(
        "CREATE TABLE t (k text) WITH (topic = '{topic}', format = 'json');
         CREATE MATERIALIZED VIEW v WITH (primary_key = 'k') AS
           SELECT k, count(*) AS n FROM t GROUP BY k;"
    );
    place.write("views.sql", &sql);
    place.topic(&topic, 1);
    let mut job = place.start("dataflow", &["--http", "127.0.0.1:0"]);
    let web = Web::of(&mut job);
    web.until("/readyz", 200);
    for _ in 0..200 {
        let length = random.random_range(0..3000);
        let mut noise = vec![0; length];
        random.fill(&mut noise[..]);
        // The other side may close before all is sent.
        let _refused = web.connect().write_all(&noise);
    }
    for wrong in [
        "GET /metrics HTTP/9.9\r\n\r\n".to_owned(),
        "GET /metrics\r\n\r\n".to_owned(),
        "BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1 << 20)),
    ] {
        let _refused = web.connect().write_all(wrong.as_bytes());
    }
    assert_eq!(web.get("/nothing").status, 404);
    // Silent connections take all places, and are closed after a while.
    let silent: Vec<_> = (0..SILENT).map(|_| web.connect()).collect();
    assert_eq!(web.until("/healthz", 200).body, "ok\n");
    drop(silent);
    assert_eq!(web.scrape().value("tidemill_ready", &[]), Some(1.0));
    job.runs();
    job.stop("TERM");
}
