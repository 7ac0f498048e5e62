//! Makes what the tests put on a shelf: text, a data set of it, and a store with the files of a folder.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use dataset::{
    build_tokens, BuildOptions, BuildSettings, DataError, Dataset, SourceSettings, StoreOptions,
    Tokenizer,
};

use crate::shelf::Shelf;

/// Reaches the store at `endpoint`.
pub(crate) fn options(endpoint: &str) -> StoreOptions {
    StoreOptions {
        endpoint: Some(endpoint.to_owned()),
        region: Some("here".to_owned()),
        credentials: Some(("key".to_owned(), "secret".to_owned())),
    }
}

/// A data set of some pieces, built from JSONL.
pub(crate) fn data_set(folder: &Path, input: &str) -> Result<Dataset, DataError> {
    let settings = BuildSettings {
        sample_len: 100,
        shard_bytes: 3 << 20,
        held_out: 0.02,
        sources: vec![SourceSettings {
            name: "a".to_owned(),
            paths: vec![input.to_owned()],
            ..SourceSettings::default()
        }],
        ..BuildSettings::default()
    };
    let tokenizer = Arc::new(Tokenizer::bytes());
    let options = BuildOptions::default();
    build_tokens(&settings, &tokenizer, folder, options, &mut |_| ControlFlow::Continue(()))
}

/// Eight thousand documents, one a line.
pub(crate) fn jsonl() -> String {
    let line = |number: u32| {
        let text = format!("document {number} ").repeat(20 + number as usize % 50);
        format!("{{\"text\": \"{text}\"}}\n")
    };
    (0..8_000).map(line).collect()
}

/// A store that has the files of a folder.
pub(crate) fn shelf_of(folder: &Path, at: &str) -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{at}/{}", entry.file_name().to_str().unwrap());
        if let Ok(content) = fs::read(entry.path()) {
            shelf.objects.lock().unwrap().insert(name, content);
        }
    }
    shelf
}
