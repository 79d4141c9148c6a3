//! A spool whose worker is gone may have holes, where a power cut took what was not on the disk. What verifies of it is
//! sent, closed under the node's seal; the rest never leaves the node, where it would look as if the node had altered it.

use std::{io, path::Path};

use moorline_protocol::transcript::{RecordingId, Remains, Survey};
use moorline_transport::unix_millis;

use super::spooled::Spooled;
use crate::identity::TranscriptKey;

/// What is read at once, before others have their turn.
const PIECE_BYTES: usize = 256 * 1024;

/// Leaves out what is damaged behind `confirmed`, which the endpoint has, and writes an end where there is none. What is
/// not sealed with this node's key is left as it is.
///
/// # Errors
/// The disk does not let it be read, or take what is written.
pub(super) async fn mend(
    spooled: &mut Spooled,
    confirmed: u64,
    (state_dir, node): (&Path, &str),
) -> io::Result<()> {
    let Some(key) = TranscriptKey::load(state_dir)? else {
        return Ok(());
    };
    let Ok(id) = RecordingId::parse(&spooled.recording()) else {
        return Ok(());
    };
    let survey = |from| Survey::new(id.clone(), node.to_owned(), key.public(), from);
    let start = spooled.start();
    let Some(mut remains) = read(spooled, survey(start), start).await? else {
        return Ok(());
    };
    if remains.length < confirmed {
        // what the endpoint has may be gone here
        let Some(behind) = read(spooled, survey(confirmed), confirmed).await? else {
            return Ok(());
        };
        remains = behind;
    }
    let (length, lost) = (remains.length, spooled.end.saturating_sub(remains.length));
    if lost == 0 && spooled.is_whole {
        return Ok(());
    }
    let closing = remains.closing(lost, unix_millis(), |text| key.sign(text));
    if lost > 0 {
        tracing::warn!(
            path = spooled.path,
            lost,
            "what a power cut damaged of a recording is left out"
        );
        spooled.cut_at(length)?;
    }
    if let Err(error) = spooled.add(closing.as_bytes()) {
        // sending the rest makes room on a full disk, and the endpoint closes it without
        tracing::warn!(%error, path = spooled.path, "a recording whose worker is gone gets no end");
    }
    Ok(())
}

async fn read(spooled: &Spooled, mut survey: Survey, from: u64) -> io::Result<Option<Remains>> {
    let mut at = from;
    while at < spooled.end && !survey.is_over() {
        let piece = spooled.read(at, PIECE_BYTES)?;
        survey.push(&piece);
        at += piece.len() as u64;
        tokio::task::yield_now().await;
    }
    Ok(survey.finish())
}

#[cfg(test)]
mod tests {
    use moorline_protocol::transcript::{
        Code, Header, Origin, Receiver, RecordingKind, Sealer, Time, event_line,
    };

    use super::*;
    use crate::recording::{Deliverer, Spool, SpoolLimits, spool::folder};

    const NODE: &str = "mi-0123456789abcdef0";
    const NAME: &str = "me-0abc";

