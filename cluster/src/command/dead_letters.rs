//! The command `dead-letters`: lists and shows input that could not be used, and replays it to
//! where it came from.
//!
//! In: the pipeline's topic of dead letters. Out: lines on stdout; for a replay, records appended
//! to topics, landed records, or pages that are due again. A replay writes a note to the same
//! topic, so that a letter is replayed only once.
//!
//! Invariant: a record is not put back behind a newer record of its key, unless forced.
//!
//! | stage and source of a letter | what `replay` does |
//! |---|---|
//! | a record of a topic | appends the record to its partition again |
//! | landing: a record of the API | lands it in its table again |
//! | fetching: a page | makes the page due again in the ledger |
//! | publishing: a change of a row | nothing; the user changes the row |
//! | writing: a row of a view | nothing; the user corrects the record, the row or the view |

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;
use tidemill_config::args::{DeadLettersCommand, ListArgs, PipelineArgs, ReplayArgs, ShowArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_ingest::{land, schedule};
use tidemill_log::envelope::Decoder;
use tidemill_log::log::dead_letter::{DeadLetter, Entry, Kept, Source, Stage};
use tidemill_log::log::{Log, OwnedRecord, Record, dead_letter};
use tidemill_protocol::output;

/// Limit of a source's width in a list, in characters.
const SOURCE_WIDTH_MAX: usize = 60;
/// How long a read may take without a record from a partition that has some.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// The ledger needs a lease time. This command never claims a page, so the value does not matter.
const LEASE: Duration = Duration::from_secs(60);

/// Runs `list`, `show` or `replay`.
///
/// # Errors
///
/// The pipeline or a service is wrong, or there is no such letter.
pub(crate) fn run(command: &DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Show(args) => show(args),
        DeadLettersCommand::Replay(args) => replay(args),
    }
}

/// The dead letters of one pipeline.
struct Letters {
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
    /// The pipeline or a connection is wrong, or the log does not answer.
    fn open(args: &PipelineArgs) -> anyhow::Result<Self> {
        let folder = Folder::open(&args.pipeline)?.named(&args.name);
        let connections = Connections::resolve(&args.connections, folder.path())?;
        let mut letters = Self {
            log: tidemill_log::log::open(&connections.log)?,
            topic: dead_letter::topic_of(&folder.name),
            folder,
            connections,
            replayed: HashMap::new(),
        };
        let mut replayed = HashMap::new();
        dead_letter::read(letters.log.as_ref(), &letters.topic, &mut |entry| {
            if let Entry::Replayed { id, at_ms, how } = entry {
                replayed.insert(id, (at_ms, how));
            }
            Ok(())
        })?;
        letters.replayed = replayed;
        Ok(letters)
    }

