//! Terminal output: the only module that prints. Results and the live display go to stdout, logs
//! and errors to stderr. A live display on the terminal is erased before anything else is printed.
//!
//! Invariants:
//! 1. Nothing is printed with a password in it ([`redact::text`]).
//! 2. A closed pipe ends the process quietly with exit code 0.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use tidemill_log::{Error, Kind};

use crate::api::Failure;
use crate::exit::Held;
use crate::redact;

/// Width in columns when stdout is no terminal.
const WIDTH: usize = 120;

/// Number of lines of the live display that are on the terminal now.
static BLOCK_LINES: Mutex<usize> = Mutex::new(0);

/// The escape sequence that erases the last `n` lines.
fn erase(n: usize) -> String {
    if n == 0 {
        String::new()
    } else {
        format!("\x1b[{n}F\x1b[J")
    }
}

/// Writes and flushes. A closed pipe ends the process.
fn write(to: &mut dyn Write, text: &str) {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // The reader (`| head`) has seen enough.
        signal_hook::low_level::exit(crate::exit::ExitCode::Done.into());
    }
}

/// Erases the live display, then prints with passwords masked.
fn print(to: &mut dyn Write, text: &str) {
    let mut block = BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if *block > 0 {
        write(&mut io::stdout(), &erase(*block));
        *block = 0;
    }
    write(to, &redact::text(text));
}

/// Prints one result, of one or more lines, to stdout.
pub fn line(text: &str) {
    print(&mut io::stdout(), &format!("{text}\n"));
}

/// Writes one line of the worker protocol to stdout, unmasked.
///
/// # Errors
///
/// Stdout is closed; the caller decides what that means.
pub fn told(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

/// Prints log lines or errors, with their own line ends, to stderr.
pub fn log(text: &str) {
    print(&mut io::stderr(), text);
}

/// Replaces the live display. The terminal cuts lines that are too long.
pub fn live(lines: &[String]) {
    let mut block = BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = erase(*block);
    // Without line wrap a narrow terminal cuts long lines, so the number of lines to erase stays
    // right.
    text.push_str("\x1b[?7l");
    for line in lines {
        text.push_str(&redact::text(line));
        text.push('\n');
    }
    text.push_str("\x1b[?7h");
    write(&mut io::stdout(), &text);
    *block = lines.len();
}

/// Keeps the live display on the screen: later output appears below it.
pub fn keep_live() {
    *BLOCK_LINES.lock().unwrap_or_else(PoisonError::into_inner) = 0;
}

/// Whether stdout is a terminal that can redraw a display.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The width for output: the terminal's, or `WIDTH` for a file or a pipe.
pub fn width() -> usize {
    let terminal = console::Term::stdout();
    let size = terminal.size_checked().filter(|_| terminal.is_term());
    size.map_or(WIDTH, |(_, columns)| usize::from(columns))
}

/// Prints the error that ended a command, its causes, and what the user can do.
pub fn error(error: &anyhow::Error) {
    log(&error_text(error));
}

/// The text of [`error`].
fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let said = cause.to_string();
        if let Some(excerpt) = excerpt(&said) {
            text.push_str(&excerpt);
            continue;
        }
        // Some libraries repeat the text of the cause in their own.
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

/// The source lines that a TOML error quotes; the error above it says what is wrong with them.
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

/// What the user can do about an error, by its kind.
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
