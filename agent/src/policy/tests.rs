use std::{fs, os::unix::fs::PermissionsExt};

use moorline_protocol::document::{Digest, SessionType};
use nix::unistd::Uid;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A Thursday, 12:00 UTC.
const NOON: u64 = 1_795_694_400;

struct Folder(TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.put(name, text);
        }
        folder
    }

    fn put(&self, name: &str, text: &str) {
        write_file(self.0.path(), name, text);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Policy {
        Policy::load(self.0.path()).unwrap()
    }

    fn refusal(&self) -> String {
        load_or_refuse(self.0.path()).unwrap_err().to_string()
    }
}

fn digest() -> Digest {
    Digest::of(&json!({}))
}

fn command<'a>(document: &'a str, actions: &[&'a str]) -> Facts<'a> {
    Facts {
        document,
        digest: digest(),
        operator: Some("arn:aws:iam::1:user/ana"),
        asked: Asked::Command {
            actions: actions.iter().copied().collect(),
        },
    }
}

fn shell(user: Option<&str>) -> Facts<'_> {
    Facts {
        document: "SSM-SessionManagerRunShell",
        digest: digest(),
        operator: Some("arn:aws:iam::1:user/ana"),
        asked: Asked::Program {
            session_type: SessionType::StandardStream,
            user,
        },
    }
}

fn port<'a>(host: &'a str, address: Option<&str>, port: u16) -> Facts<'a> {
    Facts {
        document: "AWS-StartPortForwardingSessionToRemoteHost",
        digest: digest(),
        operator: None,
        asked: Asked::Port(Destination {
            host,
            address: address.map(|address| address.parse().unwrap()),
            port,
        }),
    }
}

/// `+` allowed, `-` refused, `?` undecided.
fn sign(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Allowed(_) => '+',
        Verdict::Refused(_) => '-',
        Verdict::Undecided(_) => '?',
    }
}

#[track_caller]
fn check(policy: &str, cases: &[(Facts<'_>, char)]) {
    let policy = Folder::with(&[("p.toml", policy)]).load();
    for (facts, expected) in cases {
        let verdict = policy.judge(facts, NOON);
        assert_eq!(sign(&verdict), *expected, "{facts:?}: {verdict:?}");
        // Nothing more will be known: what is undecided is refused.
        assert_eq!(policy.permit(facts, NOON).is_ok(), *expected == '+', "{facts:?}");
    }
}

#[test]
fn without_a_file_everything_is_allowed() {
    let missing = Path::new("/nonexistent/policy.d");
    let policy = Policy::load(missing).unwrap();
    assert_eq!(
        sign(&policy.judge(&command("d", &["aws:runShellScript"]), NOON)),
        '+'
    );
    assert_eq!(sign(&policy.judge(&shell(Some("root")), NOON)), '+');
    assert_eq!(fingerprint(missing).to_string(), "none");
}

#[test]
fn the_first_rule_that_holds_decides_in_the_order_of_the_files_names() {
    let rule = |name: &str, effect: &str, pattern: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\neffect = \"{effect}\"\nfor = \"command\"\ndocuments = [\"{pattern}\"]\n"
        )
    };
    let second = format!("[default]\ncommand = \"deny\"\n{}", rule("b", "allow", "AWS-*"));
    let folder = Folder::with(&[
        ("20-b.toml", second.as_str()),
        ("10-a.toml", &rule("a", "deny", "AWS-Update*")),
        ("30-c.toml", "[default]\ncommand = \"allow\"\n"),
        ("ignored.txt", "nonsense"),
        (".hidden.toml", "nonsense"),
    ]);
    let policy = folder.load();
    let verdict = |document| policy.judge(&command(document, &[]), NOON);
    let Verdict::Refused(by) = verdict("AWS-UpdateSSMAgent") else {
        panic!("it is refused");
    };
    assert!(by.to_string().starts_with("rule \"a\" of ") && by.to_string().ends_with("10-a.toml, line 1"));
    assert_eq!(sign(&verdict("AWS-RunShellScript")), '+');
    let Verdict::Refused(by) = verdict("mine") else {
        panic!("it is refused");
    };
    assert!(
        by.to_string()
            .ends_with("20-b.toml has default.command = \"deny\""),
        "{by}"
    );
    // The default is for commands only.
    assert_eq!(sign(&policy.judge(&shell(None), NOON)), '+');
}

