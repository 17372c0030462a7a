//! Runs the real binary for tests: pipelines in folders of their own, engines with names of their
//! own, processes that end with the test.
//!
//! In flow a pipeline's text and the URLs of services from `TIDEMILL_TEST_…`; out flow what the
//! views hold, what was said, and how processes ended. Whatever is waited for has a deadline.

// Each test binary uses another part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use tempfile::TempDir;
use tidemill_log::envelope::Decoder;
use tidemill_log::log;
use tidemill_log::log::dead_letter::{Entry, Kept};
use tidemill_log::log::{OwnedRecord, Record, dead_letter};
use tidemill_sinks::{Sink, Table};

pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod database;
pub(crate) mod exposition;
pub(crate) mod own;
pub(crate) mod river;
pub(crate) mod web;

/// How long something may take that needs no more than being done.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// More rows than any view here has.
const ROWS_MAX: usize = 1_000_000;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A name that no other test and no other run has.
pub(crate) fn unique(what: &str) -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() % 1_000_000;
    format!("{what}_{}_{since}_{number}", std::process::id())
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "in {patience:?} not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks a service that a test may have stopped, frozen or altered until it answers. No error is
/// taken for an empty answer.
#[track_caller]
fn answered<T>(what: &str, mut ask: impl FnMut() -> tidemill_log::Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Sends a process a signal, by its name without SIG; false when there is no such process.
pub(crate) fn send(signal: &str, process: u32) -> bool {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), process.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.unwrap().success()
}

/// Says what a test leaves out, past libtest, which hides what a passing test prints. `./test`
/// fails when it reads such a line, unless the line names a flag of `./test` that was not given.
pub(crate) fn left_out(what: &str) {
    let line = format!("left out: {what}\n");
    let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// What a variable of the environment names; none, said plainly, when it is not set.
pub(crate) fn given(test: &str, variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        left_out(&format!("{test} needs {variable} (run ./test)"));
    }
    found
}

/// How users come to a pipeline, in its ingest.toml: twenty every 50 ms, made from a seed.
pub(crate) fn feed(seed: &str) -> String {
    format!(
        r#"
[schedule]
every = "50ms"
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 20
page_size_parameter = "results"
page_parameter = "page"
parameters = {{ seed = "{seed}" }}
"#
    )
}

/// Seeds a test and says so.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var("TIDEMILL_TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("{test}: TIDEMILL_TEST_SEED={seed}");
    seed
}

/// A pipeline's folder, and the engines that it runs on.
pub(crate) struct Place {
    pub(crate) name: String,
    folder: TempDir,
    pub(crate) database: String,
    pub(crate) log: String,
    pub(crate) registry: String,
    pub(crate) sink: String,
    flags: Vec<String>,
    reading: OnceLock<Arc<dyn Sink>>,
}

impl Place {
    /// Everything in one file.
    pub(crate) fn embedded(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("river.sqlite").display().to_string();
        let url = format!("sqlite://{file}");
        Self {
            name: unique(name),
            database: url.clone(),
            log: url.clone(),
            registry: url.clone(),
            sink: url,
            flags: vec!["--data".into(), file],
            reading: OnceLock::new(),
            folder,
        }
    }

    /// The real services, if the environment names them all.
    pub(crate) fn services(name: &str) -> Option<Self> {
        let mut urls = Vec::new();
        for service in ["POSTGRES", "KAFKA", "REGISTRY", "CASSANDRA"] {
            let test = format!("{name} on the services");
            urls.push(given(&test, &format!("TIDEMILL_TEST_{service}"))?);
        }
        let [database, log, registry, cassandra] = urls.try_into().unwrap();
        Some(Self::on(name, database, log, registry, &cassandra))
    }

    /// These services.
    pub(crate) fn on(
        name: &str,
        postgres: String,
        kafka: String,
        registry: String,
        cassandra: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = unique(name);
        let sink = format!("{}/{name}", cassandra.trim_end_matches('/'));
        let journal = format!("file://{}", folder.path().join("journal").display());
        let flags = [
            ("--postgres", &postgres),
            ("--kafka", &kafka),
            ("--registry", &registry),
            ("--cassandra", &sink),
            ("--journal", &journal),
        ];
        let flags = flags.map(|(flag, url)| [flag.to_owned(), url.clone()]);
        Self {
            flags: flags.into_iter().flatten().collect(),
            name,
            folder,
            reading: OnceLock::new(),
            database: postgres,
            log: kafka,
            registry,
            sink,
        }
    }

    /// Embedded, and on the real services if there are any.
    pub(crate) fn all(name: &str) -> Vec<Self> {
        let mut all = vec![Self::embedded(name)];
        all.extend(Self::services(name));
        all
    }

