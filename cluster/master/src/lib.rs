//! `tidemill master`: the control plane of a cluster, like Flink's JobManager.
//!
//! The master keeps the submitted jobs, decides which worker runs which process, restarts jobs that
//! fail, and answers `status`. No record of a job passes through the master, so jobs continue while
//! no master runs.
//!
//! ```text
//! HTTP handlers ──message──► mailbox ──event──► state machine ──action──► mailbox
//!  (`server`)               (`mailbox`)     (`machine`)                  carries it out
//! ```
//!
//! * `machine` is a pure state machine. `machine/component` contains one file per state of a
//!   component (the dataflow or the ingest of a job).
//! * `mailbox` owns the thread that runs the state machine and carries out its actions.
//! * `server` serves HTTP; `state_log` makes the durable state durable.
//! * [`tidemill_protocol`] defines the messages. `docs/decisions/0015` explains the design.

mod inspected;
mod listen;
mod machine;
mod mailbox;
mod server;
mod spec;
mod state_log;
mod transition_log;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tidemill_logs::logging::{LogArgs, Origin};
use tidemill_logs::{Peers, logging};
use tidemill_protocol::exit::Usage;
use tidemill_protocol::token::Token;
use tidemill_protocol::{exit, output, redact, urls};
use tidemill_state::store;
use tidemill_web::api::history;
use tokio::runtime::{Builder, Runtime};

use self::listen::Ready;
use self::state_log::StateLog;
use tidemill_web::api::alerts::Alerting;
use tidemill_web::api::audit::Audit;

pub use self::machine::status::alone;

/// Default of `--state`: where the master keeps its state.
const STATE: &str = "./tidemill-state";
/// Runtime threads that serve HTTP.
const THREADS: usize = 2;

/// Flags of `tidemill master`.
#[derive(Debug, Args)]
pub struct MasterArgs {
    /// Where to answer; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Where the jobs are remembered, and the journals and checkpoints of jobs that name no place
    /// of their own: file://DIRECTORY or s3://BUCKET/PREFIX
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_STATE",
        hide_env_values = true,
        default_value = STATE
    )]
    state: String,
    /// Answer by TLS alone, with this certificate (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs a master until SIGTERM or Ctrl-C, or until another master takes over.
///
/// The order of a start matters: the port is bound before the state is taken over, so a master
/// whose port is in use does not overtake the master that runs.
///
/// # Errors
///
/// * [`Usage`] (exit code 2): `--listen` or `--state` is invalid, or `--listen` names an address
///   beyond this machine and there is no token.
/// * The token or a TLS file cannot be read, the port cannot be bound, or the state cannot be read
///   or written.
/// * Another master took over: this one ends with an error that names the other one. All jobs
///   continue.
pub fn run(args: &MasterArgs) -> anyhow::Result<()> {
    let url = state_url(&args.state)?;
    let given = tidemill_protocol::token::given()?;
    given.iter().for_each(|token| redact::remember_alone(token));
    let token = given.as_deref().map(Token::new).transpose()?;
    let address = address(&args.listen)?;
    if token.is_none() && !address.ip().is_loopback() {
        let why = format!(
            "--listen {}: without a token the master listens on this machine alone; set \
             TIDEMILL_TOKEN or TIDEMILL_TOKEN_FILE, here and for workers and clients, or listen on \
             127.0.0.1",
            args.listen
        );
        return Err(Usage(why).into());
    }
    let tls = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
    let tls = tls.map(|(cert, key)| listen::tls(cert, key)).transpose()?;
    let origin = Origin {
        part: "master",
        ..Origin::default()
    };
    logging::start(&args.log, "info", &origin)?;
    exit::exit_on_panic();
    let stop = exit::stop_on_signal()?;
    let runtime = runtime()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address));
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let store = store::open(&url)?;
    let audit = Audit::new(&url, FOLDER);
    let state_log = StateLog::new(store);
    let durable = state_log.take_over(&address.to_string())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (generation, jobs) = (durable.by.generation, durable.jobs.len());
    tracing::info!(generation, jobs, state = %url, "takes over");
    let master = mailbox::Master::new(durable, state_log)?;
    let peers = Peers::new(given, args.log.log_dir.clone())?;
    let at = address.to_string();
    let alerts = Alerting::stored(&url, FOLDER);
    let facts = server::facts(&master.mailbox(), (token, tls.is_some()), alerts);
    runtime.spawn(history::sample(facts.clone()));
    let router = server::router(master.mailbox(), (facts, audit), peers, &url, &at);
    let ready = {
        let _entered = runtime.enter();
        Ready::start(listener, tls)?
    };
    runtime.spawn(async move {
        if let Err(error) = axum::serve(ready, router).await {
            tracing::error!(%error, "http ended");
        }
    });
    output::line(&format!("tidemill master answers at {scheme}://{address}"));
    let ended = master.run(&stop);
    runtime.shutdown_background();
    ended
}

/// The folder of the store below which the audit log and the states of alerts are.
const FOLDER: &str = "cluster";

/// Builds the runtime of the HTTP server.
fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(THREADS)
        .thread_name("http")
        .enable_all();
    builder.build().context("no thread can be started")
}

/// Resolves `--state` to the URL of a store. Local paths become absolute, because workers resolve
/// the URL in other folders.
fn state_url(given: &str) -> anyhow::Result<String> {
    let url = urls::state(given).map_err(|why| Usage(format!("--state `{given}`: {why}")))?;
    for scheme in ["file://", "sqlite://"] {
        if let Some(path) = url.strip_prefix(scheme) {
            let path = std::path::absolute(path);
            let path = path.with_context(|| format!("--state `{given}`: no such path"))?;
            return Ok(format!("{scheme}{}", path.display()));
        }
    }
    Ok(url)
}

/// Resolves `--listen` to the first socket address that the name stands for.
fn address(given: &str) -> anyhow::Result<SocketAddr> {
    let right = "expected host:port, as in 127.0.0.1:7070";
    let found = given
        .to_socket_addrs()
        .map_err(|error| Usage(format!("--listen `{given}`: {right} ({error})")))?;
    let first = found.into_iter().next();
    first.ok_or_else(|| Usage(format!("--listen `{given}`: {right}")).into())
}
