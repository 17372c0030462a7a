//! Schema registry watch: ends the job when a schema id comes to stand for another schema.
//!
//! A decoder asks the registry for each id once. If the registry is recreated while the job runs,
//! an id may stand for another schema. New records written with that schema would be decoded with
//! the old one. Therefore a thread beside the workers, in the process of worker 0, asks for one id
//! after the other again. It ends the job when an answer differs. An id that is missing is no
//! error, because a subject may have been deleted; a later record with this id fails in its
//! decoder.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::registry::Registry;
use tidemill_log::schema::fingerprint;
use tidemill_log::{Result, lock};
use tidemill_state::failure::Failure;

use crate::epoch::resume;
use crate::stats::Stats;

/// Longest time until the thread notices a stop.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// The pause between two requests to the registry.
const LOOK: Duration = Duration::from_secs(1);

/// Starts the thread. It runs until `stop`, and checks the schemas with which the records of these
/// topics, which are Avro, were read.
///
/// # Errors
/// When the system cannot create a thread. The thread itself ends the job with
/// [`resume::registry_made_anew`].
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
                // The registry is away. Whoever needs it reports that.
                Err(error) => tracing::debug!(%error, id = place.1, "cannot ask for a schema"),
            }
            last = place;
        }
        Ok(())
    })
}

/// The (topic, schema id) after `last` in order, of all that records were read with; the first one
/// after the last.
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
