//! `tidemill manual`: the man pages and the shells' completions, made from the command line itself.
//!
//! Flows in: the definition in [`crate::cli`]. Flows out: files in one folder, which the packages
//! install. The command is hidden: packagers use it, and whoever unpacked the bare binary.

use std::fs;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::ManualArgs;
use crate::cli::Cli;

/// The shells that completions are made for, each with its folder.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash"),
    (Shell::Zsh, "zsh"),
    (Shell::Fish, "fish"),
];

/// Writes a page for each command, and one file of completions for each shell.
pub(crate) fn run(args: &ManualArgs) -> anyhow::Result<()> {
    let folder = |name: &str| {
        let path = args.folder.join(name);
        let made = fs::create_dir_all(&path);
        made.with_context(|| format!("cannot make the folder {}", path.display()))?;
        anyhow::Ok(path)
    };
    let written = || format!("cannot write below {}", args.folder.display());
    clap_mangen::generate_to(Cli::command(), folder("man")?).with_context(written)?;
    for (shell, name) in SHELLS {
        let made =
            clap_complete::generate_to(shell, &mut Cli::command(), "tidemill", folder(name)?);
        made.with_context(written)?;
    }
    Ok(())
}
