//! Checks the rules of the house that no compiler knows.
//!
//! - `layers`: which of our crates may depend on which;
//! - `silence`: what the library `participant` leaves to programs;
//! - `circles`: that the files of a target never import each other in a circle, with `tokens`, `modules` and `uses`
//!   to read them;
//! - `feature_set`: that a crate asked for alone uses its dependencies as the whole workspace does;
//! - `advisories`: that the clients use no version of a dependency with a known fault;
//! - `references`: that no file cites a document which is not here.
//!
//! Each rule has tests that break it on a small tree.

mod tokens;

mod modules;

mod uses;

mod circles;

mod workspace;

mod layers;

mod silence;

mod feature_set;

mod advisories;

mod references;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{build, command::output, failure::Failure, setup::Setup};

/// Folders beside the crates whose files are checked for references.
const FOLDERS: [&str; 2] = ["docs", ".ci"];

/// Crates that nobody tests alone: this program, which is compiled before anything else, the patches, and the blob of the
/// next runtime.
const APART: [&str; 4] = ["xtask", "str0m-openssl", "wasm-opt", "next-runtime"];

/// The kinds of target whose files are checked for circles.
const KINDS: [&str; 3] = ["lib", "bin", "example"];

/// Checks every rule and names all that is broken.
///
/// # Errors
/// One line for each thing that breaks a rule.
pub(crate) fn run(setup: &Setup) -> Result<(), Failure> {
    let arguments = ["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"];
    let metadata = output(setup.cargo().args(arguments))
        .ok_or("`cargo metadata` fails; is Cargo.lock up to date?")?;
    let packages = workspace::packages(&metadata)?;
    let mut broken = check(setup.root(), &packages)?;
    broken.extend(features(setup, &packages)?);
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("{} rules broken\n  {}", broken.len(), broken.join("\n  ")))
}

/// Asks cargo what each crate alone, and the whole workspace, compiles its dependencies with, and of which versions.
fn features(setup: &Setup, packages: &[workspace::Package]) -> Result<Vec<String>, Failure> {
    let list = |selection: &[&str]| {
        output(setup.cargo().args(feature_set::LIST).args(selection))
            .ok_or_else(|| format!("`cargo tree {}` fails", selection.join(" ")))
    };
    let whole = list(&build::FEATURES)?;
    let mut broken = Vec::new();
    for package in packages.iter().filter(|package| !APART.contains(&package.name.as_str())) {
        let alone = list(&["--package", &package.name])?;
        broken.extend(feature_set::broken(&package.name, &whole, &alone));
        if package.name == advisories::PROGRAM {
            broken.extend(advisories::broken(&alone));
        }
    }
    Ok(broken)
}

fn check(root: &Path, packages: &[workspace::Package]) -> Result<Vec<String>, Failure> {
    let mut broken = layers::broken(packages);
    for package in packages {
        let targets = package.targets.iter();
        for target in targets.filter(|target| KINDS.contains(&target.kind.as_str())) {
            let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
            let shown = target.root.strip_prefix(root).unwrap_or(&target.root);
            broken.extend(circles::circles(shown, &read));
        }
        if package.name == silence::LIBRARY {
            broken.extend(silence::dependencies(package));
            let sources = files(&package.folder.join("src"))?;
            broken.extend(each(root, &sources, silence::source)?);
        }
    }

    let mut documents = top_files(root)?;
    for folder in FOLDERS.iter().map(|name| root.join(name)) {
        documents.extend(files(&folder)?);
    }
    for package in packages {
        documents.extend(files(&package.folder)?);
    }
    broken.extend(each(root, &documents, references::broken)?);
    Ok(broken)
}

/// Applies a rule to the text of each file, and says in which file it is broken.
fn each(
    root: &Path,
    files: &[PathBuf],
    rule: impl Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, Failure> {
    let mut broken = Vec::new();
    for path in files.iter().filter(|path| is_text(path)) {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(path).display();
        broken.extend(rule(&text).into_iter().map(|line| format!("{shown}: {line}")));
    }
    Ok(broken)
}

/// Whether a file is one that a person writes.
fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "md" | "toml" | "py" | "sh"))
}

/// Lists the files that lie in a folder itself.
fn top_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_file()).collect())
}

/// Lists the files under a folder, in order; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut waiting = if folder.is_dir() { vec![folder.to_owned()] } else { Vec::new() };
    while let Some(folder) = waiting.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|error| format!("cannot list {}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::{workspace::Package, *};

    /// Lays out a workspace of one crate, `participant`, with these files, and checks it.
    fn broken(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("tidy-{}-{name}", std::process::id()));
        let folder = root.join("participant");
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let library = workspace::Target { kind: "lib".to_owned(), root: folder.join("src/lib.rs") };
        let package = Package {
            name: "participant".to_owned(),
            folder,
            dependencies: Vec::new(),
            targets: vec![library],
        };
        let broken = check(&root, &[package]).unwrap();
        fs::remove_dir_all(&root).unwrap();
        broken
    }

    #[test]
    fn a_tree_that_keeps_the_rules_passes() {
        let lib = "//! Takes part.\npub mod a;\npub use a::A;\n";
        let files = [("participant/src/lib.rs", lib), ("participant/src/a.rs", "pub struct A;")];
        assert_eq!(broken("good", &files), [""; 0]);
    }

    #[test]
    fn every_broken_rule_is_named_with_its_file() {
        let broken = broken(
            "bad",
            &[
                ("participant/src/lib.rs", "pub mod a;\npub struct L;\nfn f(_: a::A) {}\n"),
                ("participant/src/a.rs", "pub struct A(crate::L);\nfn f() { println!() }\n"),
                ("docs/PAGE.md", concat!("As DES", "IGN says.\n")),
            ],
        );
        assert_eq!(broken.len(), 3);
        assert!(broken[0].contains("participant/src/a.rs -> participant/src/lib.rs: L"));
        assert!(broken[1].starts_with("participant/src/a.rs: `println` belongs"));
        assert!(broken[2].starts_with("docs/PAGE.md: line 1: "));
    }
}