    /// The folder that processes run in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder behind, with what processes said.
    pub(crate) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Writes a file of the pipeline.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.folder().join(&self.name).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Where the journal and the checkpoints are.
    pub(crate) fn state(&self) -> String {
        let mut given = self.flags.iter().skip_while(|flag| *flag != "--journal");
        given.nth(1).cloned().unwrap_or_else(|| self.sink.clone())
    }

    /// Whether the job has made the tables of these views.
    pub(crate) fn are_there(&self, views: &[&str]) -> bool {
        // A connection to the embedded file that is older than a table may not see it.
        let sink = tidemill_sinks::open(&self.sink).unwrap();
        let filled = sink.frontiers(&self.name);
        filled.is_ok_and(|filled| views.iter().all(|view| filled.contains_key(*view)))
    }

    /// Puts the database elsewhere.
    pub(crate) fn use_postgres(&mut self, url: &str) {
        self.database = url.to_owned();
        self.reach("--postgres", url);
    }

    /// Puts the log elsewhere.
    pub(crate) fn use_kafka(&mut self, url: &str) {
        self.log = url.to_owned();
        self.reach("--kafka", url);
    }

    /// Puts the views elsewhere: a keyspace's URL.
    pub(crate) fn use_cassandra(&mut self, url: &str) {
        self.sink = url.to_owned();
        self.reach("--cassandra", url);
    }

    /// Keeps journal and checkpoints elsewhere.
    pub(crate) fn keep_state_at(&mut self, url: &str) {
        self.reach("--journal", url);
    }

    /// Gives the pipeline another URL of a service than the test has.
    pub(crate) fn reach(&mut self, flag: &str, url: &str) {
        if let Some(at) = self.flags.iter().position(|given| given == flag) {
            self.flags.drain(at..at + 2);
        }
        self.flags.extend([flag.to_owned(), url.to_owned()]);
    }

    /// Starts `tidemill COMMAND` on the pipeline, to end at a failpoint.
    pub(crate) fn start_armed(&self, command: &str, more: &[&str], failpoint: &str) -> Process {
        self.start_words(&[command], more, Some(failpoint))
    }

    /// Starts `tidemill COMMAND` on the pipeline.
    pub(crate) fn start(&self, command: &str, more: &[&str]) -> Process {
        self.start_words(&[command], more, None)
    }

    /// Starts `tidemill COMMAND VERB` on the pipeline.
    pub(crate) fn start_verb(&self, command: &str, verb: &str, more: &[&str]) -> Process {
        self.start_words(&[command, verb], more, None)
    }

