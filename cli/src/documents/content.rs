//! A document's text, and the files that are attached to it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use moorline_protocol::document::{MAX_TEXT_BYTES, TextFormat};
use moorline_ssm::{
    Blob,
    document::{
        AttachmentsSource, AttachmentsSourceKey, DocumentFormat, PutAttachment, PutAttachmentRequest,
    },
};

use crate::{error::CliError, operator::Operator};

/// What one request takes of a file.
const PIECE_BYTES: usize = 512 * 1024;

/// A text of a file, or of standard input if it is called `-`.
pub(super) fn read_file(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::io(format!("read {}", path.display()), source);
    let limit = MAX_TEXT_BYTES as u64 + 1;
    let mut text = String::new();
    if path == Path::new("-") {
        let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
        read.map_err(failed)?;
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(limit).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// JSON, unless it cannot be.
pub(super) fn format_of(text: &str) -> DocumentFormat {
    match TextFormat::Json.read(text) {
        Ok(_) => DocumentFormat::Json,
        Err(_) => DocumentFormat::Yaml,
    }
}

/// Brings a file to the endpoint, and says how a document refers to it. An upload that broke off goes on.
pub(crate) async fn upload(operator: &Operator, path: &Path) -> Result<AttachmentsSource, CliError> {
    let failed = |source| CliError::io(format!("read {}", path.display()), source);
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        CliError::Usage(format!(
            "{} has no name that an attachment can have",
            path.display()
        ))
    })?;
    let mut file = File::open(path).map_err(failed)?;
    let (sha256, size) = sum(&mut file).map_err(failed)?;
    let mut buffer = vec![0; PIECE_BYTES];
    // The first, empty piece asks what is there already.
    let (mut offset, mut piece) = (0, 0);
    loop {
        let request = PutAttachmentRequest {
            sha256: Some(sha256.clone()),
            size: Some(i64::try_from(size).unwrap_or(i64::MAX)),
            offset: Some(i64::try_from(offset).unwrap_or(i64::MAX)),
            data: Some(Blob(buffer.get(..piece).unwrap_or_default().to_vec())),
        };
        let reply = operator.call::<PutAttachment>(&request).await?;
        if reply.complete == Some(true) {
            break;
        }
        offset = reply
            .next_offset
            .and_then(|offset| u64::try_from(offset).ok())
            .unwrap_or_default();
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        piece = file.read(&mut buffer).map_err(failed)?;
        if piece == 0 {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(failed(source));
        }
    }
    Ok(AttachmentsSource {
        key: Some(AttachmentsSourceKey::AttachmentReference),
        values: Some(vec![format!("sha256:{sha256}")]),
        name: Some(name.to_owned()),
    })
}

/// SHA-256 in lower-case hex, and length.
pub(crate) fn sum(file: &mut (impl Read + Seek)) -> std::io::Result<(String, u64)> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    file.seek(SeekFrom::Start(0))?;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            break;
        };
        hash.update(piece);
        bytes += count as u64;
    }
    let digits = hash
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((digits, bytes))
}
