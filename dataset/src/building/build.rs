//! Builds a data set of tokens: sources → mixture → files, with a journal.
//!
//! The bytes depend on the settings, the tokenizer and the text alone: not on threads, not on the
//! order in which a folder lists its files, not on kills in between.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bytes::{DOCUMENTS_MIN, SECTIONS, SECTION_BYTES_MIN};
use super::files::{self, InputFile};
use super::items::ItemSettings;
use super::journal::{BuildJournal, Left, Mark, SourceMark, JOURNAL};
use super::mixture::Mixture;
use super::settings::{BuildSettings, Format};
use super::stream::{
    Piece, Shared, SourcePlan, Stream, BATCHES_BYTES, BATCH_BYTES_MAX, BATCH_BYTES_MIN,
};
use super::unpack::Compression;
use crate::error::{at, DataError};
use crate::folder::Dataset;
use crate::manifest::{hex, Manifest, SourceManifest, TokenManifest, MANIFEST};
use crate::shards::{ShardForm, ShardWriter};
use crate::tokenizer::Tokenizer;

/// The version of data sets of tokens.
const VERSION: u32 = 2;

/// Time between marks; a kill loses no more. A full file is a mark, too.
const MARK_INTERVAL: Duration = Duration::from_secs(10);

/// Names of the two splits' files.
const TRAIN: &str = "train";
const HELD_OUT: &str = "held-out";

/// What a build tells while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildEvent {
    /// An earlier build left this; the build goes on behind it.
    Resumed(BuildProgress),
    /// A document was added.
    Document(BuildProgress),
    /// A line (or row, or file) was left out, or read with U+FFFD for what is not UTF-8: where, and why.
    BadLine(String),
}

/// How far a build is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BuildProgress {
    /// Bytes of all files, as often as they may be read; more than will be read where weights or
    /// `tokens_max` end the build earlier.
    pub input_bytes: u64,
    /// Bytes read of them by this process, those that are only being skipped included.
    pub bytes_read: u64,
    /// Bytes of the documents that are in the data set.
    pub text_bytes: u64,
    /// Documents, held-out ones included.
    pub document_count: u64,
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Tokens held out.
    pub held_out_tokens: u64,
    /// Full files.
    pub shard_count: usize,
    /// Bad lines.
    pub bad_line_count: u64,
}

/// How a build is to run; nothing of it changes the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BuildOptions {
    /// Threads that tokenise; 0 for as many as there are cores.
    pub threads: usize,
    /// Delete what an earlier build left in the folder, finished or not.
    pub start_over: bool,
}

/// Builds a data set of tokens in `folder`, which is made if needed, and opens it.
///
/// A build that was killed, or that `observe` ended with a break, goes on where it stood when the
/// same one is started again.
///
/// # Errors
/// [`DataError::Stopped`] after a break; [`DataError::Occupied`] where the folder holds a data set;
/// otherwise what is wrong with settings, inputs or disk.
pub fn build_tokens(
    settings: &BuildSettings,
    tokenizer: &Arc<Tokenizer>,
    folder: &Path,
    options: BuildOptions,
    observe: &mut dyn FnMut(&BuildEvent) -> ControlFlow<()>,
) -> Result<Dataset, DataError> {
    settings.check()?;
    let end_of_document = tokenizer.end_of_document().ok_or_else(|| {
        DataError::Settings(
            "the tokenizer does not say which token ends a document: name it".into(),
        )
    })?;
    let plans = plans(settings)?;
    let form = form(settings, tokenizer.vocab_size())?;
    prepare_folder(folder, options.start_over)?;
    let fingerprint = fingerprint(settings, tokenizer, end_of_document, &plans);
    let (journal, left) = BuildJournal::open(folder, &fingerprint)?;
    if left.is_none() {
        remove_shards(folder)?;
    }
    let is_ended = left.as_ref().is_some_and(|left| left.is_ended);
    let mut build = Build::new(settings, folder, form, journal, left)?;
    if !is_ended {
        build.read(plans, tokenizer, options.threads, observe)?;
        build.journal.end()?;
    }
    let tokens = TokenManifest {
        token_bytes: form.token_bytes,
        vocab_size: tokenizer.vocab_size() as u64,
        end_of_document,
        tokenizer: hex(tokenizer.hash()),
        sources: build.sources(),
    };
    build.finish(tokens)?;
    Dataset::open(folder)
}

