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
//! Values go to the disk tensor by tensor, hashed in pieces of a MiB on the folder's threads ([`Checkpoints::on`]): [`BUFFER`]
//! bytes are held beside them. A checkpoint is read twice: to check the hash before anything of it is believed, and then to
//! where its values stay ([`OpenCheckpoint`]).
//!
//! Files are named `checkpoint-N` with N growing; the two newest are kept, or as many as is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use protocol::content_hash::{content_hash, PieceHash, PIECE_BYTES};
use serde::{Deserialize, Serialize};

use crate::compute::threads::Threads;
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

/// Bytes that are hashed at a time, a piece on each thread.
pub const BUFFER: usize = 16 * PIECE_BYTES;

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
        let mut out = Hashing::new(file, self.threads.clone());
        let start = |out: &mut Hashing| {
            out.write_all(MAGIC)?;
            out.write_all(&(header.len() as u32).to_le_bytes())?;
            out.write_all(&header)
        };
        let end = |out: &mut Hashing| {
            let hash = out.finish()?;
            out.file.write_all(&hash)?;
            out.file.sync_all()
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
            match open(&path, config, &self.threads) {
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

/// Hashes what it is given, [`BUFFER`] bytes at a time on several threads.
struct Pieces {
    threads: Threads,
    hashes: Vec<PieceHash>,
    len: u64,
}

impl Pieces {
    fn new(threads: Threads) -> Self {
        Self { threads, hashes: Vec::new(), len: 0 }
    }

    /// The next bytes: whole pieces, but for the last time.
    fn add(&mut self, bytes: &[u8]) {
        let first = self.hashes.len();
        let pieces = self.threads.map(bytes.len().div_ceil(PIECE_BYTES), |index| {
            let start = index * PIECE_BYTES;
            let end = bytes.len().min(start + PIECE_BYTES);
            PieceHash::new((first + index) as u64, &bytes[start..end])
        });
        self.hashes.extend(pieces);
        self.len += bytes.len() as u64;
    }

    /// BLAKE3 of all bytes.
    fn finish(&self) -> io::Result<[u8; 32]> {
        content_hash(&self.hashes, self.len).ok_or_else(|| io::Error::other("pieces are missing"))
    }
}

/// Writes and hashes.
struct Hashing {
    file: File,
    buffer: Vec<u8>,
    pieces: Pieces,
}

impl Hashing {
    fn new(file: File, threads: Threads) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER), pieces: Pieces::new(threads) }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(part);
            bytes = rest;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pieces.add(&self.buffer);
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn values(&mut self, values: &[f32]) -> io::Result<()> {
        for block in values.chunks(BLOCK) {
            let mut bytes = [0u8; BLOCK * 4];
            let bytes = &mut bytes[..block.len() * 4];
            for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
                *bytes = value.to_le_bytes();
            }
            self.write_all(bytes)?;
        }
        Ok(())
    }

    /// Writes what is left; the hash of everything.
    fn finish(&mut self) -> io::Result<[u8; 32]> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        self.pieces.finish()
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

/// A checkpoint that has been checked and lies on disk still.
#[derive(Debug)]
pub struct OpenCheckpoint {
    path: PathBuf,
    header: Header,
    input: BufReader<File>,
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

    /// Reads the next values.
    pub(crate) fn read(&mut self, values: &mut [f32]) -> Result<(), CheckpointError> {
        read_values(&mut self.input, values).map_err(at(&self.path))
    }

    fn load(mut self) -> Result<Checkpoint, CheckpointError> {
        let (held, optimiser_step) = (self.held(), self.optimiser_step());
        let model = self.read_model()?;
        let lens = held.lens(&self.header.model).into_iter();
        let mut arrays: Vec<Vec<f32>> = lens.map(|len| vec![0.0; len]).collect();
        arrays.iter_mut().try_for_each(|values| self.read(values))?;
        let position = self.header.position;
        Ok(Checkpoint { position, model, optimiser_step, held, arrays })
    }
}

/// Opens and checks one file. The hash is checked before anything of the header is believed but its length.
fn open(path: &Path, config: &ModelConfig, threads: &Threads) -> Result<OpenCheckpoint, ReadError> {
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let mut file = OpenOptions::new().read(true).open(path)?;
    let len = file.metadata()?.len();
    let hashed_len = len.checked_sub(32).ok_or_else(|| damaged("too short"))?;
    let (_, header_bytes) = read_header(&mut file)?;
    let start = 12 + header_bytes.len() as u64;
    let values_len =
        hashed_len.checked_sub(start).ok_or_else(|| damaged("shorter than its header says"))?;

    file.seek(SeekFrom::Start(0))?;
    let mut pieces = Pieces::new(threads.clone());
    let mut buffer = Vec::new();
    while pieces.len < hashed_len {
        let count = (hashed_len - pieces.len).min(BUFFER as u64) as usize;
        buffer.resize(count, 0);
        file.read_exact(&mut buffer)?;
        pieces.add(&buffer);
    }
    let mut found = [0u8; 32];
    file.read_exact(&mut found)?;
    if pieces.finish()? != found {
        return Err(damaged("the hash does not match"));
    }
    let header: Header = serde_json::from_slice(&header_bytes)
        .map_err(|error| ReadError::Damaged(error.to_string()))?;
    if header.model != *config {
        return Err(ReadError::Shape);
    }
    // Nothing is allocated for more values than this model has.
    let values: usize = header.held().lens(config).iter().sum();
    if values_len != (config.parameter_count() + values as u64) * 4 {
        return Err(damaged("the header does not match the length"));
    }
    file.seek(SeekFrom::Start(start))?;
    let input = BufReader::with_capacity(BLOCK * 4, file);
    Ok(OpenCheckpoint { path: path.to_owned(), header, input })
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

fn read_values(input: &mut impl Read, values: &mut [f32]) -> io::Result<()> {
    let mut bytes = vec![0u8; BLOCK * 4];
    for block in values.chunks_mut(BLOCK) {
        let bytes = &mut bytes[..block.len() * 4];
        input.read_exact(bytes)?;
        for (value, bytes) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}
