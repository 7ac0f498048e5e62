//! Makes a training's data set from text: byte-level, in the training's own folder `data`.
//!
//! Plain text of up to [`CORPUS_BYTES_MAX`] bytes is gathered in memory; more of it, JSONL, Parquet and compressed files are
//! streamed as [`gauntlet data build`](crate::commands::data) does. A note names the text, so that a training is never
//! resumed with another one under the same name.

use std::{
    fs, io,
    ops::ControlFlow,
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use anyhow::{bail, Context, Result};
use dataset::{
    build_tokens, survey, BuildEvent, BuildOptions, BuildSettings, DataError, Dataset,
    SourceSettings, Survey, Tokenizer,
};

use super::order::TrainingOrder;
use crate::{
    corpus::{self, CORPUS_BYTES_MAX},
    terminal::ByteBar,
};

/// Name of the note beside the data set.
const NOTE: &str = "text.json";

/// Share of the documents that is held out of text that is streamed.
const HELD_OUT: f64 = 0.02;

/// Opens what was made of the text before, or makes it. Stops when `end` is set, to be resumed by a later call.
///
/// # Errors
/// There is no text, it is another one than before, or the disk failed; [`DataError::Stopped`] when it was broken off.
pub(super) fn open(order: &TrainingOrder, seq_len: usize, end: &AtomicBool) -> Result<Dataset> {
    let own = order.out.join("data");
    let text = order.data.as_deref().map(source);
    let found = match &text {
        Some(source) => Some(survey(source)?),
        None => None,
    };
    if let Some(text) = &order.data {
        check_apart(text, &own)?;
    }
    if order.fresh {
        remove(&own)?;
    }
    if own.join("manifest.json").is_file() && !own.join("journal.jsonl").exists() {
        check_same(&own, found.as_ref())?;
        return Ok(Dataset::open_with_sample_len(&own, seq_len)?);
    }
    fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
    if let Some(found) = &found {
        let note = own.join(NOTE);
        fs::write(&note, serde_json::to_string(found)?)
            .with_context(|| format!("cannot write {}", note.display()))?;
    }
    match (text, found) {
        (Some(text), Some(found)) if !found.is_plain || found.bytes > CORPUS_BYTES_MAX => {
            stream(text, order, seq_len, &own, end)
        }
        _ => corpus::build(order.data.as_deref(), order.lock.as_deref(), seq_len, &own),
    }
}

fn source(path: &Path) -> SourceSettings {
    let name = path.file_name().unwrap_or(path.as_os_str());
    SourceSettings {
        name: name.to_string_lossy().into_owned(),
        paths: vec![path.display().to_string()],
        ..SourceSettings::default()
    }
}

/// Refuses text in the folder that the data set is written to and that `--fresh` clears.
fn check_apart(text: &Path, own: &Path) -> Result<()> {
    let (Ok(text), Ok(own)) = (text.canonicalize(), own.canonicalize()) else {
        return Ok(());
    };
    if text.starts_with(&own) {
        bail!(
            "the text lies in {}, where this training's data set is written; choose another --out",
            own.display()
        );
    }
    Ok(())
}

/// Refuses a text that is not the one the data set was made of. Where none is named, or no note was written, what is there
/// is taken.
fn check_same(own: &Path, found: Option<&Survey>) -> Result<()> {
    let note = fs::read(own.join(NOTE)).ok();
    let before = note.and_then(|note| serde_json::from_slice::<Survey>(&note).ok());
    match (before, found) {
        (Some(before), Some(found)) if before != *found => bail!(
            "this training was started with another text ({} bytes in {} files, not {} in {}); --fresh starts over, \
             --data {} resumes with the data set made from it",
            before.bytes,
            before.file_count,
            found.bytes,
            found.file_count,
            own.display()
        ),
        _ => Ok(()),
    }
}

/// Makes a data set of text of any size.
fn stream(
    text: SourceSettings,
    order: &TrainingOrder,
    seq_len: usize,
    to: &Path,
    end: &AtomicBool,
) -> Result<Dataset> {
    let mut settings = BuildSettings {
        sample_len: seq_len,
        held_out: HELD_OUT,
        sources: vec![text],
        ..BuildSettings::default()
    };
    let tokenizer = Arc::new(Tokenizer::bytes());
    let build = |settings: &BuildSettings, start_over| {
        let mut bar: Option<ByteBar> = None;
        let mut observe = |event: &BuildEvent| {
            match event {
                BuildEvent::Document(progress) => {
                    let bar = bar.get_or_insert_with(|| ByteBar::new(progress.input_bytes));
                    bar.update(progress.bytes_read, || "making the data set".to_owned());
                }
                BuildEvent::BadLine(line) => tracing::warn!("bad line {line}"),
                BuildEvent::Resumed(_) => {}
            }
            match end.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let options = BuildOptions { threads: order.threads, start_over };
        let built = build_tokens(settings, &tokenizer, to, options, &mut observe);
        if let Some(bar) = bar {
            bar.end();
        }
        built
    };
    match build(&settings, false) {
        Err(DataError::TooFewTokens { split: "held out", .. }) => {
            tracing::warn!("too few documents to hold some out: there will be no held-out loss");
            settings.held_out = 0.0;
            Ok(build(&settings, true)?)
        }
        built => Ok(built?),
    }
}

/// Removes a data set, and nothing else that lies in its folder.
fn remove(own: &Path) -> Result<()> {
    let entries = match fs::read_dir(own) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| own.display().to_string())?,
    };
    for entry in entries {
        let path = entry.with_context(|| own.display().to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_tokens = (name.starts_with("train-") || name.starts_with("held-out-"))
            && (name.ends_with(".bin") || name.ends_with(".bin.part"));
        if is_tokens || ["manifest.json", "journal.jsonl", NOTE].contains(&&*name) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_a_data_set_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["train-0000.bin", "held-out-0000.bin.part", "manifest.json"];
        for name in names.iter().chain(&[NOTE, "train-of-thought.txt", "a.bin"]) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        remove(folder.path()).unwrap();
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.bin", "train-of-thought.txt"]);
        remove(&folder.path().join("nothing")).unwrap();
    }

    #[test]
    fn text_where_the_data_set_goes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("data");
        fs::create_dir_all(own.join("books")).unwrap();
        assert!(check_apart(&own, &own).is_err());
        assert!(check_apart(&own.join("books"), &own).is_err());
        assert!(check_apart(folder.path(), &own).is_ok());
    }
}
