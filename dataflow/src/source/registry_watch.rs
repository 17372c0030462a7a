//! Watching the registry while a job runs: an id that comes to stand for another schema.
//!
//! A decoder asks for an id once. In a registry that is made anew meanwhile the id may stand for
//! another schema, which new records are written with, and they would be read as before. A thread
//! beside the workers, in worker 0's process, asks for one id after the other again, and ends the
//! job when the answer is another one. An id that is not there any more says nothing: a subject may
//! have been deleted, and a record that names it later is told by its decoder.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::registry::Registry;
use tidemill_log::schema::fingerprint;

use crate::Result;
use crate::failure::Failure;
use crate::stats::Stats;
use crate::sync::lock;
use crate::time::resume;

/// How soon a stop is seen.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// The pause between two questions.
const LOOK: Duration = Duration::from_secs(1);

/// Asks until `stop` for what the records of these topics, which are Avro, were read with.
pub(crate) fn start(
    registry: Arc<dyn Registry>,
    topics: BTreeSet<String>,
    (stats, stop): (Arc<Stats>, Arc<AtomicBool>),
    failure: &Failure,
) -> Result<()> {
    failure.spawn("schemas", move || {
        let mut last = (String::new(), 0);
        let mut looked = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(STOP_LOOK);
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let Some((place, was)) = next(&stats, &topics, &last) else {
                continue;
            };
            match registry.by_id_now(place.1) {
                Ok(Some(schema)) if fingerprint(&schema).cast_signed() != was => {
                    return Err(resume::registry_made_anew(&place.0));
                }
                Ok(_) => {}
                // It is away, which whoever needs it says.
                Err(error) => tracing::debug!(%error, id = place.1, "cannot ask for a schema"),
            }
            last = place;
        }
        Ok(())
    })
}

/// The id after the last one, of all that records were read with.
fn next(
    stats: &Stats,
    topics: &BTreeSet<String>,
    last: &(String, u32),
) -> Option<((String, u32), i64)> {
    let schemas = lock(&stats.schemas);
    let is = |it: &(&(String, u32), &i64)| topics.contains(&it.0.0);
    let behind = (Bound::Excluded(last), Bound::Unbounded);
    let next = schemas.range::<(String, u32), _>(behind).find(is);
    let next = next.or_else(|| schemas.iter().find(is));
    next.map(|(place, schema)| (place.clone(), *schema))
}
