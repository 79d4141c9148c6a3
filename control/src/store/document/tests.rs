//! Versions in the store, and rows from before there were any.

use super::*;
use crate::store::MIGRATIONS;

#[tokio::test]
async fn a_document_from_before_versions_is_its_own_first_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .foreign_keys(true);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let (before, after): (Vec<_>, Vec<_>) = MIGRATIONS.into_iter().partition(|(version, ..)| *version < 4);
    for (_, _, sql) in before {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql(
        "INSERT INTO document VALUES ('mine', '1', 'Session', 'JSON', '1.0', 'me', NULL, 'first', NULL, 'd', '{}', \
         'abc', 7)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    for (_, _, sql) in after {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let row = version::find(&mut connection, "mine", VersionChoice::Named("first"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.version, row.default_version, row.latest_version), (1, 1, 1));
    assert_eq!(
        (row.content.as_str(), row.sha256.as_str(), row.created_at),
        ("{}", "abc", 7)
    );
    assert_eq!(
        (row.owner.as_str(), row.document_type.as_str()),
        ("me", "Session")
    );
}

fn version(content: &str) -> NewVersion {
    NewVersion {
        document_format: "JSON".to_owned(),
        schema_version: "1.0".to_owned(),
        display_name: None,
        version_name: None,
        target_type: None,
        description: None,
        content: content.to_owned(),
        sha256: content.to_owned(),
        attachments: Vec::new(),
    }
}

#[tokio::test]
async fn a_version_is_not_added_to_a_document_that_has_become_one_of_another_type() {
    let store = Store::temporary().await;
    let new = NewDocument {
        name: "mine".to_owned(),
        document_type: "Command".to_owned(),
        owner: "me".to_owned(),
        tags: Tags::new(),
        version: version("first"),
    };
    assert!(store.insert_document(&new, false, 1).await.unwrap());
    let update = Update {
        name: "mine",
        document_type: "Session",
        over: VersionChoice::Latest,
        version: version("second"),
        owner: "other".to_owned(),
        limit: 3,
    };
    let updated = store.update_document(&update, 2).await.unwrap();
    assert_eq!(updated, Err(UpdateRefusal::OtherType));
    let versions = store.document_versions("mine").await.unwrap();
    assert_eq!(versions.len(), 1);
}

#[tokio::test]
async fn the_number_of_a_deleted_version_is_not_given_again() {
    let store = Store::temporary().await;
    let new = NewDocument {
        name: "mine".to_owned(),
        document_type: "Session".to_owned(),
        owner: "me".to_owned(),
        tags: Tags::new(),
        version: version("first"),
    };
    assert!(store.insert_document(&new, false, 1).await.unwrap());
    let update = async |content: &str| {
        let update = Update {
            name: "mine",
            document_type: "Session",
            over: VersionChoice::Latest,
            version: version(content),
            owner: "other".to_owned(),
            limit: 3,
        };
        store.update_document(&update, 2).await.unwrap()
    };
    assert_eq!(update("second").await.unwrap().version, 2);
    let deleted = store.delete_version("mine", VersionChoice::Number(2)).await;
    assert_eq!(deleted.unwrap(), Ok(()));
    let third = update("second").await.unwrap();
    assert_eq!(
        (third.version, third.latest_version, third.default_version),
        (3, 3, 1)
    );
    assert_eq!(third.owner, "me", "an update leaves the owner");
    assert_eq!(update("third").await.unwrap().version, 4);
    assert_eq!(update("fourth").await, Err(UpdateRefusal::TooMany));
}
