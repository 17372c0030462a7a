//! Dead letters of all stages: their reasons grouped, one letter with its bytes and their decoded
//! form, and replays.
//!
//! In: the pipeline's topic of dead letters, which is read again at each request, so letters need
//! not fit into memory. A replay writes a note to the same topic, so that a letter is replayed only
//! once. Who finds a letter wrong corrects the row, the record or the view that it comes from: the
//! bytes of a letter are never edited here.

mod replay;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_log::log::dead_letter::{Entry, Kept, Stage};
use tidemill_log::log::{Log, dead_letter};

use crate::Inspected;
use crate::decoded::{Decoded, Decoder};
use crate::refusal::{Answer, Refusal};

pub use replay::Outcome;

/// Letters of an answer, unless the request says how many.
const LETTERS: usize = 50;
/// Limit of letters of an answer.
const LETTERS_MAX: usize = 500;
/// Limit of groups of reasons. Letters of further groups are counted together.
const GROUPS_MAX: usize = 200;
/// Limit of a reason in a list, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Limit of the bytes and of the decoded text of one letter, in bytes of text.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Limit of letters that a request replays.
const REPLAYED_MAX: usize = 200;
/// How long a request replays. The rest is left for the next request.
const REPLAY_WAIT: Duration = Duration::from_secs(4);

/// The dead letters of one pipeline.
pub struct Letters {
    /// The pipeline, for its `ingest.toml`.
    folder: Folder,
    /// The services of the pipeline.
    connections: Connections,
    /// The log that holds the letters.
    log: Arc<dyn Log>,
    /// The topic of the letters.
    topic: String,
    /// When (ms) and how letters were replayed, by the letters' ids.
    replayed: HashMap<String, (i64, String)>,
}

impl Letters {
    /// Opens the log and reads which letters were replayed.
    ///
    /// # Errors
    /// The log does not answer.
    pub fn open(folder: Folder, connections: Connections) -> anyhow::Result<Self> {
        let log = tidemill_log::log::open(&connections.log)?;
        Self::of(log, folder, connections)
    }

    /// The same with a log that is open.
    fn of(log: Arc<dyn Log>, folder: Folder, connections: Connections) -> anyhow::Result<Self> {
        let topic = dead_letter::topic_of(&folder.name);
        let mut replayed = HashMap::new();
        dead_letter::read(log.as_ref(), &topic, &mut |entry| {
            if let Entry::Replayed { id, at_ms, how } = entry {
                replayed.insert(id, (at_ms, how));
            }
            Ok(())
        })?;
        Ok(Self {
            folder,
            connections,
            log,
            topic,
            replayed,
        })
    }

    /// The topic of the letters.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// When (ms since 1970) and how a letter was replayed; `None` if it was not.
    pub fn replayed(&self, kept: &Kept) -> Option<&(i64, String)> {
        self.replayed.get(&kept.id)
    }

    /// Whether a letter was replayed.
    pub fn is_replayed(&self, kept: &Kept) -> bool {
        self.replayed.contains_key(&kept.id)
    }