/// The files of all sources, with their settings.
fn plans(settings: &BuildSettings) -> Result<Vec<SourcePlan>, DataError> {
    let sources = settings.sources.iter();
    let files: Result<Vec<_>, _> = sources.map(|source| files::list(source, true)).collect();
    let files = files?;
    let automatic = section_bytes(&files);
    let sources = settings.sources.iter().zip(files);
    let plans = sources.map(|(source, files)| SourcePlan {
        files,
        items: ItemSettings {
            field: source.field.clone(),
            document_bytes_max: settings.document_bytes_max,
            line_bytes_max: settings.line_bytes_max,
            section_bytes: source.section_bytes.or(automatic),
        },
        repeat: source.repeat,
        batch_bytes: (BATCHES_BYTES / settings.sources.len())
            .clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX),
    });
    Ok(plans.collect())
}

/// Where all there is are a few text files they are cut, as some of it must be held out.
fn section_bytes(sources: &[Vec<InputFile>]) -> Option<usize> {
    let files = || sources.iter().flatten();
    let is_text = |file: &InputFile| file.format == Format::Text;
    if files().count() >= DOCUMENTS_MIN || !files().all(is_text) {
        return None;
    }
    let total = files().map(|file| match file.compression {
        Compression::None => file.len,
        // About: text shrinks to a third.
        Compression::Gzip | Compression::Zstd => file.len.saturating_mul(3),
    });
    let total = usize::try_from(total.sum::<u64>()).unwrap_or(usize::MAX);
    Some((total / SECTIONS).max(SECTION_BYTES_MIN))
}

fn form(settings: &BuildSettings, vocab_size: usize) -> Result<ShardForm, DataError> {
    let token_bytes = match vocab_size {
        0 => return Err(DataError::Settings("the vocabulary is empty".to_owned())),
        1..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    };
    let sample_bytes = settings.sample_len as u64 * token_bytes as u64;
    Ok(ShardForm {
        token_bytes,
        sample_len: settings.sample_len,
        shard_samples: (settings.shard_bytes / sample_bytes).max(1),
    })
}

/// Makes the folder and sees that nothing in it is lost without being asked for.
fn prepare_folder(folder: &Path, start_over: bool) -> Result<(), DataError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let manifest = folder.join(MANIFEST);
    if !start_over {
        let is_finished = manifest.exists() && !folder.join(JOURNAL).exists();
        return match is_finished {
            true => {
                Err(DataError::Occupied { folder: folder.to_owned(), what: "a finished data set" })
            }
            false => Ok(()),
        };
    }
    for path in [manifest, folder.join(JOURNAL)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at(&path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the files of tokens that an earlier build left.
fn remove_shards(folder: &Path) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(".part").unwrap_or(&name);
        let number = stem.strip_suffix(".bin").and_then(|stem| {
            let number = stem.strip_prefix(TRAIN).or(stem.strip_prefix(HELD_OUT));
            number?.strip_prefix('-')
        });
        if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
            fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
        }
    }
    Ok(())
}

/// What a build must have in common with the one that it continues.
fn fingerprint(
    settings: &BuildSettings,
    tokenizer: &Tokenizer,
    end_of_document: u32,
    plans: &[SourcePlan],
) -> String {
    let mut hasher = blake3::Hasher::new();
    // Derived forms: they name every field and its value.
    hasher.update(format!("{VERSION} {settings:?} {end_of_document}").as_bytes());
    hasher.update(&tokenizer.hash());
    for plan in plans {
        hasher.update(format!("{:?} {}\n", plan.items, plan.repeat).as_bytes());
        for file in &plan.files {
            let kind = (file.format, file.compression);
            hasher.update(format!("{:?} {} {kind:?}\n", file.name, file.len).as_bytes());
        }
    }
    hex(hasher.finalize().into())
}

