//! mma.m16n8k16 and ldmatrix against the tables of the PTX ISA, independent of the emulator's code.
//!
//! The formulas are those of PTX ISA 9.2, 9.7.14.5.8 "Matrix Fragments for mma.m16n8k16 with floating point type"
//! and 9.7.14.5.15 "ldmatrix", with the names they have there: `groupID` = lane >> 2, `threadID_in_group` = lane % 4, and
//! element i of a fragment is the low half of register i / 2 where i is even.

use crate::probe::{start, FRAGMENTS, SOURCE};
use cuda_emulator::{agree_in_all_orders, Case};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::Argument;

/// Row and column in A (16, 16) of ai: row = groupID for 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise;
/// col = threadID_in_group * 2 + (i & 1) for i < 4, + 8 for i >= 4.
fn of_a(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
    let column = thread * 2 + (i & 1);
    (row, if i < 4 { column } else { column + 8 })
}

/// Row and column in B (16, 8) of bi: row = threadID_in_group * 2 + (i & 1) for i < 2, + 8 for i >= 2; col = groupID.
fn of_b(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = thread * 2 + (i & 1);
    (if i < 2 { row } else { row + 8 }, group)
}

/// Row and column in C and D (16, 8) of ci: row = groupID for i < 2, groupID + 8 for i >= 2;
/// col = threadID_in_group * 2 + (i & 1).
fn of_d(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

fn bf16(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}

/// Small whole numbers, so that every sum of products is exact in any order.
fn matrix(random: &mut ChaCha8Rng, rows: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..rows).map(|_| (0..columns).map(|_| random.gen_range(-64..=64) as f32).collect()).collect()
}

/// A fragment's registers for all lanes: pairs of elements, the even one low.
fn registers(elements: usize, at: impl Fn(usize, usize) -> f32) -> Vec<u32> {
    let mut all = Vec::new();
    for lane in 0..32 {
        for i in (0..elements).step_by(2) {
            all.push(u32::from(bf16(at(lane, i))) | u32::from(bf16(at(lane, i + 1))) << 16);
        }
    }
    all
}

#[test]
fn every_element_of_a_matrix_is_in_one_place() {
    let places = |elements: usize, of: fn(usize, usize) -> (usize, usize)| {
        let mut all: Vec<_> =
            (0..32).flat_map(|lane| (0..elements).map(move |i| of(lane, i))).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    assert_eq!((places(8, of_a), places(4, of_b), places(4, of_d)), (256, 128, 128));
}

#[test]
fn mma_and_ldmatrix_have_the_layouts_of_the_ptx_isa() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let (a, b, c) =
        (matrix(&mut random, 16, 16), matrix(&mut random, 16, 8), matrix(&mut random, 16, 8));
    // Four matrices of 8 rows of 8 values, all different.
    let rows: Vec<u16> = (0..256).map(|i| i * 251 + 7).collect();
    let mut case = Case::with_source(SOURCE);
    let from_a = case.input(
        "a",
        &registers(8, |lane, i| {
            let (row, column) = of_a(lane, i);
            a[row][column]
        }),
    );
    let from_b = case.input(
        "b",
        &registers(4, |lane, i| {
            let (row, column) = of_b(lane, i);
            b[row][column]
        }),
    );
    let sums: Vec<f32> = (0..128)
        .map(|at| {
            let (row, column) = of_d(at / 4, at % 4);
            c[row][column]
        })
        .collect();
    let d = case.output("d", &sums);
    let from_rows = case.input("rows", &rows);
    let (plain, transposed) = (case.fresh("plain", 512), case.fresh("transposed", 512));
    let arguments = [from_a, from_b, d, from_rows, plain, transposed].map(Argument::Address);
    case.launch(start(&FRAGMENTS, 1, 0, &arguments)).unwrap();
    let outcome = agree_in_all_orders(&case).unwrap();

    for (at, found) in outcome.values::<f32>("d").into_iter().enumerate() {
        let (row, column) = of_d(at / 4, at % 4);
        let expected = (0..16).map(|k| a[row][k] * b[k][column]).sum::<f32>() + c[row][column];
        assert_eq!(found, expected, "lane {}, c{}", at / 4, at % 4);
    }
    // Addresses of matrix m come from lanes 8 m to 8 m + 7, a row each. Of each matrix register m of a lane holds
    // row lane / 4, columns 2 (lane % 4) and the next: the layout of a fragment of 8 x 8; with .trans, of the
    // transposed matrix.
    let value =
        |matrix: usize, row: usize, column: usize| u32::from(rows[matrix * 64 + row * 8 + column]);
    let (plain, transposed) = (outcome.values::<u32>("plain"), outcome.values::<u32>("transposed"));
    for lane in 0..32 {
        for matrix in 0..4 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            let expected = value(matrix, row, column) | value(matrix, row, column + 1) << 16;
            assert_eq!(plain[lane * 4 + matrix], expected, "lane {lane}, register {matrix}");
            let expected = value(matrix, column, row) | value(matrix, column + 1, row) << 16;
            assert_eq!(
                transposed[lane * 4 + matrix],
                expected,
                "lane {lane}, register {matrix} transposed"
            );
        }
    }
}
