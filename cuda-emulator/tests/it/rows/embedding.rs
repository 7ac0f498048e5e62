use super::*;
use trainer::cuda::kernels::embedding::{embed, embed_gradient, Embed, EmbedGradient};
use trainer::cuda::Stream::Compute;

const VOCAB: usize = 11;

/// Tokens of which one is frequent and some are not there.
fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| if i % 3 == 0 { 4 } else { u32_of(i * i % VOCAB) }).collect()
}

fn embed_case(tokens: &[u32], table: &[u16]) -> Case {
    let (count, width) = (tokens.len(), table.len() / VOCAB);
    let mut case = Case::new();
    let of = Embed {
        tokens: case.input("tokens", tokens),
        table: case.input("table", table),
        out: case.fresh("out", count * width * 2),
        count: u32_of(count),
        width: u32_of(width),
    };
    case.launch(|gpu| embed(gpu, Compute, &of)).unwrap();
    case
}

#[test]
fn each_token_gets_its_row() {
    for (count, width) in [(1, 8), (9, 128), (5, 1408), (2, 14336)] {
        let (tokens, table) = (tokens(count), random_bf16(1, VOCAB * width, 1.0));
        let out: Vec<u16> = settled(&embed_case(&tokens, &table)).values("out");
        for (row, token) in out.chunks_exact(width).zip(&tokens) {
            assert_eq!(row, &table[*token as usize * width..][..width]);
        }
    }
}

/// The gradient of the table, and what it is to the bit.
fn gradient_case(count: usize, width: usize) -> (Case, Vec<f32>) {
    let tokens = tokens(count);
    let d_out = random_bf16(2, count * width, 1.0);
    let before = random(3, VOCAB * width, 3.0);
    let mut order: Vec<u32> = (0..u32_of(count)).collect();
    order.sort_by_key(|position| tokens[*position as usize]);
    let token = |at: usize| tokens[order[at] as usize];
    let mut firsts: Vec<u32> =
        (0..count).filter(|at| *at == 0 || token(*at) != token(at - 1)).map(u32_of).collect();
    let ids: Vec<u32> = firsts.iter().map(|first| token(*first as usize)).collect();
    firsts.push(u32_of(count));

    let mut expected = before.clone();
    for id in 0..VOCAB {
        let mut sum = vec![0.0_f32; width];
        for (row, _) in
            d_out.chunks_exact(width).zip(&tokens).filter(|(_, token)| **token as usize == id)
        {
            sum.iter_mut().zip(widen(row)).for_each(|(sum, value)| *sum += value);
        }
        expected[id * width..].iter_mut().zip(&sum).for_each(|(value, sum)| *value += sum);
    }
    let mut case = Case::new();
    let of = EmbedGradient {
        order: case.input("order", &order),
        firsts: case.input("firsts", &firsts),
        ids: case.input("ids", &ids),
        d_out: case.input("d_out", &d_out),
        gradient: case.output("gradient", &before),
        distinct: u32_of(ids.len()),
        width: u32_of(width),
    };
    case.launch(|gpu| embed_gradient(gpu, Compute, &of)).unwrap();
    (case, expected)
}

#[test]
fn the_gradient_of_the_table_is_summed_in_the_order_of_tokens() {
    for (count, width) in [(1, 8), (40, 128), (21, 352), (30, 1416)] {
        let (case, expected) = gradient_case(count, width);
        assert_eq!(settled(&case).values::<f32>("gradient"), expected, "width {width}");
    }
}

#[test]
fn nothing_is_read_or_written_outside() {
    clean(&embed_case(&tokens(3), &random_bf16(1, VOCAB * 352, 1.0)));
    clean(&gradient_case(13, 352).0);
}

#[test]
fn planted_bugs_are_found() {
    found(&gradient_case(21, 352).0, &["BUG_EMBED_RAGGED"]);
}
