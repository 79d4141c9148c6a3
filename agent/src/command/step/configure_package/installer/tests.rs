use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn version(name: &str) -> Version {
    Version {
        name: name.to_owned(),
        sha256: format!("sum of {name}"),
    }
}

fn installed(name: &str) -> Record {
    Record {
        installed: Some(version(name)),
        ..Record::default()
    }
}

fn install(name: &str) -> Wish {
    Wish::Install {
        version: version(name),
        is_in_place: false,
    }
}

fn update(name: &str) -> Wish {
    Wish::Install {
        version: version(name),
        is_in_place: true,
    }
}

fn uninstall(name: Option<&str>) -> Wish {
    Wish::Uninstall {
        version: name.map(str::to_owned),
    }
}

/// Runs a wish to its end; `fails` are scripts such as `install 2`. Returns what ran, and what became of it.
fn go(record: Record, wish: Wish, fails: &[&str]) -> (Vec<String>, Outcome, Record) {
    let mut installer = Installer::begin(record, wish, "step");
    let mut ran = Vec::new();
    loop {
        match installer.next().clone() {
            Next::Over(outcome) => return (ran, outcome, installer.record),
            Next::Run(version, script) => {
                let line = format!("{} {}", script.action(), version.name);
                let is_failure = fails.contains(&line.as_str());
                ran.push(line);
                installer.ran(match is_failure {
                    true => ScriptEnd::Failed,
                    false => ScriptEnd::Succeeded,
                });
            }
        }
    }
}

/// A case: the version that is installed, the wish, scripts that fail; then what runs, what comes of it, and the version
/// that is installed. Scripts are separated by commas.
struct Case(
    Option<&'static str>,
    Wish,
    &'static str,
    &'static str,
    Outcome,
    Option<&'static str>,
);

fn check(cases: Vec<Case>) {
    for Case(before, wish, fails, scripts, outcome, after) in cases {
        let case = format!("{before:?} {wish:?} {fails:?}");
        let record = before.map_or_else(Record::default, installed);
        let fails: Vec<&str> = fails.split(", ").collect();
        let (ran, ended, record) = go(record, wish, &fails);
        assert_eq!(ran.join(", "), scripts, "{case}");
        assert_eq!(ended, outcome, "{case}");
        let name = record.installed.map(|version| version.name);
        assert_eq!((name.as_deref(), record.underway), (after, None), "{case}");
    }
}

#[test]
fn every_wish_runs_the_scripts_that_it_needs_in_their_order() {
    let (one, two) = (Some("1"), Some("2"));
    let replaced = "uninstall 1, install 2, validate 2";
    let back = "uninstall 2, install 1, validate 1";
    check(vec![
        Case(
            None,
            install("1"),
            "",
            "install 1, validate 1",
            Outcome::Installed,
            one,
        ),
        Case(
            one,
            install("1"),
            "",
            "validate 1",
            Outcome::AlreadyInstalled,
            one,
        ),
        Case(one, install("2"), "", replaced, Outcome::Installed, two),
        Case(two, install("1"), "", back, Outcome::Installed, one),
        Case(
            one,
            update("2"),
            "",
            "update 2, validate 2",
            Outcome::Installed,
            two,
        ),
        Case(
            None,
            update("1"),
            "",
            "install 1, validate 1",
            Outcome::Installed,
            one,
        ),
        Case(
            one,
            uninstall(None),
            "",
            "uninstall 1",
            Outcome::Uninstalled,
            None,
        ),
        Case(one, uninstall(one), "", "uninstall 1", Outcome::Uninstalled, None),
        Case(one, uninstall(two), "", "", Outcome::NotInstalled, one),
        Case(None, uninstall(None), "", "", Outcome::NotInstalled, None),
    ]);
}

#[test]
fn what_fails_gives_way_to_what_was_there_before() {
    let one = Some("1");
    let there_and_back = "uninstall 1, install 2, validate 2, uninstall 2, install 1, validate 1";
    let stuck = "uninstall 1, install 2, uninstall 2, install 1";
    let again = "uninstall 1, install 1, validate 1";
    let both = "update 2, update 1";
    let removed = "install 1, uninstall 1";
    check(vec![
        Case(
            None,
            install("1"),
            "install 1",
            removed,
            Outcome::InstallFailed,
            None,
        ),
        Case(
            one,
            install("2"),
            "validate 2",
            there_and_back,
            Outcome::RolledBack,
            one,
        ),
        Case(
            one,
            install("2"),
            "install 2, uninstall 2, install 1",
            stuck,
            Outcome::RollBackFailed,
            None,
        ),
        Case(one, install("2"), "uninstall 1", again, Outcome::RolledBack, one),
        Case(one, update("2"), "update 2", both, Outcome::RolledBack, one),
        Case(one, update("2"), both, both, Outcome::RollBackFailed, one),
        Case(
            one,
            uninstall(None),
            "uninstall 1",
            "uninstall 1",
            Outcome::UninstallFailed,
            one,
        ),
    ]);
}

