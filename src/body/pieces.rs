//! Bytes in a row, in the pieces that they came in; small ones are put together.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Smaller pieces are copied: each that is kept as it came costs beside its bytes, and keeps the buffer that it was
/// cut from.
const SMALL: usize = 4 * 1024;

/// Where copies are put together no longer.
const JOINED: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Pieces {
    whole: VecDeque<Bytes>,
    /// Behind them.
    joined: BytesMut,
    length: usize,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn push(&mut self, data: Bytes) {
        self.length = self.length.saturating_add(data.len());
        if data.len() < SMALL {
            self.joined.extend_from_slice(&data);
            if self.joined.len() >= JOINED {
                self.close();
            }
        } else {
            self.close();
            self.whole.push_back(data);
        }
    }

    fn close(&mut self) {
        if !self.joined.is_empty() {
            self.whole.push_back(self.joined.split().freeze());
            // Otherwise what comes next would keep the last one's buffer.
            self.joined = BytesMut::new();
        }
    }

    pub fn pop(&mut self) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close();
        }
        let piece = self.whole.pop_front()?;
        self.length = self.length.saturating_sub(piece.len());
        Some(piece)
    }

    /// All of them; none is left.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.close();
        self.length = 0;
        std::mem::take(&mut self.whole).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_small_pieces_are_joined() {
        let mut pieces = Pieces::default();
        let mut expected = Vec::new();
        for size in [1, 2, SMALL, 3, SMALL - 1, SMALL - 1, 7, 2 * SMALL] {
            let piece: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            expected.extend_from_slice(&piece);
            pieces.push(piece.into());
        }
        assert_eq!(pieces.len(), expected.len());
        let first = pieces.pop().expect("a piece");
        assert_eq!(first.len(), 3);
        let rest = pieces.take();
        assert_eq!((rest.len(), pieces.len(), pieces.is_empty()), (3, 0, true));
        assert_eq!([vec![first], rest].concat().concat(), expected);
    }

    #[test]
    fn many_small_ones_do_not_become_many_pieces() {
        let mut pieces = Pieces::default();
        (0..JOINED * 2).for_each(|_| pieces.push(Bytes::from_static(b"x")));
        assert_eq!(pieces.take().len(), 2);
    }
}
