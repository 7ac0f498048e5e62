//! Checkpoints that survive a kill -9 at any moment: a file is written beside, flushed to the disk
//! and renamed; the one before it is kept, and what is torn or corrupt is passed over.
//!
//! # Bytes
//!
//! ```text
//! magic: "GNTLCKP1"
//! header length: u32 LE, header: JSON (position, model, optimiser step, how many arrays beside θ)
//! θ, for who trains the average of gradients and that of their squares, which tensors that Muon trains lack,
//!    for a miner the error feedback: f32 LE, arena's order
//! BLAKE3 of everything before
//! ```
//!
//! Files are named `checkpoint-N` with N growing; the two newest are kept, or as many as is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::optimiser::MuonSettings;
use crate::engine::BatchError;
use crate::model::config::ModelConfig;
use crate::model::Model;

const MAGIC: &[u8; 8] = b"GNTLCKP1";

/// Largest header that is read.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// Largest note.
pub const NOTE_BYTES_MAX: usize = 4096;

/// Files that are kept unless asked otherwise.
const KEPT: usize = 2;

/// Values that are converted at a time.
const BLOCK: usize = 16 * 1024;

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
pub(crate) struct Parts {
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

    pub(crate) fn into_parts(self) -> Parts {
        Parts {
            position: self.position,
            model: self.model,
            optimiser_step: self.optimiser_step,
            held: self.held,
            arrays: self.arrays,
        }
    }
}

#[derive(Serialize, Deserialize)]
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
    const ALL: [Self; 5] = [
        Self::Model,
        Self::Training(Averages::AdamW),
        Self::Miner(Averages::AdamW),
        Self::Training(Averages::Muon),
        Self::Miner(Averages::Muon),
    ];

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

    fn averages(self) -> Option<Averages> {
        match self {
            Self::Model => None,
            Self::Training(averages) | Self::Miner(averages) => Some(averages),
        }
    }

    /// Values of each array.
    fn lens(self, config: &ModelConfig) -> Vec<usize> {
        let averages = self.averages().map(|averages| averages.lens(config));
        let mut lens: Vec<usize> = averages.into_iter().flatten().collect();
        if matches!(self, Self::Miner(_)) {
            lens.push(config.parameter_count() as usize);
        }
        lens
    }
}

