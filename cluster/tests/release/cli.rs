//! The binary as a user calls it: flags, files, connections, and what it says when they are wrong.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const BAD_INGEST: &str = "[schedule]\nevery = \"1s\"\nevry = 2\n";

/// A view over a JSON topic: needs no registry and no ingest.
const JSON_VIEWS: &str = "\
CREATE TABLE clicks (page text, ms bigint) WITH (topic = 'clicks', format = 'json');
CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
  SELECT page, count(*) AS clicks FROM clicks GROUP BY page;
";

/// What the binary said and how it ended.
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

impl Said {
    fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Fails with the whole output unless the process ended so and said all of this.
    #[track_caller]
    fn expect(&self, code: i32, parts: &[&str]) {
        let all = self.all();
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "`{part}` is missing in:\n{all}");
        }
    }
}

/// Calls of the binary in an own folder, without the caller's environment.
struct Call {
    folder: TempDir,
}

impl Call {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn write(&self, file: &str, text: &str) -> &Self {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name.starts_with("RUST_") {
                command.env_remove(name);
            }
        }
        let output = command.envs(env.iter().copied()).output().unwrap();
        let Output {
            stdout,
            stderr,
            status,
        } = output;
        Said {
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
            code: status.code(),
        }
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users")
}

/// A port that nobody listens on, for services that are not there.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn help_shows_every_command_with_examples_and_exit_codes() {
    let call = Call::new();
    let commands = ["run", "ingest", "dataflow", "check", "explain"];
    call.run(&["--help"]).expect(0, &commands);
    call.run(&["--help"]).expect(
        0,
        &["Examples:", "Exit codes:", "tidemill run examples/users"],
    );
    for command in commands {
        let said = call.run(&[command, "--help"]);
        said.expect(0, &["Examples", "--kafka", "TIDEMILL_KAFKA"]);
        assert!(said.err.is_empty(), "{}", said.err);
    }
    call.run(&["--version"])
        .expect(0, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn h_is_the_host_file_as_timely_has_it() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    call.run(&["dataflow", "p", "-h", "nowhere"])
        .expect(1, &["host file nowhere"]);
    call.write("hosts", "a:1\nb\n");
    let said = call.run(&["dataflow", "p", "-n", "2", "-h", "hosts"]);
    said.expect(2, &["`b` is not host:port"]);
    call.run(&["dataflow", "p", "-n", "2", "-p", "2"])
        .expect(2, &["there are 2 processes"]);
    call.run(&["dataflow", "p", "-w", "0"])
        .expect(2, &["at least one worker"]);
}

#[test]
fn an_unknown_flag_or_command_is_a_usage_error() {
    let call = Call::new();
    call.run(&["run", "p", "--kafak", "a:1"])
        .expect(2, &["--kafak", "--kafka"]);
    call.run(&["rum", "p"]).expect(2, &["rum", "run"]);
    call.run(&["run", "p", "--until", "0"])
        .expect(2, &["--until"]);
    call.run(&["run"]).expect(2, &["PIPELINE"]);
    call.run(&[]).expect(2, &["Usage:"]);
}

#[test]
fn a_missing_pipeline_is_named() {
    let call = Call::new();
    std::fs::create_dir(call.folder.path().join("empty")).unwrap();
    for command in ["run", "ingest", "dataflow", "check", "explain"] {
        call.run(&[command, "nowhere"])
            .expect(1, &["no pipeline at nowhere"]);
        let said = call.run(&[command, "empty"]);
        said.expect(1, &["empty holds neither ingest.toml nor views.sql"]);
    }
}

#[test]
fn an_error_in_ingest_toml_names_the_line() {
    let call = Call::new();
    call.write("p/ingest.toml", BAD_INGEST);
    for command in ["check", "ingest"] {
        call.run(&[command, "p"])
            .expect(1, &["ingest.toml:3", "evry"]);
    }
}

#[test]
fn an_error_in_views_sql_names_the_line() {
    let call = Call::new();
    call.write(
        "p/views.sql",
        &JSON_VIEWS.replace("SELECT page,", "SELECT pgae,"),
    );
    for command in ["check", "explain", "dataflow"] {
        call.run(&[command, "p"])
            .expect(1, &["views.sql:3:", "pgae"]);
    }
}

#[test]
fn a_topic_is_read_by_one_table() {
    let call = Call::new();
    let again = "CREATE TABLE again (page text) WITH (topic = 'clicks', format = 'json');\n";
    call.write("p/views.sql", &format!("{JSON_VIEWS}{again}"));
    let parts = [
        "views.sql:4:",
        "topic `clicks` is read by table `clicks` already",
    ];
    call.run(&["check", "p"]).expect(1, &parts);
}