#[test]
fn an_allow_rule_needs_every_action_and_a_deny_rule_one() {
    let (shell, download) = ("aws:runShellScript", "aws:downloadContent");
    let cases = |none, one, both| {
        [
            (command("d", &["aws:other"]), none),
            (command("d", &[shell, "aws:other"]), one),
            (command("d", &[shell, download]), both),
        ]
    };
    let rule = |effect, default| {
        format!(
            "default.command = \"{default}\"\n[[rule]]\nname = \"r\"\neffect = \"{effect}\"\nfor = \"command\"\n\
             actions = [\"{shell}\", \"{download}\"]\n"
        )
    };
    check(&rule("allow", "deny"), &cases('-', '-', '+'));
    check(&rule("deny", "allow"), &cases('+', '-', '-'));
}

#[test]
fn a_document_is_known_by_its_content_whatever_its_name() {
    let rule = format!(
        "default.command = \"deny\"\n[[rule]]\nname = \"r\"\neffect = \"allow\"\nfor = \"command\"\nsha256 = [\"{}\"]\n",
        digest()
    );
    let other = Facts {
        digest: Digest::of(&json!({"schemaVersion": "2.2"})),
        ..command("d", &[])
    };
    check(&rule, &[(command("any", &[]), '+'), (other, '-')]);
}

#[test]
fn who_is_not_known_may_be_the_one_who_is_refused_and_is_not_the_one_who_is_allowed() {
    let rule = |effect, default| {
        format!(
            "default.command = \"{default}\"\n[[rule]]\nname = \"r\"\neffect = \"{effect}\"\nfor = \"command\"\n\
             operators = [\"arn:aws:iam::*:user/ana\"]\n"
        )
    };
    let somebody = |operator| Facts {
        operator,
        ..command("d", &[])
    };
    let cases = |ana, bob, nobody| {
        [
            (somebody(Some("arn:aws:iam::1:user/ana")), ana),
            (somebody(Some("arn:aws:iam::1:user/bob")), bob),
            (somebody(None), nobody),
        ]
    };
    check(&rule("allow", "deny"), &cases('+', '-', '-'));
    check(&rule("deny", "allow"), &cases('-', '+', '-'));
}

#[test]
fn a_user_who_is_not_looked_up_yet_leaves_it_undecided() {
    let rule = "default.session = \"deny\"\n[[rule]]\nname = \"r\"\neffect = \"allow\"\nfor = \"session\"\n\
                users = [\"ops\", \"deploy-*\"]\n";
    check(
        rule,
        &[
            (shell(None), '?'),
            (shell(Some("deploy-7")), '+'),
            (shell(Some("root")), '-'),
            // A port session has no user.
            (port("", Some("127.0.0.1"), 22), '-'),
            (command("d", &[]), '+'),
        ],
    );
}

#[test]
fn a_name_that_is_not_looked_up_yet_leaves_networks_undecided() {
    let rule = "default.session = \"deny\"\n[[rule]]\nname = \"r\"\neffect = \"allow\"\nfor = \"session\"\n\
                forward = [\"localhost:5432\", \"10.0.0.0/8:*\"]\n";
    check(
        rule,
        &[
            (port("", Some("127.0.0.1"), 5432), '+'),
            (port("", Some("127.0.0.1"), 22), '-'),
            (port("db", None, 22), '?'),
            (port("db", Some("10.1.1.1"), 22), '+'),
            (port("db", Some("192.0.2.1"), 22), '-'),
            (shell(Some("root")), '-'),
        ],
    );
}

#[test]
fn session_types_and_hours_are_conditions_like_the_others() {
    let rule = |hours| {
        format!(
            "default.session = \"allow\"\n[[rule]]\nname = \"r\"\neffect = \"deny\"\nfor = \"session\"\n\
             session_types = [\"Standard_Stream\"]\nhours = \"{hours}\"\n"
        )
    };
    let cases = |expected| [(shell(None), expected), (port("", Some("::1"), 22), '+')];
    check(&rule("Mon-Fri 08:00-18:00"), &cases('-'));
    check(&rule("Sat 08:00-18:00"), &cases('+'));
}