/// A build that runs.
struct Build<'a> {
    settings: &'a BuildSettings,
    folder: &'a Path,
    form: ShardForm,
    journal: BuildJournal,
    train: ShardWriter,
    held_out: ShardWriter,
    sources: Vec<SourceMark>,
    is_resumed: bool,
}

impl<'a> Build<'a> {
    fn new(
        settings: &'a BuildSettings,
        folder: &'a Path,
        form: ShardForm,
        journal: BuildJournal,
        left: Option<Left>,
    ) -> Result<Self, DataError> {
        let is_resumed = left.is_some();
        let left = left.unwrap_or_default();
        let writer = |name, mark: &_, shards| match left.is_ended {
            true => Ok(ShardWriter::to_finish(folder, name, form, mark, shards)),
            false => ShardWriter::resume(folder, name, form, mark, shards),
        };
        let mut sources = left.mark.sources;
        sources.resize(settings.sources.len(), SourceMark::default());
        Ok(Self {
            settings,
            folder,
            form,
            journal,
            train: writer(TRAIN, &left.mark.train, left.train)?,
            held_out: writer(HELD_OUT, &left.mark.held_out, left.held_out)?,
            sources,
            is_resumed,
        })
    }

    /// Reads the sources to the end of the mixture.
    fn read(
        &mut self,
        plans: Vec<SourcePlan>,
        tokenizer: &Arc<Tokenizer>,
        threads: usize,
        observe: &mut dyn FnMut(&BuildEvent) -> ControlFlow<()>,
    ) -> Result<(), DataError> {
        let input_bytes = plans.iter().map(|plan| {
            let once: u64 = plan.files.iter().map(|file| file.len).sum();
            once.saturating_mul(u64::from(plan.repeat))
        });
        let input_bytes = input_bytes.sum();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("data-{index}"))
            .build()
            .map_err(|error| DataError::Threads(error.to_string()))?;
        let shared = Arc::new(Shared {
            tokenizer: Arc::clone(tokenizer),
            pool,
            held_out_below: (self.settings.held_out * 2f64.powi(64)) as u64,
            bytes_read: Arc::new(AtomicU64::new(0)),
        });
        let progress = |build: &Self| build.progress(input_bytes, &shared);
        if self.is_resumed && observe(&BuildEvent::Resumed(progress(self))).is_break() {
            return Err(DataError::Stopped(self.folder.to_owned()));
        }
        let weights = self.settings.sources.iter().map(|s| s.weight_ppm());
        let mut mixture = Mixture::new(weights.collect());
        let mut streams: Vec<Option<Stream>> = plans.iter().map(|_| None).collect();
        let mut marked = Instant::now();
        let mut shards_marked = self.train.shards().len() + self.held_out.shards().len();
        while let Some(source) = self.next_source(&mixture) {
            let is_exhausted = self.sources[source].is_exhausted;
            let stream = match &mut streams[source] {
                _ if is_exhausted => None,
                Some(stream) => Some(stream),
                none => {
                    let start = self.sources[source].place;
                    let plan = plans[source].clone();
                    Some(none.insert(Stream::start(plan, start, Arc::clone(&shared))?))
                }
            };
            let next = stream.map_or(Ok(None), Stream::next)?;
            let Some((place, piece)) = next else {
                streams[source] = None;
                self.sources[source].is_exhausted = true;
                if !mixture.exhausted(source) {
                    break;
                }
                continue;
            };
            let is_first_pass = place.pass == 0;
            self.sources[source].place = place;
            let event = self.take(source, piece, is_first_pass)?;
            let event = event.unwrap_or_else(|| BuildEvent::Document(progress(self)));
            let is_stopped = observe(&event).is_break();
            let shards = self.train.shards().len() + self.held_out.shards().len();
            if is_stopped || shards > shards_marked || marked.elapsed() > MARK_INTERVAL {
                self.mark()?;
                (marked, shards_marked) = (Instant::now(), shards);
            }
            if is_stopped {
                return Err(DataError::Stopped(self.folder.to_owned()));
            }
        }
        self.mark()
    }

    /// The source that gives the next document; `None` where there are tokens enough.
    fn next_source(&self, mixture: &Mixture) -> Option<usize> {
        let taken: Vec<u64> = self.sources.iter().map(|s| s.token_count).collect();
        let is_enough = |max| taken.iter().sum::<u64>() >= max;
        match self.settings.tokens_max {
            Some(max) if is_enough(max) => None,
            _ => mixture.next(&taken),
        }
    }

    /// Adds what a source gave; the event of a bad line.
    fn take(
        &mut self,
        source: usize,
        piece: Piece,
        is_first_pass: bool,
    ) -> Result<Option<BuildEvent>, DataError> {
        let mark = &mut self.sources[source];
        match piece {
            // Only the token that ends it: a text of what the tokenizer leaves out.
            Piece::Train(encoded) | Piece::HeldOut(encoded) if encoded.tokens.len() <= 1 => {}
            Piece::Train(encoded) => {
                mark.document_count += 1;
                mark.token_count += encoded.tokens.len() as u64;
                mark.text_bytes += encoded.text_bytes;
                self.train.push(&encoded.tokens)?;
            }
            Piece::HeldOut(encoded) => {
                mark.text_bytes += encoded.text_bytes;
                self.held_out.push(&encoded.tokens)?;
            }
            Piece::Bad(line) if is_first_pass => {
                mark.bad_line_count += 1;
                let count = self.sources.iter().map(|s| s.bad_line_count).sum();
                let max = self.settings.bad_lines_max;
                return match count > max {
                    true => Err(DataError::BadLines { count, max, last: line }),
                    false => Ok(Some(BuildEvent::BadLine(line))),
                };
            }
            Piece::Passed | Piece::Bad(_) => {}
        }
        Ok(None)
    }

    fn mark(&mut self) -> Result<(), DataError> {
        let mark = Mark {
            train: self.train.mark()?,
            held_out: self.held_out.mark()?,
            sources: self.sources.clone(),
        };
        let (train, held_out) = (self.train.shards(), self.held_out.shards());
        self.journal.mark(train, held_out, mark)
    }

    fn progress(&self, input_bytes: u64, shared: &Shared) -> BuildProgress {
        let sum = |of: fn(&SourceMark) -> u64| self.sources.iter().map(of).sum();
        BuildProgress {
            input_bytes,
            bytes_read: shared.bytes_read.load(Ordering::Relaxed),
            text_bytes: sum(|source| source.text_bytes),
            document_count: self.train.document_count() + self.held_out.document_count(),
            train_tokens: self.train.token_count(),
            held_out_tokens: self.held_out.token_count(),
            shard_count: self.train.shards().len() + self.held_out.shards().len(),
            bad_line_count: sum(|source| source.bad_line_count),
        }
    }

    fn sources(&self) -> Vec<SourceManifest> {
        let sources = self.settings.sources.iter().zip(&self.sources);
        let manifests = sources.map(|(settings, mark)| SourceManifest {
            name: settings.name.clone(),
            weight_ppm: settings.weight_ppm(),
            document_count: mark.document_count,
            token_count: mark.token_count,
            bad_line_count: mark.bad_line_count,
        });
        manifests.collect()
    }

    /// Ends the last files and writes the manifest.
    fn finish(self, tokens: TokenManifest) -> Result<(), DataError> {
        let sample_len = self.settings.sample_len;
        let train = self.train.finish()?;
        let held_out = self.held_out.finish()?;
        let is_held_out_needed = self.settings.held_out > 0.0;
        let too_few = if train.sample_count == 0 {
            let read = self.sources.iter().map(|source| source.token_count).sum();
            Some(("to train on", read, "more text or shorter samples"))
        } else if held_out.sample_count == 0 && is_held_out_needed {
            let advice = "hold out a larger share, or 0 for none, or have shorter samples";
            Some(("held out", held_out.token_count, advice))
        } else {
            None
        };
        if let Some((split, tokens, advice)) = too_few {
            // Other settings are needed: what is there is of no use to them.
            self.journal.remove()?;
            return Err(DataError::TooFewTokens { split, tokens, sample_len, advice });
        }
        let mut manifest = Manifest {
            version: VERSION,
            sample_len,
            shard_samples: self.form.shard_samples,
            tokens: Some(tokens),
            train,
            held_out,
            root: String::new(),
        };
        manifest.write(self.folder)?;
        self.journal.remove()
    }
}
