//! A transcript as its reader sees it: line by line, and decrypted where it is encrypted.

use moorline_protocol::transcript::{Decryptor, Header};

use super::{
    cast::{Cast, Line},
    identity::Identity,
    source::Source,
};
use crate::{console::one_line, error::CliError};

/// Reads one transcript.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    source: Source<'a>,
    cast: Cast,
    identity: Option<Identity>,
    decryptor: Option<Decryptor>,
}

impl<'a> Reader<'a> {
    /// `identity` opens an encrypted one.
    pub(super) fn new(source: Source<'a>, identity: Option<Identity>) -> Self {
        Self {
            source,
            cast: Cast::default(),
            identity,
            decryptor: None,
        }
    }

    /// The header, once the first line was read, where it is one of ours.
    pub(super) fn header(&self) -> Option<&Header> {
        self.cast.header()
    }

    /// The next lines, each readable; `None` at the end of what there is.
    pub(super) async fn lines(&mut self) -> Result<Option<Vec<Result<Line, CliError>>>, CliError> {
        let piece = self.source.piece().await?;
        if piece.is_empty() {
            return Ok(None);
        }
        let mut lines = Vec::new();
        for line in self.cast.push(&piece) {
            match line {
                Ok(Line::Event { code: 'z', data, .. }) => self.decrypt(&data, &mut lines),
                line => lines.push(line),
            }
        }
        Ok(Some(lines))
    }

    /// Back to the begin.
    pub(super) fn rewind(&mut self) -> Result<(), CliError> {
        self.cast = Cast::default();
        self.decryptor = None;
        self.source.rewind()
    }

    fn decrypt(&mut self, text: &str, lines: &mut Vec<Result<Line, CliError>>) {
        match self.opened(text) {
            Ok(opened) => {
                let inner = opened
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty());
                lines.extend(inner.map(|line| self.cast.event(line)));
            }
            Err(error) => lines.push(Err(error)),
        }
    }

    fn opened(&mut self, text: &str) -> Result<Vec<u8>, CliError> {
        let decryptor = match &mut self.decryptor {
            Some(decryptor) => decryptor,
            None => self
                .decryptor
                .insert(decryptor(&self.cast, self.identity.as_ref())?),
        };
        decryptor
            .decrypt(text)
            .map_err(|error| CliError::Transcript(error.to_string()))
    }
}

fn decryptor(cast: &Cast, identity: Option<&Identity>) -> Result<Decryptor, CliError> {
    let origin = cast.header().map(|header| &header.origin);
    let Some((origin, encryption)) = origin.and_then(|origin| Some((origin, origin.encryption.as_ref()?)))
    else {
        let told = "the transcript has encrypted lines, and its header no key for them";
        return Err(CliError::Transcript(told.to_owned()));
    };
    let Some(identity) = identity else {
        let recipients = one_line(&encryption.recipients.join(", "));
        return Err(CliError::Transcript(format!(
            "the transcript is encrypted to {recipients}; --identity names the file with the key that opens it"
        )));
    };
    Ok(Decryptor::new(&identity.data_key(encryption)?, origin.id.clone()))
}
