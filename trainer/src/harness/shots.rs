//! Chooses the solved examples that stand before a question.
//!
//! Random ones are drawn as lm-evaluation-harness draws them, so that the same seed gives the same
//! prompts: Python's generator (MT19937, seeded by an array of one word) and its `random.sample`,
//! one draw for each question in order.

/// Words of the generator's state.
const STATE: usize = 624;
/// Distance of the word that is mixed in.
const SHIFT: usize = 397;

/// Python's `random.Random(seed)` for a seed of 32 bits.
pub(crate) struct PythonRandom {
    state: [u32; STATE],
    next: usize,
}

impl PythonRandom {
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [0u32; STATE];
        state[0] = 19_650_218;
        for index in 1..STATE {
            state[index] = mixed(state[index - 1], 1_812_433_253).wrapping_add(index as u32);
        }
        // The key has one word, so that its index stays 0 and adds nothing.
        let mut index = 1;
        for _ in 0..STATE {
            state[index] = (state[index] ^ mixed(state[index - 1], 1_664_525)).wrapping_add(seed);
            index = following(&mut state, index);
        }
        for _ in 0..STATE - 1 {
            let word = state[index] ^ mixed(state[index - 1], 1_566_083_941);
            state[index] = word.wrapping_sub(index as u32);
            index = following(&mut state, index);
        }
        state[0] = 1 << 31;
        Self { state, next: STATE }
    }

    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for index in 0..STATE {
            let next = self.state[(index + 1) % STATE];
            let word = (self.state[index] & (1 << 31)) | (next & !(1 << 31));
            let odd = if word & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % STATE] ^ (word >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// One of `0..bound`; `bound` is at least 1.
    fn below(&mut self, bound: u32) -> usize {
        let bits = 32 - bound.leading_zeros();
        loop {
            let drawn = self.word() >> (32 - bits);
            if drawn < bound {
                return drawn as usize;
            }
        }
    }

    /// `count` different ones of `0..population`, in the order drawn; all of them, in some order, if
    /// there are fewer.
    pub(crate) fn sample(&mut self, population: usize, count: usize) -> Vec<usize> {
        let count = count.min(population);
        // Python keeps a list of all where that is smaller than a set of those drawn.
        let mut set_size = 21usize;
        if count > 5 {
            let power = ((count * 3) as f64).ln() / 4f64.ln();
            set_size = set_size.saturating_add(4usize.saturating_pow(power.ceil() as u32));
        }
        if population <= set_size {
            let mut pool: Vec<usize> = (0..population).collect();
            return (0..count).map(|_| pool.swap_remove(self.below(pool.len() as u32))).collect();
        }
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let index = self.below(population as u32);
            if !drawn.contains(&index) {
                drawn.push(index);
            }
        }
        drawn
    }
}

fn mixed(word: u32, factor: u32) -> u32 {
    (word ^ (word >> 30)).wrapping_mul(factor)
}

/// The index after `index` while seeding, where the last word is also the one before the first.
fn following(state: &mut [u32; STATE], index: usize) -> usize {
    if index + 1 < STATE {
        return index + 1;
    }
    state[0] = state[STATE - 1];
    1
}

/// Chooses the examples of one question after the other.
pub(crate) enum Chooser {
    /// The first ones of the pool.
    First,
    /// Random ones.
    Random(Box<PythonRandom>),
}

impl Chooser {
    /// `count` examples of `pool`, in order. `question` is given where the pool is the questions
    /// themselves: it, and what equals it, is not shown. Fewer where the pool has no more.
    pub(crate) fn choose<'a, T: PartialEq>(
        &mut self,
        pool: &'a [T],
        question: Option<&T>,
        count: usize,
    ) -> Vec<&'a T> {
        if count == 0 {
            return Vec::new();
        }
        let others = || pool.iter().filter(|shot| question != Some(*shot));
        match self {
            Self::First => others().take(count).collect(),
            Self::Random(random) => {
                // One more than needed, so that the question itself may be among them.
                let drawn = random.sample(pool.len(), count + usize::from(question.is_some()));
                let shots = drawn.into_iter().map(|index| &pool[index]);
                let shots: Vec<_> =
                    shots.filter(|shot| question != Some(*shot)).take(count).collect();
                if shots.len() == count {
                    return shots;
                }
                let others: Vec<&T> = others().collect();
                let drawn = random.sample(others.len(), count);
                drawn.into_iter().map(|index| others[index]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r = random.Random(1234); r.sample(range(10), 3), r.sample(range(1000), 5), …`
    #[test]
    fn draws_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        let draws: [(usize, usize, &[usize]); 6] = [
            (10, 3, &[7, 1, 0]),
            (1000, 5, &[92, 932, 965, 961, 826]),
            (100, 6, &[74, 4, 85, 88, 10, 12]),
            (86, 7, &[45, 30, 2, 3, 44, 82, 79]),
            (5, 5, &[3, 4, 0, 2, 1]),
            (
                2376,
                25,
                &[
                    468, 59, 2060, 1993, 1023, 264, 2216, 1908, 280, 364, 2109, 2371, 188, 1104,
                    2279, 258, 1238, 1970, 1455, 1091, 1020, 819, 1857, 2171, 79,
                ],
            ),
        ];
        for (population, count, expected) in draws {
            assert_eq!(random.sample(population, count), expected);
        }
        for _ in 0..700 {
            random.word();
        }
        assert_eq!(random.sample(1119, 5), [340, 769, 808, 18, 592]);
    }

    #[test]
    fn the_question_is_never_its_own_example() {
        let pool: Vec<u32> = (0..6).collect();
        let mut chooser = Chooser::Random(Box::new(PythonRandom::new(7)));
        for question in pool.iter().cycle().take(60) {
            let shots = chooser.choose(&pool, Some(question), 5);
            assert_eq!(shots.len(), 5);
            assert!(!shots.contains(&question));
        }
        assert_eq!(Chooser::First.choose(&pool, Some(&1), 3), [&0, &2, &3]);
    }
}
