//! Words as a line for a POSIX shell, and for what splits a line as one does.

/// Characters that mean nothing to a shell, anywhere in a word. The equal sign is one of them, so that `A=b env`
/// sets a variable as it does when typed.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// One word is a line of a script, taken as it is; several are a command and its arguments.
pub(crate) fn join(words: &[String]) -> String {
    if let [script] = words {
        return script.clone();
    }
    quoted(words)
}

/// As [`join`], for a node that runs a command without a shell: it gets one for a script.
pub(crate) fn join_without_shell(words: &[String]) -> String {
    if let [script] = words {
        return quoted(&["sh".to_owned(), "-c".to_owned(), script.clone()]);
    }
    quoted(words)
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &[&str]) -> String {
        join(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_word_is_a_script() {
        assert_eq!(joined(&["echo $HOME; exit 3"]), "echo $HOME; exit 3");
        assert_eq!(joined(&[""]), "");
    }

    #[test]
    fn several_words_reach_the_program_as_they_are() {
        assert_eq!(joined(&["ls", "-l", "/tmp"]), "ls -l /tmp");
        assert_eq!(
            joined(&["echo", "a b", "", "it's", "$x", "~", "A=b"]),
            r"echo 'a b' '' 'it'\''s' '$x' '~' A=b"
        );
    }

    #[test]
    fn a_real_shell_reads_back_what_was_quoted() {
        let words = [
            "printf",
            r"%s\n",
            "a b",
            "",
            "'\"\\`$(id)",
            "*?[~]",
            "\u{e9}\n;&|<>#!",
        ];
        let output = std::process::Command::new("sh")
            .args(["-c", &joined(&words)])
            .output()
            .unwrap();
        let expected: String = words[2..].iter().map(|word| format!("{word}\n")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn what_was_quoted_is_split_into_the_same_words_without_a_shell() {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let words = owned(&[
            "printf",
            r"%s\n",
            "a b",
            "",
            "'\"\\`$(id)",
            "#",
            "\u{e9}\n;&|<>#!",
            "~",
        ]);
        assert_eq!(shlex::split(&join_without_shell(&words)), Some(words));
        assert_eq!(
            shlex::split(&join_without_shell(&owned(&["cd /; ls 'a b'"]))),
            Some(owned(&["sh", "-c", "cd /; ls 'a b'"]))
        );
    }
}
