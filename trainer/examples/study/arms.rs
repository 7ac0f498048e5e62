//! Lists what is compared: each arm is one way to train the same model on the same tokens.

use std::ops::RangeInclusive;

/// Which model, on how many tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// 115 thousand parameters, eight peers, 3600 steps of each.
    Small,
    /// The same for 1800 steps.
    Brief,
    /// The same for 9000 steps: 600 rounds of 15 steps, 300 of 30.
    Long,
    /// A million parameters in ten layers, four peers, 4500 steps of each: 300 rounds of 15 steps.
    Large,
    /// The same for 1200 steps, to choose rates.
    LargeShort,
}

impl Size {
    /// Steps of every peer: a multiple of each H.
    pub(crate) fn steps(self) -> usize {
        match self {
            Self::Small => 3600,
            Self::Brief => 1800,
            Self::Long => 9000,
            Self::Large => 4500,
            Self::LargeShort => 1200,
        }
    }

    /// Peers of a run.
    pub(crate) fn peers(self) -> usize {
        match self {
            Self::Small | Self::Brief | Self::Long => 8,
            Self::Large | Self::LargeShort => 4,
        }
    }
}

/// How the peers work together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Method {
    /// Every step the mean of all gradients, one optimiser.
    DataParallel,
    /// H local steps, the dense mean of the differences, SGD with Nesterov's momentum.
    DiLoCo,
    /// Every step the largest of a decaying sum of gradients; the sign of their mean moves θ.
    DeMo,
    /// H local steps, error feedback, chunked top-k, quantised; plain SGD outside.
    SparseLoCo,
}

/// What takes the local steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inner {
    /// AdamW on every tensor.
    AdamW,
    /// Muon on the layers' matrices, AdamW on the rest.
    Muon,
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

/// Whether peers come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Churn {
    /// All stay.
    None,
    /// A peer leaves with probability 1/4 after a round, its place is empty in the next and then
    /// taken by one without error feedback, whose optimiser starts as [`Joining`] says.
    Leave(Joining),
    /// A quarter of the updates is not accepted, and lost.
    Late,
}

/// How the optimiser of a peer starts that takes an empty place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Joining {
    /// Afresh.
    Fresh,
    /// Afresh, its rate rising over its first round.
    WarmUp,
    /// Afresh, with a third of the steps in its first round.
    FewSteps,
    /// With the averages of another peer.
    State,
}

/// What some of the peers, the last ones, do instead of their work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Adversaries {
    /// There are none.
    None,
    /// So many send their update with the opposite sign.
    Opposite(usize),
    /// So many send, with the opposite sign and in full size, places that their update does not keep,
    /// all the same ones: where few others send.
    Apart(usize),
}

impl Adversaries {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Opposite(count) | Self::Apart(count) => count,
        }
    }
}

/// How the outer rate changes over the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OuterSchedule {
    Flat,
    /// Rises over the first tenth.
    WarmUp,
    /// Falls linearly to a quarter over the second half.
    Decay,
}

/// Whether a round's updates travel while the next round trains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overlap {
    /// They are applied before it.
    None,
    /// They are applied after it: it trains from θ without them.
    OneRound,
    /// The same, but each peer trains from θ with its own part of them (eager, as DiLoCo's overlapped variant).
    Eager,
    /// Each peer begins from θ with its own part of them, and moves to where they bring θ after so many steps: what it sends is
    /// the difference to the new θ.
    Arriving(usize),
}

/// Learning rates.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rates {
    /// Of the layers' matrices: Muon's, AdamW's or of the sign step.
    pub(crate) matrices: f32,
    /// Of embedding and norms: AdamW's.
    pub(crate) rest: f32,
    /// Of the outer step.
    pub(crate) outer: f32,
}

/// What a run is for, and so with which seeds it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To choose the rates.
    Search,
    /// To be compared, with rates that were chosen before and seeds that served for no choice.
    Compare,
    /// To see what else makes a difference.
    Explore,
}

impl Purpose {
    pub(crate) fn seeds(self) -> RangeInclusive<u64> {
        match self {
            Self::Search => 1..=1,
            Self::Compare => 11..=15,
            Self::Explore => 1..=2,
        }
    }
}

