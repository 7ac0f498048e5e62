//! Checks that no crate of ours, asked for alone, wants a dependency with other features than the whole workspace does.

use std::collections::BTreeSet;

/// The arguments of `cargo tree` that list a selection's crates with their features, as [`broken`] reads them.
pub(crate) const LIST: [&str; 9] = [
    "tree",
    "--locked",
    "--offline",
    "--edges",
    "normal,build,dev",
    "--prefix",
    "none",
    "--format",
    "{p}|{f}",
];

/// Names each crate that `cargo test --package NAME` would compile again after the whole workspace: `whole` and `alone` are
/// what `cargo tree` lists.
pub(crate) fn broken(name: &str, whole: &str, alone: &str) -> Vec<String> {
    let whole: BTreeSet<&str> = crates(whole).collect();
    let again: BTreeSet<&str> = crates(alone).filter(|line| !whole.contains(line)).collect();
    let named = again.into_iter().filter_map(|line| line.split_once('|'));
    named
        .map(|(dependency, features)| {
            format!(
                "`{name}` alone uses {dependency} with the features [{features}] and the workspace with others; name \
                 those in feature-set/Cargo.toml"
            )
        })
        .collect()
}

/// The lines of a list, without our own crates, which have a path.
fn crates(list: &str) -> impl Iterator<Item = &str> {
    let lines = list.lines().map(|line| line.trim_end_matches(" (*)"));
    lines.filter(|line| line.contains('|') && !line.contains(" (/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_features_are_named_and_our_own_crates_are_not() {
        let whole = "protocol v0.1.0 (/work/protocol)|default,std\nhex v0.4.3|alloc,std\nsyn v2.0.1 (proc-macro)|full\n";
        let alone = "protocol v0.1.0 (/work/protocol)|std\nhex v0.4.3|alloc,std (*)\nsyn v2.0.1 (proc-macro)|full (*)\n";
        assert_eq!(broken("protocol", whole, alone), [""; 0]);

        let alone = "hex v0.4.3|alloc\nhex v0.4.3|alloc (*)\n";
        let broken = broken("protocol", whole, alone);
        assert_eq!(broken.len(), 1);
        assert!(broken[0].starts_with("`protocol` alone uses hex v0.4.3 with the features [alloc]"));
    }
}
