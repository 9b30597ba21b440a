//! Numbers as text, into place, without formatting machinery.

/// Digits of the longest u64.
const DECIMAL_BYTES_MAX: usize = 20;

/// Appends `value` in decimal.
pub(super) fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; DECIMAL_BYTES_MAX];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Fills `place` with the last digits of `value`, zeros in front.
pub(super) fn fill_decimal(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Fills `place` with the last hexadecimal digits of `value`, upper case, zeros in front.
pub(super) fn fill_hex(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

/// The decimal number at the start of `text`, or `None` when there is none.
pub(super) fn leading_decimal(text: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    let mut digits = 0;
    for byte in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        digits += 1;
    }
    (digits > 0).then_some(value)
}

/// The number that `text` is in hexadecimal; all bytes must be digits.
pub(super) fn hex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, byte| Some(value << 4 | u64::from((*byte as char).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_went() {
        for value in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
            assert_eq!(leading_decimal(&out), Some(value));
            let mut place = [0; 16];
            fill_hex(&mut place, value);
            assert_eq!(hex(&place), Some(value));
        }
        let mut place = [0; 10];
        fill_decimal(&mut place, 1_000_000_042);
        assert_eq!(&place, b"1000000042");
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(leading_decimal(b"\"1\""), None);
        assert_eq!(leading_decimal(b"99999999999999999999"), None);
        assert_eq!(hex(b"12G4"), None);
    }
}
