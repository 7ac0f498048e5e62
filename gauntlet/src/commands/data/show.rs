//! `gauntlet data show`, `verify` and `fetch`: print, check and copy a data set.

use std::path::Path;

use anyhow::{bail, Result};
use dataset::{
    is_url, DataError, Dataset, Manifest, RemoteDataset, RemoteStore, SampleSource, StoreOptions,
    Tokenizer,
};

use super::{
    args::{DataFetchArgs, DataShowArgs, DataVerifyArgs},
    build::tokenizer,
    describe::{describe, json},
};
use crate::{exit, terminal::ByteBar};

/// Checks every byte of a data set.
///
/// # Errors
/// It is damaged; the message names file and piece.
pub(super) fn verify(args: &DataVerifyArgs) -> Result<u8> {
    if is_url(&args.place) {
        let remote = open_remote(&args.place)?;
        return watched(remote.manifest(), |observe| remote.verify(observe));
    }
    let dataset = Dataset::open(Path::new(&args.place))?;
    watched(dataset.manifest(), |observe| dataset.verify_with(observe))
}

/// Copies a data set from a store.
///
/// # Errors
/// The store or the disk fails, or what the store has is damaged.
pub(super) fn fetch(args: &DataFetchArgs) -> Result<u8> {
    let remote = open_remote(&args.url)?;
    watched(remote.manifest(), |observe| remote.download(&args.folder, observe).map(drop))
}

fn open_remote(url: &str) -> Result<RemoteDataset> {
    let store = RemoteStore::open(url, &StoreOptions::default())?;
    Ok(RemoteDataset::open_uncached(store)?)
}

/// Shows how far `work`, which reports the bytes of each file, is in a data set.
fn watched(
    manifest: &Manifest,
    work: impl FnOnce(&mut dyn FnMut(u64)) -> Result<(), DataError>,
) -> Result<u8> {
    let token_bytes = manifest.token_bytes() as u64;
    let total = (manifest.train.token_count + manifest.held_out.token_count) * token_bytes;
    let mut bar = ByteBar::new(total);
    let mut files = 0;
    let mut done = 0;
    let result = work(&mut |bytes| {
        files += 1;
        done += bytes;
        bar.update(done, || format!("{files} files"));
    });
    bar.end();
    result?;
    println!("whole     {files} files, {total} bytes");
    println!("root      {}", manifest.root);
    Ok(exit::SUCCESS)
}

/// Prints what a data set consists of, or samples of it.
///
/// # Errors
/// There is none, or it has no such sample.
pub(super) fn show(args: &DataShowArgs) -> Result<u8> {
    let dataset = Dataset::open(&args.folder)?;
    if args.samples.is_empty() {
        match args.json {
            true => println!("{}", json(&dataset)?),
            false => describe(&dataset),
        }
        return Ok(exit::SUCCESS);
    }
    let tokenizer = match &args.tokenizer {
        Some(name) => Some(tokenizer(name)?),
        None => None,
    };
    let split = match args.held_out {
        true => dataset.held_out(),
        false => dataset.train(),
    };
    for &id in &args.samples {
        show_sample(split, id, tokenizer.as_ref())?;
    }
    Ok(exit::SUCCESS)
}

fn show_sample(split: &dyn SampleSource, id: u64, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let Some(sample) = split.sample(id) else {
        bail!("no sample {id}: there are {}", split.sample_count());
    };
    let tokens: Vec<u32> = sample.iter().collect();
    match tokenizer {
        Some(tokenizer) => println!("--- sample {id}\n{}", tokenizer.decode(&tokens)?),
        None => {
            let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
            println!("--- sample {id}\n{}", tokens.join(" "));
        }
    }
    Ok(())
}
