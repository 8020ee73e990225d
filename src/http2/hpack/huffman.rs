//! The Huffman code of header strings (RFC 7541 section 5.2 and appendix B), read four bits at a time.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols. So the lengths are all
//! that has to be written down; the tables are computed when the program is compiled.

/// The length in bits of each byte's code; last that of the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const END: usize = 256;

const LONGEST: u8 = 30;

/// A code of 257 symbols has so many inner nodes; each is a state between two pieces of four bits.
const NODES: usize = 256;

/// What four bits lead to from a state.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    symbol: u8,
    does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Nothing,
    /// A symbol is complete.
    Emits,
    /// The code of the end came, which no string may hold.
    Fails,
}

static STEPS: [[Step; 16]; NODES] = steps();

/// The states that a string may end in: all bits since the last symbol are set, and they are fewer than eight.
static ENDS: [bool; NODES] = ends();

/// Children of inner nodes: another node, or a symbol counted from `NODES`.
const TREE: [[u16; 2]; NODES] = tree();

#[expect(clippy::indexing_slicing, reason = "computed when the program is compiled")]
const fn tree() -> [[u16; 2]; NODES] {
    let mut tree = [[0_u16; 2]; NODES];
    let (mut nodes, mut code, mut length) = (1, 0_u32, 1);
    while length <= LONGEST {
        code <<= 1;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] == length {
                let (mut node, mut bit) = (0, length - 1);
                while bit > 0 {
                    let side = (code >> bit & 1) as usize;
                    if tree[node][side] == 0 {
                        tree[node][side] = nodes;
                        nodes += 1;
                    }
                    node = tree[node][side] as usize;
                    bit -= 1;
                }
                tree[node][(code & 1) as usize] = (NODES + symbol) as u16;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    tree
}

#[expect(clippy::indexing_slicing, reason = "computed when the program is compiled")]
const fn steps() -> [[Step; 16]; NODES] {
    let mut steps = [[Step { next: 0, symbol: 0, does: Does::Nothing }; 16]; NODES];
    let mut state = 0;
    while state < NODES {
        let mut bits = 0;
        while bits < 16 {
            let mut step = Step { next: 0, symbol: 0, does: Does::Nothing };
            let (mut node, mut bit) = (state, 4);
            while bit > 0 {
                bit -= 1;
                let child = TREE[node][bits >> bit & 1] as usize;
                if child < NODES {
                    node = child;
                } else {
                    // No code is shorter than five bits, so one step ends at most one.
                    node = 0;
                    if child == NODES + END {
                        step.does = Does::Fails;
                    } else {
                        step.symbol = (child - NODES) as u8;
                        step.does = Does::Emits;
                    }
                }
            }
            step.next = node as u8;
            steps[state][bits] = step;
            bits += 1;
        }
        state += 1;
    }
    steps
}

#[expect(clippy::indexing_slicing, reason = "computed when the program is compiled")]
const fn ends() -> [bool; NODES] {
    let mut ends = [false; NODES];
    let (mut node, mut depth) = (0, 0);
    while depth < 8 {
        ends[node] = true;
        node = TREE[node][1] as usize;
        depth += 1;
    }
    ends
}

/// Appends what `packed` stands for. `None`: it is not the code of any string.
pub(super) fn unpack(packed: &[u8], into: &mut Vec<u8>) -> Option<()> {
    // Codes have five bits at least.
    into.reserve(packed.len().saturating_mul(8) / 5);
    let mut state = 0_u8;
    for &byte in packed {
        for bits in [byte >> 4, byte & 0xf] {
            let step = STEPS.get(usize::from(state))?.get(usize::from(bits))?;
            match step.does {
                Does::Nothing => {}
                Does::Emits => into.push(step.symbol),
                Does::Fails => return None,
            }
            state = step.next;
        }
    }
    ENDS.get(usize::from(state)).filter(|&&may_end| may_end).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        unpack(packed, &mut text).map(|()| text)
    }

    /// The code of every symbol, first bit first.
    fn codes() -> Vec<Vec<bool>> {
        let mut codes = vec![Vec::new(); 257];
        let mut open = vec![(0_usize, Vec::new())];
        while let Some((node, bits)) = open.pop() {
            for side in [false, true] {
                let child = usize::from(TREE[node][usize::from(side)]);
                let bits = [&bits[..], &[side]].concat();
                if child < NODES { open.push((child, bits)) } else { codes[child - NODES] = bits }
            }
        }
        codes
    }

    fn pack(bits: impl IntoIterator<Item = bool>) -> Vec<u8> {
        let bits: Vec<bool> = bits.into_iter().collect();
        let byte = |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(*bits.get(at).unwrap_or(&true)));
        bits.chunks(8).map(byte).collect()
    }

    /// RFC 7541 appendices C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(unpacked(&www).unwrap(), b"www.example.com");
        assert_eq!(unpacked(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(unpacked(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(unpacked(&[]).unwrap(), b"");
    }

    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let codes = codes();
        let code = |symbol: usize| codes[symbol].iter().fold(0_u32, |code, &bit| code << 1 | u32::from(bit));
        // A few of appendix B, of every sort of length.
        for (symbol, expected, length) in [
            (b'0', 0x0, 5),
            (b'a', 0x3, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'X', 0xfc, 8),
            (b'!', 0x3f8, 10),
            (b'\\', 0x7fff0, 19),
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (255, 0x3ff_ffee, 26),
        ] {
            let symbol = usize::from(symbol);
            assert_eq!((code(symbol), codes[symbol].len()), (expected, length), "{symbol}");
        }
        assert_eq!((code(END), codes[END].len()), (0x3fff_ffff, 30));
    }

    #[test]
    fn every_byte_is_unpacked_beside_any_other() {
        let codes = codes();
        for byte in 0..=255_u8 {
            for other in [0, b'a', b'~', 255] {
                let text = [byte, other, byte];
                let packed = pack(text.iter().flat_map(|&byte| codes[usize::from(byte)].clone()));
                assert_eq!(unpacked(&packed).as_deref(), Some(&text[..]), "{byte} {other}");
            }
        }
    }

    #[test]
    fn padding_that_is_long_or_holds_a_zero_and_the_end_itself_are_refused() {
        // 'a' is 00011.
        assert_eq!(unpacked(&[0b0001_1111]).unwrap(), b"a");
        assert_eq!(unpacked(&[0b0001_1011]), None);
        assert_eq!(unpacked(&[0b0001_1000]), None);
        assert_eq!(unpacked(&[0b0001_1111, 0xff]), None);
        assert_eq!(unpacked(&[0xff]), None);
        assert_eq!(unpacked(&[0xff, 0xff, 0xff, 0xff]), None);
    }
}
