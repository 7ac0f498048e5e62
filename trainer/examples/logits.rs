//! The logits of a model in a file, and the model written again: what checks/huggingface.py runs.
//!
//! `logits MODEL TOKEN,TOKEN,… LOGITS.f32 [FOLDER f32|bf16|f16 SHARD_BYTES]`

use std::fs;
use std::path::Path;

use dataset::{SampleSource, Tokens};
use trainer::files::{self, ExportSettings, ValueType};
use trainer::{Engine, Threads};

/// One text, each token of which is asked for.
struct One(Vec<u32>);

impl SampleSource for One {
    fn sample_len(&self) -> usize {
        self.0.len() - 1
    }

    fn sample_count(&self) -> u64 {
        1
    }

    fn sample(&self, _: u64) -> Option<Tokens<'_>> {
        Some(Tokens::U32(&self.0))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokens, out, rewritten @ ..] = arguments.as_slice() else {
        return Err("MODEL TOKEN,TOKEN,… LOGITS.f32 [FOLDER TYPE SHARD_BYTES]".into());
    };
    let mut tokens: Vec<u32> = tokens.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let (model, _) = files::open(Path::new(model))?;
    let positions = Some(model.config().seq_len);
    let model = model.with_seq_len(tokens.len())?;
    // The target of the last token, which the logits do not depend on.
    tokens.push(0);
    let mut engine = Engine::new(model.config(), 1, false, Threads::single())?;
    let logits = engine.logits(model.parameters(), &One(tokens), &[0])?;
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    fs::write(out, bytes)?;
    if let [folder, kind, shard_bytes] = rewritten {
        let values = match kind.as_str() {
            "bf16" => ValueType::Bf16,
            "f16" => ValueType::F16,
            _ => ValueType::F32,
        };
        let settings = ExportSettings {
            values,
            shard_bytes_max: shard_bytes.parse()?,
            positions,
            ..ExportSettings::default()
        };
        files::export(&model, Path::new(folder), &settings)?;
    }
    Ok(())
}
