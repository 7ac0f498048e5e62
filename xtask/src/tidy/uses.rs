//! Finds which file takes which names from which other file of its target.
//!
//! A name counts as taken from the file that defines it: a `pub use` on the way there is only a facade. The facade's
//! own file takes the name when its code mentions it.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Module, Modules};

/// The names that one file takes from another, by the two files' indices.
pub(crate) type Uses = BTreeMap<(usize, usize), BTreeSet<String>>;

/// How many imports are followed to a definition; more would be a chain of facades that closes on itself.
const STEPS_MAX: usize = 16;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A whole module: nothing of it is taken yet.
    Module(usize),
    /// Something that this module defines.
    Definition(usize),
}

/// Finds the uses among the files of one target.
pub(crate) fn uses(modules: &Modules) -> Uses {
    let scopes = Scopes::new(modules);
    let mut uses = Uses::new();
    for (index, module) in modules.all.iter().enumerate() {
        let imports = module.imports.iter().filter(|import| !import.public);
        // An import that may be of a module and of a function counts where the code mentions one of them.
        let imports = imports.map(|import| (&import.path, false));
        for (path, is_last) in imports.chain(module.mentions.iter().map(|path| (path, true))) {
            let Some(Target::Definition(definer)) = scopes.resolve(index, path, 0, is_last) else {
                continue;
            };
            let file = modules.all[definer].file;
            if file != module.file {
                let name = path.last().cloned().unwrap_or_default();
                uses.entry((module.file, file)).or_default().insert(name);
            }
        }
    }
    uses
}

/// The names that each module sees.
struct Scopes<'a> {
    modules: &'a [Module],
    /// The modules whose names each module takes by `*`.
    globs: Vec<Vec<usize>>,
}

impl<'a> Scopes<'a> {
    fn new(modules: &'a Modules) -> Self {
        let modules = &modules.all;
        let mut scopes = Self { modules, globs: vec![Vec::new(); modules.len()] };
        // The second time finds the paths that lead through another star.
        for _ in 0..2 {
            scopes.globs = (0..modules.len()).map(|index| scopes.globs_of(index)).collect();
        }
        scopes
    }

    fn globs_of(&self, index: usize) -> Vec<usize> {
        let globs = self.modules[index].imports.iter().filter(|import| import.name.is_none());
        globs
            .filter_map(|import| match self.resolve(index, &import.path, 0, false)? {
                Target::Module(module) => Some(module),
                // The variants of an enum: the import itself has taken it.
                Target::Definition(_) => None,
            })
            .collect()
    }

    /// Follows a path from the module `from`; `None` if it leads out of the target. With `is_last` nothing follows the path,
    /// so that it names no module where something else has the module's name.
    fn resolve(&self, from: usize, path: &[String], steps: usize, is_last: bool) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules[from].parent?),
            name => self.lookup(from, name, steps, is_last && rest.is_empty())?,
        };
        for (at, name) in rest.iter().enumerate() {
            let Target::Module(module) = target else {
                // A variant, or an associated item.
                return Some(target);
            };
            target = match name.as_str() {
                "super" => Target::Module(self.modules[module].parent?),
                // What a macro defines is not seen: it is taken for the module's own.
                name => {
                    let is_last = is_last && at + 1 == rest.len();
                    self.lookup(module, name, steps, is_last).unwrap_or(Target::Definition(module))
                }
            };
        }
        Some(target)
    }

    /// Finds a name in a module's scope; `None` if it is no name of this target. The last name of a path may be a module's
    /// and a function's at once: the function is what is taken.
    fn lookup(&self, index: usize, name: &str, steps: usize, is_last: bool) -> Option<Target> {
        if steps > STEPS_MAX {
            return None;
        }
        let mut seen = vec![index];
        let mut at = 0;
        while let Some(index) = seen.get(at).copied() {
            let module = &self.modules[index];
            let child = module.children.get(name).map(|child| Target::Module(*child));
            let defined = module.definitions.contains(name).then_some(Target::Definition(index));
            let named = module.imports.iter().find(|import| import.name.as_deref() == Some(name));
            let imported =
                || named.and_then(|import| self.resolve(index, &import.path, steps + 1, is_last));
            let found = match is_last {
                true => defined.or_else(imported).or(child),
                false => child.or(defined).or_else(imported),
            };
            if found.is_some() || named.is_some() {
                return found;
            }
            for glob in &self.globs[index] {
                if !seen.contains(glob) {
                    seen.push(*glob);
                }
            }
            at += 1;
        }
        None
    }
}
