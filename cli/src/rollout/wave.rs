//! Waves as they are typed, and which nodes are in which.

use std::collections::BTreeSet;

/// Which nodes a wave takes out of those that no wave before it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    All,
    Count(usize),
    /// Of all nodes of the roll-out, rounded up.
    Percent(usize),
    Tag {
        key: String,
        value: String,
    },
}

/// `NAME=SELECTOR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaveSpec {
    pub(crate) name: String,
    pub(crate) selector: Selector,
}

/// A wave with its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wave {
    pub(super) name: String,
    /// In ascending order.
    pub(super) nodes: Vec<String>,
}

/// The value of one `--wave`: one wave, or several with commas between them.
pub(crate) fn parse_waves(text: &str) -> Result<Vec<WaveSpec>, String> {
    let waves: Vec<WaveSpec> = text.split(',').map(parse_wave).collect::<Result<_, _>>()?;
    refuse_one_name_twice(&waves)?;
    Ok(waves)
}

/// What is told of one wave must not be taken for another.
pub(crate) fn refuse_one_name_twice(waves: &[WaveSpec]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    match waves.iter().find(|wave| !names.insert(&wave.name)) {
        Some(again) => Err(format!(
            "two waves have the name {}: give each one of its own",
            again.name
        )),
        None => Ok(()),
    }
}

fn parse_wave(text: &str) -> Result<WaveSpec, String> {
    let (name, selector) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} must have the form NAME=tag:K=V, NAME=N, NAME=N% or NAME=all"))?;
    if name.is_empty() || name.len() > 32 || !name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
        return Err(format!(
            "{name:?} is no name of a wave: up to 32 letters, digits, - and _"
        ));
    }
    Ok(WaveSpec {
        name: name.to_owned(),
        selector: parse_selector(selector)?,
    })
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    if text == "all" {
        return Ok(Selector::All);
    }
    if let Some(tag) = text.strip_prefix("tag:") {
        return match tag.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Selector::Tag {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(format!("{text:?} must have the form tag:KEY=VALUE")),
        };
    }
    let wrong =
        || format!("{text:?} is none of tag:KEY=VALUE, a number, a percentage from 1% to 100%, and all");
    let (digits, is_percentage) = text
        .strip_suffix('%')
        .map_or((text, false), |digits| (digits, true));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match (digits.parse(), is_percentage) {
        (Ok(percent @ 1..=100), true) => Ok(Selector::Percent(percent)),
        (Ok(count @ 1..), false) => Ok(Selector::Count(count)),
        _ => Err(wrong()),
    }
}

/// Puts nodes into waves, each node into at most one. `nodes` are all of the roll-out, in the order in which they are
/// taken; `tagged` are those that a wave's tag selects, in the place of the wave.
pub(super) fn assign(nodes: &[String], specs: &[WaveSpec], tagged: &[BTreeSet<String>]) -> Vec<Wave> {
    let mut left: Vec<&String> = nodes.iter().collect();
    let mut waves = Vec::with_capacity(specs.len());
    for (place, spec) in specs.iter().enumerate() {
        let none = BTreeSet::new();
        let wanted = tagged.get(place).unwrap_or(&none);
        let most = match spec.selector {
            Selector::All | Selector::Tag { .. } => usize::MAX,
            Selector::Count(count) => count,
            Selector::Percent(percent) => (nodes.len() * percent).div_ceil(100),
        };
        let is_wanted =
            |node: &String| !matches!(spec.selector, Selector::Tag { .. }) || wanted.contains(node);
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for node in left {
            if taken.len() < most && is_wanted(node) {
                taken.push(node.clone());
            } else {
                rest.push(node);
            }
        }
        left = rest;
        taken.sort();
        waves.push(Wave {
            name: spec.name.clone(),
            nodes: taken,
        });
    }
    waves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("mi-{number:02}")).collect()
    }

    #[test]
    fn waves_are_typed_with_a_name_and_a_selector() {
        let tag = Selector::Tag {
            key: "Role".to_owned(),
            value: "canary=1".to_owned(),
        };
        let parsed = parse_waves("canary=tag:Role=canary=1,then=10%,few=3,rest=all").unwrap();
        let expected = [
            ("canary", tag),
            ("then", Selector::Percent(10)),
            ("few", Selector::Count(3)),
            ("rest", Selector::All),
        ];
        for (spec, (name, selector)) in parsed.iter().zip(expected) {
            assert_eq!((spec.name.as_str(), &spec.selector), (name, &selector));
        }
    }

    #[test]
    fn what_is_no_wave_is_refused() {
        for text in [
            "",
            "all",
            "a=",
            "=all",
            "a=0",
            "a=0%",
            "a=101%",
            "a=-1",
            "a=+1",
            "a=1.5%",
            "a=tag:x",
            "a=tag:=y",
            "a=some",
            "a b=all",
            "a=all,",
            "a=99999999999999999999",
            "a=1,b=1,a=all",
        ] {
            assert!(parse_waves(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_all_nodes_and_rounds_up() {
        let specs = parse_waves("a=tag:x=y,b=10%,c=all").unwrap();
        let tagged = [BTreeSet::from(["mi-05".to_owned(), "mi-99".to_owned()])];
        let waves = assign(&names(11), &specs, &tagged);
        let sizes: Vec<usize> = waves.iter().map(|wave| wave.nodes.len()).collect();
        assert_eq!(sizes, [1, 2, 8]);
        assert_eq!(waves[0].nodes, ["mi-05"]);
        assert_eq!(waves[1].nodes, ["mi-00", "mi-01"]);
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            Just(Selector::All),
            (1..10_usize).prop_map(Selector::Count),
            (1..=100_usize).prop_map(Selector::Percent),
            Just(Selector::Tag {
                key: "k".to_owned(),
                value: "v".to_owned()
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_node_is_in_at_most_one_wave_and_all_takes_the_rest(
            count in 0..40_usize,
            selectors in proptest::collection::vec(selector(), 0..6),
            tagged in proptest::collection::btree_set(0..50_usize, 0..20),
        ) {
            let nodes = names(count);
            let tagged: BTreeSet<String> = tagged.iter().map(|number| format!("mi-{number:02}")).collect();
            let specs: Vec<WaveSpec> = selectors
                .iter()
                .map(|selector| WaveSpec { name: "w".to_owned(), selector: selector.clone() })
                .collect();
            let waves = assign(&nodes, &specs, &vec![tagged; specs.len()]);
            let mut seen: Vec<&String> = waves.iter().flat_map(|wave| &wave.nodes).collect();
            let assigned = seen.len();
            seen.sort();
            seen.dedup();
            prop_assert_eq!(seen.len(), assigned, "a node is in two waves");
            prop_assert!(seen.iter().all(|node| nodes.contains(node)));
            if selectors.contains(&Selector::All) {
                prop_assert_eq!(assigned, count);
            }
        }
    }
}
