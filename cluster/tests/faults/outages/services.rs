//! Services of the test's own, which want passwords where they can, and the ways in which each
//! becomes unusable and usable again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use postgres::NoTls;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tidemill_randomuser::{Fault, Faults, Server};
use tokio::runtime::Runtime;

use crate::harness::certificates::Certificates;
use crate::harness::own::Own;
use crate::harness::river::River;
use crate::harness::{PATIENCE, Place, seed, send, until};
use crate::outages::gate::Gate;

/// The password of the user `secure` of each service.
const PASSWORD: &str = "hunter-outages-22";
const ALL: [&str; 5] = ["postgres", "kafka", "registry", "cassandra", "s3"];

/// How a service becomes unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Asked to end.
    Stopped,
    /// Ended by SIGKILL.
    Killed,
    /// Stands still by SIGSTOP.
    Frozen,
    /// Runs and takes the job's credentials no more, or answers with this status.
    Refusing(u16),
}

/// The API's answers: a page, no records, none at all, or any other status.
const PAGES: u16 = 200;
const EMPTY: u16 = 204;
const SILENT: u16 = 1;

/// What Cassandra refuses by a guardrail and not for want of a right.
pub(crate) const GUARDED: u16 = 2;
/// What it refuses since the job's user has another password.
pub(crate) const LOCKED: u16 = 3;

/// Everything that a pipeline uses.
pub(crate) struct Services {
    own: Own,
    certificates: Certificates,
    registry: Gate,
    store: Gate,
    answers: Arc<AtomicU16>,
    api: Option<Server>,
    api_at: SocketAddr,
    runtime: Runtime,
    cassandra: Session,
    frozen: Vec<u32>,
    /// Whether Cassandra has a guardrail.
    guarded: bool,
    /// Whether the job's user has another password there.
    locked: bool,
    pub(crate) river: River,
}

