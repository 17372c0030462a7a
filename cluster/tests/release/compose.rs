//! Owns the check of `docker-compose.yml` and `Dockerfile` where no container engine runs: images
//! are pinned, every service says when it is healthy, nobody starts before those it needs, and the
//! commands use flags that this binary really has. Reads the two files and the binary's help.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};

const SERVERS: [&str; 4] = ["postgres", "kafka", "registry", "cassandra"];
const OURS: [&str; 3] = ["ingest", "dataflow-0", "dataflow-1"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the tests look at of one service of the compose file.
struct Service {
    image: String,
    built: bool,
    command: Vec<String>,
    volumes: Vec<String>,
    ports: Vec<String>,
    healthy_when: Vec<String>,
    waits_for: BTreeMap<String, String>,
}

fn strings(node: &Yaml<'_>, key: &str) -> Vec<String> {
    let list = node.as_mapping_get(key).and_then(|list| list.as_vec());
    list.into_iter()
        .flatten()
        .map(|item| item.as_str().expect("text").to_owned())
        .collect()
}

fn service(node: &Yaml<'_>) -> Service {
    let waits = node
        .as_mapping_get("depends_on")
        .and_then(|waits| waits.as_mapping());
    let condition = |node: &Yaml<'_>| {
        node.as_mapping_get("condition")
            .and_then(|c| c.as_str())
            .expect("a condition")
            .to_owned()
    };
    Service {
        image: node
            .as_mapping_get("image")
            .and_then(|i| i.as_str())
            .expect("image")
            .to_owned(),
        built: node.contains_mapping_key("build"),
        command: strings(node, "command"),
        volumes: strings(node, "volumes"),
        ports: strings(node, "ports"),
        healthy_when: node
            .as_mapping_get("healthcheck")
            .map_or(vec![], |h| strings(h, "test")),
        waits_for: waits
            .into_iter()
            .flatten()
            .map(|(name, node)| (name.as_str().expect("a name").to_owned(), condition(node)))
            .collect(),
    }
}

fn services() -> BTreeMap<String, Service> {
    let text = read("docker-compose.yml");
    let file = Yaml::load_from_str(&text).expect("docker-compose.yml is YAML");
    let all = file[0]
        .as_mapping_get("services")
        .and_then(|s| s.as_mapping())
        .expect("services");
    all.iter()
        .map(|(name, node)| (name.as_str().expect("a name").to_owned(), service(node)))
        .collect()
}

/// A tag that names one release: at least major.minor, as in `15.18-bookworm`.
fn pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else {
        return false;
    };
    let version = tag.split('-').next().unwrap_or_default();
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() >= 2 && parts.iter().all(|p| p.parse::<u32>().is_ok())
}

#[test]
fn pinned_knows_a_release_from_a_moving_tag() {
    for image in [
        "postgres:15.18-bookworm",
        "apache/kafka:4.3.1",
        "debian:12.12-slim",
    ] {
        assert!(pinned(image), "{image}");
    }
    for image in [
        "postgres",
        "postgres:latest",
        "postgres:15",
        "debian:bookworm-slim",
    ] {
        assert!(!pinned(image), "{image}");
    }
}

#[test]
fn every_service_is_there_and_every_image_is_pinned() {
    let services = services();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        SERVERS.into_iter().chain(OURS).collect::<BTreeSet<_>>()
    );
    for (name, service) in &services {
        assert!(
            pinned(&service.image),
            "{name}: {} is not one release",
            service.image
        );
        assert_eq!(
            service.built,
            name == "ingest",
            "{name}: our image is built once, by ingest"
        );
        for port in &service.ports {
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name}: {port} is open to the network"
            );
        }
    }
    let dockerfile = read("Dockerfile");
    let bases: Vec<&str> = dockerfile
        .lines()
        .filter_map(|l| l.strip_prefix("FROM "))
        .collect();
    assert_eq!(bases.len(), 2, "a builder and what is left");
    for base in bases {
        assert!(
            pinned(base.split(' ').next().unwrap()),
            "Dockerfile: {base} is not one release"
        );
    }
}

#[test]
fn servers_say_when_they_are_healthy_and_everyone_waits_for_what_it_needs() {
    let services = services();
    for name in SERVERS {
        let test = &services[name].healthy_when;
        assert!(
            test.len() > 1 && test[0] == "CMD",
            "{name}: no health check, but {test:?}"
        );
    }
    let waits = |name: &str, needed: &[&str]| {
        for other in needed {
            let condition = services[name].waits_for.get(*other).map(String::as_str);
            assert_eq!(
                condition,
                Some("service_healthy"),
                "{name} must wait for {other}"
            );
        }
    };
    waits("registry", &["kafka"]);
    waits("ingest", &["postgres", "kafka", "registry"]);
    for dataflow in ["dataflow-0", "dataflow-1"] {
        waits(dataflow, &["kafka", "registry", "cassandra"]);
        assert!(
            services[dataflow].waits_for.contains_key("ingest"),
            "{dataflow} comes last"
        );
    }
}

#[test]
fn dataflow_processes_are_one_job() {
    let services = services();
    let both = [&services["dataflow-0"], &services["dataflow-1"]];
    for (process, service) in both.iter().enumerate() {
        let has = |flag: &str| service.command.iter().any(|argument| argument == flag);
        assert!(
            has("-n=2") && has(&format!("-p={process}")),
            "{:?}",
            service.command
        );
        assert!(
            has("--hosts=dataflow-0:2101,dataflow-1:2101"),
            "{:?}",
            service.command
        );
        let shared = service
            .volumes
            .iter()
            .any(|v| v == "journal:/var/lib/tidemill/journal");
        assert!(
            shared,
            "the journal must be one folder for both: {:?}",
            service.volumes
        );
    }
    let without_process = |s: &Service| -> Vec<String> {
        s.command
            .iter()
            .filter(|a| !a.starts_with("-p="))
            .cloned()
            .collect()
    };
    assert_eq!(without_process(both[0]), without_process(both[1]));
}

#[test]
fn commands_use_flags_that_exist() {
    for name in OURS {
        let service = &services()[name];
        let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args([service.command[0].as_str(), "--help"])
            .output()
            .expect("tidemill runs");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let words: BTreeSet<&str> = help.split([' ', ',', '=', '\n', '[', ']']).collect();
        for argument in service.command.iter().filter(|a| a.starts_with('-')) {
            let flag = argument.split('=').next().unwrap();
            assert!(
                words.contains(flag),
                "{name}: tidemill {} has no {flag}",
                service.command[0]
            );
        }
    }
}
