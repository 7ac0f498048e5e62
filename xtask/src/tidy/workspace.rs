//! Reads what `cargo metadata` says of the workspace's own crates.

use std::path::PathBuf;

use serde_json::Value;

use crate::failure::Failure;

/// A crate of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// What a crate depends on.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests, examples and benches have it.
    pub(crate) dev: bool,
}

/// What cargo builds of a crate.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As cargo says it: `lib`, `bin`, `example`, `test`, `custom-build`.
    pub(crate) kind: String,
    pub(crate) root: PathBuf,
}

/// Reads the output of `cargo metadata --no-deps --format-version 1`.
///
/// # Errors
/// A sentence that names what is missing.
pub(crate) fn packages(metadata: &str) -> Result<Vec<Package>, Failure> {
    let value: Value = serde_json::from_str(metadata)
        .map_err(|error| format!("cargo's metadata is no JSON: {error}"))?;
    list(&value, "packages")?.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package, Failure> {
    let manifest = PathBuf::from(text(value, "manifest_path")?);
    let dependencies = list(value, "dependencies")?.iter().map(|dependency| {
        let dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        Ok(Dependency { name: text(dependency, "name")?, dev })
    });
    let targets = list(value, "targets")?.iter().map(|target| {
        let kind = list(target, "kind")?.first().and_then(Value::as_str).unwrap_or_default();
        Ok(Target { kind: kind.to_owned(), root: text(target, "src_path")?.into() })
    });
    Ok(Package {
        name: text(value, "name")?,
        folder: manifest.parent().unwrap_or(&manifest).to_owned(),
        dependencies: dependencies.collect::<Result<_, Failure>>()?,
        targets: targets.collect::<Result<_, Failure>>()?,
    })
}

fn text(value: &Value, key: &str) -> Result<String, Failure> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("cargo's metadata has no `{key}`"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, Failure> {
    let list = value.get(key).and_then(Value::as_array);
    list.ok_or_else(|| format!("cargo's metadata has no list `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_kinds_and_roots_are_read() {
        let metadata = r#"{"packages": [{"name": "a", "manifest_path": "/w/a/Cargo.toml",
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}],
            "targets": [{"kind": ["lib"], "src_path": "/w/a/src/lib.rs"}]}]}"#;
        let packages = packages(metadata).unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].folder, PathBuf::from("/w/a"));
        let dev: Vec<bool> = packages[0].dependencies.iter().map(|used| used.dev).collect();
        assert_eq!(dev, [false, true]);
        assert_eq!(packages[0].targets[0].kind, "lib");
        assert!(super::packages("{}").is_err());
    }
}
