//! What each node's recordings take of the disk, so that no node takes what the others need.
//!
//! It is counted anew from time to time, and what arrives between is added, so that a chunk asks no database.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{TranscriptFiles, blocking};
use crate::store::{Store, StoreError};

/// Bytes on this disk, by node.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<BTreeMap<String, u64>>);

impl Shares {
    pub(super) fn of(&self, node: &str) -> u64 {
        self.lock().get(node).copied().unwrap_or(0)
    }

    pub(super) fn add(&self, node: &str, bytes: u64) {
        let mut shares = self.lock();
        match shares.get_mut(node) {
            Some(share) => *share = share.saturating_add(bytes),
            None => drop(shares.insert(node.to_owned(), bytes)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TranscriptFiles {
    /// Counts what each node's recordings take of this disk. What arrives meanwhile may be missing until the next time.
    pub(crate) async fn count_shares(&self, store: &Store) -> Result<(), StoreError> {
        let mut shares = store.packed_bytes().await?;
        let unpacked = store.unpacked_transcripts().await?;
        let files = self.clone();
        blocking(move || {
            for (id, node) in unpacked {
                // packed meanwhile, or it cannot be read: that keeps no other from being counted
                let bytes = fs::metadata(files.path(&id)).map_or(0, |file| file.len());
                *shares.entry(node).or_default() += bytes;
            }
            *files.shares.lock() = shares;
            Ok(())
        })
        .await
    }

    #[cfg(test)]
    pub(crate) fn share_of(&self, node: &str) -> u64 {
        self.shares.of(node)
    }
}