#[test]
fn a_file_that_cannot_be_understood_refuses_everything_and_is_named_with_its_line() {
    let rule = "[[rule]]\nname = \"r\"\neffect = \"deny\"\nfor = \"command\"\n";
    for (text, line, word) in [
        ("[default]\ncommand = \"maybe\"\n", "line 2", "maybe"),
        ("[default]\n\nshell = \"deny\"\n", "line 3", "shell"),
        (&format!("{rule}sha256 = [\"abc\"]\n"), "line 5", "policy digest"),
        (&format!("{rule}hours = \"always\"\n"), "line 5", "Mon-Fri"),
        (&format!("\n{rule}documents = []\n"), "line 2", "empty"),
        (&format!("\n\n{rule}users = [\"a\"]\n"), "line 3", "for sessions"),
        (&format!("{rule}unknown = 1\n"), "line 5", "unknown"),
        (
            "[[rule]]\nname = \"\"\neffect = \"deny\"\nfor = \"command\"\n",
            "line 1",
            "name",
        ),
        ("[[rule]]\nname = \"r\"\neffect = \"deny\"\n", "line 1", "for"),
    ] {
        let folder = Folder::with(&[("10-good.toml", ""), ("20-bad.toml", text)]);
        let refusal = folder.refusal();
        for expected in ["everything is refused", "20-bad.toml", line, word] {
            assert!(refusal.contains(expected), "{expected:?} is missing: {refusal}");
        }
        assert_eq!(fingerprint(folder.0.path()).to_string(), "unusable");
        // The daemon leaves it to the worker to say so.
        assert_eq!(foresee(folder.0.path(), &command("d", &[])), Ok(()));
    }
}

#[test]
fn limits_are_of_rules_that_allow_commands_and_come_with_the_leave() {
    let rule = |effect: &str, subject: &str, limits: &str| {
        format!("[[rule]]\nname = \"r\"\neffect = \"{effect}\"\nfor = \"{subject}\"\nlimits = {limits}\n")
    };
    let text = rule(
        "allow",
        "command",
        "{ cpu = \"50%\", memory = \"64M\", tasks = 10 }",
    );
    let folder = Folder::with(&[("r.toml", &text)]);
    let grant = folder.load().permit(&command("d", &[]), NOON).unwrap();
    assert_eq!(grant.limits.tasks, Some(10));
    assert!(
        grant
            .to_string()
            .ends_with("line 1, within cpu 50%, memory 64M, tasks 10")
    );
    assert!(
        folder
            .load()
            .text()
            .contains("line 1, within cpu 50%, memory 64M, tasks 10\n")
    );
    for (text, reason) in [
        (rule("deny", "command", "{ tasks = 1 }"), "this rule denies"),
        (rule("allow", "session", "{ tasks = 1 }"), "for commands"),
        (rule("allow", "command", "{}"), "leave it out"),
        (
            rule("allow", "command", "{ memory = \"1\" }"),
            "no amount of memory",
        ),
        (rule("allow", "command", "{ disk = \"1G\" }"), "disk"),
    ] {
        folder.put("r.toml", &text);
        let refusal = folder.refusal();
        assert!(refusal.contains(reason), "{refusal}");
    }
}

#[test]
fn what_others_can_write_is_not_the_owners_word() {
    let folder = Folder::with(&[("p.toml", "")]);
    folder.load();
    folder.set_mode("p.toml", 0o664);
    assert!(
        folder.refusal().contains("p.toml has mode 0664"),
        "{}",
        folder.refusal()
    );
    folder.set_mode("p.toml", 0o646);
    assert!(folder.refusal().contains("p.toml has mode 0646"));
    folder.set_mode("p.toml", 0o644);
    folder.set_mode("", 0o777);
    assert!(folder.refusal().contains("has mode 0777"));
    folder.set_mode("", 0o755);
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(folder.0.path().join("p.toml"), Some(12_345), None).unwrap();
        assert!(folder.refusal().contains("belongs to user 12345"));
    }
}

