//! Recorded transcripts: one asciicast file per session, or command on a node, and a row that says whether it is complete.

mod at_rest;
mod chain;
mod chunk;
mod durable;
mod remote;
mod row;
mod search;
mod seekable;
mod share;
mod space;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_protocol::{
    transcript::{BadBlocks, Ending, MAX_RECORDING_BYTES, RecordingId, Refusal},
    types::{InstanceId, TranscriptId},
};
use tokio::sync::{Notify, Semaphore, futures::Notified};

pub(crate) use self::chain::Sender;
#[cfg(test)]
use self::space::RESERVED_BYTES;
use self::{chain::Chain, share::Shares, space::Space};
pub(crate) use self::{
    chunk::{Appended, Chunk, ChunkBody},
    remote::{RemoteStore, RemoteStoreError},
    row::{Hold, Place, Recorded, Tombstone, TranscriptQuery, TranscriptRow},
    search::Searched,
    seekable::Content,
};
use super::StoreError;
use crate::{auth::EndpointSigningKey, private_directory::make_private_directory};

/// Chains that are held in memory; more recordings than that at once are read again from the disk.
const MAX_CHAINS: usize = 4096;
/// Of a line that has not come whole one of them holds so much at most, and all together so much, but for what is little.
const MOST_LINE_BYTES: usize = 256 * 1024;
const MOST_HELD_BYTES: usize = if cfg!(test) {
    1024 * 1024
} else {
    128 * 1024 * 1024
};
const LITTLE_BYTES: usize = 16 * 1024;
/// Appends are serialised by session, over this many locks.
const LOCKS: usize = 64;

/// How far a recording is vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TranscriptState {
    /// More may come.
    Open,
    /// Of an agent that does not seal.
    Plain,
    /// It is whole, and signed so.
    Complete,
    /// Its end did not come, or what came last was not as it should be; signed so.
    Cut,
}

impl From<Ending> for TranscriptState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Complete => Self::Complete,
            Ending::Cut => Self::Cut,
        }
    }
}

impl TranscriptState {
    const ALL: [Self; 4] = [Self::Open, Self::Plain, Self::Complete, Self::Cut];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Plain => "plain",
            Self::Complete => "complete",
            Self::Cut => "cut",
        }
    }
}

/// Where the chain of a recording is had from.
enum Source<'a> {
    /// It was in memory: that of a recording that is growing.
    Known(Chain),
    /// It is in memory, or made from the files; of this node.
    Sender(&'a Sender),
}

/// The directory of transcripts.
#[derive(Debug, Clone)]
pub(crate) struct TranscriptFiles {
    dir: PathBuf,
    locks: Arc<[Mutex<()>; LOCKS]>,
    /// Up to where recordings that grow are on the disk for good. One that is not here is synced within a second.
    durable: Arc<Mutex<BTreeMap<TranscriptId, u64>>>,
    /// Recordings written since the last [`Self::sync`].
    unsynced: Arc<Mutex<BTreeSet<TranscriptId>>>,
    signer: Arc<EndpointSigningKey>,
    /// Of recordings that something was added to lately.
    chains: Arc<Mutex<BTreeMap<TranscriptId, Chain>>>,
    /// A function, so that tests can fill the disk.
    space: fn(&File) -> io::Result<Space>,
    shares: Arc<Shares>,
    /// For those who wait for more of a recording. They are few, so one for all.
    changed: Arc<Notify>,
    /// There is something to pack, or to remove.
    at_rest: Arc<Notify>,
    /// Where finished recordings go.
    remote: Option<Arc<RemoteStore>>,
    /// One recording is compressed at a time.
    packing: Arc<Mutex<()>>,
    /// Searches take turns: each reads whole recordings.
    searches: Arc<Semaphore>,
}

impl TranscriptFiles {
    /// The directory is made with the first recording.
    pub(crate) fn new(dir: PathBuf, signer: Arc<EndpointSigningKey>) -> Self {
        Self {
            dir,
            signer,
            chains: Arc::default(),
            locks: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            durable: Arc::default(),
            unsynced: Arc::default(),
            space: Space::around,
            shares: Arc::default(),
            changed: Arc::default(),
            at_rest: Arc::default(),
            packing: Arc::default(),
            remote: None,
            searches: Arc::new(Semaphore::new(1)),
        }
    }

    /// Finished recordings go there.
    pub(crate) fn with_remote(self, remote: Option<RemoteStore>) -> Self {
        Self {
            remote: remote.map(Arc::new),
            ..self
        }
    }

