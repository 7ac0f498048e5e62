use super::*;
use trainer::cuda::kernels::rows::{
    rotate, swiglu, swiglu_backward, Rotate, Swiglu, SwigluBackward, Turn,
};
use trainer::cuda::Stream::Compute;

/// Two samples and a bit of a third; two heads that turn and one that does not.
const SEQ_LEN: usize = 5;
const TOKENS: usize = 12;
const TURNED: usize = 2;

fn angles(head_dim: usize) -> Vec<f32> {
    random(1, SEQ_LEN * head_dim / 2, 3.0)
}

fn rotate_case(head_dim: usize, rows: &[u16], turns: &[Turn]) -> Case {
    let part = |f: fn(f32) -> f32| angles(head_dim).into_iter().map(f).collect::<Vec<f32>>();
    let mut case = Case::new();
    let qkv = case.output("qkv", rows);
    let (cos, sin) = (case.input("cos", &part(f32::cos)), case.input("sin", &part(f32::sin)));
    for turn in turns {
        let of = Rotate {
            qkv,
            cos,
            sin,
            tokens: u32_of(TOKENS),
            seq_len: u32_of(SEQ_LEN),
            heads: u32_of(TURNED),
            head_dim: u32_of(head_dim),
            stride: u32_of(rows.len() / TOKENS),
            turn: *turn,
        };
        case.launch(|gpu| rotate(gpu, Compute, &of)).unwrap();
    }
    case
}

#[test]
fn pairs_turn_by_the_angle_of_their_position() {
    for head_dim in [16, 32, 64, 128] {
        let stride = (TURNED + 1) * head_dim;
        let rows = random_bf16(2, TOKENS * stride, 1.0);
        let angles = angles(head_dim);
        for (turn, sign) in [(Turn::Forward, 1.0), (Turn::Back, -1.0)] {
            let mut expected = exact(&rows);
            for (token, row) in expected.chunks_exact_mut(stride).enumerate() {
                for head in row.chunks_exact_mut(head_dim).take(TURNED) {
                    for i in 0..head_dim / 2 {
                        let angle = angles[token % SEQ_LEN * head_dim / 2 + i];
                        let (sin, cos) = (f64::from(angle.sin()) * sign, f64::from(angle.cos()));
                        let (a, b) = (head[i], head[i + head_dim / 2]);
                        (head[i], head[i + head_dim / 2]) = (a * cos - b * sin, b * cos + a * sin);
                    }
                }
            }
            let turned: Vec<u16> = settled(&rotate_case(head_dim, &rows, &[turn])).values("qkv");
            close("turned", widen(&turned), &expected, BF16);
            for (after, before) in turned.chunks_exact(stride).zip(rows.chunks_exact(stride)) {
                assert_eq!(after[TURNED * head_dim..], before[TURNED * head_dim..]);
            }
        }
        let both = rotate_case(head_dim, &rows, &[Turn::Forward, Turn::Back]);
        let there_and_back: Vec<u16> = settled(&both).values("qkv");
        close("there and back", widen(&there_and_back), &exact(&rows), 2.0 * BF16);
    }
}

/// Gates of all sizes: those beyond where an exponential overflows, too.
fn gates_and_ups(tokens: usize, ffn: usize) -> Vec<u16> {
    let mut rows = random(3, tokens * 2 * ffn, 2.0);
    for (value, gate) in
        rows.iter_mut().step_by(7).zip([-200.0, -89.0, -20.0, 0.0, -0.0, 20.0, 89.0, 3e38, -3e38])
    {
        *value = gate;
    }
    narrow(&rows)
}

fn swiglu_case(rows: &[u16], d_h: &[u16], ffn: usize, in_place: bool) -> Case {
    let (tokens, bytes) = (u32_of(d_h.len() / ffn), d_h.len() * 2);
    let ffn = u32_of(ffn);
    let mut case = Case::new();
    let gate_up = case.output("gate_up", rows);
    let of = Swiglu { gate_up, h: case.fresh("h", bytes), tokens, ffn };
    case.launch(|gpu| swiglu(gpu, Compute, &of)).unwrap();
    let d_gate_up = if in_place { gate_up } else { case.fresh("d_gate_up", rows.len() * 2) };
    let (d_h, h) = (case.input("d_h", d_h), case.fresh("again", bytes));
    let of = SwigluBackward { gate_up, d_h, h, d_gate_up, tokens, ffn };
    case.launch(|gpu| swiglu_backward(gpu, Compute, &of)).unwrap();
    case
}

#[test]
fn swiglu_and_its_gradient_are_those_of_their_formulas() {
    for (tokens, ffn) in [(3, 8), (5, 128), (2, 352), (3, 1408), (1, 14336)] {
        let rows = gates_and_ups(tokens, ffn);
        let d_h = random_bf16(4, tokens * ffn, 1.0);
        let (mut h, mut d_rows) = (Vec::new(), Vec::new());
        for (row, d_h) in exact(&rows).chunks_exact(2 * ffn).zip(exact(&d_h).chunks_exact(ffn)) {
            let (gate, up) = row.split_at(ffn);
            let sigmoid: Vec<f64> = gate.iter().map(|gate| 1.0 / (1.0 + (-gate).exp())).collect();
            h.extend((0..ffn).map(|i| gate[i] * sigmoid[i] * up[i]));
            d_rows.extend((0..ffn).map(|i| {
                // 1 − sigmoid without what is lost where it is next to 1.
                let rest = 1.0 / (1.0 + gate[i].exp());
                d_h[i] * up[i] * sigmoid[i] * (1.0 + gate[i] * rest)
            }));
            d_rows.extend((0..ffn).map(|i| d_h[i] * gate[i] * sigmoid[i]));
        }
        let outcome = settled(&swiglu_case(&rows, &d_h, ffn, false));
        let within = |what: &str, found: Vec<f32>, expected: &[f64]| {
            // The largest would hide the others.
            let small: Vec<usize> =
                (0..expected.len()).filter(|i| expected[*i].abs() < 1e3).collect();
            let pick = small.iter().map(|i| found[*i]);
            close(what, pick, &small.iter().map(|i| expected[*i]).collect::<Vec<f64>>(), BF16);
            let large = (0..expected.len())
                .filter(|i| expected[*i].abs() >= 1e3 && expected[*i].abs() < 3.3e38);
            large.for_each(|i| {
                assert!((f64::from(found[i]) / expected[i] - 1.0).abs() < 1e-2, "{what} {i}")
            });
        };
        within("h", widen(&outcome.values::<u16>("h")), &h);
        within("d_gate_up", widen(&outcome.values::<u16>("d_gate_up")), &d_rows);
        assert_eq!(outcome.bytes("again"), outcome.bytes("h"));

        let in_place = settled(&swiglu_case(&rows, &d_h, ffn, true));
        assert_eq!(in_place.bytes("gate_up"), outcome.bytes("d_gate_up"));
    }
}

#[test]
fn nothing_is_read_or_written_outside() {
    let rows = random_bf16(2, TOKENS * 3 * 32, 1.0);
    clean(&rotate_case(32, &rows, &[Turn::Forward]));
    clean(&swiglu_case(&gates_and_ups(2, 352), &random_bf16(4, 2 * 352, 1.0), 352, false));
}

#[test]
fn planted_bugs_are_found() {
    let rows = random_bf16(2, TOKENS * 3 * 32, 1.0);
    found(&rotate_case(32, &rows, &[Turn::Forward]), &["BUG_ROTATE_POSITION"]);
}