impl Services {
    /// Starts them all, with a pipeline on them.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let certificates = Certificates::new(PASSWORD);
        let own = Own::start_with(test, &ALL, Some(certificates.folder()))?;
        let registry = Gate::before(own.port("registry", "public"));
        let store = Gate::before(own.port("s3", "public"));
        let mut client = postgres::Client::connect(&own.url("postgres"), NoTls).unwrap();
        let role = format!("CREATE ROLE secure LOGIN SUPERUSER PASSWORD '{PASSWORD}'");
        client.batch_execute(&role).unwrap();
        let runtime = Runtime::new().unwrap();
        let cassandra = runtime.block_on(administrator(&own));
        let made = format!("CREATE ROLE secure WITH LOGIN = true AND PASSWORD = '{PASSWORD}'");
        for sql in [&made, "GRANT ALL ON ALL KEYSPACES TO secure"] {
            runtime.block_on(cassandra.query_unpaged(sql, ())).unwrap();
        }
        let answers = Arc::new(AtomicU16::new(PAGES));
        let api = serve_api(SocketAddr::from(([127, 0, 0, 1], 0)), &answers);
        let place = place(test, &own, &registry);
        let random = StdRng::seed_from_u64(seed(test));
        Some(Self {
            river: River::new(place, random),
            api_at: api.addr,
            api: Some(api),
            own,
            certificates,
            registry,
            store,
            answers,
            runtime,
            cassandra,
            frozen: Vec::new(),
            guarded: false,
            locked: false,
        })
    }

    /// What processes are told by their environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.store.port());
        [
            ("TIDEMILL_POSTGRES_PASSWORD", PASSWORD),
            ("TIDEMILL_KAFKA_USERNAME", "secure"),
            ("TIDEMILL_KAFKA_PASSWORD", PASSWORD),
            ("TIDEMILL_CASSANDRA_USER", "secure"),
            ("TIDEMILL_CASSANDRA_PASSWORD", PASSWORD),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", "tidemill"),
            ("AWS_SECRET_ACCESS_KEY", "tidemill-secret"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub(crate) fn api_url(&self) -> String {
        format!("http://{}/api/1.4/", self.api_at)
    }

    /// Whether the API has records.
    pub(crate) fn api_has_more(&self, more: bool) {
        let answer = if more { PAGES } else { EMPTY };
        self.answers.store(answer, Ordering::SeqCst);
    }

    /// Makes a service unusable.
    pub(crate) fn breaks(&mut self, service: &str, how: How) {
        match (service, how) {
            ("api", How::Stopped | How::Killed) => drop(self.api.take()),
            ("api", How::Frozen) => self.answers.store(SILENT, Ordering::SeqCst),
            ("api", How::Refusing(status)) => self.answers.store(status, Ordering::SeqCst),
            ("slot", _) => {
                let walsender = self.walsender();
                assert!(send("STOP", walsender));
                self.frozen.push(walsender);
            }
            (name, How::Stopped) => self.own.stop(name),
            (name, How::Killed) => self.own.kill(name),
            (name, How::Frozen) => {
                let all = self.own.processes(name).into_iter();
                self.frozen.extend(all.filter(|it| send("STOP", *it)));
            }
            (name, How::Refusing(status)) => self.refuses(name, status),
        }
    }

    /// Makes it usable again.
    pub(crate) fn mends(&mut self, service: &str, how: How) {
        match (service, how) {
            ("api", How::Stopped | How::Killed) => {
                self.api = Some(serve_api(self.api_at, &self.answers));
            }
            ("api", _) => self.api_has_more(true),
            (name, How::Stopped | How::Killed) => self.own.again(name),
            (_, How::Frozen) => {
                for process in self.frozen.drain(..) {
                    send("CONT", process);
                }
            }
            (name, How::Refusing(_)) => self.refuses(name, 0),
        }
        if service == "postgres" {
            self.river.reconnect();
        }
    }

    /// Refuses the job, or takes it again (0).
    fn refuses(&mut self, name: &str, status: u16) {
        let refuses = status > 0;
        let password = if refuses { "another" } else { PASSWORD };
        match name {
            "registry" => self.registry.answer(status),
            "s3" => self.store.answer(status),
            "postgres" => {
                let url = self.own.url("postgres");
                let mut client = postgres::Client::connect(&url, NoTls).unwrap();
                let changed = format!(
                    "ALTER ROLE secure PASSWORD '{password}';
                     SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE usename = 'secure'"
                );
                client.batch_execute(&changed).unwrap();
            }
            "kafka" => {
                std::fs::write(self.certificates.file("password"), password).unwrap();
                self.own.stop("kafka");
                self.own.again("kafka");
            }
            "cassandra" if status == GUARDED => {
                self.guards("write_consistency_levels_disallowed: [LOCAL_QUORUM]\n");
            }
            "cassandra" if status == LOCKED => {
                self.password_of_cassandra(password);
                self.locked = true;
                // Those who are logged in stay so.
                self.guards("");
            }
            "cassandra" => {
                if std::mem::take(&mut self.locked) {
                    self.password_of_cassandra(PASSWORD);
                }
                if self.guarded {
                    self.guards("");
                }
                self.runtime.block_on(self.writes_to_cassandra(!refuses));
            }
            other => panic!("{other} refuses nobody"),
        }
    }

    /// Starts Cassandra anew with a guardrail, or without any.
    pub(crate) fn guards(&mut self, setting: &str) {
        self.guarded = !setting.is_empty();
        self.own.set_cassandra(setting);
        self.own.stop("cassandra");
        self.own.again("cassandra");
        self.cassandra = self.runtime.block_on(administrator(&self.own));
    }

    fn password_of_cassandra(&self, password: &str) {
        let changed = format!("ALTER ROLE secure WITH PASSWORD = '{password}'");
        let changed = self.cassandra.query_unpaged(changed, ());
        self.runtime.block_on(changed).unwrap();
    }

    /// Gives the job the right to write, or takes it, also as the maker of its tables.
    async fn writes_to_cassandra(&self, may: bool) {
        let keyspace = &self.river.place.name;
        if may {
            let grant = "GRANT MODIFY ON ALL KEYSPACES TO secure";
            self.cassandra.query_unpaged(grant, ()).await.unwrap();
            return;
        }
        let tables = format!(
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"
        );
        let tables = self.cassandra.query_unpaged(tables, ()).await.unwrap();
        let tables = tables.into_rows_result().unwrap();
        let tables = tables.rows::<(String,)>().unwrap();
        let tables = tables.map(|row| format!("TABLE {keyspace}.{}", row.unwrap().0));
        let wider = ["ALL KEYSPACES".to_owned(), format!("KEYSPACE {keyspace}")];
        for of in wider.into_iter().chain(tables) {
            let revoke = format!("REVOKE MODIFY ON {of} FROM secure");
            self.cassandra.query_unpaged(revoke, ()).await.unwrap();
        }
    }

    /// PostgreSQL's process that feeds the job.
    fn walsender(&self) -> u32 {
        let mut client = postgres::Client::connect(&self.own.url("postgres"), NoTls).unwrap();
        let active = "SELECT active_pid FROM pg_replication_slots WHERE active";
        until("the slot is read", PATIENCE, || {
            let row = client.query_opt(active, &[]).unwrap()?;
            Some(row.get::<_, i32>(0).unsigned_abs())
        })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for process in self.frozen.drain(..) {
            send("CONT", process);
        }
    }
}

fn serve_api(at: SocketAddr, answers: &Arc<AtomicU16>) -> Server {
    let answers = Arc::clone(answers);
    let faults: Faults = Arc::new(move |_| match answers.load(Ordering::SeqCst) {
        PAGES => None,
        EMPTY => Some(Fault::Body(r#"{"results": []}"#.to_owned())),
        SILENT => Some(Fault::Hang),
        status => Some(Fault::Status(status)),
    });
    let options = tidemill_randomuser::Options {
        faults: Some(faults),
        ..tidemill_randomuser::Options::default()
    };
    until("the API's port is free", PATIENCE, || {
        tidemill_randomuser::serve(at, options.clone()).ok()
    })
}

/// A pipeline that reaches the services as the user `secure`; the test itself reaches them as those
/// who run them do.
fn place(test: &str, own: &Own, registry: &Gate) -> Place {
    let port = |name: &str, which: &str| own.port(name, which);
    let at = format!(
        "cassandra://cassandra@127.0.0.1:{}",
        port("cassandra", "public")
    );
    let (postgres, kafka) = (own.url("postgres"), own.url("kafka"));
    let mut place = Place::on(test, postgres, kafka, own.url("registry"), &at);
    place.sink = format!("{}?password=cassandra", place.sink);
    let keyspace = place.name.clone();
    let postgres = port("postgres", "public");
    for (flag, url) in [
        (
            "--postgres",
            format!("postgres://secure@localhost:{postgres}/postgres?sslmode=require"),
        ),
        (
            "--kafka",
            format!(
                "SASL_PLAINTEXT://127.0.0.1:{}?sasl.mechanism=PLAIN",
                port("kafka", "sasl")
            ),
        ),
        (
            "--registry",
            format!("http://127.0.0.1:{}/apis/ccompat/v7", registry.port()),
        ),
        (
            "--cassandra",
            format!("127.0.0.1:{}/{keyspace}", port("cassandra", "public")),
        ),
        ("--journal", format!("s3://tidemill/{keyspace}")),
    ] {
        place.reach(flag, &url);
    }
    place
}

/// As Cassandra's first user, which it makes a moment after its start.
async fn administrator(own: &Own) -> Session {
    let node = format!("127.0.0.1:{}", own.port("cassandra", "public"));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let builder = SessionBuilder::new().known_node(&node);
        match builder.user("cassandra", "cassandra").build().await {
            Ok(session) => return session,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
