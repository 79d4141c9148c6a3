//! The keys that data keys of sessions are sealed with: our stand-in for KMS. They stand in a file of their own, outside
//! the database and its backups (docs/deviations.md says what that is worth).

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use uuid::Uuid;

use super::random;

/// First line of the file.
const FILE_HEADER: &str = "moorline-kms-keys 1";
/// First byte of what is sealed.
const SEALED_VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// What the newest key is called.
pub(crate) const KMS_ALIAS: &str = "alias/moorline";
const ARN_PREFIX: &str = "arn:moorline:kms:::";

/// The file is not what [`KmsKeys::new_file`] writes. Nothing of the file is told: it holds keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KmsFileError {
    #[error("the first line is not {FILE_HEADER:?}")]
    Header,
    #[error("line {0} is not a key's uuid and base64 of 32 bytes, with a space between")]
    Line(usize),
    #[error("there is no key in it")]
    Empty,
}

/// Why something sealed does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnsealError {
    /// Sealed with another key than the one that was named.
    OtherKey,
    /// Not sealed here, changed, or sealed for another context.
    Invalid,
}

struct KmsKey {
    id: Uuid,
    cipher: LessSafeKey,
}

/// All keys; the last one seals, each opens what it sealed.
pub(crate) struct KmsKeys(Vec<KmsKey>);

impl fmt::Debug for KmsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

impl KmsKeys {
    /// The content of a new file, with one new key.
    pub(crate) fn new_file() -> String {
        let key: [u8; KEY_BYTES] = random();
        format!("{FILE_HEADER}\n{} {}\n", Uuid::new_v4(), STANDARD.encode(key))
    }

    /// Reads a file: the header, then a key a line. A line that is added at the end is the key that seals from then on.
    ///
    /// # Errors
    /// It has another form.
    pub(crate) fn read(file: &str) -> Result<Self, KmsFileError> {
        let mut lines = file.lines();
        if lines.next() != Some(FILE_HEADER) {
            return Err(KmsFileError::Header);
        }
        let keys: Result<Vec<KmsKey>, KmsFileError> = (2..)
            .zip(lines)
            .filter(|(_, line)| !line.is_empty())
            .map(|(number, line)| KmsKey::read(line).ok_or(KmsFileError::Line(number)))
            .collect();
        Some(keys?)
            .filter(|keys| !keys.is_empty())
            .map(Self)
            .ok_or(KmsFileError::Empty)
    }

    /// Seals with the key that is named; returns its ARN as well. `None`: there is no such key.
    pub(crate) fn seal(
        &self,
        key_id: &str,
        context: &BTreeMap<String, String>,
        plaintext: &[u8],
    ) -> Option<(String, Vec<u8>)> {
        let key = self.0.iter().rev().find(|key| key.is_called(key_id))?;
        let nonce: [u8; NONCE_LEN] = random();
        let head = key.head();
        let mut text = plaintext.to_vec();
        key.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(additional_data(&head, context)),
                &mut text,
            )
            .expect("a data key is far below AES-GCM's limit");
        Some((key.arn(), [&head[..], &nonce, &text].concat()))
    }

    /// Opens what was sealed for exactly this context, if need be with the key that is named; returns its ARN as well.
    pub(crate) fn unseal(
        &self,
        key_id: Option<&str>,
        context: &BTreeMap<String, String>,
        sealed: &[u8],
    ) -> Result<(String, Vec<u8>), UnsealError> {
        let invalid = UnsealError::Invalid;
        let (head, rest) = sealed
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(UnsealError::Invalid)?;
        let (nonce, text) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(UnsealError::Invalid)?;
        let key = self.0.iter().find(|key| key.head() == *head).ok_or(invalid)?;
        if key_id.is_some_and(|id| !key.is_called(id)) {
            return Err(UnsealError::OtherKey);
        }
        let mut text = text.to_vec();
        let opened = key.cipher.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(additional_data(head, context)),
            &mut text,
        );
        let length = opened.map_err(|_| UnsealError::Invalid)?.len();
        text.truncate(length);
        Ok((key.arn(), text))
    }

    /// Whether there is a key of this name.
    pub(crate) fn has(&self, key_id: &str) -> bool {
        self.0.iter().any(|key| key.is_called(key_id))
    }
}

/// The version and the key's uuid.
const HEAD_BYTES: usize = 1 + 16;

