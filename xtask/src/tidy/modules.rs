//! Reads the modules of one target: which file declares what, imports what, and names what in its code.
//!
//! Only code that is compiled outside tests counts: what stands under `#[cfg(test)]` is skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::tokens::{tokens, Token};

/// Gives the text of a file, or `None` without one; tests give one that reads no disk.
pub(crate) type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// The modules of one target, its root first.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The modules, a parent before its children.
    pub(crate) all: Vec<Module>,
    /// The files that were read, in the order in which they are declared.
    pub(crate) files: Vec<PathBuf>,
}

/// One module, in a file of its own or inside another's.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Its file's index among the files read.
    pub(crate) file: usize,
    /// The index of the module it stands in; `None` at the root.
    pub(crate) parent: Option<usize>,
    /// The modules it declares, by name.
    pub(crate) children: BTreeMap<String, usize>,
    /// The names it defines itself.
    pub(crate) definitions: BTreeSet<String>,
    /// Its `use` declarations, one a name.
    pub(crate) imports: Vec<Import>,
    /// The paths that its code names outside `use` declarations.
    pub(crate) mentions: BTreeSet<Vec<String>>,
}

/// One name that a `use` declaration brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The imported path.
    pub(crate) path: Vec<String>,
    /// The name it gets here; `None` for all names of the path (`*`).
    pub(crate) name: Option<String>,
    /// Whether it is handed on (`pub use`, in any scope).
    pub(crate) public: bool,
}

impl Modules {
    /// Reads the target whose root is the file `root`, and every file that its modules declare.
    pub(crate) fn read(root: &Path, read: Read<'_>) -> Self {
        let mut modules = Self::default();
        let folder = root.parent().unwrap_or(root).to_owned();
        modules.read_file(root.to_owned(), folder, None, read);
        modules
    }

    /// Reads one file as a module and returns its index; `None` if there is no such file.
    fn read_file(
        &mut self,
        path: PathBuf,
        children_folder: PathBuf,
        parent: Option<usize>,
        read: Read<'_>,
    ) -> Option<usize> {
        let text = read(&path)?;
        let file = self.files.len();
        self.files.push(path);
        let index = self.push(file, parent);
        let tokens = tokens(&text);
        self.read_module(index, &tokens, &children_folder, read);
        Some(index)
    }

    fn push(&mut self, file: usize, parent: Option<usize>) -> usize {
        self.all.push(Module { file, parent, ..Module::default() });
        self.all.len() - 1
    }

    /// Reads the tokens between a module's braces, or of its whole file.
    fn read_module(&mut self, index: usize, tokens: &[Token], folder: &Path, read: Read<'_>) {
        let mut at = 0;
        let mut depth = 0_usize;
        let mut public = false;
        while let Some(token) = tokens.get(at) {
            let was_public = std::mem::take(&mut public);
            match token {
                Token::Sign('#') => at = self.attribute(index, tokens, at),
                Token::Sign('{') => {
                    depth += 1;
                    at += 1;
                }
                Token::Sign('}') => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                Token::Word(word) if word == "pub" => {
                    public = true;
                    at += 1;
                    if is_sign(tokens.get(at), '(') && is_scope(tokens.get(at + 1)) {
                        at = after_group(tokens, at);
                    }
                }
                // `use<…>` is a bound, not a declaration.
                Token::Word(word) if word == "use" && !is_sign(tokens.get(at + 1), '<') => {
                    let mut imports = Vec::new();
                    at = tree(tokens, at + 1, &[], was_public, &mut imports);
                    self.all[index].imports.extend(imports);
                }
                Token::Word(word) if word == "mod" && depth == 0 => {
                    at = self.child(index, tokens, at + 1, folder, read);
                }
                Token::Word(word) if depth == 0 && is_definer(word) => {
                    at += 1;
                    let mut name = at;
                    if is_sign(tokens.get(name), '!') {
                        name += 1;
                    }
                    if let Some(Token::Word(name)) = tokens.get(name) {
                        if !is_definer(name) {
                            self.all[index].definitions.insert(name.clone());
                            at += 1;
                        }
                    }
                }
                Token::Word(_) => {
                    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
                    let (path, after) = path(tokens, at);
                    at = after;
                    // A field, a method, or the rest of a path that a type begins.
                    if !is_sign(before, '.') && before != Some(&Token::Colons) {
                        self.all[index].mentions.insert(path);
                    }
                }
                Token::Colons | Token::Sign(_) | Token::Literal => at += 1,
            }
        }
    }

    /// Reads the module after the word `mod`, and returns the place behind it.
    fn child(
        &mut self,
        parent: usize,
        tokens: &[Token],
        at: usize,
        folder: &Path,
        read: Read<'_>,
    ) -> usize {
        let Some(Token::Word(name)) = tokens.get(at) else {
            return at;
        };
        let inner_folder = folder.join(name);
        let (child, after) = if is_sign(tokens.get(at + 1), '{') {
            let after = after_group(tokens, at + 1);
            let child = self.push(self.all[parent].file, Some(parent));
            let inside = &tokens[at + 2..after.saturating_sub(1).max(at + 2)];
            self.read_module(child, inside, &inner_folder, read);
            (Some(child), after)
        } else {
            let file = folder.join(format!("{name}.rs"));
            let child =
                self.read_file(file, inner_folder.clone(), Some(parent), read).or_else(|| {
                    self.read_file(inner_folder.join("mod.rs"), inner_folder, Some(parent), read)
                });
            (child, at + 1)
        };
        if let Some(child) = child {
            self.all[parent].children.insert(name.clone(), child);
        }
        after
    }

