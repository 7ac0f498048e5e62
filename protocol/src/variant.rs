//! Chooses the instructions that the hot loops of [`crate::update`] and [`crate::aggregate`] run with.
//!
//! Each loop is written once and compiled three times; the processor is asked at run time. Rust
//! never fuses a product with a sum and never reorders one, so that all variants give the same
//! bits, which a test holds them to.

/// A set of instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Set {
    Portable,
    Avx2,
    Avx512,
}

/// A set of instructions that this machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant(Set);

/// Work that is compiled for every set of instructions. `run` must be `#[inline(always)]`, and so
/// must every function that it calls in its loops.
pub(crate) trait Work {
    type Output;
    fn run(self) -> Self::Output;
}

impl Variant {
    /// The instructions that any machine of this architecture has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// The fastest instructions that this machine has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => Self(Set::Avx512),
                (true, false) => Self(Set::Avx2),
                _ => Self::PORTABLE,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::PORTABLE
    }

    /// All sets that this machine has, the fastest last.
    pub fn available() -> Vec<Self> {
        let all = [Set::Portable, Set::Avx2, Set::Avx512].map(Self);
        let best = Self::best();
        let count = all.iter().take_while(|variant| **variant != best).count();
        all.into_iter().take(count.saturating_add(1)).collect()
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            Set::Avx2 => "AVX2",
            Set::Avx512 => "AVX-512",
        }
    }

    /// Whether it is AVX-512, for loops with instructions that no other set has.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_avx512(self) -> bool {
        self.0 == Set::Avx512
    }

    /// Runs `work` with these instructions.
    #[inline]
    pub(crate) fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            Set::Portable => work.run(),
            // SAFETY: a `Variant` other than the portable one is only made by `best` and
            // `available`, which have asked the processor.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { with_avx2(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { with_avx512(work) },
            #[cfg(not(target_arch = "x86_64"))]
            Set::Avx2 | Set::Avx512 => work.run(),
        }
    }
}

impl Default for Variant {
    fn default() -> Self {
        Self::best()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn with_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt,popcnt")]
fn with_avx512<W: Work>(work: W) -> W::Output {
    work.run()
}
