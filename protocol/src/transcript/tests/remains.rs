//! What is left of a recording on the node's disk is cut where it stops verifying, and closed under the node's seal.

use proptest::prelude::*;

use super::*;

fn survey(site: &Site, left: &[u8], from: usize, size: usize) -> Option<Remains> {
    let (id, node) = (site.id.clone(), NODE.to_owned());
    let mut survey = Survey::new(id, node, site.node.public(), from as u64);
    left[from..].chunks(size).for_each(|piece| survey.push(piece));
    survey.finish()
}

/// What the node sends in the place of what is left: as much of it as verifies, and the lines that close it.
fn mended(site: &Site, left: &[u8], from: usize, size: usize) -> (u64, Vec<u8>) {
    let remains = survey(site, left, from, size).unwrap();
    let length = remains.length;
    let lost = left.len() as u64 - length;
    let closing = remains.closing(lost, BEGAN, |text| site.node.sign(text));
    let mut whole = left[..usize::try_from(length).unwrap()].to_vec();
    whole.extend_from_slice(closing.as_bytes());
    (length, whole)
}

fn three_records() -> Vec<Vec<String>> {
    let record = |number: u64| {
        let text = |part: u64| {
            output(
                number * 1_000_000 + part,
                &format!("record {number} part {part}\r\n"),
            )
        };
        vec![text(1), text(2)]
    };
    vec![record(0), record(1), record(2)]
}

#[test]
fn behind_a_hole_it_is_closed_by_a_sealed_gap_and_an_end() {
    let site = Site::new();
    let whole = site.recording(&three_records(), false);
    let hole = memchr::memmem::find(&whole, b"record 1 part 2").unwrap();
    let mut left = whole.clone();
    left[hole..hole + 40].fill(0);
    let (length, mended) = mended(&site, &left, 0, 50);
    let kept = whole[..hole].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(length, kept as u64);
    let text = String::from_utf8(mended.clone()).unwrap();
    let lost = whole.len() - kept;
    assert!(text.contains(&format!("\\\"bytes\\\":{lost}")), "{text}");
    assert!(text.contains("\\\"event\\\":\\\"end\\\""), "{text}");
    let mut reader = OutputReader::default();
    reader.push(&mended).unwrap();
    assert!(!reader.has_ended(), "its output did not end there");
    let lines = site.countersignatures(&mended, 100, Ending::Cut);
    let outcome = site.verify(&weave(&mended, &lines, 9), 11);
    assert_eq!(outcome.verdict, Verdict::Intact(Ending::Cut), "{outcome:?}");
    assert_eq!(outcome.records, 2);
    // a second look finds nothing to do
    let again = survey(&site, &mended, 0, 50).unwrap();
    assert!(again.has_ended && again.length == mended.len() as u64);
    assert_eq!(again.closing(0, BEGAN, |text| site.node.sign(text)), "");
}

#[test]
fn a_record_whose_hash_is_wrong_is_left_out_whole() {
    let site = Site::new();
    let whole = site.recording(&three_records(), false);
    let at = memchr::memmem::find(&whole, b"record 1 part 1").unwrap();
    let mut left = whole.clone();
    left[at] = b'R';
    let (length, _) = mended(&site, &left, 0, 50);
    let seal = memchr::memmem::find(&whole, b"\"seal 1 ").unwrap();
    let end = seal + whole[seal..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(length, end as u64);
}

#[test]
fn what_another_key_sealed_and_what_is_not_sealed_is_nobody_s_to_judge() {
    let site = Site::new();
    let whole = site.recording(&three_records(), false);
    let stranger = Site {
        node: Signer::new(9),
        ..Site::new()
    };
    assert!(survey(&stranger, &whole, 0, 50).is_none());
    assert!(survey(&stranger, &whole, 10, 50).is_none());
    let plain = b"{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"x\"]\n";
    assert!(survey(&site, plain, 0, 50).is_none());
}

#[test]
fn of_an_encrypted_recording_what_has_no_seal_is_sealed_and_nothing_is_added() {
    let site = Site::new();
    let mut header = site.header();
    header.origin.encryption = Some(Encryption {
        recipients: vec!["age1".to_owned()],
        key: "x".to_owned(),
    });
    let mut encryptor = Encryptor::new(&DataKey::new([7; 32]), site.id.clone());
    let mut left = header.to_line();
    left += &encryptor.encrypt(Time::from_micros(5), output(5, "secret").as_bytes());
    let whole = left.len() as u64;
    left += "[0.0000";
    let (length, mended) = mended(&site, left.as_bytes(), 0, 50);
    assert_eq!(length, whole);
    let added = String::from_utf8(mended[usize::try_from(whole).unwrap()..].to_vec()).unwrap();
    assert!(
        added.starts_with("[0.000005,\"s\",\"seal 1 ") && added.lines().count() == 1,
        "{added}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Zeros anywhere, the end cut off anywhere, and looked at from anywhere: what was before it stays, what is sent is a
    /// recording that verifies, and nothing of the damage is in it.
    #[test]
    fn whatever_is_lost_what_is_sent_verifies(
        from in 0..4_usize,
        hole in (0..3000_usize, 1..600_usize),
        end in 0..3000_usize,
        size in 1..700_usize,
        is_cut: bool,
    ) {
        let site = Site::new();
        let whole = site.recording(&three_records(), is_cut);
        let from = from * whole.len() / 5;
        let mut left = whole[..whole.len() - end % (whole.len() - from)].to_vec();
        let begin = from + hole.0 % (left.len() - from).max(1);
        let stop = (begin + hole.1).min(left.len());
        if begin < stop {
            left[begin..stop].fill(0);
        }
        let remains = survey(&site, &left, from, size);
        let length = usize::try_from(remains.unwrap().length).unwrap();
        let most = if begin < stop { begin } else { left.len() };
        prop_assert!(length >= from && length <= most, "{} of {}", length, most);
        prop_assert_eq!(&left[..length], &whole[..length]);
        let (_, mended) = mended(&site, &left, from, size);
        if length > from || from == 0 && !mended.is_empty() {
            let mut receiver = site.receiver();
            let mut sealed = None;
            receiver.push(&mended, |position| sealed = Some(position)).unwrap();
            if mended.len() > length {
                prop_assert_eq!(sealed.unwrap().length, mended.len() as u64);
            }
        }
    }
}
