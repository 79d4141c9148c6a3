//! `moorline transcript text`: what was shown, line by line with its time, and what else happened between.

use std::time::Duration;

use moorline_protocol::transcript::Header;
use serde_json::Value;

use super::{cast::Line, reader::Reader, text::PlainText};
use crate::{
    console::{self, one_line},
    counted::counted,
    error::CliError,
};

/// Text that waits to be printed together, in bytes.
const PRINTED_BYTES: usize = 64 * 1024;
/// So much output is looked at before what it makes is printed: cursor moves make blanks of a few bytes.
const SLICE_BYTES: usize = 512;

/// Prints all of it, without a control character of the recording.
pub(super) async fn show(mut reader: Reader<'_>, with_times: bool) -> Result<(), CliError> {
    let mut page = Page::new(with_times, console::print);
    let read = read(&mut reader, &mut page, with_times).await;
    page.finish();
    page.print()?;
    read
}

async fn read<P: FnMut(&str) -> Result<(), CliError>>(
    reader: &mut Reader<'_>,
    page: &mut Page<P>,
    with_times: bool,
) -> Result<(), CliError> {
    let (mut has_header, mut broken) = (false, None);
    while let Some(line) = reader.line().await? {
        if !std::mem::replace(&mut has_header, true)
            && let Some(header) = reader.header().filter(|_| with_times)
        {
            page.done.push_str(&title(header));
        }
        match line {
            Ok(line) => page.line(line)?,
            Err(error) => {
                page.note(page.at, &error.to_string());
                page.print_much()?;
                broken.get_or_insert(error);
            }
        }
    }
    if let Some(ending) = reader.ending() {
        page.note(page.at, ending);
    }
    broken.map_or(Ok(()), Err)
}

/// Who did it, where and when.
fn title(header: &Header) -> String {
    let origin = &header.origin;
    let began = header.timestamp.and_then(|seconds| {
        let seconds = i64::try_from(seconds).ok()?;
        jiff::Timestamp::from_second(seconds).ok()
    });
    let began = began.map_or_else(String::new, |time| format!(", began {time}"));
    let operator = origin.operator.as_deref().unwrap_or("-");
    let reason = origin.reason.as_deref();
    let reason = reason.map_or_else(String::new, |reason| format!(", reason: {reason}"));
    let title = format!("-- {} on {} by {operator}{began}{reason}", origin.id, origin.node);
    one_line(&title) + "\n"
}

/// Puts lines of text together, and prints them before they are many.
struct Page<P> {
    with_times: bool,
    screen: PlainText,
    at: Duration,
    done: String,
    print: P,
}

impl<P: FnMut(&str) -> Result<(), CliError>> Page<P> {
    fn new(with_times: bool, print: P) -> Self {
        Self {
            with_times,
            screen: PlainText::default(),
            at: Duration::ZERO,
            done: String::new(),
            print,
        }
    }

    fn line(&mut self, line: Line) -> Result<(), CliError> {
        match line {
            Line::Size { width, .. } => self
                .screen
                .set_width(usize::try_from(width).unwrap_or(usize::MAX)),
            Line::Output { at, data } => self.output(at, &data)?,
            Line::Event { at, code, data } => match happened(code, &data) {
                Some(Happened::Output(text)) => self.output(at, &text)?,
                Some(Happened::Note(note)) => self.note(at, &note),
                None => {}
            },
        }
        self.print_much()
    }

    fn output(&mut self, at: Duration, text: &str) -> Result<(), CliError> {
        self.at = at;
        let mut rest = text;
        while !rest.is_empty() {
            let (slice, later) = rest.split_at(rest.floor_char_boundary(SLICE_BYTES));
            rest = later;
            self.screen.write(slice);
            self.take_screen();
            self.print_much()?;
        }
        Ok(())
    }

    fn print_much(&mut self) -> Result<(), CliError> {
        match self.done.len() >= PRINTED_BYTES {
            true => self.print(),
            false => Ok(()),
        }
    }

    fn note(&mut self, at: Duration, note: &str) {
        // what stands on the line of the cursor was there before
        self.finish();
        self.at = at;
        self.stamp();
        self.done.push_str(&format!("-- {}\n", one_line(note)));
    }

    fn finish(&mut self) {
        self.screen.finish();
        self.take_screen();
    }

    fn print(&mut self) -> Result<(), CliError> {
        (self.print)(&std::mem::take(&mut self.done))
    }

    /// A line has the time at which it was ended.
    fn take_screen(&mut self) {
        for line in self.screen.take().lines() {
            self.stamp();
            self.done.push_str(line);
            self.done.push('\n');
        }
    }

    fn stamp(&mut self) {
        if self.with_times {
            let seconds = self.at.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            self.done
                .push_str(&format!("[{hours:02}:{minutes:02}:{:02}] ", seconds % 60));
        }
    }
}

/// What an event that is no output of a terminal means to a reader.
#[derive(Debug, PartialEq)]
enum Happened {
    Output(String),
    Note(String),
}

