//! Integers with a prefix (RFC 7541 section 5.1).

use bytes::{BufMut, BytesMut};

/// Bits of an integer behind its prefix that are read at most. No length and no index that means anything needs more.
const MOST_BITS: u32 = 28;

/// Reads on from `first`, whose lowest `prefix` bits the integer begins in. `None`: it ends too soon, or is longer than
/// whatever could be meant.
pub(super) fn read(first: u8, prefix: u32, rest: &mut &[u8]) -> Option<usize> {
    let most = full(prefix);
    let mut value = usize::from(first & most);
    if value < usize::from(most) {
        return Some(value);
    }
    let mut shift = 0;
    loop {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        if shift >= MOST_BITS {
            return None;
        }
        value = value.checked_add(usize::from(byte & 0x7f).checked_shl(shift)?)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift = shift.saturating_add(7);
    }
}

/// Writes `value` with its first bits in the byte that begins with `pattern`.
pub(super) fn write(out: &mut BytesMut, pattern: u8, prefix: u32, value: usize) {
    let most = full(prefix);
    match u8::try_from(value) {
        Ok(value) if value < most => out.put_u8(pattern | value),
        Ok(_) | Err(_) => {
            out.put_u8(pattern | most);
            let mut rest = value.saturating_sub(usize::from(most));
            while rest >= 0x80 {
                out.put_u8((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            out.put_u8(rest as u8);
        }
    }
}

/// All bits of a prefix.
fn full(prefix: u32) -> u8 {
    u8::MAX.checked_shr(8_u32.saturating_sub(prefix)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(prefix: u32, value: usize) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out, 0, prefix, value);
        out.to_vec()
    }

    /// RFC 7541 appendix C.1.
    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(written(5, 10), [0b01010]);
        assert_eq!(written(5, 1337), [0b11111, 0b1001_1010, 0b0000_1010]);
        assert_eq!(written(8, 42), [42]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for prefix in 1..=8 {
            for value in [0, 1, 14, 15, 16, 30, 31, 126, 127, 128, 254, 255, 256, 16_383, 16_384, 1 << 20, 1 << 27] {
                let bytes = written(prefix, value);
                let (&first, mut rest) = bytes.split_first().expect("a byte");
                assert_eq!(read(first, prefix, &mut rest), Some(value), "{prefix} {value}");
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn what_does_not_end_is_none() {
        for rest in [&[][..], &[0x80], &[0xff; 4], &[0x80, 0x80, 0x80, 0x80, 0x00], &[0xff; 40]] {
            let mut behind = rest;
            assert_eq!(read(0x1f, 5, &mut behind), None, "{rest:?}");
        }
    }
}