impl KmsKey {
    fn read(line: &str) -> Option<Self> {
        let (id, key) = line.split_once(' ')?;
        let key = STANDARD.decode(key).ok()?;
        Some(Self {
            id: Uuid::try_parse(id).ok()?,
            // takes no other length than 32 bytes
            cipher: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?),
        })
    }

    fn arn(&self) -> String {
        format!("{ARN_PREFIX}key/{}", self.id)
    }

    /// By uuid, alias, or the ARN of either. The alias means every key, so that it goes on to open what an older one
    /// sealed.
    fn is_called(&self, name: &str) -> bool {
        let name = name.strip_prefix(ARN_PREFIX).unwrap_or(name);
        let id = name.strip_prefix("key/").unwrap_or(name);
        name == KMS_ALIAS || Uuid::try_parse(id) == Ok(self.id)
    }

    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [SEALED_VERSION; HEAD_BYTES];
        head[1..].copy_from_slice(self.id.as_bytes());
        head
    }
}

/// The context in one form only: sorted by name, each text behind its length.
fn additional_data(head: &[u8; HEAD_BYTES], context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut data = head.to_vec();
    for text in context.iter().flat_map(|(name, value)| [name, value]) {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    }

    fn keys() -> KmsKeys {
        KmsKeys::read(&KmsKeys::new_file()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_context_only() {
        let keys = keys();
        let sealed_for = context(&[("a", "bc"), ("d", "")]);
        let (arn, sealed) = keys.seal("alias/moorline", &sealed_for, b"data key").unwrap();
        let opened = keys.unseal(None, &sealed_for, &sealed);
        assert_eq!(opened, Ok((arn, b"data key".to_vec())));
        for other in [
            context(&[]),
            context(&[("a", "bc")]),
            context(&[("ab", "c"), ("d", "")]),
            context(&[("a", "b"), ("cd", "")]),
        ] {
            assert_eq!(
                keys.unseal(None, &other, &sealed),
                Err(UnsealError::Invalid),
                "{other:?}"
            );
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(
                keys.unseal(None, &sealed_for, &changed),
                Err(UnsealError::Invalid)
            );
            assert_eq!(
                keys.unseal(None, &sealed_for, &sealed[..index]),
                Err(UnsealError::Invalid)
            );
        }
    }

    #[test]
    fn a_key_is_called_by_alias_uuid_and_arn() {
        let keys = keys();
        let (arn, sealed) = keys.seal("alias/moorline", &context(&[]), b"x").unwrap();
        let uuid = arn.rsplit('/').next().unwrap();
        for name in [&arn, uuid, "alias/moorline", "arn:moorline:kms:::alias/moorline"] {
            assert_eq!(keys.seal(name, &context(&[]), b"x").unwrap().0, arn);
            assert!(keys.unseal(Some(name), &context(&[]), &sealed).is_ok(), "{name}");
        }
        let other = Uuid::new_v4().to_string();
        for name in [
            &other,
            "",
            "alias/aws/ssm",
            "key",
            "arn:aws:kms:eu-west-1:1:key/x",
        ] {
            assert_eq!(keys.seal(name, &context(&[]), b"x"), None);
            let refused = keys.unseal(Some(name), &context(&[]), &sealed);
            assert_eq!(refused, Err(UnsealError::OtherKey), "{name}");
        }
    }

    #[test]
    fn a_key_that_is_added_seals_and_the_old_one_goes_on_to_open() {
        let (old, new) = (KmsKeys::new_file(), KmsKeys::new_file());
        let before = KmsKeys::read(&old).unwrap();
        let (old_arn, sealed) = before.seal("alias/moorline", &context(&[]), b"x").unwrap();
        let line = new.lines().nth(1).unwrap();
        let after = KmsKeys::read(&format!("{old}{line}\n")).unwrap();
        let (new_arn, _) = after.seal("alias/moorline", &context(&[]), b"x").unwrap();
        assert_ne!(new_arn, old_arn);
        let opened = after.unseal(Some("alias/moorline"), &context(&[]), &sealed);
        assert_eq!(opened, Ok((old_arn.clone(), b"x".to_vec())));
        assert_eq!(
            after.unseal(Some(&new_arn), &context(&[]), &sealed),
            Err(UnsealError::OtherKey)
        );
        assert!(after.has(&old_arn) && !before.has(&new_arn));
    }

    #[test]
    fn a_file_of_another_form_is_refused_without_telling_of_it() {
        let refused = |file: &str| KmsKeys::read(file).unwrap_err();
        assert_eq!(refused("moorline-kms-keys 2\n"), KmsFileError::Header);
        assert_eq!(refused(&format!("{FILE_HEADER}\n\n")), KmsFileError::Empty);
        let id = Uuid::nil();
        for line in [
            "secret",
            &format!("{id} c2VjcmV0"),
            &format!("{id} ?"),
            "x c2VjcmV0",
        ] {
            let error = refused(&format!("{FILE_HEADER}\n{line}\n"));
            assert_eq!(error, KmsFileError::Line(2));
            assert!(!error.to_string().contains("secret") && !error.to_string().contains("c2Vj"));
        }
        let shown = format!("{:?}", keys());
        assert_eq!(shown.len(), "[]".len() + id.to_string().len());
    }
}