    /// Three records, and where each ends.
    fn recording(key: &TranscriptKey) -> (Vec<u8>, Vec<usize>) {
        let header = Header {
            width: 80,
            height: 24,
            timestamp: None,
            title: None,
            command: None,
            origin: Origin {
                id: RecordingId::parse(NAME).unwrap(),
                node: NODE.to_owned(),
                node_key: key.public().id(),
                kind: RecordingKind::StandardStream,
                document: None,
                document_version: None,
                operator: None,
                reason: None,
                user: None,
                parameters: None,
                follows: None,
                encryption: None,
            },
        };
        let mut sealer = Sealer::new(RecordingId::parse(NAME).unwrap());
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for number in 0..3 {
            let mut lines = if number == 0 {
                header.to_line()
            } else {
                String::new()
            };
            for _ in 0..100 {
                lines += &event_line(Time::from_micros(number), Code::Output, &"x".repeat(80));
            }
            sealer.push(lines.as_bytes());
            let seal = sealer.seal(Time::from_micros(number), 0, |text| key.sign(text));
            bytes.extend_from_slice((lines + &seal.unwrap()).as_bytes());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    /// As a worker that is gone left it; `is_whole`: it had said that this is all.
    fn spooled(dir: &Path, bytes: &[u8], is_whole: bool) -> Spooled {
        let limits = SpoolLimits {
            each: 1 << 20,
            total: 1 << 20,
        };
        let name = (NAME, format!("/v1/transcript/{NAME}"));
        let mut spool = Spool::new(dir, name, Deliverer::Daemon, limits);
        spool.append_growing(bytes, false).unwrap();
        if is_whole {
            spool.mark_whole();
        }
        drop(spool);
        let [found] = Spooled::find(&folder(dir)).try_into().unwrap();
        found
    }

    fn received(key: &TranscriptKey, bytes: &[u8]) -> u64 {
        let id = RecordingId::parse(NAME).unwrap();
        let mut receiver = Receiver::new(id, NODE.to_owned(), vec![key.public()]);
        let mut sealed = 0;
        receiver.push(bytes, |position| sealed = position.length).unwrap();
        sealed
    }

    async fn mended(dir: &Path, mut spooled: Spooled, confirmed: usize) -> (Spooled, Vec<u8>) {
        mend(&mut spooled, confirmed as u64, (dir, NODE)).await.unwrap();
        let bytes = spooled.read(0, 1 << 20).unwrap();
        (spooled, bytes)
    }

    #[tokio::test]
    async fn what_stands_before_a_hole_is_sealed_and_the_rest_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let key = TranscriptKey::make(dir.path()).unwrap();
        let (whole, ends) = recording(&key);
        let mut damaged = whole.clone();
        damaged[ends[0] + 2000..ends[0] + 6096].fill(0);
        let (spooled, bytes) = mended(dir.path(), spooled(dir.path(), &damaged, true), 0).await;
        assert!(!spooled.is_whole, "its end is not the one that was recorded");
        assert_eq!(received(&key, &bytes), bytes.len() as u64);
        assert!(bytes.len() > ends[0] && bytes.len() < ends[0] + 3000);
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains("gap") && text.contains("lost its power"), "{text}");
        // the daemon is killed and looks again
        drop(spooled);
        let [found] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        let (_, again) = mended(dir.path(), found, ends[0]).await;
        assert_eq!(again, bytes);
    }

    #[tokio::test]
    async fn what_the_endpoint_has_may_be_gone_here() {
        let dir = tempfile::tempdir().unwrap();
        let key = TranscriptKey::make(dir.path()).unwrap();
        let (whole, ends) = recording(&key);
        let mut damaged = whole.clone();
        damaged[100..ends[0]].fill(0);
        let at = ends[2] - 50;
        damaged[at..].fill(0);
        let confirmed = ends[0] + 40;
        let (spooled, mut bytes) = mended(dir.path(), spooled(dir.path(), &damaged, false), confirmed).await;
        assert!(spooled.end > ends[1] as u64);
        bytes[..confirmed].copy_from_slice(&whole[..confirmed]);
        assert_eq!(received(&key, &bytes), bytes.len() as u64);
    }

    #[tokio::test]
    async fn a_whole_recording_and_one_of_another_key_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let key = TranscriptKey::make(dir.path()).unwrap();
        let (whole, _) = recording(&key);
        let (found, bytes) = mended(dir.path(), spooled(dir.path(), &whole, true), 0).await;
        assert!(found.is_whole && bytes == whole);
        found.remove();
        TranscriptKey::make(dir.path()).unwrap();
        let (_, bytes) = mended(dir.path(), spooled(dir.path(), &whole, false), 0).await;
        assert_eq!(bytes, whole);
    }
}
