//! When a rule holds: `Mon-Fri 08:00-18:00, Sat 10:00-12:00`, in UTC.

use serde::Deserialize;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_SECONDS: u64 = 24 * 60 * 60;
const DAY_MINUTES: u64 = 24 * 60;
const SHAPE: &str = "hours are written as \"Mon-Fri 08:00-18:00, Sat 10:00-12:00\", in UTC";
/// Windows in one text.
const MAX_WINDOWS: usize = 100;

/// Windows of a week. One that ends before it begins ends on the next day.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hours(Vec<Window>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    /// From Monday.
    days: [bool; 7],
    /// Minutes of the day; the end is not in it any more.
    begin: u64,
    end: u64,
}

impl Hours {
    /// Whether the time, in seconds since the Unix epoch, is in one of the windows.
    pub(super) fn contain(&self, now: u64) -> bool {
        let minute = now % DAY_SECONDS / 60;
        // The epoch was a Thursday.
        let today = (now / DAY_SECONDS + 3) % 7;
        let yesterday = (today + 6) % 7;
        self.0.iter().any(|window| {
            let on = |day: u64| window.days.iter().zip(0..).any(|(on, index)| *on && index == day);
            match window.begin < window.end {
                true => on(today) && (window.begin..window.end).contains(&minute),
                false => (on(today) && minute >= window.begin) || (on(yesterday) && minute < window.end),
            }
        })
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let windows: Option<Vec<_>> = text.split(',').map(|text| window(text.trim())).collect();
        match windows {
            Some(windows) if windows.len() <= MAX_WINDOWS => Ok(Self(windows)),
            _ => Err(SHAPE.to_owned()),
        }
    }
}

fn window(text: &str) -> Option<Window> {
    let (days, times) = text.split_once(' ')?;
    let (first, last) = match days.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(days)?, day(days)?),
    };
    let mut on = [false; 7];
    for (index, on) in on.iter_mut().enumerate() {
        // `Sat-Mon` goes over the end of the week.
        *on = match first <= last {
            true => (first..=last).contains(&index),
            false => index >= first || index <= last,
        };
    }
    let (begin, end) = times.trim().split_once('-')?;
    let (begin, end) = (minutes(begin)?, minutes(end)?);
    (begin != end && begin < DAY_MINUTES).then_some(Window { days: on, begin, end })
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| *day == text)
}

/// `HH:MM`, up to `24:00`.
fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u64> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> u64 {
        let time: jiff::Timestamp = time.parse().unwrap();
        time.as_second().cast_unsigned()
    }

    #[track_caller]
    fn check(hours: &str, cases: &[(&str, bool)]) {
        let hours = Hours::try_from(hours.to_owned()).unwrap();
        for (time, expected) in cases {
            assert_eq!(hours.contain(at(time)), *expected, "{time}");
        }
    }

    #[test]
    fn a_window_holds_on_its_days_from_its_first_minute_to_its_last() {
        check(
            "Mon-Fri 08:00-18:00, Sat 10:00-12:00",
            &[
                // a Thursday
                ("2026-11-26T07:59:59Z", false),
                ("2026-11-26T08:00:00Z", true),
                ("2026-11-26T17:59:59Z", true),
                ("2026-11-26T18:00:00Z", false),
                ("2026-11-28T11:00:00Z", true),
                ("2026-11-28T17:00:00Z", false),
                ("2026-11-29T11:00:00Z", false),
            ],
        );
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        check(
            "Sun 22:00-04:00",
            &[
                ("2026-11-29T21:59:00Z", false),
                ("2026-11-29T23:00:00Z", true),
                ("2026-11-30T03:59:00Z", true),
                ("2026-11-30T04:00:00Z", false),
                ("2026-11-29T03:00:00Z", false),
            ],
        );
        check(
            "Sat-Mon 00:00-24:00",
            &[
                ("2026-11-30T23:59:00Z", true),
                ("2026-11-28T00:00:00Z", true),
                ("2026-12-01T00:00:00Z", false),
            ],
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Mon",
            "mon 08:00-18:00",
            "Mon 8:00-18:00",
            "Mon 08:00-08:00",
            "Mon 24:00-08:00",
            "Mon 08:00-24:01",
            "Mon 08:60-18:00",
            "Mon-Fri 08:00",
            "Mon 08:00-18:00,",
            "Mon +8:00-18:00",
        ] {
            assert!(Hours::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
