use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt, symlink},
};

use serde_json::json;
use tempfile::TempDir;

use super::*;

const DOCUMENT: &str = "schemaVersion: '2.2'\nparameters: {v: {type: String, default: d, maxChars: 3}}\nmainSteps:\n\
                        - {action: 'aws:runShellScript', name: step, inputs: {runCommand: ['echo {{ v }}']}}\n";

struct Folder {
    dir: TempDir,
    folder: DropFolder,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = DropFolder::new(dir.path()).unwrap();
        Self { dir, folder }
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        io::Write::write_all(&mut file, text.as_ref()).unwrap();
        set_mode(&path, 0o600);
    }

    fn take(&self) -> Vec<Taken> {
        let found = self.folder.look(&mut None, 100).unwrap();
        found
            .iter()
            .map(|dropped| self.folder.take(dropped).unwrap())
            .collect()
    }

    /// Why the only document is refused.
    fn refusal(&self) -> String {
        let taken = self.take();
        assert_eq!(taken.len(), 1, "{taken:?}");
        taken[0].content.clone().unwrap_err()
    }

    fn names(&self) -> Vec<String> {
        let listed = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_document_is_taken_with_its_parameters_and_under_the_same_id_until_it_is_accepted() {
    let folder = Folder::new();
    folder.put("a.yaml", DOCUMENT);
    folder.put("a.parameters.json", r#"{"v": "x"}"#);
    let first = folder.take();
    assert_eq!(folder.names(), ["a.parameters.json", "a.yaml.taken"]);
    // As after a kill.
    let again = folder.take();
    assert_eq!((again.len(), &again[0].command_id), (1, &first[0].command_id));
    let content: SendCommandContent = serde_json::from_str(again[0].content.as_ref().unwrap()).unwrap();
    assert_eq!(content.parameters, *json!({"v": "x"}).as_object().unwrap());
    assert_eq!(name_of(&again[0].job_id()), Some("a"));
    folder.folder.accepted(&again[0]).unwrap();
    assert!(folder.names().is_empty());
    // The same text, put there again, is another command.
    folder.put("a.yaml", DOCUMENT);
    assert_ne!(folder.take()[0].command_id, first[0].command_id);
}

#[test]
fn only_names_of_documents_are_looked_at_and_at_most_so_many() {
    let folder = Folder::new();
    let others = [
        ".hidden.yaml",
        "a.result.json",
        "a.parameters.yaml",
        "a.txt",
        "a b.json",
        "yaml",
        "é.json",
    ];
    for name in others {
        folder.put(name, DOCUMENT);
    }
    folder.put(&format!("{}.json", "n".repeat(MAX_NAME_BYTES + 1)), DOCUMENT);
    assert!(folder.take().is_empty());
    for name in ["2.json", "1.yaml", "3.v2.yml"] {
        folder.put(name, DOCUMENT);
    }
    let two = folder.folder.look(&mut None, 2).unwrap();
    let two: Vec<String> = two.into_iter().map(|dropped| dropped.name).collect();
    assert_eq!(two, ["1", "2"]);
}

#[test]
fn what_cannot_be_run_says_why_and_stays_under_another_name() {
    let table = [
        ("nonsense", "", "{\"schemaVersion\":", "line 1"),
        (
            "version",
            "",
            "{\"schemaVersion\": \"9.9\", \"mainSteps\": []}",
            "9.9",
        ),
        ("large", "", &"#".repeat(MAX_TEXT_BYTES + 1), "larger than"),
        ("value", "{\"v\": \"long\"}", DOCUMENT, "exceeding the max chars"),
        ("shape", "[1]", DOCUMENT, "is no map"),
    ];
    for (name, parameters, document, reason) in table {
        let folder = Folder::new();
        folder.put(&format!("{name}.yaml"), document);
        if !parameters.is_empty() {
            folder.put(&format!("{name}.parameters.json"), parameters);
        }
        let taken = &folder.take()[0];
        let told = taken.content.clone().unwrap_err();
        assert!(told.contains(reason), "{name}: {told}");
        folder.folder.refuse(taken, &told).unwrap();
        assert!(folder.take().is_empty());
        let result = fs::read_to_string(folder.dir.path().join(format!("{name}.result.json"))).unwrap();
        let result: Value = serde_json::from_str(&result).unwrap();
        assert_eq!(
            (&result["status"], &result["reason"]),
            (&json!("Failed"), &json!(told))
        );
        assert!(folder.names().contains(&format!("{name}.yaml.refused")));
    }
}

#[test]
fn what_others_could_have_written_is_not_run() {
    let folder = Folder::new();
    for mode in [0o620, 0o602] {
        folder.put("a.yaml", DOCUMENT);
        set_mode(&folder.dir.path().join("a.yaml"), mode);
        let refusal = folder.refusal();
        assert!(refusal.contains("others may write to it"), "{refusal}");
        fs::remove_file(folder.dir.path().join("a.yaml.taken")).unwrap();
    }
    folder.put("a.yaml", DOCUMENT);
    folder.put("a.parameters.json", "{}");
    set_mode(&folder.dir.path().join("a.parameters.json"), 0o666);
    assert!(folder.refusal().contains("others may write to it"));
    fs::remove_file(folder.dir.path().join("a.yaml.taken")).unwrap();

    folder.put("elsewhere", DOCUMENT);
    symlink(
        folder.dir.path().join("elsewhere"),
        folder.dir.path().join("link.yaml"),
    )
    .unwrap();
    assert!(folder.refusal().contains("cannot be read"));
    fs::remove_file(folder.dir.path().join("link.yaml.taken")).unwrap();

    nix::unistd::mkfifo(
        &folder.dir.path().join("pipe.yaml"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    assert!(folder.refusal().contains("no regular file"));
    fs::remove_file(folder.dir.path().join("pipe.yaml.taken")).unwrap();

    folder.put("b.yaml", DOCUMENT);
    for mode in [0o770, 0o707, 0o1777] {
        set_mode(folder.dir.path(), mode);
        let error = folder.folder.look(&mut None, 1).unwrap_err().to_string();
        assert!(error.contains("others may write to it"), "{error}");
    }
    set_mode(folder.dir.path(), 0o700);
    assert_eq!(folder.take().len(), 1);
    // Neither through a link, nor below a folder of others.
    let link = folder.dir.path().join("other");
    symlink(folder.dir.path(), &link).unwrap();
    assert!(DropFolder::new(&link).unwrap().look(&mut None, 1).is_err());
    let open = folder.dir.path().join("open");
    fs::create_dir_all(open.join("drop")).unwrap();
    set_mode(&open, 0o777);
    assert!(
        DropFolder::new(&open.join("drop"))
            .unwrap()
            .look(&mut None, 1)
            .is_err()
    );
}

#[test]
fn without_an_end_that_can_be_read_a_result_is_no_success() {
    let result: Value = serde_json::from_str(&ended_text("id", &["nonsense".to_owned()])).unwrap();
    assert_eq!(result["status"], "Failed");
}

#[test]
fn however_many_results_are_in_the_folder_each_document_is_found() {
    let folder = Folder::new();
    for number in 0..10 {
        folder.put(&format!("a{number}.yaml"), DOCUMENT);
        for result in 0..MAX_NAMES / 8 {
            folder.put(&format!("r{number}-{result}.result.json"), "{}");
        }
    }
    let (mut rest, mut found) = (None, BTreeSet::new());
    let mut looks = 0;
    while looks == 0 || rest.is_some() {
        looks += 1;
        let dropped = folder.folder.look(&mut rest, 100).unwrap();
        found.extend(dropped.into_iter().map(|dropped| dropped.name));
    }
    assert_eq!((looks, found.len()), (2, 10));
}

#[test]
fn a_result_waits_for_nothing_that_stands_in_its_place() {
    let folder = Folder::new();
    let place = folder.dir.path().join(".a.result.new");
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (done, written) = std::sync::mpsc::channel();
    let writer = folder.folder.clone();
    std::thread::spawn(move || done.send(writer.write_result("a", "{}").is_ok()));
    let written = written.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(written, Ok(true));
    assert_eq!(folder.names(), ["a.result.json"]);
}
