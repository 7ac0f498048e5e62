//! docs/INTEGRATING.md quotes code that compiles, and tells of every item of the pallet's `Config`.

use std::{collections::BTreeSet, fs, path::Path};

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A fenced block of the chapter: the line that opens it, and what is in it.
struct Fence {
    opened: String,
    text: String,
}

fn fences(chapter: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut lines = chapter.lines();
    while let Some(line) = lines.next() {
        if let Some(opened) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```");
            let text = text.map(|line| format!("{line}\n")).collect();
            fences.push(Fence { opened: opened.to_owned(), text });
        }
    }
    fences
}

/// What is wrong with a block: code names its file, in which it stands word for word.
fn broken(fence: &Fence, read: impl Fn(&str) -> String) -> Option<String> {
    let (language, file) = fence.opened.split_once(' ').unwrap_or((&fence.opened, ""));
    if !matches!(language, "rust" | "toml") {
        return None;
    }
    let found = !file.is_empty() && !fence.text.is_empty() && read(file).contains(&fence.text);
    (!found).then(|| format!("`{}` has no such text:\n{}", fence.opened, fence.text))
}

#[test]
fn every_block_of_code_stands_word_for_word_in_the_file_that_it_names() {
    let fences = fences(&read("docs/INTEGRATING.md"));
    let code = fences.iter().filter(|fence| fence.opened.contains("example-runtime/")).count();
    assert!(code >= 8, "the chapter quotes {code} blocks of the example");
    let broken: Vec<_> = fences.iter().filter_map(|fence| broken(fence, read)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_block_that_differs_or_names_no_file_is_found() {
    let source = |_: &str| "type A = B;\ntype C = D;\n".to_owned();
    let check = |chapter: &str| fences(chapter).iter().filter_map(|f| broken(f, source)).count();
    assert_eq!(check("```rust a.rs\ntype A = B;\n```\n"), 0);
    assert_eq!(check("```rust a.rs\ntype A = E;\n```\n"), 1);
    assert_eq!(check("```rust\ntype A = B;\n```\n"), 1);
    assert_eq!(check("```rust a.rs\n```\n"), 1);
    assert_eq!(check("```sh\ncargo test\n```\n"), 0);
}

/// The associated types of the pallet's `Config`.
fn config_items() -> BTreeSet<String> {
    let source = read("pallet-gauntlet/src/lib.rs");
    let (_, config) = source.split_once("pub trait Config").expect("the pallet has a Config");
    let (config, _) = config.split_once("\n    }\n").expect("the trait ends");
    let names = config.lines().filter_map(|line| line.trim().strip_prefix("type "));
    names.filter_map(|rest| Some(rest.split_once(':')?.0.to_owned())).collect()
}

#[test]
fn every_item_of_config_has_its_row() {
    let chapter = read("docs/INTEGRATING.md");
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows = rows.filter(|(_, rest)| rest.matches('|').count() == 4);
    let rows: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    let items = config_items();
    assert!(items.len() > 20, "{items:?}");
    assert_eq!(rows, items);
}
