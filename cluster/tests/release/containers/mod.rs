//! What is released, installed as docs/install.md says: by `./test --containers`, which makes the
//! packages (`packaging/dist`) and starts a container engine of its own (`packaging/engine`).
//!
//! In flow the commands of the documentation and the files in `target/packages`; out flow what
//! they said. Each test removes the containers, volumes and networks that it made.

mod compose;
mod engine;
mod image;
mod packages;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

/// The commands of a section of docs/install.md, as one script that ends where one fails.
fn commands(section: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/install.md")).unwrap();
    let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let script = lines.collect::<Vec<_>>().join("\n");
    assert!(
        !script.is_empty(),
        "docs/install.md: no commands in {section}"
    );
    format!("set -eux -o pipefail\n{script}\n")
}

fn words(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    streams.concat()
}

/// Runs a command that must succeed; what it said.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = words(&output);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    said
}

/// The chart of the packages is linted and rendered, and what is kept of it in the repository is
/// what it makes.
#[test]
fn the_chart_is_rendered_as_the_page_says() {
    let Some(engine) = engine::Engine::given("the chart") else {
        return;
    };
    run(Command::new(root().join("packaging/render")).arg("--check"));
    let tools = engine.cache().join("tools/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut helm = Command::new("bash");
    helm.args(["-c", &commands("Kubernetes")]);
    let said = run(helm.env("PATH", path).current_dir(engine.packages()));
    assert!(said.contains("kind: StatefulSet"), "{said}");
}
