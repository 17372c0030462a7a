//! The commands `drop` and `reset`: remove what a pipeline left in its services, and nothing of any
//! other pipeline.
//!
//! In: the pipeline's folder and its connections. Out: a list of what would be removed, a question
//! to the user, and then the removals. A removal may be interrupted at any point and done again.
//!
//! Invariants:
//! 1. All services are asked before anything is removed. If one does not answer, the command fails
//!    and changes nothing.
//! 2. Nothing is removed while a process runs the pipeline.
//! 3. The order makes a removal repeatable: a producer is removed before what it feeds, and a
//!    record about a thing after the thing. The slot is removed before the topics, the topics
//!    before the notes about them, the table of a view before its frontier, and all tables before
//!    the state. A removal that stopped at any point is finished by the same command.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use tidemill_config::args::{DropArgs, ResetArgs, Sure};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_config::{lease, services};
use tidemill_ingest::capture::remains;
use tidemill_ingest::capture::remains::{Item, Noted, Remains};
use tidemill_log::log::{Described, Log, dead_letter};
use tidemill_log::registry::Registry;
use tidemill_log::{log, registry};
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{output, redact};
use tidemill_sinks::Sink;
use tidemill_state::store;
use tidemill_state::store::Store;

use crate::terminal::table::grouped;

/// One thing to be removed.
struct Step<'a> {
    /// The service or database that contains the thing.
    place: &'static str,
    /// The thing in words, as in `topic users`.
    what: String,
    /// Removes the thing.
    remove: Box<dyn FnMut() -> anyhow::Result<()> + 'a>,
}

