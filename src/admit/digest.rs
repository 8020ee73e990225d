//! SHA-256, as credentials and what proves them are known by: the texts themselves are not kept.

use std::cell::OnceCell;

use aws_lc_rs::digest::{Context, SHA256};

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

/// A text with its digest, which is made once, when it is first needed, whoever asks for it.
pub struct Digested<'a> {
    text: &'a [u8],
    digest: OnceCell<Digest>,
}

impl<'a> Digested<'a> {
    pub fn new(text: &'a [u8]) -> Digested<'a> {
        Digested { text, digest: OnceCell::new() }
    }

    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    pub fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| digest([self.text]))
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
}
