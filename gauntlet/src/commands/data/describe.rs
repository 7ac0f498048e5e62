//! Describes a data set, for people and as JSON.

use anyhow::{Context, Result};
use dataset::{Dataset, SplitManifest};

/// The manifest without the hashes of pieces, as JSON.
pub(super) fn json(dataset: &Dataset) -> Result<String> {
    let mut manifest = dataset.manifest().clone();
    for split in [&mut manifest.train, &mut manifest.held_out] {
        split.shards.iter_mut().for_each(|shard| shard.pieces.clear());
    }
    serde_json::to_string_pretty(&manifest).context("cannot print the manifest")
}

/// Prints a data set's description for people.
pub(super) fn describe(dataset: &Dataset) {
    let manifest = dataset.manifest();
    println!("root      {}", manifest.root);
    println!("samples   of {} tokens", manifest.sample_len);
    match &manifest.tokens {
        None => println!("tokens    bytes"),
        Some(tokens) => {
            println!(
                "tokens    of {} bytes, vocabulary {}, {} ends a document",
                tokens.token_bytes, tokens.vocab_size, tokens.end_of_document
            );
            println!("tokenizer {}", tokens.tokenizer);
        }
    }
    describe_split("train", &manifest.train);
    describe_split("held out", &manifest.held_out);
    let sources = manifest.tokens.iter().flat_map(|tokens| &tokens.sources);
    let total = sources.clone().map(|source| source.token_count).sum::<u64>();
    for source in sources {
        let share = 100.0 * source.token_count as f64 / total.max(1) as f64;
        println!(
            "source    {}: {} tokens ({share:.2} %), {} documents, {} bad lines",
            source.name, source.token_count, source.document_count, source.bad_line_count
        );
    }
}

fn describe_split(name: &str, split: &SplitManifest) {
    println!(
        "{name:9} {} samples, {} tokens, {} documents, {} files",
        split.sample_count,
        split.token_count,
        split.document_count,
        split.shards.len()
    );
}