    /// The arguments of `tidemill COMMAND` on the pipeline.
    pub(crate) fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        let args = [command, self.name.as_str()].map(str::to_owned).into_iter();
        let args = args.chain(self.flags.iter().cloned());
        args.chain(more.iter().map(|word| (*word).to_owned()))
            .collect()
    }

    fn start_words(&self, words: &[&str], more: &[&str], failpoint: Option<&str>) -> Process {
        Process::start_armed(self.command(words, more), self.folder(), failpoint)
    }

    /// `tidemill COMMAND` on the pipeline, to be started.
    pub(crate) fn command(&self, words: &[&str], more: &[&str]) -> Command {
        let mut args = [words, &[self.name.as_str()]].concat();
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(more);
        let mut binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        binary.args(args).current_dir(self.folder());
        binary
    }

    /// Appends records to the log.
    pub(crate) fn append(&self, records: &[Record]) {
        let mut producer = log::open(&self.log).unwrap().producer().unwrap();
        producer.append(records).unwrap();
    }

    /// Creates a topic.
    pub(crate) fn topic(&self, topic: &str, partitions: u32) {
        let log = log::open(&self.log).unwrap();
        log.create_topic(topic, partitions).unwrap();
    }

    /// The last records of a topic; none where there is no topic. What cannot be read in time fails
    /// the test.
    pub(crate) fn records(&self, topic: &str) -> Vec<OwnedRecord> {
        self.records_up_to(topic, 100_000)
    }

    /// Of each of its partitions at most so many.
    pub(crate) fn records_up_to(&self, topic: &str, count: u32) -> Vec<OwnedRecord> {
        let log = log::open(&self.log).unwrap();
        answered(&format!("the records of {topic}"), || {
            match log.describe(topic)? {
                Some(_) => log.tail(topic, count),
                None => Ok(Vec::new()),
            }
        })
    }

    /// Checks that a captured table's topic holds every change once.
    #[track_caller]
    pub(crate) fn is_published_once(&self, topic: &str) {
        let registry = tidemill_log::registry::open(&self.registry).unwrap();
        let mut decoder = Decoder::new(topic, registry);
        let records = self.records(topic);
        // By partition: a truncate, as before a new snapshot, goes to each.
        let positions = records.iter().filter_map(|record| {
            let position = decoder.position_of(record).unwrap();
            position.map(|position| (record.partition, position))
        });
        let mut positions: Vec<_> = positions.collect();
        let all = positions.len();
        assert!(all > 0, "{topic}: no change was published");
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), all, "{topic}: changes published twice");
    }

    /// All dead letters of the pipeline, each once.
    pub(crate) fn dead_letters(&self) -> Vec<Kept> {
        let log = log::open(&self.log).unwrap();
        let mut letters = Vec::new();
        let mut each = |entry| {
            if let Entry::Letter(kept) = entry {
                letters.push(kept);
            }
            Ok(())
        };
        dead_letter::read(log.as_ref(), &dead_letter::topic_of(&self.name), &mut each).unwrap();
        letters
    }

    /// A view's rows as text; empty where there is no table. What cannot be read in time fails the
    /// test.
    #[track_caller]
    pub(crate) fn view(&self, view: &View) -> BTreeSet<Vec<String>> {
        let fields = view.columns.iter();
        let fields = fields.map(|(name, kind)| Field::new(*name, kind.clone(), true));
        let table = Table {
            name: view.name.clone(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            primary_key: vec![0],
            partition_columns: 1,
            fingerprint: 0,
        };
        let sink = self
            .reading
            .get_or_init(|| tidemill_sinks::open(&self.sink).unwrap());
        let rows = answered(&format!("the view {}", view.name), || {
            match sink.read_back()?.read(&table, ROWS_MAX) {
                Err(_) if !sink.is_there(&view.name)? => {
                    Ok(RecordBatch::new_empty(Arc::clone(&table.schema)))
                }
                read => read,
            }
        });
        let cell = |column, row| array_value_to_string(rows.column(column), row).unwrap();
        let all =
            (0..rows.num_rows()).map(|row| (0..rows.num_columns()).map(|c| cell(c, row)).collect());
        all.collect()
    }

    /// Waits until a view holds exactly these rows.
    #[track_caller]
    pub(crate) fn expect(&self, view: &View, rows: &BTreeSet<Vec<String>>) {
        let mut found = BTreeSet::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            found = self.view(view);
            if found == *rows {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let missing: Vec<_> = rows.difference(&found).take(5).collect();
        let wrong: Vec<_> = found.difference(rows).take(5).collect();
        panic!(
            "view {} on {}: {} rows, {} expected; missing {missing:?}; wrong {wrong:?}",
            view.name,
            self.sink,
            found.len(),
            rows.len()
        );
    }
}

/// A view to be read: its name and its columns, the key first.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) columns: Vec<(&'static str, DataType)>,
}

impl View {
    pub(crate) fn new(name: &str, columns: &[(&'static str, DataType)]) -> Self {
        let (name, columns) = (name.to_owned(), columns.to_vec());
        Self { name, columns }
    }
}

/// A running process of the binary (or of anything); killed when dropped.
pub(crate) struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts a command that has its program and arguments; its output goes to a file in `folder`.
    pub(crate) fn start(command: Command, folder: &Path) -> Self {
        Self::start_armed(command, folder, None)
    }

    fn start_armed(mut command: Command, folder: &Path, failpoint: Option<&str>) -> Self {
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.envs(failpoint.map(|point| ("TIDEMILL_FAILPOINT", point)));
        Self::start_in(command, folder)
    }

    /// The same, with the environment as it is.
    pub(crate) fn start_in(mut command: Command, folder: &Path) -> Self {
        let said = folder.join(unique("said"));
        let out = std::fs::File::create(&said).unwrap();
        command.stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap();
        Self { child, said }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it has now.
    pub(crate) fn memory(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that it ever had.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Everything printed so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.said).unwrap()).into_owned()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn says(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(part) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                // What it said last may have come since.
                assert!(
                    self.said().contains(part),
                    "`{part}` is missing ({ended:?}) in:\n{}",
                    self.said()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Fails with its words if it has ended.
    #[track_caller]
    pub(crate) fn runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "ended with {ended:?}:\n{}", self.said());
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(send(signal, self.child.id()), "no SIG{signal} can be sent");
    }

    /// Waits for its end and checks the exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self, code: i32, patience: Duration) -> String {
        let ended = self.end(patience);
        assert_eq!(ended.code(), Some(code), "{ended}:\n{}", self.said());
        self.said()
    }

    /// Waits for its end, however it ends.
    #[track_caller]
    pub(crate) fn end(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }
            assert!(
                Instant::now() < deadline,
                "did not end in {patience:?}:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to stop and waits until it did, cleanly. A process hears signals before it says its
    /// first word; one that has just been started may not yet.
    #[track_caller]
    pub(crate) fn stop(&mut self, signal: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.said().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal(signal);
        self.ends(0, PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
