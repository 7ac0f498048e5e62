//! Checks that the clients use no version of a dependency in which a known fault can be reached by strangers. The node is not
//! checked: the SDK chooses its versions.

/// The program whose dependencies are checked.
pub(crate) const PROGRAM: &str = "gauntlet";

/// A crate's line of versions, and what is wrong with it.
const REFUSED: [(&str, &str, &str); 4] = [
    ("hickory-proto", "0.24", "RUSTSEC-2026-0119"),
    ("ring", "0.16", "RUSTSEC-2025-0009, RUSTSEC-2025-0010"),
    ("rustls-webpki", "0.101", "RUSTSEC-2026-0098, RUSTSEC-2026-0099, RUSTSEC-2026-0104"),
    ("yamux", "0.12", "CVE-2026-32314"),
];

/// Names each refused crate of a list that `cargo tree` made with [`super::feature_set::LIST`].
pub(crate) fn broken(list: &str) -> Vec<String> {
    let refused = REFUSED.iter().filter(|(name, line, _)| {
        let start = format!("{name} v{line}.");
        list.lines().any(|crate_| crate_.starts_with(&start))
    });
    refused
        .map(|(name, line, fault)| {
            format!("`{PROGRAM}` uses {name} {line}, which has faults: {fault}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_line_of_versions_is_named_and_others_are_not() {
        let list = "gauntlet v0.1.0 (/work/gauntlet)|\nyamux v0.14.1|\nring v0.17.14|std\nring v0.160.1|\n";
        assert_eq!(broken(list), [""; 0]);
        let list = format!("{list}yamux v0.12.1| (*)\n");
        assert_eq!(broken(&list), ["`gauntlet` uses yamux 0.12, which has faults: CVE-2026-32314"]);
    }
}
