//! A transcript as its reader sees it: line by line, and decrypted where it is encrypted.

use bytes::{Buf, Bytes};
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
    /// Of the source: what was not read as lines yet.
    piece: Bytes,
    /// The same of an encrypted line: what is short there may be millions of lines.
    opened: Bytes,
    cast: Cast,
    identity: Option<Identity>,
    decryptor: Option<Decryptor>,
}

impl<'a> Reader<'a> {
    /// `identity` opens an encrypted one.
    pub(super) fn new(source: Source<'a>, identity: Option<Identity>) -> Self {
        Self {
            source,
            piece: Bytes::new(),
            opened: Bytes::new(),
            cast: Cast::default(),
            identity,
            decryptor: None,
        }
    }

    /// The header, once the first line was read, where it is one of ours.
    pub(super) fn header(&self) -> Option<&Header> {
        self.cast.header()
    }

    /// The next line, or what is wrong with it, which keeps none behind it from being read; `None` at the end of what
    /// there is.
    pub(super) async fn line(&mut self) -> Result<Option<Result<Line, CliError>>, CliError> {
        loop {
            if let Some(inner) = self.inner_line() {
                return Ok(Some(inner));
            }
            let mut rest = &self.piece[..];
            let line = self.cast.next(&mut rest);
            let left = rest.len();
            self.piece.advance(self.piece.len() - left);
            match line {
                Some(Ok(Line::Event { code: 'z', data, .. })) => match self.decryptor()?.decrypt(&data) {
                    Ok(opened) => self.opened = opened.into(),
                    Err(error) => return Ok(Some(Err(CliError::Transcript(error.to_string())))),
                },
                // it is no recording
                Some(Err(error)) if self.cast.is_at_first_line() => return Err(error),
                Some(Err(error)) => {
                    self.missed();
                    return Ok(Some(Err(error)));
                }
                Some(line) => return Ok(Some(line)),
                None => {
                    self.piece = self.source.piece().await?.into();
                    if self.piece.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What is to be known at the end of what was read.
    pub(super) fn ending(&self) -> Option<&'static str> {
        self.source
            .is_cut()
            .then_some("the recording ends here, and what came then is not in it: it was cut")
    }

    /// Back to the begin.
    pub(super) fn rewind(&mut self) -> Result<(), CliError> {
        self.cast = Cast::default();
        self.decryptor = None;
        (self.piece, self.opened) = (Bytes::new(), Bytes::new());
        self.source.rewind()
    }

    /// The next of those in the encrypted line.
    fn inner_line(&mut self) -> Option<Result<Line, CliError>> {
        while !self.opened.is_empty() {
            let end = self.opened.iter().position(|byte| *byte == b'\n');
            let line = self.opened.split_to(end.unwrap_or(self.opened.len()));
            self.opened.advance(usize::from(end.is_some()));
            if !line.is_empty() {
                return Some(self.cast.event(&line));
            }
        }
        None
    }

    /// The line that cannot be read may have been an encrypted one, by whose number the next is opened.
    fn missed(&mut self) {
        let header = self.cast.header();
        if header.is_some_and(|header| header.origin.encryption.is_some())
            && let Ok(decryptor) = self.decryptor()
        {
            decryptor.missed();
        }
    }

    fn decryptor(&mut self) -> Result<&mut Decryptor, CliError> {
        Ok(match &mut self.decryptor {
            Some(decryptor) => decryptor,
            none => none.insert(decryptor(&self.cast, self.identity.as_ref())?),
        })
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
