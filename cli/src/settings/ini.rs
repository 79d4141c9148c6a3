//! The format of the AWS CLI's shared files, as far as static keys need it.

/// Sections of keys and values, in the order of the file.
#[derive(Default)]
pub(super) struct Ini {
    /// Section, key in lower case, value.
    entries: Vec<(String, String, String)>,
}

impl Ini {
    /// Takes `[section]`, `key = value` and comments of `#` or `;`. What it does not know, such as the indented lines
    /// of nested sections, it passes over: other programs write these files.
    pub(super) fn parse(text: &str) -> Self {
        let mut ini = Self::default();
        let mut section = None;
        for line in text.lines() {
            let is_nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let words: Vec<&str> = name.0.split_whitespace().collect();
                section = Some(words.join(" ").replace('"', ""));
            } else if let (Some(section), Some((key, value)), false) =
                (&section, line.split_once('='), is_nested)
            {
                ini.entries.push((
                    section.clone(),
                    key.trim().to_ascii_lowercase(),
                    without_comment(value).trim().to_owned(),
                ));
            }
        }
        ini
    }

    /// The last value of a key, unless it is empty.
    pub(super) fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.0 == section && entry.1 == key)
            .map(|entry| entry.2.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// A comment behind a value begins with a blank and its sign; a secret may hold the sign alone.
fn without_comment(value: &str) -> &str {
    let end = [" #", " ;", "\t#", "\t;"]
        .iter()
        .filter_map(|mark| value.find(mark))
        .min();
    end.and_then(|end| value.get(..end)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_comments_are_told_apart() {
        let ini = Ini::parse(
            "orphan = x\n# comment\n[default]\nKey = one # note\nkey=two\n empty =\n\n[profile  \"my ops\"] ; x\n\
             secret = a/b+c==#d;e\nservices = s\n  nested = no\n",
        );
        assert_eq!(ini.value("default", "key"), Some("two"));
        assert_eq!(ini.value("default", "empty"), None);
        assert_eq!(ini.value("profile my ops", "secret"), Some("a/b+c==#d;e"));
        assert_eq!(ini.value("profile my ops", "nested"), None);
        assert_eq!(ini.value("other", "key"), None);
        assert_eq!(ini.value("", "orphan"), None);
    }

    #[test]
    fn any_text_is_read_without_harm() {
        for text in [
            "[",
            "]",
            "[]",
            "=",
            "[a]\n=",
            "[a]\n===",
            "\u{0}\u{ffff}",
            "[a\nb=c",
        ] {
            assert_eq!(Ini::parse(text).value("a", "b"), None, "{text:?}");
        }
    }
}