    /// Calls `each` with every letter, oldest first.
    ///
    /// The topic is read again each time, so letters need not fit into memory.
    ///
    /// # Errors
    /// The log does not answer.
    pub fn each(&self, each: &mut dyn FnMut(Kept)) -> anyhow::Result<()> {
        dead_letter::read(self.log.as_ref(), &self.topic, &mut |entry| {
            if let Entry::Letter(kept) = entry {
                each(kept);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A letter as JSON, without its bytes.
    ///
    /// Key and value are left out, because they may be large and are no text.
    pub fn json(&self, kept: &Kept) -> serde_json::Value {
        let replayed = self.replayed(kept);
        json!({
            "number": kept.number,
            "id": kept.id,
            "stage": kept.letter.stage,
            "at": time(kept.letter.at_ms),
            "source": kept.letter.source,
            "reason": kept.letter.reason,
            "replayed": replayed.map(|(at_ms, how)| json!({ "at": time(*at_ms), "how": how })),
        })
    }
}

/// A time in ms since 1970 as text.
pub fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// Which letters are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Of this stage alone.
    stage: Option<Stage>,
    /// Of this group alone.
    group: Option<String>,
    /// The newest so many.
    last: Option<usize>,
}

/// Letters with the same reason, apart from its numbers and quoted values.
#[derive(Debug, Serialize)]
struct Group {
    stage: Stage,
    /// The reason with `#` for numbers and `…` for quoted values.
    group: String,
    count: u64,
    /// Of these the ones that were replayed.
    replayed: u64,
    /// The number of the newest letter.
    newest: i64,
    /// Its time, in ms since 1970.
    newest_ms: i64,
}

/// A letter in the list.
#[derive(Debug, Serialize)]
struct Listed {
    number: i64,
    stage: Stage,
    at_ms: i64,
    source: String,
    reason: String,
    replayed: Option<String>,
}

/// The letters of a job.
#[derive(Debug, Serialize)]
pub(crate) struct All {
    topic: String,
    /// Letters of all stages, among the newest records of the topic.
    count: u64,
    /// The groups, those with most letters first.
    groups: Vec<Group>,
    /// Letters of groups that are not shown, because there are too many groups.
    others: u64,
    /// The newest letters that are asked for, the newest first.
    letters: Vec<Listed>,
}

/// The letters, grouped, and the newest ones.
///
/// # Errors
/// The log does not answer.
pub(crate) fn all(job: &Inspected, asked: &Asked) -> Answer<All> {
    let letters = job.letters()?;
    let mut groups: BTreeMap<(&'static str, String), Group> = BTreeMap::new();
    let (mut count, mut others, mut newest) = (0, 0, VecDeque::new());
    let last = asked.last.unwrap_or(LETTERS).clamp(1, LETTERS_MAX);
    letters.each(&mut |kept| {
        count += 1;
        let (stage, is_replayed) = (kept.letter.stage, letters.is_replayed(&kept));
        let group = group_of(&kept.letter.reason);
        let is_wanted = asked.stage.is_none_or(|it| it == stage)
            && asked.group.as_ref().is_none_or(|it| *it == group);
        let key = (stage.name(), group);
        if groups.len() < GROUPS_MAX || groups.contains_key(&key) {
            let text = key.1.clone();
            let group = groups.entry(key).or_insert_with(|| Group {
                stage,
                group: text,
                count: 0,
                replayed: 0,
                newest: 0,
                newest_ms: 0,
            });
            group.count += 1;
            group.replayed += u64::from(is_replayed);
            (group.newest, group.newest_ms) = (kept.number, kept.letter.at_ms);
        } else {
            others += 1;
        }
        if is_wanted {
            if newest.len() == last {
                newest.pop_front();
            }
            newest.push_back(listed(&letters, &kept));
        }
    })?;
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    Ok(All {
        topic: letters.topic.clone(),
        count,
        groups,
        others,
        letters: newest.into_iter().rev().collect(),
    })
}

/// A letter for the list, without its bytes.
fn listed(letters: &Letters, kept: &Kept) -> Listed {
    let replayed = letters.replayed(kept);
    Listed {
        number: kept.number,
        stage: kept.letter.stage,
        at_ms: kept.letter.at_ms,
        source: kept.letter.source.to_string(),
        reason: kept.letter.reason.chars().take(REASON_CHARS_MAX).collect(),
        replayed: replayed.map(|(at_ms, how)| format!("{}: {how}", time(*at_ms))),
    }
}

/// What the reasons of a group share: quoted values become `…`, and numbers `#`.
fn group_of(reason: &str) -> String {
    let mut group = String::new();
    let mut quote = None;
    for sign in reason.chars().take(REASON_CHARS_MAX) {
        match quote {
            Some(end) if sign == end => {
                quote = None;
                group.push(sign);
            }
            Some(_) => {}
            None if sign == '"' => {
                quote = Some(sign);
                group.push_str("\"…");
            }
            None if sign.is_ascii_digit() => {
                if !group.ends_with('#') {
                    group.push('#');
                }
            }
            None => group.push(sign),
        }
    }
    group
}

/// One letter with its bytes.
#[derive(Debug, Serialize)]
pub(crate) struct One {
    /// The letter without its bytes.
    #[serde(flatten)]
    letter: serde_json::Value,
    key: Option<Both>,
    value: Option<Both>,
}

/// Bytes, and what they mean.
#[derive(Debug, Serialize)]
struct Both {
    /// The bytes in hexadecimal digits, perhaps only the first ones.
    hex: String,
    /// Whether these are only the first ones.
    is_cut: bool,
    decoded: Decoded,
}

/// One letter.
///
/// # Errors
/// `Missing` when there is no letter with this number.
pub(crate) fn one(job: &Inspected, number: i64) -> Answer<One> {
    let letters = job.letters()?;
    let mut found = None;
    letters.each(&mut |kept| {
        if kept.number == number {
            found = Some(kept);
        }
    })?;
    let missing = || {
        let topic = &letters.topic;
        Refusal::Missing(format!("there is no dead letter {number} in {topic}"))
    };
    let kept = found.ok_or_else(missing)?;
    let mut decoder = Decoder::new(job.registry()?);
    let mut both = |bytes: &Option<Vec<u8>>| {
        let bytes = bytes.as_deref()?;
        let shown = bytes.get(..TEXT_BYTES_MAX / 2).unwrap_or(bytes);
        Some(Both {
            hex: dead_letter::hex(shown),
            is_cut: shown.len() < bytes.len(),
            decoded: decoder.decoded(bytes).cut(TEXT_BYTES_MAX),
        })
    };
    Ok(One {
        key: both(&kept.letter.key),
        value: both(&kept.letter.value),
        letter: letters.json(&kept),
    })
}

/// Which letters are to be replayed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wanted {
    /// The numbers of letters.
    numbers: Vec<i64>,
    /// All that were not replayed, in place of numbers.
    all: bool,
    /// With `all`: of this stage alone.
    stage: Option<Stage>,
    /// With `all`: of this group alone.
    group: Option<String>,
    /// With `all`: only letters with a higher number, as `goes_on_after` of an answer.
    after: Option<i64>,
    /// With `all`: no letters with a higher number, as `up_to` of the first answer. A letter that
    /// is refused again becomes a new letter, which would be replayed without end.
    up_to: Option<i64>,
    /// Also letters that were replayed, and behind newer records of their keys.
    force: bool,
}

/// What became of a letter.
#[derive(Debug, Serialize)]
struct Became {
    number: i64,
    how: String,
}

/// What became of the letters.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Replayed {
    done: Vec<Became>,
    /// Letters that are left as they are, with the reason.
    left: Vec<Became>,
    /// Numbers that no letter has.
    missing: Vec<i64>,
    /// With `all`: the next request goes on after this number; absent when nothing remains.
    goes_on_after: Option<i64>,
    /// With `all`: the newest letter that the first request saw.
    up_to: Option<i64>,
    /// Whether letters remain for another request.
    #[serde(skip)]
    is_cut: bool,
    /// The letter at which a service failed, and how. What was replayed before stays replayed.
    failed: Option<Became>,
}

impl Wanted {
    /// Whether a letter is to be replayed.
    fn has(&self, kept: &Kept, is_replayed: bool) -> bool {
        if !self.all {
            return self.numbers.contains(&kept.number);
        }
        let letter = &kept.letter;
        let of_group = |group: &String| *group == group_of(&letter.reason);
        (!is_replayed || self.force)
            && self.after.is_none_or(|after| kept.number > after)
            && self.up_to.is_none_or(|up_to| kept.number <= up_to)
            && self.stage.is_none_or(|stage| stage == letter.stage)
            && self.group.as_ref().is_none_or(of_group)
    }
}

/// Replays letters, one after the other, until all are done or the request's limits are reached.
///
/// # Errors
/// `Wrong` when the request names no letters or too many; the log does not answer.
pub(crate) fn replay_some(job: &Inspected, wanted: &Wanted) -> Answer<Replayed> {
    if wanted.all != wanted.numbers.is_empty() || wanted.numbers.len() > REPLAYED_MAX {
        let why = format!("say which: up to {REPLAYED_MAX} numbers of letters, or all");
        return Err(Refusal::Wrong(why));
    }
    let letters = job.letters()?;
    // Letters that come while these are replayed are left for another request.
    let (mut chosen, mut newest) = (Vec::new(), None);
    letters.each(&mut |kept| {
        newest = newest.max(Some(kept.number));
        let is_wanted = wanted.has(&kept, letters.is_replayed(&kept));
        if is_wanted && chosen.len() <= REPLAYED_MAX {
            chosen.push(kept.number);
        }
    })?;
    let given = wanted.numbers.iter();
    let mut told = Replayed {
        missing: given.copied().filter(|it| !chosen.contains(it)).collect(),
        up_to: wanted.up_to.or(newest).filter(|_| wanted.all),
        ..Replayed::default()
    };
    let (began, mut last) = (Instant::now(), wanted.after);
    letters.each(&mut |kept| {
        if !chosen.contains(&kept.number) || told.failed.is_some() || told.is_cut {
            return;
        }
        let number = kept.number;
        let is_full = told.done.len() + told.left.len() >= REPLAYED_MAX;
        if wanted.all && last != wanted.after && (is_full || began.elapsed() > REPLAY_WAIT) {
            (told.is_cut, told.goes_on_after) = (true, last);
            return;
        }
        last = Some(number);
        match letters.replay(&kept, wanted.force) {
            Ok(Outcome::Done(how)) => told.done.push(Became { number, how }),
            Ok(Outcome::Left(how)) => told.left.push(Became { number, how }),
            Err(error) => {
                let how = format!("{error:#}");
                let how = tidemill_protocol::redact::text(&how).into_owned();
                told.failed = Some(Became { number, how });
            }
        }
    })?;
    for it in &told.done {
        tracing::info!(
            number = it.number,
            how = it.how,
            "a dead letter was replayed"
        );
    }
    Ok(told)
}

impl Inspected {
    /// The dead letters of the job.
    ///
    /// # Errors
    /// The log does not answer.
    fn letters(&self) -> Answer<Letters> {
        let mut folder = self.folder.clone();
        folder.name.clone_from(&self.name);
        Ok(Letters::of(self.log()?, folder, self.connections.clone())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_grouped_without_their_values() {
        let one = group_of("column `age`: \"x1\" is no int (record 17)");
        let other = group_of("column `age`: \"y\" is no int (record 2)");
        assert_eq!(one, other);
        assert_eq!(one, "column `age`: \"…\" is no int (record #)");
        assert_ne!(one, group_of("column `id`: \"y\" is no int (record 2)"));
    }
}
