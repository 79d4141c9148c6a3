use proptest::prelude::*;

use super::*;

fn shown(output: &str) -> String {
    let mut text = PlainText::default();
    text.write(output);
    text.finish();
    text.take()
}

#[test]
fn plain_lines_stay_as_they_are() {
    assert_eq!(shown("a\r\nb \r\n\r\nc"), "a\nb\n\nc\n");
    assert_eq!(shown("é漢\r\n"), "é漢\n");
    assert_eq!(shown("a\tb\r\n"), "a       b\n");
    assert_eq!(shown(""), "");
}

#[test]
fn what_would_show_text_in_another_order_is_shown_itself() {
    assert_eq!(
        shown("a\u{202e}b\u{2066}c\u{2028}d\r\n"),
        "a\u{fffd}b\u{fffd}c\u{fffd}d\n"
    );
}

#[test]
fn colours_and_titles_are_left_out() {
    assert_eq!(
        shown("\x1b]0;title\x07\x1b[01;32mu@h\x1b[00m:\x1b[?2004h$ \x1b(Bls\x1b[K\r\n\x1b]7;x\x1b\\ok\r\n"),
        "u@h:$ ls\nok\n"
    );
    assert_eq!(shown("\x1bP$q\x1b\\a\x1b_x\x1b\\b\x1b=c\x1b[3\x18d"), "abcd\n");
}

#[test]
fn a_line_shows_as_it_was_when_entered() {
    assert_eq!(shown("$ lss\x08\x1b[K\r\n"), "$ ls\n");
    assert_eq!(shown("$ ab\x08\x08\x1b[1@x\r\n"), "$ xab\n");
    assert_eq!(shown("$ abc\x08\x08\x1b[1P\r\n"), "$ ac\n");
    assert_eq!(shown("$ abc\x1b[3D\x1b[CX\r\n"), "$ aXc\n");
    assert_eq!(shown("10%\r 20%\r100%\n"), "100%\n");
    assert_eq!(shown("long line\r\x1b[2Kshort\r\n"), "short\n");
    assert_eq!(shown("abc\x1b[2Gx\r\n"), "axc\n");
}

#[test]
fn a_line_that_the_terminal_wraps_stays_one_line() {
    let mut text = PlainText::default();
    text.set_width(10);
    // as readline does at the margin: a blank and a return, both on the next row
    text.write("$ 12345678 \rabc\x08\x08\x1b[KX\r\n");
    text.write("0123456789abc\r\n");
    // up one row and back to its begin
    text.write("0123456789abc\x1b[A\rZ\r\n");
    // exactly full, then a return: the cursor has not left the row
    text.write("0123456789\rA\r\n");
    text.finish();
    assert_eq!(
        text.take(),
        "$ 12345678aX\n0123456789abc\nZ123456789abc\nA123456789\n"
    );
}

#[test]
fn the_alternate_screen_is_not_text() {
    assert_eq!(
        shown("$ vi\r\n\x1b[?1049h\x1b[2J\x1b[Hfile\r\n~\r\n\x1b[?1049l$ ls\r\n"),
        "$ vi\n[full-screen program]\n$ ls\n"
    );
}

/// What a terminal shows must not be hidden from a reader by a title that only seems to go on.
#[test]
fn a_title_ends_as_on_a_terminal_also_without_its_end() {
    for end in ["\x07", "\x1b\\", "\u{9c}", "\x18", "\x1a", "\x1b[0m", "\x1bc"] {
        for begin in ["\x1b]0;title", "\x1bPq", "\x1b_x"] {
            if (end, begin) != ("\x07", "\x1bPq") && (end, begin) != ("\x07", "\x1b_x") {
                assert_eq!(
                    shown(&format!("{begin}{end}rm -rf /\r\n")),
                    "rm -rf /\n",
                    "{begin:?} {end:?}"
                );
            }
        }
    }
}

#[test]
fn clearing_the_screen_begins_a_line() {
    assert_eq!(shown("a\x1b[H\x1b[2Jb\r\n"), "a\nb\n");
}

#[test]
fn hostile_output_costs_no_memory() {
    let mut text = PlainText::default();
    text.write("\x1b[");
    text.write(&"9".repeat(100_000));
    text.write("C\x1b[999999999@\x1b[4294967295X\x1b[99999999999999999999P\x1b[999999999Gx\x1b[5B\x1b[7A\n");
    text.write(&"x".repeat(2 * MAX_LINE_CHARS));
    text.write(&"\t".repeat(MAX_LINE_CHARS));
    text.write("\x1b[9@\n");
    assert!(text.line.len() <= MAX_LINE_CHARS && text.parameters.len() <= MAX_PARAMETER_BYTES);
    text.set_width(0);
    text.write("a\r\n");
}

proptest! {
    #[test]
    fn no_control_character_is_text(
        output in prop::collection::vec(prop_oneof![any::<String>(), "[\\x1b\\[\\]PX^_;0-9?hlmK\\x00-\\x1f\\x7f-\\x9f]{0,20}"], 0..8),
        width in 0..200_usize,
    ) {
        let mut text = PlainText::default();
        text.set_width(width);
        output.iter().for_each(|part| text.write(part));
        text.finish();
        let shown = text.take();
        prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
}
