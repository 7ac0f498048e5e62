//! Lists what is compared: each arm is one way to train the same model on the same tokens.

/// How the peers work together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    /// Every step the mean of all gradients, one AdamW.
    DataParallel,
    /// H local AdamW steps, the dense mean of the differences, SGD with Nesterov's momentum.
    DiLoCo,
    /// Every step the largest of a decaying sum of gradients; the sign of their mean moves θ.
    DeMo,
    /// H local AdamW steps, error feedback, chunked top-k, quantised; plain SGD outside.
    SparseLoCo,
}

/// Which 4096 values of a matrix are a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// 4096 that follow each other row by row.
    Rows,
    /// A tile of 64 by 64.
    Tiles,
}

/// What is sent of a kept value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quantiser {
    /// Sign and one of two magnitudes, one scale a chunk: format 1.
    TwoBit,
    /// The sign, one scale a chunk.
    Sign,
    /// Four levels around the mean of a tensor, as the reference implementation of 2025.
    Reference,
    /// The value.
    F32,
}

/// By what the sum of the updates is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mean {
    /// The number of accepted updates.
    Accepted,
    /// For each coordinate, the number of updates that keep it.
    Senders,
}

/// Whether peers come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Churn {
    /// All stay.
    None,
    /// A peer leaves with probability 1/4 after a round, its place is empty in the next and then
    /// taken by one with a fresh optimiser and no error feedback.
    Leave,
    /// A quarter of the updates is not accepted, and lost.
    Late,
}

/// One way to train.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arm {
    /// Its name in tables and file rows; differs between any two arms.
    pub(crate) name: String,
    pub(crate) method: Method,
    /// Local steps of a round.
    pub(crate) steps: usize,
    /// Values kept of 4096.
    pub(crate) keep: u16,
    pub(crate) shape: Shape,
    pub(crate) quantiser: Quantiser,
    pub(crate) mean: Mean,
    pub(crate) churn: Churn,
    /// Learning rate of AdamW, or of the sign step.
    pub(crate) inner_rate: f32,
    /// Rate of the outer step.
    pub(crate) outer_rate: f32,
    /// What is left of the error feedback from one round to the next.
    pub(crate) decay: f32,
    /// Whether it serves only to choose rates: one seed.
    pub(crate) pilot: bool,
}

impl Arm {
    fn new(name: &str, method: Method) -> Self {
        let (steps, inner_rate, outer_rate) = match method {
            Method::DataParallel => (1, 4e-3, 1.0),
            Method::DiLoCo => (30, 4e-3, 0.7),
            Method::DeMo => (1, 8e-3, 1.0),
            Method::SparseLoCo => (30, 4e-3, 2.0),
        };
        Self {
            name: name.to_owned(),
            method,
            steps,
            keep: 64,
            shape: Shape::Rows,
            quantiser: Quantiser::TwoBit,
            mean: Mean::Accepted,
            churn: Churn::None,
            inner_rate,
            outer_rate,
            decay: 0.95,
            pilot: false,
        }
    }

    /// An arm of the search for rates.
    fn pilot(method: Method, inner_rate: f32, outer_rate: f32) -> Self {
        let name = format!("rates {method:?} {inner_rate} {outer_rate}");
        Self { inner_rate, outer_rate, pilot: true, ..Self::new(&name, method) }
    }
}

/// All arms, those that choose the rates last.
pub(crate) fn all() -> Vec<Arm> {
    let sparse = |name: &str| Arm::new(name, Method::SparseLoCo);
    let mut arms = vec![
        Arm::new("data parallel", Method::DataParallel),
        Arm::new("DiLoCo H30", Method::DiLoCo),
        Arm { steps: 15, ..Arm::new("DiLoCo H15", Method::DiLoCo) },
        Arm::new("DeMo-like k64", Method::DeMo),
    ];
    for steps in [30, 15, 5] {
        for keep in [64, 32, 128] {
            arms.push(Arm { steps, keep, ..sparse(&format!("SparseLoCo H{steps} k{keep}")) });
        }
    }
    arms.extend([
        Arm { shape: Shape::Tiles, ..sparse("H30 k64 tiles 64x64") },
        Arm { quantiser: Quantiser::F32, ..sparse("H30 k64 f32 values") },
        Arm { quantiser: Quantiser::Sign, ..sparse("H30 k64 sign only") },
        Arm { quantiser: Quantiser::Reference, ..sparse("H30 k64 reference 2 bit") },
        Arm { mean: Mean::Senders, outer_rate: 1.0, ..sparse("H30 k64 mean over senders") },
        Arm { decay: 0.99, ..sparse("H30 k64 decay 0.99") },
        Arm { outer_rate: 1.0, ..sparse("H30 k64 outer rate 1") },
        Arm { churn: Churn::Leave, ..sparse("H30 k64 peers leave and join") },
        Arm { churn: Churn::Late, ..sparse("H30 k64 a quarter late") },
    ]);
    for (inner, outer) in [(2e-3, 1.0), (8e-3, 1.0), (1.6e-2, 1.0)] {
        arms.push(Arm::pilot(Method::DataParallel, inner, outer));
    }
    for (inner, outer) in [(2e-3, 0.7), (8e-3, 0.7), (4e-3, 0.4), (4e-3, 1.0)] {
        arms.push(Arm::pilot(Method::DiLoCo, inner, outer));
    }
    for inner in [1e-3, 4e-3, 1.6e-2] {
        arms.push(Arm::pilot(Method::DeMo, inner, 1.0));
    }
    for (inner, outer) in [(2e-3, 1.0), (8e-3, 1.0), (4e-3, 0.7), (4e-3, 1.4), (4e-3, 4.0)] {
        arms.push(Arm::pilot(Method::SparseLoCo, inner, outer));
    }
    arms
}
