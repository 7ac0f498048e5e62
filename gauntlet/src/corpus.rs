//! Builds a byte-level data set where there is none yet: from the user's text, or from the sources and Markdown of the
//! crates that Cargo.lock pins.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use dataset::{CorpusLimits, Dataset};

use crate::env;

/// A corpus is cut here: more text than any localnet trains on, gathered in a second or two.
pub(crate) const CORPUS_BYTES_MAX: u64 = 16 << 20;

/// Builds a byte-level data set in the folder `to` from the text in `data`, or from the default corpus of the Cargo.lock
/// `lock` (default: the one in the current folder or above).
///
/// # Errors
/// There is no text, or the disk failed.
pub(crate) fn build(
    data: Option<&Path>,
    lock: Option<&Path>,
    sample_len: usize,
    to: &Path,
) -> Result<Dataset> {
    let limits = CorpusLimits { total_bytes_max: CORPUS_BYTES_MAX, ..CorpusLimits::default() };
    let is_too_large = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.len() > CORPUS_BYTES_MAX)
    };
    if let Some(path) = data.filter(|path| is_too_large(path)) {
        bail!(
            "{} is longer than the {CORPUS_BYTES_MAX} bytes of text that are taken here; \
             `gauntlet train` and `gauntlet data build` take any length",
            path.display()
        );
    }
    let documents = match data {
        // The user's own text is taken whole: there is no crowd of crates of which one could be too large a part.
        Some(path) => {
            dataset::gather(path, &CorpusLimits { file_bytes_max: CORPUS_BYTES_MAX, ..limits })
                .with_context(|| format!("cannot read the text in {}", path.display()))?
        }
        None => {
            let lock = find_lock(lock)?;
            dataset::default_corpus(&lock, &limits).context(
                "cannot gather the default corpus from cargo's registry folder; name a text with --data",
            )?
        }
    };
    if documents.is_empty() {
        bail!("there is no text to train on; name some with --data");
    }
    Ok(dataset::build(documents, sample_len, to)?)
}

fn find_lock(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir()?;
    // Cargo tells what it runs where the package is: so it is found from another folder too.
    let package = std::env::var_os(env::PACKAGE).map(PathBuf::from);
    let found = [Some(here), package]
        .into_iter()
        .flatten()
        .flat_map(|from| {
            from.ancestors().map(|folder| folder.join("Cargo.lock")).collect::<Vec<_>>()
        })
        .find(|path| path.is_file());
    found.context(
        "there is no Cargo.lock here or above; name one with --lock, or a text with --data",
    )
}
