//! What real clients send, and any bytes.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::limits::EXT_FIELDS_MAX;
use crate::remoting::header::send_message::SendMessageHeader;

fn parse_text(text: &str) -> Result<HeaderView<'_>, DecodeError> {
    parse(text.as_bytes())
}

fn pairs(view: &HeaderView<'_>) -> Vec<(String, String)> {
    view.ext.iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// As librocketmq sends it: alphabetical members, numbers and text mixed, a line feed behind the object.
const CPP_SEND: &str = concat!(
    r#"{"code":310,"extFields":{"AccessKey":"","OnsChannel":"","Signature":"","a":"group","b":"orders","c":"TBW102","#,
    r#""d":4,"e":2,"f":4,"g":"1700000000000","h":0,"i":"TAGS\u0001a\u0002TRAN_MSG\u0001true\u0002","j":"0","k":"0","#,
    r#""l":16,"m":"0"},"flag":0,"language":"CPP","opaque":17,"remark":"","version":57}"#,
    "\n"
);

/// As a Java client sends it: fastjson, every extension field as text, no remark.
const JAVA_SEND: &str = concat!(
    r#"{"code":310,"extFields":{"a":"group","b":"orders","c":"TBW102","d":"4","e":"2","f":"4","g":"1700000000000","#,
    r#""h":"0","i":"TAGS\u0001a\u0002TRAN_MSG\u0001true\u0002","j":"0","k":"false","m":"false","n":"mezzo"},"#,
    r#""flag":0,"language":"JAVA","opaque":17,"serializeTypeCurrentRPC":"JSON","version":399}"#
);

#[test]
fn the_sends_of_both_clients_are_read_alike() {
    let cpp = parse_text(CPP_SEND).unwrap();
    let java = parse_text(JAVA_SEND).unwrap();
    assert_eq!((cpp.code, cpp.opaque, cpp.version, cpp.flag), (310, 17, 57, 0));
    assert_eq!((cpp.language, java.language), (LanguageCode::CPP, LanguageCode::JAVA));
    let cpp_send = SendMessageHeader::decode(&cpp.ext).unwrap();
    let java_send = SendMessageHeader::decode(&java.ext).unwrap();
    assert_eq!(cpp_send.properties, "TAGS\u{1}a\u{2}TRAN_MSG\u{1}true\u{2}");
    assert_eq!(cpp_send.max_reconsume_times, Some(16));
    assert_eq!(java_send.broker_name.as_deref(), Some("mezzo"));
    let same = SendMessageHeader { max_reconsume_times: None, ..cpp_send };
    assert_eq!(same, SendMessageHeader { broker_name: None, ..java_send });
}

#[test]
fn fields_without_escapes_borrow_from_the_frame() {
    let view = parse_text(JAVA_SEND).unwrap();
    let borrowed = |name: &str| matches!(view.ext.get(name), Some(Cow::Borrowed(_)));
    assert!(borrowed("b") && borrowed("g"));
    assert!(matches!(view.ext.get("i"), Some(Cow::Owned(_))), "its separators are escaped");
}

#[test]
fn what_clients_do_differently_is_tolerated() {
    let view = parse_text(
        " {\"opaque\" : \"5\" , \"code\":11,\"extFields\":{\"n\":-1.5e3,\"t\":true,\"f\":false,\"z\":null,\"o\":{\"a\":[\"}\"]},7:\"x\",bare:1},\
         \"unknown\":[{\"a\":\"]\"},null],\"language\":13,\"remark\":null,\"flag\":1,} \r\n\0",
    )
    .unwrap();
    assert_eq!((view.code, view.opaque), (11, 5));
    assert!(view.is_response());
    assert_eq!(view.language, LanguageCode::NODE_JS);
    assert_eq!(view.remark, None);
    let expected =
        [("n", "-1.5e3"), ("t", "true"), ("f", "false"), ("o", "{\"a\":[\"}\"]}"), ("7", "x"), ("bare", "1")];
    assert_eq!(pairs(&view), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert!(parse_text(r#"{"code":0,"extFields":null}"#).unwrap().ext.is_empty());
    assert_eq!(parse_text("{\"code\":0,\"remark\":\"a\u{1}b\"}").unwrap().remark.as_deref(), Some("a\u{1}b"));
    assert_eq!(
        parse_text(r#"{"code":0,"remark":"tab\there"}"#).unwrap().remark.as_deref(),
        Some("tab\there")
    );
    assert_eq!(parse_text(r#"{"code":0,"language":"?"}"#).unwrap().language, LanguageCode::OTHER);
}

#[test]
fn escaped_names_are_names_all_the_same() {
    let view = parse_text(r#"{"code":0,"extFields":{"\u0074opic":"\u6771\ud83d\ude00"}}"#).unwrap();
    assert_eq!(view.ext.get("topic").as_deref(), Some("東\u{1F600}"));
}

#[test]
fn what_is_no_header_is_refused() {
    for bad in [
        "",
        " ",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"code":}"#,
        r#"{"code":1"#,
        r#"{"code":1}}"#,
        r#"{"code":1}x"#,
        r#"{"code":"x"}"#,
        r#"{"code":2147483648}"#,
        r#"{"code":1,"extFields":[]}"#,
        r#"{"code":1,"extFields":"a"}"#,
        r#"{"code":1,"remark":"a}"#,
        r#"{"code":1,"remark":"\x"}"#,
        r#"{"code":1,"remark":"\u12g4"}"#,
        r#"{"code":1,"a":[}]}"#,
        r#"{"code":1,"a":[[1]}"#,
        r#"{"code" 1}"#,
        r#"{"code":1,"extFields":{"a"}}"#,
        r#"{"code":1,"remark":"\u12"#,
        r#"{"code":1,"remark":"\"#,
    ] {
        assert!(parse_text(bad).is_err(), "{bad}");
    }
    assert_eq!(parse(b"{\"code\":\xff}").err(), Some(DecodeError::Utf8 { what: "header" }));
    assert_eq!(parse_text("{\"opaque\":1}").err(), Some(DecodeError::MissingField("code")));
}

#[test]
fn depth_and_number_of_fields_are_bounded() {
    let nested = |depth: usize| format!("{{\"code\":1,\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse_text(&nested(JSON_DEPTH_MAX)).is_ok());
    assert!(matches!(parse_text(&nested(JSON_DEPTH_MAX + 1)), Err(DecodeError::TooLong { .. })));
    let fields = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
        format!("{{\"code\":1,\"extFields\":{{{}}}}}", fields.join(","))
    };
    assert_eq!(parse_text(&fields(EXT_FIELDS_MAX)).unwrap().ext.len(), EXT_FIELDS_MAX);
    assert!(matches!(parse_text(&fields(EXT_FIELDS_MAX + 1)), Err(DecodeError::TooLong { .. })));
}

#[test]
fn the_written_header_has_rocketmqs_members() {
    let head = Head {
        code: 0,
        language: LanguageCode::OTHER,
        version: 409,
        opaque: -7,
        flag: 1,
        remark: Some("a\"b"),
    };
    let mut out = BytesMut::new();
    write(&mut out, &head, [("offset", "5"), ("topic", "x\u{2}")].into_iter());
    assert_eq!(
        std::str::from_utf8(&out).unwrap(),
        concat!(
            r#"{"code":0,"extFields":{"offset":"5","topic":"x\u0002"},"flag":1,"language":"OTHER","opaque":-7,"#,
            r#""remark":"a\"b","serializeTypeCurrentRPC":"JSON","version":409}"#
        )
    );
    let mut out = BytesMut::new();
    write(&mut out, &Head { remark: None, ..head }, std::iter::empty());
    assert_eq!(
        std::str::from_utf8(&out).unwrap(),
        r#"{"code":0,"flag":1,"language":"OTHER","opaque":-7,"serializeTypeCurrentRPC":"JSON","version":409}"#
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (code, opaque, version, flag) in any::<(i32, i32, i32, u32)>(),
        (language, remark) in (0_u8..14, proptest::option::of(any::<String>())),
        ext in proptest::collection::vec((any::<String>(), any::<String>()), 0..EXT_FIELDS_MAX),
    ) {
        let head = Head { code, language: LanguageCode(language), version, opaque, flag, remark: remark.as_deref() };
        let mut out = BytesMut::new();
        write(&mut out, &head, ext.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        let view = parse(&out).unwrap();
        prop_assert_eq!((view.code, view.opaque, view.version, view.flag), (code, opaque, version, flag));
        prop_assert_eq!((view.language.0, view.remark.as_deref()), (language, remark.as_deref()));
        prop_assert_eq!(pairs(&view), ext);
    }

    #[test]
    fn headers_of_a_strict_writer_are_read_alike(
        texts in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..10), number in any::<i64>(),
    ) {
        let header = serde_json::json!({ "extFields": texts, "x": [number, { "y": texts }], "code": 7 }).to_string();
        let view = parse(header.as_bytes()).unwrap();
        prop_assert_eq!(view.code, 7);
        prop_assert_eq!(pairs(&view), texts.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn any_text_is_scanned_without_panic(text in any::<String>(), json in "[{}\\[\\]:,\"\\\\ua0 ]{0,60}", cut in 0_usize..400) {
        let _ = parse_text(&text);
        let _ = parse_text(&format!("{{\"code\":1,{json}"));
        let _ = parse_text(&format!("{{\"code\":1,\"extFields\":{{{json}}}}}"));
        if let Some(view) = CPP_SEND.get(..cut).and_then(|text| parse_text(text).ok()) {
            prop_assert!(view.ext.len() <= EXT_FIELDS_MAX);
        }
    }

    #[test]
    fn any_bytes_are_scanned_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&bytes);
    }
}
