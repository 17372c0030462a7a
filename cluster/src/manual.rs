//! The command `manual`: writes man pages and shell completions, generated from the command line's
//! definition.
//!
//! In: the definition in [`crate::cli`]. Out: files in one folder, which the packages install. The
//! command is hidden: it is for packagers and for users of the bare binary.

use std::fs;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use tidemill_config::args::ManualArgs;

use crate::cli::Cli;

/// The shells with completions, each with its folder.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash"),
    (Shell::Zsh, "zsh"),
    (Shell::Fish, "fish"),
];

/// Writes a man page for each command and a completion file for each shell.
///
/// # Errors
///
/// The folder cannot be written.
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
