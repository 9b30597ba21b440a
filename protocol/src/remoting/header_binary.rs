//! The ROCKETMQ binary header, both directions.
//!
//! ```text
//!   code i16 | language u8 | version i16 | opaque i32 | flag i32
//!   remark length i32, remark | length of all fields i32, then each: name length i16, name, value length i32, value
//! ```
//! A text of length 0 means "none" to RocketMQ; here an absent remark is read as none, and an empty value as empty text.

use bytes::{BufMut, BytesMut};

use super::command::Head;
use super::header::{ExtField, ExtFields, HeaderView};
use super::language::LanguageCode;
use crate::cursor::Cursor;
use crate::error::{DecodeError, EncodeError};

/// Reads a binary header; every byte of it must be used.
pub(super) fn parse(header: &[u8]) -> Result<HeaderView<'_>, DecodeError> {
    let mut cursor = Cursor::new(header, "header");
    let code = i32::from(cursor.i16()?);
    let language = LanguageCode(cursor.u8()?);
    let version = i32::from(cursor.i16()?);
    let opaque = cursor.i32()?;
    let flag = cursor.u32()?;
    let remark_bytes = cursor.length_i32("remark", header.len())?;
    let remark = cursor.text(remark_bytes, "remark")?;
    let fields_bytes = cursor.length_i32("extension fields", header.len())?;
    if fields_bytes != cursor.remaining() {
        return Err(DecodeError::LengthMismatch {
            what: "extension fields",
            got: fields_bytes,
            expected: cursor.remaining(),
        });
    }
    let mut ext = ExtFields::new();
    while cursor.remaining() > 0 {
        let key_bytes = cursor.length_i16("extension field name", header.len())?;
        let key = cursor.text(key_bytes, "extension field name")?;
        let value_bytes = cursor.length_i32("extension field", header.len())?;
        let value = cursor.text(value_bytes, "extension field")?;
        ext.push(ExtField { key, value, key_escaped: false, value_escaped: false })?;
    }
    let remark = if remark.is_empty() { None } else { Some(remark.into()) };
    Ok(HeaderView { code, language, version, opaque, flag, remark, ext })
}

/// Appends a binary header.
///
/// # Errors
/// If code or version do not fit 16 bits or a text its length field; what was appended so far is the caller's to remove.
pub(super) fn write<'a>(
    out: &mut BytesMut,
    head: &Head<'_>,
    ext: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), EncodeError> {
    out.put_i16(short("code", head.code)?);
    out.put_u8(head.language.0);
    out.put_i16(short("version", head.version)?);
    out.put_i32(head.opaque);
    out.put_u32(head.flag);
    put_text(out, "remark", head.remark.unwrap_or_default())?;
    let length_at = out.len();
    out.put_i32(0);
    for (key, value) in ext {
        let Ok(key_bytes) = i16::try_from(key.len()) else {
            return Err(too_long("extension field name", key.len(), i16::MAX as usize));
        };
        out.put_i16(key_bytes);
        out.put_slice(key.as_bytes());
        put_text(out, "extension field", value)?;
    }
    let fields_bytes = out.len() - length_at - 4;
    let Ok(fields_bytes) = i32::try_from(fields_bytes) else {
        return Err(too_long("extension fields", fields_bytes, i32::MAX as usize));
    };
    if let Some(place) = out.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&fields_bytes.to_be_bytes());
    }
    Ok(())
}

fn short(field: &'static str, number: i32) -> Result<i16, EncodeError> {
    i16::try_from(number).map_err(|_| EncodeError::bad_value(field, number.to_string(), "a 16-bit number"))
}

fn put_text(out: &mut BytesMut, what: &'static str, text: &str) -> Result<(), EncodeError> {
    let Ok(length) = i32::try_from(text.len()) else {
        return Err(too_long(what, text.len(), i32::MAX as usize));
    };
    out.put_i32(length);
    out.put_slice(text.as_bytes());
    Ok(())
}

const fn too_long(what: &'static str, got: usize, max: usize) -> EncodeError {
    EncodeError::TooLong { what, got, max }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write_all(head: &Head<'_>, ext: &[(String, String)]) -> Result<BytesMut, EncodeError> {
        let mut out = BytesMut::new();
        write(&mut out, head, ext.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        Ok(out)
    }

    const HEAD: Head<'static> = Head {
        code: 37,
        language: LanguageCode::JAVA,
        version: 409,
        opaque: 258,
        flag: 2,
        remark: Some("hi"),
    };

    #[test]
    fn the_bytes_are_those_of_the_java_client() {
        let ext = [("k".to_owned(), "v1".to_owned())];
        let bytes = write_all(&HEAD, &ext).unwrap();
        let expected: &[u8] =
            b"\0\x25\0\x01\x99\0\0\x01\x02\0\0\0\x02\0\0\0\x02hi\0\0\0\x09\0\x01k\0\0\0\x02v1";
        assert_eq!(&bytes[..], expected);
        let view = parse(&bytes).unwrap();
        assert_eq!((view.code, view.version, view.opaque, view.flag), (37, 409, 258, 2));
        assert!(view.is_oneway());
        assert_eq!(view.remark.as_deref(), Some("hi"));
        assert_eq!(view.ext.get("k").as_deref(), Some("v1"));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let good = write_all(&HEAD, &[("k".to_owned(), "v1".to_owned())]).unwrap();
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = good.clone();
        longer.put_u8(0);
        assert!(matches!(parse(&longer), Err(DecodeError::LengthMismatch { .. })));
        let mut negative = good;
        negative[13] = 0xFF;
        assert!(parse(&negative).is_err());
    }

    #[test]
    fn numbers_beyond_16_bits_cannot_be_written() {
        assert!(write_all(&Head { code: 200_050, ..HEAD }, &[]).is_err());
        assert!(write_all(&Head { version: 70_000, ..HEAD }, &[]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (code, version, opaque, flag, language) in any::<(i16, i16, i32, u32, u8)>(),
            remark in proptest::option::of(".{1,30}"),
            ext in proptest::collection::vec((any::<String>(), any::<String>()), 0..30),
        ) {
            let head = Head {
                code: i32::from(code), language: LanguageCode(language), version: i32::from(version), opaque, flag,
                remark: remark.as_deref(),
            };
            let bytes = write_all(&head, &ext).unwrap();
            let view = parse(&bytes).unwrap();
            prop_assert_eq!((view.code, view.version), (i32::from(code), i32::from(version)));
            prop_assert_eq!((view.opaque, view.flag, view.language.0), (opaque, flag, language));
            prop_assert_eq!(view.remark.as_deref(), remark.as_deref());
            let read: Vec<_> = view.ext.iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
            prop_assert_eq!(read, ext);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
