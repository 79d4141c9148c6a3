use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

fn read(info: &Value) -> Result<String, String> {
    Repository::read(info.as_object().unwrap()).map(|repository| format!("{:?}", repository.checkout))
}

#[test]
fn a_repository_is_read_and_what_could_be_an_option_is_refused() {
    let table = [
        (json!({"repository": "https://h/a.git"}), Ok("Default")),
        (
            json!({"Repository": "ssh://h/a", "getOptions": "branch:main"}),
            Ok("Branch(\"main\")"),
        ),
        (
            json!({"repository": "https://h/a", "getOptions": "commitID:0123abcd"}),
            Ok("Commit(\"0123abcd\")"),
        ),
        (
            json!({"repository": "https://h/a", "getOptions": "branch:--upload-pack=x"}),
            Err("getOptions"),
        ),
        (
            json!({"repository": "https://h/a", "getOptions": "commitID:main"}),
            Err("getOptions"),
        ),
        (
            json!({"repository": "https://h/a", "getOptions": "tag:x"}),
            Err("getOptions"),
        ),
        (json!({}), Err("Git repository in SourceInfo must be specified")),
        (
            json!({"repository": "git://h/a", "username": "u", "password": "p"}),
            Err("for https"),
        ),
        (
            json!({"repository": "https://h/a", "password": "{{ssm-secure:x}}"}),
            Err("cannot be resolved"),
        ),
        (json!({"repository": "https://h/a\0"}), Err("NUL")),
    ];
    for (info, expected) in table {
        match (read(&info), expected) {
            (Ok(checkout), Ok(expected)) => assert_eq!(checkout, expected, "{info}"),
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{info}: {reason}"),
            (read, _) => panic!("{info}: {read:?}"),
        }
    }
}

#[test]
fn github_is_a_repository_with_a_path() {
    let info = json!({"owner": "o", "repository": "r", "path": "scripts/a.sh", "tokenInfo": "t0ken"});
    let repository = Repository::read_github(info.as_object().unwrap()).unwrap();
    assert_eq!(
        (repository.url.as_str(), repository.path),
        ("https://github.com/o/r.git", "scripts/a.sh")
    );
    for info in [
        json!({"owner": "o/../x", "repository": "r"}),
        json!({"owner": "o@evil", "repository": "r"}),
        json!({"owner": "o"}),
        json!({"owner": "o", "repository": "r", "path": "../../etc"}),
    ] {
        assert!(
            Repository::read_github(info.as_object().unwrap()).is_err(),
            "{info}"
        );
    }
}

#[test]
fn secrets_are_in_the_environment_and_not_in_the_url() {
    let info = json!({"repository": "https://h/a.git", "username": "u", "password": "s3cret"});
    let repository = Repository::read(info.as_object().unwrap()).unwrap();
    assert!(!repository.url.contains("s3cret"));
    let environment = repository.environment(None);
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    assert_eq!(value("GIT_CONFIG_KEY_0"), "http.https://h/a.git.extraHeader");
    assert_eq!(value("GIT_CONFIG_VALUE_0"), "Authorization: Basic dTpzM2NyZXQ=");
    assert_eq!(value("GIT_ALLOW_PROTOCOL"), PROTOCOLS);
    let info = json!({"repository": "ssh://h/a", "privateSSHKey": "key", "skipHostKeyChecking": true});
    let repository = Repository::read(info.as_object().unwrap()).unwrap();
    let key = PrivateKey::new(repository.private_key).unwrap();
    let environment = repository.environment(Some(&key));
    let ssh = environment
        .iter()
        .find(|(name, _)| name == "GIT_SSH_COMMAND")
        .unwrap();
    assert!(
        ssh.1.contains(&format!("-i {}", key.path())) && ssh.1.contains("StrictHostKeyChecking=no"),
        "{}",
        ssh.1
    );
}

#[test]
fn a_link_does_not_lead_out_of_the_repository_nor_through_the_destination() {
    let dir = tempfile::tempdir().unwrap();
    let clone = dir.path().join("clone");
    fs::create_dir(&clone).unwrap();
    let outside = dir.path().join("outside");
    let write = |path: &Path, text: &[u8]| fs::write(path, text).unwrap();
    write(&outside, b"secret");
    std::os::unix::fs::symlink(&outside, clone.join("link")).unwrap();
    write(&clone.join("file"), b"new");
    let destination = |path: &str| Destination::new(dir.path(), path);
    let refused = place(&clone, "link", &destination("a/")).unwrap_err().to_string();
    assert!(refused.contains("leads out"), "{refused}");
    // A link that an earlier download has put in the way is replaced, not followed.
    let target = dir.path().join("target");
    std::os::unix::fs::symlink(&outside, &target).unwrap();
    place(&clone, "/file", &destination("target")).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"secret");
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_repository_writes_into_no_folder_that_a_link_of_another_one_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    let downloads = dir.path().join("downloads");
    let bring = |name: &str, make: &dyn Fn(&Path)| {
        let clone = dir.path().join(name);
        fs::create_dir(&clone).unwrap();
        make(&clone);
        place(&clone, "", &Destination::new(&downloads, "site/"))
    };
    bring("first", &|clone| {
        std::os::unix::fs::symlink(&outside, clone.join("x")).unwrap();
    })
    .unwrap();
    let second = bring("second", &|clone| {
        fs::create_dir_all(clone.join("x/deep")).unwrap();
        fs::write(clone.join("x/deep/file"), "new").unwrap();
    });
    let refused = second.unwrap_err().to_string();
    assert!(refused.contains("site/x is a link"), "{refused}");
    assert!(!outside.join("deep/file").exists());
}
