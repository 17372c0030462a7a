//! The only module that prints. Results and the live block go to stdout, logs and errors to
//! stderr; a live block on the terminal is taken away before anything else is printed.
//!
//! Invariants: nothing is printed with a password in it; a closed pipe ends the process quietly.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use tidemill_log::{Error, Kind};

use crate::api::Failure;
use crate::exit::Held;
use crate::redact;

/// Columns where there is no terminal to ask.
const WIDTH: usize = 120;

/// Lines of the live block that are on the terminal now.
static BLOCK_LINES: Mutex<usize> = Mutex::new(0);

/// Up by `n` lines to the first column, then clear to the end of the screen.
fn erase(n: usize) -> String {
    if n == 0 {
        String::new()
    } else {
        format!("\x1b[{n}F\x1b[J")
    }
}

fn write(to: &mut dyn Write, text: &str) {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // The reader (`| head`) has seen enough.
        signal_hook::low_level::exit(i32::from(crate::exit::OK));
    }
}

fn print(to: &mut dyn Write, text: &str) {
    let mut block = BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if *block > 0 {
        write(&mut io::stdout(), &erase(*block));
        *block = 0;
    }
    write(to, &redact::text(text));
}

/// One line (or several) of result on stdout.
pub(crate) fn line(text: &str) {
    print(&mut io::stdout(), &format!("{text}\n"));
}

/// One line for the program at the other end of stdout, as it is: whoever calls says what it means
/// when nobody reads it.
pub(crate) fn told(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

/// Text for stderr: log lines and errors, with their own line ends.
pub(crate) fn log(text: &str) {
    print(&mut io::stderr(), text);
}

/// Shows the block in place of the one before. Lines longer than the terminal are cut by it.
pub(crate) fn live(lines: &[String]) {
    let mut block = BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = erase(*block);
    // Without line wrap a narrow terminal cuts lines, so the count of lines to erase stays right.
    text.push_str("\x1b[?7l");
    for line in lines {
        text.push_str(&redact::text(line));
        text.push('\n');
    }
    text.push_str("\x1b[?7h");
    write(&mut io::stdout(), &text);
    *block = lines.len();
}

/// Leaves the block where it is: what is printed next comes below it.
pub(crate) fn keep_live() {
    *BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner) = 0;
}

/// Whether a live block makes sense.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns to print in: the terminal's, or as many as a file or a page has room for.
pub(crate) fn width() -> usize {
    let terminal = console::Term::stdout();
    let size = terminal.size_checked().filter(|_| terminal.is_term());
    size.map_or(WIDTH, |(_, columns)| usize::from(columns))
}

/// The error that ended the command, its causes, and what to do about it.
pub(crate) fn error(error: &anyhow::Error) {
    log(&error_text(error));
}

fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let said = cause.to_string();
        if let Some(excerpt) = excerpt(&said) {
            text.push_str(&excerpt);
            continue;
        }
        // Some libraries' errors carry their cause's text within their own.
        if !last.contains(&said) {
            text.push_str(&format!("  because: {said}\n"));
            last = said;
        }
    }
    if let Some(advice) = advice(error) {
        text.push_str(&format!("  what to do: {advice}\n"));
    }
    text
}

/// The lines that a TOML error shows of its file. What is wrong with them is in the error above.
fn excerpt(said: &str) -> Option<String> {
    let (_, lines) = said.split_once("TOML parse error at ")?;
    let shown = |line: &&str| line.split_once('|').is_some_and(|(n, _)| is_line_number(n));
    let shown: Vec<&str> = lines.lines().filter(shown).collect();
    Some(format!("{}\n", shown.join("\n"))).filter(|_| !shown.is_empty())
}

fn is_line_number(text: &str) -> bool {
    text.chars()
        .all(|sign| sign == ' ' || sign.is_ascii_digit())
}

fn advice(error: &anyhow::Error) -> Option<&str> {
    const RETRY: &str = "see that the service is up and reachable, then start again; \
        it goes on where it stopped";
    const FENCE: &str = "another process runs this pipeline with the same connections; \
        stop one of the two";
    const BUG: &str = "this is a bug of tidemill, please report it with the log (--log debug)";
    const AWAY: &str = "start one with `tidemill master`, or say where it is with --master URL or \
        TIDEMILL_MASTER";
    if let Some(held) = error.downcast_ref::<Held>() {
        return Some(&held.instead);
    }
    if error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(Failure::Away(_))))
    {
        return Some(AWAY);
    }
    error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<Error>()?.kind() {
            Kind::Retry => Some(RETRY),
            Kind::Fence => Some(FENCE),
            Kind::Bug => Some(BUG),
            Kind::Data => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toml_error_shows_its_lines_and_says_it_once() {
        let wrong = toml::from_str::<toml::Table>("a = 1\nb = \n").unwrap_err();
        let text = error_text(&anyhow::Error::new(wrong).context("a.toml:2: no value"));
        let want = "error: a.toml:2: no value\n  |\n2 | b = \n  |    ";
        assert!(text.starts_with(want), "{text}");
    }

    #[test]
    fn an_error_is_printed_once_with_causes_and_advice() {
        let error = Error::new(Kind::Retry, "no broker at a:1");
        let error = anyhow::Error::new(error).context("job `users`");
        assert_eq!(
            error_text(&error),
            "error: job `users`\n  because: no broker at a:1\n  what to do: see that the service \
             is up and reachable, then start again; it goes on where it stopped\n"
        );
    }
}