    /// Calls `each` with every letter, oldest first.
    ///
    /// The topic is read again each time, so letters need not fit into memory.
    fn each(&self, each: &mut dyn FnMut(Kept)) -> anyhow::Result<()> {
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
    fn json(&self, kept: &Kept) -> serde_json::Value {
        let replayed = self.replayed.get(&kept.id);
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

/// A time in ms as text.
fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// Text on one line of at most `width` characters.
///
/// Control characters become blanks, so a letter cannot control the terminal.
fn cut(text: &str, width: usize) -> String {
    let sign = |c: char| if c.is_control() { ' ' } else { c };
    let mut signs = text.chars().map(sign);
    let mut cut: String = signs.by_ref().take(width.saturating_sub(1)).collect();
    match (signs.next(), signs.next()) {
        (Some(last), None) => cut.push(last),
        (Some(_), Some(_)) => cut.push('…'),
        (None, _) => {}
    }
    cut
}

/// Prints the newest letters.
///
/// `--last` letters are kept in memory, and the others only counted.
fn list(args: &ListArgs) -> anyhow::Result<()> {
    let letters = Letters::open(&args.letters)?;
    let mut newest = VecDeque::new();
    let mut all = 0;
    letters.each(&mut |mut kept| {
        if args.stage.is_none_or(|stage| stage == kept.letter.stage) {
            all += 1;
            // Key and value are not shown in the list and may be large.
            (kept.letter.key, kept.letter.value) = (None, None);
            if newest.len() == args.last {
                newest.pop_front();
            }
            newest.push_back(kept);
        }
    })?;
    if args.json {
        for kept in &newest {
            output::line(&letters.json(kept).to_string());
        }
        return Ok(());
    }
    lines(&letters, &newest)
        .iter()
        .for_each(|line| output::line(line));
    output::line(&match all {
        0 => format!("no dead letters in {}", letters.topic),
        1 => "(1 dead letter)".to_owned(),
        all if all > newest.len() => {
            format!(
                "({} of {all} dead letters; --last {all} shows all)",
                newest.len()
            )
        }
        all => format!("({all} dead letters)"),
    });
    Ok(())
}

/// The letters as a table, not wider than the terminal.
///
/// A replayed letter is marked before its reason.
fn lines(letters: &Letters, newest: &VecDeque<Kept>) -> Vec<String> {
    if newest.is_empty() {
        return Vec::new();
    }
    let sources: Vec<String> = newest
        .iter()
        .map(|kept| cut(&kept.letter.source.to_string(), SOURCE_WIDTH_MAX))
        .collect();
    let width = sources.iter().map(|it| it.chars().count()).max();
    let width = width.unwrap_or(0).max("source".len());
    let head = |number: &str, time: &str, stage: &str, source: &str, reason: &str| {
        let line = format!("{number:>6}  {time:<24}  {stage:<8}  {source:<width$}  {reason}");
        cut(line.trim_end(), output::width())
    };
    let mut lines = vec![head("n", "time", "stage", "source", "reason")];
    for (kept, source) in newest.iter().zip(&sources) {
        let reason = match letters.replayed.contains_key(&kept.id) {
            true => format!("(replayed) {}", kept.letter.reason),
            false => kept.letter.reason.clone(),
        };
        let (number, at) = (kept.number.to_string(), time(kept.letter.at_ms));
        lines.push(head(
            &number,
            &at,
            kept.letter.stage.name(),
            source,
            &reason,
        ));
    }
    lines
}

/// Prints everything about one letter.
fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let letters = Letters::open(&args.letters)?;
    let mut found = None;
    letters.each(&mut |kept| {
        if kept.number == args.number {
            found = Some(kept);
        }
    })?;
    let kept = found.with_context(|| missing(&letters, args.number))?;
    let letter = &kept.letter;
    if args.json {
        let mut json = letters.json(&kept);
        for (name, bytes) in [("key", &letter.key), ("value", &letter.value)] {
            let text = bytes.as_deref().and_then(|it| std::str::from_utf8(it).ok());
            json[format!("{name}_text")] = text.into();
            json[format!("{name}_hex")] = bytes.as_deref().map(dead_letter::hex).into();
        }
        output::line(&json.to_string());
        return Ok(());
    }
    let mut shown = vec![
        ("number", kept.number.to_string()),
        ("id", kept.id.clone()),
        ("stage", letter.stage.name().to_owned()),
        ("time", time(letter.at_ms)),
        ("source", letter.source.to_string()),
        ("reason", letter.reason.clone()),
    ];
    if let Some((at_ms, how)) = letters.replayed.get(&kept.id) {
        shown.push(("replayed", format!("{}: {how}", time(*at_ms))));
    }
    for (name, bytes) in [("key", &letter.key), ("value", &letter.value)] {
        let Some(bytes) = bytes else {
            shown.push((name, "none".to_owned()));
            continue;
        };
        if let Ok(text) = std::str::from_utf8(bytes) {
            shown.push((name, text.to_owned()));
        }
        shown.push((
            "",
            format!("({} bytes) {}", bytes.len(), dead_letter::hex(bytes)),
        ));
    }
    for (name, text) in shown {
        output::line(format!("{name:<8}  {text}").trim_end());
    }
    Ok(())
}

/// The error for a number that no letter has.
fn missing(letters: &Letters, number: i64) -> String {
    format!(
        "there is no dead letter {number} in {}; `tidemill dead-letters list` shows all",
        letters.topic
    )
}

/// The result of replaying one letter.
enum Outcome {
    /// The letter was replayed; the text says how.
    Done(String),
    /// The letter was left as it is; the text says why.
    Left(String),
}

/// Replays the chosen letters. Stops at the first error.
///
/// Letters that were replayed before are left alone by `--all`.
///
/// # Errors
/// A letter does not exist, or a service fails. What was replayed until then stays replayed.
fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    if args.numbers.is_empty() && !args.all {
        bail!("say which: the letters' numbers, or --all");
    }
    let letters = Letters::open(&args.letters)?;
    let mut numbers = args.numbers.clone();
    letters.each(&mut |kept| {
        let wanted = args.stage.is_none_or(|stage| stage == kept.letter.stage);
        if args.all && wanted && !letters.replayed.contains_key(&kept.id) {
            numbers.push(kept.number);
        }
    })?;
    let mut missing_ones = numbers.clone();
    let (mut done, mut left, mut failed) = (0u64, 0u64, None);
    letters.each(&mut |kept| {
        if failed.is_some() || !numbers.contains(&kept.number) {
            return;
        }
        missing_ones.retain(|number| *number != kept.number);
        match letters.replay(&kept, args.force) {
            Ok(Outcome::Done(how)) => {
                done += 1;
                output::line(&format!("{}: {how}", kept.number));
            }
            Ok(Outcome::Left(why)) => {
                left += 1;
                output::line(&format!("{}: left as it is: {why}", kept.number));
            }
            Err(error) => failed = Some(error.context(format!("dead letter {}", kept.number))),
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(number) = missing_ones.first() {
        bail!(missing(&letters, *number));
    }
    output::line(&format!("({done} replayed, {left} left as they are)"));
    Ok(())
}

impl Letters {
    /// Replays one letter by its stage and source, and writes the note.
    fn replay(&self, kept: &Kept, force: bool) -> anyhow::Result<Outcome> {
        if let Some((at_ms, how)) = self.replayed.get(&kept.id)
            && !force
        {
            let at = time(*at_ms);
            return Ok(Outcome::Left(format!(
                "it was replayed at {at} ({how}); --force replays it again"
            )));
        }
        let letter = &kept.letter;
        let outcome = match (&letter.stage, &letter.source) {
            (_, Source::Record { .. }) => self.put_back(letter, force)?,
            (Stage::Land, _) => self.land(letter)?,
            (Stage::Fetch, Source::Page { page, .. }) => self.ask_again(*page)?,
            (_, Source::Change { table, key, .. }) => Outcome::Left(format!(
                "it is a row of table {table}: change the row with key {key}, and the change is \
                 captured"
            )),
            _ => Outcome::Left(
                "it is a row on its way to a view: correct the record or the row that it comes \
                 from, or the view"
                    .to_owned(),
            ),
        };
        if let Outcome::Done(how) = &outcome {
            let now = Timestamp::now().as_millisecond();
            let note = dead_letter::replayed(&self.topic, &kept.id, now, how);
            self.log.producer()?.append(&[note])?;
        }
        Ok(outcome)
    }

    /// Appends a record to the partition from which it came.
    ///
    /// # Errors
    /// The topic or the log fails.
    fn put_back(&self, letter: &DeadLetter, force: bool) -> anyhow::Result<Outcome> {
        let Source::Record {
            topic,
            partition,
            offset,
        } = &letter.source
        else {
            bail!("the letter names no topic");
        };
        if let Some(key) = letter.key.as_deref().filter(|_| !force)
            && let Some(newer) = self.newer(topic, *partition, *offset, key)?
        {
            return Ok(Outcome::Left(format!(
                "topic {topic}, partition {partition} holds a newer record of its key, at offset \
                 {newer}; --force puts it behind that one"
            )));
        }
        let record = Record {
            topic: topic.clone(),
            partition: Some(*partition),
            key: letter.key.clone(),
            value: self.value_to_put_back(letter, topic, *partition, *offset)?,
            timestamp_ms: Timestamp::now().as_millisecond(),
        };
        self.log.producer()?.append(&[record])?;
        Ok(Outcome::Done(format!(
            "put back into topic {topic}, partition {partition}"
        )))
    }

    /// The value to append. A record that a capture published is marked as put back, because
    /// otherwise the dataflow drops it as a duplicate behind newer changes.
    fn value_to_put_back(
        &self,
        letter: &DeadLetter,
        topic: &str,
        partition: u32,
        offset: i64,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let in_wire_format = letter
            .value
            .as_ref()
            .filter(|value| value.first() == Some(&0));
        let Some(value) = in_wire_format else {
            return Ok(letter.value.clone());
        };
        let record = OwnedRecord {
            partition,
            offset,
            timestamp_ms: letter.at_ms,
            key: letter.key.clone(),
            value: Some(value.clone()),
        };
        let registry = tidemill_log::registry::open(&self.connections.registry)?;
        let put_back = Decoder::new(topic, registry).put_back(&record)?;
        Ok(put_back.or(record.value))
    }

    /// The offset of the last record with this key after `offset`; `None` if there is none.
    ///
    /// # Errors
    /// The partition gives no records for [`READ_PATIENCE`].
    fn newer(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        key: &[u8],
    ) -> anyhow::Result<Option<i64>> {
        let ranges = self.log.ranges(topic)?;
        let range = ranges.iter().find(|range| range.partition == partition);
        let range = range.with_context(|| format!("topic {topic} has no partition {partition}"))?;
        let from = range.low.max(offset + 1);
        if from >= range.high {
            return Ok(None);
        }
        let mut reader = self.log.reader(topic, &[(partition, from)])?;
        let (mut newer, mut next) = (None, from);
        let mut heard = Instant::now();
        while next < range.high {
            let count = reader.poll(1_000, Duration::from_millis(100), &mut |record| {
                next = record.offset + 1;
                if record.key.is_some_and(|it| same_key(it, key)) {
                    newer = Some(record.offset);
                }
            })?;
            if count > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > READ_PATIENCE {
                bail!("topic {topic}, partition {partition} gave no records in {READ_PATIENCE:?}");
            }
        }
        Ok(newer)
    }

    /// Lands a record of the API in its table again.
    ///
    /// # Errors
    /// The pipeline fetches nothing any more, or the database does not answer.
    fn land(&self, letter: &DeadLetter) -> anyhow::Result<Outcome> {
        let ingest = self.folder.ingest()?;
        let feed = ingest
            .feed
            .context("the pipeline fetches nothing any more")?;
        let value = letter.value.clone().unwrap_or_default();
        let record = String::from_utf8(value).context("the record is not text")?;
        let record = RawValue::from_string(record).context("the record is not JSON")?;
        let mut landing = land::open(&self.connections.database, &feed.land)?;
        let table = &feed.land.table;
        Ok(match landing.again(&record)? {
            Ok(landed) if landed.inserted > 0 => {
                Outcome::Done(format!("landed in table {table} as a new row"))
            }
            Ok(landed) if landed.updated > 0 => {
                Outcome::Done(format!("landed in table {table}, where it changed its row"))
            }
            Ok(_) => Outcome::Done(format!("landed in table {table}, whose row was so already")),
            Err(why) => Outcome::Left(format!("it is refused again: {why}")),
        })
    }

    /// Makes a page due again in the ledger.
    ///
    /// # Errors
    /// The pipeline fetches nothing any more, or the database does not answer.
    fn ask_again(&self, page: u64) -> anyhow::Result<Outcome> {
        let ingest = self.folder.ingest()?;
        let feed = ingest
            .feed
            .context("the pipeline fetches nothing any more")?;
        let (database, name) = (&self.connections.database, &self.folder.name);
        let mut ledger = schedule::open(database, name, &feed.schedule, LEASE)?;
        Ok(match ledger.again(page)? {
            true => Outcome::Done(format!("page {page} is due again")),
            false => Outcome::Left(format!("page {page} is due or done already")),
        })
    }
}

/// Whether two keys are equal. In Confluent's wire format the ids of their schemas may differ.
fn same_key(one: &[u8], other: &[u8]) -> bool {
    let bare = |key: &[u8]| match key.split_at_checked(5) {
        Some(([0, ..], bare)) if !bare.is_empty() => bare.to_vec(),
        _ => key.to_vec(),
    };
    one == other || bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_without_their_schemas() {
        assert!(same_key(b"a", b"a"));
        assert!(!same_key(b"a", b"b"));
        assert!(same_key(b"\0\0\0\0\x01key", b"\0\0\0\0\x09key"));
        assert!(!same_key(b"\0\0\0\0\x01key", b"\0\0\0\0\x01kez"));
        assert!(!same_key(b"\0\0\0\0\x01", b"\0\0\0\0\x02"));
    }

    #[test]
    fn a_line_is_not_wider_than_asked() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a\nb", 9), "a b");
        assert_eq!(cut("", 3), "");
    }
}
