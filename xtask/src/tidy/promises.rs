//! docs/promises.md names tests that are there: a promise whose test was renamed or removed is nobody's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::root;

const PAGE: &str = "docs/promises.md";
/// Where paths of the page begin that do not begin at the root.
const TESTS: &str = "tests/tests";

/// Names each file and test of the page that the source does not have.
pub(super) fn check(breaches: &mut Vec<String>) -> Result<()> {
    let root = root()?;
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("failed to read {PAGE}"))?;
    breaches.extend(missing(&page, &root)?);
    Ok(())
}

/// What is named in the last column of a table: files, and behind each file the tests in it.
fn missing(page: &str, root: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let Some(cell) = line
            .strip_prefix('|')
            .and_then(|line| line.trim_end().strip_suffix('|'))
            .and_then(|line| line.rsplit_once(" | "))
            .map(|(_, cell)| cell)
        else {
            continue;
        };
        let mut file: Option<PathBuf> = None;
        for name in cell.split('`').skip(1).step_by(2) {
            if name.contains('/') || name.contains('.') {
                let beside = file.as_deref().and_then(Path::parent);
                let found = [root.to_owned(), root.join(TESTS)]
                    .iter()
                    .map(PathBuf::as_path)
                    .chain(beside)
                    .map(|base| base.join(name))
                    .find(|path| path.exists());
                if found.is_none() {
                    missing.push(format!("{PAGE}:{number}: there is no file {name}"));
                }
                file = found;
            } else if is_test_name(name)
                && let Some(file) = &file
                && !has_test(file, name)?
            {
                let shown = file.strip_prefix(root).unwrap_or(file).display();
                missing.push(format!("{PAGE}:{number}: {shown} has no test {name}"));
            }
        }
    }
    Ok(missing)
}

/// Other words in backquotes are commands and variables.
fn is_test_name(name: &str) -> bool {
    name.contains('_')
        && name
            .chars()
            .all(|char| char == '_' || char.is_ascii_lowercase() || char.is_ascii_digit())
}

fn has_test(file: &Path, name: &str) -> Result<bool> {
    if file.is_dir() {
        for entry in fs::read_dir(file)? {
            if has_test(&entry?.path(), name)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let text = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    Ok(String::from_utf8_lossy(&text).contains(&format!("fn {name}(")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_not_in_the_file_before_it_is_named_with_its_line() {
        let root = root().unwrap();
        let page = "| promise | test |\n| --- | --- |\n\
            | a | `xtask/src/tidy/promises.rs` `is_test_name`, `no_such_test` (`MOORLINE_SOAK`) |\n\
            | b | `xtask/src/no_such_file.rs` `no_such_test`, `end_to_end/` |\n\
            | c | `xtask/src/tidy` `has_test`, `no_such_test`, `cargo xtask bench` |\n";
        assert_eq!(
            missing(page, &root).unwrap(),
            [
                "docs/promises.md:3: xtask/src/tidy/promises.rs has no test no_such_test",
                "docs/promises.md:4: there is no file xtask/src/no_such_file.rs",
                "docs/promises.md:5: xtask/src/tidy has no test no_such_test",
            ]
        );
    }
}
