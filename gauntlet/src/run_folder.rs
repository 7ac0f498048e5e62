//! Reads and writes a run folder's description of itself, which is enough to audit it.

use std::path::Path;

use anyhow::{bail, Context, Result};
use protocol::RunId;
use serde::{Deserialize, Serialize};

/// Name of the file in a run folder.
pub const FILE_NAME: &str = "run.json";

/// Folder of the chain's database in a run folder.
pub const CHAIN_FOLDER: &str = "chain";

/// Folder of the payload archive in a run folder.
pub const PAYLOADS_FOLDER: &str = "payloads";

/// Folder of logs in a run folder.
pub const LOGS_FOLDER: &str = "logs";

/// Version of the file.
const VERSION: u32 = 1;

/// A run folder's description.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// Version of this format.
    pub version: u32,
    /// The chain's genesis hash.
    pub genesis: String,
    /// The run on that chain.
    pub run: RunId,
    /// The model: a preset's name.
    pub model: String,
    /// Windows that were trained.
    pub windows: u64,
}

impl RunFile {
    /// A description of the current version.
    pub fn new(genesis: &protocol::Hash, run: RunId, model: &str, windows: u64) -> Self {
        let genesis = format!("0x{}", hex::encode(genesis));
        Self { version: VERSION, genesis, run, model: model.to_owned(), windows }
    }

    /// Writes it into `folder`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it from `folder`.
    ///
    /// # Errors
    /// It is not there, or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let bytes = std::fs::read(&path).with_context(|| {
            format!("{} is not a run folder: cannot read {FILE_NAME}", folder.display())
        })?;
        let file: Self =
            serde_json::from_slice(&bytes).with_context(|| format!("in {}", path.display()))?;
        if file.version != VERSION {
            bail!("{} has version {}, not {VERSION}", path.display(), file.version);
        }
        Ok(file)
    }
}
