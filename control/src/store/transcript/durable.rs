//! What of recordings is on the disk for good, that it gets there within a second, and what the endpoint signs of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead as _},
    path::Path,
    sync::{MutexGuard, PoisonError},
};

use moorline_protocol::{transcript::Position, types::TranscriptId};

use super::{MAX_CHAINS, TranscriptFiles, blocking, chain::Chain, file_error};
use crate::store::StoreError;

impl TranscriptFiles {
    /// Up to where the recording survives a power cut, as far as is known here.
    pub(crate) fn durable(&self, recording: &TranscriptId) -> u64 {
        self.durable_lengths().get(recording).copied().unwrap_or(0)
    }

    pub(super) fn is_durable_to(&self, recording: &TranscriptId, length: u64) {
        let mut durable = self.durable_lengths();
        if !durable.contains_key(recording) && durable.len() >= MAX_CHAINS {
            // any: its node keeps more for a second
            durable.pop_first();
        }
        // who looked at the length first may come to tell it last
        let known = durable.entry(recording.clone()).or_default();
        *known = length.max(*known);
    }

    pub(super) fn durable_lengths(&self) -> MutexGuard<'_, BTreeMap<TranscriptId, u64>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what was written last survive a power cut, and countersigns it; called every second, so that a power cut
    /// costs no more than that. What cannot be synced now is tried again at the next call.
    pub(crate) async fn sync(&self, now: u64) -> Result<(), StoreError> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        if unsynced.is_empty() {
            return Ok(());
        }
        let files = self.clone();
        blocking(move || {
            let mut result = sync_path(&files.dir).map(|_| ());
            for recording in unsynced {
                if let Err(error) = files.sync_one(&recording, now) {
                    files.unsynced().insert(recording);
                    result = Err(error);
                }
            }
            result
        })
        .await
    }

    /// Appends go on while the disk works: a second of output at full speed may take it as long.
    pub(super) fn sync_one(&self, recording: &TranscriptId, now: u64) -> Result<(), StoreError> {
        let signable = {
            let _one_at_a_time = self.locked(recording);
            match self.chains().get(recording) {
                Some(Chain::Sealed(sealed)) => sealed.signable(),
                _ => None,
            }
        };
        if let Some(length) = sync_path(&self.path(recording))? {
            self.is_durable_to(recording, length);
        }
        match signable {
            Some(signable) => self.sign_synced(recording, (&signable, now)),
            None => Ok(()),
        }
    }

    /// Countersigns up to a place that is on the disk for good.
    pub(super) fn sign_synced(
        &self,
        recording: &TranscriptId,
        (place, now): (&Position, u64),
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.locked(recording);
        // out of the map, so that nobody waits for the disk behind the lock of all
        let Some(Chain::Sealed(mut sealed)) = self.chains().remove(recording) else {
            return Ok(());
        };
        let path = self.signatures_path(recording);
        let signed = sealed.countersign(&path, &self.signer, (place, now));
        self.keep(recording, Chain::Sealed(sealed));
        signed.map_err(file_error("countersign the transcript", &path))
    }

    /// The endpoint's lines from this one on (the first is 0), at most `limit`.
    pub(crate) async fn signatures(
        &self,
        recording: &TranscriptId,
        from: usize,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let path = self.signatures_path(recording);
        blocking(move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(file_error("read the signatures on the transcript", &path)(error)),
            };
            let lines = io::BufReader::new(file).lines().skip(from).take(limit);
            lines
                .collect::<io::Result<_>>()
                .map_err(file_error("read the signatures on the transcript", &path))
        })
        .await
    }

    pub(super) fn unsynced(&self) -> MutexGuard<'_, BTreeSet<TranscriptId>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its length before, all of which survives. Of a directory it makes the names in it survive. What was removed meanwhile
/// needs nothing.
pub(super) fn sync_path(path: &Path) -> Result<Option<u64>, StoreError> {
    let sync = |file: File| {
        let length = file.metadata()?.len();
        file.sync_all()?;
        Ok(Some(length))
    };
    match File::open(path).and_then(sync) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        synced => synced.map_err(file_error("sync the transcript", path)),
    }
}
