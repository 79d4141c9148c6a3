//! Words as a line for a POSIX shell.

/// Characters that mean nothing to a shell, anywhere in a word. The equal sign is one of them, so that `A=b env`
/// sets a variable as it does when typed.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// One word is a line of a script, taken as it is; several are a command and its arguments.
pub(super) fn join(words: &[String]) -> String {
    if let [script] = words {
        return script.clone();
    }
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
}
