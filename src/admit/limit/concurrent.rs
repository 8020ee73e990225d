//! How a table's words count what runs at the same time.
//!
//! The lower half of a word is how many there are; above it is the number of the claim, so that a slot that changes
//! hands never has a word that it had before.

use std::num::NonZeroU32;

use super::table::Words;

const CLAIM: u64 = 1 << 32;
/// All but the top bit, which is the table's.
const ALL: u64 = (1 << 63) - 1;

/// At most so many at once.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce(pub NonZeroU32);

impl AtOnce {
    /// How many there are.
    pub fn running(word: u64) -> u64 {
        word & (CLAIM - 1)
    }

    /// How many more may come.
    pub fn left(self, word: u64) -> u64 {
        u64::from(self.0.get()).saturating_sub(AtOnce::running(word))
    }
}

impl Words for AtOnce {
    fn is_free(&self, word: u64) -> bool {
        AtOnce::running(word) == 0
    }

    fn more(&self, word: u64) -> Option<u64> {
        (self.left(word) > 0).then(|| word.wrapping_add(1))
    }

    fn first(&self, free: u64) -> u64 {
        self.given_up(free) | 1
    }

    fn given_up(&self, free: u64) -> u64 {
        free.wrapping_add(CLAIM) & ALL & !(CLAIM - 1)
    }
}
