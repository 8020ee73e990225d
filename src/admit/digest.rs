//! What credentials are known by, since the texts themselves are not kept: by a mark in what workers look up for each
//! request, by a digest everywhere else.

use std::cell::OnceCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA256};
use siphasher::sip128::SipHasher24;

/// SHA-256 of something.
pub type Digest = [u8; 32];

/// Of all the parts, one behind the other.
pub fn digest<const N: usize>(parts: [&[u8]; N]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    for (byte, of_parts) in digest.iter_mut().zip(context.finish().as_ref()) {
        *byte = *of_parts;
    }
    digest
}

/// What this process knows a text by: SipHash-2-4 of 128 bits under a secret that is drawn at its first use and never
/// shown. Without the secret nobody can look for two texts of the same mark but by showing them here, one after the
/// other, with less than 2^-110 of a chance each. SHA-256 would take ten times as long where a processor has no
/// instructions for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark(u128);

impl Mark {
    pub fn of(text: &[u8]) -> Mark {
        static SECRET: LazyLock<SipHasher24> = LazyLock::new(secret);
        Mark(SECRET.hash(text).as_u128())
    }

    /// Half of it, which is as good as random.
    pub fn half(self) -> u64 {
        self.0 as u64
    }
}

fn secret() -> SipHasher24 {
    let mut drawn = [0; 16];
    match aws_lc_rs::rand::fill(&mut drawn) {
        Ok(()) => SipHasher24::new_with_key(&drawn),
        // No kernel is known to refuse; what seeds the standard library's maps is better than a secret that is none.
        Err(_) => {
            let drawn = RandomState::new();
            SipHasher24::new_with_keys(drawn.hash_one(0_u8), drawn.hash_one(1_u8))
        }
    }
}

/// A text with what it is known by, each of which is made once, when it is first needed, whoever asks for it.
pub struct Digested<'a> {
    text: &'a [u8],
    digest: OnceCell<Digest>,
    mark: OnceCell<Mark>,
}

impl<'a> Digested<'a> {
    pub fn new(text: &'a [u8]) -> Digested<'a> {
        Digested { text, digest: OnceCell::new(), mark: OnceCell::new() }
    }

    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    pub fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| digest([self.text]))
    }

    pub fn mark(&self) -> Mark {
        *self.mark.get_or_init(|| Mark::of(self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_text() {
        // FIPS 180-2, appendix B.1
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hex = |digest: &Digest| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&digest([b"abc"])), abc);
        assert_eq!(hex(&digest([b"a", b"", b"bc"])), abc);
        assert_eq!(hex(Digested::new(b"abc").digest()), abc);
    }

    #[test]
    fn a_mark_is_of_the_whole_text() {
        let text = [b'x'; 600];
        let mark = Mark::of(&text);
        assert!(mark == Mark::of(&text) && mark == Digested::new(&text).mark());
        assert!(mark != Mark::of(&text[1..]));
        for at in 0..text.len() {
            let mut other = text;
            other[at] ^= 1;
            assert!(mark != Mark::of(&other), "{at}");
        }
    }
}
