//! Writes what `gauntlet doctor --cuda` expects of a card: the emulator's results of its checks.

use std::path::Path;

use cuda_emulator::gpu::{Behaviour, Emulated};
use trainer::cuda::check;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Emulated::new(Behaviour::default());
    let mut outputs = Vec::new();
    for (name, results) in check::run(&gpu)? {
        outputs.extend(results.map_err(|error| format!("{name}: {error}"))?);
    }
    let bytes = check::to_bytes(&outputs);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/src/cuda/check/expected.bin");
    std::fs::write(&path, &bytes)?;
    println!("{} results, {} bytes: {}", outputs.len(), bytes.len(), path.display());
    Ok(())
}