#[test]
fn what_is_no_file_or_too_large_is_refused_at_once() {
    let folder = Folder::with(&[]);
    nix::unistd::mkfifo(&folder.0.path().join("p.toml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(folder.refusal().contains("is no file"));
    fs::remove_file(folder.0.path().join("p.toml")).unwrap();
    folder.put("p.toml", &"#".repeat(256 * 1024 + 1));
    assert!(folder.refusal().contains("is larger than"));
}

#[test]
fn the_fingerprint_is_that_of_names_and_contents() {
    let of = |files: &[(&str, &str)]| fingerprint(Folder::with(files).0.path()).to_string();
    let one = of(&[("a.toml", ""), ("b.toml", "# x")]);
    assert_eq!(one.len(), 64);
    assert_eq!(one, of(&[("b.toml", "# x"), ("a.toml", ""), ("c.txt", "y")]));
    for other in [
        of(&[("a.toml", "# x"), ("b.toml", "")]),
        of(&[("a.toml", ""), ("c.toml", "# x")]),
        of(&[("b.toml", "# x")]),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn the_example_that_packages_bring_is_a_policy() {
    let example = include_str!("../../../packaging/policy.d/10-example.toml");
    let policy = Folder::with(&[("10-example.toml", example)]).load();
    assert_eq!(sign(&policy.judge(&shell(Some("root")), NOON)), '-');
    assert_eq!(sign(&policy.judge(&shell(Some("ops")), NOON)), '+');
}

#[test]
fn every_example_of_the_page_is_a_policy() {
    let pages = [
        include_str!("../../../docs/policy.md"),
        include_str!("../../../docs/signed-commands.md"),
    ];
    let examples = pages.iter().flat_map(|page| page.split("```toml\n").skip(1));
    assert_eq!(examples.clone().count(), 3);
    for example in examples {
        let text = example.split("```").next().unwrap();
        Folder::with(&[("p.toml", text)]).load();
    }
}

proptest! {
    /// What is known later may decide what was undecided, and never turns a decision round.
    #[test]
    fn a_decision_stands_whatever_becomes_known(
        rules in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..6),
        is_denied in any::<bool>(),
        is_ops in any::<bool>(),
    ) {
        let mut text = format!("default.session = \"{}\"\n", if is_denied { "deny" } else { "allow" });
        for (allows, has_user, has_type) in rules {
            text += &format!("[[rule]]\nname = \"r\"\nfor = \"session\"\neffect = \"{}\"\n", if allows { "allow" } else { "deny" });
            if has_user { text += "users = [\"ops\"]\n"; }
            if has_type { text += "session_types = [\"Port\"]\n"; }
        }
        let policy = Folder::with(&[("p.toml", &text)]).load();
        let early = sign(&policy.judge(&shell(None), NOON));
        let late = sign(&policy.judge(&shell(Some(if is_ops { "ops" } else { "root" })), NOON));
        prop_assert!(late != '?');
        prop_assert!(early == '?' || early == late, "{text}: {early} {late}");
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        drop(Policy::load(Folder::with(&[("p.toml", &text)]).0.path()));
    }
}

#[test]
fn where_signatures_are_required_sessions_are_refused_whatever_the_rules_say() {
    let rule = "require_signature = true\n[[rule]]\nname = \"r\"\neffect = \"allow\"\nfor = \"session\"\n";
    check(
        rule,
        &[(shell(Some("root")), '-'), (port("", Some("::1"), 22), '-')],
    );
    // no later file takes it back
    let folder = Folder::with(&[
        ("10.toml", "require_signature = true"),
        ("20.toml", "require_signature = false"),
    ]);
    assert_eq!(sign(&folder.load().judge(&shell(None), NOON)), '-');
    assert!(
        folder
            .load()
            .text()
            .contains("commands need a signature, sessions are refused")
    );
}

#[test]
fn a_signers_key_is_that_of_openssh() {
    let folder = Folder::with(&[(
        "p.toml",
        "[[signer]]\nname = \"a\"\npublic_key = \"ssh-rsa AAAA\"\n",
    )]);
    let refusal = folder.refusal();
    assert!(
        refusal.contains("line 3") && refusal.contains("ssh-ed25519"),
        "{refusal}"
    );
}