/// Hands values over to what it is given, part by part.
pub(crate) type Values<'a> = &'a mut dyn FnMut(
    &mut dyn FnMut(&[f32]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError>;

/// A folder of checkpoints. One process may write to it at a time.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    kept: usize,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is made if needed.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        Ok(Self { folder: folder.to_owned(), kept: KEPT })
    }

    /// Keeps the `kept` newest checkpoints, at least one.
    pub fn keeping(mut self, kept: usize) -> Self {
        self.kept = kept.max(1);
        self
    }

    /// Writes θ alone, for those who do not train.
    pub fn save_model(&self, model: &Model, position: &Position) -> Result<(), CheckpointError> {
        let config = model.config();
        self.write(config, position, 0, Held::Model, &mut |out| out(model.parameters()))
    }

    /// Writes a checkpoint. `values` hands over, part by part, all that it holds: θ and then each
    /// array, in the order of the arena. When this returns it is on the disk; until then the one before is the
    /// newest.
    pub(crate) fn write(
        &self,
        config: &ModelConfig,
        position: &Position,
        optimiser_step: u64,
        held: Held,
        values: Values<'_>,
    ) -> Result<(), CheckpointError> {
        if position.note.len() > NOTE_BYTES_MAX {
            return Err(CheckpointError::Note(position.note.len()));
        }
        let header = Header {
            position: position.clone(),
            model: config.clone(),
            optimiser_step,
            miner: matches!(held, Held::Miner(_)),
            alone: matches!(held, Held::Training(_)),
            muon: held.averages() == Some(Averages::Muon),
        };
        let header = serde_json::to_vec(&header)
            .map_err(|error| at(&self.folder)(io::Error::other(error)))?;
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(0, |newest| newest.saturating_add(1));

        let unfinished = self.folder.join("unfinished");
        let file = File::create(&unfinished).map_err(at(&unfinished))?;
        let mut out = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new() };
        let start = |out: &mut Hashing<_>| {
            out.write_all(MAGIC)?;
            out.write_all(&(header.len() as u32).to_le_bytes())?;
            out.write_all(&header)
        };
        let end = |out: &mut Hashing<BufWriter<File>>| {
            let hash = out.hasher.finalize();
            out.inner.write_all(hash.as_bytes())?;
            out.inner.flush()?;
            out.inner.get_ref().sync_all()
        };
        let written = start(&mut out)
            .map_err(at(&unfinished))
            .and_then(|()| values(&mut |part| out.values(part).map_err(at(&unfinished))))
            .and_then(|()| end(&mut out).map_err(at(&unfinished)));
        if let Err(error) = written {
            // A full disk stays full while a part of a checkpoint lies on it.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        let path = self.path(next);
        fs::rename(&unfinished, &path).map_err(at(&path))?;
        // The rename itself is on the disk once the folder is.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(at(&self.folder))?;

        let kept_before = self.kept - 1;
        for number in numbers.iter().rev().skip(kept_before) {
            let old = self.path(*number);
            fs::remove_file(&old).map_err(at(&old))?;
        }
        Ok(())
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
        self.newest(config, true)
    }

    /// The model alone of the checkpoint that [`Checkpoints::load`] would give: it takes the memory
    /// of its parameters, where a checkpoint of a training takes up to four times as much.
    pub fn load_model(&self, config: &ModelConfig) -> Result<Option<Model>, CheckpointError> {
        let newest = self.newest(config, false)?;
        Ok(newest.map(Checkpoint::into_model))
    }

    fn newest(
        &self,
        config: &ModelConfig,
        with_arrays: bool,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let numbers = self.numbers()?;
        let mut reason = None;
        for number in numbers.iter().rev() {
            let path = self.path(*number);
            match read(&path, config, with_arrays) {
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
            let path = self.path(number);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("checkpoint-{number:012}"))
    }

    /// The numbers of the checkpoints there are, ascending.
    fn numbers(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let name = entry.map_err(at(&self.folder))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("checkpoint-"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.to_owned(), source }
}

/// Writes and hashes.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }

    fn values(&mut self, values: &[f32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BLOCK * 4);
        for block in values.chunks(BLOCK) {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
            self.write_all(&bytes)?;
        }
        Ok(())
    }
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

/// Reads and checks one file. The hash is checked before anything of the header is believed but
/// its length. What there is beside the model is left out, though checked, unless it is asked for.
fn read(path: &Path, config: &ModelConfig, with_arrays: bool) -> Result<Checkpoint, ReadError> {
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let file = OpenOptions::new().read(true).open(path)?;
    let len = file.metadata()?.len();
    let mut input = BufReader::with_capacity(BLOCK * 4, file);
    let hashed_len = len.checked_sub(32).ok_or_else(|| damaged("too short"))?;
    let mut hasher = blake3::Hasher::new();
    let (start, header_bytes) = read_header(&mut input)?;
    hasher.update(&start);
    hasher.update(&header_bytes);
    let header_len = header_bytes.len() as u64;
    let values_len = hashed_len
        .checked_sub(12 + header_len)
        .ok_or_else(|| damaged("shorter than its header says"))?;
    let parsed = serde_json::from_slice::<Header>(&header_bytes);
    // Nothing is allocated for more values than this model has. No two kinds have the same length.
    let bytes = |held: &Held| {
        let values: usize = held.lens(config).iter().sum();
        (config.parameter_count() + values as u64) * 4
    };
    let Some(held) = Held::ALL.into_iter().find(|held| values_len == bytes(held)) else {
        // A whole checkpoint of another model, or a damaged one of this.
        io::copy(&mut (&mut input).take(values_len), &mut hasher)?;
        let whole = ends_with_hash(&mut input, &hasher)?;
        return Err(if whole { ReadError::Shape } else { damaged("another length") });
    };

    let mut model = Model::zeros(config).map_err(|_| ReadError::Shape)?;
    read_values(&mut input, &mut hasher, model.parameters_mut())?;
    let lens = if with_arrays { held.lens(config) } else { Vec::new() };
    let mut arrays: Vec<Vec<f32>> = lens.into_iter().map(|len| vec![0.0; len]).collect();
    for values in &mut arrays {
        read_values(&mut input, &mut hasher, values)?;
    }
    let read: usize = arrays.iter().map(Vec::len).sum();
    let rest = values_len - (config.parameter_count() + read as u64) * 4;
    io::copy(&mut (&mut input).take(rest), &mut hasher)?;
    if !ends_with_hash(&mut input, &hasher)? {
        return Err(damaged("the hash does not match"));
    }
    let header = parsed.map_err(|error| ReadError::Damaged(error.to_string()))?;
    if header.model != *config {
        return Err(ReadError::Shape);
    }
    if header.held() != held {
        return Err(damaged("the header does not match the length"));
    }
    let optimiser_step = header.optimiser_step;
    Ok(Checkpoint { position: header.position, model, optimiser_step, held, arrays })
}

/// The first twelve bytes and the header.
fn read_header(input: &mut impl Read) -> Result<([u8; 12], Vec<u8>), ReadError> {
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let mut start = [0u8; 12];
    input.read_exact(&mut start)?;
    let header_len = start
        .strip_prefix(MAGIC)
        .and_then(|len| <[u8; 4]>::try_from(len).ok())
        .ok_or_else(|| damaged("not a checkpoint"))?;
    let header_len = u32::from_le_bytes(header_len);
    if header_len > HEADER_BYTES_MAX {
        return Err(damaged("the header is too long"));
    }
    let mut header = vec![0u8; header_len as usize];
    input.read_exact(&mut header)?;
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

fn read_values(
    input: &mut impl Read,
    hasher: &mut blake3::Hasher,
    values: &mut [f32],
) -> io::Result<()> {
    let mut bytes = vec![0u8; BLOCK * 4];
    for block in values.chunks_mut(BLOCK) {
        let bytes = &mut bytes[..block.len() * 4];
        input.read_exact(bytes)?;
        hasher.update(bytes);
        for (value, bytes) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

fn ends_with_hash(input: &mut impl Read, hasher: &blake3::Hasher) -> io::Result<bool> {
    let mut found = [0u8; 32];
    input.read_exact(&mut found)?;
    Ok(hasher.finalize() == found)
}
