use proptest::prelude::*;

use super::*;

fn shown(text: &str) -> String {
    TerminalFilter::default().filter(text)
}

#[test]
fn what_only_changes_what_is_seen_passes_as_it_is() {
    for text in [
        "plain, ünï ☃\r\n\ttab\u{8}\u{7}",
        "\u{1b}[1;31mred\u{1b}[38:2::1:2:3mrgb\u{1b}[m",
        "\u{1b}[2J\u{1b}[H\u{1b}[10;20H\u{1b}[3A\u{1b}[K\u{1b}[2;5r\u{1b}[S\u{1b}[2T\u{1b}[5b",
        "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7;12h\u{1b}[4h\u{1b}[4l\u{1b}[?2J",
        "\u{1b}7\u{1b}8\u{1b}M\u{1b}c\u{1b}(0lqk\u{1b}(B\u{e}x\u{f}\u{1b}#8\u{1b}[2 q\u{1b}[!p",
    ] {
        assert_eq!(shown(text), text, "{text:?}");
    }
}

#[test]
fn what_could_do_harm_to_who_watches_is_left_out_whole() {
    for sequence in [
        // the clipboard, the title, colours that are asked for, a link
        "\u{1b}]52;c;ZXZpbA==\u{7}",
        "\u{1b}]52;c;?\u{1b}\\",
        "\u{1b}]0;title\u{7}",
        "\u{1b}]11;?\u{7}",
        "\u{1b}]8;;http://h/\u{1b}\\",
        // what a terminal answers
        "\u{1b}[c",
        "\u{1b}[>c",
        "\u{1b}[=c",
        "\u{1b}[0c",
        "\u{1b}[5n",
        "\u{1b}[6n",
        "\u{1b}[?6n",
        "\u{1b}[x",
        "\u{1b}[?1$p",
        "\u{1b}[1;1;1;1;1;1*y",
        "\u{1b}[>q",
        "\u{1b}[?u",
        "\u{1b}[?1;1S",
        "\u{1b}[?4m",
        "\u{1b}Z",
        "\u{5}",
        // the window, the printer, the keyboard, the mouse, the answers' form
        "\u{1b}[21t",
        "\u{1b}[8;1;1t",
        "\u{1b}[5i",
        "\u{1b}[?5i",
        "\u{1b}[2h",
        "\u{1b}[20h",
        "\u{1b}[>4;2m",
        "\u{1b}[>1u",
        "\u{1b}[?1000h",
        "\u{1b}[?1003;1006h",
        "\u{1b}[?1004h",
        "\u{1b}[?2004h",
        "\u{1b}[1;1;1;1;1T",
        "\u{1b}=",
        "\u{1b} G",
        "\u{1b}%@",
        // texts for the terminal itself
        "\u{1b}P$qm\u{1b}\\",
        "\u{1b}P+q544e\u{1b}\\",
        "\u{1b}P0;0|17/61\u{7}62\u{1b}\\",
        "\u{1b}_Gi=1,a=q;AAAA\u{1b}\\",
        "\u{1b}^private\u{1b}\\",
        "\u{1b}Xtext\u{1b}\\",
        // one character for ESC and another
        "\u{9b}6n",
        "\u{9d}52;c;ZXZpbA==\u{9c}",
        "\u{90}$qm\u{9c}",
        "\u{9a}",
        // what is on its way is not ended by a control character
        "\u{1b}[6\u{0}n",
    ] {
        assert_eq!(shown(&format!("a{sequence}b")), "ab", "{sequence:?}");
    }
    assert_eq!(shown("a\u{1b}[6\u{7}nb"), "a\u{7}b");
    assert_eq!(
        shown("a\u{1b}[?1000;25;2004hb"),
        "a\u{1b}[?25hb",
        "of several modes those that are seen"
    );
    assert_eq!(shown("\u{9b}1m"), "\u{1b}[1m");
    assert_eq!(
        shown("a\u{1b}]0;x\u{18}b\u{1b}[3\u{1a}c"),
        "abc",
        "CAN and SUB end it"
    );
    assert_eq!(
        shown("\u{1b}[31\u{1b}[6n\u{1b}[1m"),
        "\u{1b}[1m",
        "ESC begins anew"
    );
    assert_eq!(shown("\u{1b}[3é\u{1b}ü"), "éü", "no letter is lost");
    let long = format!("\u{1b}[{}m", "1;".repeat(200));
    assert_eq!(shown(&format!("a{long}b")), "ab");
}

/// Text without the sequences that may pass: nothing that a terminal obeys is left of it but what is_seen says.
fn rest_of(shown: &str) -> String {
    const MAY_PASS: &str = "\u{1b}(?:[78DEHMc]|[()*+./-][!-~]|#[34568]|\\[[0-9;:]*[@A-Zabd-gmrsuX`]|\
        \\[\\?(?:(?:5|6|7|12|25|45|47|1047|1048|1049|2026);?)+[hl]|\\[\\?[0-9;:]*[JK]|\\[4[hl]|\\[[0-9;:]*[ \"]q|\\[[0-9;:]*!p)";
    regex::Regex::new(MAY_PASS)
        .unwrap()
        .replace_all(shown, "")
        .into_owned()
}

fn output() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{1,3}",
        prop::sample::select(vec![
            "\u{1b}", "[", "]", "P", "_", "\\", "?", ">", ";", "0", "5", "25", "1000", "52;c;", "c", "n",
            "t", "h", "m", "\u{7}", "\u{18}", "\u{5}", "\r", "\n", "\u{9b}", "\u{9c}", "\u{9d}", "\u{85}",
            "é", "☃", "(", "#", " ", "$",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn only_what_may_pass_comes_out_wherever_the_pieces_are_cut(text in output()) {
        let whole = shown(&text);
        let is_obeyed = |c: char| c.is_control() && !matches!(c, '\u{7}'..='\u{f}');
        prop_assert!(!rest_of(&whole).contains(is_obeyed), "{:?}", whole);
        prop_assert_eq!(&shown(&whole), &whole, "what came out passes again");
        for (cut, _) in text.char_indices() {
            let mut filter = TerminalFilter::default();
            let (first, second) = text.split_at(cut);
            let both = filter.filter(first) + &filter.filter(second);
            prop_assert_eq!(&both, &whole, "cut at {}", cut);
        }
    }
}
