//! Checkpoints that survive a kill -9 at any moment: files are written beside, flushed to the disk, and count once a
//! last one is renamed; the checkpoint before is kept, and what is torn or corrupt is passed over.
//!
//! # Bytes
//!
//! ```text
//! checkpoint-N, which makes it one:
//!   magic: "GNTLCKP2"
//!   header length: u32 LE, header: JSON (position, model, optimiser step, what is held, what each part holds and its BLAKE3)
//!   BLAKE3 of everything before
//! checkpoint-N.0, checkpoint-N.1, …, a part for each rank:
//!   values, little endian: θ; for who trains the average of gradients and that of their squares, which tensors that Muon
//!   trains lack; for a miner the error feedback. f32; averages that are bf16 on their device are bf16 here.
//! ```
//!
//! Ranks write their parts at once, each what it owns, tensor by tensor: [`BUFFER`] bytes are held beside the values
//! themselves, of all parts together. A part alone is hashed on the folder's threads ([`Checkpoints::on`]). How many
//! ranks wrote does not matter to who reads: it finds each value by the parts' spans. A checkpoint is read twice: to
//! check the hashes before anything of it is believed, and then to where its values stay ([`OpenCheckpoint`]).
//!
//! N grows; the two newest are kept, or as many as is asked. Parts of no checkpoint, left by a kill, go with the next
//! one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use parts::{Index, PartError, PartNote, Reading};
pub(crate) use parts::{Parts, Section};

pub use hashing::BUFFER;

use crate::compute::threads::Threads;
use crate::engine::learner::{Kept, Learner};
use crate::engine::optimiser::MuonSettings;
use crate::engine::BatchError;
use crate::model::config::ModelConfig;
use crate::model::Model;

mod hashing;
mod parts;

const MAGIC: &[u8; 8] = b"GNTLCKP2";

/// Largest header that is read: some ten thousand spans of parts.
const HEADER_BYTES_MAX: u32 = 16 << 20;

/// Largest note.
pub const NOTE_BYTES_MAX: usize = 4096;

/// What the names of all files begin with.
const PREFIX: &str = "checkpoint-";

/// Checkpoints that are kept unless asked otherwise.
const KEPT: usize = 2;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The checkpoint is of a model of another shape.
    #[error("the checkpoint is of another model")]
    Shape,
    /// It has the averages of another optimiser.
    #[error("the checkpoint is of a training with {found}, this one is with {expected}")]
    Optimiser {
        /// Whose averages it has.
        found: &'static str,
        /// Whose it should have.
        expected: &'static str,
    },
    /// The learner does not give or take its averages.
    #[error(transparent)]
    Learner(#[from] BatchError),
    /// The note is longer than [`NOTE_BYTES_MAX`].
    #[error("a note of {0} bytes, more than 4096")]
    Note(usize),
    /// There are checkpoints, and none of them is whole.
    #[error("none of the {count} checkpoints in {folder} is whole; the newest: {reason}")]
    NoneWhole {
        /// Where.
        folder: PathBuf,
        /// How many.
        count: usize,
        /// What is wrong with the newest.
        reason: String,
    },
}

impl From<PartError> for CheckpointError {
    fn from(PartError { path, source }: PartError) -> Self {
        Self::Io { path, source }
    }
}

/// Where in a run a checkpoint stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The run.
    pub run: u32,
    /// The window.
    pub window: u64,
    /// `false`: at the start of the window. `true`: its update has been made (the error feedback
    /// is the one after it), and θ has not been stepped yet.
    pub trained: bool,
    /// The caller's own, up to [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// A checkpoint that has been read.
#[derive(Debug)]
pub struct Checkpoint {
    position: Position,
    model: Model,
    optimiser_step: u64,
    held: Held,
    arrays: Vec<Vec<f32>>,
}

/// What a checkpoint holds.
pub(crate) struct Contents {
    pub(crate) position: Position,
    pub(crate) model: Model,
    pub(crate) optimiser_step: u64,
    pub(crate) held: Held,
    /// Nothing, the optimiser's two averages, or these and the error feedback.
    pub(crate) arrays: Vec<Vec<f32>>,
}

