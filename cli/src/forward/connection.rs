//! One connection of a local program, carried by one stream.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::{
    listener::LocalStream,
    streams::{Incoming, Stream},
};

/// What is read of a local program at once.
const READ_BYTES: usize = 64 * 1024;

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    InOrder,
    /// The local program, the node, or the session has gone.
    Broken,
}

/// Carries both directions until both have ended. `keeps_half`: the end of one is not the end of the other.
pub(super) async fn carry(local: LocalStream, stream: Stream, keeps_half: bool) {
    let (mut reader, mut writer) = split(local);
    let ended = {
        let upload = upload(&mut reader, &stream);
        let download = download(&mut writer, &stream);
        tokio::pin!(upload, download);
        tokio::select! {
            up = &mut upload => match up {
                Ended::InOrder => download.await,
                Ended::Broken => Ended::Broken,
            },
            down = &mut download => match down {
                Ended::InOrder if keeps_half => upload.await,
                down => down,
            },
        }
    };
    match ended {
        Ended::InOrder => stream.release(),
        Ended::Broken => {
            drop(stream);
            reader.unsplit(writer).abort();
        }
    }
}

async fn upload(local: &mut ReadHalf<LocalStream>, stream: &Stream) -> Ended {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // what the node does not take is left with the program
        let Some(room) = stream.room().await else {
            return closed(stream);
        };
        let piece = buffer.get_mut(..room.min(READ_BYTES)).unwrap_or_default();
        match local.read(piece).await {
            Ok(0) => {
                stream.finish();
                return Ended::InOrder;
            }
            Ok(count) => {
                if !stream.write_all(buffer.get(..count).unwrap_or_default()).await {
                    return closed(stream);
                }
            }
            Err(_) => return Ended::Broken,
        }
    }
}

/// Of a stream that takes nothing more. What came before its end is still to be read.
fn closed(stream: &Stream) -> Ended {
    if stream.is_reset() {
        Ended::Broken
    } else {
        Ended::InOrder
    }
}

async fn download(local: &mut WriteHalf<LocalStream>, stream: &Stream) -> Ended {
    loop {
        match stream.read().await {
            Incoming::Data(data) => {
                if local.write_all(&data).await.is_err() {
                    return Ended::Broken;
                }
            }
            Incoming::End => {
                // where the program has gone as well, that is the end in order
                let _gone = local.shutdown().await;
                return Ended::InOrder;
            }
            Incoming::Reset => return Ended::Broken,
        }
    }
}
