//! Labels of versions.

use std::collections::BTreeSet;

use sqlx::SqliteConnection;

use super::{Selected, Selector, Store, StoreError, failed_to, find};

/// What became of labels that a version was to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labelling {
    /// This version has them now.
    Done(i64),
    NoSuchParameter,
    NoSuchVersion,
    /// It would have more than it may.
    TooMany,
}

/// What became of labels that a version was to lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unlabelled {
    Removed(BTreeSet<String>),
    NoSuchParameter,
    NoSuchVersion,
}

impl Store {
    /// The labels of a version.
    pub(crate) async fn parameter_labels(&self, name: &str, version: i64) -> Result<Vec<String>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("read the labels of a parameter"))?;
        labels(&mut connection, name, version).await
    }

    /// Gives labels to a version (`None`: the latest), all or none; each is taken from the version that had it.
    pub(crate) async fn label_parameter(
        &self,
        name: &str,
        version: Option<i64>,
        wanted: &[String],
        limit: usize,
        now: u64,
    ) -> Result<Labelling, StoreError> {
        const DOING: &str = "label a version of a parameter";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let version = match find_version(&mut tx, name, version, now).await? {
            Ok(version) => version,
            Err(is_there) if is_there => return Ok(Labelling::NoSuchVersion),
            Err(_) => return Ok(Labelling::NoSuchParameter),
        };
        let mut after: BTreeSet<String> = labels(&mut tx, name, version).await?.into_iter().collect();
        after.extend(wanted.iter().cloned());
        if after.len() > limit {
            return Ok(Labelling::TooMany);
        }
        for label in wanted {
            sqlx::query(
                "INSERT INTO parameter_label (name, label, version) VALUES ($1, $2, $3) \
                 ON CONFLICT (name, label) DO UPDATE SET version = excluded.version",
            )
            .bind(name)
            .bind(label)
            .bind(version)
            .execute(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(Labelling::Done(version))
    }

    /// Takes labels from a version; those that it does not have are no error.
    pub(crate) async fn unlabel_parameter(
        &self,
        name: &str,
        version: i64,
        unwanted: &[String],
        now: u64,
    ) -> Result<Unlabelled, StoreError> {
        const DOING: &str = "take labels from a version of a parameter";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        match find_version(&mut tx, name, Some(version), now).await? {
            Ok(_) => {}
            Err(is_there) if is_there => return Ok(Unlabelled::NoSuchVersion),
            Err(_) => return Ok(Unlabelled::NoSuchParameter),
        }
        let mut removed = BTreeSet::new();
        for label in unwanted {
            let done =
                sqlx::query("DELETE FROM parameter_label WHERE name = $1 AND label = $2 AND version = $3")
                    .bind(name)
                    .bind(label)
                    .bind(version)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed_to(DOING))?;
            if done.rows_affected() > 0 {
                removed.insert(label.clone());
            }
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(Unlabelled::Removed(removed))
    }
}

async fn labels(
    connection: &mut SqliteConnection,
    name: &str,
    version: i64,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar("SELECT label FROM parameter_label WHERE name = $1 AND version = $2 ORDER BY label")
        .bind(name)
        .bind(version)
        .fetch_all(connection)
        .await
        .map_err(failed_to("read the labels of a parameter"))
}

/// The version, or whether at least the parameter is there.
async fn find_version(
    tx: &mut SqliteConnection,
    name: &str,
    version: Option<i64>,
    now: u64,
) -> Result<Result<i64, bool>, StoreError> {
    let mut selected = Selected {
        name: name.to_owned(),
        selector: version.map_or(Selector::Latest, Selector::Version),
    };
    if let Some(row) = find(tx, &selected, now).await? {
        return Ok(Ok(row.version));
    }
    selected.selector = Selector::Latest;
    Ok(Err(find(tx, &selected, now).await?.is_some()))
}