    /// On a disk that is nearly full.
    #[cfg(test)]
    pub(crate) fn without_room(dir: PathBuf, signer: Arc<EndpointSigningKey>) -> Self {
        Self {
            space: |_| {
                Ok(Space {
                    available: RESERVED_BYTES / 2,
                    total: u64::MAX,
                })
            },
            ..Self::new(dir, signer)
        }
    }

    /// Whoever waits for more of a recording looks again.
    pub(crate) fn has_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Ends when a recording has changed since the call, perhaps another.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Stores a chunk if it begins exactly where the recording ends, so that a repeated one is harmless. A closed
    /// recording takes no more bytes; that it is complete can still be said.
    pub(crate) async fn append(
        &self,
        recording: &TranscriptId,
        sender: Sender,
        chunk: Chunk,
        (is_closed, now): (bool, u64),
    ) -> Result<Appended, StoreError> {
        let files = self.clone();
        let recording = recording.clone();
        blocking(move || {
            let path = files.path(&recording);
            files
                .append_now(&recording, &sender, &chunk, (is_closed, now))
                .map_err(file_error("append to the transcript", &path))
        })
        .await
    }

    fn append_now(
        &self,
        recording: &TranscriptId,
        sender: &Sender,
        chunk: &Chunk,
        (is_closed, now): (bool, u64),
    ) -> io::Result<Appended> {
        let _one_at_a_time = self.locked(recording);
        let source = Source::Sender(sender);
        self.append_locked(recording, &sender.node, source, chunk, (is_closed, now))
    }

    /// The same of a recording that is growing, without a question to the database: its chain is in memory and says
    /// whose it is. `None`: it is not there, or another node's; nothing was done.
    pub(crate) async fn append_to_known(
        &self,
        recording: &TranscriptId,
        node: &InstanceId,
        chunk: Chunk,
        now: u64,
    ) -> Result<Option<Appended>, StoreError> {
        let files = self.clone();
        let (recording, node) = (recording.clone(), node.clone());
        blocking(move || {
            let _one_at_a_time = files.locked(&recording);
            let Some(chain) = files.take_chain_of(&recording, &node) else {
                return Ok(None);
            };
            let path = files.path(&recording);
            files
                .append_locked(
                    &recording,
                    node.as_str(),
                    Source::Known(chain),
                    &chunk,
                    (false, now),
                )
                .map(Some)
                .map_err(file_error("append to the transcript", &path))
        })
        .await
    }

    /// Out of the map, if it is growing and this node's.
    fn take_chain_of(&self, recording: &TranscriptId, node: &InstanceId) -> Option<Chain> {
        let mut chains = self.chains();
        match chains.get(recording) {
            Some(Chain::Sealed(sealed)) if sealed.node() == node.as_str() => chains.remove(recording),
            _ => None,
        }
    }

