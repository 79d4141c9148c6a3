//! Whatever is recorded and however its bytes are cut, the result is the same.

use proptest::prelude::*;

use super::*;

fn events() -> impl Strategy<Value = Vec<Vec<String>>> {
    let code = prop::sample::select(vec![Code::Output, Code::Input, Code::Marker, Code::Ours]);
    let event = (0..10_000_000_u64, code, any::<String>())
        .prop_map(|(micros, code, text)| event_line(Time::from_micros(micros), code, &text));
    prop::collection::vec(prop::collection::vec(event, 1..5), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_recorded_is_received_countersigned_and_verified(
        records in events(),
        is_cut: bool,
        cuts in (1..2000_usize, 1..2000_usize, 1..2000_usize),
    ) {
        let site = Site::new();
        let recording = site.recording(&records, is_cut);
        let ending = if is_cut { Ending::Cut } else { Ending::Complete };
        let lines = site.countersignatures(&recording, cuts.0, ending);
        let export = weave(&recording, &lines, cuts.1);
        prop_assert_eq!(&export, &weave(&recording, &lines, recording.len()));
        let outcome = site.verify(&export, cuts.2);
        prop_assert_eq!(outcome.verdict, Verdict::Intact(ending));
        prop_assert_eq!(outcome.length, recording.len() as u64);
    }

    #[test]
    fn a_receiver_goes_on_behind_any_seal_as_if_it_had_never_stopped(
        records in events(),
        size in 1..2000_usize,
    ) {
        let site = Site::new();
        let recording = site.recording(&records, false);
        let mut seals = Vec::new();
        let mut receiver = site.receiver();
        for piece in recording.chunks(size) {
            receiver.push(piece, |position| seals.push(position)).unwrap();
        }
        prop_assert_eq!(seals.len(), records.len());
        prop_assert_eq!(receiver.end(), seals.last().copied());
        for (index, seal) in seals.iter().enumerate() {
            let keys = vec![site.node.public()];
            let mut resumed = Receiver::resume(site.id.clone(), NODE.to_owned(), keys, seal);
            prop_assert_eq!(resumed.end(), Some(*seal));
            let mut rest = Vec::new();
            let from = usize::try_from(seal.length).unwrap();
            resumed.push(&recording[from..], |position| rest.push(position)).unwrap();
            prop_assert_eq!(&rest[..], &seals[index + 1..]);
        }
    }

    #[test]
    fn what_is_encrypted_is_decrypted_in_its_place_only(parts in prop::collection::vec(any::<Vec<u8>>(), 1..6)) {
        let id = RecordingId::parse("a").unwrap();
        let key = DataKey::new([9; 32]);
        let mut encryptor = Encryptor::new(&key, id.clone());
        let texts: Vec<String> = parts
            .iter()
            .map(|part| {
                let line = encryptor.encrypt(Time::default(), part);
                match Line::parse(line.as_bytes()) {
                    Ok(Line::Event(event)) => event.text(),
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        let mut decryptor = Decryptor::new(&key, id);
        for (text, part) in texts.iter().zip(&parts) {
            prop_assert_eq!(decryptor.decrypt(text), Ok(part.clone()));
        }
        let number = parts.len() as u64;
        prop_assert_eq!(decryptor.decrypt(&texts[0]), Err(NotDecrypted(number)));
        let mut other = Decryptor::new(&key, RecordingId::parse("b").unwrap());
        prop_assert_eq!(other.decrypt(&texts[0]), Err(NotDecrypted(0)));
    }
}