    /// Passes an attribute, and with it the item of a test. Other attributes' words count as code.
    fn attribute(&mut self, index: usize, tokens: &[Token], at: usize) -> usize {
        let open = if is_sign(tokens.get(at + 1), '!') { at + 2 } else { at + 1 };
        if !is_sign(tokens.get(open), '[') {
            return at + 1;
        }
        let after = after_group(tokens, open);
        let inside = &tokens[open + 1..after.saturating_sub(1).max(open + 1)];
        let has = |wanted: &str| {
            inside.iter().any(|token| matches!(token, Token::Word(word) if word == wanted))
        };
        if matches!(inside.first(), Some(Token::Word(word)) if word == "cfg")
            && has("test")
            && !has("not")
        {
            return after_item(tokens, after);
        }
        let mut at = 0;
        while at < inside.len() {
            if let Token::Word(_) = inside[at] {
                let (path, after) = path(inside, at);
                self.all[index].mentions.insert(path);
                at = after;
            } else {
                at += 1;
            }
        }
        after
    }
}

fn is_sign(token: Option<&Token>, sign: char) -> bool {
    token == Some(&Token::Sign(sign))
}

/// Whether a word after `pub(` makes that a scope and no tuple.
fn is_scope(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Word(word)) if ["crate", "super", "self", "in"].contains(&word.as_str()))
}

/// Whether a name that is being defined follows this word.
fn is_definer(word: &str) -> bool {
    const DEFINERS: [&str; 13] = [
        "fn",
        "struct",
        "enum",
        "trait",
        "type",
        "union",
        "const",
        "static",
        "macro_rules",
        "unsafe",
        "async",
        "extern",
        "mut",
    ];
    DEFINERS.contains(&word)
}

/// Reads a path from its first word on: `a::b::c`, without generic arguments.
fn path(tokens: &[Token], mut at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    while let Some(Token::Word(word)) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(Token::Colons), Some(Token::Word(_))) => at += 1,
            _ => break,
        }
    }
    (path, at)
}

/// Reads the tree of a `use` declaration into `imports`, and returns the place behind it.
fn tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    public: bool,
    imports: &mut Vec<Import>,
) -> usize {
    let mut path = prefix.to_vec();
    if tokens.get(at) == Some(&Token::Colons) {
        // `::name` is a crate, never a module of ours.
        path.push(String::new());
        at += 1;
    }
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) => {
                path.push(word.clone());
                at += 1;
            }
            Some(Token::Sign('*')) => {
                imports.push(Import { path, name: None, public });
                return at + 1;
            }
            Some(Token::Sign('{')) => {
                at += 1;
                while at < tokens.len() && !is_sign(tokens.get(at), '}') {
                    at = tree(tokens, at, &path, public, imports);
                    if is_sign(tokens.get(at), ',') {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // Not a `use` declaration after all: go on behind it.
            _ => return at + 1,
        }
        if tokens.get(at) == Some(&Token::Colons) {
            at += 1;
            continue;
        }
        // `{self}` is the path before it.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned();
        if matches!(tokens.get(at), Some(Token::Word(word)) if word == "as") {
            name = match tokens.get(at + 1) {
                Some(Token::Word(name)) => Some(name.clone()),
                _ => name,
            };
            at += 2;
        }
        imports.push(Import { path, name, public });
        return at;
    }
}

/// Returns the place behind the group that opens at `at`.
fn after_group(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    at
}

/// Returns the place behind the item, with its attributes, that begins at `at`.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    while is_sign(tokens.get(at), '#') && is_sign(tokens.get(at + 1), '[') {
        at = after_group(tokens, at + 1);
    }
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Sign(';') => return at + 1,
            Token::Sign('{') => {
                at = after_group(tokens, at);
                return if is_sign(tokens.get(at), ';') { at + 1 } else { at };
            }
            Token::Sign('(' | '[') => at = after_group(tokens, at),
            Token::Sign('}') => return at,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Modules {
        let root = Path::new("src/lib.rs");
        let files = |path: &Path| (path == root).then(|| source.to_owned());
        Modules::read(root, &files)
    }

    #[test]
    fn a_use_tree_is_one_import_a_name() {
        let modules = read("pub(crate) use a::{b, c::{self, D as E}, f::*}; use ::g::H;");
        let shown: Vec<String> = modules.all[0]
            .imports
            .iter()
            .map(|import| {
                let name = import.name.as_deref().unwrap_or("*");
                format!("{} as {name} {}", import.path.join("::"), import.public)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a::b as b true",
                "a::c as c true",
                "a::c::D as E true",
                "a::f as * true",
                "::g::H as H false",
            ]
        );
    }

    #[test]
    fn code_of_tests_is_not_read() {
        let modules = read(
            "#[cfg(test)] use crate::a; #[cfg(test)] mod tests { use crate::b; } \
             #[cfg(test)] #[derive(C)] struct D { e: crate::f::G } fn kept() { crate::h::i() }",
        );
        let root = &modules.all[0];
        assert!(root.imports.is_empty() && root.children.is_empty());
        assert_eq!(root.definitions, BTreeSet::from(["kept".to_owned()]));
        let path = ["crate", "h", "i"].map(str::to_owned).to_vec();
        assert_eq!(root.mentions, BTreeSet::from([path]));
    }

    #[test]
    fn modules_inside_a_file_are_read_with_it() {
        let modules = read("mod a { pub mod b { pub const C: u8 = 1; } } const fn d() {}");
        assert_eq!(modules.all.len(), 3);
        assert_eq!(modules.files.len(), 1);
        assert_eq!(modules.all[2].definitions, BTreeSet::from(["C".to_owned()]));
        assert_eq!(modules.all[0].definitions, BTreeSet::from(["d".to_owned()]));
    }
}