#[test]
fn a_version_that_is_out_of_order_or_in_doubt_is_installed_again() {
    let (ran, outcome, _) = go(installed("1"), update("1"), &["validate 1"]);
    assert_eq!(ran, ["validate 1", "update 1", "validate 1", "update 1"]);
    assert_eq!(outcome, Outcome::RolledBack);
    let (_, _, doubtful) = go(installed("1"), update("2"), &["update 2", "update 1"]);
    let (ran, outcome, _) = go(doubtful, install("1"), &[]);
    assert_eq!(ran, ["uninstall 1", "install 1", "validate 1"]);
    assert_eq!(outcome, Outcome::Installed);
}

#[test]
fn scripts_that_a_package_does_not_have_are_missing_only_where_they_are_needed() {
    let mut installer = Installer::begin(installed("1"), install("2"), "step");
    installer.ran(ScriptEnd::Missing);
    assert_eq!(installer.next(), &Next::Run(version("2"), Script::Install));
    installer.ran(ScriptEnd::Succeeded);
    installer.ran(ScriptEnd::Missing);
    assert_eq!(installer.next(), &Next::Over(Outcome::Installed));
    let mut installer = Installer::begin(Record::default(), install("2"), "step");
    installer.ran(ScriptEnd::Missing);
    assert_eq!(installer.next(), &Next::Run(version("2"), Script::Uninstall));
}

#[test]
fn the_step_that_waited_for_a_reboot_goes_on_and_another_cleans_up_first() {
    let mut installer = Installer::begin(installed("1"), install("2"), "step");
    installer.ran(ScriptEnd::Succeeded);
    let text = serde_json::to_string(&installer.record).unwrap();
    let stored: Record = serde_json::from_str(&text).unwrap();
    let same = Installer::resume(&stored, "step").unwrap();
    assert_eq!(same.next(), &Next::Run(version("2"), Script::Install));
    assert_eq!(same.record.needed().len(), 2);

    assert!(Installer::resume(&stored, "another").is_none());
    let mut other = Installer::begin(stored.clone(), install("3"), "another");
    assert_eq!(other.next(), &Next::Run(version("2"), Script::Uninstall));
    other.ran(ScriptEnd::Failed);
    assert_eq!(other.next(), &Next::Run(version("3"), Script::Install));
    other.ran(ScriptEnd::Failed);
    other.ran(ScriptEnd::Succeeded);
    assert_eq!(
        other.next(),
        &Next::Run(version("1"), Script::Install),
        "the last one that was in order"
    );
    let away = Installer::begin(stored, uninstall(None), "another");
    assert_eq!(away.next(), &Next::Run(version("2"), Script::Uninstall));
}

/// A node: for each version whether the last of its scripts that changes something has succeeded in putting it there.
#[derive(Debug, Default)]
struct World(BTreeMap<String, bool>);

impl World {
    fn runs(&mut self, version: &Version, script: Script, end: ScriptEnd) {
        let name = version.name.clone();
        match (script, end) {
            (Script::Install, ScriptEnd::Succeeded) => {
                self.0.insert(name, true);
            }
            (Script::Update, ScriptEnd::Succeeded) => {
                self.0.clear();
                self.0.insert(name, true);
            }
            (Script::Uninstall, ScriptEnd::Succeeded | ScriptEnd::Missing) => {
                self.0.insert(name, false);
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ends(ScriptEnd),
    /// The worker dies; a script that ran may have done its work or not.
    Killed(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Ends(ScriptEnd::Succeeded)),
        2 => Just(Event::Ends(ScriptEnd::Failed)),
        1 => Just(Event::Ends(ScriptEnd::Missing)),
        1 => any::<bool>().prop_map(Event::Killed),
    ];
    proptest::collection::vec(event, 0..80)
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let name = prop_oneof![Just("1"), Just("2"), Just("3")];
    let wish = prop_oneof![
        name.clone().prop_map(install),
        name.clone().prop_map(update),
        proptest::option::of(name).prop_map(uninstall),
    ];
    proptest::collection::vec(wish, 1..12)
}

proptest! {
    #[test]
    fn what_is_called_installed_is_there_whatever_fails_and_whoever_is_killed(
        wishes in wishes(), events in events()
    ) {
        let mut events = events.into_iter();
        let mut record = Record::default();
        let mut world = World::default();
        for (number, wish) in wishes.into_iter().enumerate() {
            let mut installer = Installer::begin(record, wish, &number.to_string());
            let mut scripts = 0;
            loop {
                let (version, script) = match installer.next().clone() {
                    Next::Run(version, script) => (version, script),
                    Next::Over(outcome) => {
                        let now = &installer.record;
                        if let Some(installed) = now.installed.as_ref().filter(|_| now.underway.is_none() && !now.is_doubtful) {
                            prop_assert_eq!(world.0.get(&installed.name), Some(&true), "{:?}", outcome);
                        }
                        break;
                    }
                };
                prop_assert!(installer.record.needed().contains(&&version));
                scripts += 1;
                prop_assert!(scripts <= 8, "it comes to an end");
                match events.next().unwrap_or(Event::Ends(ScriptEnd::Succeeded)) {
                    Event::Ends(end) => {
                        world.runs(&version, script, end);
                        installer.ran(end);
                    }
                    Event::Killed(has_worked) => {
                        if has_worked {
                            world.runs(&version, script, ScriptEnd::Succeeded);
                        }
                        break;
                    }
                }
            }
            record = installer.record;
        }
    }
}