    fn append_locked(
        &self,
        recording: &TranscriptId,
        node: &str,
        source: Source<'_>,
        chunk: &Chunk,
        (is_closed, now): (bool, u64),
    ) -> io::Result<Appended> {
        let (path, signatures) = (self.path(recording), self.signatures_path(recording));
        if !path.try_exists()? {
            let is_packed = self.packed_path(recording).try_exists()?;
            // what is packed or was deleted does not begin again
            if is_closed || is_packed {
                return Ok(Appended::Closed(0));
            }
            if signatures.try_exists()? {
                return Err(chain::shorter_than_signed());
            }
        }
        let file = self.open_for_append(&path)?;
        let length = file.metadata()?.len();
        // a node that could have its chain read again from the disk at will could keep the disk busy
        let give_back = |source| match source {
            // one that does not fit the file would blame the node for what somebody did to it
            Source::Known(chain) if chain.is_of(length) => self.keep(recording, chain),
            Source::Known(_) | Source::Sender(_) => {}
        };
        if chunk.offset != length {
            // its node would take it that what it sent and forgot is lost
            if chunk.offset > length && chain::signed_length(&signatures)? > length {
                return Err(chain::shorter_than_signed());
            }
            give_back(source);
            return Ok(Appended::WrongOffset(length));
        }
        let added = u64::try_from(chunk.body.len()).unwrap_or(u64::MAX);
        let longer = length.saturating_add(added);
        if longer > MAX_RECORDING_BYTES {
            give_back(source);
            return Ok(Appended::TooLong(length));
        }
        // what is in memory stays there only if all goes well: the files can always tell
        let known = self.chains().remove(recording);
        let sender = match &source {
            Source::Known(_) => None,
            Source::Sender(sender) => Some(*sender),
        };
        let (mut chain, mut taken) = match (source, known) {
            (Source::Known(chain), _) | (Source::Sender(_), Some(chain)) => (chain, Ok(())),
            (Source::Sender(sender), None) => {
                if let Some(length) = self.repair(recording, &file)? {
                    return Ok(Appended::WrongOffset(length));
                }
                self.load(recording, sender, &file)?
            }
        };
        let has_ended = is_closed || matches!(&chain, Chain::Sealed(sealed) if sealed.is_closed());
        if added > 0 && has_ended {
            return Ok(Appended::Closed(length));
        }
        if added > 0 {
            let space = (self.space)(&file)?;
            let keep = |chain| {
                if taken.is_ok() {
                    self.keep(recording, chain);
                }
            };
            if !space.has_room_for(added) {
                keep(chain);
                return Ok(Appended::NoRoom);
            }
            if !space.leaves_as_much_as(self.shares.of(node), added) {
                keep(chain);
                return Ok(Appended::OverShare);
            }
        }
        let mut end = length;
        let before = chain.clone();
        for piece in chunk.body.pieces() {
            let Ok(piece) = piece else {
                file.set_len(length)?;
                if taken.is_ok() {
                    self.keep(recording, before);
                }
                return Ok(Appended::Garbled(BadBlocks));
            };
            if let (Chain::Sealed(sealed), Ok(())) = (&mut chain, &taken) {
                taken = sealed.push(&piece);
            }
            if let Err(refusal) = taken {
                return self.break_off(recording, (&file, &piece), chain, (refusal, now));
            }
            if let Err(error) = file.write_all_at(&piece, end) {
                // half a chunk would be taken for a whole one when the node asks how much is here
                file.set_len(length)?;
                return Err(error);
            }
            end += piece.len() as u64;
        }
        if let (Chain::Undecided, Some(sender)) = (&chain, sender) {
            (chain, taken) = self.load(recording, sender, &file)?;
        }
        if let Err(refusal) = taken {
            return self.break_off(recording, (&file, &[]), chain, (refusal, now));
        }
        self.shares.add(node, added);
        let state = self.settle(recording, &file, &mut chain, (chunk, now))?;
        self.keep(recording, chain);
        Ok(Appended::Stored(longer, state))
    }

    /// What a chunk that was taken asks for beside.
    fn settle(
        &self,
        recording: &TranscriptId,
        file: &File,
        chain: &mut Chain,
        (chunk, now): (&Chunk, u64),
    ) -> io::Result<TranscriptState> {
        if chunk.is_last || chunk.is_durable {
            file.sync_data()?;
            if self.durable(recording) == 0 {
                // its name as well, the first time
                File::open(&self.dir)?.sync_all()?;
            }
            match chunk.is_last {
                true => drop(self.durable_lengths().remove(recording)),
                false => self.is_durable_to(recording, file.metadata()?.len()),
            }
        }
        // what was synced here is countersigned there all the same, a second's together
        if !chunk.is_last {
            self.unsynced().insert(recording.clone());
        }
        match chain {
            Chain::Sealed(sealed) if chunk.is_last => {
                let path = self.signatures_path(recording);
                let ending = sealed.close(&path, &self.signer, (now, Ending::Complete))?;
                Ok(ending.into())
            }
            Chain::Undecided | Chain::Plain if chunk.is_last => Ok(TranscriptState::Plain),
            Chain::Undecided | Chain::Plain | Chain::Sealed(_) => Ok(TranscriptState::Open),
        }
    }

    /// The node sent something that is not as it should be: in this piece, or before. What stands before it is kept, and
    /// is all there will be.
    fn break_off(
        &self,
        recording: &TranscriptId,
        (file, piece): (&File, &[u8]),
        mut chain: Chain,
        (refusal, now): (Refusal, u64),
    ) -> io::Result<Appended> {
        let length = file.metadata()?.len();
        let good = refusal.offset.saturating_sub(length);
        let good = piece
            .get(..usize::try_from(good).unwrap_or(usize::MAX))
            .unwrap_or_default();
        file.write_all_at(good, length)?;
        file.set_len(refusal.offset)?;
        file.sync_data()?;
        if let Chain::Sealed(sealed) = &mut chain {
            sealed.close(&self.signatures_path(recording), &self.signer, (now, Ending::Cut))?;
        }
        self.keep(recording, chain);
        Ok(Appended::Broken(refusal.to_string()))
    }

