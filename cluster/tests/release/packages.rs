//! Owns the check of what `packaging/` holds, where nothing is installed and no container runs: the
//! man pages and completions are complete, the units of systemd are without a complaint and name
//! flags that exist, the chart's manifests are what Kubernetes takes. What installs and starts them
//! is [`containers`](super::containers).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{given, left_out};

/// Versions of Kubernetes whose schemas the manifests must fit: the chart's oldest and a new one.
const KUBERNETES: [&str; 2] = ["1.27", "1.37"];
/// What `systemd-analyze security` may say at most of a unit, from 0 (safe) to 100.
const EXPOSURE: &str = "20";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    streams.concat()
}

fn tidemill(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help names, in their order.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.map_while(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Every command, as the words after `tidemill`.
fn all_commands() -> Vec<Vec<String>> {
    let mut all = vec![vec![]];
    for command in commands(&tidemill(&["help"])) {
        let within = match command.as_str() {
            "dead-letters" => commands(&tidemill(&["help", &command])),
            _ => vec![],
        };
        all.extend(within.into_iter().map(|name| vec![command.clone(), name]));
        all.push(vec![command]);
    }
    all
}

/// The long flags that a text names.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let long = words.filter(|word| word.starts_with("--") && word.len() > 2);
    long.map(str::to_owned).collect()
}

fn there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn every_command_and_flag_has_its_place_in_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    tidemill(&["manual", &folder.path().display().to_string()]);
    let made = |name: &str| fs::read_to_string(folder.path().join(name));
    let all = all_commands();
    assert!(all.len() > 20, "only {all:?}");
    let [bash, zsh, fish] = ["bash/tidemill.bash", "zsh/_tidemill", "fish/tidemill.fish"]
        .map(|name| made(name).unwrap_or_else(|e| panic!("{name}: {e}")));
    for command in all {
        let page = format!(
            "man/{}.1",
            [&["tidemill".to_owned()], &command[..]].concat().join("-")
        );
        let text = made(&page).unwrap_or_else(|e| panic!("{page}: {e}"));
        // As roff has it: bold, and with each hyphen escaped.
        let plain = text.replace("\\fB", " ").replace("\\fR", " ");
        let page_flags = flags(&plain.replace('\\', ""));
        let mut asked: Vec<&str> = command.iter().map(String::as_str).collect();
        asked.push("--help");
        let help = tidemill(&asked);
        // What the examples say of other commands is not a flag of this one.
        let help = help.split("\nExamples").next().unwrap();
        let all = flags(help);
        let missing: Vec<_> = all.difference(&page_flags).collect();
        assert!(missing.is_empty(), "{page} says nothing of {missing:?}");
        for (shell, text) in [("bash", &bash), ("zsh", &zsh), ("fish", &fish)] {
            let name = command.last().map_or("tidemill", String::as_str);
            assert!(
                text.contains(name),
                "the completions of {shell} lack {name}"
            );
        }
    }
    for (shell, file) in [("bash", "bash/tidemill.bash"), ("zsh", "zsh/_tidemill")] {
        if there(shell) {
            let path = folder.path().join(file);
            let checked = Command::new(shell).arg("-n").arg(path).output().unwrap();
            assert!(checked.status.success(), "{file}: {}", said(&checked));
        }
    }
}

/// Each unit's name and text.
fn units() -> Vec<(String, String)> {
    let names = ["master", "worker"].map(|name| format!("packaging/deb/tidemill-{name}.service"));
    names.map(|name| (name.clone(), read(&name))).into()
}

#[test]
fn units_name_flags_and_settings_that_exist() {
    for (name, unit) in units() {
        let start = unit
            .lines()
            .find_map(|l| l.strip_prefix("ExecStart="))
            .unwrap();
        let words: Vec<&str> = start.split(' ').collect();
        assert_eq!(words[0], "/usr/bin/tidemill", "{name}");
        let known = flags(&tidemill(&[words[1], "--help"]));
        for flag in flags(start) {
            assert!(known.contains(&flag), "{name}: {} has no {flag}", words[1]);
        }
        let settings = read(&format!("packaging/etc/{}.conf", words[1]));
        for word in words.iter().filter_map(|word| word.strip_prefix('$')) {
            let variable = word.trim_matches(['{', '}']);
            let line = format!("\n{variable}=");
            assert!(
                settings.contains(&line),
                "{name}: {variable} is not in {settings}"
            );
        }
    }
}

#[test]
fn units_are_verified_without_a_word() {
    if !there("systemd-analyze") {
        left_out("the units' check needs systemd-analyze");
        return;
    }
    // The binary of the unit must be there; its path here is another one.
    let folder = tempfile::tempdir().unwrap();
    let analyze = |arguments: &[&str]| {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(arguments);
        for (name, unit) in units() {
            let path = folder.path().join(Path::new(&name).file_name().unwrap());
            let here = unit.replace("/usr/bin/tidemill", env!("CARGO_BIN_EXE_tidemill"));
            fs::write(&path, here).unwrap();
            analyze.arg(path);
        }
        analyze.output().unwrap()
    };
    let verified = analyze(&["verify", "--man=no"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    let exposure = analyze(&[
        "security",
        "--offline=yes",
        &format!("--threshold={EXPOSURE}"),
    ]);
    assert!(exposure.status.success(), "{}", said(&exposure));
}

#[test]
fn packages_have_the_version_of_the_workspace() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("packaging/helm/tidemill/Chart.yaml");
    for key in ["version", "appVersion"] {
        assert!(
            chart.contains(&format!("\n{key}: {version}\n")),
            "Chart.yaml: {key}"
        );
    }
    assert!(read("docker-compose.yml").contains(&format!("image: tidemill:{version}\n")));
    let install = read("docs/install.md");
    for file in [
        format!("tidemill_{version}-1_amd64.deb"),
        format!("tidemill-{version}-x86_64-linux.tar.gz"),
        format!("tidemill-{version}.tgz"),
        format!("tidemill:{version}-slim"),
    ] {
        assert!(
            install.contains(&file),
            "docs/install.md does not name {file}"
        );
    }
}

/// The manifests that the chart makes are kept in `rendered`; [`containers`](super::containers)
/// renders them again.
#[test]
fn manifests_are_what_kubernetes_takes() {
    let Some(python) = given("the chart's schema check", "TIDEMILL_TEST_PYTHON") else {
        return;
    };
    for version in KUBERNETES {
        for trial in ["claim", "bucket"] {
            let file = format!("packaging/helm/rendered/{trial}.yaml");
            let checked = Command::new(&python)
                .args([
                    "-m",
                    "kubernetes_validate",
                    "--strict",
                    "-k",
                    version,
                    &file,
                ])
                .current_dir(root())
                .output()
                .unwrap();
            let said = said(&checked);
            if said.contains("No module named") {
                left_out("the chart's schema check needs Python's kubernetes_validate");
                return;
            }
            assert!(
                checked.status.success(),
                "{file} for Kubernetes {version}: {said}"
            );
            let passed = said.matches("passed for resource").count();
            let kinds = read(&file).matches("\nkind: ").count();
            assert_eq!(passed, kinds, "{file}: {said}");
        }
    }
}