#[test]
fn check_says_all_that_is_wrong_at_once() {
    let call = Call::new();
    call.write("p/ingest.toml", BAD_INGEST);
    call.write("p/views.sql", "CREATE TABLE\n");
    let cassandra = nobody();
    let said = call.run(&["check", "p", "--cassandra", &cassandra]);
    said.expect(
        1,
        &[
            "ingest.toml:3",
            "views.sql:",
            "Cassandra does not answer at",
            &cassandra,
        ],
    );
}

#[test]
fn check_and_explain_need_nothing_running() {
    let call = Call::new();
    let users = example();
    let users = users.to_str().unwrap();
    call.run(&["check", users]).expect(
        0,
        &[
            "ok: 2 tables, 6 views",
            "created_users",
            "21 rows of countries.csv",
        ],
    );
    call.run(&["explain", users])
        .expect(0, &["users_by_country", "registrations_by_year"]);
    let one = call.run(&["explain", users, "users_by_country"]);
    one.expect(0, &["users_by_country"]);
    assert!(!one.out.contains("registrations_by_year"), "{}", one.out);
    call.run(&["explain", users, "users_by_contry"])
        .expect(1, &["no view `users_by_contry`"]);
    let made: Vec<_> = std::fs::read_dir(call.folder.path()).unwrap().collect();
    assert!(made.is_empty(), "checking made {made:?}");
}

#[test]
fn a_folder_with_views_alone_is_checked_and_explained() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    call.run(&["check", "p"])
        .expect(0, &["ok: 1 table, 1 view (pages)"]);
    call.run(&["explain", "p"]).expect(0, &["pages"]);
    call.run(&["ingest", "p"]).expect(1, &["ingest.toml"]);
}

#[test]
fn a_folder_with_ingest_alone_is_checked() {
    let call = Call::new();
    let toml = std::fs::read_to_string(example().join("ingest.toml")).unwrap();
    call.write("p/ingest.toml", &toml);
    call.run(&["check", "p"])
        .expect(1, &["p/countries.csv: ", "No such file"]);
    call.write("p/countries.csv", "name,continent,capital,population\n");
    call.run(&["check", "p"])
        .expect(0, &["ok: ", "land in users", "begins with 0 rows"]);
    call.run(&["explain", "p"]).expect(1, &["no views.sql"]);
    call.run(&["dataflow", "p"]).expect(1, &["views.sql"]);
}

#[test]
fn a_codec_that_believes_what_arrives_is_refused_where_anybody_may_send() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    let hosts = format!("{},{}", nobody(), nobody());
    let dataflow = ["dataflow", "p", "--hosts", &hosts, "--codec"];
    let said = call.run(&[&dataflow[..], &["abomonation"]].concat());
    said.expect(2, &["codec `abomonation`", "or leave --codec out"]);
    let said = call.run(&[&dataflow[..], &["bincode"]].concat());
    said.expect(2, &["`bincode` is no codec: checked or abomonation is"]);
}

#[test]
fn an_unknown_connection_scheme_is_refused_with_what_is_right() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    let said = call.run(&["dataflow", "p", "--kafka", "http://a:1"]);
    said.expect(
        2,
        &[
            "--kafka: `http://a:1`",
            "unknown scheme `http://`",
            "host:9092",
        ],
    );
    let env = [("TIDEMILL_CASSANDRA", "mysql://a")];
    call.run_with(&["check", "p"], &env)
        .expect(2, &["TIDEMILL_CASSANDRA: `mysql://a`"]);
    call.write(
        "tidemill.toml",
        "[connections]\n\npostgres = \"mysql://a\"\n",
    );
    call.run(&["check", "p"])
        .expect(2, &["tidemill.toml:3:12: connections.postgres"]);
}

#[test]
fn an_unknown_connection_in_the_file_names_the_line() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    call.write("tidemill.toml", "[connections]\nkafak = \"a:1\"\n");
    call.run(&["check", "p"])
        .expect(1, &["tidemill.toml:2:1", "kafak", "kafka"]);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let call = Call::new();
    let (file, env, flag) = (nobody(), nobody(), nobody());
    let toml = format!("[connections]\ncassandra = \"{file}\"\n");
    call.write("p/views.sql", JSON_VIEWS);
    // The pipeline's own file counts as long as the current folder has none.
    call.write("p/tidemill.toml", &toml);
    call.run(&["check", "p"]).expect(1, &[&file]);
    call.write(
        "p/tidemill.toml",
        "[connections]\ncassandra = \"127.0.0.1:1\"\n",
    );
    call.write("tidemill.toml", &toml);
    call.run(&["check", "p"]).expect(1, &[&file]);
    let variable = [("TIDEMILL_CASSANDRA", env.as_str())];
    call.run_with(&["check", "p"], &variable).expect(1, &[&env]);
    let args = ["check", "p", "--cassandra", &flag];
    call.run_with(&args, &variable).expect(1, &[&flag]);
    let empty = [("TIDEMILL_CASSANDRA", "")];
    call.run_with(&["check", "p"], &empty).expect(1, &[&file]);
}

