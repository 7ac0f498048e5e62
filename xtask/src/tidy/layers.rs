//! Checks which of our crates may depend on which, as docs/ARCHITECTURE.md draws it.

use super::workspace::Package;

/// What a crate may use of ours.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
    /// What its tests and examples may use beside that.
    tests_use: &'static [&'static str],
}

/// Every crate of ours, lowest first. A crate that stands nowhere here fails the check.
const LAYERS: [Layer; 18] = [
    Layer { name: "feature-set", uses: &[], tests_use: &[] },
    Layer { name: "str0m-openssl", uses: &[], tests_use: &[] },
    Layer { name: "wasm-opt", uses: &[], tests_use: &[] },
    Layer { name: "gauntlet-protocol", uses: &[], tests_use: &[] },
    Layer { name: "dataset", uses: &["gauntlet-protocol"], tests_use: &[] },
    Layer { name: "node-client", uses: &["gauntlet-protocol"], tests_use: &[] },
    // Tests of what runs on GPUs run on emulated ones.
    Layer {
        name: "trainer",
        uses: &["gauntlet-protocol", "dataset"],
        tests_use: &["cuda-emulator"],
    },
    Layer {
        name: "cuda-emulator",
        uses: &["trainer"],
        tests_use: &["gauntlet-protocol", "dataset"],
    },
    Layer {
        name: "participant",
        uses: &["gauntlet-protocol", "dataset", "node-client", "trainer"],
        tests_use: &["cuda-emulator"],
    },
    Layer {
        name: "gauntlet",
        uses: &["gauntlet-protocol", "dataset", "node-client", "trainer", "participant"],
        tests_use: &["cuda-emulator"],
    },
    Layer { name: "pallet-gauntlet", uses: &["gauntlet-protocol"], tests_use: &[] },
    Layer { name: "runtime", uses: &["gauntlet-protocol", "pallet-gauntlet"], tests_use: &[] },
    Layer { name: "next-runtime", uses: &["runtime"], tests_use: &[] },
    Layer {
        name: "example-runtime",
        uses: &["gauntlet-protocol", "pallet-gauntlet"],
        tests_use: &[],
    },
    Layer {
        name: "node",
        uses: &["gauntlet-protocol", "pallet-gauntlet", "runtime"],
        tests_use: &[],
    },
    Layer {
        name: "runtime-tests",
        uses: &["gauntlet-protocol", "pallet-gauntlet", "runtime"],
        // Its twin test holds the client's fake chain against the real runtime.
        tests_use: &["node-client"],
    },
    Layer {
        name: "simulator",
        uses: &["gauntlet-protocol", "pallet-gauntlet", "runtime"],
        tests_use: &[],
    },
    Layer { name: "xtask", uses: &[], tests_use: &[] },
];

/// The crate that names the features of dependencies: tests may use it anywhere, and of the rest what nobody depends on.
const FEATURE_SET: &str = "feature-set";
/// The crates of the programs.
const PROGRAMS: [&str; 3] = ["node", "gauntlet", "simulator"];

/// Says which crate uses what it may not.
pub(crate) fn broken(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == package.name) else {
            broken.push(format!(
                "the crate `{}` has no layer; give it one in xtask/src/tidy/layers.rs",
                package.name
            ));
            continue;
        };
        for used in &package.dependencies {
            if used.name == FEATURE_SET && (used.dev || PROGRAMS.contains(&package.name.as_str())) {
                continue;
            }
            let ours = packages.iter().any(|other| other.name == used.name);
            let name = used.name.as_str();
            let allowed = layer.uses.contains(&name) || used.dev && layer.tests_use.contains(&name);
            if ours && !allowed {
                let tests = if used.dev { " in its tests" } else { "" };
                broken.push(format!("`{}` may not use `{name}`{tests}", package.name));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{
        super::workspace::{Dependency, Package},
        *,
    };

    fn package(name: &str, uses: &[(&str, bool)]) -> Package {
        let dependencies =
            uses.iter().map(|(name, dev)| Dependency { name: (*name).to_owned(), dev: *dev });
        Package {
            name: name.to_owned(),
            folder: PathBuf::new(),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
        }
    }

    /// Says what is wrong when `name` uses `uses` and both are crates of ours.
    fn check(name: &str, uses: &str, dev: bool) -> Vec<String> {
        broken(&[package(name, &[(uses, dev), ("serde", false)]), package(uses, &[])])
    }

    #[test]
    fn each_crate_uses_only_those_below_it() {
        for (name, uses) in [
            ("gauntlet-protocol", "dataset"),
            ("dataset", "trainer"),
            ("node-client", "trainer"),
            ("trainer", "node-client"),
            ("participant", "gauntlet"),
            ("participant", "runtime"),
            ("gauntlet", "pallet-gauntlet"),
            ("pallet-gauntlet", "runtime"),
            ("runtime", "node"),
            ("xtask", "gauntlet"),
        ] {
            assert_eq!(check(name, uses, false), [format!("`{name}` may not use `{uses}`")]);
        }
        for (name, uses) in [
            ("trainer", "dataset"),
            ("participant", "node-client"),
            ("gauntlet", "participant"),
            ("node", "runtime"),
        ] {
            assert!(check(name, uses, false).is_empty());
        }
    }

    #[test]
    fn the_twin_test_alone_takes_the_client_to_the_runtime() {
        assert!(check("runtime-tests", "node-client", true).is_empty());
        assert_eq!(check("runtime-tests", "node-client", false).len(), 1);
        assert_eq!(
            check("node", "node-client", true),
            ["`node` may not use `node-client` in its tests"]
        );
    }

    #[test]
    fn libraries_name_the_feature_set_for_their_tests_alone() {
        assert!(check("gauntlet-protocol", "feature-set", true).is_empty());
        assert!(check("node", "feature-set", false).is_empty());
        assert_eq!(check("gauntlet-protocol", "feature-set", false).len(), 1);
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        assert_eq!(broken(&[package("utils", &[])]).len(), 1);
    }
}
