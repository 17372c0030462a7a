//! The package alone: format, types, and its own tests with the real program.

use crate::airflow::installed::{Installed, root};

#[test]
fn the_package_is_clean_typed_and_passes_its_own_tests() {
    let Some(installed) = Installed::new("the_package_is_clean_typed_and_passes_its_own_tests")
    else {
        return;
    };
    let source = root().join("airflow");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = installed.command(program);
        command.args(arguments).current_dir(&source);
        installed.ends(command)
    };
    run("ruff", &["format", "--no-cache", "--check", "."]);
    run("ruff", &["check", "--no-cache", "."]);
    // Where the environment is, so that Airflow's own types are read once.
    let python = std::env::var("TIDEMILL_TEST_AIRFLOW").unwrap();
    let types = format!("{python}-types");
    let mut command = installed.command("mypy");
    // What is installed beside the source would be found twice.
    command.env_remove("PYTHONPATH").current_dir(&source);
    command.args(["--cache-dir", &types, "src", "example_dags", "tests"]);
    installed.ends(command);
    run(
        "python",
        &["-m", "pytest", "-p", "no:cacheprovider", "tests"],
    );
}