/// What the command will remove, what it keeps, and what does not exist.
#[derive(Default)]
struct Plan<'a> {
    /// What is removed, in order.
    steps: Vec<Step<'a>>,
    /// What is kept: the place, the thing, and why.
    kept: Vec<(&'static str, String, String)>,
    /// What does not exist: the place and the thing.
    absent: Vec<(&'static str, String)>,
}

/// Removes everything that a pipeline left.
///
/// # Errors
///
/// * [`Usage`] (exit code 2): without `--yes` nobody can be asked, or a flag is wrong.
/// * [`tidemill_protocol::exit::Held`] (exit code 5): a process runs the pipeline.
/// * A service does not answer, the user said no, or a removal failed; the last names what remains.
pub(crate) fn drop(args: &DropArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let ingest = folder.ingest_if_any()?;
    reached(&connections)?;
    free(&folder.name, &connections, true)?;
    let parts = Parts::open(&connections)?;
    let mut database = match is_absent(&connections.database) || ingest.is_none() {
        true => None,
        false => Some(remains::open(
            &connections.database,
            &folder.name,
            ingest.as_ref(),
            args.tables,
        )?),
    };
    let found = database.as_mut().map(|database| database.find());
    let found = found.transpose()?.unwrap_or_default();
    let place = match connections.database.starts_with("sqlite://") {
        true => "SQLite",
        false => "PostgreSQL",
    };
    let database = database.map(std::cell::RefCell::new);
    let mut plan = Plan::default();
    plan.items(place, &found.feeding, database.as_ref());
    plan.topics(&parts, &folder.name, &found.topics)?;
    plan.views(&parts, &folder.name, None)?;
    plan.state(&parts, &folder.name)?;
    plan.items(place, &found.keeping, database.as_ref());
    plan.kept
        .extend(found.kept.into_iter().map(|(what, why)| (place, what, why)));
    plan.absent
        .extend(found.absent.into_iter().map(|what| (place, what)));
    let question = format!("Remove all that pipeline `{}` left", folder.name);
    plan.carry_out(&question, &args.sure, || {
        free(&folder.name, &connections, true)
    })
}

/// Removes the tables of the views, and without named views also journal and checkpoints. The next
/// start fills the views again.
///
/// # Errors
///
/// As for `drop`; also when a named view was not filled by this pipeline.
pub(crate) fn reset(args: &ResetArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    reached(&connections)?;
    free(&folder.name, &connections, false)?;
    let parts = Parts::open(&connections)?;
    let mut plan = Plan::default();
    let views = Some(args.views.as_slice()).filter(|views| !views.is_empty());
    plan.views(&parts, &folder.name, views)?;
    let what = match views {
        Some(views) => views.join(", "),
        None => {
            plan.state(&parts, &folder.name)?;
            "all views".to_owned()
        }
    };
    let question = format!(
        "Throw away {what} of pipeline `{}`, to be filled anew by the next start",
        folder.name
    );
    plan.carry_out(&question, &args.sure, || {
        free(&folder.name, &connections, false)
    })
}

/// Fails while a service that was named does not answer, because then nobody can tell what exists.
///
/// # Errors
/// A service does not answer; its error is printed before.
fn reached(connections: &Connections) -> anyhow::Result<()> {
    let away = services::ask(connections).into_iter();
    let away: Vec<_> = away
        .filter_map(|(name, answer)| Some((name, answer.err()?)))
        .collect();
    let names: Vec<&str> = away.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    for (_, error) in away {
        output::error(&error);
    }
    if names.is_empty() {
        return Ok(());
    }
    bail!(
        "nothing was removed, since nobody can tell what is there: {names} cannot be asked. Run \
         the same command again when it can"
    )
}

/// Fails while a process runs the pipeline.
///
/// # Errors
/// [`tidemill_protocol::exit::Held`]: a process holds the lease of a component.
fn free(name: &str, connections: &Connections, ingest: bool) -> anyhow::Result<()> {
    let instead = "stop it first (Ctrl-C, or `tidemill stop` and `tidemill remove` for a job of a \
                   cluster)";
    let mut places = Vec::new();
    if !is_absent(&connections.state) {
        places.push(lease::LeaseKey::dataflow(name, &connections.state)?);
    }
    if ingest && !is_absent(&connections.database) {
        places.push(lease::LeaseKey::ingest(name, &connections.database)?);
    }
    places.iter().try_for_each(|place| place.free(instead))
}

/// Whether this is an embedded file that does not exist. The command must not create it.
fn is_absent(url: &str) -> bool {
    url.strip_prefix("sqlite://")
        .is_some_and(|file| !Path::new(file).exists())
}

/// The services of the pipeline; `None` for an embedded file that does not exist.
struct Parts {
    /// The log, for topics.
    log: Option<Arc<dyn Log>>,
    /// The registry, for subjects.
    registry: Option<Arc<dyn Registry>>,
    /// The sinks, for tables of views: the default one, which has no name, and the others.
    sinks: Vec<(Option<String>, Arc<dyn Sink>)>,
    /// The store, for journal and checkpoints.
    store: Option<Arc<dyn Store>>,
    /// The location of the state, for messages.
    state: String,
}

impl Parts {
    /// Opens the services.
    fn open(connections: &Connections) -> anyhow::Result<Self> {
        fn there<T>(
            url: &str,
            open: fn(&str) -> tidemill_log::Result<T>,
        ) -> anyhow::Result<Option<T>> {
            match is_absent(url) {
                true => Ok(None),
                false => Ok(Some(open(url)?)),
            }
        }
        let named = connections.sinks.iter();
        let named = named.map(|(name, url)| (Some(name.clone()), url));
        let mut sinks = Vec::new();
        for (name, url) in [(None, &connections.sink)].into_iter().chain(named) {
            let sink = there(url, tidemill_sinks::open)?;
            sinks.extend(sink.map(|sink| (name, sink)));
        }
        Ok(Self {
            log: there(&connections.log, log::open)?,
            registry: there(&connections.registry, registry::open)?,
            sinks,
            store: there(&connections.state, store::open)?,
            state: redact::place(&connections.state),
        })
    }

    /// The topic's current description; `None` if it does not exist.
    fn described(&self, topic: &str) -> anyhow::Result<Option<Described>> {
        let Some(log) = &self.log else {
            return Ok(None);
        };
        Ok(log.describe(topic)?)
    }
}

impl<'a> Plan<'a> {
    /// Adds a thing to be removed.
    fn step(
        &mut self,
        place: &'static str,
        what: String,
        remove: impl FnMut() -> anyhow::Result<()> + 'a,
    ) {
        let remove = Box::new(remove);
        self.steps.push(Step {
            place,
            what,
            remove,
        });
    }

    /// Adds a thing that is kept.
    fn keep(&mut self, place: &'static str, what: String, why: &str) {
        self.kept.push((place, what, why.to_owned()));
    }

    /// Adds what the ingest keeps in its database.
    fn items(
        &mut self,
        place: &'static str,
        items: &[Item],
        database: Option<&'a std::cell::RefCell<Box<dyn Remains>>>,
    ) {
        let Some(database) = database else { return };
        for item in items {
            let (what, item) = (item.to_string(), item.clone());
            self.step(place, what, move || {
                Ok(database.borrow_mut().remove(&item)?)
            });
        }
    }

    /// Adds the topics that the capture created, their subjects, and the topic of the dead letters.
    fn topics(&mut self, parts: &'a Parts, name: &str, noted: &[Noted]) -> anyhow::Result<()> {
        let place = "log";
        for Noted {
            topic,
            id,
            shared_with,
        } in noted
        {
            let what = format!("topic `{topic}`");
            if let Some(other) = shared_with {
                self.keep(place, what, &format!("`{other}` publishes to it as well"));
                continue;
            }
            match parts.described(topic)? {
                Some(now) if id.is_known() && now.id.is_known() && now.id != *id => {
                    let why = "it was made anew since this pipeline published to it";
                    self.keep(place, what, why);
                    continue;
                }
                Some(_) => self.topic(parts, topic)?,
                None => self.absent.push((place, what)),
            }
            self.subjects(parts, topic)?;
        }
        let letters = dead_letter::topic_of(name);
        match parts.described(&letters)? {
            Some(_) => self.topic(parts, &letters)?,
            None => self.absent.push((place, format!("topic `{letters}`"))),
        }
        Ok(())
    }

    /// Adds one topic.
    fn topic(&mut self, parts: &'a Parts, topic: &str) -> anyhow::Result<()> {
        let Some(log) = &parts.log else { return Ok(()) };
        let records = log.ranges(topic)?.into_iter();
        let records: i64 = records.map(|range| range.high - range.low).sum();
        let records = grouped(records.unsigned_abs());
        let what = format!("topic `{topic}` with {records} records");
        let topic = topic.to_owned();
        self.step("log", what, move || {
            log.delete_topic(&topic)?;
            Ok(())
        });
        Ok(())
    }

    /// Adds the subjects of a topic's keys and values.
    fn subjects(&mut self, parts: &'a Parts, topic: &str) -> anyhow::Result<()> {
        let Some(registry) = &parts.registry else {
            return Ok(());
        };
        for subject in ["key", "value"].map(|part| format!("{topic}-{part}")) {
            let what = format!("subject `{subject}`");
            if registry.versions(&subject)?.is_empty() {
                self.absent.push(("registry", what));
                continue;
            }
            self.step("registry", what, move || {
                registry.delete(&subject)?;
                Ok(())
            });
        }
        Ok(())
    }

    /// Adds the tables of views that the pipeline filled: all, or the named ones.
    ///
    /// # Errors
    /// A view of `only` was not filled by this pipeline, or the sink does not answer.
    fn views(
        &mut self,
        parts: &'a Parts,
        name: &str,
        only: Option<&[String]>,
    ) -> anyhow::Result<()> {
        let mut filled = Vec::new();
        for (sink_name, sink) in &parts.sinks {
            let own = sink.filled_by()?.into_iter();
            let own = own.filter(|(_, jobs)| jobs.contains(name));
            filled.extend(own.map(|(view, jobs)| (view, jobs, sink_name, sink)));
        }
        for view in only.unwrap_or_default() {
            if !filled.iter().any(|(known, ..)| known == view) {
                let known = filled.iter().map(|(known, ..)| known.as_str());
                let known: BTreeSet<&str> = known.collect();
                let known: Vec<&str> = known.into_iter().collect();
                bail!(
                    "pipeline `{name}` has filled no view `{view}`; it has filled: {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                );
            }
        }
        if filled.is_empty() {
            self.absent.push(("views", "tables of views".to_owned()));
        }
        for (view, jobs, sink_name, sink) in filled {
            if only.is_some_and(|only| !only.contains(&view)) {
                continue;
            }
            let what = match sink_name {
                None => format!("table `{view}`"),
                Some(sink) => format!("table `{view}` in sink `{sink}`"),
            };
            if let Some(other) = jobs.iter().find(|job| *job != name) {
                self.keep(
                    "views",
                    what,
                    &format!("pipeline `{other}` fills it as well"),
                );
                continue;
            }
            let name = name.to_owned();
            self.step("views", what, move || Ok(sink.drop_view(&name, &view)?));
        }
        Ok(())
    }

    /// Adds the journal and the checkpoints.
    fn state(&mut self, parts: &'a Parts, name: &str) -> anyhow::Result<()> {
        let objects = match &parts.store {
            Some(store) => store.list(name)?,
            None => Vec::new(),
        };
        let what = format!("{name}/ in {}", parts.state);
        let (Some(store), false) = (&parts.store, objects.is_empty()) else {
            self.absent.push(("state", what));
            return Ok(());
        };
        let bytes: u64 = objects.iter().map(|(_, bytes)| bytes).sum();
        let what = format!(
            "{what}: {} objects, {} bytes",
            objects.len(),
            grouped(bytes)
        );
        let name = name.to_owned();
        self.step("state", what, move || Ok(store::remove(&**store, &name)?));
        Ok(())
    }

    /// Shows the plan, asks the user, checks again that no process runs the pipeline, and removes.
    ///
    /// # Errors
    /// The user said no, a process runs the pipeline by now, or a removal failed. The message of
    /// the last lists what remains.
    fn carry_out(
        mut self,
        question: &str,
        sure: &Sure,
        free: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.show();
        if self.steps.is_empty() {
            output::line("nothing to remove");
            return Ok(());
        }
        if !sure.yes {
            if !asked(question)? {
                bail!("nothing was removed");
            }
            free()?;
        }
        for at in 0..self.steps.len() {
            let Some(step) = self.steps.get_mut(at) else {
                break;
            };
            if let Err(error) = (step.remove)() {
                let rest = self.steps.iter().skip(at);
                let rest: Vec<String> = rest
                    .map(|step| format!("\n  {:<10}  {}", step.place, step.what))
                    .collect();
                let remains = "run the same command again to remove what remains:";
                return Err(error).context(format!("stopped; {remains}{}", rest.concat()));
            }
            output::line(&format!("removed  {:<10}  {}", step.place, step.what));
        }
        Ok(())
    }

    /// Prints the plan.
    fn show(&self) {
        let line = |place: &str, what: &str| output::line(&format!("  {place:<10}  {what}"));
        if !self.steps.is_empty() {
            output::line("to be removed");
            self.steps
                .iter()
                .for_each(|step| line(step.place, &step.what));
        }
        if !self.kept.is_empty() {
            output::line("kept");
            for (place, what, why) in &self.kept {
                line(place, &format!("{what}: {why}"));
            }
        }
        if !self.absent.is_empty() {
            output::line("not there");
            self.absent
                .iter()
                .for_each(|(place, what)| line(place, what));
        }
    }
}

/// Asks the user on the terminal.
///
/// # Errors
///
/// Stdin is no terminal ([`Usage`]).
fn asked(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let why = "nobody can be asked here: say --yes to remove what is listed above";
        return Err(Usage(why.to_owned()).into());
    }
    output::log(&format!("{question}? [y/N] "));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| anyhow!("no answer: {error}"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