impl Checkpoint {
    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// θ.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// θ alone.
    pub fn into_model(self) -> Model {
        self.model
    }

    pub(crate) fn into_contents(self) -> Contents {
        Contents {
            position: self.position,
            model: self.model,
            optimiser_step: self.optimiser_step,
            held: self.held,
            arrays: self.arrays,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    position: Position,
    model: ModelConfig,
    optimiser_step: u64,
    miner: bool,
    /// Training without a chain: the optimiser's averages, no error feedback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    alone: bool,
    /// Muon trains the layers' matrices: no averages of their squares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    muon: bool,
    parts: Vec<PartNote>,
}

impl Header {
    fn held(&self) -> Held {
        let averages = if self.muon { Averages::Muon } else { Averages::AdamW };
        match (self.miner, self.alone) {
            (true, _) => Held::Miner(averages),
            (false, true) => Held::Training(averages),
            (false, false) => Held::Model,
        }
    }
}

/// What a checkpoint holds beside θ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// Nothing.
    Model,
    /// The optimiser's averages.
    Training(Averages),
    /// The optimiser's averages and the error feedback.
    Miner(Averages),
}

/// Which averages an optimiser keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Averages {
    /// Two of each parameter.
    AdamW,
    /// One of the layers' matrices, two of the rest.
    Muon,
}

impl Averages {
    /// Those of an optimiser with these settings.
    pub(crate) fn of(muon: Option<&MuonSettings>) -> Self {
        if muon.is_some() {
            Self::Muon
        } else {
            Self::AdamW
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AdamW => "AdamW",
            Self::Muon => "Muon",
        }
    }

    /// Values of both.
    fn lens(self, config: &ModelConfig) -> [usize; 2] {
        let all = config.parameter_count() as usize;
        match self {
            Self::AdamW => [all, all],
            Self::Muon => [all, all - config.arena().layer_matrix_len()],
        }
    }
}

