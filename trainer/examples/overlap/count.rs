//! Counts how many positions chunks have in common, and prints the distributions.

use std::collections::BTreeMap;

use protocol::fault::is_telling;
use protocol::layout::Layout;
use protocol::update::{Chunk, Payload, UpdateError};
use trainer::config::Placed;

/// Values kept of 4096, as everywhere.
pub(crate) const KEEP: u16 = 64;

/// Shares are counted in parts of a thousand.
const PARTS: usize = 1000;

/// What an update keeps, chunk by chunk; `None` where a chunk proves nothing.
pub(crate) struct Places(Vec<Option<Chunk>>);

impl Places {
    pub(crate) fn of(bytes: &[u8], layout: &Layout) -> Result<Self, UpdateError> {
        let payload = Payload::parse(bytes, layout, KEEP)?;
        let mut chunk = Chunk::default();
        let mut places = Vec::new();
        for (index, place) in (0u32..).zip(layout.chunks()) {
            payload.decode_into(index, place.len, &mut chunk)?;
            let telling = is_telling(place.len, KEEP) && chunk.scale_bf16 != 0;
            places.push(telling.then(|| chunk.clone()));
        }
        Ok(Self(places))
    }
}

/// How many of the ascending `second` are among the ascending `first`.
fn common(first: &[u16], second: &[u16]) -> usize {
    second.iter().filter(|position| first.binary_search(position).is_ok()).count()
}

/// What a kind of tensor is called.
fn part_of(name: &str) -> &'static str {
    if name.contains("embed_tokens") {
        "embedding"
    } else if name.contains("lm_head") {
        "head"
    } else if name.contains("norm") {
        "norms"
    } else {
        "matrices"
    }
}

/// Shares of chunks, counted.
#[derive(Clone)]
struct Shares {
    counts: Vec<u64>,
    /// Chunks that are equal to the last bit.
    equal: u64,
}

impl Shares {
    fn new() -> Self {
        Self { counts: vec![0; PARTS + 1], equal: 0 }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least share that this part of the chunks does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.total() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.unwrap_or(PARTS) as f64 / PARTS as f64
    }

    /// The part of the chunks whose share is at least `share`.
    fn from(&self, share: f64) -> f64 {
        let first = (share * PARTS as f64).round() as usize;
        self.counts[first..].iter().sum::<u64>() as f64 / self.total().max(1) as f64
    }
}

/// Everything that is counted.
pub(crate) struct Tables {
    /// The kind of tensor of each chunk.
    parts: Vec<&'static str>,
    shares: BTreeMap<(String, &'static str), Shares>,
    /// Of a pair of updates: the median chunk's share, to say what a proof over many chunks would see.
    pairs: BTreeMap<String, Vec<f64>>,
    gains: BTreeMap<String, Vec<[f64; 2]>>,
}

impl Tables {
    pub(crate) fn new<'a>(tensors: impl Iterator<Item = &'a Placed>) -> Self {
        let chunk_len = protocol::layout::CHUNK_LEN as usize;
        let parts = tensors.flat_map(|tensor| {
            vec![part_of(&tensor.info.name); tensor.range.len().div_ceil(chunk_len)]
        });
        Self {
            parts: parts.collect(),
            shares: BTreeMap::new(),
            pairs: BTreeMap::new(),
            gains: BTreeMap::new(),
        }
    }

    /// Counts two updates of which the second would be the copy.
    pub(crate) fn count(&mut self, kind: &str, first: &Places, second: &Places) {
        let mut of_pair = Vec::new();
        for ((first, second), part) in first.0.iter().zip(&second.0).zip(&self.parts) {
            let Some((first, second)) = first.as_ref().zip(second.as_ref()) else {
                continue;
            };
            let (common, kept) = (common(&first.indices, &second.indices), second.indices.len());
            of_pair.push(common as f64 / kept as f64);
            // Rounded down, so that only equal positions are a whole.
            let share = common * PARTS / kept;
            let key = (kind.to_owned(), *part);
            let shares = self.shares.entry(key).or_insert_with(Shares::new);
            shares.counts[share] += 1;
            shares.equal += u64::from(first == second);
        }
        of_pair.sort_by(f64::total_cmp);
        let median = of_pair.get(of_pair.len() / 2).copied().unwrap_or(0.0);
        self.pairs.entry(kind.to_owned()).or_default().push(median);
    }

    /// Notes what an update gained, on own samples and on random ones.
    pub(crate) fn gain(&mut self, kind: &str, gain: [f64; 2]) {
        self.gains.entry(kind.to_owned()).or_default().push(gain);
    }

    pub(crate) fn print(&self) {
        println!("kind,tensors,chunks,median,p99,p999,max,from_half,from_three_quarters,all,equal");
        for ((kind, part), shares) in &self.shares {
            println!(
                "\"{kind}\",{part},{},{:.3},{:.3},{:.3},{:.3},{:.6},{:.6},{:.6},{:.6}",
                shares.total(),
                shares.quantile(0.5),
                shares.quantile(0.99),
                shares.quantile(0.999),
                shares.quantile(1.0),
                shares.from(0.5),
                shares.from(0.75),
                shares.from(1.0),
                shares.equal as f64 / shares.total() as f64,
            );
        }
        println!("\nkind,pairs,mean_of_median_chunk,largest_median_chunk,least_median_chunk");
        for (kind, medians) in &self.pairs {
            let mean = medians.iter().sum::<f64>() / medians.len() as f64;
            let largest = medians.iter().copied().fold(0.0, f64::max);
            let least = medians.iter().copied().fold(1.0, f64::min);
            println!("\"{kind}\",{},{mean:.3},{largest:.3},{least:.3}", medians.len());
        }
        println!(
            "\nkind,windows,gain_own,gain_random,of_honest_own,of_honest_random,own_above_random"
        );
        let mean = |gains: &[[f64; 2]], at: usize| {
            gains.iter().map(|gain| gain[at]).sum::<f64>() / gains.len() as f64
        };
        let honest =
            self.gains.get("honest").map_or([1.0; 2], |gains| [0, 1].map(|at| mean(gains, at)));
        for (kind, gains) in &self.gains {
            let [own, random] = [0, 1].map(|at| mean(gains, at));
            let above = gains.iter().filter(|[own, random]| own > random).count();
            println!(
                "\"{kind}\",{},{own:.5},{random:.5},{:.3},{:.3},{:.3}",
                gains.len(),
                own / honest[0],
                random / honest[1],
                above as f64 / gains.len() as f64,
            );
        }
    }
}