    /// The session ended long ago, and its node did not say that the recording is whole.
    pub(crate) async fn give_up(
        &self,
        recording: &TranscriptId,
        sender: Sender,
        now: u64,
    ) -> Result<TranscriptState, StoreError> {
        let files = self.clone();
        let recording = recording.clone();
        blocking(move || {
            let path = files.path(&recording);
            files
                .give_up_now(&recording, &sender, now)
                .map_err(file_error("close the transcript", &path))
        })
        .await
    }

    fn give_up_now(
        &self,
        recording: &TranscriptId,
        sender: &Sender,
        now: u64,
    ) -> io::Result<TranscriptState> {
        let _one_at_a_time = self.locked(recording);
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(recording))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TranscriptState::Plain),
            Err(error) => return Err(error),
        };
        self.chains().remove(recording);
        self.repair(recording, &file)?;
        let (mut chain, _) = self.load(recording, sender, &file)?;
        let Chain::Sealed(sealed) = &mut chain else {
            return Ok(TranscriptState::Plain);
        };
        if let Some(whole) = sealed.whole_bytes().filter(|_| !sealed.is_closed()) {
            file.set_len(whole)?;
            file.sync_data()?;
        }
        let path = self.signatures_path(recording);
        Ok(sealed.close(&path, &self.signer, (now, Ending::Cut))?.into())
    }

    /// Removes what a power cut left in pieces, and says how long the recording is then; `None`: there is nothing of that
    /// kind. Taken for the node's own it would look as if the node had altered it; so the node is asked for it again,
    /// which has it or says that it has not.
    fn repair(&self, recording: &TranscriptId, file: &File) -> io::Result<Option<u64>> {
        let length = chain::cut_at_hole(file, &self.signatures_path(recording))?;
        if let Some(length) = length {
            tracing::warn!(%recording, length, "what a power cut left in pieces was removed from a transcript");
        }
        Ok(length)
    }

    fn load(
        &self,
        recording: &TranscriptId,
        sender: &Sender,
        file: &File,
    ) -> io::Result<(Chain, Result<(), Refusal>)> {
        let id = RecordingId::parse(recording.as_str()).map_err(io::Error::other)?;
        Chain::load(
            &id,
            sender,
            (file, &self.signatures_path(recording)),
            &self.signer,
        )
    }

    fn keep(&self, recording: &TranscriptId, chain: Chain) {
        let held = |chain: &Chain| match chain {
            Chain::Sealed(sealed) => sealed.held_bytes(),
            Chain::Undecided | Chain::Plain => 0,
        };
        let is_growing = matches!(&chain, Chain::Sealed(sealed) if !sealed.is_closed());
        let mut chains = self.chains();
        // a line that grows for ever, or in many recordings at once, is read again from the disk instead
        let is_worth_it = is_growing
            && held(&chain) <= MOST_LINE_BYTES
            && (held(&chain) <= LITTLE_BYTES
                || chains.values().map(held).sum::<usize>() + held(&chain) <= MOST_HELD_BYTES);
        if is_worth_it {
            if chains.len() >= MAX_CHAINS {
                // any: each is made anew from its files
                chains.pop_first();
            }
            chains.insert(recording.clone(), chain);
        }
    }

    fn chains(&self) -> MutexGuard<'_, BTreeMap<TranscriptId, Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_for_append(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600);
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private_directory(&self.dir)?;
                options.open(path)
            }
            other => other,
        }
    }

    /// A session id is a file name: its grammar has no separators and no leading dot.
    fn path(&self, recording: &TranscriptId) -> PathBuf {
        self.dir.join(format!("{recording}.cast"))
    }

    fn packed_path(&self, recording: &TranscriptId) -> PathBuf {
        self.dir.join(format!("{recording}.cast.zst"))
    }

    fn signatures_path(&self, recording: &TranscriptId) -> PathBuf {
        self.dir.join(format!("{recording}.signatures"))
    }

    /// Held by whoever works on the recording's files.
    fn locked(&self, recording: &TranscriptId) -> MutexGuard<'_, ()> {
        let sum = recording
            .as_str()
            .bytes()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        let [first, ..] = &*self.locks;
        let lock = self.locks.get(sum % LOCKS).unwrap_or(first);
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::File { doing, path, source }
}

/// File work stays off the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| {
        Err(StoreError::File {
            doing: "work on a transcript",
            path: String::new(),
            source: io::Error::other(stopped),
        })
    })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
