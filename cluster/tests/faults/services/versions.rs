//! The river, freshness and kills on whatever services the tests have: `./test --matrix` gives them
//! one of another version after the other.

use std::time::Duration;

use crate::harness::{Place, given};
use crate::services::load::Load;

const KILLS: usize = 4;
/// How often the time until a change is read is taken.
const TIMES: usize = 20;

#[test]
fn the_river_is_fresh_and_goes_on_after_kills() {
    let test = "the_river_is_fresh_and_goes_on_after_kills";
    if !crate::services::asked("MATRIX", test) {
        return;
    }
    let Some(mut place) = Place::services("versions") else {
        return;
    };
    let Some(s3) = given(test, "TIDEMILL_TEST_S3") else {
        return;
    };
    place.keep_state_at(&format!("{s3}/{}", place.name));
    let mut load = Load::start(test, place);
    let mut times: Vec<Duration> = (0..TIMES).map(|_| load.fresh("a change")).collect();
    times.sort_unstable();
    let (half, most) = (times[TIMES / 2], times[TIMES - 1]);
    eprintln!("{test}: from commit to all views: p50 {half:.0?}, at most {most:.0?}");
    for kill in 1..=KILLS {
        load.goes_on(Duration::from_secs(1));
        load.is_killed();
        load.right(&format!("kill {kill}"));
    }
    load.end();
}