#[test]
fn passwords_are_never_printed() {
    let call = Call::new();
    let url = format!("postgres://me:hunter%32-secret@{}/db", nobody());
    call.write("p/views.sql", JSON_VIEWS);
    let env = [("TIDEMILL_POSTGRES", url.as_str())];
    let said = call.run_with(&["check", "p"], &env);
    said.expect(1, &["postgres://me:***@127.0.0.1"]);
    let bad = [("TIDEMILL_POSTGRES", "mysql://me:hunter%32-secret@a/db")];
    let refused = call.run_with(&["check", "p"], &bad);
    refused.expect(2, &["mysql://me:***@a/db"]);
    // Neither the argument parser nor help shows what the environment holds.
    let usage = call.run_with(&["check", "p", "--nonsense"], &env);
    let help = call.run_with(&["check", "--help"], &env);
    call.write(
        "tidemill.toml",
        &format!("[connections]\npostgres = \"{url}\n"),
    );
    let broken = call.run(&["check", "p"]);
    broken.expect(1, &["tidemill.toml:2:"]);
    for said in [said, refused, usage, help, broken] {
        let all = said.all();
        assert!(!all.contains("hunter"), "{all}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let hosts = format!("{address},{}", nobody());
    let said = call.run(&["dataflow", "p", "-n", "2", "--hosts", &hosts]);
    said.expect(1, &[&format!("cannot listen on {address}"), "in use"]);
}

#[test]
fn log_lines_name_job_and_process_and_can_be_json() {
    let call = Call::new();
    call.write(
        "my-job/views.sql",
        &JSON_VIEWS.replace("SELECT page,", "SELECT pgae,"),
    );
    let hosts = format!("{},{}", nobody(), nobody());
    let args = ["dataflow", "my-job", "-p", "1", "--hosts", &hosts];
    let text = call.run(&args);
    let first = text.err.split_once("Z  INFO job=my_job process=1 ");
    let (time, _) = first.unwrap_or_else(|| panic!("{}", text.err));
    assert!(
        format!("{time}Z").parse::<jiff::Timestamp>().is_ok(),
        "{time}"
    );
    let json = call.run(&[&args[..], &["--log-format", "json"]].concat());
    let line: serde_json::Value = serde_json::from_str(json.err.lines().next().unwrap()).unwrap();
    assert_eq!(line["job"], "my_job");
    assert_eq!(line["process"], 1);
    call.run(&["dataflow", "my-job", "--log", "info=="])
        .expect(2, &["log level `info==`"]);
}

#[test]
fn logs_are_written_to_files_too_without_passwords_and_in_bounds() {
    let mut call = Call::new();
    call.write("p/views.sql", &JSON_VIEWS.replace("ms bigint", "ms bigit"));
    let url = format!("postgres://me:hunter%32-secret@{}/db", nobody());
    let env = [("TIDEMILL_POSTGRES", url.as_str())];
    let args = ["dataflow", "p", "--log-dir", "logs"];
    let said = call.run_with(&args, &env);
    let file = call.folder.path().join("logs/p.dataflow.0.000001.log");
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains("postgres://me:***@127.0.0.1"), "{log}");
    assert!(log.contains(" INFO job=p process=0 "), "{log}");
    assert!(said.err.starts_with(&log), "{log}\n{}", said.err);
    assert!(!log.contains("hunter"), "{log}");
    let bounded = [&args[..], &["--log-size", "4096", "--log-keep", "2"]].concat();
    let kept = |call: &mut Call| {
        call.run_with(&bounded, &env);
        let files = std::fs::read_dir(call.folder.path().join("logs")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    // Each start writes some lines; the third file takes the first one's place.
    let third = (0..100)
        .map(|_| kept(&mut call))
        .find(|names| names[0] == "p.dataflow.0.000002.log");
    assert_eq!(third.unwrap().len(), 2);
    call.run(&["dataflow", "p", "--log-size", "64 elephants"])
        .expect(2, &["no size such as 64MiB"]);
}

#[test]
fn a_pipeline_may_only_capture_and_says_what_needs_an_api() {
    let call = Call::new();
    call.write("p/ingest.toml", "[capture]\ntables = ['orders']\n");
    call.write("p/views.sql", JSON_VIEWS);
    call.run(&["check", "p"])
        .expect(0, &["ok: ", "captured: orders"]);
    call.run(&["run", "p", "--until", "5"])
        .expect(2, &["--until", "fetches none"]);
    call.run(&["run", "p", "--api", "http://127.0.0.1:1/"])
        .expect(2, &["--api", "fetches nothing"]);
    call.write("p/ingest.toml", "[publish]\npartitions = 1\n");
    call.run(&["check", "p"])
        .expect(1, &["ingest.toml:1: ", "[capture] with `tables`"]);
}

#[test]
fn a_name_is_fit_for_a_slot() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    for name in ["", "Users", "a-b", &"x".repeat(55)] {
        for command in ["run", "ingest", "dataflow"] {
            let flag = format!("--name={name}");
            call.run(&[command, "p", &flag])
                .expect(2, &["lower-case letters, digits and `_`"]);
        }
    }
}

/// A server that answers every HTTP request so, or says nothing at all.
fn answering(answer: Option<&str>) -> String {
    let answer = answer.map(str::to_owned);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(answer) = &answer {
                let mut asked = [0; 4096];
                let _read = std::io::Read::read(&mut stream, &mut asked);
                let _sent = std::io::Write::write_all(&mut stream, answer.as_bytes());
            } else {
                open.push(stream);
            }
        }
    });
    place
}

