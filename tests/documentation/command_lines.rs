//! Command lines of the documentation, judged by a program's own definitions. The tests of each program include this
//! file, since no crate sees the definitions of all three.

use std::{fs, path::Path};

use clap::Command;

/// What stands in an example for a value that the definitions look into.
const PLACEHOLDERS: [(&str, &str); 2] = [("ID", "5c1a4b0e-6f0d-4d57-9a1c-2f3a4b5c6d7e"), ("%p", "22")];

/// Each command line in a code block that the program does not take, with its place and the reason; and each
/// subcommand or option in a sentence that it does not have.
pub(crate) fn refused(program: &Command) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages: Vec<_> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "packaging/README.md",
    ]
    .map(|name| root.join(name))
    .to_vec();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    pages.extend(docs.map(|entry| entry.unwrap().path()));
    let mut refused = Vec::new();
    let mut seen = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let shown = page.strip_prefix(root).unwrap().display();
        let (examples, sentences) = examples_and_sentences(&text);
        for (line, example) in examples {
            for words in commands(&example, program.get_name()) {
                seen += 1;
                if let Err(reason) = program.clone().try_get_matches_from(&words)
                    && reason.use_stderr()
                {
                    refused.push(format!("{shown}:{line}: {}\n{reason}", words.join(" ")));
                }
            }
        }
        for span in sentences.split('`').skip(1).step_by(2) {
            refused.extend(unknown(program, span).map(|word| format!("{shown}: `{span}`: no {word}")));
        }
    }
    assert!(
        seen > 0,
        "the documentation has no example of {}",
        program.get_name()
    );
    refused
}

/// What `--help` does not explain, and values whose name is no more than their option's: it says neither what the value
/// is nor its unit.
pub(crate) fn unexplained(program: &Command) -> Vec<String> {
    let mut unexplained = Vec::new();
    let mut commands = vec![(program.get_name().to_owned(), program)];
    while let Some((shown, command)) = commands.pop() {
        if command.get_about().is_none() {
            unexplained.push(format!("{shown}: nothing says what it does"));
        }
        for argument in command.get_arguments() {
            let (id, names) = (argument.get_id(), argument.get_value_names().unwrap_or_default());
            if argument.get_help().is_none() {
                unexplained.push(format!("{shown}: nothing says what {id} is"));
            }
            let is_value = argument.get_action().takes_values();
            let is_unclear = |name: &str| name.contains('_') || matches!(name, "S" | "M");
            if is_value && names.iter().any(|name| is_unclear(name)) {
                unexplained.push(format!("{shown}: the value of {id} is called {names:?}"));
            }
        }
        let below = command.get_subcommands();
        commands.extend(below.map(|command| (format!("{shown} {}", command.get_name()), command)));
    }
    unexplained
}

/// The lines of code blocks with their numbers, those that go on behind `\` as one; and all the rest.
fn examples_and_sentences(page: &str) -> (Vec<(usize, String)>, String) {
    let (mut examples, mut sentences) = (Vec::new(), String::new());
    let mut is_fenced = false;
    let mut goes_on = false;
    for (number, line) in (1..).zip(page.lines()) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
            continue;
        }
        if !is_fenced && !line.starts_with("    ") {
            sentences.push_str(line);
            sentences.push('\n');
            goes_on = false;
            continue;
        }
        let part = line.strip_suffix('\\').unwrap_or(line);
        match examples.last_mut() {
            Some((_, example)) if goes_on => *example += part,
            _ => examples.push((number, part.to_owned())),
        }
        goes_on = part.len() < line.len();
    }
    (examples, sentences)
}

/// The program's command lines in a line for a shell, or in the settings of ssh; none in a drawing.
fn commands(example: &str, program: &str) -> Vec<Vec<String>> {
    if example.contains('│') || example.contains('─') {
        return Vec::new();
    }
    let mut commands = vec![Vec::new()];
    for word in shlex::Shlex::new(example) {
        if matches!(word.as_str(), "$" | "|" | "&&" | "ProxyCommand") {
            commands.push(Vec::new());
            continue;
        }
        let (word, ends) = match word.strip_suffix(';') {
            Some(word) => (word, true),
            None => (word.as_str(), false),
        };
        let value = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        let value = value.map_or(word, |(_, value)| value);
        commands.last_mut().unwrap().push(value.to_owned());
        if ends {
            commands.push(Vec::new());
        }
    }
    commands
        .into_iter()
        .filter_map(|mut words| {
            let name = Path::new(words.first()?).file_name()?;
            if name != program {
                return None;
            }
            let redirected = words.iter().position(|word| matches!(word.as_str(), "<" | ">"));
            words.truncate(redirected.unwrap_or(words.len()));
            Some(words)
        })
        .collect()
}

/// The first subcommand or option that the program does not have, in a sentence's span of code.
fn unknown(program: &Command, span: &str) -> Option<String> {
    let mut words = span.split_whitespace();
    if words.next()? != program.get_name() {
        return None;
    }
    let mut command = program;
    for (depth, word) in words.take_while(|word| *word != "--").enumerate() {
        if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap_or(option);
            let has = |of: &Command| of.get_arguments().any(|known| known.get_long() == Some(option));
            if !has(command) && !has(program) && !matches!(option, "help" | "version") {
                return Some(word.to_owned());
            }
        } else if let Some(subcommand) = command.find_subcommand(word) {
            command = subcommand;
        } else if depth == 0 {
            return Some(word.to_owned());
        }
    }
    None
}