/// One way to train.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arm {
    /// Its name in tables and file rows; differs between any two arms.
    pub(crate) name: String,
    pub(crate) purpose: Purpose,
    pub(crate) size: Size,
    pub(crate) method: Method,
    pub(crate) inner: Inner,
    /// Local steps of a round.
    pub(crate) steps: usize,
    /// Values kept of 4096.
    pub(crate) keep: u16,
    pub(crate) shape: Shape,
    pub(crate) quantiser: Quantiser,
    /// c of max(senders, c · accepted), by which a place's sum is divided.
    pub(crate) senders_min: f32,
    pub(crate) churn: Churn,
    pub(crate) adversaries: Adversaries,
    pub(crate) rates: Rates,
    pub(crate) outer_schedule: OuterSchedule,
    /// What is left of the error feedback from one round to the next.
    pub(crate) decay: f32,
    /// Where the cosine of the inner rates ends, as a part of their peak.
    pub(crate) floor: f32,
    /// Decay of Muon's momentum.
    pub(crate) momentum: f32,
    /// Rounds at the end in which nobody trains and all send what their error feedback still holds.
    pub(crate) flushes: usize,
    /// Whether the result is that of an average over the last rounds' parameters, not of the last ones.
    pub(crate) averaged: bool,
    /// Whether a peer's local steps start where its error feedback would bring θ, not at θ.
    pub(crate) ahead: bool,
    pub(crate) overlap: Overlap,
}

/// Rates that were chosen by the search, of which the study's text tells.
const fn chosen(size: Size, method: Method, inner: Inner, steps: usize) -> Rates {
    let (matrices, rest, outer) = match (method, inner, steps, size) {
        (Method::DataParallel, Inner::AdamW, _, Size::Large) => (1e-3, 1.6e-2, 1.0),
        (Method::DataParallel, Inner::AdamW, _, _) => (2e-3, 1.6e-2, 1.0),
        (Method::DataParallel, Inner::Muon, _, _) => (2e-3, 8e-3, 1.0),
        (Method::DeMo, ..) => (8e-3, 8e-3, 1.0),
        (Method::DiLoCo, ..) => (4e-3, 4e-3, 0.7),
        (Method::SparseLoCo, Inner::AdamW, _, _) => (4e-3, 4e-3, 2.0),
        (Method::SparseLoCo, Inner::Muon, 30, _) => (3e-3, 8e-3, 3.0),
        (Method::SparseLoCo, Inner::Muon, _, _) => (3e-3, 8e-3, 2.0),
    };
    Rates { matrices, rest, outer }
}

impl Arm {
    fn new(name: &str, method: Method, inner: Inner, steps: usize) -> Self {
        Self {
            name: name.to_owned(),
            purpose: Purpose::Explore,
            size: Size::Small,
            method,
            inner,
            steps,
            keep: 64,
            shape: Shape::Rows,
            quantiser: Quantiser::TwoBit,
            senders_min: 1.0,
            churn: Churn::None,
            adversaries: Adversaries::None,
            rates: chosen(Size::Small, method, inner, steps),
            outer_schedule: OuterSchedule::Flat,
            decay: 0.95,
            floor: 0.1,
            momentum: 0.95,
            flushes: 0,
            averaged: false,
            ahead: false,
            overlap: Overlap::None,
        }
    }

    /// The same at other rates, to choose among them.
    fn search(self, (matrices, rest, outer): (f32, f32, f32)) -> Self {
        let size = if self.size == Size::LargeShort { "large " } else { "" };
        let name = format!("search {size}{} {matrices} {rest} {outer}", self.name);
        let rates = Rates { matrices, rest, outer };
        Self { name, purpose: Purpose::Search, rates, ..self }
    }

    /// The same at another size, to be compared.
    fn compared(self, size: Size) -> Self {
        let name = format!("{size:?}: {}", self.name).to_lowercase();
        let rates = chosen(size, self.method, self.inner, self.steps);
        Self { name, purpose: Purpose::Compare, size, rates, ..self }
    }
}

/// All arms.
pub(crate) fn all() -> Vec<Arm> {
    let mut arms = searches();
    arms.extend(compared());
    arms.extend(explored());
    arms.extend(adversaries());
    arms.extend(overlapped());
    arms.extend(others());
    arms
}

