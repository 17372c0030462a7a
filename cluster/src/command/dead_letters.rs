//! The command `dead-letters`: lists and shows input that could not be used, and replays it to
//! where it came from.
//!
//! In: the pipeline's topic of dead letters. Out: lines on stdout; for a replay, records appended
//! to topics, landed records, or pages that are due again. A replay writes a note to the same
//! topic, so that a letter is replayed only once. [`tidemill_inspect::letters`] reads and replays.
use std::collections::VecDeque;

use anyhow::{Context, bail};
use tidemill_config::args::{DeadLettersCommand, ListArgs, PipelineArgs, ReplayArgs, ShowArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_inspect::letters::{Letters, Outcome, time};
use tidemill_log::log::dead_letter;
use tidemill_log::log::dead_letter::Kept;
use tidemill_protocol::output;

/// Limit of a source's width in a list, in characters.
const SOURCE_WIDTH_MAX: usize = 60;
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

/// Opens the dead letters of the pipeline that the flags name.
///
/// # Errors
/// The pipeline or a connection is wrong, or the log does not answer.
fn open(args: &PipelineArgs) -> anyhow::Result<Letters> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    Letters::open(folder, connections)
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
    let letters = open(&args.letters)?;
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
        0 => format!("no dead letters in {}", letters.topic()),
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
        let reason = match letters.is_replayed(kept) {
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
    let letters = open(&args.letters)?;
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
    if let Some((at_ms, how)) = letters.replayed(&kept) {
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
        letters.topic()
    )
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
    let letters = open(&args.letters)?;
    let mut numbers = args.numbers.clone();
    letters.each(&mut |kept| {
        let wanted = args.stage.is_none_or(|stage| stage == kept.letter.stage);
        if args.all && wanted && !letters.is_replayed(&kept) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_not_wider_than_asked() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a\nb", 9), "a b");
        assert_eq!(cut("", 3), "");
    }
}
