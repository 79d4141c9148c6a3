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

/// As [`join`], for a shell on a terminal that has nothing else to do. A program takes its place, so that the exit code
/// is the program's: a shell that waits ends by the Ctrl-C that its program lives through.
pub(crate) fn join_on_terminal(words: &[String]) -> String {
    match words {
        [script] => script.clone(),
        _ => format!("exec {}", program(words)),
    }
}

/// As [`join`], for a node that runs a command without a shell: it gets one for a script.
pub(crate) fn join_without_shell(words: &[String]) -> String {
    match words {
        [script] => quoted(&["sh".to_owned(), "-c".to_owned(), script.clone()]),
        _ => program(words),
    }
}

/// A program and its arguments, where no shell sets the variables in front of it.
fn program(words: &[String]) -> String {
    let sets_variables = words.first().is_some_and(|word| word.contains('='));
    let env = if sets_variables { "env " } else { "" };
    format!("{env}{}", quoted(words))
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
        assert_eq!(join_without_shell(&owned(&["A=b c", "env"])), "env 'A=b c' env");
    }

    #[test]
    fn a_program_takes_the_place_of_the_shell_on_a_terminal() {
        let joined =
            |words: &[&str]| join_on_terminal(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(joined(&["python3", "-c", "a b"]), "exec python3 -c 'a b'");
        assert_eq!(joined(&["A=b", "env"]), "exec env A=b env");
        assert_eq!(joined(&["cd /; ls"]), "cd /; ls");
    }
}
