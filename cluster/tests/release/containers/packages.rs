//! The Debian package, the wheel and the archive, each on a machine of its own.

use crate::containers::commands;
use crate::containers::engine::{Engine, until};

/// Part of a section's commands: those before a line that begins so, and the rest.
fn cut(section: &str, before: &str) -> [String; 2] {
    let script = commands(section);
    let at = script.find(&format!("\n{before}")).unwrap() + 1;
    let head = script.lines().next().unwrap();
    [
        script[..at].to_owned(),
        format!("{head}\n{}", &script[at..]),
    ]
}

/// How many users the job's views show.
const USERS: &str = "tidemill status users | awk '$1 == \"created_users\" { print $2 }' | tr -d ,";

#[test]
fn the_debian_package_is_installed_started_upgraded_and_purged() {
    let Some(engine) = Engine::given("the Debian package") else {
        return;
    };
    let machine = engine.machine("deb");
    let [install, remove] = cut("Debian package", "apt-get remove");
    machine.bash(&install);
    assert_eq!(
        machine.bash("systemd-analyze verify /lib/systemd/system/tidemill-*.service"),
        ""
    );
    let page = machine.bash("curl -fsS http://127.0.0.1:7070/");
    assert!(page.contains("<html"), "{page}");
    // A login shell completes; fish and zsh find theirs.
    let bash = ". /usr/share/bash-completion/completions/tidemill && complete -p tidemill";
    machine.bash(bash);
    let fish = machine.bash("fish -c 'complete -C \"tidemill resc\"'");
    assert!(fish.contains("rescale"), "{fish}");
    machine.bash("zsh -n /usr/share/zsh/vendor-completions/_tidemill");
    until("users are in the views", || {
        machine
            .bash(USERS)
            .trim()
            .parse()
            .is_ok_and(|users: u64| users > 100)
    });

    // A file of /etc that was changed stays, the services start anew, and the job goes on.
    machine.bash("sed -i 's/^WORKER_SLOTS=2/WORKER_SLOTS=3/' /etc/tidemill/worker.conf");
    let began = "systemctl show -P MainPID tidemill-master tidemill-worker";
    let before = machine.bash(began);
    let then: u64 = machine.bash(USERS).trim().parse().unwrap();
    machine.bash(
        "set -e; dpkg-deb -R tidemill_*.deb /tmp/new; sed -i 's/^Version: .*/&.1/' \
         /tmp/new/DEBIAN/control; dpkg-deb -Zgzip -b /tmp/new /tmp/new.deb; \
         apt-get install -y /tmp/new.deb",
    );
    assert_ne!(machine.bash(began), before);
    machine.bash("systemctl is-active tidemill-master tidemill-worker");
    machine.bash("grep -x WORKER_SLOTS=3 /etc/tidemill/worker.conf");
    until("the job goes on after the upgrade", || {
        machine
            .bash(USERS)
            .trim()
            .parse()
            .is_ok_and(|users: u64| users > then)
    });

    machine.bash(&remove);
    for left in [
        "ls -d /etc/tidemill || ls -d /var/lib/tidemill || ls -d /usr/share/tidemill",
        "getent passwd tidemill",
        "systemctl is-active tidemill-master || systemctl is-active tidemill-worker",
        "pidof tidemill",
    ] {
        assert!(!machine.succeeds(left), "the purge left something: {left}");
    }
}

#[test]
fn the_sums_the_wheel_and_the_archive_are_as_the_page_says() {
    let Some(engine) = Engine::given("the wheel and the archive") else {
        return;
    };
    let machine = engine.machine("bare");
    let page = std::fs::read_to_string(crate::containers::root().join("docs/install.md")).unwrap();
    let sums = page
        .lines()
        .find(|line| line.contains("sha256sum"))
        .unwrap();
    machine.bash(sums);
    let version = concat!("tidemill ", env!("CARGO_PKG_VERSION"));
    let wheel = machine.bash(&commands("Wheel"));
    assert!(wheel.contains(version), "{wheel}");
    let archive = machine.bash(&commands("Archive"));
    assert!(archive.contains("users_by_country"), "{archive}");
    for file in [
        "man/tidemill.1",
        "completions/bash/tidemill.bash",
        "etc/master.conf",
        "LICENSE",
    ] {
        machine.bash(&format!("test -s tidemill-*-linux/{file}"));
    }
}