impl Held {
    /// Whether an optimiser with such averages goes on from it; all do where it holds none.
    ///
    /// # Errors
    /// [`CheckpointError::Optimiser`].
    pub(crate) fn check(self, expected: Averages) -> Result<(), CheckpointError> {
        match self.averages() {
            Some(found) if found != expected => {
                let (found, expected) = (found.name(), expected.name());
                Err(CheckpointError::Optimiser { found, expected })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn averages(self) -> Option<Averages> {
        match self {
            Self::Model => None,
            Self::Training(averages) | Self::Miner(averages) => Some(averages),
        }
    }

    /// Values of each [`Section`].
    fn lens(self, config: &ModelConfig) -> [u64; 4] {
        let all = config.parameter_count();
        let averages = self.averages().map_or([0; 2], |averages| averages.lens(config));
        let [mean, square] = averages.map(|len| len as u64);
        [all, mean, square, if matches!(self, Self::Miner(_)) { all } else { 0 }]
    }
}

/// Hands over all values that a checkpoint holds.
pub(crate) type Save<'a> = &'a mut dyn FnMut(&Parts) -> Result<(), CheckpointError>;

/// What a checkpoint is to say of itself, and how many parts it is to have.
pub(crate) struct Title<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) position: &'a Position,
    pub(crate) optimiser_step: u64,
    pub(crate) held: Held,
    pub(crate) parts: usize,
}

/// A folder of checkpoints. One process may write to it at a time.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    kept: usize,
    threads: Threads,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is made if needed.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        Ok(Self { folder: folder.to_owned(), kept: KEPT, threads: Threads::single() })
    }

    /// Hashes on these threads instead of the caller's alone.
    pub fn on(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Keeps the `kept` newest checkpoints, at least one.
    pub fn keeping(mut self, kept: usize) -> Self {
        self.kept = kept.max(1);
        self
    }

    /// Writes θ alone, for those who do not train.
    pub fn save_model(&self, model: &Model, position: &Position) -> Result<(), CheckpointError> {
        let (config, held) = (model.config(), Held::Model);
        let title = Title { config, position, optimiser_step: 0, held, parts: 1 };
        self.write(&title, &mut |parts| {
            parts.put_all(Section::Parameters, model.parameters());
            Ok(())
        })
    }

    /// Writes a checkpoint. When this returns it is on the disk; until then the one before is the newest.
    pub(crate) fn write(&self, title: &Title<'_>, save: Save<'_>) -> Result<(), CheckpointError> {
        if title.position.note.len() > NOTE_BYTES_MAX {
            return Err(CheckpointError::Note(title.position.note.len()));
        }
        let numbers = self.numbers()?;
        self.remove_parts(|number| !numbers.contains(&number))?;
        let next = numbers.last().map_or(0, |newest| newest.saturating_add(1));
        let unfinished = self.folder.join("unfinished");
        let written = self
            .write_parts(title, next, save)
            .and_then(|parts| self.write_header(title, parts, &unfinished));
        if let Err(error) = written {
            // A full disk stays full while a part of a checkpoint lies on it.
            let _ = fs::remove_file(&unfinished);
            let _ = self.remove_parts(|number| number == next);
            return Err(error);
        }
        let path = self.path(next);
        fs::rename(&unfinished, &path).map_err(at(&path))?;
        // The rename itself is on the disk once the folder is.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(at(&self.folder))?;

        let kept_before = self.kept - 1;
        for number in numbers.iter().rev().skip(kept_before) {
            self.remove(*number)?;
        }
        Ok(())
    }

    /// Writes the parts of the checkpoint of this number.
    fn write_parts(
        &self,
        title: &Title<'_>,
        number: u64,
        save: Save<'_>,
    ) -> Result<Vec<PartNote>, CheckpointError> {
        let parts = Parts::create(self.part_paths(number, title.parts.max(1)), &self.threads)?;
        save(&parts)?;
        let notes = parts.finish()?;
        if Index::new(&notes, title.held.lens(title.config)).is_none() {
            return Err(at(&self.folder)(io::Error::other("not all values were handed over")));
        }
        Ok(notes)
    }

    /// Writes what makes parts a checkpoint to `path`.
    fn write_header(
        &self,
        title: &Title<'_>,
        parts: Vec<PartNote>,
        path: &Path,
    ) -> Result<(), CheckpointError> {
        let header = Header {
            position: title.position.clone(),
            model: title.config.clone(),
            optimiser_step: title.optimiser_step,
            miner: matches!(title.held, Held::Miner(_)),
            alone: matches!(title.held, Held::Training(_)),
            muon: title.held.averages() == Some(Averages::Muon),
            parts,
        };
        let header = serde_json::to_vec(&header).map_err(|error| at(path)(error.into()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        let write = |mut file: File| file.write_all(&bytes).and_then(|()| file.sync_all());
        File::create(path).and_then(write).map_err(at(path))
    }

    /// The model that the newest readable checkpoint says it is of; `None` where there is none. Its
    /// hash is not checked: [`Checkpoints::load`] does that.
    pub fn config(&self) -> Result<Option<ModelConfig>, CheckpointError> {
        Ok(self.header()?.map(|header| header.model))
    }

    /// Where the newest readable checkpoint stands, as [`Checkpoints::config`].
    pub fn position(&self) -> Result<Option<Position>, CheckpointError> {
        Ok(self.header()?.map(|header| header.position))
    }

    fn header(&self) -> Result<Option<Header>, CheckpointError> {
        let numbers = self.numbers()?;
        let mut newest_first = numbers.iter().rev();
        Ok(newest_first.find_map(|number| parse_header(&self.path(*number)).ok()))
    }

    /// The newest checkpoint that is whole; `None` where there is none at all.
    ///
    /// A checkpoint of a model of another shape than `config` is an error, not passed over.
    pub fn load(&self, config: &ModelConfig) -> Result<Option<Checkpoint>, CheckpointError> {
        self.newest(config)?.map(OpenCheckpoint::load).transpose()
    }

    /// The model alone of the checkpoint that [`Checkpoints::load`] would give: it takes the memory
    /// of its parameters, where a checkpoint of a training takes up to four times as much.
    pub fn load_model(&self, config: &ModelConfig) -> Result<Option<Model>, CheckpointError> {
        self.newest(config)?.map(OpenCheckpoint::into_model).transpose()
    }

    /// The checkpoint that [`Checkpoints::load`] would give, checked and not read yet.
    ///
    /// # Errors
    /// As there.
    pub fn newest(&self, config: &ModelConfig) -> Result<Option<OpenCheckpoint>, CheckpointError> {
        let numbers = self.numbers()?;
        let mut reason = None;
        for number in numbers.iter().rev() {
            let path = self.path(*number);
            match self.open_numbered(*number, config) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(ReadError::Shape) => return Err(CheckpointError::Shape),
                Err(ReadError::Damaged(what)) => {
                    tracing::warn!(path = %path.display(), what, "passing over a damaged checkpoint");
                    reason.get_or_insert(what);
                }
            }
        }
        match reason {
            None => Ok(None),
            Some(reason) => Err(CheckpointError::NoneWhole {
                folder: self.folder.clone(),
                count: numbers.len(),
                reason,
            }),
        }
    }

    /// Removes every checkpoint.
    pub fn remove_all(&self) -> Result<(), CheckpointError> {
        // The newest last: until then a kill leaves a training that can go on.
        for number in self.numbers()? {
            self.remove(number)?;
        }
        self.remove_parts(|_| true)
    }

    /// Removes a checkpoint: first what makes it one.
    fn remove(&self, number: u64) -> Result<(), CheckpointError> {
        let path = self.path(number);
        fs::remove_file(&path).map_err(at(&path))?;
        self.remove_parts(|of| of == number)
    }

    /// Removes parts of checkpoints whose number is `old`.
    fn remove_parts(&self, old: impl Fn(u64) -> bool) -> Result<(), CheckpointError> {
        for name in self.names()? {
            let number = name.split_once('.').and_then(|(number, _)| number.parse().ok());
            if number.is_some_and(&old) {
                let path = self.folder.join(format!("{PREFIX}{name}"));
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// Opens and checks one checkpoint. Hashes are checked before anything of the header is believed but its length.
    fn open_numbered(
        &self,
        number: u64,
        config: &ModelConfig,
    ) -> Result<OpenCheckpoint, ReadError> {
        let header = whole_header(&self.path(number))?;
        if header.model != *config {
            return Err(ReadError::Shape);
        }
        let lens = header.held().lens(config);
        let damaged = |what: &str| ReadError::Damaged(what.to_owned());
        let index = Index::new(&header.parts, lens)
            .ok_or_else(|| damaged("the parts are not what the header says"))?;
        let paths = self.part_paths(number, header.parts.len());
        let values = Reading::open(paths, &header.parts, index, &self.threads)
            .map_err(ReadError::Damaged)?;
        Ok(OpenCheckpoint { header, values, lens, section: 0, read: 0 })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{number:012}"))
    }

    fn part_paths(&self, number: u64, count: usize) -> Vec<PathBuf> {
        let path = |part| self.folder.join(format!("{PREFIX}{number:012}.{part}"));
        (0..count).map(path).collect()
    }

    /// The numbers of the checkpoints there are, ascending.
    fn numbers(&self) -> Result<Vec<u64>, CheckpointError> {
        let names = self.names()?.into_iter();
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The names of checkpoints and parts, without what all begin with.
    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let name = entry.map_err(at(&self.folder))?.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.to_owned(), source }
}

enum ReadError {
    /// Of another model.
    Shape,
    /// Torn, corrupt or unreadable.
    Damaged(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A checkpoint that has been checked and lies on disk still.
#[derive(Debug)]
pub struct OpenCheckpoint {
    header: Header,
    values: Reading,
    /// Values of each section.
    lens: [u64; 4],
    /// The section that is read next, and how much of it has been read.
    section: usize,
    read: u64,
}

impl OpenCheckpoint {
    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.header.position
    }

    /// Of which model it is.
    pub fn config(&self) -> &ModelConfig {
        &self.header.model
    }

    /// Reads θ alone.
    ///
    /// # Errors
    /// The disk failed.
    pub fn into_model(mut self) -> Result<Model, CheckpointError> {
        self.read_model()
    }

    pub(crate) fn held(&self) -> Held {
        self.header.held()
    }

    pub(crate) fn optimiser_step(&self) -> u64 {
        self.header.optimiser_step
    }

    /// Reads θ, which comes first.
    pub(crate) fn read_model(&mut self) -> Result<Model, CheckpointError> {
        let mut model = Model::zeros(&self.header.model).map_err(|_| CheckpointError::Shape)?;
        self.read(model.parameters_mut())?;
        Ok(model)
    }

    /// Reads the next values, those of a kind, tensor after tensor into a learner.
    pub(crate) fn give(
        &mut self,
        learner: &mut dyn Learner,
        kept: Kept,
        tensors: usize,
    ) -> Result<(), CheckpointError> {
        let mut values = Vec::new();
        for tensor in 0..tensors {
            values.resize(learner.tensor(kept, tensor)?.len(), 0.0);
            self.read(&mut values)?;
            learner.set_tensor(kept, tensor, &values)?;
        }
        Ok(())
    }

    /// Reads the next values, of one section.
    pub(crate) fn read(&mut self, values: &mut [f32]) -> Result<(), CheckpointError> {
        while self.lens.get(self.section).is_some_and(|len| *len == self.read) {
            (self.section, self.read) = (self.section + 1, 0);
        }
        if values.is_empty() {
            return Ok(());
        }
        let section = Section::ALL.get(self.section).copied().unwrap_or(Section::Feedback);
        self.values.read(section, self.read, values)?;
        self.read += values.len() as u64;
        Ok(())
    }

    fn load(mut self) -> Result<Checkpoint, CheckpointError> {
        let (held, optimiser_step) = (self.held(), self.optimiser_step());
        let model = self.read_model()?;
        let [_, mean, square, feedback] = self.lens.map(|len| len as usize);
        let lens = match held {
            Held::Model => Vec::new(),
            Held::Training(_) => vec![mean, square],
            Held::Miner(_) => vec![mean, square, feedback],
        };
        let mut arrays: Vec<Vec<f32>> = lens.into_iter().map(|len| vec![0.0; len]).collect();
        arrays.iter_mut().try_for_each(|values| self.read(values))?;
        let position = self.header.position;
        Ok(Checkpoint { position, model, optimiser_step, held, arrays })
    }
}

/// The header of a file whose hash is right.
fn whole_header(path: &Path) -> Result<Header, ReadError> {
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let mut file = OpenOptions::new().read(true).open(path)?;
    let (start, header) = read_header(&mut file)?;
    let mut found = [0u8; 32];
    file.read_exact(&mut found)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&start).update(&header);
    let is_longer = file.read(&mut [0u8])? > 0;
    if hasher.finalize() != blake3::Hash::from_bytes(found) || is_longer {
        return Err(damaged("the hash does not match"));
    }
    serde_json::from_slice(&header).map_err(|error| ReadError::Damaged(error.to_string()))
}

/// The first twelve bytes and the header.
fn read_header(input: &mut impl Read) -> Result<([u8; 12], Vec<u8>), ReadError> {
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let mut start = [0u8; 12];
    input.read_exact(&mut start)?;
    let header_len = start
        .strip_prefix(MAGIC)
        .and_then(|len| <[u8; 4]>::try_from(len).ok())
        .ok_or_else(|| damaged("no checkpoint of this program; finish or export it with the one that wrote it, or remove the folder"))?;
    let header_len = u32::from_le_bytes(header_len);
    if header_len > HEADER_BYTES_MAX {
        return Err(damaged("the header is too long"));
    }
    // Only what the file has is held.
    let mut header = Vec::new();
    input.by_ref().take(u64::from(header_len)).read_to_end(&mut header)?;
    if header.len() != header_len as usize {
        return Err(damaged("too short"));
    }
    Ok((start, header))
}

/// What a file says it is.
fn parse_header(path: &Path) -> Result<Header, ReadError> {
    let (_, header) = read_header(&mut File::open(path)?)?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|error| ReadError::Damaged(error.to_string()))?;
    header.model.validate().map_err(|_| ReadError::Shape)?;
    Ok(header)
}
