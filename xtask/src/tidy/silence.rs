//! Checks that the library `participant` neither prints, nor ends the process, nor hides its errors' types.

use super::{
    tokens::{tokens, Token},
    workspace::Package,
};

/// The crate that other programs embed.
pub(crate) const LIBRARY: &str = "participant";

/// Crates that belong to a program: its command line, its progress bars, its errors without a type.
const CRATES: [&str; 3] = ["clap", "indicatif", "anyhow"];

/// Names that stand for the same, where the library's source says them.
const NAMES: [&str; 3] = ["clap", "indicatif", "anyhow"];

/// Macros that print.
const PRINTING: [&str; 5] = ["println", "eprintln", "print", "eprint", "dbg"];

/// Streams that belong to the program.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// What a library may take of `std::process`: nothing that ends the process.
const OF_PROCESS: [&str; 1] = ["id"];

/// Says which crate of a program the library depends on.
pub(crate) fn dependencies(package: &Package) -> Vec<String> {
    let used = package.dependencies.iter().filter(|used| !used.dev);
    let broken = used.filter(|used| CRATES.contains(&used.name.as_str()));
    broken.map(|used| format!("`{LIBRARY}` may not depend on `{}`", used.name)).collect()
}

/// Says what of a program the library's source contains; its tests count too.
pub(crate) fn source(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut broken = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else {
            continue;
        };
        let word = word.as_str();
        let is_macro = tokens.get(at + 1) == Some(&Token::Sign('!'));
        let taken = match (word, tokens.get(at + 1), tokens.get(at + 2)) {
            ("process", Some(Token::Colons), taken) => taken,
            _ => None,
        };
        let ends_process = taken.is_some_and(
            |taken| !matches!(taken, Token::Word(word) if OF_PROCESS.contains(&word.as_str())),
        );
        if NAMES.contains(&word)
            || STREAMS.contains(&word)
            || PRINTING.contains(&word) && is_macro
            || ends_process
        {
            broken.push(format!("`{word}` belongs to a program, not to `{LIBRARY}`"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_program_is_found() {
        for line in [
            "println!(\"a\")",
            "eprint!(\"a\")",
            "std::process::exit(1)",
            "std::process::abort()",
            "use std::process::ExitCode;",
            "use std::process::{exit, id};",
            "use std::process::*;",
            "dbg!(1)",
            "std::io::stdout().write_all(b)",
            "writeln!(io::stderr(), b)",
            "use anyhow::Context;",
            "#[derive(clap::Args)]",
            "indicatif::ProgressBar::new(1)",
        ] {
            assert_eq!(source(line).len(), 1, "{line}");
        }
        assert!(source(
            "fn exit() {} std::process::id(); // println!\n tracing::info!(\"ExitCode\")"
        )
        .is_empty());
    }

    #[test]
    fn a_dependency_of_a_program_is_found() {
        use super::super::workspace::Dependency;
        let used = |name: &str, dev| Dependency { name: name.to_owned(), dev };
        let package = Package {
            name: LIBRARY.to_owned(),
            folder: "participant".into(),
            dependencies: vec![used("anyhow", true), used("clap", false), used("tokio", false)],
            targets: Vec::new(),
        };
        assert_eq!(dependencies(&package), ["`participant` may not depend on `clap`"]);
    }
}
