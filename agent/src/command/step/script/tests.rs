//! Inputs, interpreters and words.

use serde_json::json;

use super::*;

fn read(inputs: &Value) -> Result<Inputs, String> {
    Inputs::read(inputs.as_object().unwrap())
}

#[test]
fn names_of_inputs_match_without_regard_to_case() {
    let inputs = read(&json!({"RunCommand": ["a", "b"], "TIMEOUTSECONDS": 60})).unwrap();
    assert_eq!(
        (inputs.script.as_str(), inputs.timeout),
        ("a\nb\n", Duration::from_secs(60))
    );
    assert_eq!(read(&json!({"runCommand": "single"})).unwrap().script, "single\n");
}

#[test]
fn a_time_out_is_a_number_or_text_in_range_and_anything_else_an_hour() {
    let table = [
        (json!(60), 60),
        (json!("60"), 60),
        (json!("60.9"), 60),
        (json!(60.9), 60),
        (json!(5), 5),
        (json!(172_800), 172_800),
        (json!(4), 3600),
        (json!(172_801), 3600),
        (json!("soon"), 3600),
        (json!(""), 3600),
        (json!(null), 3600),
        (json!([1]), 3600),
        (json!(-5), 3600),
        (json!(1e300), 3600),
    ];
    for (value, seconds) in table {
        assert_eq!(timeout(Some(&value)), Duration::from_secs(seconds), "{value}");
    }
    assert_eq!(timeout(None), DEFAULT_TIMEOUT);
}

#[test]
fn the_first_line_names_the_interpreter_and_at_most_one_argument() {
    let table: [(&str, &[&str]); 6] = [
        ("echo hi\n", &[]),
        ("#!/bin/bash\necho\n", &["/bin/bash"]),
        ("#! /usr/bin/env python3\n", &["/usr/bin/env", "python3"]),
        ("#!/bin/sh -e -u\n", &["/bin/sh", "-e -u"]),
        ("#!\n", &[]),
        (" #!/bin/sh\n", &[]),
    ];
    for (script, expected) in table {
        assert_eq!(interpreter(script), expected, "{script:?}");
    }
}

#[test]
fn a_script_on_a_file_system_without_execution_is_read_by_its_interpreter() {
    let path = PathBuf::from("/x/_script.sh");
    let script = |text| ScriptFile {
        path: path.clone(),
        interpreter: Some(interpreter(text)),
        is_temporary: false,
    };
    let words = |text| {
        let command = script(text).command();
        let command = command.as_std();
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(OsStr::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words("echo\n"), ["sh", "/x/_script.sh"]);
    assert_eq!(
        words("#!/usr/bin/env python3\n"),
        ["/usr/bin/env", "python3", "/x/_script.sh"]
    );
}

#[test]
fn a_path_is_one_word_for_the_shell_whatever_it_holds() {
    assert_eq!(quoted(Path::new("/a b/it's $(x)")), r"'/a b/it'\''s $(x)'");
}

#[test]
fn a_relative_working_directory_lies_in_the_downloads_if_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(working_directory("", dir.path()), None);
    assert_eq!(working_directory("x", dir.path()), None);
    let downloads = dir.path().join("downloads");
    std::fs::create_dir_all(downloads.join("x")).unwrap();
    assert_eq!(working_directory("", dir.path()), Some(downloads.join("")));
    assert_eq!(working_directory("x", dir.path()), Some(downloads.join("x")));
    assert_eq!(working_directory("/abs", dir.path()), Some(PathBuf::from("/abs")));
}

#[test]
fn root_writes_no_script_into_the_runtime_directory_of_a_user() {
    let places = |is_root| other_places(is_root, Some(PathBuf::from("/run/user/7"))).collect::<Vec<_>>();
    assert_eq!(places(true), [Path::new("/run")]);
    assert_eq!(places(false), [Path::new("/run"), Path::new("/run/user/7")]);
}
