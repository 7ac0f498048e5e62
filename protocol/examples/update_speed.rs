//! Measures the update format on this machine: bytes, error and speed for one core.
//!
//! ```text
//! cargo run --release -p gauntlet-protocol --example update_speed [-- portable]
//! ```

use std::time::Instant;

use protocol::{
    aggregate::{outer_step, OuterRule},
    layout::{Layout, CHUNK_LEN},
    settings::PPM,
    update::{assemble, chunk_values, decode_chunk, EncodedChunks, Encoder, Payload},
    variant::Variant,
};

/// Values encoded in a pass.
const VALUES: usize = 1 << 22;
/// Passes; the fastest counts.
const PASSES: usize = 25;

/// SplitMix64 with the shapes that pseudo-gradients have.
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    fn gauss(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn laplace(&mut self) -> f64 {
        -self.unit().ln() * if self.unit() < 0.5 { -1.0 } else { 1.0 }
    }

    fn student4(&mut self) -> f64 {
        let squares: f64 = (0..4).map(|_| self.gauss().powi(2)).sum();
        self.gauss() / (squares / 4.0).sqrt()
    }
}

/// Draws a number of some distribution.
type Draw = fn(&mut Noise) -> f64;

/// Seconds of the fastest of some passes.
fn fastest(mut pass: impl FnMut()) -> f64 {
    (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min)
}

fn main() {
    let portable = std::env::args().any(|argument| argument == "portable");
    let variant = match portable {
        true => Variant::PORTABLE,
        false => Variant::best(),
    };
    println!("the encoder with {} instructions", variant.name());
    let layout = Layout(vec![VALUES as u64]);
    let shapes: [(&str, Draw); 3] =
        [("gauss", Noise::gauss), ("laplace", Noise::laplace), ("student t 4", Noise::student4)];
    println!("values        k  bytes/chunk  bits/value  under f32  error  encode  +feedback  parse  root  step");
    for (name, draw) in shapes {
        let mut noise = Noise(1);
        let values: Vec<f32> = (0..VALUES).map(|_| (draw(&mut noise) * 1e-3) as f32).collect();
        let zeros = vec![0.0f32; VALUES];
        for keep in [32u16, 64, 128] {
            let mut encoder = Encoder::with_variant(variant);
            let mut residual = values.clone();
            let mut bytes = Vec::new();
            let encode = fastest(|| {
                residual.copy_from_slice(&values);
                bytes = encoder.encode(&mut [&mut residual], &layout, keep).expect("finite");
            }) - fastest(|| residual.copy_from_slice(&values));
            let full = fastest(|| {
                let mut part = EncodedChunks::default();
                encoder
                    .encode_difference(&mut residual, &values, &zeros, 0.95, keep, &mut part)
                    .expect("finite");
                assemble(&[part], &layout, keep).expect("all chunks");
            });
            let payload = Payload::parse(&bytes, &layout, keep).expect("ours");
            let parse = fastest(|| {
                std::hint::black_box(Payload::parse(&bytes, &layout, keep).expect("ours"));
            });
            let root = fastest(|| {
                std::hint::black_box(payload.root());
            });
            let mut theta = zeros.clone();
            let payloads = [(0, payload.clone()), (1, payload.clone())];
            let rule = OuterRule::new(PPM, PPM);
            let step = fastest(|| {
                outer_step(&mut [&mut theta], &layout, &payloads, rule).expect("ours");
            });
            let (mut error, mut energy) = (0.0, 0.0);
            for (index, chunk) in values.chunks(CHUNK_LEN as usize).enumerate() {
                let sent = payload.chunk(index as u32).expect("a chunk");
                let sent = decode_chunk(sent, CHUNK_LEN, keep).expect("ours");
                for (at, value) in chunk_values(&sent) {
                    error += f64::from(chunk[usize::from(at)] - value).powi(2);
                    energy += f64::from(chunk[usize::from(at)]).powi(2);
                }
            }
            let chunks = VALUES / CHUNK_LEN as usize;
            let speed = |seconds: f64| VALUES as f64 / seconds / 1e9;
            println!(
                "{name:<12} {keep:>3}  {:>11.2}  {:>10.2}  {:>8.1}x  {:>5.3}  {:>6.2}  {:>9.2}  {:>5.1}  {:>4.1}  {:>4.2}",
                bytes.len() as f64 / chunks as f64,
                bytes.len() as f64 * 8.0 / (chunks * usize::from(keep)) as f64,
                VALUES as f64 * 4.0 / bytes.len() as f64,
                error / energy,
                speed(encode),
                speed(full),
                speed(parse),
                speed(root),
                2.0 * speed(step),
            );
        }
    }
    println!(
        "speeds in G parameters/s on one core; step: an outer step of two updates, per update"
    );
}
