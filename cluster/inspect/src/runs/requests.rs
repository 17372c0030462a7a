//! What people ask of a job's fetcher: pause, resume, fetch now, backfill. Each is a change of the
//! ledger, so it is durable when it is answered, and the process that fetches finds it there.

use serde::{Deserialize, Serialize};
use tidemill_ingest::schedule;

use crate::Inspected;
use crate::refusal::{Answer, Refusal};

/// The body of a backfill.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pages {
    /// The first and the last page.
    first: Option<u64>,
    last: Option<u64>,
    /// Whether pages that landed are fetched again.
    #[serde(default)]
    again: bool,
}

/// What became of a request.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    message: String,
}

/// Carries out a request: `pause`, `resume`, `now` or `backfill`.
///
/// # Errors
/// `Wrong` when the pipeline fetches nothing, or the ledger refuses; `Missing` for another word;
/// `Away` when the database does not answer.
pub(crate) fn request(job: &Inspected, word: &str, pages: &Pages) -> Answer<Done> {
    let ingest = job.folder.ingest_if_any()?;
    let Some(feed) = ingest.and_then(|pipeline| pipeline.feed) else {
        return Err(Refusal::Wrong("the pipeline fetches nothing".to_owned()));
    };
    let database = &job.connections.database;
    let mut requests = schedule::requests::open(database, &job.name, &feed.schedule)?;
    let message = match word {
        "pause" => match requests.pause()? {
            true => "fetching is paused; a page that is being fetched still lands".to_owned(),
            false => "fetching was paused already".to_owned(),
        },
        "resume" => match requests.resume()? {
            true => "fetching goes on".to_owned(),
            false => "fetching was not paused".to_owned(),
        },
        "now" => now(requests.fetch_now()?),
        "backfill" => {
            let (Some(first), Some(last)) = (pages.first, pages.last) else {
                let why = r#"a backfill takes {"first": 1, "last": 2}"#;
                return Err(Refusal::Wrong(why.to_owned()));
            };
            let due = requests.backfill(&(first..=last), pages.again)?;
            let others = (last - first + 1).saturating_sub(due);
            format!("{due} pages are due; {others} are done or due already")
        }
        other => {
            let why = format!("`{other}`: expected pause, resume, now or backfill");
            return Err(Refusal::Missing(why));
        }
    };
    Ok(Done { message })
}

/// The sentence about what was made due.
fn now(due: schedule::requests::MadeDue) -> String {
    let waiting = match due.waiting {
        0 => String::new(),
        pages => format!("; {pages} pages that waited are due too"),
    };
    match (due.page, due.waiting) {
        (Some(page), _) => format!("page {page} is due now{waiting}"),
        (None, 0) => "nothing to fetch before its time: every page landed or is due".to_owned(),
        (None, pages) => format!("{pages} pages that waited are due now"),
    }
}