fn happened(code: char, data: &str) -> Option<Happened> {
    match code {
        'x' => Some(Happened::Note(format!("exit code {data}"))),
        'm' => Some(Happened::Note(format!("marker: {data}"))),
        'e' => {
            let event: Value = serde_json::from_str(data).ok()?;
            match event.get("event")?.as_str()? {
                "stderr" => Some(Happened::Output(event.get("data")?.as_str()?.to_owned())),
                name => note(name, &event).map(Happened::Note),
            }
        }
        // seals, countersignatures, what was typed, and what is not known
        _ => None,
    }
}

fn note(name: &str, event: &Value) -> Option<String> {
    let member = |name: &str| match event.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(value @ Value::Number(_)) => Some(value.to_string()),
        _ => None,
    };
    let bytes = || match event.get("bytes").and_then(Value::as_u64) {
        Some(count) => counted(count, "byte"),
        None => "? bytes".to_owned(),
    };
    let or_unknown = |name| member(name).unwrap_or_else(|| "?".to_owned());
    let with = |before: &str, name, after: &str| {
        member(name).map_or_else(String::new, |value| format!("{before}{value}{after}"))
    };
    Some(match name {
        "gap" => format!("gap: {} not recorded{}", bytes(), with(" (", "reason", ")")),
        "masked" => format!("masked: {} not shown", bytes()),
        "opened" => format!(
            "opened: connection {}{}",
            or_unknown("stream"),
            with(" to ", "address", "")
        ),
        "closed" => format!(
            "closed: connection {}{}{}{}",
            or_unknown("stream"),
            with(", sent ", "sent", " bytes"),
            with(", received ", "received", " bytes"),
            with(": ", "error", "")
        ),
        "step" => format!(
            "step {}{}{}{}{}{}",
            or_unknown("name"),
            with(" (", "action", ")"),
            with(" within ", "within", ""),
            with(": ", "status", ""),
            with(", code ", "code", ""),
            with(": ", "text", "")
        ),
        "end" => format!("end{}", with(": ", "reason", "")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seconds: u64, code: char, data: &str) -> Line {
        Line::Event {
            at: Duration::from_secs(seconds),
            code,
            data: data.to_owned(),
        }
    }

    #[test]
    fn output_that_makes_much_text_of_few_bytes_is_never_in_memory_together() {
        let (mut longest, mut all) = (0, 0);
        let mut page = Page::new(true, |text: &str| {
            longest = longest.max(text.len());
            all += text.len();
            Ok(())
        });
        let wide = Line::Size {
            width: u64::MAX,
            height: 1,
        };
        page.line(wide).unwrap();
        for bomb in ["\u{1b}[999999Cx\n", "x\r\u{1b}[999999@\n"] {
            let data = bomb.repeat(3000);
            page.line(Line::Output {
                at: Duration::ZERO,
                data,
            })
            .unwrap();
        }
        assert!(all > 10 * 1024 * 1024, "{all}");
        assert!(longest < 1024 * 1024, "{longest}");
    }

    #[test]
    fn lines_have_the_time_of_their_end_and_events_are_told_between() {
        let mut shown = String::new();
        let mut page = Page::new(true, |text: &str| {
            shown.push_str(text);
            Ok(())
        });
        for line in [
            Line::Output {
                at: Duration::from_secs(1),
                data: "$ ls\r\n".to_owned(),
            },
            Line::Output {
                at: Duration::from_secs(3661),
                data: "part".to_owned(),
            },
            event(
                3662,
                'e',
                r#"{"event":"gap","bytes":120,"reason":"disk full\u001b[2J"}"#,
            ),
            event(3662, 'e', r#"{"event":"masked","bytes":8}"#),
            event(
                3663,
                'e',
                r#"{"event":"opened","stream":1,"address":"10.0.0.1:80"}"#,
            ),
            event(
                3663,
                'e',
                r#"{"event":"closed","stream":1,"sent":5,"received":7,"error":"reset"}"#,
            ),
            event(
                3664,
                'e',
                r#"{"event":"step","name":"run","action":"aws:runShellScript","status":"Success"}"#,
            ),
            event(3664, 'e', r#"{"event":"stderr","data":"oops\n"}"#),
            event(3665, 'e', r#"{"event":"of a later release"}"#),
            event(3665, 'e', "no JSON"),
            event(3665, 's', "seal 1 a b 3 c"),
            event(3665, 'c', "countersign"),
            event(3665, 'q', "unknown"),
            event(3666, 'x', "3"),
            event(3666, 'e', r#"{"event":"end","reason":"exit"}"#),
        ] {
            page.line(line).unwrap();
        }
        page.finish();
        page.print().unwrap();
        assert_eq!(
            shown,
            "[00:00:01] $ ls\n[01:01:01] part\n[01:01:02] -- gap: 120 bytes not recorded (disk full\u{fffd}[2J)\n\
             [01:01:02] -- masked: 8 bytes not shown\n[01:01:03] -- opened: connection 1 to 10.0.0.1:80\n\
             [01:01:03] -- closed: connection 1, sent 5 bytes, received 7 bytes: reset\n\
             [01:01:04] -- step run (aws:runShellScript): Success\n[01:01:04] oops\n\
             [01:01:06] -- exit code 3\n[01:01:06] -- end: exit\n"
        );
    }
}
