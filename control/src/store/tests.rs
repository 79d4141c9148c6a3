//! What the store promises to every capability: durability, one writer, an up-to-date schema.

use std::os::unix::fs::PermissionsExt as _;

use moorline_protocol::types::ActivationId;

use super::*;
use crate::test_support::{FINGERPRINT, node_id};

fn activation(registration_limit: i64) -> NewActivation {
    NewActivation {
        activation_id: "00000000-0000-4000-8000-000000000000".parse().unwrap(),
        code_hash: "hash".to_owned(),
        iam_role: "role".to_owned(),
        description: None,
        default_instance_name: None,
        registration_limit,
        expires_at: 1_000_000,
        tags: Tags::from([("env".to_owned(), "test".to_owned())]),
    }
}

async fn register(store: &Store, activation: &ActivationId, index: u32) -> Result<(), RegistrationRefusal> {
    let node = NewNode {
        instance_id: node_id(index),
        fingerprint: FINGERPRINT.to_owned(),
        public_key: format!("key {index}"),
        registered_from: None,
    };
    store
        .register_node(activation, &node, 1000, |hash| hash == "hash")
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).await.unwrap();
    let new = activation(2);
    first.insert_activation(&new, 500).await.unwrap();
    register(&first, &new.activation_id, 0).await.unwrap();
    let node = first.node(&node_id(0)).await.unwrap();
    // A killed process closes nothing.
    std::mem::forget(first);
    let second = Store::open(dir.path()).await.unwrap();
    assert_eq!(second.node(&node_id(0)).await.unwrap(), node);
    let listed = second.activations().await.unwrap();
    assert_eq!((listed[0].registrations_count, listed[0].tags.len()), (1, 1));
    register(&second, &new.activation_id, 1).await.unwrap();
    assert_eq!(
        register(&second, &new.activation_id, 2).await,
        Err(RegistrationRefusal::LimitReached)
    );
}

#[tokio::test]
async fn machines_that_register_at_once_do_not_pass_the_limit() {
    let store = Store::temporary().await;
    let new = activation(3);
    store.insert_activation(&new, 500).await.unwrap();
    let attempts = (0..10).map(|index| register(&store, &new.activation_id, index));
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    assert_eq!(store.nodes().await.unwrap().len(), 3);
}

#[tokio::test]
async fn readers_cannot_write_and_the_file_is_the_owners() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    assert!(
        sqlx::query("DELETE FROM node")
            .execute(&store.readers)
            .await
            .is_err()
    );
    let mode = std::fs::metadata(dir.path().join("control.db"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(store.is_healthy().await);
    store.close().await;
    assert!(!store.is_healthy().await);
}

#[tokio::test]
async fn the_writer_waits_for_the_disk() {
    let store = Store::temporary().await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!((mode.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
}

#[tokio::test]
async fn a_row_that_cannot_be_is_reported_with_its_place() {
    let store = Store::temporary().await;
    let new = activation(1);
    store.insert_activation(&new, 500).await.unwrap();
    register(&store, &new.activation_id, 0).await.unwrap();
    sqlx::query("UPDATE node SET instance_id = 'mi-nonsense'")
        .execute(&store.writer)
        .await
        .unwrap();
    let error = store.nodes().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store holds an impossible instance_id in node mi-nonsense"
    );
}

#[tokio::test]
async fn a_store_that_is_no_database_is_an_error_not_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("control.db"), vec![b'x'; 8192]).unwrap();
    assert!(Store::open(dir.path()).await.is_err());
    assert_eq!(
        std::fs::read(dir.path().join("control.db")).unwrap(),
        vec![b'x'; 8192]
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_not_healthy() {
    let store = Store::temporary().await;
    for (read_only, healthy) in [("ON", false), ("OFF", true)] {
        let sql = format!("PRAGMA query_only = {read_only}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&store.writer)
            .await
            .unwrap();
        assert_eq!(store.is_healthy().await, healthy);
    }
}