#[test]
fn check_tells_apart_why_a_service_cannot_be_used() {
    let call = Call::new();
    call.write("p/views.sql", JSON_VIEWS);
    let check = |flag: &str, url: &str| call.run(&["check", "p", flag, url]);
    let silent = answering(None);
    let urls = |place: &str| {
        [
            ("--registry", format!("http://{place}")),
            ("--postgres", format!("postgres://u@{place}/db")),
            ("--kafka", place.to_owned()),
            ("--cassandra", place.to_owned()),
        ]
    };
    for (flag, url) in urls(&nobody()) {
        check(flag, &url).expect(1, &["does not answer at", "connection refused"]);
    }
    for (flag, url) in urls("no-such-host.invalid:1") {
        check(flag, &url).expect(1, &["does not answer at", "no such host"]);
    }
    // Connected, and frozen.
    for (flag, url) in urls(&silent) {
        let began = std::time::Instant::now();
        let said = check(flag, &url);
        said.expect(1, &[]);
        let waited = began.elapsed();
        assert!(waited.as_secs() < 20, "{flag}: {waited:?}\n{}", said.all());
        assert!(!said.all().contains("refused"), "{flag}: {}", said.all());
    }
    let not_found = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
    let not_found = format!("http://{}/wrong", answering(Some(not_found)));
    check("--registry", &not_found).expect(
        1,
        &["is not there (404)", "404 Not Found for `/wrong/subjects`"],
    );
    let locked = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}";
    let locked = format!("http://{}", answering(Some(locked)));
    let said = check("--registry", &locked);
    said.expect(1, &["authentication failed", "401 Unauthorized"]);
    let other = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ht>";
    let other = answering(Some(other));
    let said = check("--registry", &format!("http://{other}"));
    said.expect(1, &["answers with an error", "not a registry's answer"]);
    let said = check("--registry", &format!("https://{other}"));
    said.expect(1, &["TLS failed"]);
}

#[test]
fn check_asks_the_api_and_tells_apart_why_it_cannot_be_used() {
    let call = Call::new();
    let toml = std::fs::read_to_string(example().join("ingest.toml")).unwrap();
    call.write("p/ingest.toml", &toml);
    call.write("p/countries.csv", "name,continent,capital,population\n");
    let check = |url: &str| call.run(&["check", "p", "--api", url]);
    let refused = format!("http://{}/api", nobody());
    check(&refused).expect(1, &["the API does not answer at", "connection refused"]);
    let unknown = "http://no-such-host.invalid:1/api";
    check(unknown).expect(1, &["the API does not answer at", "no such host"]);
    let silent = format!("http://{}/api", answering(None));
    check(&silent).expect(1, &["the API does not answer at", "timed out"]);
    for (status, how) in [
        ("404 Not Found", "is not there (404)"),
        ("401 Unauthorized", "authentication failed"),
        ("429 Too Many Requests", "answers with an error"),
        ("500 Internal Server Error", "answers with an error"),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
        let url = format!("http://{}/api", answering(Some(&answer)));
        check(&url).expect(1, &["the API", how, status]);
    }
    let page = r#"HTTP/1.1 200 OK
content-length: 26

{"results": [{"id": "1"}]}"#;
    let page = page.replace("\\r\\n", "\r\n");
    let at = answering(Some(&page));
    check(&format!("http://{at}/api")).expect(0, &["the API (1 record on its first page)"]);
    check(&format!("https://{at}/api")).expect(1, &["the API", "TLS failed"]);
    // The one of the file is asked as well, unless the built-in server stands in for it.
    let toml = toml.replace("https://randomuser.me/api/1.4/", &refused);
    call.write("p/ingest.toml", &toml);
    call.run(&["check", "p"])
        .expect(1, &["the API does not answer at", "connection refused"]);
}
