use super::*;

/// The pattern of a remote host as published (client-wire §7.5).
const HOST: &str = "^[^,$^&\\(\\)!;'\"<>\\`{}\\[\\]\\|#=]{3,}$";
const PORT: &str =
    "^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
const SEPARATOR: &str = "^[0-9a-zA-Z\r\n_:-]{0,30}$";
const TIMEOUT: &str = "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)";

#[test]
fn a_pattern_matches_what_it_matches_in_re2() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            HOST,
            &["db.internal", "10.0.0.1", "fe80::1"],
            &["ab", "a`id`", "a;b", "a[b]", "a|bc", "{{a}}", "a\"bc"],
        ),
        (
            PORT,
            &["1", "22", "65535"],
            &["0", "65536", "022", "22 ", "22\n", ""],
        ),
        (SEPARATOR, &["", "OUT:\r\n", "a-b"], &["a b", "é"]),
        (TIMEOUT, &["3600", "99999999"], &["", "abc", "0"]),
        (r"^[a-zA-Z0-9\_.@-]*$", &["", "jo.e_1@x-y"], &["a b", "\\"]),
        // Punctuation that is escaped for no reason stands for itself.
        (r"^\<\>\/\:\@\%\'$", &["<>/:@%'"], &["word"]),
        (r"^[\<\-\]\^\&]+$", &["<-]^&"], &["\\", ">"]),
        (r"^a\ b$", &["a b"], &["ab"]),
        // Braces that count nothing are characters.
        (r"^{{ssm:.+}}$", &["{{ssm:x}}"], &["ssm:x"]),
        (r"^a{,2}$", &["a{,2}"], &["", "aa"]),
        (r"^a{2\,3}$", &["a{2,3}"], &["aa"]),
        (r"^a{2}b{1,}c{0,1}$", &["aab", "aabbc"], &["ab"]),
        (r"^\x{41}\x42\p{Greek}\pL$", &["ABαb"], &["ABab"]),
        // ASCII only.
        (r"^\d\w\s$", &["1_ ", "0z\t"], &["١a ", "1é ", "1a\u{a0}"]),
        (r"^[\D]+$", &["é", "a"], &["1"]),
        (r"^[\w.-]+$", &["a-b.c_d"], &["a b"]),
        (r"\bex\b", &["an ex.", "éex"], &["next"]),
        // Inside a class the crate has operators that RE2 has not.
        (r"^[^[]+$", &["a&&b]"], &["["]),
        (r"^[a&&b]$", &["a", "&", "b"], &["c"]),
        (r"^[a~~b]$", &["~"], &["c"]),
        (r"^[]a]+$", &["]a"], &["["]),
        (r"^[^]a]+$", &["b"], &["]"]),
        (r"^[+--]+$", &["+,-"], &["."]),
        (r"^[--/]+$", &["-./"], &["+", ","]),
        (r"^[a-]+$", &["a-"], &["b"]),
        (r"^[[:alpha:][:digit:]]+$", &["a1"], &[":", "["]),
        (r"^\Qa.b\E+$", &["a.b", "a.bbb"], &["axb"]),
        // Search without anchors.
        ("b", &["abc"], &["ac"]),
        ("", &["", "a"], &[]),
    ];
    for (pattern, matching, other) in cases {
        let regex = AllowedPattern::new(pattern).unwrap_or_else(|reason| panic!("{pattern}: {reason}"));
        for text in *matching {
            assert!(regex.is_match(text), "{pattern} should match {text:?}");
        }
        for text in *other {
            assert!(!regex.is_match(text), "{pattern} should not match {text:?}");
        }
    }
}

#[test]
fn a_pattern_that_re2_has_not_is_refused_with_a_reason_of_one_line() {
    for pattern in [
        "(?=a)",
        "(?<!a)b",
        r"(a)\1",
        "(",
        "[a",
        r"a\",
        "*",
        r"\y",
        "(?:a{1000}){1000}",
    ] {
        let reason = AllowedPattern::new(pattern).unwrap_err();
        assert!(
            !reason.is_empty() && !reason.contains('\n'),
            "{pattern}: {reason:?}"
        );
    }
    let deep = format!("{}{}", "(".repeat(1000), ")".repeat(1000));
    assert!(AllowedPattern::new(&deep).is_err());
}

/// A letter of any script takes much, and this is short.
const LETTERS: &str = r"^[\p{L}\p{N} ._-]{1,80}$";

#[test]
fn patterns_of_a_document_have_one_bound_together() {
    let mut budget = Budget::default();
    for pattern in [HOST, PORT, SEPARATOR, TIMEOUT, r"^[\s\S]{1,4096}$", LETTERS] {
        AllowedPattern::within(pattern, &mut budget).unwrap();
    }
    let more = (0..200).find_map(|_| AllowedPattern::within(LETTERS, &mut budget).err());
    assert_eq!(
        more.unwrap(),
        "compiled, it takes too much memory: all patterns of a document together may take 16 MiB"
    );
    assert!(
        AllowedPattern::within(LETTERS, &mut budget).is_err(),
        "nothing is given back"
    );
    AllowedPattern::within(PORT, &mut budget).unwrap();
}

#[test]
fn what_is_too_large_to_be_read_is_refused_before_it_is() {
    let written = "a".repeat(MAX_WRITTEN_BYTES);
    AllowedPattern::new(&written).unwrap();
    let reason = AllowedPattern::new(&format!("{written}a")).unwrap_err();
    assert_eq!(reason, "it has more than 8192 bytes");
}

proptest::proptest! {
    #[test]
    fn no_pattern_makes_the_translation_panic(pattern in r"[\[\]{}()\\^$.|?*+a-c0-9,:QE\-&~<>]{0,24}") {
        if let Ok(regex) = AllowedPattern::new(&pattern) {
            let _is_match = regex.is_match("abc");
        }
    }

    #[test]
    fn a_literal_between_q_and_e_matches_itself(literal in r"[ -\[\]-~é]{0,12}") {
        let regex = AllowedPattern::new(&format!(r"^\Q{literal}\E$")).unwrap();
        proptest::prop_assert!(regex.is_match(&literal));
    }

    #[test]
    fn escaped_punctuation_matches_itself_only(byte in 0x20_u8..0x7f, other in 0x20_u8..0x7f) {
        let (character, other) = (char::from(byte), char::from(other));
        proptest::prop_assume!(!character.is_ascii_alphanumeric());
        for pattern in [format!(r"^\{character}$"), format!(r"^[\{character}]$")] {
            let regex = AllowedPattern::new(&pattern).unwrap();
            proptest::prop_assert!(regex.is_match(&character.to_string()));
            proptest::prop_assert_eq!(regex.is_match(&other.to_string()), other == character);
        }
    }
}
