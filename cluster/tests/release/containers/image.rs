//! The two images: the slim one that `packaging/dist` made, and the one of Dockerfile.

use std::process::Command;

use crate::containers::engine::Engine;
use crate::containers::{commands, root, run};

/// What the slim image may take.
const SLIM_BYTES: u64 = 130_000_000;

fn bytes(engine: &Engine, image: &str) -> u64 {
    let size = run(&mut engine.docker(&["image", "inspect", "-f", "{{.Size}}", image]));
    size.trim().parse().unwrap()
}

#[test]
fn the_slim_image_is_slim_and_runs_as_the_page_says() {
    let Some(engine) = Engine::given("the slim image") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // The page's commands run where the image's archive and the examples are.
    run(Command::new("cp")
        .arg("-r")
        .arg(root().join("examples"))
        .arg(folder.path()));
    let archive = format!("tidemill-{}-slim.image.tar.gz", env!("CARGO_PKG_VERSION"));
    let link = folder.path().join(&archive);
    std::os::unix::fs::symlink(engine.packages().join(&archive), link).unwrap();
    let mut shell = engine.command("bash", &["-c", &commands("Image")]);
    let said = run(shell.current_dir(folder.path()));
    assert!(said.contains("users_by_country"), "{said}");
    let image = concat!("tidemill:", env!("CARGO_PKG_VERSION"), "-slim");
    let size = bytes(&engine, image);
    assert!(size < SLIM_BYTES, "{image} takes {size} bytes");
}

/// Builds the whole binary in a container, and takes as long as that.
#[test]
fn the_dockerfile_builds_and_its_image_runs() {
    let Some(engine) = Engine::given("Dockerfile") else {
        return;
    };
    let image = concat!("tidemill:", env!("CARGO_PKG_VERSION"));
    run(engine
        .docker(&["build", "-t", image, "."])
        .current_dir(root()));
    let examples = format!("{}/examples:/pipelines:ro", root().display());
    let arguments = [
        "run",
        "--rm",
        "-v",
        &examples,
        image,
        "run",
        "/pipelines/users",
    ];
    let said = run(engine.docker(&arguments).args(["--until", "200"]));
    assert!(said.contains("users_by_country"), "{said}");
}