/// As many settings for each of the arms that are compared, all on the first seed: nine in a grid and three around the
/// best of them, and five and three for the larger model.
fn searches() -> Vec<Arm> {
    use Inner::{AdamW, Muon};
    use Method::{DataParallel, SparseLoCo};
    let mut arms = Vec::new();
    let mut look = |arm: Arm, rates: &[(f32, f32, f32)]| {
        arms.extend(rates.iter().map(|rates| arm.clone().search(*rates)));
    };
    let parallel = |matrices: [f32; 3]| {
        matrices.map(|matrices| [4e-3, 8e-3, 1.6e-2].map(|rest| (matrices, rest, 1.0))).concat()
    };
    let sparse =
        || [3e-3, 5e-3, 8e-3].map(|matrices| [1.4, 2.0, 3.0].map(|o| (matrices, 8e-3, o))).concat();
    let adamw = Arm::new("AdamW", DataParallel, AdamW, 1);
    let muon = Arm::new("Muon", DataParallel, Muon, 1);
    let h15 = Arm::new("SL Muon H15", SparseLoCo, Muon, 15);
    let h30 = Arm::new("SL Muon H30", SparseLoCo, Muon, 30);
    look(adamw.clone(), &parallel([2e-3, 4e-3, 8e-3]));
    look(adamw.clone(), &[(1e-3, 1.6e-2, 1.0), (2e-3, 3.2e-2, 1.0), (1e-3, 3.2e-2, 1.0)]);
    look(h15.clone(), &sparse());
    look(h15.clone(), &[(2e-3, 8e-3, 2.0), (2e-3, 8e-3, 3.0), (3e-3, 1.6e-2, 2.0)]);
    let large = |arm: Arm| Arm { size: Size::LargeShort, ..arm };
    look(
        large(adamw),
        &[
            (1e-3, 8e-3, 1.0),
            (2e-3, 8e-3, 1.0),
            (2e-3, 1.6e-2, 1.0),
            (4e-3, 8e-3, 1.0),
            (4e-3, 1.6e-2, 1.0),
            (5e-4, 8e-3, 1.0),
            (1e-3, 4e-3, 1.0),
            (1e-3, 1.6e-2, 1.0),
        ],
    );
    look(
        large(h15),
        &[
            (2e-3, 8e-3, 2.0),
            (3e-3, 8e-3, 2.0),
            (3e-3, 8e-3, 3.0),
            (5e-3, 8e-3, 2.0),
            (3e-3, 1.6e-2, 2.0),
            (1e-3, 8e-3, 2.0),
            (1e-3, 8e-3, 3.0),
            (2e-3, 8e-3, 3.0),
        ],
    );
    look(h30.clone(), &sparse());
    look(h30, &[(2e-3, 8e-3, 3.0), (2e-3, 8e-3, 4.0), (3e-3, 8e-3, 4.0)]);
    look(muon, &parallel([1e-3, 2e-3, 4e-3]));
    arms
}

/// What the aims are about, with rates that the search chose.
fn compared() -> Vec<Arm> {
    use Inner::{AdamW, Muon};
    use Method::{DataParallel, SparseLoCo};
    let mut arms = Vec::new();
    for size in [Size::Long, Size::Large] {
        let quarter = Arm::new("SparseLoCo Muon H15 over a quarter", SparseLoCo, Muon, 15);
        let mut quarter = Arm { senders_min: 0.25, ..quarter.compared(size) };
        quarter.rates.outer *= 0.5;
        arms.extend([
            Arm::new("data parallel AdamW", DataParallel, AdamW, 1).compared(size),
            Arm::new("SparseLoCo Muon H15", SparseLoCo, Muon, 15).compared(size),
            quarter,
        ]);
    }
    arms.extend([
        Arm::new("SparseLoCo Muon H30", SparseLoCo, Muon, 30).compared(Size::Long),
        Arm::new("data parallel Muon", DataParallel, Muon, 1).compared(Size::Long),
        Arm::new("SparseLoCo AdamW H15", SparseLoCo, AdamW, 15).compared(Size::Long),
        Arm::new("SparseLoCo AdamW H30", SparseLoCo, AdamW, 30).compared(Size::Long),
    ]);
    arms
}

/// SparseLoCo with Muon and H = 15, for fewer steps.
fn brief(name: &str) -> Arm {
    let arm = Arm::new(&format!("brief Muon H15{name}"), Method::SparseLoCo, Inner::Muon, 15);
    Arm { size: Size::Brief, ..arm }
}

/// What joiners cost, and whatever else might make a difference.
fn explored() -> Vec<Arm> {
    let parallel = |name: &str, averaged| {
        let arm = Arm::new(name, Method::DataParallel, Inner::AdamW, 1);
        Arm { size: Size::Brief, averaged, ..arm }
    };
    let mut arms = vec![
        brief(""),
        parallel("brief data parallel AdamW", false),
        parallel("brief data parallel AdamW averaged at the end", true),
        Arm { averaged: true, ..brief(" averaged at the end") },
        Arm { floor: 0.0, ..brief(" rates fall to 0") },
        Arm { flushes: 20, ..brief(" with 20 rounds to flush") },
        Arm { momentum: 0.98, ..brief(" momentum 0.98") },
        Arm { decay: 0.99, ..brief(" decay 0.99") },
        Arm { ahead: true, ..brief(" from ahead") },
        Arm { outer_schedule: OuterSchedule::WarmUp, ..brief(" outer rate rises") },
        Arm { outer_schedule: OuterSchedule::Decay, ..brief(" outer rate falls") },
        Arm { churn: Churn::Late, ..brief(" a quarter late") },
    ];
    for (name, joining) in [
        (" joiners afresh", Joining::Fresh),
        (" joiners warm up", Joining::WarmUp),
        (" joiners with few steps", Joining::FewSteps),
        (" joiners with a peer's state", Joining::State),
    ] {
        arms.push(Arm { churn: Churn::Leave(joining), ..brief(name) });
    }
    arms
}

