//! Finds files that import each other in a circle.
//!
//! A file that only hands on names (`mod`, `pub use`) imports nothing by that; any other import counts, a child's from its own
//! parent's file too.

use std::{collections::BTreeSet, path::Path};

use super::{
    modules::{Modules, Read},
    uses::{uses, Uses},
};

/// Imports that count for no circle, from file to file: a framework's macros ask for them.
const APART: [(&str, &str); 1] = [
    // The runtime's version names its APIs, whose list `impl_runtime_apis!` makes, and one of them answers the version.
    ("runtime/src/lib.rs", "runtime/src/apis.rs"),
];

/// Describes every circle of files in the target whose root is the file `root`, each with what ties it.
pub(crate) fn circles(root: &Path, read: Read<'_>) -> Vec<String> {
    let modules = Modules::read(root, read);
    let mut uses = uses(&modules);
    uses.retain(|(from, to), _| {
        let (from, to) = (&modules.files[*from], &modules.files[*to]);
        let exempt = APART.iter().any(|(a, b)| from == Path::new(a) && to == Path::new(b));
        !exempt
    });
    groups(modules.files.len(), &uses)
        .into_iter()
        .map(|files| describe(&files, &modules, &uses))
        .collect()
}

/// Gathers the files that reach each other; a file that reaches nobody who reaches it is in no group.
fn groups(count: usize, uses: &Uses) -> Vec<BTreeSet<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..count).map(|file| reach(file, uses)).collect();
    let mut groups = Vec::new();
    let mut grouped: BTreeSet<usize> = BTreeSet::new();
    for file in 0..count {
        if grouped.contains(&file) || !reached[file].contains(&file) {
            continue;
        }
        let group: BTreeSet<usize> =
            reached[file].iter().copied().filter(|other| reached[*other].contains(&file)).collect();
        grouped.extend(&group);
        groups.push(group);
    }
    groups
}

/// Lists the files that `file` imports, and those that they import, and so on.
fn reach(file: usize, uses: &Uses) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(file) = waiting.pop() {
        for (_, other) in uses.range((file, 0)..=(file, usize::MAX)).map(|(arrow, _)| arrow) {
            if reached.insert(*other) {
                waiting.push(*other);
            }
        }
    }
    reached
}

/// Names every arrow inside a circle.
fn describe(files: &BTreeSet<usize>, modules: &Modules, uses: &Uses) -> String {
    let mut text = format!("{} files import each other in a circle:", files.len());
    for ((from, to), names) in uses {
        if files.contains(from) && files.contains(to) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text.push_str(&format!(
                "\n    {} -> {}: {}",
                modules.files[*from].display(),
                modules.files[*to].display(),
                names.join(", ")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Describes the circles of a target of these files, the first being its root.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        circles(Path::new(files[0].0), &read)
    }

    #[test]
    fn two_siblings_that_import_each_other_are_named_with_what_ties_them() {
        let found = found(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "use crate::b::B; pub(crate) struct A(B);"),
            ("src/b.rs", "pub(crate) struct B; fn f(_: super::a::A) {}"),
        ]);
        assert_eq!(
            found,
            ["2 files import each other in a circle:\
             \n    src/a.rs -> src/b.rs: B\
             \n    src/b.rs -> src/a.rs: A"]
        );
    }

    #[test]
    fn a_child_that_takes_from_the_parent_that_uses_it_is_a_circle() {
        let child = ("src/a/b.rs", "use super::Limit; pub(crate) fn run(_: Limit) {}");
        let using = "mod b; pub(crate) struct Limit; fn f() { b::run(Limit) }";
        assert_eq!(found(&[("src/lib.rs", "mod a;"), ("src/a.rs", using), child]).len(), 1);
        let facade = "mod b; pub(crate) use b::run; pub(crate) struct Limit;";
        assert!(found(&[("src/lib.rs", "mod a;"), ("src/a.rs", facade), child]).is_empty());
        let both = "mod b; pub(crate) use b::run; pub(crate) struct Limit; fn f() { run(Limit) }";
        assert_eq!(found(&[("src/lib.rs", "mod a;"), ("src/a.rs", both), child]).len(), 1);
    }

    #[test]
    fn a_function_with_the_name_of_its_module_is_taken_from_its_file() {
        let found = found(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "mod run; pub(crate) use run::run;"),
            ("src/a/run.rs", "pub(crate) fn run() { crate::b::b() }"),
            ("src/b.rs", "use crate::a::run; pub(crate) fn b() { run() }"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_name_is_taken_from_the_file_that_defines_it() {
        assert!(found(&[
            ("src/lib.rs", "mod a; mod b; pub use a::A; pub use b::*;"),
            ("src/a.rs", "pub struct A;"),
            ("src/b.rs", "use crate::A; pub struct B(A);"),
        ])
        .is_empty());
    }

    #[test]
    fn what_is_taken_by_a_star_or_through_a_module_counts() {
        let a = ("src/a.rs", "use crate::b; pub struct A; fn f() -> b::B { b::B }");
        let star = ("src/b.rs", "use super::a::*; pub struct B; fn f(_: A) {}");
        assert_eq!(found(&[("src/lib.rs", "mod a; mod b;"), a, star]).len(), 1);
        let nothing_taken = ("src/b.rs", "use super::a::*; pub struct B;");
        assert!(found(&[("src/lib.rs", "mod a; mod b;"), a, nothing_taken]).is_empty());
    }

    #[test]
    fn a_circle_of_tests_only_is_none() {
        assert!(found(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("src/b.rs", "use crate::a::A; pub struct B(A);"),
        ])
        .is_empty());
    }

    #[test]
    fn a_circle_of_three_is_one() {
        let found = found(&[
            ("src/main.rs", "mod a; mod b; mod c; fn main() { a::f() }"),
            ("src/a.rs", "pub(crate) fn f() { crate::b::f() }"),
            ("src/b.rs", "pub(crate) fn f() { crate::c::f() }"),
            ("src/c.rs", "pub(crate) fn f() { crate::a::f() }"),
        ]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("3 files"));
    }
}
