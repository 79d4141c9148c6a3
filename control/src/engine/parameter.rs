//! Parameter Store: names, what a request may call a parameter by, policies.

mod name;
mod policy;
mod reference;
mod selector;

pub(crate) use name::{NameError, check_label, check_name, check_path, is_below};
pub(crate) use policy::{Policies, Policy, PolicyError};
pub(crate) use reference::{Found, names_in, replace};
pub(crate) use selector::{Selected, Selector};

/// What the ARN of every parameter begins with.
const ARN_PREFIX: &str = "arn:moorline:ssm:::parameter/";

/// The ARN of a parameter. No two parameters share one: that of `/a` has two slashes, since `a` may be there as well.
pub(crate) fn arn(name: &str) -> String {
    let is_path = name.get(1..).is_some_and(|rest| rest.contains('/'));
    let name = if is_path {
        name.strip_prefix('/').unwrap_or(name)
    } else {
        name
    };
    format!("{ARN_PREFIX}{name}")
}

/// The name of a parameter that is called by its ARN; any other text is a name.
fn without_arn(text: &str) -> String {
    match text.strip_prefix(ARN_PREFIX) {
        None => text.to_owned(),
        Some(rest) if rest.contains('/') && !rest.starts_with('/') => format!("/{rest}"),
        Some(rest) => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_name_has_an_arn_of_its_own_that_leads_back() {
        let names = ["a", "/a", "/a/b", "a.b", "/a-b/c_d/e"];
        let arns: BTreeSet<String> = names.iter().map(|name| arn(name)).collect();
        assert_eq!(arns.len(), names.len());
        assert_eq!(arn("/a/b"), "arn:moorline:ssm:::parameter/a/b");
        for name in names {
            assert_eq!(without_arn(&arn(name)), name);
        }
    }

    proptest! {
        #[test]
        fn a_name_that_is_allowed_comes_back_from_selector_and_arn(
            name in "(/[a-zA-Z0-9_.-]{1,8}){1,4}|[b-r][a-zA-Z0-9_.-]{0,12}",
            version in 1_i64..1000,
        ) {
            prop_assume!(check_name(&name).is_ok());
            for text in [name.clone(), arn(&name)] {
                let plain = Selected::parse(&text).unwrap();
                prop_assert_eq!(&plain, &Selected { name: name.clone(), selector: Selector::Latest });
                let with_version = Selected::parse(&format!("{text}:{version}")).unwrap();
                prop_assert_eq!(with_version.selector, Selector::Version(version));
                prop_assert_eq!(with_version.name, name.clone());
                let with_label = Selected::parse(&format!("{text}:prod")).unwrap();
                prop_assert_eq!(with_label.selector, Selector::Label("prod".to_owned()));
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,200}") {
            let _parsed = (Selected::parse(&text), check_name(&text), check_path(&text), Policies::parse(&text));
        }
    }
}