/// What adversaries do under each divisor of the sum, at the outer rate that gives steps of about the same length.
fn adversaries() -> Vec<Arm> {
    let kinds = [
        ("", Adversaries::None),
        (" with one of 8 apart", Adversaries::Apart(1)),
        (" with two of 8 apart", Adversaries::Apart(2)),
        (" with two of 8 opposite", Adversaries::Opposite(2)),
    ];
    let mut arms = Vec::new();
    for (rule, senders_min, part) in
        [("accepted", 1.0, 1.0), ("a quarter", 0.25, 0.5), ("senders", 0.0, 0.5)]
    {
        for (name, adversaries) in kinds {
            let mut arm = brief(&format!(" over {rule}{name}"));
            arm.rates.outer *= part;
            arms.push(Arm { adversaries, senders_min, ..arm });
        }
    }
    arms
}

/// What it costs that the exchange of a round goes on while the next one trains: a few outer rates on the seeds for choices, then
/// two of them at the long runs' size; and twice the local steps, which halve the exchange.
fn overlapped() -> Vec<Arm> {
    let mut arms = Vec::new();
    for (name, overlap) in [("overlapped", Overlap::OneRound), ("eager", Overlap::Eager)] {
        for outer in [0.7, 1.0, 1.4, 2.0] {
            let mut arm = brief(&format!(" {name} outer {outer}"));
            arm.rates.outer = outer;
            arms.push(Arm { overlap, ..arm });
        }
    }
    for (steps, outer) in [(5, 2.0), (10, 1.4), (10, 2.0), (15, 1.4), (15, 2.0)] {
        let mut arm = brief(&format!(" arriving after {steps} outer {outer}"));
        arm.rates.outer = outer;
        arms.push(Arm { overlap: Overlap::Arriving(steps), ..arm });
    }
    for (name, overlap) in [("arriving after 10", Overlap::Arriving(10)), ("eager", Overlap::Eager)]
    {
        let arm =
            Arm::new(&format!("SparseLoCo Muon H15 {name}"), Method::SparseLoCo, Inner::Muon, 15);
        arms.push(Arm { overlap, ..arm.compared(Size::Long) });
    }
    arms.push(Arm {
        size: Size::Brief,
        ..Arm::new("brief Muon H30", Method::SparseLoCo, Inner::Muon, 30)
    });
    arms
}

/// Other methods, and the parts of SparseLoCo one by one.
fn others() -> Vec<Arm> {
    use Inner::{AdamW, Muon};
    let arm = |name: &str, method, inner, steps| Arm::new(name, method, inner, steps);
    let sparse = |name: &str| Arm::new(name, Method::SparseLoCo, AdamW, 30);
    let mut arms = vec![
        arm("DiLoCo AdamW H30", Method::DiLoCo, AdamW, 30),
        arm("DiLoCo AdamW H15", Method::DiLoCo, AdamW, 15),
        arm("DiLoCo Muon H30", Method::DiLoCo, Muon, 30),
        arm("DiLoCo Muon H15", Method::DiLoCo, Muon, 15),
        arm("DeMo-like k64", Method::DeMo, AdamW, 1),
        arm("Muon H5 k64", Method::SparseLoCo, Muon, 5),
        Arm { keep: 128, ..arm("Muon H15 k128", Method::SparseLoCo, Muon, 15) },
        Arm { keep: 32, ..arm("Muon H15 k32", Method::SparseLoCo, Muon, 15) },
    ];
    arms.extend([
        sparse("AdamW H30 k64"),
        Arm { keep: 32, ..sparse("AdamW H30 k32") },
        Arm { keep: 128, ..sparse("AdamW H30 k128") },
        Arm { steps: 5, ..sparse("AdamW H5 k64") },
        Arm { shape: Shape::Tiles, ..sparse("AdamW H30 k64 tiles 64x64") },
        Arm { quantiser: Quantiser::F32, ..sparse("AdamW H30 k64 f32 values") },
        Arm { quantiser: Quantiser::Sign, ..sparse("AdamW H30 k64 sign only") },
        Arm { quantiser: Quantiser::Reference, ..sparse("AdamW H30 k64 reference 2 bit") },
        Arm { decay: 0.99, ..sparse("AdamW H30 k64 decay 0.99") },
        Arm { churn: Churn::Late, ..sparse("AdamW H30 k64 a quarter late") },
        Arm { churn: Churn::Leave(Joining::Fresh), ..sparse("AdamW H30 k64 joiners afresh") },
    ]);
    arms
}
