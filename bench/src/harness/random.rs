//! Random numbers that are the same in all releases and on all machines: SplitMix64, whose numbers
//! depend on nothing but its state.

/// The generator.
#[derive(Debug, Default)]
pub(crate) struct Random {
    /// The state; equal states give equal numbers.
    state: u64,
}

impl Random {
    /// The next number (SplitMix64 by Steele, Lea and Flood, 2014).
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1. The tiny bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// One of these words.
    pub(crate) fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        let index = self.below(words.len() as u64) as usize;
        words.get(index).copied().unwrap_or_default()
    }
}
